//! Context engineering prefixes: a document with a member `cep`, or plain text.
//!
//! A prefix is no trace, so it is not read as rows: whoever ingests one records it as proposed.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Format, IngestError, SourceInfo};

/// Longest prefix that is taken. Prefixes stand before every prompt; real ones have 1 to 2 KB.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A prefix as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CepText {
    /// Name of its file, without the ending.
    pub name: String,
    /// Its text, without white space around it.
    pub text: String,
}

/// Reads a prefix from the bytes of the file at `path`: the member `cep` of a JSON object, which is
/// text or an object with a member `text`, or the whole of a file that is no JSON object.
///
/// # Errors
/// [`IngestError::NotOfFormat`] when there is no prefix, or it is blank, longer than 1 MiB or no
/// UTF-8.
pub fn cep_of(path: &Path, bytes: &[u8]) -> Result<CepText, IngestError> {
    let wrong = |reason: &str| IngestError::NotOfFormat {
        file: name(path.file_name()),
        format: Format::CepText,
        reason: reason.to_owned(),
    };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    let text = match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(document) => {
            let cep = document.get("cep").ok_or_else(|| wrong("it has no member \"cep\""))?;
            let inner = cep.as_str().or_else(|| cep.get("text")?.as_str());
            inner.ok_or_else(|| wrong("its member \"cep\" is no text"))?.trim().to_owned()
        }
        Err(_) => text.trim().to_owned(),
    };
    if text.is_empty() {
        return Err(wrong("the prefix is blank"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong("the prefix is longer than 1 MiB"));
    }
    Ok(CepText { name: name(path.file_stem()), text })
}

fn name(name: Option<&OsStr>) -> String {
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Says that a prefix cannot be read as rows.
pub(super) fn no_trace(source: &SourceInfo) -> IngestError {
    IngestError::NotOfFormat {
        file: source.file.clone(),
        format: Format::CepText,
        reason: "a prefix is no trace and has no rows: propose it as a prefix".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_and_plain_texts_give_their_prefix() {
        let read = |bytes: &[u8]| cep_of(Path::new("/x/rules.v1.json"), bytes);
        let found = read(b"{\"cep_type\": \"compact\", \"cep\": \" Be brief.\\n\"}").unwrap();
        assert_eq!(found, CepText { name: "rules.v1".to_owned(), text: "Be brief.".to_owned() });
        assert_eq!(read(b"{\"cep\": {\"text\": \"Be brief.\"}}").unwrap(), found);
        assert_eq!(read(b"\xef\xbb\xbfBe brief.\r\n").unwrap(), found);
        let reason = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(reason(b"{\"a\": 1}").contains("no member \"cep\""));
        assert!(reason(b"{\"cep\": 1}").contains("is no text"));
        assert!(reason(b" \n").contains("blank"));
        assert!(reason(b"\xff").contains("UTF-8"));
        assert!(reason(&vec![b'x'; TEXT_BYTES_MAX + 1]).contains("1 MiB"));
    }
}
