//! Reading one `<tool_call ...>` element.

use serde_json::{Map, Value};

use super::page::Page;
use super::{CLOSE, CallForm, OPEN, call_of_value};
use crate::episode::Call;
use crate::literal::{self, Dialect, steps};

/// Most attributes, and characters that belong to none, of one opening tag. Without a limit, a
/// thousand tags that nothing ends would each be read to the end of the text.
const PIECES_MAX: usize = 256;

/// What one element holds.
pub(super) struct Element {
    /// Its calls (more than one only where an array stands between Hermes tags).
    pub(super) calls: Vec<Call>,
    pub(super) form: CallForm,
    pub(super) flags: Vec<&'static str>,
    /// Bytes of the element.
    pub(super) length: usize,
}

/// What an opening tag holds.
#[derive(Default)]
struct Opening {
    name: Option<String>,
    /// First attribute but the name whose value is an object.
    arguments: Option<Map<String, Value>>,
    dialect: Option<Dialect>,
    is_self_closing: bool,
    length: usize,
}

/// Reads the element that begins at byte `at`.
pub(super) fn read(page: &Page<'_>, at: usize, lift: bool) -> Result<Element, String> {
    let opening = opening(page, at)?;
    let start = at + opening.length;
    let (body, end) = if opening.is_self_closing { ("", start) } else { body(page, start) };
    let length = end - at;
    match opening.name {
        Some(_) => named(opening, body, length),
        None => hermes(body, length, lift),
    }
}

/// Returns the body that begins at byte `start`, and where its element ends.
///
/// The body ends at the closing tag; without one, at the next element or the end.
fn body<'a>(page: &Page<'a>, start: usize) -> (&'a str, usize) {
    let next = page.open_from(start);
    let is_body = |close: &usize| {
        next.is_none_or(|next| *close < next || is_object_across(page.from(start), next - start))
    };
    if let Some(close) = page.close_from(start).filter(is_body) {
        let close = close_behind_object(page, start).unwrap_or(close);
        return (page.between(start, close), close + CLOSE.len());
    }
    let end = next.unwrap_or(page.len());
    (page.between(start, end), end)
}

/// Returns whether an object at the start of `rest` reaches beyond `next` (a tag inside a string).
fn is_object_across(rest: &str, next: usize) -> bool {
    literal::parse_prefix(rest).is_ok_and(|(_, length, _)| length > next)
}

/// Returns where the closing tag stands behind the object at byte `start`: its strings may hold
/// one, too.
fn close_behind_object(page: &Page<'_>, start: usize) -> Option<usize> {
    let (_, length, _) = literal::parse_prefix(page.from(start)).ok()?;
    page.close_from(start + length)
}

fn named(opening: Opening, body: &str, length: usize) -> Result<Element, String> {
    let name = opening.name.filter(|name| !name.trim().is_empty()).ok_or("the name is empty")?;
    let mut flags = Vec::new();
    let attribute = opening.arguments.filter(|arguments| !arguments.is_empty());
    if let Some(arguments) = attribute {
        if opening.dialect == Some(Dialect::Python) {
            flags.push("gold.python_literal");
        }
        let calls = vec![Call { name, arguments }];
        return Ok(Element { calls, form: CallForm::Attribute, flags, length });
    }
    let (value, _, dialect) =
        literal::parse_prefix(skip_escaped_space(body)).map_err(|error| error.to_string())?;
    let Value::Object(arguments) = value else {
        return Err("arguments are no object".to_owned());
    };
    if dialect == Dialect::Python {
        flags.push("gold.python_literal");
    }
    // A whole call object inside a named wrapper says the same thing twice.
    let call = match call_of_value(&Value::Object(arguments.clone()), false) {
        Ok((call, _)) if call.name == name && arguments.len() == 2 => call,
        _ => Call { name, arguments },
    };
    Ok(Element { calls: vec![call], form: CallForm::Wrapper, flags, length })
}

fn hermes(body: &str, length: usize, lift: bool) -> Result<Element, String> {
    let mut flags = Vec::new();
    let trimmed = trim_escaped_space(body);
    if trimmed.len() != body.trim().len() {
        flags.push("gold.escaped_line_breaks");
    }
    let (value, dialect) = literal::parse(trimmed).map_err(|error| error.to_string())?;
    if dialect == Dialect::Python {
        flags.push("gold.python_literal");
    }
    let items = match value {
        Value::Array(items) if !items.is_empty() => items,
        value => vec![value],
    };
    let mut calls = Vec::new();
    for item in &items {
        let (call, more) = call_of_value(item, lift)?;
        calls.push(call);
        flags.extend(more);
    }
    Ok(Element { calls, form: CallForm::Tag, flags, length })
}

