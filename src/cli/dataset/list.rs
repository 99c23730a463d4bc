//! `ledger dataset list`.

use std::fmt::Write as _;

use queries::projection::fold_all;
use serde_json::json;

use super::super::{Globals, Output};
use super::lines;
use crate::error::AppError;

pub(super) fn run(globals: &Globals) -> Result<Output, AppError> {
    let state = fold_all(&globals.reader()?)?;
    let mut text = String::new();
    let mut json = Vec::new();
    for built in &state.datasets.splits {
        let _ = writeln!(text, "{}", lines(&built.facts, built.event));
        json.push(json!({ "event": built.event, "dataset": built.facts }));
    }
    Ok(Output::lines(json, text))
}
