//! The real input that ships inside the program, so that the demo runs from anywhere.

use std::path::{Path, PathBuf};

use crate::error::AppError;

macro_rules! samples {
    ($($path:literal),* $(,)?) => {
        /// Files by path, with their licences and sources beside them.
        const SAMPLES: &[(&str, &[u8])] =
            &[$(($path, include_bytes!(concat!("../../datasets/samples/", $path)))),*];
    };
}

samples![
    "README.md",
    "biz_entity/SOURCE.toml",
    "biz_entity/entity_location_date.jsonl",
    "fledgling/recorded/SOURCE.toml",
    "fledgling/recorded/structured_azure.jsonl",
    "fledgling/recorded/structured_phi.jsonl",
    "fledgling/recorded/toolcall_azure.jsonl",
    "fledgling/recorded/toolcall_phi.jsonl",
    "fledgling/structured/SOURCE.toml",
    "fledgling/structured/eval100.jsonl",
    "fledgling/structured/train.jsonl",
    "fledgling/toolcall/SOURCE.toml",
    "fledgling/toolcall/eval100.jsonl",
    "fledgling/toolcall/train.jsonl",
    "hermes/LICENSE",
    "hermes/SOURCE.toml",
    "hermes/hermes_test.jsonl",
    "langfuse/LICENSE",
    "langfuse/SOURCE.toml",
    "langfuse/vercel-aisdk-2025-11-17.trace.json",
];

/// Writes the files into a folder and returns it; files that are there already are left alone.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(dir: &Path) -> Result<PathBuf, AppError> {
    let dir = dir.join("inputs");
    for (name, bytes) in SAMPLES {
        let path = dir.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let parent = path.parent().unwrap_or(&dir);
        std::fs::create_dir_all(parent).map_err(AppError::file(parent))?;
        std::fs::write(&path, bytes).map_err(AppError::file(&path))?;
    }
    Ok(dir)
}
