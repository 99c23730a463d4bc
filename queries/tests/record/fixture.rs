//! A notebook in a temporary directory that holds one small loop: import, suite, split, training,
//! two evaluations, report, verdicts, promotion.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use datasets::manifest::Stored as _;
use datasets::split::{RowRef, SPLIT_SCHEMA};
use datasets::suite::SUITE_SCHEMA;
use datasets::{
    Answer, Call, Case, Episode, Expected, Gold, Side, Source, SplitManifest, SplitSpec,
    SuiteManifest, SuiteSpec, Tool, Turn,
};
use ledger::catalogue::{
    CaseScored, CheckpointSaved, Count, DatasetImported, Decoding, Deployment, GateDecided,
    Leakage, Location, ModelImported, PromotionMade, Reading, ReportArm, ReportPublished,
    RunFinished, RunInputs, RunOutcome, RunStarted, SplitBuilt, StepCompleted, SuiteBuilt,
    TestLookedAt, TraceIngested, TraceRejected,
};
use ledger::{BodyRef, Digest, Facts, FixedClock, NewEvent, Notebook, Reader};
use queries::gate::{Decision, Policy, decide};
use queries::projection::{State, fold_all};
use queries::report::{IntervalSpec, Report, ReportSpec, load};
use serde_json::{Value, json};

/// Cases of the suite.
pub(crate) const N: u32 = 8;

/// Questions with the tool that answers them.
pub(crate) const QUESTIONS: [(&str, &str); 12] = [
    ("What is the weather in Oslo tomorrow?", "get_weather"),
    ("Convert 12 euros to dollars", "convert_currency"),
    ("Find flights from Rome to Paris", "search_flights"),
    ("How tall is Mont Blanc?", "mountain_height"),
    ("Weather for Lima, please", "get_weather"),
    ("Translate good morning to French", "translate"),
    ("Is 97 a prime number?", "is_prime"),
    ("Book a table for two", "book_table"),
    ("Weather radar of Bergen", "get_weather"),
    ("Change 7 pounds to yen", "convert_currency"),
    ("Sum of 4 and 5", "add"),
    ("Play some jazz", "play_music"),
];

/// The notebook with what was made in it.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) notebook: Notebook,
    pub(crate) traces: Vec<u64>,
    pub(crate) suite: (u64, Digest),
    pub(crate) split: u64,
    pub(crate) adapter: Digest,
    pub(crate) report: u64,
    pub(crate) gates: Vec<u64>,
    keys: u64,
}

impl Lab {
    pub(crate) fn reader(&self) -> Reader {
        self.notebook.reader()
    }

    pub(crate) fn state(&self) -> State {
        fold_all(&self.reader()).unwrap()
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    pub(crate) fn put<T: serde::Serialize>(&self, value: &T) -> BodyRef {
        self.notebook.blobs().put(&ledger::id::canonical_json(value).unwrap()).unwrap()
    }

    pub(crate) fn append<F: Facts>(&mut self, stream: &str, facts: &F) -> u64 {
        self.append_measured(stream, facts, json!({}))
    }

    pub(crate) fn append_measured<F: Facts>(
        &mut self,
        stream: &str,
        facts: &F,
        measured: Value,
    ) -> u64 {
        self.keys += 1;
        let event = NewEvent::new(stream, format!("key-{}", self.keys), "ada", facts).unwrap();
        self.notebook.append_one(event.measured(measured)).unwrap().seq()
    }
}

/// Makes the whole loop.
pub(crate) fn lab() -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock::new(DateTime::UNIX_EPOCH));
    let notebook = Notebook::create(&dir.path().join("notebook"), clock, "ada").unwrap();
    let mut lab = Lab {
        dir,
        notebook,
        traces: vec![],
        suite: (0, Digest::of(b"")),
        split: 0,
        adapter: Digest::of(b"adapter"),
        report: 0,
        gates: vec![],
        keys: 0,
    };
    import(&mut lab);
    suite(&mut lab);
    split(&mut lab);
    train(&mut lab);
    evaluate(&mut lab, "base", 0);
    evaluate(&mut lab, "adapter", 7);
    judge(&mut lab);
    lab
}

