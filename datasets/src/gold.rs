//! Reading calls from text: strictly for scoring, tolerantly for golds and lenient readings.
//!
//! Forms that occur in the wild: the wrapper `<tool_call name="f">{...}</tool_call>`, the same with
//! its arguments inside the tag, Hermes tags with a call object between them, and bare call
//! objects or arrays of them, in JSON or as Python literals.

use serde_json::{Map, Value};

use crate::episode::{Call, json_text};
use crate::literal::{self, Dialect};

mod page;
mod tag;

use page::Page;

/// Most places at which the reader tries to find a call in one text.
const STARTS_MAX: usize = 1_000;
/// Most calls that are read from one answer. No gold has that many.
pub const CALLS_MAX: usize = 1_000;

const OPEN: &str = "<tool_call";
const CLOSE: &str = "</tool_call>";

/// Says why a gold cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoldError {
    /// There is nothing like a call.
    #[error("no call found in {excerpt:?}")]
    NoCall {
        /// Beginning of the text.
        excerpt: String,
    },
    /// One of the calls is malformed.
    #[error("call {number} cannot be read: {reason}: {excerpt:?}")]
    Call {
        /// Place of the call, from 1.
        number: usize,
        /// Why.
        reason: String,
        /// Beginning of the call.
        excerpt: String,
    },
}

/// How a call was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallForm {
    /// `<tool_call name="f">{...}</tool_call>`, with anything around it.
    Wrapper,
    /// `<tool_call name="f" arguments={...}>`.
    Attribute,
    /// `<tool_call>{"name": "f", "arguments": {...}}</tool_call>`.
    Tag,
    /// A bare call object.
    Object,
}

/// Golds that were read, with what had to be mended to read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Golds {
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// Flags such as `gold.python_literal`, sorted, each once.
    pub flags: Vec<String>,
}

/// The first call in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The call.
    pub call: Call,
    /// How it was written.
    pub form: CallForm,
}

/// Writes `call` as `<tool_call name="f">{...}</tool_call>`, arguments sorted and compact.
pub fn write_wrapper(call: &Call) -> String {
    let arguments = json_text(&Value::Object(call.arguments.clone()));
    format!("{OPEN} name=\"{}\">{arguments}{CLOSE}", call.name)
}

/// Says whether a tool of this name can be called in a wrapper: the name stands between quotes
/// inside a tag, and nothing escapes in it.
pub(crate) fn is_writable(name: &str) -> bool {
    !name.contains(['"', '<', '>'])
}

/// Reads a text that is exactly one wrapper around a JSON object, white space around it aside.
pub fn strict_call(text: &str) -> Option<Call> {
    let rest = text.trim().strip_prefix(OPEN)?.strip_prefix(" name=\"")?;
    let (name, rest) = rest.split_once('"')?;
    let body = rest.strip_prefix('>')?.strip_suffix(CLOSE)?;
    let arguments: Map<String, Value> = serde_json::from_str(body).ok()?;
    (!name.is_empty()).then(|| Call { name: name.to_owned(), arguments })
}

/// Reads a text that is nothing but wrappers around JSON objects with white space between them.
/// None where it is anything else, and where it holds no call or more than [`CALLS_MAX`].
pub fn strict_calls(text: &str) -> Option<Vec<Call>> {
    let mut rest = text.trim();
    let mut calls = Vec::new();
    loop {
        let (name, behind) = rest.strip_prefix(OPEN)?.strip_prefix(" name=\"")?.split_once('"')?;
        let body = behind.strip_prefix('>')?;
        let mut values = serde_json::Deserializer::from_str(body).into_iter::<Map<String, Value>>();
        let arguments = values.next()?.ok()?;
        let behind = body.get(values.byte_offset()..)?.trim_start_matches([' ', '\t', '\n', '\r']);
        let behind = behind.strip_prefix(CLOSE)?;
        if name.is_empty() || calls.len() == CALLS_MAX {
            return None;
        }
        calls.push(Call { name: name.to_owned(), arguments });
        rest = behind.trim_start();
        if rest.is_empty() {
            return Some(calls);
        }
        if rest.len() == behind.len() {
            return None;
        }
    }
}

/// Finds all calls in `text` that can be decoded, in order, whatever their form; at most
/// [`CALLS_MAX`]. The first of them is that of [`first_call`].
///
/// An object that is no call is passed over whole, as there. Looking stops behind a thousand places
/// that look like a call and are none.
pub fn all_calls(text: &str) -> Vec<Found> {
    let page = Page::new(text);
    let mut found = Vec::new();
    let (mut at, mut failed) = (0, 0);
    // Kept, so that a text without further braces is searched for them once.
    let mut brace = page.brace_from(0);
    while failed < STARTS_MAX && found.len() < CALLS_MAX {
        if brace.is_some_and(|place| place < at) {
            brace = page.brace_from(at);
        }
        let open = page.open_from(at);
        let Some(start) = open.into_iter().chain(brace).min() else {
            break;
        };
        let read = if open == Some(start) {
            tag::read(&page, start, false)
                .ok()
                .map(|read| (read.calls, read.form, read.length.max(1)))
        } else {
            literal::parse_prefix(page.from(start)).ok().map(|(value, length, _)| {
                let call = call_of_value(&value, false).ok().map(|read| read.0);
                (call.into_iter().collect(), CallForm::Object, length.max(1))
            })
        };
        let Some((calls, form, length)) = read else {
            failed += 1;
            at = start + 1;
            continue;
        };
        found.extend(calls.into_iter().map(|call| Found { call, form }));
        at = start + length;
    }
    found.truncate(CALLS_MAX);
    found
}

