//! The record: an append-only log that survives power cuts and that an auditor can prove.
//!
//! This crate is synchronous and offline. It knows nothing of models, search or the network.
//!
//! An append is acknowledged after its frames stand in the journal and `fdatasync` has returned.
//! Behind the journal stands an ordered store that can be rebuilt from it at any time. The
//! crate's README draws every format byte by byte and says what is trusted.

mod applier;
mod base64;
pub mod blob;
mod bodies;
mod canonical;
pub mod catalogue;
pub mod checkpoint;
pub mod clock;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod device;
pub mod durable;
pub mod event;
#[cfg(test)]
mod faults;
pub mod forget;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gc;
#[cfg(test)]
mod golden;
pub mod id;
mod ids;
pub mod interchange;
mod journal;
pub mod keys;
mod layout;
pub mod log;
pub mod memory;
mod merkle;
pub mod notebook;
mod plan;
pub mod proof;
pub mod reader;
pub mod repair;
mod socket;
mod store;
pub mod subject;
pub mod subscribe;
mod tiles_out;
mod tree;
pub mod verify;
mod writer;

pub use blob::{BlobError, Blobs, bodies_in};
pub use checkpoint::{CheckpointError, SignedCheckpoint, send_to_dir};
pub use clock::{Clock, FixedClock, SystemClock};
pub use event::{BodyRef, Envelope, Facts, NewEvent};
pub use forget::{ForgetError, Holdings};
pub use gc::{Garbage, GcError};
pub use id::Digest;
pub use interchange::{InterchangeError, import};
pub use keys::KeyHistory;
pub use log::{Durability, Log};
pub use memory::MemoryLog;
pub use notebook::{
    AppendError, Appended, CloseError, CreateError, Expected, Notebook, OpenError, OpenReport,
};
pub use proof::{Extension, LogProof, ProofError, Proven, Prover};
pub use reader::{Head, ReadError, Reader};
pub use repair::{RepairError, RepairReport, repair};
pub use subject::{SubjectError, SubjectKey, Subjects};
pub use subscribe::Subscription;
pub use tiles_out::{ExportError, Exported};
pub use verify::{Damage, Outside, VerifyError, VerifyReport, verify, verify_against};

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeExample;