/// Makes an episode of a question.
pub(crate) fn episode(row: u64, (query, tool): (&str, &str)) -> Episode {
    let call = Call { name: tool.to_owned(), arguments: serde_json::Map::new() };
    Episode {
        schema: 1,
        track: "toolcall".to_owned(),
        tools: vec![Tool {
            name: tool.to_owned(),
            description: String::new(),
            parameters: Value::Null,
        }],
        turns: vec![Turn::text("user", query)],
        gold: Gold::Calls { calls: vec![call] },
        answer: Some(Answer {
            model: "m".to_owned(),
            text: Some("Certainly!".to_owned()),
            calls: vec![],
        }),
        query: query.to_owned(),
        source: Source {
            name: "toolcall/train".to_owned(),
            external_id: row.to_string(),
            location: Location { file: "train.jsonl".to_owned(), row },
            format: "prompt-completion".to_owned(),
        },
        licence: "CC-BY-4.0".to_owned(),
        attribution: "xLAM".to_owned(),
        subject: None,
        flags: vec![],
    }
}

/// Makes the event of an episode.
pub(crate) fn ingested(lab: &Lab, episode: &Episode) -> TraceIngested {
    TraceIngested {
        source: episode.source.name.clone(),
        external_id: episode.source.external_id.clone(),
        format: episode.source.format.clone(),
        location: episode.source.location.clone(),
        content: episode.content_digest(),
        body: lab.notebook.blobs().put(&episode.to_bytes()).unwrap(),
        licence: episode.licence.clone(),
        track: episode.track.clone(),
        tools: episode.tool_names(),
        flags: episode.flags.clone(),
        rules: Vec::new(),
        redacted: 0,
        aliases: Vec::new(),
        mapper: None,
    }
}

fn import(lab: &mut Lab) {
    for (row, question) in (1..).zip(QUESTIONS) {
        let facts = ingested(lab, &episode(row, question));
        let seq = lab.append("trace/toolcall/train", &facts);
        lab.traces.push(seq);
    }
    let rejected = TraceRejected {
        source: "toolcall/train".to_owned(),
        location: Location { file: "train.jsonl".to_owned(), row: 17 },
        reason: "broken JSON: expected a comma".to_owned(),
        content: Digest::of(b"broken"),
    };
    lab.append("trace/toolcall/train", &rejected);
    let imported = DatasetImported {
        source: "toolcall/train".to_owned(),
        format: "prompt-completion".to_owned(),
        file: Digest::of(b"file"),
        rows: 13,
        accepted: 12,
        rejected: 1,
        rules: Vec::new(),
        redacted: 0,
        subject_field: None,
        beside: Vec::new(),
    };
    lab.append("trace/toolcall/train", &imported);
}

fn suite(lab: &mut Lab) {
    let case = |index: usize| {
        let (query, tool) = QUESTIONS[index];
        Case {
            id: format!("case{index}"),
            episode: Digest::of(query.as_bytes()),
            seq: lab.traces[index],
            gold_seq: lab.traces[index],
            wider_seq: None,
            turns: vec![Turn::text("user", query)],
            query: query.to_owned(),
            expected: Expected::Json { value: json!({}) },
            gold_all: vec![],
            stratum: stratum(index as u32).to_owned(),
            tool: tool.to_owned(),
            flags: vec![],
            tools: vec![],
        }
    };
    let spec = SuiteSpec {
        name: "toolcall-teacher".to_owned(),
        track: "toolcall".to_owned(),
        questions: "toolcall/train".to_owned(),
        golds: vec![],
        wider: vec![],
        ..SuiteSpec::default()
    };
    let manifest = SuiteManifest {
        schema: SUITE_SCHEMA,
        spec: spec.clone(),
        scorer: Digest::of(b"scorer"),
        cases: (0..N as usize).map(case).collect(),
        licences: vec![],
        attributions: vec![],
        selected: None,
    };
    let digest = Digest::of(&manifest.to_stored());
    let built = SuiteBuilt {
        name: "toolcall-teacher".to_owned(),
        track: "toolcall".to_owned(),
        spec: serde_json::to_value(spec).unwrap(),
        manifest: lab.put(&manifest),
        suite: digest,
        scorer: Digest::of(b"scorer"),
        n: u64::from(N),
        strata: vec![count("single-call", 5), count("truncated", 3)],
        gold_against_gold: 1.0,
        licences: vec!["CC-BY-4.0".to_owned()],
    };
    lab.suite = (lab.append("suite/toolcall-teacher", &built), digest);
}

fn count(name: &str, n: u64) -> Count {
    Count { name: name.to_owned(), n }
}

fn stratum(index: u32) -> &'static str {
    if index < 5 { "single-call" } else { "truncated" }
}

