//! What comes in: files here; served calls through `serve`.

mod files;
mod identity;
mod import;
mod known;
mod opened;

pub use identity::Identity;
pub use import::{FileReport, ImportReport, import, trace_facts};
pub use opened::{Asked, Fresh, Opened, Prepared, committed_file};
