//! Where one row ends and the next begins.
//!
//! A file of rows has one of two shapes, and its content decides which:
//!
//! - **Lines**: one row a line, numbered by line. A broken line costs that line.
//! - **Values**: JSON values one after another, however they are laid out. The elements of an array
//!   that stands outside of all objects are rows like the values that stand alone; rows are
//!   numbered from 1. A value ends where its brackets close, so that one broken inside costs
//!   itself only. A closing bracket closes everything that was opened after its partner. Where a
//!   bracket is missing, a `{` that no JSON could have there begins the next row: behind a comma in
//!   an array, at the beginning of a line elsewhere. No JSON text holds a raw line feed, so that a
//!   text that is still open where its line ends is broken: it ends there, and the next line that
//!   begins with a `{` no deeper than the row itself begins the next row.
//!
//! The rule: a file whose first byte that is not blank is `[` holds values. One whose first line is
//! an object that closes in that line, or no object at all, holds lines. Where the object stays
//! open, the following lines are looked at: if one of them alone is a whole object with all keys
//! of the format, the first line was only a broken one, and the file holds lines; if the object
//! closes before that, it holds values. If it never closes, one line is a line, several are a
//! value that was cut off.
//!
//! No more than the longest row is held. What is longer is passed over, and told.

use std::io::{self, BufRead, ErrorKind, Read};

use ledger::Digest;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Deepest nesting in which partners of brackets are known; beyond, brackets are only counted.
const KINDS_MAX: usize = 4096;

/// Mark that some programs put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One row as it was found.
pub(super) struct Record {
    /// Line or number, from 1.
    pub(super) row: u64,
    /// Its bytes; none where there are too many.
    pub(super) bytes: Vec<u8>,
    /// SHA-256 of all its bytes.
    pub(super) content: Digest,
    /// What is wrong with it as a piece of the file.
    pub(super) fault: Option<Fault>,
}

/// What can be wrong with a piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is longer than so many bytes.
    TooLong(usize),
    /// The file ends inside it.
    CutOff,
    /// The file ends behind it, where an array still wants more.
    ArrayCutOff,
    /// A comma follows a comma.
    Empty,
}

impl Fault {
    /// Says it as a reason.
    pub(super) fn reason(self) -> String {
        match self {
            Self::TooLong(longest) => format!("longer than {longest} bytes"),
            Self::CutOff => "the file ends inside this row: it was cut off".to_owned(),
            Self::ArrayCutOff => "the file ends inside its array: it was cut off".to_owned(),
            Self::Empty => "nothing stands between two commas".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Lines,
    Values,
}

/// Reads the rows of an input one after another.
pub(super) struct Records<R> {
    input: Held<R>,
    /// Keys of a row, all of which a line must have to be a row without doubt. None: the file
    /// never holds lines.
    keys: &'static [&'static str],
    longest: usize,
    shape: Option<Shape>,
    row: u64,
    /// The array that rows are elements of is open.
    in_array: bool,
    /// The next thing in the array should be an element.
    wants_element: bool,
    /// The line that is being read, where the file holds values.
    line: Line,
}

impl<R: BufRead> Records<R> {
    /// Reads rows of at most `longest` bytes.
    pub(super) fn new(input: R, keys: &'static [&'static str], longest: usize) -> Self {
        let input = Held { bytes: Vec::new(), at: 0, failed: None, rest: input };
        let (in_array, wants_element) = (false, false);
        let line = Line { indent: 0, at_start: true };
        Self { input, keys, longest, shape: None, row: 0, in_array, wants_element, line }
    }

    /// Returns the place of the row that is being read.
    pub(super) fn row(&self) -> u64 {
        self.row.max(1)
    }

