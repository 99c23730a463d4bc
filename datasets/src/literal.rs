//! A tolerant reader of values: JSON, and the Python literals that data sets hold instead.
//!
//! Tried in this order: strict JSON, then a reader that also takes single quotes, `True`, `False`,
//! `None`, tuples, trailing commas and raw line breaks in strings. What would have to be guessed
//! (bare words, missing commas, adjacent strings) is refused.

use serde_json::{Map, Number, Value};

/// Deepest nesting that is read, as in serde_json.
const DEPTH_MAX: u32 = 128;

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// JSON.
    Json,
    /// A Python literal, or something between the two.
    Python,
}

/// Says where and why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct LiteralError {
    /// Byte at which reading stopped.
    pub at: usize,
    /// Why.
    pub reason: &'static str,
}

/// Reads the whole of `text` as one value.
///
/// # Errors
/// When the text is no value, or goes on behind it.
pub fn parse(text: &str) -> Result<(Value, Dialect), LiteralError> {
    match serde_json::from_str(text) {
        Ok(value) => return Ok((value, Dialect::Json)),
        Err(error) => steps::add(error.column()),
    }
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.value()?;
    reader.skip_space();
    match reader.peek() {
        None => Ok((value, Dialect::Python)),
        Some(_) => Err(reader.error("text goes on behind the value")),
    }
}

/// Reads one value from the start of `text`, and returns how many bytes it took.
///
/// # Errors
/// When no value begins there.
pub fn parse_prefix(text: &str) -> Result<(Value, usize, Dialect), LiteralError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => {
            steps::add(values.byte_offset());
            return Ok((value, values.byte_offset(), Dialect::Json));
        }
        Some(Err(error)) => steps::add(error.column()),
        None => {}
    }
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.value()?;
    Ok((value, reader.at, Dialect::Python))
}