/// Reads `<tool_call name="f" ...>` or `.../>`.
fn opening(page: &Page<'_>, start: usize) -> Result<Opening, String> {
    let mut opening = Opening::default();
    let mut at = start + OPEN.len();
    for _ in 0..PIECES_MAX {
        let rest = page.from(at);
        let c = rest.chars().next().filter(|_| page.last_end.is_some_and(|last| at <= last));
        let Some(c) = c else {
            break;
        };
        if c == '>' || rest.starts_with("/>") {
            opening.is_self_closing = c == '/';
            opening.length = at + c.len_utf8() - start + usize::from(c == '/');
            return Ok(opening);
        }
        at += match attribute(rest) {
            Some((key, value, length)) => {
                opening.take(key, value);
                length
            }
            // What follows a key is no value whatever part of the key one begins with.
            None => key_length(rest).max(c.len_utf8()),
        };
    }
    Err("the opening tag does not end".to_owned())
}

/// Returns the bytes of the key that `text` begins with.
fn key_length(text: &str) -> usize {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let length = text.find(|c| !is_key(c)).unwrap_or(text.len());
    steps::add(length + 1);
    length
}

/// Value of an attribute.
enum Attribute {
    Text(String),
    Object(Map<String, Value>, Dialect),
}

impl Opening {
    fn take(&mut self, key: &str, value: Attribute) {
        match value {
            Attribute::Text(text) if key == "name" && self.name.is_none() => self.name = Some(text),
            Attribute::Object(object, dialect) if self.arguments.is_none() => {
                self.arguments = Some(object);
                self.dialect = Some(dialect);
            }
            Attribute::Text(_) | Attribute::Object(..) => {}
        }
    }
}

/// Reads `key=value` at the start of `text`: quoted, an object, or a bare word.
fn attribute(text: &str) -> Option<(&str, Attribute, usize)> {
    let key = text.get(..key_length(text)).filter(|key| !key.is_empty())?;
    let value = text.get(key.len()..)?.strip_prefix('=')?;
    let start = key.len() + 1;
    if value.starts_with('{') {
        let (object, length, dialect) = literal::parse_prefix(value).ok()?;
        let Value::Object(object) = object else {
            return None;
        };
        return Some((key, Attribute::Object(object, dialect), start + length));
    }
    if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inner = value.get(1..)?;
        let end = closing_quote(inner, quote)?;
        let written = inner.get(..end)?;
        let parsed = object_in(written).map_or_else(
            || Attribute::Text(unescape(written)),
            |(object, dialect)| Attribute::Object(object, dialect),
        );
        return Some((key, parsed, start + end + 2));
    }
    let end = value.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/' | ','))?;
    Some((key, Attribute::Text(value.get(..end)?.to_owned()), start + end))
}

/// Finds the quote that ends an attribute: the first one that no backslash stands before.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        steps::add(1);
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

/// Reads an object inside a quoted attribute: as it stands, then without its escapes.
fn object_in(written: &str) -> Option<(Map<String, Value>, Dialect)> {
    let plain = unescape(written);
    let unslashed = plain.replace("\\\"", "\"").replace("\\'", "'");
    [plain.as_str(), unslashed.as_str()].iter().find_map(|text| match literal::parse(text) {
        Ok((Value::Object(object), dialect)) => Some((object, dialect)),
        _ => None,
    })
}

fn unescape(text: &str) -> String {
    let pairs = [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Drops white space from both ends, and the two characters `\n` where they stand for a line break.
fn trim_escaped_space(text: &str) -> &str {
    let mut text = skip_escaped_space(text);
    loop {
        let trimmed = text.trim_end();
        match trimmed.strip_suffix("\\n") {
            Some(shorter) => text = shorter,
            None => return trimmed,
        }
    }
}

fn skip_escaped_space(text: &str) -> &str {
    let mut text = text;
    loop {
        let trimmed = text.trim_start();
        match trimmed.strip_prefix("\\n") {
            Some(shorter) => text = shorter,
            None => return trimmed,
        }
    }
}
