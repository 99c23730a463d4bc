//! `tojson` as transformers has it: Python's `json.dumps` with `ensure_ascii=False`.

use std::fmt::Write;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::python::{self, Arguments};

/// How JSON is laid out.
struct Style {
    ascii: bool,
    /// What one level is set in by; nothing keeps all on one line.
    indent: Option<String>,
    /// Between items.
    item: String,
    /// Between key and value.
    key: String,
    sorted: bool,
}

/// The filter: `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(value: Value, values: Rest<Value>) -> Result<Value, Error> {
    let arguments = Arguments::new(&values)?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ascii = is_true(arguments.take(0, "ensure_ascii")?);
    let indent = arguments.take(1, "indent")?.map_or(Ok(None), indent)?;
    let separators = arguments.take(2, "separators")?.filter(|value| !value.is_none());
    let sorted = is_true(arguments.take(3, "sort_keys")?);
    arguments.end(4)?;
    let (item, key) = match separators {
        Some(pair) => separators_of(&pair)?,
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let mut out = String::new();
    Style { ascii, indent, item, key, sorted }.write(&value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

/// Reads an indent: a text, or a number of spaces.
fn indent(value: Value) -> Result<Option<String>, Error> {
    if value.is_none() {
        return Ok(None);
    }
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_owned()));
    }
    let wrong = || refused(format!("an indent is a number or a text, not {value}"));
    let width = if value.kind() == ValueKind::Bool {
        i64::from(value.is_true())
    } else {
        value.as_i64().filter(|_| value.is_integer()).ok_or_else(wrong)?
    };
    Ok(Some(" ".repeat(usize::try_from(width).unwrap_or(0).min(1 << 10))))
}

fn separators_of(pair: &Value) -> Result<(String, String), Error> {
    let texts: Vec<Value> = pair.try_iter()?.collect();
    match texts.as_slice() {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(refused("separators are texts".to_owned())),
        },
        _ => Err(refused("separators are two texts".to_owned())),
    }
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::BadSerialization, what)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        // A namespace can hold itself.
        if depth > super::python::DEEPEST {
            return Err(refused("a value holds itself, or is nested too deep".to_owned()));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.before(at, depth + 1, out);
                    self.write(item, depth + 1, out)?;
                }
                self.after(items.len(), depth, out);
                out.push(']');
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                out.push('{');
                for (at, key) in keys.iter().enumerate() {
                    self.before(at, depth + 1, out);
                    self.text(&name(key)?, out);
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, depth + 1, out)?;
                }
                self.after(keys.len(), depth, out);
                out.push('}');
            }
            kind => return Err(refused(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    /// Writes what stands before an item.
    fn before(&self, at: usize, depth: usize, out: &mut String) {
        if at > 0 {
            out.push_str(&self.item);
        }
        self.line(depth, out);
    }

    /// Writes what stands behind the last item, if there are any.
    fn after(&self, items: usize, depth: usize, out: &mut String) {
        if items > 0 {
            self.line(depth, out);
        }
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => escape(c, out),
                '\u{7f}'.. if self.ascii => escape(c, out),
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}

fn escape(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a String does not fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

fn number(value: &Value) -> String {
    match python::float(value) {
        Some(v) if v.is_nan() => "NaN".to_owned(),
        Some(f64::INFINITY) => "Infinity".to_owned(),
        Some(f64::NEG_INFINITY) => "-Infinity".to_owned(),
        Some(v) => python::float_text(v),
        None => value.to_string(),
    }
}

/// Returns the name that a key of a map gets.
fn name(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        kind => Err(refused(format!("keys are texts or numbers, not {kind}"))),
    }
}
