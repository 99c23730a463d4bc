//! Filters and tests of jinja2 where minijinja lacks them or has them otherwise.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::python::{self, Arguments};

/// Adds them to an environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("string", |value: Value| python::text(&value));
    environment.add_filter("join", join);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("indent", indent);
    environment.add_filter("trim", trim);
    environment.add_filter("title", |value: Value| title(&value));
    environment.add_filter("upper", |value: Value| python::text(&value).to_uppercase());
    environment.add_filter("lower", |value: Value| python::text(&value).to_lowercase());
    environment.add_filter("capitalize", |value: Value| capitalize(&value));
    environment.add_filter("replace", replace);
    environment.add_filter("first", |value: Value| end_of(&value, false));
    environment.add_filter("last", |value: Value| end_of(&value, true));
    environment.add_filter("round", round);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("items", items);
    environment.add_filter("escape", |value: Value| escape(&value));
    environment.add_filter("e", |value: Value| escape(&value));
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("number", is_number);
    environment.add_test("lower", |value: Value| python::is_lower(&python::text(&value)));
    environment.add_test("upper", |value: Value| python::is_upper(&python::text(&value)));
    environment.add_test("divisibleby", is_divisible);
}

fn is_sequence(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    match value.kind() {
        Iterable => value.len().is_some(),
        kind => matches!(kind, String | Seq | Map | Undefined),
    }
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn whole(value: &Value) -> Result<i64, Error> {
    value.as_i64().ok_or_else(|| wrong(format!("{value} is no whole number")))
}

/// minijinja's own fails at zero.
fn is_divisible(value: Value, by: Value) -> Result<bool, Error> {
    let (value, by) = (f64::try_from(value)?, f64::try_from(by)?);
    if by == 0.0 {
        return Err(wrong("a number cannot be divided by zero".to_owned()));
    }
    Ok(value % by == 0.0)
}

/// `join(d='', attribute=None)`.
fn join(value: Value, values: Rest<Value>) -> Result<String, Error> {
    let arguments = Arguments::new(&values)?;
    let separator = arguments.take(0, "d")?.map(|value| python::text(&value)).unwrap_or_default();
    let attribute = arguments.take(1, "attribute")?.filter(|value| !value.is_none());
    arguments.end(2)?;
    let mut out = String::new();
    for (at, item) in value.try_iter()?.enumerate() {
        if at > 0 {
            out.push_str(&separator);
        }
        let item = match &attribute {
            Some(path) => part(item, &python::text(path))?,
            None => item,
        };
        out.push_str(&python::text(&item));
    }
    Ok(out)
}

/// Follows a dotted path into a value.
fn part(value: Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(value, |value, step| match step.parse::<usize>() {
        Ok(at) => value.get_item_by_index(at),
        Err(_) => value.get_attr(step),
    })
}

fn length(value: Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        kind => value.len().ok_or_else(|| wrong(format!("{kind} has no length"))),
    }
}

/// `default(default_value='', boolean=False)`.
fn default(value: Value, values: Rest<Value>) -> Result<Value, Error> {
    let arguments = Arguments::new(&values)?;
    let other = arguments.take(0, "default_value")?.unwrap_or_else(|| Value::from(""));
    let lax = arguments.take(1, "boolean")?.is_some_and(|lax| lax.is_true());
    arguments.end(2)?;
    Ok(if value.is_undefined() || (lax && !value.is_true()) { other } else { value })
}

/// `indent(width=4, first=False, blank=False)`.
fn indent(value: Value, values: Rest<Value>) -> Result<String, Error> {
    let arguments = Arguments::new(&values)?;
    let width = arguments.take(0, "width")?.unwrap_or_else(|| Value::from(4));
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let first = is_true(arguments.take(1, "first")?);
    let blank = is_true(arguments.take(2, "blank")?);
    arguments.end(3)?;
    let by = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(whole(&width)?).unwrap_or(0).min(1 << 10)),
    };
    let text = python::text(&value) + "\n";
    let mut out = String::new();
    for (at, line) in python::lines(&text, false).into_iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let set_in = if at == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if set_in { &by } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// `trim(chars=None)`.
fn trim(value: Value, values: Rest<Value>) -> Result<String, Error> {
    let arguments = Arguments::new(&values)?;
    let set = arguments.take(0, "chars")?.filter(|set| !set.is_none());
    arguments.end(1)?;
    let set = set.map(|set| python::text(&set));
    Ok(python::strip(&python::text(&value), "strip", set.as_deref()).to_owned())
}

/// Capitalises words as jinja2 does, which parts them at fewer characters than Python.
fn title(value: &Value) -> String {
    let parts = |c: char| matches!(c, '-' | '(' | '{' | '[' | '<') || python::is_space(c);
    python::title(&python::text(value), parts)
}

