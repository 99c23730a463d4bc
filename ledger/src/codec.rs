//! How an envelope becomes bytes: MessagePack, every field by name.
//!
//! The bytes of an event are what the Merkle tree hashes, so an event that is read is never
//! encoded again to check it: checks look at the stored bytes. Unknown fields are ignored on
//! reading, so that an older reader can show events of a newer writer.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::event::Envelope;
use crate::id::Digest;

/// Says why an event cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The event has no MessagePack form.
    #[error("no MessagePack form: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The bytes are no envelope.
    #[error("not an envelope: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
}

/// Encodes an envelope as it is stored.
///
/// # Errors
/// When a field has no MessagePack form.
pub fn encode(envelope: &Envelope) -> Result<Vec<u8>, CodecError> {
    // Room for a usual event, so that it does not move while it grows.
    let mut bytes = Vec::with_capacity(1536);
    rmp_serde::encode::write_named(&mut bytes, envelope)?;
    Ok(bytes)
}

/// Decodes stored bytes.
///
/// # Errors
/// When the bytes are no envelope.
pub fn decode(bytes: &[u8]) -> Result<Envelope, CodecError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// What the record itself needs of an event. Nothing is copied, and the facts are walked through
/// only to see whether they may name bodies.
#[derive(Debug, Deserialize)]
pub(crate) struct Outline<'a> {
    pub(crate) seq: u64,
    pub(crate) id: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) version: u64,
    pub(crate) kind: &'a str,
    pub(crate) prev: Option<Digest>,
    pub(crate) facts: FactsOutline,
}

/// What is seen of facts in passing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FactsOutline {
    /// Some object in them has a field `digest`, as a reference to a body has.
    pub(crate) name_bodies: bool,
}

/// Decodes the outline of stored bytes.
pub(crate) fn outline(bytes: &[u8]) -> Result<Outline<'_>, CodecError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

impl<'de> Deserialize<'de> for FactsOutline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

/// Walks through a value of any form.
struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = FactsOutline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_unit<E>(self) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_none<E>(self) -> Result<FactsOutline, E> {
        Ok(FactsOutline::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<FactsOutline, D::Error> {
        inner.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FactsOutline, A::Error> {
        let mut name_bodies = false;
        while let Some(item) = items.next_element::<FactsOutline>()? {
            name_bodies |= item.name_bodies;
        }
        Ok(FactsOutline { name_bodies })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<FactsOutline, A::Error> {
        let mut name_bodies = false;
        while let Some(name) = fields.next_key::<&str>()? {
            let value = fields.next_value::<FactsOutline>()?;
            name_bodies |= value.name_bodies || name == "digest";
        }
        Ok(FactsOutline { name_bodies })
    }
}
