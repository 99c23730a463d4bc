//! The samples that ship with the crate, read for tests.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::episode::Episode;
use crate::ingest::{Row, SourceInfo, detect, read};

/// Returns the path of a sample.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// Reads a sample as `ledger ingest` would: format by content, provenance from beside the file.
pub(crate) fn rows(name: &str) -> Vec<Row> {
    let path = path(name);
    let mut first = vec![0; 4096];
    let length = File::open(&path).unwrap().read(&mut first).unwrap();
    let format = detect(&path, &first[..length]).unwrap();
    let info = SourceInfo::of_file(&path).unwrap();
    let input = BufReader::new(File::open(&path).unwrap());
    read(input, &info, &format.into()).map(Result::unwrap).collect()
}

/// Reads a sample's episodes, numbered from `first`. None may be rejected.
pub(crate) fn episodes(name: &str, first: u64) -> Vec<(u64, Episode)> {
    let all = rows(name).into_iter().flat_map(|row| row.result.unwrap());
    (first..).zip(all).collect()
}
