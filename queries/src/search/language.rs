//! The language of queries.
//!
//! Words, `"phrases"`, `-excluded` or `NOT excluded`, `OR`, parentheses, `begin*`; fields as
//! `tool:get_weather` or `label:"any value, \"quoted\""`; numbers as `score:<0.5`, `seq:17`,
//! `score:[0 TO 0.5]`, `time:>2026-11-01`. What stands side by side must all fit, and binds more
//! tightly than `OR`. A date is the whole day (UTC): `time:>2026-11-01` begins the day after.
//!
//! Text that was pasted in is searched for its words: what has no meaning here separates words.
//! Only a lower-case name with a colon right before a value is taken as a field, so that a typing
//! error in one is told.

use std::ops::Bound;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime};

use super::SearchError;
use super::schema::{Exact, Number};

/// Deepest parentheses that count.
const DEEPEST: usize = 32;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Everything.
    Everything,
    /// All of these.
    All(Vec<Node>),
    /// At least one of these.
    Any(Vec<Node>),
    /// Not this.
    Not(Box<Node>),
    /// These words side by side; the last of them may go on where `begins` is set.
    Words { words: String, begins: bool },
    /// A field with this value, or with one that begins so.
    Value { field: Exact, value: String, begins: bool },
    /// A number within bounds.
    Range { number: Number, low: Bound<Amount>, high: Bound<Amount> },
}

/// A number as its field holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Amount {
    Seq(u64),
    /// Microseconds since 1970.
    Time(i64),
    Score(f64),
}

/// Reads a query.
///
/// # Errors
/// When it names a field that there is not, or a number or date cannot be read.
pub(super) fn parse(text: &str) -> Result<Node, SearchError> {
    if text.trim().is_empty() {
        return Ok(Node::Everything);
    }
    Parser { text, at: 0, depth: 0 }.any()
}

/// Reads a condition on feedback: a name, or a name with a bound as in `quality<0.5`.
///
/// # Errors
/// When the name is empty or the number cannot be read.
pub(super) fn parse_feedback(text: &str) -> Result<Node, SearchError> {
    let text = text.trim();
    let end = text.find(['<', '>', '=']).unwrap_or(text.len());
    let (name, bound) = text.split_at(end);
    let name = name.trim();
    if name.is_empty() {
        return Err(SearchError::Query(format!(
            "feedback {text:?} names none: write a name, or quality<0.5"
        )));
    }
    let value = name.to_owned();
    let named = Node::Value { field: Exact::Feedback, value, begins: false };
    if bound.is_empty() {
        return Ok(named);
    }
    let (low, high) = compared(Number::Score, bound)?;
    Ok(Node::All(vec![named, Node::Range { number: Number::Score, low, high }]))
}

struct Parser<'a> {
    text: &'a str,
    /// Next byte.
    at: usize,
    depth: usize,
}

/// A piece of a query.
enum Piece {
    End,
    Close,
    Or,
    Item(Node),
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the next characters for as long as they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn take(&mut self, what: &str) -> bool {
        let there = self.rest().starts_with(what);
        if there {
            self.at += what.len();
        }
        there
    }

    /// Reads alternatives up to the end or a closing parenthesis.
    fn any(&mut self) -> Result<Node, SearchError> {
        let (mut alternatives, mut all) = (Vec::new(), Vec::new());
        loop {
            match self.piece()? {
                Piece::Item(node) => all.push(node),
                Piece::Or => alternatives.push(std::mem::take(&mut all)),
                Piece::Close if self.depth == 0 => {}
                Piece::Close | Piece::End => break,
            }
        }
        alternatives.push(all);
        alternatives.retain(|all| !all.is_empty());
        let mut nodes: Vec<Node> = alternatives.into_iter().map(joined).collect();
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn piece(&mut self) -> Result<Piece, SearchError> {
        let mut negated = false;
        loop {
            self.take_while(char::is_whitespace);
            let Some(first) = self.peek() else { return Ok(Piece::End) };
            if self.take(")") {
                return Ok(Piece::Close);
            }
            if self.takes_word("OR") {
                return Ok(Piece::Or);
            }
            // Two of them are an option of a command that was pasted in.
            let minus = first == '-' && !self.rest().starts_with("--") && !self.ends_behind(1);
            if minus || self.takes_word("NOT") {
                self.at += usize::from(minus);
                negated = !negated;
            } else if first == '+' {
                self.at += 1;
            } else if !self.takes_word("AND") {
                let item = self.item()?;
                return Ok(Piece::Item(if negated { Node::Not(Box::new(item)) } else { item }));
            }
        }
    }

    /// Tells whether white space or the end stands `bytes` further on.
    fn ends_behind(&self, bytes: usize) -> bool {
        let next = self.text.get(self.at + bytes..).and_then(|rest| rest.chars().next());
        next.is_none_or(char::is_whitespace)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word) && self.ends_behind(word.len());
        if there {
            self.at += word.len();
        }
        there
    }

