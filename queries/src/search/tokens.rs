//! How text is cut into words: the same for documents, queries and snippets.
//!
//! - A word is a run of letters and digits, in lower case, without accents: `Weather`, `Zürich`
//!   and `ZÜRICH` are `weather`, `zurich`, `zurich`. Composed and decomposed letters are one.
//! - A run of Han, Hiragana, Katakana or Hangul, where no spaces tell words apart, becomes
//!   overlapping pairs: 北京天气 is 北京, 京天, 天气. In documents the last character of a run stands
//!   beside its last pair as well, so that a single character is the beginning of some token
//!   wherever it occurs.
//! - An emoji or pictograph is a token.
//! - Everything else separates. Words are cut behind [`LONGEST`] characters.

use tantivy::tokenizer::{AsciiFoldingFilter, TextAnalyzer, Token, TokenStream, Tokenizer};

/// Name of the tokenizer in the index's schema.
pub(super) const WORDS: &str = "words";

/// Most characters of a word that count: as many as a SHA-256 in hexadecimal has.
const LONGEST: usize = 64;

/// Makes what cuts documents into words.
pub(super) fn of_documents() -> TextAnalyzer {
    analyzer(Words { tails: true })
}

/// Makes what cuts queries into words.
pub(super) fn of_queries() -> TextAnalyzer {
    analyzer(Words { tails: false })
}

fn analyzer(words: Words) -> TextAnalyzer {
    TextAnalyzer::builder(words).filter(AsciiFoldingFilter).build()
}

/// Tells whether a token is a single character of a script that is cut into pairs.
pub(super) fn is_lone(token: &str) -> bool {
    let mut chars = token.chars();
    chars.next().is_some_and(|c| class(c) == Class::Paired) && chars.next().is_none()
}

#[derive(Clone, Copy, Debug)]
struct Words {
    /// The last character of a run of pairs is a token as well.
    tails: bool,
}

impl Tokenizer for Words {
    type TokenStream<'a> = Stream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Stream<'a> {
        Stream {
            text,
            at: 0,
            position: 0,
            tails: self.tails,
            open: None,
            token: Token { position: 0, ..Token::default() },
        }
    }
}

/// What a character does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Separates.
    Gap,
    /// Is part of a word.
    Word,
    /// Is of a script that is cut into pairs.
    Paired,
    /// Is a token by itself.
    Picture,
    /// Belongs to the character before it and is left out: accents, joiners, variants.
    Mark,
}

/// A character with the marks on it.
#[derive(Clone, Copy, Debug)]
struct Unit {
    class: Class,
    char: char,
    from: usize,
    to: usize,
}

/// Goes through a text token by token.
struct Stream<'a> {
    text: &'a str,
    /// Next byte.
    at: usize,
    /// Place of the next token.
    position: usize,
    tails: bool,
    /// A character whose run goes on or ends behind it.
    open: Option<Unit>,
    token: Token,
}

impl TokenStream for Stream<'_> {
    fn advance(&mut self) -> bool {
        if let Some(first) = self.open.take()
            && self.pair(first, false)
        {
            return true;
        }
        while let Some(unit) = unit(self.text, self.at) {
            self.at = unit.to;
            match unit.class {
                Class::Gap | Class::Mark => {}
                Class::Word => return self.word(unit),
                Class::Paired => return self.pair(unit, true),
                Class::Picture => {
                    self.begin(unit.from, unit.to);
                    self.token.text.push(unit.char);
                    return true;
                }
            }
        }
        false
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

impl Stream<'_> {
    /// Begins a token at the next place.
    fn begin(&mut self, from: usize, to: usize) {
        self.token.text.clear();
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.position = self.position;
        self.position += 1;
    }

    fn word(&mut self, first: Unit) -> bool {
        self.begin(first.from, first.to);
        let mut length = 0;
        let mut next = Some(first);
        while let Some(unit) = next.filter(|unit| unit.class == Class::Word) {
            self.at = unit.to;
            if length < LONGEST {
                push_lower(&mut self.token.text, unit.char);
            }
            length += 1;
            next = self::unit(self.text, unit.to);
        }
        self.token.offset_to = self.at;
        true
    }

    /// Makes a token of `first` and what follows it. `alone` says that its run begins with it.
    fn pair(&mut self, first: Unit, alone: bool) -> bool {
        let second = unit(self.text, first.to).filter(|unit| unit.class == Class::Paired);
        if let Some(second) = second {
            self.begin(first.from, second.to);
            self.token.text.push(first.char);
            self.token.text.push(second.char);
            self.at = second.to;
            self.open = Some(second);
            return true;
        }
        if !alone && !self.tails {
            return false;
        }
        if !alone {
            // Beside the last pair, so that the places behind the run are the same as in a query.
            self.position = self.position.saturating_sub(1);
        }
        self.begin(first.from, first.to);
        self.token.text.push(first.char);
        true
    }
}

/// Adds a character in lower case, without marks.
fn push_lower(text: &mut String, char: char) {
    if char.is_ascii() {
        text.push(char.to_ascii_lowercase());
        return;
    }
    text.extend(char.to_lowercase().filter(|c| class(*c) != Class::Mark).map(unaccented));
}