fn capitalize(value: &Value) -> String {
    let text = python::text(value);
    let mut rest = text.chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    first.chain(rest.as_str().to_lowercase().chars()).collect()
}

/// `replace(old, new, count=None)`.
fn replace(value: Value, values: Rest<Value>) -> Result<String, Error> {
    let arguments = Arguments::new(&values)?;
    let given = |at: usize, name: &str| -> Result<String, Error> {
        let value = arguments.take(at, name)?;
        let absent = || Error::from(ErrorKind::MissingArgument);
        value.map(|value| python::text(&value)).ok_or_else(absent)
    };
    let (old, new) = (given(0, "old")?, given(1, "new")?);
    let count = arguments.take(2, "count")?.filter(|count| !count.is_none());
    arguments.end(3)?;
    let count = count.map(|count| whole(&count)).transpose()?;
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    Ok(python::text(&value).replacen(&old, &new, count))
}

/// Returns the first item, if there is any; with `from_end`, the last.
fn end_of(value: &Value, from_end: bool) -> Result<Value, Error> {
    let mut items = value.try_iter()?;
    let item = if from_end { items.last() } else { items.next() };
    Ok(item.unwrap_or(Value::UNDEFINED))
}

/// `round(precision=0, method='common')`.
fn round(value: Value, values: Rest<Value>) -> Result<Value, Error> {
    let arguments = Arguments::new(&values)?;
    let precision = arguments.take(0, "precision")?.map_or(Ok(0), |value| whole(&value))?;
    let method = arguments.take(1, "method")?.map(|value| python::text(&value));
    arguments.end(2)?;
    let v = f64::try_from(value.clone())?;
    let precision = i32::try_from(precision.clamp(-400, 400)).unwrap_or(0);
    let scale = 10_f64.powi(precision);
    match method.as_deref().unwrap_or("common") {
        "common" if value.is_integer() && precision >= 0 => Ok(value),
        // Formatting rounds the exact number, halves to even, as Python does.
        "common" => match usize::try_from(precision) {
            Ok(places) => Ok(Value::from(format!("{v:.places$}").parse::<f64>().unwrap_or(v))),
            Err(_) => Ok(Value::from((v * scale).round_ties_even() / scale)),
        },
        "ceil" => Ok(Value::from((v * scale).ceil() / scale)),
        "floor" => Ok(Value::from((v * scale).floor() / scale)),
        _ => Err(wrong("method must be common, ceil or floor".to_owned())),
    }
}

/// `int(default=0)`.
fn int(value: Value, values: Rest<Value>) -> Result<Value, Error> {
    let arguments = Arguments::new(&values)?;
    let other = arguments.take(0, "default")?.unwrap_or_else(|| Value::from(0));
    arguments.end(1)?;
    let from_float = |v: f64| v.is_finite().then(|| Value::from(v.trunc() as i128));
    let whole = match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => match python::float(&value) {
            Some(v) => from_float(v),
            None => Some(value),
        },
        ValueKind::String => {
            let text = number_text(&value);
            let whole = text.parse::<i128>().ok().map(Value::from);
            whole.or_else(|| text.parse().ok().and_then(from_float))
        }
        _ => None,
    };
    Ok(whole.unwrap_or(other))
}

/// `float(default=0.0)`.
fn float(value: Value, values: Rest<Value>) -> Result<Value, Error> {
    let arguments = Arguments::new(&values)?;
    let other = arguments.take(0, "default")?.unwrap_or_else(|| Value::from(0.0));
    arguments.end(1)?;
    let number = match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value).ok(),
        ValueKind::String => number_text(&value).parse().ok(),
        _ => None,
    };
    Ok(number.map_or(other, Value::from))
}

/// Returns a text that may be a number as Rust reads numbers: underscores may part digits.
fn number_text(value: &Value) -> String {
    let text = python::text(value);
    let text = python::strip(&text, "strip", None);
    let parted = text.split('_').all(|part| {
        let ends = [part.chars().next(), part.chars().next_back()];
        ends.iter().all(|end| end.is_some_and(|c| c.is_ascii_digit()))
    });
    if parted { text.replace('_', "") } else { text.to_owned() }
}

fn items(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Map => {
            let pair = |key: Value| Ok(Value::from(vec![key.clone(), value.get_item(&key)?]));
            value.try_iter()?.map(pair).collect::<Result<Vec<_>, Error>>().map(Value::from)
        }
        kind => Err(wrong(format!("{kind} has no items"))),
    }
}

fn escape(value: &Value) -> Value {
    if value.is_safe() {
        return value.clone();
    }
    let mut out = String::new();
    for c in python::text(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Value::from_safe_string(out)
}
