//! House rules, checked. Each rule says why; an exception has a reason and lapses when it is no
//! longer needed.

mod scan;

use std::collections::BTreeSet;

use super::tree::{self, File};

/// Lines of a function: what fits on a screen is read as a whole.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Characters of a line of code.
const COLUMNS_MAX: usize = 100;
/// Parameters beside `self`: more of them get mixed up.
const PARAMETERS_MAX: usize = 5;

/// What may break a rule, and why: (rule, path, item, reason). A path that ends in `/` is a folder.
const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[
    (
        "parameters",
        "ledger/src/journal/tests.rs",
        "a_frame_reads_back (7",
        "a property test draws each of its inputs as a parameter",
    ),
    (
        "no panic on input",
        "datasets/src/manifest.rs",
        ".expect(",
        "maps with text keys and plain numbers always have a JSON form",
    ),
];

/// What code outside tests may not contain: (rule, where, not where, phrases).
const BANNED: &[Ban] = &[
    Ban {
        rule: "no panic on input",
        within: &[""],
        without: &[],
        phrases: &[
            ".unwrap()",
            ".expect(\"",
            "panic!",
            "todo!",
            "unimplemented!",
            "unreachable!",
            "dbg!",
        ],
    },
    Ban {
        rule: "unsafe stays in the kernels",
        within: &[""],
        without: &["models/src/kernels/"],
        phrases: &["unsafe"],
    },
    Ban {
        rule: "the read side has no writer",
        within: &["queries/src/"],
        without: &[],
        phrases: &["Notebook", "NewEvent"],
    },
    Ban {
        rule: "no random numbers that cannot be seeded",
        within: &[""],
        without: &[],
        phrases: &["Tensor::rand", "Tensor::randn", "Var::rand", "Var::randn", "rand_like"],
    },
    Ban {
        rule: "no hash order near facts",
        within: &["ledger/src/catalogue/", "datasets/src/", "queries/src/"],
        without: &[],
        phrases: &["HashMap", "HashSet"],
    },
];

/// Phrases that one part of the code may not contain.
struct Ban {
    rule: &'static str,
    within: &'static [&'static str],
    without: &'static [&'static str],
    phrases: &'static [&'static str],
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    rule: &'static str,
    path: String,
    line: usize,
    item: String,
}

impl Violation {
    fn new(rule: &'static str, path: &str, line: usize, item: impl Into<String>) -> Self {
        Self { rule, path: path.to_owned(), line, item: item.into() }
    }

    fn is_excepted_by(&self, (rule, path, item, _): &(&str, &str, &str, &str)) -> bool {
        let path_fits = self.path == *path || (path.ends_with('/') && self.path.starts_with(path));
        self.rule == *rule && path_fits && self.item.starts_with(item)
    }
}

/// Takes the exceptions from `rules` out, and complains of those that nothing needs.
fn judge(rules: &[&str], violations: Vec<Violation>) {
    let mut said: Vec<String> = violations
        .iter()
        .filter(|v| !EXCEPTIONS.iter().any(|exception| v.is_excepted_by(exception)))
        .map(|v| format!("{}:{}: {}: {}", v.path, v.line, v.rule, v.item))
        .collect();
    let unused = EXCEPTIONS.iter().filter(|exception| {
        rules.contains(&exception.0) && !violations.iter().any(|v| v.is_excepted_by(exception))
    });
    said.extend(unused.map(|(rule, path, item, _)| format!("{path}: {rule}: {item}: not needed")));
    assert!(said.is_empty(), "{} against the house rules:\n{}", said.len(), said.join("\n"));
}

fn rust_files() -> Vec<File> {
    tree::files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Says whether all of a file is there for tests, examples or benchmarks only.
fn is_test_file(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let folders = ["tests/", "benches/", "examples/"];
    let in_folder =
        |folder: &&str| path.starts_with(*folder) || path.contains(&format!("/{folder}"));
    folders.iter().any(in_folder) || test_modules.contains(path)
}

/// Lists where a file's modules may lie: (path, only for tests).
fn module_files(file: &File) -> Vec<(String, bool)> {
    let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let stem = name.trim_end_matches(".rs");
    let dir = match stem {
        "lib" | "main" | "mod" => dir.to_owned(),
        _ => format!("{dir}/{stem}"),
    };
    let mut files = Vec::new();
    for (module, for_tests) in scan::declared(&scan::mask(&file.text)) {
        files.push((format!("{dir}/{module}.rs"), for_tests));
        files.push((format!("{dir}/{module}/mod.rs"), for_tests));
    }
    // `#[path = ".."]` is used for tests beside their module only.
    for rest in file.text.split("#[path = \"").skip(1) {
        let beside = rest.split('"').next().unwrap_or_default();
        let (parent, _) = file.path.rsplit_once('/').unwrap_or(("", ""));
        files.push((format!("{parent}/{beside}"), true));
    }
    files
}

/// Lists files that are compiled for tests only, with what they declare in turn.
fn test_modules(files: &[File]) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    loop {
        let before = found.len();
        for file in files {
            let inherited = found.contains(&file.path);
            let modules = module_files(file).into_iter();
            found.extend(modules.filter(|(_, test)| *test || inherited).map(|(path, _)| path));
        }
        if found.len() == before {
            return found;
        }
    }
}