    fn item(&mut self) -> Result<Node, SearchError> {
        if self.peek() == Some('(') {
            self.at += 1;
            if self.depth == DEEPEST {
                return Ok(Node::Words { words: String::new(), begins: false });
            }
            self.depth += 1;
            let inner = self.any();
            self.depth -= 1;
            return inner;
        }
        if let Some(phrase) = self.quoted() {
            let begins = self.take("*");
            return Ok(Node::Words { words: phrase, begins });
        }
        if let Some(name) = self.field_name()? {
            return self.field(name);
        }
        // A quote without its partner separates, as all that is no letter or digit does.
        self.take("\"");
        let word = self.take_while(|c| !c.is_whitespace() && !"\"()".contains(c));
        Ok(words(word))
    }

    /// Takes a quoted text, if one begins here and ends somewhere.
    fn quoted(&mut self) -> Option<String> {
        let mut chars = self.rest().char_indices();
        chars.next().filter(|(_, c)| *c == '"')?;
        let (mut text, mut escaped) = (String::new(), false);
        for (at, c) in chars {
            match c {
                '"' | '\\' if escaped => text.push(c),
                '\\' => {
                    escaped = true;
                    continue;
                }
                '"' => {
                    self.at += at + 1;
                    return Some(text);
                }
                _ => {
                    if escaped {
                        text.push('\\');
                    }
                    text.push(c);
                }
            }
            escaped = false;
        }
        None
    }

    /// Takes the name of a field and its colon, if they stand here before a value.
    fn field_name(&mut self) -> Result<Option<&'a str>, SearchError> {
        let rest = self.rest();
        let Some((name, value)) = rest.split_once(':') else { return Ok(None) };
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let next = value.chars().next();
        if name.is_empty() || !name.chars().all(is_name) || next.is_none_or(char::is_whitespace) {
            return Ok(None);
        }
        let known = name == "text" || Exact::named(name).is_some() || Number::named(name).is_some();
        if !known && next.is_some_and(|c| ":/\\".contains(c)) {
            // An address or a path of a programming language.
            return Ok(None);
        }
        if !known {
            return Err(SearchError::UnknownField { name: name.to_owned() });
        }
        self.at += name.len() + 1;
        Ok(Some(name))
    }

    fn field(&mut self, name: &str) -> Result<Node, SearchError> {
        if let Some(number) = Number::named(name) {
            let (low, high) = self.bounds(number)?;
            return Ok(Node::Range { number, low, high });
        }
        let quoted = self.quoted();
        let literal = quoted.is_some();
        let value = quoted.unwrap_or_else(|| self.bare().to_owned());
        if name == "text" && literal {
            return Ok(Node::Words { words: value, begins: self.take("*") });
        }
        let Some(field) = Exact::named(name) else { return Ok(words(&value)) };
        Ok(match value.strip_suffix('*').filter(|begin| !literal && !begin.is_empty()) {
            Some(begin) => Node::Value { field, value: begin.to_owned(), begins: true },
            None => Node::Value { field, value, begins: false },
        })
    }

    /// Takes a value without quotes: up to white space, or to the end of a group.
    fn bare(&mut self) -> &'a str {
        let grouped = self.depth > 0;
        self.take_while(|c| !c.is_whitespace() && (c != ')' || !grouped))
    }

    fn bounds(&mut self, number: Number) -> Result<(Bound<Amount>, Bound<Amount>), SearchError> {
        let Some(open) = self.peek().filter(|c| "[{".contains(*c)) else {
            return compared(number, self.bare());
        };
        let rest = self.rest();
        let unread = || SearchError::Query(format!("{rest:?} is no range: write [0 TO 1]"));
        let end = rest.find([']', '}']).ok_or_else(unread)?;
        let close = rest.get(end..=end).unwrap_or_default();
        let (from, to) = rest.get(1..end).and_then(|r| r.split_once(" TO ")).ok_or_else(unread)?;
        self.at += end + 1;
        let low = match edges(number, from)? {
            None => Bound::Unbounded,
            Some((first, _)) if open == '[' => Bound::Included(first),
            Some((_, last)) => Bound::Excluded(last),
        };
        let high = match edges(number, to)? {
            None => Bound::Unbounded,
            Some((_, last)) if close == "]" => Bound::Included(last),
            Some((first, _)) => Bound::Excluded(first),
        };
        Ok((low, high))
    }
}

