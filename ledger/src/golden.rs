//! Golden files: one per kind and schema, and one for the envelope's bytes.
//!
//! A stored struct whose JSON changes without a new schema number makes old records unreadable in
//! silence. When a test here fails: give the kind a new schema number, keep the old golden file,
//! and write the new one by running the tests with `UPDATE_GOLDEN=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::catalogue::*;
use crate::codec;
use crate::event::{BodyRef, Envelope, Facts, NewEvent};
use crate::id::Digest;

/// The sources that say which kinds there are.
const CATALOGUE: [&str; 5] = [
    include_str!("catalogue/capture.rs"),
    include_str!("catalogue/data.rs"),
    include_str!("catalogue/decisions.rs"),
    include_str!("catalogue/record.rs"),
    include_str!("catalogue/runs.rs"),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(name)
}

/// Compares a text with a golden file, or writes the file where that was asked for.
pub(crate) fn compare(name: &str, text: &str) {
    let path = path(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} is missing"));
    assert_eq!(text, golden, "{name} changed: give the kind a new schema number");
}

/// Checks samples of one kind: their JSON, and that stored ones read back.
fn check<F: Facts + PartialEq + Debug>(samples: &[F]) {
    assert_eq!(F::UPCASTS.len() as u32, F::SCHEMA - 1, "{}: lift each older schema", F::KIND);
    let text = serde_json::to_string_pretty(samples).unwrap() + "\n";
    let name = format!("{}.{}.json", F::KIND, F::SCHEMA);
    compare(&name, &text);
    for sample in samples {
        let event = NewEvent::new("stream", "id", "actor", sample).unwrap();
        let stored = codec::encode(&envelope(event)).unwrap();
        assert_eq!(codec::decode(&stored).unwrap().facts::<F>().unwrap(), *sample);
    }
}

/// Checks that facts of every older schema still read, as what they are now.
fn check_older<F: Facts + PartialEq + Debug>(schema: u32, now: &[F]) {
    assert_eq!(F::UPCASTS.len() as u32, F::SCHEMA - 1, "each older schema must be lifted");
    let stored = fs::read_to_string(path(&format!("{}.{schema}.json", F::KIND))).unwrap();
    let stored: Vec<Value> = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored.len(), now.len());
    for (facts, now) in stored.into_iter().zip(now) {
        let event = NewEvent::new("stream", "id", "actor", now).unwrap();
        let event = Envelope { facts, schema, ..envelope(event) };
        assert_eq!(event.facts::<F>().unwrap(), *now);
    }
}

fn envelope(event: NewEvent) -> Envelope {
    Envelope {
        seq: 300,
        id: event.id,
        stream: event.stream,
        version: 7,
        kind: event.kind,
        schema: event.schema,
        at: "2026-05-03T12:34:56.123456Z".parse::<DateTime<Utc>>().unwrap(),
        actor: event.actor,
        cause: Some(299),
        run: Some("run-1".to_owned()),
        prev: Some(digest(9)),
        facts: event.facts,
        measured: json!({"wall_ms": 12.5}),
    }
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn body(n: u8) -> BodyRef {
    BodyRef { digest: digest(n), length: u64::from(n), cipher: None, subject: None }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|&one| text(one)).collect()
}

fn count(name: &str, n: u64) -> Count {
    Count { name: text(name), n }
}

fn deployment() -> Deployment {
    Deployment {
        base: text("base"),
        adapter: text("adapter"),
        template: text("template"),
        cep: text("none"),
        decoding: Decoding { method: text("greedy"), max_new_tokens: 256 },
    }
}

fn location() -> Location {
    Location { file: text("train.jsonl"), row: 17 }
}

fn trace() -> TraceIngested {
    TraceIngested {
        source: text("xlam"),
        external_id: text("row-17"),
        format: text("toolcall"),
        location: location(),
        body: BodyRef { cipher: Some(text("xchacha20")), subject: Some(text("s-1")), ..body(1) },
        content: digest(6),
        licence: text("CC-BY-4.0"),
        track: text("toolcall"),
        tools: texts(&["add", "sum"]),
        flags: texts(&["answer.recorded"]),
        rules: Vec::new(),
        redacted: 0,
        aliases: Vec::new(),
        mapper: None,
    }
}

fn redacted_trace() -> TraceIngested {
    TraceIngested { rules: texts(&["email/1", "secrets/1"]), redacted: 3, ..trace() }
}

