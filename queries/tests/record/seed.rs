//! The seed experiment's recorded answers, from the samples, through scorer, report and gate.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use datasets::ingest::read;
use datasets::score::score;
use datasets::suite::build_suite;
use datasets::{Episode, Format, SourceInfo, SuiteManifest, SuiteSpec};
use ledger::Digest;
use ledger::catalogue::{CaseScored, Decoding, Deployment, Verdict};
use queries::gate::{Policy, decide};
use queries::report::{
    ALL, Arm, IntervalSpec, ReadingKind, Report, ReportError, ReportInput, ScoredCase, SuiteFacts,
    build_report, markdown,
};

fn episodes(file: &str, format: Format, first: u64) -> Vec<(u64, Episode)> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/samples/fledgling");
    let source = SourceInfo {
        name: file.to_owned(),
        file: format!("{file}.jsonl"),
        licence: "CC-BY-4.0".to_owned(),
        attribution: String::new(),
    };
    let input = BufReader::new(File::open(samples.join(format!("{file}.jsonl"))).unwrap());
    let reading = format.into();
    let rows = read(input, &source, &reading).map(|row| row.unwrap().result.unwrap());
    (first..).zip(rows.flatten()).collect()
}

fn toolcall() -> SuiteManifest {
    let spec = SuiteSpec {
        name: "toolcall-teacher".to_owned(),
        track: "toolcall".to_owned(),
        questions: "recorded/toolcall_azure".to_owned(),
        golds: vec!["toolcall/train".to_owned()],
        wider: vec!["structured/eval100".to_owned()],
        ..SuiteSpec::default()
    };
    let questions = episodes("recorded/toolcall_azure", Format::RecordedAnswers, 1000);
    let golds = episodes("toolcall/train", Format::PromptCompletion, 0);
    let wider = episodes("structured/eval100", Format::PromptCompletion, 2000);
    build_suite(&spec, &questions, &golds, &wider).unwrap()
}

fn facts(suite: &SuiteManifest) -> SuiteFacts {
    SuiteFacts {
        name: suite.name().to_owned(),
        track: suite.track().to_owned(),
        digest: suite.identity(),
        scorer: suite.scorer,
        event: 3,
        n: suite.n(),
        strata: suite.strata(),
    }
}

/// Scores an arm whose answers are `answers`, case by case.
fn arm(suite: &SuiteManifest, label: &str, answers: &[Option<String>]) -> Arm {
    let unknown = || "unknown".to_owned();
    let deployment = Deployment {
        base: label.to_owned(),
        adapter: unknown(),
        template: unknown(),
        cep: unknown(),
        decoding: Decoding { method: unknown(), max_new_tokens: 0 },
    };
    let deployment_id = Digest::of_json(&deployment).unwrap();
    let cases = (0..).zip(suite.cases.iter().zip(answers)).map(|(index, (case, answer))| {
        let scored = score(suite.track(), &case.expected, answer.as_deref());
        let facts = CaseScored {
            suite: suite.identity(),
            deployment: deployment_id,
            scorer: suite.scorer,
            case: case.id.clone(),
            index,
            stratum: case.stratum.clone(),
            tool: case.tool.clone(),
            strict: scored.strict,
            lenient: scored.lenient,
            issues: scored.issues,
            answer: None,
            prompt_tokens: None,
            answer_tokens: None,
            ended: "recorded".to_owned(),
        };
        ScoredCase { event: 100 + u64::from(index), facts, latency_ms: None }
    });
    Arm {
        label: label.to_owned(),
        run: format!("run-{label}"),
        suite: suite.identity(),
        scorer: suite.scorer,
        deployment,
        deployment_id,
        flags: vec!["recorded".to_owned()],
        leaked_questions: 0,
        cases: cases.collect(),
        tokens_per_second: None,
    }
}

fn recorded(suite: &SuiteManifest, label: &str, file: &str) -> Arm {
    let rows = episodes(file, Format::RecordedAnswers, 0);
    let answers = suite.recorded_answers(&rows);
    let answers: Vec<Option<String>> =
        answers.into_iter().map(|answer| answer.map(|answer| answer.text)).collect();
    arm(suite, label, &answers)
}

