//! Numbers of telephones, cards and bank accounts.

use super::scan::{NOTHING, Text, is_word};

/// Most digits of a telephone number (ITU E.164).
const PHONE_MAX: usize = 15;
/// Bytes before a number in which words say what it is.
const LEAD: usize = 32;
/// Words before a number that count.
const LEAD_WORDS: usize = 3;

/// Words after which any number of seven digits or more is one of a telephone.
const PHONE_WORDS: [&str; 13] = [
    "phone",
    "phones",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "whatsapp",
    "call",
    "sms",
    "dial",
    "telefon",
];
/// Words after which a number is something else.
const OTHER_WORDS: [&str; 16] = [
    "order",
    "orders",
    "invoice",
    "isbn",
    "issn",
    "sku",
    "ticket",
    "tracking",
    "serial",
    "part",
    "model",
    "ref",
    "reference",
    "id",
    "version",
    "account",
];

/// Digits with single marks between them.
struct Groups {
    /// Start and end of each group.
    groups: Vec<(usize, usize)>,
    /// The mark behind each group but the last.
    marks: Vec<u8>,
}

impl Groups {
    /// Reads groups that begin at a place, at most `most` digits of them.
    fn read(text: &Text<'_>, at: usize, marks: &[u8], most: usize) -> Self {
        let mut found = Self { groups: Vec::new(), marks: Vec::new() };
        let (mut start, mut digits) = (at, 0);
        loop {
            let end = text.run(start, |byte| byte.is_ascii_digit());
            digits += end - start;
            if end == start || digits > most {
                found.marks.truncate(found.groups.len().saturating_sub(1));
                return found;
            }
            found.groups.push((start, end));
            let mark = text.byte(end);
            if !marks.contains(&mark) || mark == NOTHING {
                return found;
            }
            found.marks.push(mark);
            start = end + 1;
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.groups.iter().map(|(start, end)| end - start).collect()
    }

    /// Returns the digits of the first `n` groups.
    fn digits(&self, text: &Text<'_>, n: usize) -> String {
        self.groups.iter().take(n).map(|&(start, end)| text.part(start, end)).collect()
    }

    fn end_of(&self, n: usize) -> usize {
        n.checked_sub(1).and_then(|n| self.groups.get(n)).map_or(0, |(_, end)| *end)
    }

    /// Says whether the marks between the first `n` groups are the same.
    fn is_even(&self, n: usize) -> bool {
        self.marks.iter().take(n.saturating_sub(1)).all(|mark| Some(mark) == self.marks.first())
    }
}

/// Says whether a number may begin at a place: it is no part of another, nor of a word.
fn is_start(text: &Text<'_>, at: usize) -> bool {
    let before = text.before(at);
    if before >= 0x80 {
        // A letter, or a sign of money, of another script.
        return text
            .lead(at, 4)
            .chars()
            .next_back()
            .is_none_or(|c| !c.is_alphabetic() && c != '€' && c != '£');
    }
    !is_word(before) && !b".,-/$#+*%@".contains(&before)
}

/// Says whether a number may end at a place.
fn is_end(text: &Text<'_>, end: usize) -> bool {
    let (byte, next) = (text.byte(end), text.byte(end + 1));
    !is_word(byte) && byte != b'%' && !(b".,-/:".contains(&byte) && is_word(next))
}

/// Finds the number of a payment card: 13 to 19 digits of an issuer, with their check digit.
pub(super) fn card(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if !text.byte(at).is_ascii_digit() || !is_start(text, at) {
        return None;
    }
    let groups = Groups::read(text, at, b" -", 40);
    let sizes = groups.sizes();
    let forms: [&[usize]; 4] = [&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4]];
    let written = forms.iter().find(|form| sizes.starts_with(form)).map(|form| form.len());
    let plain = sizes.first().filter(|size| (13..=19).contains(*size)).map(|_| 1);
    let n = written.or(plain)?;
    let (digits, end) = (groups.digits(text, n), groups.end_of(n));
    let lead: Vec<u8> = text.lead(at, 6).bytes().collect();
    // Four digits and a space before: a row of a table.
    let four = lead.strip_suffix(b" ").and_then(|lead| lead.last_chunk::<4>());
    let in_table = four.is_some_and(|four| four.iter().all(u8::is_ascii_digit));
    let fits = groups.is_even(n) && is_end(text, end) && !in_table;
    (fits && is_issued(&digits) && is_luhn(&digits)).then_some((at, end))
}