    /// Reads the next row.
    ///
    /// # Errors
    /// When the input fails. [`row`](Self::row) says where.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        let shape = match self.shape {
            Some(shape) => shape,
            None => {
                let shape = self.input.look_ahead(self.keys, self.longest);
                self.shape = Some(shape);
                shape
            }
        };
        match shape {
            Shape::Lines => self.next_line(),
            Shape::Values => self.next_value(),
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Record>> {
        loop {
            self.row += 1;
            let mut taker = Taker::new(self.longest);
            let mut is_end = true;
            loop {
                let buffer = self.input.filled()?;
                if buffer.is_empty() {
                    break;
                }
                is_end = false;
                let end = buffer.iter().position(|&byte| byte == b'\n');
                let length = end.map_or(buffer.len(), |end| end + 1);
                taker.take(buffer.get(..end.unwrap_or(length)).unwrap_or_default());
                self.input.consume(length);
                if end.is_some() {
                    break;
                }
            }
            if is_end {
                return Ok(None);
            }
            let is_blank = taker.bytes.trim_ascii().is_empty() && taker.hash.is_none();
            if !is_blank {
                return Ok(Some(taker.finish(self.row, None)));
            }
        }
    }

    fn next_value(&mut self) -> io::Result<Option<Record>> {
        loop {
            let buffer = self.input.filled()?;
            let Some(&byte) = buffer.first() else {
                self.row += 1;
                let is_cut_off = std::mem::take(&mut self.in_array);
                let none = Taker::new(self.longest);
                return Ok(is_cut_off.then(|| none.finish(self.row, Some(Fault::ArrayCutOff))));
            };
            if !matches!(byte, b'{' | b'[') || (byte == b'[' && !self.in_array) {
                self.line.pass(byte);
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.input.consume(1),
                b',' => {
                    self.input.consume(1);
                    if self.in_array && std::mem::replace(&mut self.wants_element, true) {
                        self.row += 1;
                        let none = Taker::new(self.longest);
                        return Ok(Some(none.finish(self.row, Some(Fault::Empty))));
                    }
                }
                b'[' if !self.in_array => {
                    self.input.consume(1);
                    (self.in_array, self.wants_element) = (true, true);
                }
                b']' if self.in_array => {
                    self.input.consume(1);
                    self.in_array = false;
                }
                _ => {
                    self.row += 1;
                    self.wants_element = false;
                    let is_nested = matches!(byte, b'{' | b'[');
                    return if is_nested { self.bracketed() } else { self.bare() }.map(Some);
                }
            }
        }
    }

    /// Reads an object or array, up to where its brackets close.
    fn bracketed(&mut self) -> io::Result<Record> {
        let mut taker = Taker::new(self.longest);
        let within = if self.in_array { Within::Array } else { Within::File };
        let mut scan = Scan::new(within, self.line);
        loop {
            let buffer = self.input.filled()?;
            if buffer.is_empty() {
                // The array has been told to be cut off with its last element.
                self.in_array = false;
                return Ok(taker.finish(self.row, Some(Fault::CutOff)));
            }
            let end = scan.feed(buffer);
            let length = end.unwrap_or(buffer.len());
            taker.take(buffer.get(..length).unwrap_or_default());
            self.input.consume(length);
            if end.is_some() {
                self.line = scan.line;
                return Ok(taker.finish(self.row, None));
            }
        }
    }

    /// Reads what begins with no bracket: up to the end of the line or of the element.
    fn bare(&mut self) -> io::Result<Record> {
        let mut taker = Taker::new(self.longest);
        let (mut in_string, mut is_escaped) = (false, false);
        loop {
            let in_array = self.in_array;
            let buffer = self.input.filled()?;
            let end = buffer.iter().position(|&byte| {
                match byte {
                    b'\n' => return true,
                    b',' | b']' if in_array && !in_string => return true,
                    b'"' if !is_escaped => in_string = !in_string,
                    _ => {}
                }
                is_escaped = in_string && byte == b'\\' && !is_escaped;
                false
            });
            let is_end = buffer.is_empty() || end.is_some();
            let length = end.unwrap_or(buffer.len());
            taker.take(buffer.get(..length).unwrap_or_default());
            self.input.consume(length);
            if is_end {
                return Ok(taker.finish(self.row, None));
            }
        }
    }
}

/// Collects the bytes of one row, as long as they are not too many.
struct Taker {
    longest: usize,
    bytes: Vec<u8>,
    /// Hash of a row that is too long.
    hash: Option<Sha256>,
}

impl Taker {
    fn new(longest: usize) -> Self {
        Self { longest, bytes: Vec::new(), hash: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.hash {
            Some(hash) => hash.update(bytes),
            None if self.bytes.len() + bytes.len() <= self.longest => {
                self.bytes.extend_from_slice(bytes);
            }
            None => {
                let mut hash = Sha256::new();
                hash.update(std::mem::take(&mut self.bytes));
                hash.update(bytes);
                self.hash = Some(hash);
            }
        }
    }

    fn finish(mut self, row: u64, fault: Option<Fault>) -> Record {
        if let Some(hash) = self.hash {
            let content = Digest::from_bytes(hash.finalize().into());
            let fault = Some(Fault::TooLong(self.longest));
            return Record { row, bytes: Vec::new(), content, fault };
        }
        while self.bytes.last().is_some_and(|&byte| matches!(byte, b'\n' | b'\r')) {
            self.bytes.pop();
        }
        let content = Digest::of(&self.bytes);
        Record { row, bytes: self.bytes, content, fault }
    }
}

/// Where in its line a byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    /// Blanks at its beginning.
    indent: u64,
    /// Nothing but blanks stood in it so far.
    at_start: bool,
}

impl Line {
    /// Goes over a byte.
    fn pass(&mut self, byte: u8) {
        match byte {
            b'\n' => *self = Self { indent: 0, at_start: true },
            b' ' | b'\t' | b'\r' => self.indent += u64::from(self.at_start),
            _ => self.at_start = false,
        }
    }
}

/// Follows brackets and strings, without calling itself: no depth is too deep.
#[derive(Default)]
struct Scan {
    within: Within,
    /// Brackets that are open, the outermost first.
    kinds: Vec<u8>,
    /// How many more are open inside them.
    deeper: u64,
    in_string: bool,
    is_escaped: bool,
    /// Last byte that is no white space.
    last: u8,
    line: Line,
    /// Deepest indent of the line in which the next row may begin.
    indent_max: u64,
    /// A line ended inside a string, which no JSON has.
    is_broken: bool,
}

