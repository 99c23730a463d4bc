//! Freezing data: suites to measure with, splits to train on.

mod card;
mod mask;
mod profile;
mod query;
mod split;
mod suite;

pub use card::card;
pub use mask::{Mask, Part, Piece, mask};
pub use profile::{Bucket, Profile, Used, profile};
pub use query::{
    CORRECTION, QueryRows, Searched, feedback_id, is_of_dev, rows_of_query, test_suites,
    wish_of_search,
};
pub use split::{
    Split, SplitSource, SplitWish, build_split, load_split, record_split, split_facts, split_of,
};
pub use suite::{DEV_OF, Suite, build_suite, load_suite, suite_facts, survey_suite};
