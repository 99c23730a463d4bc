//! Reading and writing what is stored: canonical JSON with a schema number.

use ledger::Digest;
use ledger::id::canonical_json;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::episode::{EPISODE_SCHEMA, Episode};
use crate::split::{SPLIT_SCHEMA, SplitManifest};
use crate::suite::{SUITE_SCHEMA, SuiteManifest};

/// Says why stored bytes cannot be read as what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are no JSON, or of another form.
    #[error("{what} is not of the form it should have")]
    Form {
        /// What was read.
        what: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The bytes were written by a newer version.
    #[error("{what} has schema {found}, newer than {known}: upgrade ledger")]
    Newer {
        /// What was read.
        what: &'static str,
        /// Its schema.
        found: u32,
        /// Newest schema known here.
        known: u32,
    },
}

/// A value with a schema number that is stored as canonical JSON.
pub trait Stored: Serialize + DeserializeOwned {
    /// What it is, in messages.
    const WHAT: &'static str;
    /// Newest version of its form that is known here.
    const SCHEMA: u32;

    /// Returns the bytes to store.
    fn to_stored(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When they are of another form, or were written by a newer version.
    fn from_stored(bytes: &[u8]) -> Result<Self, ManifestError> {
        let form = |source| ManifestError::Form { what: Self::WHAT, source };
        let value: Value = serde_json::from_slice(bytes).map_err(form)?;
        let found = value.get("schema").and_then(Value::as_u64).unwrap_or_default();
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        if found > Self::SCHEMA {
            return Err(ManifestError::Newer { what: Self::WHAT, found, known: Self::SCHEMA });
        }
        serde_json::from_value(value).map_err(form)
    }
}

impl Stored for Episode {
    const WHAT: &'static str = "episode";
    const SCHEMA: u32 = EPISODE_SCHEMA;
}

impl Stored for SplitManifest {
    const WHAT: &'static str = "split manifest";
    const SCHEMA: u32 = SPLIT_SCHEMA;
}

impl Stored for SuiteManifest {
    const WHAT: &'static str = "suite manifest";
    const SCHEMA: u32 = SUITE_SCHEMA;
}

/// Encodes `value` as canonical JSON.
///
/// Values of this crate hold string keys and finite numbers only (builders check the few floats
/// that callers pass in), so that encoding into memory cannot fail.
#[allow(clippy::expect_used)]
pub(crate) fn canonical<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    canonical_json(value).expect("string keys and finite numbers")
}

/// Hashes the canonical JSON of `value`.
pub(crate) fn digest_of<T: Serialize + ?Sized>(value: &T) -> Digest {
    Digest::of(&canonical(value))
}
