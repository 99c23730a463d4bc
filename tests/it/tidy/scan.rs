//! A scanner for Rust text: enough to tell code from words, and to find where functions end.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Parameters without `self`.
    pub(crate) parameters: usize,
}

/// Returns the text with comments and the insides of literals blanked, line by line the same.
pub(crate) fn mask(source: &str) -> Vec<char> {
    let text: Vec<char> = source.chars().collect();
    let mut masked = text.clone();
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(&text, at);
        for place in masked.iter_mut().take(end).skip(at) {
            if *place != '\n' {
                *place = ' ';
            }
        }
        at = end.max(at + 1);
    }
    masked
}

/// Returns the end of the comment or literal that begins here, or `at` where none does.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1);
    match text[at] {
        '/' if next == Some(&'/') => find(text, at, |c| c == '\n'),
        '/' if next == Some(&'*') => comment_end(text, at),
        '"' => quoted_end(text, at, '"'),
        '\'' if next == Some(&'\\') || text.get(at + 2) == Some(&'\'') => {
            quoted_end(text, at, '\'')
        }
        'r' if !continues_word(text, at) => raw_end(text, at),
        _ => at,
    }
}

/// Says whether the letter here belongs to a longer word, other than the prefix of a literal.
fn continues_word(text: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map(|i| text[i]).filter(|c| is_word(*c));
    match before(1) {
        Some('b' | 'c') => before(2).is_some(),
        other => other.is_some(),
    }
}

fn find(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..text.len()).find(|i| wanted(text[*i])).unwrap_or(text.len())
}