/// Finds the first call in `text` that can be decoded, whatever its form.
pub fn first_call(text: &str) -> Option<Found> {
    let page = Page::new(text);
    let mut at = 0;
    for _ in 0..STARTS_MAX {
        let rest = text.get(at..)?;
        let start = rest.find(['<', '{'])?;
        let here = rest.get(start..)?;
        let mut step = 1;
        if here.starts_with(OPEN) {
            if let Ok(read) = tag::read(&page, at + start, false) {
                return read.calls.into_iter().next().map(|call| Found { call, form: read.form });
            }
        } else if here.starts_with('{')
            && let Ok((value, length, _)) = literal::parse_prefix(here)
        {
            if let Some(call) = call_of_value(&value, false).ok().map(|read| read.0) {
                return Some(Found { call, form: CallForm::Object });
            }
            // An object that is no call is passed over whole: its members are not calls either.
            step = length.max(1);
        }
        at += start + step;
    }
    None
}

/// Reads all calls of a gold, in order. All must be readable, or none is taken.
///
/// # Errors
/// When the text holds no call, or one that cannot be read.
pub fn read_calls(text: &str) -> Result<Vec<Call>, GoldError> {
    read_golds(text).map(|golds| golds.calls)
}

/// Reads all calls of a gold, and tells what had to be mended.
///
/// # Errors
/// As [`read_calls`].
pub fn read_golds(text: &str) -> Result<Golds, GoldError> {
    let mut golds = if text.contains(OPEN) { tagged(text)? } else { bare(text)? };
    golds.flags.sort();
    golds.flags.dedup();
    Ok(golds)
}

fn tagged(text: &str) -> Result<Golds, GoldError> {
    let page = Page::new(text);
    let mut golds = Golds::default();
    let mut at = 0;
    let mut number = 0;
    while let Some(start) = page.open_from(at) {
        number += 1;
        let read = tag::read(&page, start, true).map_err(|reason| GoldError::Call {
            number,
            reason,
            excerpt: excerpt(page.from(start)),
        })?;
        golds.calls.extend(read.calls);
        golds.flags.extend(read.flags.into_iter().map(str::to_owned));
        at = start + read.length.max(OPEN.len());
    }
    Ok(golds)
}

fn bare(text: &str) -> Result<Golds, GoldError> {
    let unfenced = unfence(text);
    let Ok((value, dialect)) = literal::parse(unfenced.trim()) else {
        return Err(GoldError::NoCall { excerpt: excerpt(text) });
    };
    let items = match value {
        Value::Array(items) => items,
        value => vec![value],
    };
    let mut golds = Golds::default();
    if dialect == Dialect::Python {
        golds.flags.push("gold.python_literal".to_owned());
    }
    for (index, item) in items.iter().enumerate() {
        let (call, flags) = call_of_value(item, false).map_err(|reason| GoldError::Call {
            number: index + 1,
            reason,
            excerpt: excerpt(&item.to_string()),
        })?;
        golds.calls.push(call);
        golds.flags.extend(flags.into_iter().map(str::to_owned));
    }
    if golds.calls.is_empty() {
        return Err(GoldError::NoCall { excerpt: excerpt(text) });
    }
    Ok(golds)
}

/// Reads a call object: a name beside its arguments, under the keys that are in use.
///
/// `lift` also takes `{"arguments": {..., "name": "f"}}`, where a brace went astray in making the
/// data: no answer of a model is mended so, because an argument may well be called `name`.
fn call_of_value(value: &Value, lift: bool) -> Result<(Call, Vec<&'static str>), String> {
    let object = value.as_object().ok_or("not an object")?;
    if let Some(inner) = object.get("function").filter(|inner| inner.is_object()) {
        return call_of_value(inner, lift);
    }
    let mut flags = Vec::new();
    let arguments = ["arguments", "args", "parameters", "input"]
        .iter()
        .find_map(|&key| object.get(key))
        .ok_or("no arguments")?;
    let mut arguments = match arguments {
        Value::Object(arguments) => arguments.clone(),
        Value::String(text) => match literal::parse(text) {
            Ok((Value::Object(arguments), dialect)) => {
                if dialect == Dialect::Python {
                    flags.push("gold.python_literal");
                }
                arguments
            }
            _ => return Err("arguments are a text that is no object".to_owned()),
        },
        _ => return Err("arguments are no object".to_owned()),
    };
    let name = ["name", "tool_name", "toolName", "tool_call", "tool", "function"]
        .iter()
        .find_map(|&key| object.get(key).and_then(Value::as_str))
        .map(str::to_owned);
    let name = match name {
        Some(name) => name,
        None if lift && object.len() == 1 => match arguments.remove("name") {
            Some(Value::String(name)) => {
                flags.push("gold.name_lifted");
                name
            }
            _ => return Err("no name".to_owned()),
        },
        None => return Err("no name".to_owned()),
    };
    if name.trim().is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok((Call { name, arguments }, flags))
}

/// Returns what stands inside a code fence, or the text itself.
pub(crate) fn unfence(text: &str) -> &str {
    let trimmed = text.trim();
    let Some(inner) = trimmed.strip_prefix("```") else {
        return text;
    };
    let inner = inner.split_once('\n').map_or(inner, |(_, inner)| inner);
    let inner = inner.trim_end();
    inner.strip_suffix("```").unwrap_or(inner)
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
pub(crate) mod tests;
