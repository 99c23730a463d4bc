//! What Python's values are as texts, and the methods that its texts have.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use super::source;

/// How deep a value may be nested.
pub(super) const DEEPEST: usize = 200;

/// Arguments of a Python function, each by its place or its name.
pub(super) struct Arguments<'a> {
    placed: &'a [Value],
    named: Kwargs,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(values: &'a [Value]) -> Result<Self, Error> {
        let (placed, named) = from_args(values)?;
        Ok(Self { placed, named })
    }

    /// Returns an argument, if it was given.
    pub(super) fn take(&self, at: usize, name: &str) -> Result<Option<Value>, Error> {
        match self.placed.get(at) {
            Some(value) => Ok(Some(value.clone())),
            None if self.named.has(name) => self.named.get(name).map(Some),
            None => Ok(None),
        }
    }

    /// Refuses arguments that nobody took.
    pub(super) fn end(&self, most: usize) -> Result<(), Error> {
        if self.placed.len() > most {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        self.named.assert_all_used()
    }
}

/// Writes what an expression gave, as `str` would.
pub(super) fn format(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        return out.write_str(text).map_err(Error::from);
    }
    out.write_str(&text(value)).map_err(Error::from)
}

/// Returns a value as `str` writes it; an undefined one is nothing.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => value.to_string(),
        _ => {
            let mut out = String::new();
            represent(value, 0, &mut out);
            out
        }
    }
}

/// Writes a value as `repr` does.
fn represent(value: &Value, depth: usize, out: &mut String) {
    // A namespace can hold itself.
    if depth > DEEPEST {
        return out.push_str("...");
    }
    match value.kind() {
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number => match float(value) {
            Some(v) => out.push_str(&float_text(v)),
            None => out.push_str(&value.to_string()),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (at, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                represent(&item, depth + 1, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                represent(&key, depth + 1, out);
                out.push_str(": ");
                represent(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// Writes a text in the quotes and escapes of `repr`.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a String does not fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// Says whether `repr` shows a character as it is: Rust's `Debug` draws the same line, save for
/// marks at the start of a text.
fn is_printable(c: char) -> bool {
    c == '\'' || c == '"' || format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// Returns a value's number, if it is a float.
pub(super) fn float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    if is_float { f64::try_from(value.clone()).ok() } else { None }
}

/// Returns a float as `repr` writes it: the shortest digits that read back, with an exponent
/// where the number is very large or very small.
pub(super) fn float_text(v: f64) -> String {
    if v.is_nan() {
        return "nan".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = v.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Says whether Python takes a character for white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Slices as Python does: `start`, `stop` and `step` may each be none.
fn slice(value: &Value, values: &[Value]) -> Result<Value, Error> {
    let number = |at: usize| -> Result<Option<i64>, Error> {
        let value = values.get(at).filter(|value| !value.is_none());
        value.map(|value| i64::try_from(value.clone())).transpose()
    };
    let step = number(2)?.unwrap_or(1);
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if step == 0 || !(is_list || value.kind() == ValueKind::String) {
        let what = format!("{} cannot be sliced by steps of {step}", value.kind());
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |given: Option<i64>, default: i64| match given {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).max(lowest),
        Some(at) => at.min(highest),
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (mut at, stop) = (bound(number(0)?, first), bound(number(1)?, last));
    let mut taken = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        taken.extend(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned());
        at = at.saturating_add(step);
    }
    if is_list {
        return Ok(Value::from(taken));
    }
    Ok(Value::from(taken.iter().filter_map(Value::as_str).collect::<String>()))
}

/// Calls a method that minijinja's values do not have.
pub(super) fn method(
    state: &State<'_, '_>,
    value: &Value,
    name: &str,
    values: &[Value],
) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        let arguments = Arguments::new(values)?;
        if let Some(result) = of_text(text, name, &arguments)? {
            arguments.end(values.len())?;
            return Ok(result);
        }
    }
    match (value.kind(), name, values) {
        (_, source::SLICE, _) => slice(value, values),
        (ValueKind::Seq | ValueKind::Map, "copy", []) => Ok(value.clone()),
        (ValueKind::Seq, "index", [wanted]) => {
            let at = value.try_iter()?.position(|item| item == *wanted);
            at.map(Value::from).ok_or_else(|| wrong("the list does not hold this value"))
        }
        _ => pycompat::unknown_method_callback(state, value, name, values),
    }
}

/// Calls a method of texts whose result pycompat lacks or has otherwise.
fn of_text(text: &str, name: &str, arguments: &Arguments<'_>) -> Result<Option<Value>, Error> {
    let given = |at: usize, name: &str| -> Result<Option<String>, Error> {
        let value = arguments.take(at, name)?.filter(|value| !value.is_none());
        value.map(|value| expect_text(&value)).transpose()
    };
    let first = || given(0, "")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument));
    Ok(Some(match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, given(0, "chars")?.as_deref()).into(),
        "split" | "rsplit" => {
            let most = arguments.take(1, "maxsplit")?.map(i64::try_from).transpose()?;
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let parts = match given(0, "sep")?.as_deref() {
                Some("") => return Err(wrong("empty separator")),
                Some(separator) => split_at(text, separator, most, name == "rsplit"),
                None => split_spaces(text, most, name == "rsplit"),
            };
            Value::from(parts)
        }
        "splitlines" => {
            let keep = arguments.take(0, "keepends")?.is_some_and(|keep| keep.is_true());
            lines(text, keep).into_iter().map(Value::from).collect()
        }
        "removeprefix" => text.strip_prefix(first()?.as_str()).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(first()?.as_str()).unwrap_or(text).into(),
        "partition" | "rpartition" => {
            let separator = first()?;
            let (found, bare) = match name {
                "partition" => (text.split_once(separator.as_str()), [text, "", ""]),
                _ => (text.rsplit_once(separator.as_str()), ["", "", text]),
            };
            let parts = found.map_or(bare, |(left, right)| [left, separator.as_str(), right]);
            Value::from(parts.map(Value::from).to_vec())
        }
        "find" | "rfind" | "index" | "rindex" => {
            let part = first()?;
            let at = if name.starts_with('r') { text.rfind(&part) } else { text.find(&part) };
            let at = at.map(|at| text[..at].chars().count());
            match at {
                Some(at) => Value::from(at),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(wrong("substring not found")),
            }
        }
        "count" => {
            let part = first()?;
            let empty = part.is_empty().then(|| text.chars().count() + 1);
            Value::from(empty.unwrap_or_else(|| text.matches(part.as_str()).count()))
        }
        "isspace" | "isdigit" | "isnumeric" | "isalpha" | "isalnum" if text.is_empty() => {
            Value::from(false)
        }
        "isspace" => Value::from(text.chars().all(is_space)),
        "islower" => Value::from(is_lower(text)),
        "isupper" => Value::from(is_upper(text)),
        "title" => title(text, |c| !c.is_alphabetic()).into(),
        _ => return Ok(None),
    }))
}

/// Says whether a text has small letters and no capitals.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

/// Says whether a text has capitals and no small letters.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// Makes the first letter of every word a capital and the others small.
pub(super) fn title(text: &str, parts_words: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        match begins {
            true => out.extend(c.to_uppercase()),
            false => out.extend(c.to_lowercase()),
        }
        begins = parts_words(c);
    }
    out
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn expect_text(value: &Value) -> Result<String, Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => Ok(text.to_owned()),
        (kind, _) => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("a text is needed, not {kind}")))
        }
    }
}