fn mapped_trace() -> TraceIngested {
    TraceIngested {
        aliases: texts(&["resp-1", "t1"]),
        mapper: Some(text("spans/1")),
        ..redacted_trace()
    }
}

fn promotion() -> PromotionMade {
    PromotionMade {
        model: text("toolcaller"),
        alias: text("champion"),
        deployment: deployment(),
        deployment_id: digest(5),
        gate: 99,
        previous: Some(digest(4)),
    }
}

#[test]
fn capture() {
    check_older(1, &[trace()]);
    check_older(2, &[redacted_trace()]);
    check(&[mapped_trace()]);
    check_older(1, &[TraceRevised { revises: 12, trace: trace() }]);
    check_older(2, &[TraceRevised { revises: 12, trace: redacted_trace() }]);
    check(&[TraceRevised { revises: 12, trace: mapped_trace() }]);
    check(&[TraceRejected {
        source: text("xlam"),
        location: location(),
        reason: text("no gold"),
        content: digest(2),
    }]);
    check(&[CallCaptured {
        source: text("gateway"),
        external_id: text("chatcmpl-1"),
        request: Some(body(3)),
        response: Some(body(4)),
        status: Some(200),
        ended: CallEnded::Complete,
        streamed: true,
        error: None,
        rules: texts(&["secrets/2"]),
        redacted: false,
        truncated: false,
    }]);
    let feedback = FeedbackRecorded {
        target: text("resp-1"),
        name: text("helpful"),
        value: json!(0.5),
        comment: None,
        body: None,
    };
    check_older(1, std::slice::from_ref(&feedback));
    check(&[FeedbackRecorded { body: Some(body(2)), ..feedback }]);
    let imported = DatasetImported {
        source: text("xlam"),
        format: text("toolcall"),
        file: digest(3),
        rows: 10,
        accepted: 9,
        rejected: 1,
        rules: Vec::new(),
        redacted: 0,
        subject_field: None,
        beside: Vec::new(),
    };
    check_older(1, std::slice::from_ref(&imported));
    check(&[DatasetImported {
        rules: texts(&["secrets/1"]),
        redacted: 2,
        subject_field: Some(text("user.id")),
        beside: vec![digest(4)],
        ..imported
    }]);
}

#[test]
fn live_capture() {
    check(&[CaptureLost { source: text("gateway"), calls: 3, reason: text("disk full") }]);
    check(&[SpanCaptured {
        source: text("otlp/shop"),
        trace_id: text("0af7651916cd43dd8448eb211c80319c"),
        span_id: text("b7ad6b7169203331"),
        parent_id: Some(text("00f067aa0ba902b7")),
        role: text("generation"),
        form: text("genai"),
        mapper: text("spans/1"),
        content: digest(1),
        body: body(2),
        rules: texts(&["secrets/2"]),
        redacted: 1,
        revises: None,
    }]);
    check(&[PagePulled {
        source: text("langfuse"),
        origin: text("https://langfuse.example"),
        route: text("/api/public/v2/observations"),
        query: vec![(text("cursor"), text("eyJ")), (text("limit"), text("100"))],
        next: Some(text("eyK")),
        rows: 100,
        body: body(3),
        subjects: texts(&["s-1"]),
        rules: texts(&["secrets/2"]),
        redacted: false,
    }]);
}

/// An export of Langfuse was named by its trace before other ids were told.
#[test]
fn older_exports_are_called_by_their_trace() {
    let stored = fs::read_to_string(path("trace.ingested.2.json")).unwrap();
    let mut stored: Vec<Value> = serde_json::from_str(&stored).unwrap();
    stored[0]["external_id"] = json!("t1/o1");
    stored[0]["format"] = json!("langfuse-export");
    let event = NewEvent::new("stream", "id", "actor", &trace()).unwrap();
    let event = Envelope { facts: stored.remove(0), schema: 2, ..envelope(event) };
    let now = event.facts::<TraceIngested>().unwrap();
    assert_eq!(now.aliases, ["t1"]);
    assert!(now.is_called("t1") && now.is_called("t1/o1") && !now.is_called("o1"));
}

