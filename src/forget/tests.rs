#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datasets::split::{RowRef, SPLIT_SCHEMA};
use datasets::suite::SUITE_SCHEMA;
use datasets::{Expected, Gold, Side, Source, SplitSpec, SuiteSpec, Turn};
use ledger::catalogue::{Decoding, Deployment, Location};
use ledger::{Facts, NewEvent, Notebook, SystemClock};
use serde_json::json;

use super::*;
use crate::capture::{Identity, trace_facts};
use crate::lab::Talk;

/// A notebook to which events are added as somebody could have added them who builds of personal
/// rows. What ships does not, so that nothing here can be made through it.
struct Made {
    dir: tempfile::TempDir,
    notebook: Notebook,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let notebook = Notebook::create(&dir.path().join("notebook"), clock, "ada").unwrap();
        Self { dir, notebook }
    }

    fn lab(&self) -> Lab<'_> {
        Lab { notebook: &self.notebook, actor: "ada", talk: Talk { quiet: true } }
    }

    fn append<F: Facts>(&self, facts: &F) -> u64 {
        let id = format!("event-{}", self.notebook.reader().head().unwrap().size);
        let event = NewEvent::new("made/here", id, "ada", facts).unwrap();
        self.notebook.append_one(event).unwrap().seq()
    }

    fn put<M: Stored>(&self, manifest: &M) -> BodyRef {
        self.notebook.blobs().put(&manifest.to_stored()).unwrap()
    }

    /// Adds a row of a subject, or of nobody.
    fn row(&self, subject: Option<&str>, words: &str) -> u64 {
        let episode = episode(subject, words);
        let identity =
            Identity::make(&episode, episode.content_digest(), self.notebook.blobs()).unwrap();
        let stored = identity.stored(episode.to_bytes());
        self.notebook.blobs().put(&stored).unwrap();
        self.append(&trace_facts(&episode, &identity, identity.body(&stored)))
    }

    /// Adds a dataset of one row, a training run on it, and what came of the run.
    fn trained(&self, name: &str, row: u64) -> Digest {
        let rows = vec![RowRef {
            seq: row,
            episode: Digest::of(b"episode"),
            content: Digest::of(b"content"),
            group: Digest::of(b"group"),
            stratum: "calls=1".to_owned(),
            side: Side::Train,
            correction: None,
        }];
        let manifest = SplitManifest {
            schema: SPLIT_SCHEMA,
            spec: SplitSpec::default(),
            suites: vec![],
            rows,
            excluded: vec![],
            licences: vec![],
            attributions: vec![],
        };
        let (dataset, adapter) = (Digest::of(name.as_bytes()), Digest::of(&row.to_le_bytes()));
        let split = self.append(&SplitBuilt {
            name: name.to_owned(),
            spec: json!({}),
            manifest: self.put(&manifest),
            dataset,
            train: 1,
            dev: 0,
            excluded: vec![],
            strata: vec![],
            licences: vec![],
            leakage: vec![],
        });
        let run = format!("train-{name}");
        self.append(&RunStarted {
            run: run.clone(),
            inputs: RunInputs::Train {
                model: "tiny".to_owned(),
                base: Digest::of(b"weights"),
                template: Digest::of(b"template"),
                dataset,
                split,
                cep: "none".to_owned(),
                recipe: json!({}),
                recipe_digest: Digest::of(b"recipe"),
            },
            seed: "7".to_owned(),
        });
        let outcome = RunOutcome::Train {
            adapter,
            checkpoint_step: 1,
            epoch: 1,
            dev_loss: None,
            config: self.notebook.blobs().put(b"config").unwrap(),
            weights: self.notebook.blobs().put(name.as_bytes()).unwrap(),
            truncated: vec![],
        };
        self.append(&RunFinished { run, outcome });
        adapter
    }

    /// Adds a suite of one case and returns its manifest.
    fn suite(&self, name: &str, (question, gold, wider): (u64, u64, Option<u64>)) -> BodyRef {
        let case = Case {
            id: "case".to_owned(),
            episode: Digest::of(b"episode"),
            seq: question,
            gold_seq: gold,
            wider_seq: wider,
            turns: vec![],
            query: String::new(),
            expected: Expected::Json { value: json!({}) },
            gold_all: vec![],
            stratum: "single-call".to_owned(),
            tool: String::new(),
            flags: vec![],
            tools: vec![],
        };
        let spec = SuiteSpec {
            name: name.to_owned(),
            track: "toolcall".to_owned(),
            questions: "made".to_owned(),
            golds: vec![],
            wider: vec![],
            ..SuiteSpec::default()
        };
        let manifest = SuiteManifest {
            schema: SUITE_SCHEMA,
            spec,
            scorer: Digest::of(b"scorer"),
            cases: vec![case],
            licences: vec![],
            attributions: vec![],
            selected: None,
        };
        let body = self.put(&manifest);
        self.append(&SuiteBuilt {
            name: name.to_owned(),
            track: "toolcall".to_owned(),
            spec: json!({}),
            manifest: body.clone(),
            suite: manifest.identity(),
            scorer: Digest::of(b"scorer"),
            n: 1,
            strata: vec![],
            gold_against_gold: 1.0,
            licences: vec![],
        });
        body
    }

    fn held(&self, name: &str) -> Holdings {
        self.notebook.reader().holdings(name).unwrap()
    }
}

