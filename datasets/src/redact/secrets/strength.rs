//! Whether a value looks drawn by chance or thought up as a secret, and not like a word or code.

use std::collections::BTreeMap;

/// Least length of a value.
const LENGTH_MIN: usize = 8;
/// Longest value.
const LENGTH_MAX: usize = 512;
/// Least different letters of a token.
const DIFFERENT_MIN: usize = 6;
/// Least Shannon entropy of a value by its own letters, in bits.
const BITS_MIN: f64 = 23.0;
/// Entropy of a letter from which a long value of letters alone is no text, in bits.
const LETTER_BITS_MIN: f64 = 3.9;
/// Least length of such a value.
const LETTERS_MIN: usize = 24;

/// Parts of values that stand for a secret to be filled in.
const BLANKS: [&str; 13] = [
    "your",
    "xxx",
    "***",
    "...",
    "placeholder",
    "redacted",
    "dummy",
    "<",
    ">",
    "${",
    "{{",
    "://",
    "()",
];

/// Words that make a password for show, with any digits.
const SHOWN: [&str; 8] =
    ["password", "passwd", "secret", "token", "mypassword", "mysecret", "username", "testtest"];

/// Says whether enough different letters occur: keys of zeros are shown in documents.
pub(super) fn is_varied(value: &str) -> bool {
    counts(value).len() >= DIFFERENT_MIN
}

/// Says whether a value behind a name such as `password` looks like a secret.
pub(super) fn is_strong(value: &str, quoted: bool) -> bool {
    let is_blank = |lower: &str| BLANKS.iter().any(|blank| lower.contains(blank));
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&value.len())
        || value.contains(char::is_whitespace)
        || is_blank(&value.to_lowercase())
        || value.starts_with(['/', '.', '~', '$', '%', '@'])
        || (!quoted && is_path_in_code(value))
    {
        return false;
    }
    let count = |is: fn(&char) -> bool| value.chars().filter(is).count();
    let (lower, upper) = (count(char::is_ascii_lowercase), count(char::is_ascii_uppercase));
    let digits = count(char::is_ascii_digit);
    let marks = count(|c| "!@#$%^&*+=".contains(*c));
    if lower + upper == 0 {
        // Numbers and dates.
        return false;
    }
    // `secret123` and the like are written by everybody who wants to show a password.
    let letters: String = value.chars().filter(|c| !c.is_ascii_digit()).collect();
    if SHOWN.contains(&letters.to_lowercase().as_str()) {
        return false;
    }
    let bits = entropy(value);
    if digits == 0 {
        let letters = value.chars().count();
        let is_mixed = lower > 0 && upper > 0;
        let is_long = letters >= LETTERS_MIN && lower >= 4 && upper >= 4;
        return is_mixed && (marks > 0 || (is_long && bits / letters as f64 >= LETTER_BITS_MIN));
    }
    // A single digit is part of many names: only marks among the letters tell then.
    let is_name = value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    (digits >= 2 || !is_name) && is_varied(value) && bits >= BITS_MIN
}

/// Says whether a value is a path of names, as in `settings.api_key`.
fn is_path_in_code(value: &str) -> bool {
    let is_name = |part: &str| {
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && digits < 2
    };
    value.contains('.') && value.split('.').all(is_name)
}

/// Returns the Shannon entropy of a value by its own letters, in bits.
fn entropy(value: &str) -> f64 {
    let all = value.chars().count() as f64;
    counts(value).values().map(|&n| f64::from(n) * (all / f64::from(n)).log2()).sum()
}

fn counts(value: &str) -> BTreeMap<char, u32> {
    let mut counts = BTreeMap::new();
    for c in value.chars() {
        *counts.entry(c).or_default() += 1;
    }
    counts
}
