//! How an envelope becomes bytes: MessagePack, every field by name.
//!
//! The bytes of an event are what the Merkle tree hashes, so an event that is read is never
//! encoded again to check it: checks look at the stored bytes. Unknown fields are ignored on
//! reading, so that an older reader can show events of a newer writer.

use crate::event::Envelope;

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
    Ok(rmp_serde::to_vec_named(envelope)?)
}

/// Decodes stored bytes.
///
/// # Errors
/// When the bytes are no envelope.
pub fn decode(bytes: &[u8]) -> Result<Envelope, CodecError> {
    Ok(rmp_serde::from_slice(bytes)?)
}