#[test]
fn data() {
    check(&[SplitBuilt {
        name: text("toolcall"),
        spec: json!({"salt": "s", "dev": 0.1}),
        manifest: body(1),
        dataset: digest(2),
        train: 220,
        dev: 30,
        excluded: vec![count("suite", 50)],
        strata: vec![count("single", 200), count("many", 50)],
        licences: texts(&["CC-BY-4.0"]),
        leakage: vec![Leakage {
            suite: text("toolcall-teacher"),
            digest: digest(3),
            n: 50,
            shared_questions: 0,
            nearest: 0.25,
        }],
    }]);
    check(&[SuiteBuilt {
        name: text("toolcall-teacher"),
        track: text("toolcall"),
        spec: json!({"source": "xlam"}),
        manifest: body(1),
        suite: digest(2),
        scorer: digest(3),
        n: 50,
        strata: vec![count("single", 22)],
        gold_against_gold: 1.0,
        licences: texts(&["CC-BY-4.0"]),
    }]);
    let looked = TestLookedAt {
        name: text("toolcall-teacher"),
        suite: digest(1),
        deployment: Some(digest(2)),
        scorer: digest(3),
        purpose: text("eval"),
    };
    check_older(1, std::slice::from_ref(&looked));
    let shown = TestLookedAt { deployment: None, purpose: text("show: audit"), ..looked.clone() };
    check(&[looked, shown]);
    check(&[SearchSaved { name: text("failures"), search: json!({"query": "outcome:failed"}) }]);
    check(&[CepProposed {
        name: text("rules"),
        cep: digest(1),
        body: body(2),
        parent: None,
        targets: texts(&["wrong-name"]),
    }]);
}

#[test]
fn decisions() {
    check(&[ModelImported {
        name: text("smollm2"),
        architecture: text("llama"),
        weights: digest(1),
        length: 98_000_000,
        template: digest(2),
        licence: text("Apache-2.0"),
    }]);
    check(&[ReportPublished {
        name: text("first"),
        suite: digest(1),
        scorer: digest(2),
        arms: vec![ReportArm {
            label: text("adapter"),
            deployment: deployment(),
            deployment_id: digest(3),
            run: text("run-1"),
        }],
        facts: body(4),
        looks: 5,
    }]);
    let rule = |verdict| RuleDecided {
        rule: text("valid"),
        asks: text("valid call is at least .90"),
        verdict,
        numbers: json!({"valid": 0.96}),
        says: text("48 of 50"),
    };
    check(&[GateDecided {
        policy: text("canary"),
        policy_digest: digest(1),
        policy_body: body(2),
        report: 77,
        deployment: digest(3),
        label: text("adapter"),
        alias: text("canary"),
        verdict: Verdict::Invalid,
        rules: [Verdict::Pass, Verdict::Inconclusive, Verdict::Fail, Verdict::Invalid]
            .map(rule)
            .to_vec(),
        looks: 5,
    }]);
    check(&[promotion()]);
    check(&[PromotionOverridden {
        promotion: promotion(),
        reason: text("incident"),
        second_actor: text("ops"),
    }]);
    check(&[RollbackMade {
        model: text("toolcaller"),
        alias: text("champion"),
        deployment_id: digest(4),
        reason: text("complaints"),
    }]);
}

#[test]
fn record() {
    check(&[LedgerCreated {
        origin: text("ledger/0123456789ab"),
        verifier_key: text("ledger/0123456789ab+00000000+AQ=="),
        layout: 1,
    }]);
    check(&[KeyRotated {
        verifier_key: text("ledger/0123456789ab+00000001+AQ=="),
        previous: text("ledger/0123456789ab+00000000+AQ=="),
        size: 4,
        root: digest(1),
        note: text("a\n4\nb\nrotates-to c\n\nsig\n"),
    }]);
    check(&[BodyErased { subject: text("s-00"), bodies: 2, events: 3 }]);
    check(&[CheckpointReleased {
        run: text("run-1"),
        step: 10,
        bodies: vec![body(1)],
        why: text("the run has finished"),
    }]);
    check(&[LedgerRepaired {
        journal: vec![(3, 4)],
        store: true,
        bodies: vec![digest(2)],
        checkpoint: true,
    }]);
    check(&[CheckpointSent { size: 4, root: digest(1), place: text("/mnt/auditor") }]);
    check(&[CheckpointSigned { size: 4, root: digest(1), note: text("a\n4\nb\n\nsig\n") }]);
}