fn episode(subject: Option<&str>, words: &str) -> datasets::Episode {
    datasets::Episode {
        schema: 1,
        track: "chat".to_owned(),
        tools: vec![],
        turns: vec![Turn::text("user", words)],
        gold: Gold::None,
        answer: None,
        query: words.to_owned(),
        source: Source {
            name: "made".to_owned(),
            external_id: words.to_owned(),
            location: Location { file: String::new(), row: 1 },
            format: "episodes".to_owned(),
        },
        licence: "own".to_owned(),
        attribution: String::new(),
        subject: subject.map(str::to_owned),
        flags: vec![],
    }
}

fn promotion(adapter: Digest, alias: &str) -> PromotionMade {
    let deployment = Deployment {
        base: "base".to_owned(),
        adapter: adapter.to_string(),
        template: "template".to_owned(),
        cep: "none".to_owned(),
        decoding: Decoding { method: "greedy".to_owned(), max_new_tokens: 9 },
    };
    PromotionMade {
        model: "toolcall".to_owned(),
        alias: alias.to_owned(),
        deployment_id: Digest::of_json(&deployment).unwrap(),
        deployment,
        gate: 0,
        previous: None,
    }
}

/// Finds a file by name.
fn file(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.find_map(|path| match path.is_dir() {
        true => file(&path, name),
        false => path.file_name().is_some_and(|known| known == name).then_some(path),
    })
}

#[test]
fn all_that_came_of_a_subjects_rows_is_named_and_nothing_else() {
    let made = Made::new();
    let (ann, bea) = (made.row(Some("ann"), "of ann"), made.row(None, "of nobody"));
    let (of_ann, of_bea) = (made.trained("hers", ann), made.trained("open", bea));
    made.suite("asks", (ann, bea, None));
    made.suite("golds", (bea, ann, None));
    made.suite("widens", (bea, bea, Some(ann)));
    made.suite("other", (bea, bea, None));
    // Built a second time under its name, it is told once.
    made.trained("hers", ann);
    let (canary, open) = (promotion(of_ann, "canary"), promotion(of_bea, "canary"));
    made.append(&canary);
    made.append(&open);
    let champion = promotion(of_ann, "champion");
    made.append(&PromotionOverridden {
        promotion: champion.clone(),
        reason: "drill".to_owned(),
        second_actor: "bob".to_owned(),
    });
    let want = Downstream {
        datasets: vec!["hers".to_owned()],
        suites: vec!["asks".to_owned(), "golds".to_owned(), "widens".to_owned()],
        runs: vec!["train-hers".to_owned()],
        adapters: vec![of_ann.to_string()],
        promotions: vec![
            format!("{} as canary", canary.deployment_id),
            format!("{} as champion (overridden)", champion.deployment_id),
        ],
        unreadable: vec![],
    };
    assert_eq!(downstream(&made.lab().view(), &made.held("ann")).unwrap(), want);
    let forgotten = forget(&made.lab(), "ann").unwrap();
    assert_eq!((forgotten.downstream, forgotten.events), (want, vec![ann]));
}

#[test]
fn a_manifest_that_cannot_be_read_stops_nothing_and_is_listed() {
    let made = Made::new();
    let ann = made.row(Some("ann"), "of ann");
    let missing = made.suite("gone", (ann, ann, None));
    made.trained("hers", ann);
    fs::remove_file(made.notebook.blobs().path(&missing.digest)).unwrap();
    let damaged = made.suite("cut", (0, ann, None));
    fs::write(made.notebook.blobs().path(&damaged.digest), "{").unwrap();
    let forgotten = forget(&made.lab(), "ann").unwrap();
    assert_eq!(forgotten.downstream.unreadable, ["suite gone", "suite cut"]);
    assert_eq!(forgotten.downstream.datasets, ["hers"]);
    assert!(forgotten.erased.is_some());
}

#[test]
fn a_forgetting_that_is_cut_short_leaves_no_readable_words() {
    let made = Made::new();
    made.row(Some("ann"), "of ann");
    let index = made.notebook.dir().join("index");
    fs::create_dir_all(&index).unwrap();
    fs::write(index.join("words"), "of ann").unwrap();
    // Somebody who is not known is not forgotten, and costs nobody the index.
    assert!(forget(&made.lab(), "nobody").is_err());
    assert!(index.exists());
    // The key cannot be destroyed where a folder stands in its place.
    let name = format!("{}.key", made.held("ann").subjects[0]);
    let key = file(made.dir.path(), &name).unwrap();
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(forget(&made.lab(), "ann").is_err());
    assert!(!index.exists());
    fs::remove_dir(&key).unwrap();
    fs::write(&key, kept).unwrap();
    assert!(forget(&made.lab(), "ann").unwrap().erased.is_some());
}
