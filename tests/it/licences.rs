//! Licences of what the program is built from.

use super::tree;

/// Licences that the project may be built from. A package offers a choice with OR, and asks for
/// all with AND.
const ALLOWED: [&str; 8] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    // Binds files, not programs: who changes a file of theirs has to publish that file.
    "MPL-2.0",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let arguments =
        ["tree", "--workspace", "-e", "normal,build", "--prefix", "none", "--format", "{p}|{l}"];
    let (succeeded, tree, said) = tree::cargo(&arguments);
    assert!(succeeded, "{said}");
    let mut packages: Vec<&str> =
        tree.lines().map(|line| line.trim_end_matches(" (*)")).filter(|l| !l.is_empty()).collect();
    packages.sort_unstable();
    packages.dedup();
    assert!(packages.len() > 100, "cargo tree lists {} packages only", packages.len());
    let refused: Vec<&str> = packages
        .into_iter()
        .filter(|line| !line.split_once('|').is_some_and(|(_, licence)| allows(licence)))
        .collect();
    assert!(refused.is_empty(), "licences that are not allowed:\n{}", refused.join("\n"));
}

/// Says whether a licence expression can be met with allowed licences.
fn allows(expression: &str) -> bool {
    // Old manifests write a slash for OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest) == Some(true) && rest.is_empty()
}

/// Reads alternatives. None is an expression that cannot be read, which allows nothing.
fn any(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all(rest)?;
    while let ["OR", tail @ ..] = *rest {
        *rest = tail;
        allowed |= all(rest)?;
    }
    Some(allowed)
}

fn all(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while let ["AND", tail @ ..] = *rest {
        *rest = tail;
        allowed &= one(rest)?;
    }
    Some(allowed)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let allowed = any(rest)?;
            let [")", tail @ ..] = *rest else { return None };
            *rest = tail;
            Some(allowed)
        }
        // An exception permits more than the licence alone.
        [licence, "WITH", _, tail @ ..] | [licence, tail @ ..] => {
            *rest = tail;
            Some(ALLOWED.contains(licence))
        }
        [] => None,
    }
}

#[test]
fn expressions_are_read() {
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND Unicode-3.0", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-3.0 WITH Classpath-exception-2.0 OR MIT", true),
        ("(MIT", false),
        ("MIT GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(allows(expression), want, "{expression}");
    }
}
