//! Reading OTLP/HTTP: the body of an export, as protobuf or JSON, becomes spans.
//!
//! The formats are those of opentelemetry-proto 1.x. Bodies come from anybody: how many parts one
//! has is counted before anything is made of it, because two bytes can stand for a part that takes
//! hundreds in memory.

mod json;
mod limits;
mod protobuf;

use std::collections::BTreeMap;
use std::io::Read as _;

use datasets::span::{SPAN_SCHEMA, Span};
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

/// Most bytes of a body once it is unpacked.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Most parts (fields, or values of JSON) of a body.
const PARTS_MAX: usize = 1_000_000;
/// Most spans of a body.
const SPANS_MAX: usize = 20_000;
/// Most bytes of what is known of processes and libraries, counted once for each span of theirs.
const COMMON_BYTES_MAX: usize = 64 << 20;
/// Deepest nesting of values.
const DEPTH_MAX: usize = 32;
/// Most characters of a service's name in that of a source.
const SERVICE_MAX: usize = 60;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// What an export holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Export {
    /// Its spans, by source.
    pub sources: BTreeMap<String, Vec<Span>>,
    /// Spans that cannot be taken.
    pub rejected: u64,
    /// Why the last of them cannot.
    pub reason: String,
    /// Bytes of what spans have in common, with each of them.
    common_bytes: usize,
}

/// Says why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// It is not of the format.
    #[error("the body is no OTLP trace export: {0}")]
    Malformed(String),
    /// It is too large once it is unpacked, or of too many parts.
    #[error("the body has more than {max} {what}: send fewer spans at once")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        max: usize,
    },
}

/// Unpacks a body that came with gzip.
///
/// # Errors
/// When it is damaged, or holds more than is taken.
pub fn unpacked(body: &[u8]) -> Result<Vec<u8>, OtlpError> {
    let mut bytes = Vec::new();
    let mut reader = MultiGzDecoder::new(body).take(BODY_BYTES_MAX as u64 + 1);
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|error| OtlpError::Malformed(format!("gzip: {error}")))?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(OtlpError::TooLarge { what: "bytes", max: BODY_BYTES_MAX });
    }
    Ok(bytes)
}

/// Reads a body.
///
/// # Errors
/// When it is not of the format, or of too many parts. A span without proper ids is counted as
/// rejected.
pub fn read(body: &[u8], encoding: Encoding) -> Result<Export, OtlpError> {
    let export = match encoding {
        Encoding::Protobuf => {
            limits::check_protobuf(body)?;
            protobuf::read(body)
        }
        Encoding::Json => {
            limits::check_json(body)?;
            json::read(body)
        }
    }?;
    limits::check_texts(export.sources.values().flatten())?;
    Ok(export)
}

/// What spans have in common that one library of one process told.
struct Common {
    source: String,
    resource: Map<String, Value>,
    scope: String,
    /// Bytes of the resource.
    bytes: usize,
}

impl Common {
    fn new(resource: Map<String, Value>) -> Self {
        let bytes = serde_json::to_vec(&resource).map_or(0, |bytes| bytes.len());
        Self { source: source_of(&resource), resource, scope: String::new(), bytes }
    }

    fn scoped(&mut self, name: &str, version: &str) {
        self.scope = format!("{name} {version}").trim().to_owned();
    }
}

impl Export {
    /// Takes a span up, or says why it cannot be. Ids are bytes as they came.
    fn put(&mut self, common: &Common, ids: [&[u8]; 3], span: Span) -> Result<(), OtlpError> {
        self.common_bytes += common.bytes + common.scope.len();
        if self.common_bytes > COMMON_BYTES_MAX {
            let (what, max) = ("bytes of resources, once for each span", COMMON_BYTES_MAX);
            return Err(OtlpError::TooLarge { what, max });
        }
        if self.spans() >= SPANS_MAX {
            return Err(OtlpError::TooLarge { what: "spans", max: SPANS_MAX });
        }
        let [trace, own, parent] = ids;
        let is_proper = |id: &[u8], length| id.len() == length && id.iter().any(|&byte| byte != 0);
        if !is_proper(trace, 16) || !is_proper(own, 8) {
            self.reject("a span has no proper id: 16 bytes of its trace's, 8 of its own");
            return Ok(());
        }
        let span = Span {
            trace_id: hex(trace),
            span_id: hex(own),
            parent_id: is_proper(parent, 8).then(|| hex(parent)),
            resource: common.resource.clone(),
            scope: common.scope.clone(),
            ..span
        };
        self.sources.entry(common.source.clone()).or_default().push(span);
        Ok(())
    }

    fn reject(&mut self, reason: &str) {
        self.rejected += 1;
        reason.clone_into(&mut self.reason);
    }

    /// Counts its spans.
    pub fn spans(&self) -> usize {
        self.sources.values().map(Vec::len).sum()
    }
}

/// A span of which nothing is known yet.
fn blank() -> Span {
    Span {
        schema: SPAN_SCHEMA,
        trace_id: String::new(),
        span_id: String::new(),
        parent_id: None,
        name: String::new(),
        start_us: 0,
        end_us: None,
        attributes: Map::new(),
        events: Vec::new(),
        is_error: false,
        status_message: String::new(),
        resource: Map::new(),
        scope: String::new(),
    }
}

/// Names the source of spans by the service that told them.
fn source_of(resource: &Map<String, Value>) -> String {
    let service = resource.get("service.name").and_then(Value::as_str).unwrap_or_default().trim();
    if service.is_empty() || service.starts_with("unknown_service") {
        return "otlp".to_owned();
    }
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }
    };
    let name: String = service.chars().take(SERVICE_MAX).map(plain).collect();
    format!("otlp/{}", name.to_ascii_lowercase())
}

/// Writes a whole number; as text where JSON's numbers, as the record has them, would round it.
fn whole(number: i64) -> Value {
    const EXACT: u64 = 1 << 53;
    if number.unsigned_abs() > EXACT { Value::from(number.to_string()) } else { number.into() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Brings a time in nanoseconds to microseconds.
fn micros(nanos: u64) -> i64 {
    i64::try_from(nanos / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