fn report(suite: &SuiteManifest, arms: Vec<Arm>) -> Result<Report, ReportError> {
    build_report(ReportInput {
        name: "seed".to_owned(),
        suite: facts(suite),
        looks: 2,
        arms,
        training: vec![],
        intervals: IntervalSpec::default(),
    })
}

#[test]
fn the_recorded_teacher_has_its_published_figures() {
    let suite = toolcall();
    let arms = vec![
        recorded(&suite, "phi", "recorded/toolcall_phi"),
        recorded(&suite, "teacher", "recorded/toolcall_azure"),
    ];
    let report = report(&suite, arms).unwrap();
    let teacher = report.facts.arm("teacher").unwrap();
    let group = |stratum: &str, reading| teacher.group(stratum, reading).unwrap();
    let all = group(ALL, ReadingKind::Strict);
    assert_eq!((all.n, all.valid.k, all.name.k, all.exact.k), (50, 40, 40, 32));
    let micro = &all.micro;
    for (found, published) in
        [(&micro.precision, 0.7778), (&micro.recall, 0.7130), (&micro.f1, 0.7440)]
    {
        assert!((found.value.unwrap() - published).abs() < 5e-5, "{found:?}");
        let interval = found.interval.unwrap();
        assert!(interval.low < published - 0.05 && interval.high > published + 0.04, "{found:?}");
    }
    let exact = |stratum| {
        let group = group(stratum, ReadingKind::Strict);
        (group.exact.k, group.n)
    };
    assert_eq!((exact("single-call"), exact("truncated")), ((17, 22), (15, 28)));
    assert_eq!(group(ALL, ReadingKind::Lenient).valid.rate, Some(0.88));
    // The base model's strict zero is told beside what a tolerant reader finds.
    let phi = report.facts.arm("phi").unwrap();
    assert_eq!(phi.group(ALL, ReadingKind::Strict).unwrap().valid.k, 0);
    assert!(phi.group(ALL, ReadingKind::Lenient).unwrap().valid.k >= 9);
    let pair = &report.facts.comparisons[0].groups[0];
    assert_eq!((pair.first_only, pair.second_only), (0, 32));
    assert!(markdown(&report).contains("unknown: adapter, template, cep, decoding"));
}

#[test]
fn another_question_list_is_no_comparison() {
    // The seed's headline compared 39 answers with 50 to other questions.
    let suite = toolcall();
    let teacher = recorded(&suite, "teacher", "recorded/toolcall_azure");
    let mut skipped = recorded(&suite, "skipping", "recorded/toolcall_azure");
    skipped.cases.truncate(39);
    let error = report(&suite, vec![teacher.clone(), skipped]).unwrap_err();
    assert!(matches!(&error, ReportError::Incomplete { have: 39, n: 50, .. }), "{error}");
    let mut other = toolcall();
    other.cases.swap(0, 1);
    let elsewhere = recorded(&other, "elsewhere", "recorded/toolcall_azure");
    let error = report(&suite, vec![teacher, elsewhere]).unwrap_err();
    assert!(matches!(&error, ReportError::Differs { what: "suite", .. }), "{error}");
}

#[test]
fn a_student_as_good_as_its_golds_passes_champion() {
    let suite = toolcall();
    let golds: Vec<Option<String>> =
        suite.cases.iter().map(|case| Some(case.expected.text())).collect();
    let mut student = arm(&suite, "adapter", &golds);
    student.deployment.adapter = "a".to_owned();
    student.deployment.template = "t".to_owned();
    student.deployment.cep = "none".to_owned();
    student.deployment.decoding.method = "greedy".to_owned();
    let arms = vec![
        arm(&suite, "base", &vec![None; 50]),
        recorded(&suite, "base+cep", "recorded/toolcall_phi"),
        student,
        recorded(&suite, "teacher", "recorded/toolcall_azure"),
    ];
    let report = report(&suite, arms).unwrap();
    let policy = Policy::parse(Policy::shipped("champion").unwrap()).unwrap();
    let decision = decide(&policy, &report, "adapter");
    assert_eq!(decision.verdict, Verdict::Pass, "{:#?}", decision.rules);
    let teacher = decide(&policy, &report, "teacher");
    assert_eq!(teacher.verdict, Verdict::Invalid, "a recorded arm cannot be promoted");
}
