//! What lies in files beside an input: the possible answers and function documents of BFCL.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Format, IngestError, opened};

/// Most bytes that are read from all files beside one input.
const BYTES_MAX: u64 = 256 << 20;

/// Folder with the possible answers to the questions of a file of the same name.
const ANSWERS: &str = "possible_answer";
/// Folder with the function documents that rows name by class.
const DOCUMENTS: &str = "multi_turn_func_doc";

/// Classes by the stem of their document.
const CLASSES: [(&str, &str); 12] = [
    ("gorilla_file_system", "GorillaFileSystem"),
    ("math_api", "MathAPI"),
    ("memory_kv", "MemoryAPI_kv"),
    ("memory_rec_sum", "MemoryAPI_rec_sum"),
    ("memory_vector", "MemoryAPI_vector"),
    ("message_api", "MessageAPI"),
    ("posting_api", "TwitterAPI"),
    ("ticket_api", "TicketAPI"),
    ("trading_bot", "TradingBot"),
    ("travel_booking", "TravelAPI"),
    ("vehicle_control", "VehicleControlAPI"),
    ("web_search", "WebSearchAPI"),
];

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
    /// Reads what lies beside the file at `path`; nothing for formats of one file.
    ///
    /// For BFCL these are the possible answers in `possible_answer/` and, for files that name
    /// functions by class, the documents in `multi_turn_func_doc/`. Both folders lie beside the
    /// file or beside its folder.
    ///
    /// # Errors
    /// When a file is there but cannot be read, holds a row that is none, or two answers to one
    /// question; or when all of them are longer than 256 MiB together.
    pub fn find(path: &Path, format: Format) -> Result<Self, IngestError> {
        let mut beside = Self::default();
        if format != Format::Bfcl {
            return Ok(beside);
        }
        let mut left = BYTES_MAX;
        for file in Self::companions(path) {
            let rows = rows(&file, &mut left)?;
            if is_in(&file, DOCUMENTS) {
                let name = unpacked_name(&file);
                let stem = name.strip_suffix(".json").unwrap_or(&name);
                let known = CLASSES.iter().find(|(known, _)| *known == stem);
                let class = known.map_or(stem, |(_, class)| class).to_owned();
                beside.functions.insert(class, rows.into_iter().map(|(_, row)| row).collect());
            } else {
                beside.take_answers(&file, rows)?;
            }
            beside.files.push(file);
        }
        Ok(beside)
    }

    /// Returns the files beside the file at `path` that belong to it: its possible answers, then
    /// the function documents by name. Only files that are there.
    pub fn companions(path: &Path) -> Vec<PathBuf> {
        let Some(name) = path.file_name() else {
            return Vec::new();
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |name: &str| {
            // `..` and not the parent of the name: the path may be relative.
            let places = [folder.join("..").join(name), folder.join(name)];
            places.into_iter().find(|place| place.is_dir())
        };
        let mut found = Vec::new();
        if is_in(path, ANSWERS) || is_in(path, DOCUMENTS) {
            return found;
        }
        let name = name.to_string_lossy();
        // Either of the two files may be packed.
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        if let Some(folder) = beside(ANSWERS) {
            let files = [folder.join(plain), folder.join(format!("{plain}.gz"))];
            found.extend(files.into_iter().find(|file| file.is_file()));
        }
        if name.contains("multi_turn") || name.contains("web_search") {
            let entries = beside(DOCUMENTS).and_then(|folder| std::fs::read_dir(folder).ok());
            let files = entries.into_iter().flatten().flatten().map(|entry| entry.path());
            let is_json = |file: &PathBuf| unpacked_name(file).ends_with(".json");
            let mut documents: Vec<PathBuf> = files.filter(is_json).collect();
            documents.sort();
            found.extend(documents);
        }
        found
    }

    fn take_answers(&mut self, file: &Path, rows: Vec<(u64, Value)>) -> Result<(), IngestError> {
        for (row, mut value) in rows {
            let id = match value.get("id") {
                Some(Value::String(id)) => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                _ => return Err(wrong(file, row, "no id")),
            };
            let answer = value.get_mut("ground_truth").map(Value::take);
            let answer = answer.ok_or_else(|| wrong(file, row, "no field \"ground_truth\""))?;
            if self.answers.insert(id, answer).is_some() {
                return Err(wrong(file, row, "a second answer to one question"));
            }
        }
        Ok(())
    }
}

/// Returns a file's name without the end that says that it is packed.
fn unpacked_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

fn is_in(path: &Path, folder: &str) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name == folder)
}

/// Reads the rows of a file of JSON lines.
fn rows(path: &Path, left: &mut u64) -> Result<Vec<(u64, Value)>, IngestError> {
    let failed = |row, source| IngestError::Io { file: path.display().to_string(), row, source };
    let file = File::open(path).map_err(|error| failed(0, error))?;
    let mut input = opened(BufReader::new(file)).take(*left + 1);
    let mut rows = Vec::new();
    let mut line = String::new();
    for row in 1.. {
        line.clear();
        let length = input.read_line(&mut line).map_err(|error| failed(row, error))? as u64;
        *left = left.checked_sub(length).ok_or_else(|| {
            let what = format!("the files beside it are longer than {BYTES_MAX} bytes together");
            failed(row, io::Error::new(io::ErrorKind::FileTooLarge, what))
        })?;
        if length == 0 {
            break;
        }
        if !line.trim().is_empty() {
            let value: Result<Value, _> = serde_json::from_str(&line);
            let value = value.map_err(|error| {
                wrong(path, row, &format!("broken JSON at column {}", error.column()))
            })?;
            rows.push((row, value));
        }
    }
    Ok(rows)
}

fn wrong(file: &Path, row: u64, what: &str) -> IngestError {
    let source = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    IngestError::Io { file: file.display().to_string(), row, source }
}
