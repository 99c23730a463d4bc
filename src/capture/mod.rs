//! What comes in: files, spans and feedback here; served calls through `serve`.

mod feedback;
mod files;
mod gap;
mod identity;
mod import;
mod known;
pub mod langfuse;
mod opened;
pub mod otlp;
mod spans;
mod targets;

pub use feedback::{FeedbackIntake, Judged, Whose, bounded_name, page_subject, pending_subject};
pub use gap::{Gap, Lost, untold};
pub use identity::Identity;
pub use import::{FileReport, ImportReport, import, trace_facts};
pub use opened::{Asked, Fresh, Opened, Prepared, committed_file};
pub use spans::{SpanIntake, Taken};
