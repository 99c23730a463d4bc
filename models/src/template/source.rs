//! Makes a template's text one that minijinja reads as jinja2 would.

/// Filter that a `{% generation %}` block is put through.
pub(super) const GENERATION: &str = "__generation__";
/// Method that slices with a step become calls of.
pub(super) const SLICE: &str = "__slice__";

/// Blocks that bound what `break` and `continue` may leave.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    Loop,
    Generation,
}

/// Rewrites a template: newlines are those of jinja2, and `{% generation %}` blocks, which are
/// transformers' own, become filtered blocks with a scope of their own. Slices with a step become
/// calls, since minijinja goes through some of them otherwise, or not at all.
pub(super) fn rewrite(source: &str) -> Result<String, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + 64);
    let mut blocks = Vec::new();
    let mut rest = source.as_str();
    while let Some(at) = next_tag(rest) {
        let (text, from_tag) = rest.split_at(at);
        out.push_str(text);
        let (tag, after) = from_tag.split_at(tag_len(from_tag));
        rest = after;
        match keyword(tag) {
            "raw" => {
                let raw;
                (raw, rest) = after.split_at(raw_len(after));
                // The newline behind `{% raw %}` stays in jinja2.
                let (left, right) = signs(tag);
                let right = if right.is_empty() { "+" } else { right };
                out.push_str(&format!("{{%{left} raw {right}%}}{raw}"));
                continue;
            }
            "for" => blocks.push(Block::Loop),
            "endfor" if blocks.last() == Some(&Block::Loop) => drop(blocks.pop()),
            "break" | "continue" if blocks.last() == Some(&Block::Generation) => {
                return Err(format!("{tag} would leave a generation block"));
            }
            "generation" if is_bare(tag, "generation") => {
                blocks.push(Block::Generation);
                let (left, right) = signs(tag);
                out.push_str(&format!("{{%{left} with %}}{{% filter {GENERATION} {right}%}}"));
                continue;
            }
            "endgeneration"
                if blocks.last() == Some(&Block::Generation) && is_bare(tag, "endgeneration") =>
            {
                blocks.pop();
                let (left, right) = signs(tag);
                out.push_str(&format!("{{%{left} endfilter %}}{{% endwith {right}%}}"));
                continue;
            }
            _ => {}
        }
        if tag.starts_with("{#") {
            out.push_str(tag);
        } else {
            out.push_str(&with_calls(tag));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Returns where the next tag, expression or comment begins.
fn next_tag(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// Returns the length of the tag at the start of a text, delimiters included.
fn tag_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let close = match bytes.get(1) {
        Some(b'#') => return text.find("#}").map_or(text.len(), |at| at + 2),
        Some(b'%') => b"%}",
        _ => b"}}",
    };
    let (mut quote, mut depth) = (None, 0_usize);
    let mut at = 2;
    while let Some(byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, _) if depth == 0 && bytes[at..].starts_with(close) => return at + 2,
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        at += 1;
    }
    text.len()
}

/// Turns slices with a step into calls: `a[b:c:d]` into `a.__slice__(b, c, d)`.
fn with_calls(tag: &str) -> String {
    let mut out = String::with_capacity(tag.len());
    // Where each open bracket stands, and the colons right within it.
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    let (mut quote, mut escaped) = (None, false);
    for c in tag.chars() {
        if quote.is_some() {
            if !escaped && quote == Some(c) {
                quote = None;
            }
            escaped = !escaped && c == '\\';
            out.push(c);
            continue;
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => open.push((out.len(), Vec::new())),
            ':' => {
                if let Some((_, colons)) = open.last_mut() {
                    colons.push(out.len());
                }
            }
            ')' | ']' | '}' => {
                let (start, colons) = open.pop().unwrap_or_default();
                if let (']', [first, second]) = (c, colons.as_slice())
                    && !out[second + 1..].trim().is_empty()
                {
                    let parts = [start + 1..*first, first + 1..*second, second + 1..out.len()];
                    let parts = parts.map(|part| match out[part].trim() {
                        "" => "none",
                        part => part,
                    });
                    let call = format!(".{SLICE}({})", parts.join(", "));
                    out.truncate(start);
                    out.push_str(&call);
                    continue;
                }
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Returns the length of a raw text up to and with its `{% endraw %}`.
fn raw_len(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].find("{%") {
        at += next;
        let end = text[at..].find("%}").map_or(text.len(), |end| at + end + 2);
        if keyword(&text[at..end]) == "endraw" {
            return end;
        }
        at += 2;
    }
    text.len()
}

/// Returns the text within a tag and its signs.
fn inner(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").unwrap_or_default();
    let inner = inner.strip_suffix("%}").unwrap_or(inner);
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    inner.strip_suffix(['-', '+']).unwrap_or(inner).trim()
}

/// Returns the first word of a statement; nothing for an expression or a comment.
fn keyword(tag: &str) -> &str {
    let inner = inner(tag);
    let end = inner.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    &inner[..end.unwrap_or(inner.len())]
}

/// Says whether a tag is its keyword alone; jinja2 lets a colon follow one that opens a block.
fn is_bare(tag: &str, keyword: &str) -> bool {
    matches!(inner(tag).strip_prefix(keyword).map(str::trim), Some("" | ":"))
}

/// Returns the signs for white space at both ends of a tag.
fn signs(tag: &str) -> (&str, &str) {
    let sign = |at: Option<usize>| {
        let sign = at.and_then(|at| tag.get(at..at + 1));
        sign.filter(|sign| matches!(*sign, "-" | "+")).unwrap_or_default()
    };
    (sign(Some(2)), sign(tag.len().checked_sub(3)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_statements_are_rewritten() {
        for kept in [
            "a {# {% generation %} don't #} b",
            "{{ '{% generation %}' }}{{ \"\\\"{% generation %}\" }}",
            "{% raw +%}{% generation %}{{ {%- endraw -%} c",
            "{{ a[1:2] }}{{ {'a': b[::], 'c': '[::-1]'} }}{# a[::-1] #}",
            "{% set x = {'a': {'b': '%}'}} %}{{ {'a': {'b': 1}}}}",
            "{% generation of %}",
            "{% endgeneration %}",
            "{ {} {% unfinished",
            "{{ unfinished ",
        ] {
            assert_eq!(rewrite(kept).unwrap(), kept);
        }
    }

    #[test]
    fn slices_with_a_step_become_calls() {
        let got = rewrite("{% for a in b [1:c[::-1][0]:2] %}{{ d[ : '\\']':-1] }}").unwrap();
        let call = "b .__slice__(1, c.__slice__(none, none, -1)[0], 2)";
        assert_eq!(got, format!("{{% for a in {call} %}}{{{{ d.__slice__(none, '\\']', -1) }}}}"));
    }

    #[test]
    fn signs_stay() {
        let got = rewrite("{%- generation -%}{%+\ngeneration+%}x{%endgeneration-%}").unwrap();
        let open = "{%- with %}{% filter __generation__ -%}{%+ with %}{% filter __generation__ +%}";
        assert_eq!(got, format!("{open}x{{% endfilter %}}{{% endwith -%}}"));
    }

    #[test]
    fn a_loop_is_not_left_from_within_a_block() {
        let inside = "{% for a in b %}{% generation %}{% break %}{% endgeneration %}{% endfor %}";
        assert!(rewrite(inside).unwrap_err().contains("{% break %}"));
        let outside =
            "{% generation %}{% for a in b %}{% continue %}{% endfor %}{% endgeneration %}";
        assert!(rewrite(outside).is_ok());
    }
}