#[test]
fn runs() {
    check(&[RunRequested {
        run: text("run-1"),
        work: text("train"),
        request: json!({"recipe": "paper"}),
    }]);
    check(&[RunClaimed { run: text("run-1") }]);
    check(&[started(train_inputs()), started(eval_inputs())]);
    check(&[StepCompleted {
        step: 1,
        epoch: 1,
        loss: 1.25,
        rate: 0.0002,
        gradient_norm: 3.5,
        tokens: 900,
        supervised: 120,
    }]);
    check(&[CheckpointSaved {
        step: 10,
        epoch: 1,
        weights: body(1),
        optimiser: Some(body(2)),
        dev_loss: Some(0.75),
    }]);
    check(&[case()]);
    check(&[finished(train_outcome()), finished(eval_outcome())]);
    check(&[RunFailed { run: text("run-1"), reason: text("out of memory") }]);
    check(&[RunReplayed {
        run: text("run-1"),
        tier: text("L2"),
        compared: 20,
        divergence: Some(Divergence {
            seq: 88,
            kind: text("step.completed"),
            path: text("/loss"),
            recorded: json!(1.25),
            replayed: Value::Null,
        }),
        changed: texts(&["seed=8"]),
        scope: texts(&["steps after 20"]),
    }]);
}

fn started(inputs: RunInputs) -> RunStarted {
    RunStarted { run: text("run-1"), inputs, seed: text("18446744073709551615") }
}

fn train_inputs() -> RunInputs {
    RunInputs::Train {
        model: text("smollm2"),
        base: digest(1),
        template: digest(2),
        dataset: digest(3),
        split: 40,
        cep: text("none"),
        recipe: json!({"r": 16}),
        recipe_digest: digest(4),
    }
}

fn eval_inputs() -> RunInputs {
    RunInputs::Eval {
        name: text("toolcall-teacher"),
        suite: digest(1),
        suite_event: 41,
        scorer: digest(2),
        deployment: deployment(),
        deployment_id: digest(3),
        label: text("adapter"),
        flags: texts(&["cep-shift"]),
        leaked_questions: 0,
    }
}

fn finished(outcome: RunOutcome) -> RunFinished {
    RunFinished { run: text("run-1"), outcome }
}

fn train_outcome() -> RunOutcome {
    RunOutcome::Train {
        adapter: digest(1),
        checkpoint_step: 20,
        epoch: 2,
        dev_loss: Some(0.5),
        config: body(2),
        weights: body(3),
        truncated: vec![12, 15],
    }
}

fn eval_outcome() -> RunOutcome {
    RunOutcome::Eval { n: 50, exact_strict: 20, exact_lenient: 31 }
}

fn case() -> CaseScored {
    let strict = Reading { valid: true, false_negatives: 2, ..Reading::default() };
    let lenient =
        Reading { valid: true, name: true, exact: true, true_positives: 2, ..Reading::default() };
    CaseScored {
        suite: digest(1),
        deployment: digest(2),
        scorer: digest(3),
        case: text("case-1"),
        index: 0,
        stratum: text("single"),
        tool: text("add"),
        strict,
        lenient,
        issues: texts(&["fenced"]),
        answer: Some(body(4)),
        prompt_tokens: Some(300),
        answer_tokens: None,
        ended: text("stop"),
    }
}

/// The stored bytes of one event with every field set.
#[test]
fn envelope_bytes() {
    let facts = CheckpointSigned { size: 4, root: digest(1), note: text("note") };
    let event = NewEvent::new("ledger", "checkpoint/4", "tester", &facts).unwrap();
    let envelope = envelope(event);
    let bytes = codec::encode(&envelope).unwrap();
    let hex: String = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    compare("envelope.hex", &hex);
    assert_eq!(codec::decode(&bytes).unwrap(), envelope);
}

/// Every kind in the catalogue has a golden file, and every golden file its kind.
#[test]
fn every_kind_is_covered() {
    let mut kinds: Vec<String> = CATALOGUE
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| {
            let (_, rest) = line.strip_prefix("    ")?.split_once(" = \"")?;
            let (kind, schema) = rest.strip_suffix(',')?.split_once("\" / ")?;
            let newest: u32 = schema.split(' ').next()?.parse().ok()?;
            Some((1..=newest).map(move |schema| format!("{kind}.{schema}.json")))
        })
        .flatten()
        .collect();
    assert_eq!(kinds.len(), 43, "the catalogue grew: add samples of the new kinds, then this");
    // What is stored beside events: checked where it is made.
    kinds.extend(texts(&["envelope.hex", "subject.1.txt"]));
    kinds.sort();
    let mut files: Vec<String> = fs::read_dir(path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, kinds);
}
