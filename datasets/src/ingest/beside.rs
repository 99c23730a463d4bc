//! What lies in files beside an input: the possible answers and function documents of BFCL.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// What was read from files beside an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// The files, in the order in which they were read.
    pub files: Vec<PathBuf>,
    /// Possible answers by the id of their question.
    pub answers: BTreeMap<String, Value>,
    /// Function documents by the name of their class.
    pub functions: BTreeMap<String, Vec<Value>>,
}