/// Takes the accent from Greek and Cyrillic letters, as is done with Latin ones.
fn unaccented(char: char) -> char {
    match char {
        'ά' => 'α',
        'έ' => 'ε',
        'ή' => 'η',
        'ί' | 'ϊ' | 'ΐ' => 'ι',
        'ό' => 'ο',
        'ύ' | 'ϋ' | 'ΰ' => 'υ',
        'ώ' => 'ω',
        'ς' => 'σ',
        'й' => 'и',
        'ё' => 'е',
        'ї' => 'і',
        'ў' => 'у',
        other => other,
    }
}

/// Reads the character that begins at byte `from`, with the marks behind it.
fn unit(text: &str, from: usize) -> Option<Unit> {
    let first = *text.as_bytes().get(from)?;
    let behind = text.as_bytes().get(from + 1);
    if first.is_ascii() && behind.is_none_or(u8::is_ascii) {
        let class = if first.is_ascii_alphanumeric() { Class::Word } else { Class::Gap };
        return Some(Unit { class, char: char::from(first), from, to: from + 1 });
    }
    let mut chars = text.get(from..)?.chars();
    let char = chars.next()?;
    let mut unit = Unit { class: class(char), char, from, to: from + char.len_utf8() };
    for mark in chars {
        if let Some(composed) = composed(unit.char, mark) {
            unit.char = composed;
        } else if class(mark) != Class::Mark {
            break;
        }
        unit.to += mark.len_utf8();
    }
    Some(unit)
}

/// Puts parts of a Hangul syllable, or a kana and its sound mark, together.
fn composed(first: char, second: char) -> Option<char> {
    let (a, b) = (u32::from(first), u32::from(second));
    let code = match (a, b) {
        (0x1100..=0x1112, 0x1161..=0x1175) => 0xAC00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28,
        (0xAC00..=0xD7A3, 0x11A8..=0x11C2) if (a - 0xAC00).is_multiple_of(28) => a + b - 0x11A7,
        (0x3046 | 0x30A6, 0x3099) => a + 0x4E,
        (0x304B..=0x3062 | 0x30AB..=0x30C2, 0x3099) if a % 2 == 1 => a + 1,
        (0x3064..=0x3069 | 0x30C4..=0x30C9, 0x3099) if a.is_multiple_of(2) => a + 1,
        (0x306F..=0x307D | 0x30CF..=0x30DD, 0x3099) if a.is_multiple_of(3) => a + 1,
        (0x306F..=0x307D | 0x30CF..=0x30DD, 0x309A) if a.is_multiple_of(3) => a + 2,
        _ => return None,
    };
    char::from_u32(code)
}

fn class(char: char) -> Class {
    if char.is_ascii() {
        return if char.is_ascii_alphanumeric() { Class::Word } else { Class::Gap };
    }
    match u32::from(char) {
        0x1100..=0x11FF
        | 0x3005..=0x3007
        | 0x3041..=0x3096
        | 0x309D..=0x309F
        | 0x30A1..=0x30FA
        | 0x30FC..=0x318E
        | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF
        | 0x4E00..=0x9FFF
        | 0xA960..=0xA97C
        | 0xAC00..=0xD7FB
        | 0xF900..=0xFAFF
        | 0xFF66..=0xFF9D
        | 0x2_0000..=0x3_FFFF => Class::Paired,
        code if is_mark(code) => Class::Mark,
        0x2600..=0x27BF | 0x2B00..=0x2BFF | 0x1_F000..=0x1_FAFF => Class::Picture,
        code if char.is_alphanumeric() || keeps_word(code) => Class::Word,
        _ => Class::Gap,
    }
}

/// Accents and what else changes the look of a character only, joiners, variants and skin tones.
fn is_mark(code: u32) -> bool {
    matches!(code,
        0xAD
        | 0x0300..=0x036F
        | 0x0483..=0x0489
        | 0x0591..=0x05BD
        | 0x05BF..=0x05C7
        | 0x0610..=0x061A
        | 0x0640
        | 0x064B..=0x065F
        | 0x0670
        | 0x06D6..=0x06DC
        | 0x06DF..=0x06E8
        | 0x1AB0..=0x1AFF
        | 0x1DC0..=0x1DFF
        | 0x200B..=0x200D
        | 0x2060
        | 0x20D0..=0x20FF
        | 0x3099..=0x309A
        | 0xFE00..=0xFE0F
        | 0xFE20..=0xFE2F
        | 0xFEFF
        | 0x1_F3FB..=0x1_F3FF
        | 0xE_0000..=0xE_01EF)
}

/// Signs inside words of Indic and South-East Asian scripts that do not count as letters.
fn keeps_word(code: u32) -> bool {
    matches!(code,
        0x093C | 0x094D | 0x09BC | 0x09CD | 0x0A3C | 0x0A4D | 0x0ABC | 0x0ACD | 0x0B3C | 0x0B4D
        | 0x0BCD | 0x0C3C | 0x0C4D | 0x0CBC | 0x0CCD | 0x0D3B..=0x0D3C | 0x0D4D | 0x0DCA
        | 0x0E47..=0x0E4E | 0x0EB8..=0x0ECD | 0x0F39 | 0x0F71..=0x0F84 | 0x1037..=0x103A
        | 0x17C9..=0x17D3)
}

#[cfg(test)]
mod tests;
