//! The envelope: what every event carries, whatever its kind.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::id::Digest;

/// Most bytes that one encoded event may have, so that it fits a tlog-tiles entry bundle.
pub const EVENT_BYTES_MAX: usize = 65_535;

/// An event as it stands in the log. Nothing in it ever changes.
///
/// `facts` is what a replay must reproduce; `measured` (wall time, throughput, host, memory) is
/// what it need not. A replay compares (`kind`, `schema`, `facts`) only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Place in the log, from 0, without gaps.
    pub seq: u64,
    /// Request key: a second append with the same id and facts is a no-op.
    pub id: String,
    /// Stream, as `family/name`.
    pub stream: String,
    /// Place in the stream, from 0.
    pub version: u64,
    /// Kind, as `noun.verb`.
    pub kind: String,
    /// Version of the form of `facts` for this kind, from 1.
    pub schema: u32,
    /// When the event was appended: UTC, microseconds.
    pub at: DateTime<Utc>,
    /// Who caused it.
    pub actor: String,
    /// Event that led to this one.
    pub cause: Option<u64>,
    /// Run that this event belongs to.
    pub run: Option<String>,
    /// Leaf hash (RFC 6962) of the stored bytes of the previous event of the stream.
    pub prev: Option<Digest>,
    /// What a replay must reproduce.
    pub facts: Value,
    /// What was measured on the way: never compared.
    pub measured: Value,
}

/// An event to be appended. The log gives it `seq`, `version`, `at` and `prev`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// Request key, unique in the log.
    pub id: String,
    /// Stream, as `family/name`.
    pub stream: String,
    /// Kind, as `noun.verb`.
    pub kind: String,
    /// Version of the form of `facts`.
    pub schema: u32,
    /// Who caused it.
    pub actor: String,
    /// Event that led to this one.
    pub cause: Option<u64>,
    /// Run that this event belongs to.
    pub run: Option<String>,
    /// What a replay must reproduce.
    pub facts: Value,
    /// What was measured on the way.
    pub measured: Value,
}

/// Facts of one kind of event, in one version of their form.
pub trait Facts: Serialize + DeserializeOwned {
    /// Kind, as `noun.verb`.
    const KIND: &'static str;
    /// Version of the form.
    const SCHEMA: u32;
    /// What lifts the facts of schema 1 to 2, of 2 to 3, and so on. Stored facts are never
    /// rewritten.
    const UPCASTS: &'static [Upcast];
}

/// Lifts stored facts to the next schema.
pub type Upcast = fn(Value) -> Value;

/// Says why the facts of an event cannot be read as the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The event is of another kind.
    #[error("event {seq} is {found}, not {wanted}")]
    Kind {
        /// Event asked.
        seq: u64,
        /// Its kind.
        found: String,
        /// Kind asked for.
        wanted: &'static str,
    },
    /// The event was written by a newer version.
    #[error("event {seq} ({kind}) has schema {found}, newer than {known}: upgrade ledger")]
    Newer {
        /// Event asked.
        seq: u64,
        /// Its kind.
        kind: &'static str,
        /// Its schema.
        found: u32,
        /// Newest schema known here.
        known: u32,
    },
    /// The facts do not have the form of their kind.
    #[error("event {seq} ({kind}) has facts of another form")]
    Form {
        /// Event asked.
        seq: u64,
        /// Its kind.
        kind: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
}

impl NewEvent {
    /// Makes an event of kind `F` for `stream`, with `id` as request key.
    ///
    /// # Errors
    /// When the facts have no JSON form.
    pub fn new<F: Facts>(
        stream: impl Into<String>,
        id: impl Into<String>,
        actor: impl Into<String>,
        facts: &F,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: id.into(),
            stream: stream.into(),
            kind: F::KIND.to_owned(),
            schema: F::SCHEMA,
            actor: actor.into(),
            cause: None,
            run: None,
            facts: serde_json::to_value(facts)?,
            measured: Value::Object(serde_json::Map::new()),
        })
    }

    /// Names the event that led to this one.
    #[must_use]
    pub fn because_of(mut self, cause: u64) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Names the run that this event belongs to.
    #[must_use]
    pub fn in_run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Adds measurements (a JSON object).
    #[must_use]
    pub fn measured(mut self, measured: Value) -> Self {
        self.measured = measured;
        self
    }
}

impl Envelope {
    /// Reads the facts as kind `F`.
    ///
    /// # Errors
    /// When the event is of another kind, of a newer schema, or malformed.
    pub fn facts<F: Facts>(&self) -> Result<F, FactsError> {
        if self.kind != F::KIND {
            return Err(FactsError::Kind {
                seq: self.seq,
                found: self.kind.clone(),
                wanted: F::KIND,
            });
        }
        if self.schema > F::SCHEMA {
            return Err(FactsError::Newer {
                seq: self.seq,
                kind: F::KIND,
                found: self.schema,
                known: F::SCHEMA,
            });
        }
        let passed = usize::try_from(self.schema.saturating_sub(1)).unwrap_or(usize::MAX);
        let lifts = F::UPCASTS.iter().skip(passed);
        let facts = lifts.fold(self.facts.clone(), |facts, lift| lift(facts));
        serde_json::from_value(facts).map_err(|source| FactsError::Form {
            seq: self.seq,
            kind: F::KIND,
            source,
        })
    }
}

/// Reference to a body that lies beside the log as a content-addressed blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRef {
    /// SHA-256 of the bytes as stored (of the ciphertext where there is a cipher).
    pub digest: Digest,
    /// Bytes as stored.
    pub length: u64,
    /// Cipher of a personal body; none for a plain one.
    pub cipher: Option<String>,
    /// Subject whose key encrypts the body.
    pub subject: Option<String>,
}
