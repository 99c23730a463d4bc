//! Documents that must not drift from the program.

use std::collections::BTreeSet;

use app::error::Kind;

use super::tree;

#[test]
fn exit_codes_are_those_of_the_program() {
    let text = tree::read("docs/exit-codes.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let row = |(kind, meaning): (Kind, &str)| {
        format!("| {} | `{}` | {meaning} |", kind as u8, kind.name())
    };
    let want: Vec<String> = Kind::ALL.into_iter().map(row).collect();
    assert_eq!(rows, want);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = Vec::new();
    for file in tree::files().iter().filter(|file| file.path.ends_with(".md")) {
        let dir = tree::root().join(&file.path);
        let dir = dir.parent().unwrap();
        for rest in file.text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            let outside = target.contains("://") || target.is_empty();
            if !outside && !dir.join(target).exists() {
                dead.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert!(dead.is_empty(), "links to nothing:\n{}", dead.join("\n"));
}

#[test]
fn decisions_are_numbered_without_gaps_and_listed() {
    let files = tree::files();
    let names: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("docs/decisions/"))
        .filter(|name| *name != "README.md")
        .collect();
    let list = tree::read("docs/decisions/README.md");
    for (at, name) in names.iter().enumerate() {
        let number = format!("{:04}-", at + 1);
        assert!(name.starts_with(&number), "{name} should begin with {number}");
        assert!(list.contains(&format!("({name})")), "{name} is not in the list");
    }
    assert!(!names.is_empty());
}

#[test]
fn commands_in_the_readme_are_accepted() {
    let text = tree::read("README.md");
    let mut commands = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        commands.extend(block.lines().filter(|line| line.starts_with("ledger ")));
    }
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        if let Err(error) = app::cli::command().try_get_matches_from(words(command)) {
            panic!("{command}\n{error}");
        }
    }
}

/// Splits a command line at spaces outside double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}
