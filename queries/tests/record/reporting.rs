use queries::report::{LoadError, ReportError, load};

use crate::fixture::{evaluate, lab, spec};

#[test]
fn the_record_gives_the_report() {
    let lab = lab();
    let report = load(&lab.state(), &spec()).unwrap();
    let labels: Vec<&str> = report.facts.arms.iter().map(|arm| arm.label.as_str()).collect();
    assert_eq!(labels, ["base", "adapter"]);
    assert_eq!(report.facts.looks, 2);
    assert_eq!(report.facts.training.len(), 1);
    assert_eq!(report.facts.training[0].losses.len(), 6);
    assert_eq!(report.measured[1].latency_ms_p50, Some(103.5));
    assert_eq!(report.measured[1].tokens_per_second, Some(42.0));
    let comparison = &report.facts.comparisons[0];
    assert_eq!(comparison.groups[0].second_only, 7);
    assert_eq!(comparison.discordant.len(), 7);
    // From the reader that never takes the lock, the same bytes.
    let other = ledger::Reader::open(lab.notebook.dir()).unwrap();
    let state = queries::projection::fold_all(&other).unwrap();
    let again = load(&state, &spec()).unwrap();
    assert_eq!(again.facts.canonical().unwrap(), report.facts.canonical().unwrap());
}

#[test]
fn runs_are_found_or_refused_by_name() {
    let lab = lab();
    let state = lab.state();
    let asked = |runs: &[&str]| {
        let runs = runs.iter().map(|run| (*run).to_owned()).collect();
        load(&state, &queries::report::ReportSpec { runs, ..spec() })
    };
    assert_eq!(asked(&["eval-a"]).unwrap().facts.arms[0].label, "adapter");
    assert_eq!(asked(&["eval-"]).unwrap_err(), LoadError::Ambiguous("eval-".to_owned()));
    assert_eq!(asked(&["nothing"]).unwrap_err(), LoadError::NoRun("nothing".to_owned()));
    assert!(matches!(asked(&["train-1"]), Err(LoadError::NotAnEval { .. })));
    assert!(matches!(
        asked(&["eval-a", "eval-adapter"]),
        Err(LoadError::Report(ReportError::LabelTwice { .. }))
    ));
    let no_suite = queries::report::ReportSpec { suite: "other".to_owned(), ..spec() };
    assert_eq!(load(&state, &no_suite).unwrap_err(), LoadError::NoSuite("other".to_owned()));
}

#[test]
fn an_unfinished_run_is_not_compared() {
    let mut lab = lab();
    let failed = ledger::catalogue::RunFailed {
        run: "eval-base".to_owned(),
        reason: "interrupted".to_owned(),
    };
    lab.append("run/eval-base", &failed);
    let state = lab.state();
    let runs = vec!["eval-base".to_owned()];
    let refused = load(&state, &queries::report::ReportSpec { runs, ..spec() }).unwrap_err();
    assert_eq!(refused.to_string(), "run eval-base (arm base) is not finished but failed");
    // Nor is it picked up by itself.
    let report = load(&state, &spec()).unwrap();
    assert_eq!(report.facts.arms.len(), 1);
}

#[test]
fn each_look_is_counted() {
    let mut lab = lab();
    evaluate(&mut lab, "base", 1);
    // The same run id was used again, so that its cases now stand twice.
    let error = load(&lab.state(), &spec()).unwrap_err();
    assert!(matches!(error, LoadError::Report(ReportError::CaseTwice { .. })), "{error}");
    assert_eq!(lab.state().datasets.looks(&lab.suite.1), 3);
}