/// Strips white space, or a set of characters, at the ends that the method's name says.
pub(super) fn strip<'a>(text: &'a str, name: &str, set: Option<&str>) -> &'a str {
    let goes = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    }
}

fn split_at(text: &str, separator: &str, most: usize, from_end: bool) -> Vec<Value> {
    let pieces = most.saturating_add(1);
    if from_end {
        let mut parts: Vec<_> = text.rsplitn(pieces, separator).map(Value::from).collect();
        parts.reverse();
        return parts;
    }
    text.splitn(pieces, separator).map(Value::from).collect()
}

/// Splits at runs of white space; the last piece keeps those within and beyond it.
fn split_spaces(text: &str, most: usize, from_end: bool) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut rest = strip(text, if from_end { "rstrip" } else { "lstrip" }, None);
    while !rest.is_empty() {
        let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut.filter(|_| parts.len() < most) else {
            parts.push(Value::from(rest));
            break;
        };
        let space = rest[cut..].chars().next().map_or(1, char::len_utf8);
        let (part, left) = match from_end {
            true => (&rest[cut + space..], strip(&rest[..cut], "rstrip", None)),
            false => (&rest[..cut], strip(&rest[cut..], "lstrip", None)),
        };
        parts.push(Value::from(part));
        rest = left;
    }
    if from_end {
        parts.reverse();
    }
    parts
}

/// Splits at every character that Python takes for the end of a line.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(ends_line) else {
            lines.push(rest);
            break;
        };
        let end = if rest[at..].starts_with("\r\n") { 2 } else { 0 };
        let end = at + end.max(rest[at..].chars().next().map_or(1, char::len_utf8));
        lines.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    lines
}

fn ends_line(c: char) -> bool {
    let ascii = matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}');
    ascii || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}