/// Says whether an issuer gives out numbers of this beginning and length (ISO/IEC 7812).
fn is_issued(digits: &str) -> bool {
    let lead = |n: usize| digits.get(..n).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let size = digits.len();
    match (lead(1), lead(2), lead(4)) {
        // Visa.
        (4, ..) => matches!(size, 13 | 16 | 19),
        // American Express.
        (_, 34 | 37, _) => size == 15,
        // Mastercard.
        (_, 51..=55, _) | (_, _, 2221..=2720) => size == 16,
        // Diners Club.
        (_, 36 | 38 | 39, _) | (_, _, 3000..=3059) => (14..=19).contains(&size),
        // JCB, Discover, UnionPay.
        (_, _, 3528..=3589 | 6011 | 6440..=6499) | (_, 62 | 65, _) => (16..=19).contains(&size),
        _ => false,
    }
}

/// Checks the last digit by Luhn's formula.
fn is_luhn(digits: &str) -> bool {
    let doubled = |(place, byte): (usize, u8)| {
        let digit = u32::from(byte - b'0');
        let twice = if place % 2 == 1 { digit * 2 } else { digit };
        if twice > 9 { twice - 9 } else { twice }
    };
    digits.bytes().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

/// Lengths of account numbers by country (ISO 13616 registry).
const IBANS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AT", 20),
    ("BE", 16),
    ("BG", 22),
    ("BR", 29),
    ("CH", 21),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("EE", 20),
    ("ES", 24),
    ("FI", 18),
    ("FR", 27),
    ("GB", 22),
    ("GI", 23),
    ("GR", 27),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IS", 26),
    ("IT", 27),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("MC", 27),
    ("MT", 31),
    ("NL", 18),
    ("NO", 15),
    ("PL", 28),
    ("PT", 25),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("TR", 26),
    ("UA", 29),
];

/// Finds an international bank account number whose check digits are right.
pub(super) fn iban(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    if !text.byte(at).is_ascii_uppercase() || is_word(text.before(at)) {
        return None;
    }
    let country = text.part(at, at + 2);
    let (_, length) = IBANS.iter().find(|(known, _)| *known == country)?;
    let mut number = String::new();
    let mut end = at;
    while number.len() < *length {
        let gap = usize::from(text.byte(end) == b' ' && !number.is_empty());
        let byte = text.byte(end + gap);
        if !byte.is_ascii_uppercase() && !byte.is_ascii_digit() {
            return None;
        }
        number.push(char::from(byte));
        end += gap + 1;
    }
    let (head, tail) = number.split_at_checked(4)?;
    let digits = tail.chars().chain(head.chars()).filter_map(|c| c.to_digit(36));
    let left =
        digits.fold(0, |left, digit| (left * if digit < 10 { 10 } else { 100 } + digit) % 97);
    (left == 1 && !is_word(text.byte(end))).then_some((at, end))
}

/// Finds a telephone number.
pub(super) fn phone(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let byte = text.byte(at);
    if !(byte.is_ascii_digit() || matches!(byte, b'+' | b'(')) || !is_start(text, at) {
        return None;
    }
    if byte == b'+' {
        return international(text, at, at + 1);
    }
    // Groups before one that begins with 0 belong to the same number, which is none of a telephone.
    let lead = text.lead(at, 2).as_bytes();
    if byte == b'0' && matches!(lead, [b'0'..=b'9', b' ']) {
        return None;
    }
    if text.has(at, "00") && (b'1'..=b'9').contains(&text.byte(at + 2)) {
        return international(text, at, at + 2);
    }
    let kind = announced(text, at);
    if kind == Announced::Other {
        return None;
    }
    let found = if byte == b'(' { with_area(text, at) } else { national(text, at) };
    found.or_else(|| (kind == Announced::Phone).then(|| any(text, at)).flatten())
}

/// What the words before a number say of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    Nothing,
    Phone,
    Other,
}

fn announced(text: &Text<'_>, at: usize) -> Announced {
    let lead = text.lead(at, LEAD);
    let key = if lead.len() == at { text.key } else { "" };
    let both = format!("{key} {lead}").to_lowercase();
    let words = both.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words.rev().take(LEAD_WORDS) {
        if PHONE_WORDS.contains(&word) || word.ends_with("phone") || word.starts_with("phone") {
            return Announced::Phone;
        }
        if OTHER_WORDS.contains(&word) {
            return Announced::Other;
        }
    }
    Announced::Nothing
}