fn split(lab: &mut Lab) {
    let rows = lab.traces[N as usize..].iter().map(|seq| RowRef {
        seq: *seq,
        episode: Digest::of(&seq.to_le_bytes()),
        content: Digest::of(b"content"),
        group: Digest::of(b"group"),
        stratum: "calls=1".to_owned(),
        side: if seq % 4 == 0 { Side::Dev } else { Side::Train },
        correction: None,
    });
    let manifest = SplitManifest {
        schema: SPLIT_SCHEMA,
        spec: SplitSpec::default(),
        suites: vec![],
        rows: rows.collect(),
        excluded: vec![],
        licences: vec![],
        attributions: vec![],
    };
    let built = SplitBuilt {
        name: "first".to_owned(),
        spec: json!({ "sources": ["toolcall/train"], "salt": "x" }),
        manifest: lab.put(&manifest),
        dataset: Digest::of(b"dataset"),
        train: 3,
        dev: 1,
        excluded: vec![count("in suite toolcall-teacher", 8)],
        strata: vec![],
        licences: vec!["CC-BY-4.0".to_owned()],
        leakage: vec![Leakage {
            suite: "toolcall-teacher".to_owned(),
            digest: lab.suite.1,
            n: u64::from(N),
            shared_questions: 0,
            nearest: 0.67,
        }],
    };
    lab.split = lab.append("dataset/first", &built);
}

fn train(lab: &mut Lab) {
    let model = ModelImported {
        name: "tiny".to_owned(),
        architecture: "llama".to_owned(),
        weights: Digest::of(b"weights"),
        length: 7,
        template: Digest::of(b"template"),
        licence: "Apache-2.0".to_owned(),
    };
    lab.append("model/tiny", &model);
    let started = RunStarted {
        run: "train-1".to_owned(),
        inputs: RunInputs::Train {
            model: "tiny".to_owned(),
            base: Digest::of(b"weights"),
            template: Digest::of(b"template"),
            dataset: Digest::of(b"dataset"),
            split: lab.split,
            cep: "none".to_owned(),
            recipe: json!({ "rank": 16 }),
            recipe_digest: Digest::of(b"recipe"),
        },
        seed: "7".to_owned(),
    };
    lab.append("run/train-1", &started);
    for step in 1..=6 {
        let facts = StepCompleted {
            step,
            epoch: 1,
            loss: 1.0 / step as f64,
            rate: 1e-4,
            gradient_norm: 0.5,
            tokens: 100,
            supervised: 20,
        };
        lab.append_measured("run/train-1", &facts, json!({ "seconds": 0.1 }));
    }
    let weights = lab.notebook.blobs().put(b"lora weights").unwrap();
    let saved = CheckpointSaved {
        step: 6,
        epoch: 1,
        weights: weights.clone(),
        optimiser: None,
        dev_loss: Some(0.25),
    };
    lab.append("run/train-1", &saved);
    let finished = RunFinished {
        run: "train-1".to_owned(),
        outcome: RunOutcome::Train {
            adapter: lab.adapter,
            checkpoint_step: 6,
            epoch: 1,
            dev_loss: Some(0.25),
            config: lab.notebook.blobs().put(b"{}").unwrap(),
            weights,
            truncated: vec![],
        },
    };
    lab.append("run/train-1", &finished);
}

/// Returns the deployment that stands behind a label.
pub(crate) fn deployment(lab: &Lab, label: &str) -> (Deployment, Digest) {
    let adapter = if label == "base" { "none".to_owned() } else { lab.adapter.to_string() };
    let deployment = Deployment {
        base: Digest::of(b"weights").to_string(),
        adapter,
        template: Digest::of(b"template").to_string(),
        cep: "none".to_owned(),
        decoding: Decoding { method: "greedy".to_owned(), max_new_tokens: 64 },
    };
    let id = Digest::of_json(&deployment).unwrap();
    (deployment, id)
}

