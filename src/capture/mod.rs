//! What comes in: files here; served calls through `serve`.

mod files;
mod identity;
mod import;

pub use files::{found, head};
pub use identity::Identity;
pub use import::{FileReport, ImportReport, Imported, import, read_file, trace_facts};