#[test]
fn functions_files_and_lines_are_short() {
    let mut violations = Vec::new();
    for file in rust_files() {
        let path = &file.path;
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            violations.push(Violation::new("file length", path, 1, format!("{lines} lines")));
        }
        for (at, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let item = format!("{columns} columns");
                violations.push(Violation::new("line length", path, at + 1, item));
            }
        }
        for function in scan::functions(&scan::mask(&file.text)) {
            let (line, name) = (function.line, &function.name);
            if function.lines > FUNCTION_LINES_MAX {
                let item = format!("{name} ({} lines)", function.lines);
                violations.push(Violation::new("function length", path, line, item));
            }
            if function.parameters > PARAMETERS_MAX {
                let item = format!("{name} ({} parameters)", function.parameters);
                violations.push(Violation::new("parameters", path, line, item));
            }
        }
    }
    judge(&["file length", "line length", "function length", "parameters"], violations);
}

#[test]
fn banned_phrases_stay_out() {
    let files = rust_files();
    let test_modules = test_modules(&files);
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| !is_test_file(&file.path, &test_modules)) {
        let starts = |folders: &[&str]| folders.iter().any(|folder| file.path.starts_with(folder));
        let code = scan::mask(&file.text);
        let in_test = scan::test_lines(&code);
        for ban in BANNED.iter().filter(|ban| starts(ban.within) && !starts(ban.without)) {
            for phrase in ban.phrases {
                // A quote opens a literal, which the mask blanks: a method named `expect` that
                // takes anything else is not meant.
                let text = if phrase.ends_with('"') { &quotes_kept(&file.text) } else { &code };
                let lines = scan::places(text, phrase).into_iter();
                let lines = lines.map(|at| scan::line_of(text, at)).filter(|l| !in_test[l - 1]);
                violations.extend(lines.map(|l| Violation::new(ban.rule, &file.path, l, *phrase)));
            }
        }
    }
    judge(&BANNED.iter().map(|ban| ban.rule).collect::<Vec<_>>(), violations);
}

/// Returns masked text in which the quote that opens a literal still stands.
fn quotes_kept(source: &str) -> Vec<char> {
    let mut code = scan::mask(source);
    let text: Vec<char> = source.chars().collect();
    for at in 1..code.len() {
        if text[at] == '"' && code[at - 1] == '(' {
            code[at] = '"';
        }
    }
    code
}

#[test]
fn every_source_file_is_compiled() {
    let files = rust_files();
    let declared: BTreeSet<String> =
        files.iter().flat_map(module_files).map(|(path, _)| path).collect();
    let root = |path: &str| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let in_src = |path: &str| path.starts_with("src/") || path.contains("/src/");
    let dead = files
        .iter()
        .filter(|file| in_src(&file.path) && !root(&file.path) && !declared.contains(&file.path));
    let violation = |file: &File| Violation::new("dead file", &file.path, 1, "no mod names it");
    judge(&["dead file"], dead.map(violation).collect());
}

#[test]
fn no_text_names_a_machine_or_a_registry() {
    // Written in parts, so that this file does not contain them.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/tmp/", "scratch"),
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("python", "hosted"),
    ];
    let mut violations = Vec::new();
    for file in tree::files() {
        // Written by cargo: it names the registry that every build uses.
        if file.path == "Cargo.lock" || file.path.ends_with("/Cargo.lock") {
            continue;
        }
        for word in words {
            for (at, line) in file.text.lines().enumerate() {
                if line.contains(word) {
                    violations.push(Violation::new("forbidden word", &file.path, at + 1, word));
                }
            }
        }
    }
    judge(&["forbidden word"], violations);
}

#[test]
fn crates_know_nothing_of_what_is_beyond_them() {
    let lock = tree::read("Cargo.lock");
    for (package, strangers) in [
        ("ledger", &["tokio", "candle-core", "tantivy", "reqwest", "datasets"][..]),
        ("datasets", &["tokio", "candle-core", "tantivy", "reqwest", "queries"]),
        ("queries", &["tokio", "candle-core", "reqwest", "models"]),
        ("models", &["tokio", "tantivy", "reqwest", "ledger"]),
    ] {
        let tree = ["tree", "-p", package, "-e", "normal"];
        let (found, _, said) = tree::cargo(&tree);
        assert!(found, "{package}: {said}");
        for stranger in strangers {
            let named = format!("name = \"{stranger}\"");
            assert!(lock.lines().any(|line| line == named), "{stranger} is not in Cargo.lock");
            let (depends, chain, said) = tree::cargo(&[&tree[..], &["-i", stranger]].concat());
            assert!(!depends, "{package} depends on {stranger}:\n{chain}");
            // It must fail because there is no such package below this one, and not otherwise.
            assert!(said.contains("did not match any packages"), "{package}, {stranger}: {said}");
        }
    }
}

#[test]
fn an_exception_fits_by_rule_path_and_item() {
    let broken = Violation::new("line length", "a/b.rs", 3, "101 columns");
    assert!(broken.is_excepted_by(&("line length", "a/b.rs", "", "why")));
    assert!(broken.is_excepted_by(&("line length", "a/", "101", "why")));
    assert!(!broken.is_excepted_by(&("line length", "a/", "102", "why")));
    assert!(!broken.is_excepted_by(&("file length", "a/b.rs", "", "why")));
    assert!(!broken.is_excepted_by(&("line length", "a/b", "", "why")));
}
