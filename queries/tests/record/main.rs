//! The read side over a real record: what a small but whole loop leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod finding;
mod fixture;
mod folding;
mod following;
mod replaying;
mod reporting;
mod searching;
mod seed;
mod telling_why;
