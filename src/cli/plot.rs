//! Small plots for terminals: bars that stand beside their numbers.

use std::fmt::Write as _;

/// Cells of the longest bar.
const WIDTH: u64 = 30;
/// Parts of a cell, from an eighth to seven.
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Draws a bar for `n` where the longest stands for `most`. What is not nothing is seen.
pub(super) fn bar(n: u64, most: u64) -> String {
    if n == 0 || most == 0 {
        return String::new();
    }
    let eighths = (n.saturating_mul(WIDTH * 8) / most).max(1);
    let mut bar = "█".repeat(usize::try_from(eighths / 8).unwrap_or_default());
    let part = usize::try_from(eighths % 8).unwrap_or_default();
    bar.extend(part.checked_sub(1).and_then(|part| PARTS.get(part)));
    bar
}

/// Draws one bar a line, each with its name and number.
pub(super) fn bars(text: &mut String, rows: &[(String, u64)]) {
    let name_width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or_default();
    for (name, n) in rows {
        let pad = " ".repeat(name_width - name.chars().count());
        let _ = writeln!(text, "    {name}{pad} {n:>7} {}", bar(*n, most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_their_numbers() {
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(10, 10).chars().count(), 30);
        assert_eq!(bar(1, 10_000), "▏");
        assert_eq!(bar(5, 0), "");
        assert_eq!(bar(1, 48), "▋");
        let mut text = String::new();
        bars(&mut text, &[("a".to_owned(), 2), ("größer".to_owned(), 1)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("    a            2 █"), "{text}");
        assert!(lines[1].starts_with("    größer       1 █"), "{text}");
    }
}
