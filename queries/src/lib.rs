//! The read side: what the record amounts to.
//!
//! Everything here folds, compares or explains events that stand in the record. Nothing here
//! appends: functions are given a [`ledger::Reader`], never the writer.

pub mod gate;
pub mod projection;
pub mod replay;
pub mod report;
pub mod search;
pub mod stats;
pub mod trace;
pub mod why;
