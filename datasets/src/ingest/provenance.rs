//! Where data came from: name of the source, licence, attribution.

use std::path::{Component, Path};

use serde::Deserialize;

use super::IngestError;

/// File beside the data that says where it came from.
const FILE: &str = "SOURCE.toml";

/// What is known about an input as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Name of the source, which also names the stream.
    pub name: String,
    /// File, as named relative to what was ingested.
    pub file: String,
    /// Licence, as an SPDX expression, or `unknown`.
    pub licence: String,
    /// Whom the licence asks to name; may be empty.
    pub attribution: String,
}

/// The form of `SOURCE.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    licence: String,
    attribution: String,
    /// Where the files were taken from, for people.
    #[serde(default, rename = "upstream")]
    _upstream: String,
    /// What was changed, for people.
    #[serde(default, rename = "changes")]
    _changes: String,
}

impl SourceInfo {
    /// Describes the file at `path` of which nothing but its name is known.
    pub fn unknown(path: &Path) -> Self {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Self {
            name: source_name(path),
            file: file.unwrap_or_default(),
            licence: "unknown".to_owned(),
            attribution: String::new(),
        }
    }

    /// Describes the file at `path`, with licence and attribution from the `SOURCE.toml` in its
    /// folder, where there is one.
    ///
    /// # Errors
    /// When a `SOURCE.toml` is there but cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, IngestError> {
        let mut info = Self::unknown(path);
        let beside = path.with_file_name(FILE);
        let wrong =
            |reason: String| IngestError::Provenance { file: beside.display().to_string(), reason };
        let text = match std::fs::read_to_string(&beside) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(info),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let described: Described =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        (info.licence, info.attribution) = (described.licence, described.attribution);
        Ok(info)
    }

    /// Describes a file of somebody's conversations: its source is the folder, because such a file
    /// may bear the name of the person who had them, and the source's name stays in the log.
    #[must_use]
    pub fn of_conversation(self, path: &Path) -> Self {
        let name = folder(path).map(|folder| undotted(&folder));
        Self { name: name.unwrap_or_else(|| "conversations".to_owned()), ..self }
    }

    /// Names the file as it should stand in locations.
    #[must_use]
    pub fn named(mut self, file: &str) -> Self {
        file.clone_into(&mut self.file);
        self
    }
}

/// Names the source of a file: its folder and stem, as in `toolcall/train`, packed or not.
pub fn source_name(path: &Path) -> String {
    let is_packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let unpacked = if is_packed { path.with_extension("") } else { path.to_owned() };
    let path = unpacked.as_path();
    let stem = path.file_stem().map(|stem| undotted(&stem.to_string_lossy())).unwrap_or_default();
    folder(path).map_or_else(|| stem.clone(), |folder| format!("{folder}/{stem}"))
}

/// Takes dots out: one would look like an extension in the name of a stream.
fn undotted(name: &str) -> String {
    name.replace('.', "-")
}

/// Names the folder that a file lies in.
fn folder(path: &Path) -> Option<String> {
    match path.parent()?.components().next_back()? {
        Component::Normal(folder) => Some(folder.to_string_lossy().into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_from_folder_and_stem() {
        assert_eq!(source_name(Path::new("/data/toolcall/train.jsonl")), "toolcall/train");
        assert_eq!(source_name(Path::new("/data/toolcall/train.jsonl.gz")), "toolcall/train");
        assert_eq!(source_name(Path::new("train.jsonl")), "train");
        assert_eq!(source_name(Path::new("./train.jsonl")), "train");
        assert_eq!(source_name(Path::new("langfuse/a-1.trace.json")), "langfuse/a-1-trace");
        let named = |path: &str| {
            let path = Path::new(path);
            SourceInfo::unknown(path).of_conversation(path).name
        };
        assert_eq!(named("/data/support/ann@example.org.json"), "support");
        assert_eq!(named("/ann@example.org.json"), "conversations");
    }

    #[test]
    fn licence_comes_from_the_file_beside() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("x.jsonl");
        assert_eq!(SourceInfo::of_file(&data).unwrap().licence, "unknown");
        let beside = folder.path().join(FILE);
        std::fs::write(&beside, "licence = 'CC-BY-4.0'\nattribution = 'Somebody'\n").unwrap();
        let info = SourceInfo::of_file(&data).unwrap();
        assert_eq!((info.licence.as_str(), info.attribution.as_str()), ("CC-BY-4.0", "Somebody"));
        std::fs::write(&beside, "licence = 'MIT'\nattribution = ''\nlicense = 'x'\n").unwrap();
        assert!(matches!(SourceInfo::of_file(&data), Err(IngestError::Provenance { .. })));
    }
}
