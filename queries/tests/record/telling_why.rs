use queries::why::{WhyError, why};

use crate::fixture::{deployment, lab};

#[test]
fn the_chain_goes_from_promotion_to_traces() {
    let lab = lab();
    let (_, id) = deployment(&lab, "adapter");
    let told = why(&lab.reader(), &id.to_string()[..8]).unwrap();
    assert_eq!(told.deployment, id);
    let text = told.to_string();
    let lines = [
        format!("deployment {} (adapter)", id.short()),
        "holds tools@canary now".to_owned(),
        "promoted to tools@canary by ada (event ".to_owned(),
        format!("policy canary: PASS for adapter (event {})", lab.gates[1]),
        "PASS valid-call: valid 0.875 (7 of 8) reaches 0.5".to_owned(),
        format!("report first light (event {})", lab.report),
        "arm base: run eval-base".to_owned(),
        "evaluation run eval-adapter".to_owned(),
        "8 cases, exact: 7 strict, 7 lenient".to_owned(),
        format!("suite toolcall-teacher (event {})", lab.suite.0),
        "training run train-1".to_owned(),
        "6 steps recorded".to_owned(),
        "model tiny (Apache-2.0)".to_owned(),
        format!("dataset first (event {})", lab.split),
        "shares 0 questions with suite toolcall-teacher; nearest similarity 0.67".to_owned(),
        "4 traces from toolcall/train".to_owned(),
        format!("events {} to {}, licences: CC-BY-4.0", lab.traces[8], lab.traces[11]),
    ];
    let mut rest = text.as_str();
    for line in &lines {
        let place = rest.find(line.as_str());
        assert!(place.is_some(), "{line:?} does not follow in:\n{text}");
        rest = &rest[place.unwrap()..];
    }
    assert!(text.contains("└── "), "{text}");
}

#[test]
fn a_refusal_is_told_with_its_rule() {
    let lab = lab();
    let text = why(&lab.reader(), "base").unwrap().to_string();
    assert!(text.contains("policy canary: FAIL for base, so canary was refused"), "{text}");
    assert!(text.contains("FAIL valid-call: valid 0.000 (0 of 8) lies below 0.5"), "{text}");
    assert!(!text.contains("promoted"), "{text}");
}

#[test]
fn names_are_an_id_a_label_or_an_alias() {
    let lab = lab();
    let (_, id) = deployment(&lab, "adapter");
    assert_eq!(why(&lab.reader(), "tools@canary").unwrap().deployment, id);
    assert_eq!(why(&lab.reader(), "adapter").unwrap().deployment, id);
    for nothing in ["", "zzzz", "tools@champion"] {
        assert!(matches!(why(&lab.reader(), nothing), Err(WhyError::NoDeployment(_))), "{nothing}");
    }
}

#[test]
fn a_lost_manifest_does_not_silence_the_rest() {
    let lab = lab();
    let state = lab.state();
    let manifest = &state.datasets.splits[0].facts.manifest;
    std::fs::remove_file(lab.notebook.blobs().path(&manifest.digest)).unwrap();
    let text = why(&lab.reader(), "adapter").unwrap().to_string();
    assert!(text.contains("its rows cannot be listed"), "{text}");
    assert!(text.contains("promoted to tools@canary"), "{text}");
}
