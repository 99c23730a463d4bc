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

impl Beside {
    /// Reads what lies beside a file.
    ///
    /// # Errors
    /// When such a file is there but cannot be read.
    pub fn find(
        _path: &std::path::Path,
        _format: super::Format,
    ) -> Result<Self, super::IngestError> {
        Ok(Self::default())
    }

    /// Tells a file that is read beside others only.
    pub fn is_companion(_path: &std::path::Path) -> bool {
        false
    }
}