/// What a value that is followed stands in, which says where it ends if it is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    /// Nobody knows yet: nothing but its own brackets ends it.
    #[default]
    Unknown,
    Array,
    File,
}

impl Scan {
    /// Follows a value that begins in `line`.
    fn new(within: Within, line: Line) -> Self {
        // `[{` on one line has the next row one blank in, where the rows are lined up.
        let indent_max = line.indent + u64::from(!line.at_start);
        Self { within, line, indent_max, ..Self::default() }
    }

    /// Follows more bytes of a value that begins with a bracket. Returns how many of them belong
    /// to it, once it ends. Inside an array, a `]` without partner is the end of that array.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    b'\n' => {
                        (self.in_string, self.is_escaped, self.is_broken) = (false, false, true);
                        self.line.pass(byte);
                    }
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.line.pass(byte);
                    continue;
                }
                b']' if self.within == Within::Array && self.is_back() => return Some(at),
                b'"' => self.in_string = true,
                b'{' if self.begins_next() => return Some(at),
                b'{' | b'[' if self.kinds.len() < KINDS_MAX => self.kinds.push(byte),
                b'{' | b'[' => self.deeper += 1,
                b'}' | b']' if self.deeper > 0 => self.deeper -= 1,
                b'}' | b']' => {
                    let partner = if byte == b'}' { b'{' } else { b'[' };
                    match self.kinds.iter().rposition(|&kind| kind == partner) {
                        Some(place) => self.kinds.truncate(place),
                        None if byte == b']' && self.within == Within::Array => return Some(at),
                        None => self.kinds.clear(),
                    }
                    if self.kinds.is_empty() {
                        self.line.pass(byte);
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            self.last = byte;
            self.line.pass(byte);
        }
        None
    }

    /// Says whether the value is broken, and a line begins now that is no deeper than it.
    fn is_back(&self) -> bool {
        self.is_broken && self.line.at_start && self.line.indent <= self.indent_max
    }

    /// Says whether a `{` that comes now cannot belong to the value, and looks like the next row.
    fn begins_next(&self) -> bool {
        let in_object = self.kinds.last() == Some(&b'{') && self.deeper == 0;
        match self.within {
            Within::Unknown => false,
            _ if self.is_back() => true,
            Within::Array => in_object && self.last == b',',
            Within::File => {
                let at_line_start = self.line.at_start && self.line.indent == 0;
                in_object && at_line_start && self.last != b':'
            }
        }
    }
}

/// An input of which the beginning may have been read already.
struct Held<R> {
    bytes: Vec<u8>,
    at: usize,
    /// Failure that stands behind the bytes.
    failed: Option<io::Error>,
    rest: R,
}

impl<R: BufRead> Held<R> {
    /// Returns the bytes that come next; none at the end.
    fn filled(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        self.fill_buf()
    }

    /// Tells the shape of the file by its beginning, which is kept to be read.
    fn look_ahead(&mut self, keys: &[&str], longest: usize) -> Shape {
        if keys.is_empty() {
            return self.pass_mark();
        }
        let mut scan = Scan::default();
        let mut seen = 0;
        while self.bytes.len() <= longest {
            let start = self.bytes.len();
            let room = (longest + 1 - start) as u64;
            match self.rest.by_ref().take(room).read_until(b'\n', &mut self.bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            if start == 0 && self.bytes.starts_with(BOM) {
                self.bytes.drain(..BOM.len());
            }
            let line = self.bytes.get(start..).unwrap_or_default().trim_ascii();
            let Some(first) = line.first() else { continue };
            if seen == 0 {
                match first {
                    b'[' => return Shape::Values,
                    b'{' if scan.feed(line).is_none() => {}
                    _ => return Shape::Lines,
                }
            } else if is_row(line, keys) {
                return Shape::Lines;
            } else if scan.feed(line).is_some() {
                return Shape::Values;
            }
            // Lines come without their ends here, and a string does not outlive its line.
            scan.feed(b"\n");
            seen += 1;
        }
        if seen > 1 { Shape::Values } else { Shape::Lines }
    }

    /// Passes over the mark at the beginning of a file that holds values for sure.
    fn pass_mark(&mut self) -> Shape {
        let first = self.rest.by_ref().take(BOM.len() as u64).read_to_end(&mut self.bytes);
        self.failed = first.err();
        if self.bytes == BOM {
            self.bytes.clear();
        }
        Shape::Values
    }
}

/// Says whether a line is a whole object with all `keys`.
fn is_row(line: &[u8], keys: &[&str]) -> bool {
    if !(line.starts_with(b"{") && line.ends_with(b"}")) {
        return false;
    }
    let row = serde_json::from_slice::<Map<String, Value>>(line);
    row.is_ok_and(|row| keys.iter().all(|&key| row.contains_key(key)))
}

impl<R: BufRead> Read for Held<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Held<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.bytes.len() {
            return Ok(self.bytes.get(self.at..).unwrap_or_default());
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.rest.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.bytes.len() {
            self.at += amount;
            if self.at >= self.bytes.len() {
                (self.bytes, self.at) = (Vec::new(), 0);
            }
        } else {
            self.rest.consume(amount);
        }
    }
}
