//! Freezing data: suites to measure with, splits to train on.

mod mask;
mod profile;
mod query;
mod split;
mod suite;

pub use mask::{Mask, Part, Piece, mask};
pub use profile::{Bucket, Profile, Used, profile};
pub use query::{CORRECTION, QueryRows, feedback_id, rows_of_query, wish_of_query};
pub use split::{Split, SplitSource, SplitWish, build_split, load_split, split_facts};
pub use suite::{DEV_OF, Suite, build_suite, load_suite, suite_facts};
