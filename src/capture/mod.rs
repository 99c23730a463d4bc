//! What comes in: files here; served calls through `serve`.

mod files;
mod identity;
mod import;

pub use files::{found, head};
pub use identity::Identity;
pub use import::{
    FileReport, ImportReport, Imported, committed_file, import, read_file, trace_facts,
};