/// Returns the end of a block comment; they nest.
fn comment_end(text: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted_end(text: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Returns the end of a raw string, or `from` where this is a raw identifier or a plain word.
fn raw_end(text: &[char], from: usize) -> usize {
    let open = find(text, from + 1, |c| c != '#');
    if text.get(open) != Some(&'"') {
        return from;
    }
    let hashes = open - from - 1;
    let mut at = open + 1;
    while at < text.len() {
        let closing = text.iter().skip(at + 1).take(hashes).filter(|c| **c == '#').count();
        if text[at] == '"' && closing == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the line of a place, from 1.
pub(crate) fn line_of(text: &[char], at: usize) -> usize {
    1 + text.iter().take(at).filter(|c| **c == '\n').count()
}

/// Finds a phrase in masked text. Where its ends are letters, it must not continue a word.
pub(crate) fn places(masked: &[char], phrase: &str) -> Vec<usize> {
    let wanted: Vec<char> = phrase.chars().collect();
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Vec::new() };
    let mut found = Vec::new();
    for (at, window) in masked.windows(wanted.len()).enumerate() {
        if window != wanted {
            continue;
        }
        let glued_left = is_word(*first) && at > 0 && is_word(masked[at - 1]);
        let behind = masked.get(at + wanted.len());
        let glued_right = is_word(*last) && behind.is_some_and(|c| is_word(*c));
        if !glued_left && !glued_right {
            found.push(at);
        }
    }
    found
}

/// Lists the functions of masked text. Declarations without a body are left out.
pub(crate) fn functions(masked: &[char]) -> Vec<Function> {
    places(masked, "fn").into_iter().filter_map(|at| function(masked, at)).collect()
}

fn function(text: &[char], at: usize) -> Option<Function> {
    let name_from = find(text, at + 2, |c| !c.is_whitespace());
    let name_end = find(text, name_from, |c| !is_word(c));
    if name_from == name_end {
        return None; // a type such as `fn(u32)`
    }
    let open = opening_parenthesis(text, name_end)?;
    let close = closing(text, open)?;
    let body = body(text, close + 1)?;
    let end = closing(text, body)?;
    let line = line_of(text, at);
    Some(Function {
        name: text[name_from..name_end].iter().collect(),
        line,
        lines: line_of(text, end) - line + 1,
        parameters: parameters(&text[open + 1..close]),
    })
}

/// Skips generics: the parenthesis of `Fn(..)` inside them is not the one that is wanted.
fn opening_parenthesis(text: &[char], from: usize) -> Option<usize> {
    let mut depth = 0;
    for at in from..text.len() {
        match text[at] {
            '<' => depth += 1,
            '>' if !is_arrow(text, at) => depth -= 1,
            '(' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_arrow(text: &[char], at: usize) -> bool {
    at > 0 && matches!(text[at - 1], '-' | '=')
}

/// Returns the place of the bracket that closes the one at `open`.
fn closing(text: &[char], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.iter().enumerate().skip(open) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Returns the brace that opens a body, or none where a semicolon comes first.
fn body(text: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match text.get(at)? {
            '{' => return Some(at),
            ';' => return None,
            '[' | '(' => at = closing(text, at)? + 1, // `[u8; 32]` holds a semicolon
            _ => at += 1,
        }
    }
}

fn parameters(text: &[char]) -> usize {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for (at, c) in text.iter().enumerate() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if !is_arrow(text, at) => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(*c);
        }
    }
    parts.iter().filter(|part| !part.trim().is_empty() && !is_receiver(part)).count()
}

fn is_receiver(part: &str) -> bool {
    let name = part.split(':').next().unwrap_or_default();
    name.split(|c: char| !is_word(c)).rfind(|word| !word.is_empty()) == Some("self")
}

/// Says for each line whether it belongs to an item under `#[cfg(test)]`.
pub(crate) fn test_lines(masked: &[char]) -> Vec<bool> {
    let mut lines = vec![false; line_of(masked, masked.len())];
    for at in places(masked, "#[cfg(test)]") {
        let end = body(masked, at + "#[cfg(test)]".len()).and_then(|open| closing(masked, open));
        let Some(end) = end else { continue };
        for line in &mut lines[line_of(masked, at) - 1..line_of(masked, end)] {
            *line = true;
        }
    }
    lines
}

/// Lists the modules that are declared without a body: (name, only for tests).
pub(crate) fn declared(masked: &[char]) -> Vec<(String, bool)> {
    let mut modules = Vec::new();
    for at in places(masked, "mod") {
        let from = find(masked, at + 3, |c| !c.is_whitespace());
        let end = find(masked, from, |c| !is_word(c));
        if masked.get(end) != Some(&';') || from == end {
            continue;
        }
        let before: String = masked[..at].iter().collect();
        let item = before.rsplit([';', '}', '{']).next().unwrap_or_default();
        let for_tests = item.contains("#[cfg(test)]") || item.contains("#[cfg(any(test,");
        modules.push((masked[from..end].iter().collect(), for_tests));
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(source: &str) -> String {
        mask(source).into_iter().collect()
    }

    #[test]
    fn words_are_blanked_and_code_is_kept() {
        for (source, want) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("}\"{")"#, "f(      )"),
            ("r#\"a\"b\"#;", "        ;"),
            ("br\"\\\";", "b    ;"),
            ("r#fn('{', '\\'', 'é')", "r#fn(   ,     ,    )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("for r in \"x\"", "for r in    "),
        ] {
            assert_eq!(masked(source), want, "{source}");
        }
    }

    #[test]
    fn functions_are_measured_and_parameters_counted() {
        let source = "
            trait T { fn no_body(&self, a: u8) -> [u8; 4]; }
            impl X {
                fn generic<F: Fn(u8, u8) -> u8>(&'a mut self, f: F, g: fn(u8)) -> [u8; 2]
                where
                    F: Send,
                {
                    [0; 2]
                }
                fn pattern(self: Box<Self>, (a, b): (u8, u8), c: Map<K, V>,) { \"}\"; }
            }";
        let found = functions(&mask(source));
        let shape: Vec<_> =
            found.iter().map(|f| (f.name.as_str(), f.line, f.lines, f.parameters)).collect();
        assert_eq!(shape, [("generic", 4, 6, 2), ("pattern", 10, 1, 2)]);
    }

    #[test]
    fn items_for_tests_and_declared_modules_are_told() {
        let source =
            "mod a;\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nmod c {\n  fn f() {}\n}\nfn g() {}";
        let text = mask(source);
        let want = [false, false, false, true, true, true, true, false];
        assert_eq!(test_lines(&text), want);
        assert_eq!(declared(&text), [("a".to_owned(), false), ("b".to_owned(), true)]);
    }

    #[test]
    fn phrases_are_found_as_whole_words() {
        let text = mask("unsafe_code; unsafe { x.unwrap() } x.unwrap_or()");
        assert_eq!(places(&text, "unsafe").len(), 1);
        assert_eq!(places(&text, ".unwrap()").len(), 1);
        assert_eq!(places(&text, "x").len(), 2);
    }
}