/// Reads a number behind `+` or `00`.
fn international(text: &Text<'_>, at: usize, start: usize) -> Option<(usize, usize)> {
    if !(b'1'..=b'9').contains(&text.byte(start)) {
        return None;
    }
    let (mut end, mut digits, mut marks) = (start, 0, 0);
    let first = text.run(start, |byte| byte.is_ascii_digit()) - start;
    let mut open = start;
    while digits <= PHONE_MAX {
        let next = text.run(open, |byte| byte.is_ascii_digit());
        if next == open || digits + (next - open) > PHONE_MAX {
            break;
        }
        digits += next - open;
        end = next;
        open = next_group(text, next)?;
        marks += 1;
        if open == next {
            break;
        }
    }
    let is_plain = marks <= 1;
    // North American numbers have ten digits behind their 1.
    let is_northern = text.byte(start) != b'1' || digits == 11;
    let begins = first <= 3 || is_plain || matches!(first, 4 | 5);
    let least = if is_plain { 10 } else { 8 };
    (digits >= least && is_northern && begins && is_end(text, end)).then_some((at, end))
}

/// Returns where the next group of digits starts; `end` itself where none does.
fn next_group(text: &Text<'_>, end: usize) -> Option<usize> {
    let is_mark = |byte: u8| matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'/');
    let next = text.run(end, is_mark);
    let is_near = next - end <= 3 && text.byte(next).is_ascii_digit();
    Some(if is_near { next } else { end })
}

/// Reads `(415) 555-2671` and `(030) 1234567`.
fn with_area(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let close = text.run(at + 1, |byte| byte.is_ascii_digit());
    let area = text.part(at + 1, close);
    if text.byte(close) != b')' || !(2..=5).contains(&area.len()) {
        return None;
    }
    let start = close + 1 + usize::from(matches!(text.byte(close + 1), b' ' | b'-'));
    let groups = Groups::read(text, start, b" -.", 8);
    let sizes = groups.sizes();
    let (n, digits) = (sizes.len(), sizes.iter().sum::<usize>());
    let end = groups.end_of(n);
    let american = area.len() == 3 && sizes == [3, 4] && is_area(area);
    let trunk = area.starts_with('0') && (6..=8).contains(&digits);
    ((american || trunk) && is_end(text, end)).then_some((at, end))
}

fn is_area(area: &str) -> bool {
    area.as_bytes().first().is_some_and(|first| (b'2'..=b'9').contains(first))
}

/// Reads `415-555-2671` and `020 7946 0958`.
fn national(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let groups = Groups::read(text, at, b" -./", 24);
    let sizes = groups.sizes();
    let skip = usize::from(sizes.first() == Some(&1) && text.byte(at) == b'1');
    let american = sizes.get(skip..skip + 3) == Some(&[3, 3, 4][..]);
    if american {
        let end = groups.end_of(skip + 3);
        let is_first = |n: usize| {
            groups.groups.get(n).is_some_and(|&(start, end)| is_area(text.part(start, end)))
        };
        let last = groups.marks.get(skip + 1);
        let marks = matches!(last, Some(b'-' | b'.')) && groups.marks.get(skip) != Some(&b'/');
        let even = last == Some(&b'-') || groups.marks.get(skip) == Some(&b'.');
        let fits = is_first(skip) && is_first(skip + 1) && marks && even && is_end(text, end);
        return fits.then_some((at, end));
    }
    let (n, digits) = (sizes.len(), sizes.iter().sum::<usize>());
    let first = sizes.first().copied().unwrap_or_default();
    let trunk = text.byte(at) == b'0' && (b'1'..=b'9').contains(&text.byte(at + 1));
    let rest: Vec<u8> = groups.marks.iter().skip(1).copied().collect();
    let even = rest.windows(2).all(|pair| pair.first() == pair.last()) && !rest.contains(&b'/');
    let dots = groups.marks.contains(&b'.') && (n < 4 || !groups.is_even(n));
    let fits = trunk
        && (2..=5).contains(&n)
        && (2..=6).contains(&first)
        && (9..=12).contains(&digits)
        && sizes.iter().all(|size| *size >= 2)
        && sizes != [2, 2, 4, 2]
        && sizes != [2, 2, 4, 4];
    let end = groups.end_of(n);
    (fits && even && !dots && is_end(text, end)).then_some((at, end))
}

/// Reads a number that is said to be one of a telephone.
fn any(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let groups = Groups::read(text, at, b" -.", PHONE_MAX);
    let sizes = groups.sizes();
    let (n, digits) = (sizes.len(), sizes.iter().sum::<usize>());
    let is_date = sizes.starts_with(&[4, 2, 2]) || sizes.starts_with(&[2, 2, 4]);
    let end = groups.end_of(n);
    ((7..=PHONE_MAX).contains(&digits) && !is_date && is_end(text, end)).then_some((at, end))
}