/// Puts what must all fit together.
fn joined(mut nodes: Vec<Node>) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) }
}

/// Makes a question of a bare word.
fn words(word: &str) -> Node {
    let begin = word.strip_suffix('*').filter(|begin| begin.ends_with(char::is_alphanumeric));
    Node::Words { words: begin.unwrap_or(word).to_owned(), begins: begin.is_some() }
}

/// Reads a number with the sign of a comparison before it.
fn compared(number: Number, text: &str) -> Result<(Bound<Amount>, Bound<Amount>), SearchError> {
    let value = |sign: &str| text.strip_prefix(sign).map(|value| edges(number, value));
    let none = Bound::Unbounded;
    for sign in ["<=", ">=", "<", ">", "="] {
        let Some(edges) = value(sign) else { continue };
        let Some((first, last)) = edges? else { return Ok((none, none)) };
        return Ok(match sign {
            "<=" => (none, Bound::Included(last)),
            ">=" => (Bound::Included(first), none),
            "<" => (none, Bound::Excluded(first)),
            ">" => (Bound::Excluded(last), none),
            _ => (Bound::Included(first), Bound::Included(last)),
        });
    }
    Ok(match edges(number, text)? {
        Some((first, last)) => (Bound::Included(first), Bound::Included(last)),
        None => (none, none),
    })
}

/// Reads a number: the first and the last amount that it means. `*` means any.
fn edges(number: Number, text: &str) -> Result<Option<(Amount, Amount)>, SearchError> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if text == "*" {
        return Ok(None);
    }
    let (read, form) = match number {
        Number::Seq => {
            let seq = text.parse().ok().map(Amount::Seq);
            (seq.map(|seq| (seq, seq)), "a number of an event")
        }
        Number::Score => {
            let score = text.parse().ok().filter(|score: &f64| score.is_finite());
            (score.map(|s| (Amount::Score(s), Amount::Score(s))), "a number")
        }
        Number::Time => (times(text), "a date as 2026-11-01 or a time as 2026-11-01T09:30:00Z"),
    };
    read.map(Some).ok_or_else(|| SearchError::Query(format!("{text:?} is not {form}")))
}

/// Reads a day or a moment.
fn times(text: &str) -> Option<(Amount, Amount)> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        let micros = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
        let next = day.checked_add_days(Days::new(1))?;
        return Some((Amount::Time(micros(day)), Amount::Time(micros(next) - 1)));
    }
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_micros());
    let moment = zoned.ok().or_else(|| {
        let read = |form| NaiveDateTime::parse_from_str(text, form).ok();
        let naive = read("%Y-%m-%dT%H:%M:%S%.f").or_else(|| read("%Y-%m-%dT%H:%M"))?;
        Some(naive.and_utc().timestamp_micros())
    })?;
    Some((Amount::Time(moment), Amount::Time(moment)))
}

#[cfg(test)]
mod tests;