/// Scores the suite with `exact` cases right.
pub(crate) fn evaluate(lab: &mut Lab, label: &str, exact: u32) {
    let (deployment, id) = deployment(lab, label);
    let run = format!("eval-{label}");
    let stream = format!("run/{run}");
    let scorer = Digest::of(b"scorer");
    let started = RunStarted {
        run: run.clone(),
        inputs: RunInputs::Eval {
            name: "toolcall-teacher".to_owned(),
            suite: lab.suite.1,
            suite_event: lab.suite.0,
            scorer,
            deployment,
            deployment_id: id,
            label: label.to_owned(),
            flags: vec![],
            leaked_questions: 0,
        },
        seed: "0".to_owned(),
    };
    lab.append(&stream, &started);
    for index in 0..N {
        let right = index < exact;
        let (_, tool) = QUESTIONS[index as usize];
        let text = if right {
            format!("<tool_call name=\"{tool}\">{{}}</tool_call>")
        } else {
            "I would rather talk about penguins".to_owned()
        };
        let reading = Reading {
            valid: right,
            name: right,
            exact: right,
            true_positives: u32::from(right),
            false_positives: 0,
            false_negatives: u32::from(!right),
        };
        let facts = CaseScored {
            suite: lab.suite.1,
            deployment: id,
            scorer,
            case: format!("case{index}"),
            index,
            stratum: stratum(index).to_owned(),
            tool: tool.to_owned(),
            strict: reading,
            lenient: reading,
            issues: if right { vec![] } else { vec!["invalid_tool_call_format".to_owned()] },
            answer: Some(lab.notebook.blobs().put(text.as_bytes()).unwrap()),
            prompt_tokens: Some(50),
            answer_tokens: Some(10),
            ended: "stop".to_owned(),
        };
        lab.append_measured(&stream, &facts, json!({ "latency_ms": 100 + index }));
    }
    let looked = TestLookedAt {
        name: "toolcall-teacher".to_owned(),
        suite: lab.suite.1,
        deployment: Some(id),
        scorer,
        purpose: "eval".to_owned(),
    };
    lab.append("suite/toolcall-teacher", &looked);
    let n = u64::from(exact);
    let outcome = RunOutcome::Eval { n: u64::from(N), exact_strict: n, exact_lenient: n };
    let finished = RunFinished { run, outcome };
    lab.append_measured(&stream, &finished, json!({ "tokens_per_second": 42.0 }));
}

/// Asks for the report of all arms.
pub(crate) fn spec() -> ReportSpec {
    ReportSpec {
        name: "first light".to_owned(),
        suite: "toolcall-teacher".to_owned(),
        runs: vec![],
        intervals: IntervalSpec { resamples: 200, ..IntervalSpec::default() },
    }
}

/// A policy that the adapter passes and the base does not.
pub(crate) fn policy() -> Policy {
    Policy::parse(
        "schema = 1\nname = \"canary\"\nalias = \"canary\"\n[[rule]]\nname = \"valid-call\"\n\
         kind = \"threshold\"\nmetric = \"valid\"\nreading = \"strict\"\nstratum = \"all\"\n\
         at_least = 0.5\n",
    )
    .unwrap()
}

fn judge(lab: &mut Lab) {
    let report = load(&lab.state(), &spec()).unwrap();
    let arms = report.facts.arms.iter().map(|arm| ReportArm {
        label: arm.label.clone(),
        deployment: arm.deployment.clone(),
        deployment_id: arm.deployment_id,
        run: arm.run.clone(),
    });
    let published = ReportPublished {
        name: report.facts.name.clone(),
        suite: lab.suite.1,
        scorer: Digest::of(b"scorer"),
        arms: arms.collect(),
        facts: lab.notebook.blobs().put(&report.facts.canonical().unwrap()).unwrap(),
        looks: report.facts.looks,
    };
    lab.report = lab.append("gate/reports", &published);
    for label in ["base", "adapter"] {
        let decision = decide(&policy(), &report, label);
        let gate = gate(lab, label, (&report, &decision));
        lab.gates.push(gate);
    }
    let (deployment, deployment_id) = deployment(lab, "adapter");
    let made = PromotionMade {
        model: "tools".to_owned(),
        alias: "canary".to_owned(),
        deployment,
        deployment_id,
        gate: lab.gates[1],
        previous: None,
    };
    lab.append("model/tools", &made);
}

fn gate(lab: &mut Lab, label: &str, (report, decision): (&Report, &Decision)) -> u64 {
    let decided = GateDecided {
        policy: "canary".to_owned(),
        policy_digest: Digest::of(b"policy"),
        policy_body: lab.notebook.blobs().put(b"policy").unwrap(),
        report: lab.report,
        deployment: deployment(lab, label).1,
        label: label.to_owned(),
        alias: "canary".to_owned(),
        verdict: decision.verdict,
        rules: decision.rules.clone(),
        looks: report.facts.looks,
    };
    lab.append("gate/canary", &decided)
}