/// Counts bytes that were looked at, in tests only: the readers must stay linear on hostile texts,
/// and a clock cannot tell.
pub(crate) mod steps {
    #[cfg(test)]
    thread_local! {
        static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// Notes that `n` bytes were looked at.
    #[cfg(test)]
    pub(crate) fn add(n: usize) {
        STEPS.with(|steps| steps.set(steps.get() + n));
    }

    #[cfg(not(test))]
    pub(crate) fn add(_: usize) {}

    /// Returns how many bytes `work` looked at.
    #[cfg(test)]
    pub(crate) fn of(work: impl FnOnce()) -> usize {
        STEPS.with(|steps| steps.set(0));
        work();
        STEPS.with(std::cell::Cell::get)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Reader<'_> {
    fn error(&self, reason: &'static str) -> LiteralError {
        LiteralError { at: self.at, reason }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        steps::add(1);
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn value(&mut self) -> Result<Value, LiteralError> {
        self.skip_space();
        if self.depth >= DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        let value = match self.peek() {
            Some('{') => self.object(),
            Some('[') => self.sequence(']').map(|(items, _)| Value::Array(items)),
            Some('(') => self.tuple(),
            Some('"' | '\'') => self.string().map(Value::String),
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.word(),
            Some(_) => Err(self.error("no value begins with this character")),
            None => Err(self.error("the text ends where a value should stand")),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, LiteralError> {
        self.next();
        let mut map = Map::new();
        loop {
            self.skip_space();
            if self.peek() == Some('}') {
                self.next();
                return Ok(Value::Object(map));
            }
            let key = match self.value()? {
                Value::String(key) => key,
                Value::Number(key) => key.to_string(),
                _ => return Err(self.error("a key is neither text nor number")),
            };
            self.skip_space();
            if self.next() != Some(':') {
                return Err(self.error("no colon behind a key"));
            }
            let value = self.value()?;
            map.insert(key, value);
            self.skip_space();
            match self.next() {
                Some(',') => {}
                Some('}') => return Ok(Value::Object(map)),
                _ => return Err(self.error("neither comma nor end behind a member")),
            }
        }
    }

    /// Reads items up to `end`; the flag says whether a comma stood before it.
    fn sequence(&mut self, end: char) -> Result<(Vec<Value>, bool), LiteralError> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.peek() == Some(end) {
                self.next();
                return Ok((items, true));
            }
            items.push(self.value()?);
            self.skip_space();
            match self.next() {
                Some(',') => {}
                Some(c) if c == end => return Ok((items, false)),
                _ => return Err(self.error("neither comma nor end behind an item")),
            }
        }
    }

    fn tuple(&mut self) -> Result<Value, LiteralError> {
        let (mut items, comma) = self.sequence(')')?;
        if items.len() == 1 && !comma {
            return Ok(items.swap_remove(0));
        }
        Ok(Value::Array(items))
    }

    fn string(&mut self) -> Result<String, LiteralError> {
        let quote = self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("a string does not end")),
                Some('\\') => self.escape(&mut text)?,
                c if c == quote => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), LiteralError> {
        let plain = match self.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('\n') => return Ok(()),
            Some(c @ ('\\' | '\'' | '"' | '/')) => c,
            Some('x') => self.code_point(2)?,
            Some('u') => self.utf16()?,
            Some('U') => self.code_point(8)?,
            Some(c) => {
                // Python keeps the backslash of an escape that it does not know.
                text.push('\\');
                c
            }
            None => return Err(self.error("a string does not end")),
        };
        text.push(plain);
        Ok(())
    }

    fn hex(&mut self, digits: usize) -> Result<u32, LiteralError> {
        let code =
            self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let code = code.ok_or_else(|| self.error("an escape lacks hexadecimal digits"))?;
        self.at += digits;
        Ok(code)
    }

    fn code_point(&mut self, digits: usize) -> Result<char, LiteralError> {
        let code = self.hex(digits)?;
        char::from_u32(code).ok_or_else(|| self.error("an escape names no character"))
    }

    /// Reads `XXXX` behind `\u`, with its second half where it is one of a surrogate pair.
    fn utf16(&mut self) -> Result<char, LiteralError> {
        let first = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.error("half of a surrogate pair"));
        }
        if !self.rest().starts_with("\\u") {
            return Err(self.error("half of a surrogate pair"));
        }
        self.at += 2;
        let second = self.hex(4)?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.error("half of a surrogate pair"));
        }
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or_else(|| self.error("an escape names no character"))
    }

    fn number(&mut self) -> Result<Value, LiteralError> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let written = rest.get(..length).unwrap_or_default();
        let digits = written.trim_start_matches(['+', '-']);
        let has_leading_zero = digits.len() > 1
            && digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        let plain: String = written.trim_start_matches('+').chars().filter(|&c| c != '_').collect();
        let number = plain
            .parse::<i64>()
            .ok()
            .map(Number::from)
            .or_else(|| plain.parse::<u64>().ok().map(Number::from))
            .or_else(|| plain.parse::<f64>().ok().and_then(Number::from_f64))
            .filter(|_| {
                !has_leading_zero && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            })
            .ok_or_else(|| self.error("not a number"))?;
        self.at += length;
        Ok(Value::Number(number))
    }

    fn word(&mut self) -> Result<Value, LiteralError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let word = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
        let value = match word {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "null" | "None" => Value::Null,
            _ => return Err(self.error("a bare word that is no value")),
        };
        self.at += word.len();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn python_literals() {
        let cases = [
            ("{'a': True, 'b': None, 'c': False,}", json!({ "a": true, "b": null, "c": false })),
            ("(1, 2.5, -3)", json!([1, 2.5, -3])),
            ("(1)", json!(1)),
            ("(1,)", json!([1])),
            ("['it\\'s', \"two\\x41\"]", json!(["it's", "twoA"])),
            ("{1: '\\u00e9\\U0001F600'}", json!({ "1": "é😀" })),
            ("'\\ud83d\\ude00'", json!("😀")),
            ("1_000", json!(1000)),
            ("'a\nb'", json!("a\nb")),
        ];
        for (text, value) in cases {
            assert_eq!(parse(text).unwrap(), (value, Dialect::Python), "{text}");
        }
    }

    #[test]
    fn guesses_are_refused() {
        let texts = [
            "{'a': b}",
            "['a' 'b']",
            "[1 2]",
            "{'a' 1}",
            "'open",
            "{...}",
            "007",
            "nan",
            "--1",
            "{'a': 1} x",
            "",
            "1e999",
            "{[1]: 2}",
        ];
        for text in texts {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "(".repeat(5000);
        assert_eq!(parse(&text).unwrap_err().reason, "nested too deeply");
        let text = "[".repeat(5000);
        assert!(parse_prefix(&text).is_err());
    }

    #[test]
    fn prefix_tells_its_length() {
        let (value, length, dialect) = parse_prefix("{\"a\": 1}\"</tool_call>").unwrap();
        assert_eq!((value, length, dialect), (json!({ "a": 1 }), 8, Dialect::Json));
        let (_, length, dialect) = parse_prefix(" {'a': 1}>").unwrap();
        assert_eq!((length, dialect), (9, Dialect::Python));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = parse(&text);
            let _ = parse_prefix(&text);
        }

        #[test]
        fn strings_survive_python_quoting(text in "\\PC{0,40}") {
            let quoted = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
            prop_assert_eq!(parse(&quoted).unwrap().0, Value::String(text));
        }
    }
}
