//! Counting the parts of a body before anything is made of it.

use datasets::span::Span;
use serde_json::Value;

use super::{DEPTH_MAX, OtlpError, PARTS_MAX};

/// A message whose parts count.
#[derive(Clone, Copy)]
enum Message {
    Export,
    ResourceSpans,
    Resource,
    EntityRef,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    KeyValue,
    AnyValue,
    Array,
    List,
}

impl Message {
    /// Returns the message that a field holds; none for fields that hold no message, or one of
    /// which nothing is kept.
    fn within(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Export, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::Resource, 3) => Self::EntityRef,
            (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::Span, 9)
            | (Self::Event, 3)
            | (Self::Link, 4)
            | (Self::List, 1) => Self::KeyValue,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::KeyValue, 2) | (Self::Array, 1) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::Array,
            (Self::AnyValue, 6) => Self::List,
            _ => return None,
        })
    }
}

fn too_many() -> OtlpError {
    OtlpError::TooLarge { what: "parts", max: PARTS_MAX }
}

fn too_deep() -> OtlpError {
    OtlpError::TooLarge { what: "levels of values within values", max: DEPTH_MAX }
}

fn malformed() -> OtlpError {
    OtlpError::Malformed("its fields do not follow one another".to_owned())
}

/// Checks how many parts a protobuf body has, and how deep they lie.
pub(super) fn check_protobuf(body: &[u8]) -> Result<(), OtlpError> {
    count(body, Message::Export, &mut 0, 0)
}

fn count(
    mut bytes: &[u8],
    message: Message,
    parts: &mut usize,
    depth: usize,
) -> Result<(), OtlpError> {
    // Values begin a few messages below the body itself.
    if depth > DEPTH_MAX + 8 {
        return Err(too_deep());
    }
    while !bytes.is_empty() {
        *parts += 1;
        if *parts > PARTS_MAX {
            return Err(too_many());
        }
        let tag = varint(&mut bytes).ok_or_else(malformed)?;
        let held = match tag & 7 {
            0 => varint(&mut bytes).map(|_| None),
            1 => take(&mut bytes, 8).map(|_| None),
            2 => varint(&mut bytes).and_then(|length| take(&mut bytes, length)).map(Some),
            5 => take(&mut bytes, 4).map(|_| None),
            // Groups are of no message of OTLP.
            _ => None,
        };
        if let Some(held) = held.ok_or_else(malformed)?
            && let Some(inner) = message.within(tag >> 3)
        {
            count(held, inner, parts, depth + 1)?;
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Checks how many values a body of JSON has, and how deep they lie. What is no JSON at all shows
/// when it is read.
pub(super) fn check_json(body: &[u8]) -> Result<(), OtlpError> {
    let (mut parts, mut depth, mut in_text, mut is_escaped) = (0, 0_usize, false, false);
    for &byte in body {
        if in_text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                (parts, depth) = (parts + 1, depth + 1);
                // A level of values is up to four of JSON.
                if depth > 4 * DEPTH_MAX {
                    return Err(too_deep());
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => parts += 1,
            _ => {}
        }
        if parts > PARTS_MAX {
            return Err(too_many());
        }
    }
    Ok(())
}

/// Checks how many values stand in JSON within the texts of spans, which is opened when they are
/// read.
pub(super) fn check_texts<'a>(spans: impl Iterator<Item = &'a Span>) -> Result<(), OtlpError> {
    let mut parts = 0;
    for span in spans {
        let own = span.attributes.values().chain(span.resource.values());
        let of_events = span.events.iter().flat_map(|event| event.attributes.values());
        for value in own.chain(of_events) {
            parts += parts_of_texts(value);
            if parts > PARTS_MAX {
                return Err(too_many());
            }
        }
    }
    Ok(())
}

fn parts_of_texts(value: &Value) -> usize {
    match value {
        Value::String(text) if text.trim_start().starts_with(['{', '[', '"']) => {
            text.bytes().filter(|byte| matches!(byte, b',' | b'{' | b'[')).count()
        }
        Value::Array(items) => items.iter().map(parts_of_texts).sum(),
        Value::Object(members) => members.values().map(parts_of_texts).sum(),
        _ => 0,
    }
}
