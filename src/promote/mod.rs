//! Decisions: reports published, policies held against them, deployments promoted or refused.

mod decide;
mod publish;
mod raise;

pub use decide::{Decided, decide, find_policy};
pub use publish::{Published, load_report, publish, write_pages};
pub use raise::{Override, Promoted, promote, selection_file, short};
