#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use chrono::{DateTime, TimeDelta};
use ledger::catalogue::{
    Decoding, Deployment, GateDecided, PromotionMade, PromotionOverridden, RollbackMade, RunFailed,
    RunInputs, RunRequested, RunStarted, Verdict,
};
use ledger::{BodyRef, Digest, Envelope, Facts, NewEvent};
use serde_json::json;

use super::*;

/// Numbers events as the log would.
#[derive(Default)]
struct Log(Vec<Envelope>);

impl Log {
    fn add<F: Facts>(&mut self, stream: &str, facts: &F) -> u64 {
        let seq = self.0.len() as u64;
        let new = NewEvent::new(stream, format!("id-{seq}"), "ada", facts).unwrap();
        self.0.push(Envelope {
            seq,
            id: new.id,
            version: self.0.iter().filter(|event| event.stream == stream).count() as u64,
            stream: new.stream,
            kind: new.kind,
            schema: new.schema,
            at: DateTime::UNIX_EPOCH + TimeDelta::seconds(seq as i64),
            actor: new.actor,
            cause: None,
            run: None,
            prev: None,
            facts: new.facts,
            measured: new.measured,
        });
        seq
    }

    fn fold(&self) -> State {
        let mut state = State::default();
        self.0.iter().for_each(|event| state.apply(event).unwrap());
        state
    }
}

fn deployment(adapter: &str) -> (Deployment, Digest) {
    let deployment = Deployment {
        base: "b".to_owned(),
        adapter: adapter.to_owned(),
        template: "t".to_owned(),
        cep: "none".to_owned(),
        decoding: Decoding { method: "greedy".to_owned(), max_new_tokens: 8 },
    };
    let id = Digest::of_json(&deployment).unwrap();
    (deployment, id)
}

fn started(run: &str, adapter: &str) -> RunStarted {
    let (deployment, deployment_id) = deployment(adapter);
    RunStarted {
        run: run.to_owned(),
        inputs: RunInputs::Eval {
            name: "s".to_owned(),
            suite: Digest::of(b"s"),
            suite_event: 0,
            scorer: Digest::of(b"scorer"),
            deployment,
            deployment_id,
            label: adapter.to_owned(),
            flags: vec![],
            leaked_questions: 0,
        },
        seed: "7".to_owned(),
    }
}

fn gate(adapter: &str, verdict: Verdict) -> GateDecided {
    GateDecided {
        policy: "canary".to_owned(),
        policy_digest: Digest::of(b"p"),
        policy_body: BodyRef { digest: Digest::of(b"p"), length: 1, cipher: None, subject: None },
        report: 0,
        deployment: deployment(adapter).1,
        label: adapter.to_owned(),
        alias: "canary".to_owned(),
        verdict,
        rules: vec![],
        looks: 1,
    }
}

fn made(adapter: &str, gate: u64) -> PromotionMade {
    let (deployment, deployment_id) = deployment(adapter);
    PromotionMade {
        model: "m".to_owned(),
        alias: "canary".to_owned(),
        deployment,
        deployment_id,
        gate,
        previous: None,
    }
}

/// Two promotions, the second by override, and a rollback to the first.
fn promoted() -> Log {
    let mut log = Log::default();
    for adapter in ["one", "two"] {
        log.add(&format!("run/{adapter}"), &started(adapter, adapter));
    }
    let pass = log.add("gate/canary", &gate("one", Verdict::Pass));
    log.add("model/m", &made("one", pass));
    let fail = log.add("gate/canary", &gate("two", Verdict::Fail));
    let overridden = PromotionOverridden {
        promotion: made("two", fail),
        reason: "demo tomorrow".to_owned(),
        second_actor: "bob".to_owned(),
    };
    log.add("model/m", &overridden);
    let rollback = RollbackMade {
        model: "m".to_owned(),
        alias: "canary".to_owned(),
        deployment_id: deployment("one").1,
        reason: "it was bad".to_owned(),
    };
    log.add("model/m", &rollback);
    log
}

#[test]
fn the_catalog_tells_who_held_an_alias_when() {
    let state = promoted().fold();
    let holder = |second| {
        let at = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        state.catalog.holder_at("m", "canary", at).map(|held| held.deployment_id)
    };
    let (one, two) = (deployment("one").1, deployment("two").1);
    assert_eq!(holder(2), None);
    assert_eq!(holder(3), Some(one));
    assert_eq!(holder(5), Some(two));
    assert_eq!(holder(6), Some(one));
    assert_eq!(state.catalog.holder("m", "canary").unwrap().since, 6);
    assert_eq!(state.catalog.aliases_of(&one), [("m", "canary")]);
    assert!(state.catalog.aliases_of(&two).is_empty());
    let by: Vec<&HeldBy> =
        state.catalog.aliases["m"]["canary"].iter().map(|held| &held.by).collect();
    assert!(matches!(by[1], HeldBy::Override { why, .. } if why.second_actor == "bob"));
    assert_eq!(state.catalog.deployments[&two].gates.iter().collect::<Vec<_>>(), [&4]);
}

#[test]
fn the_selection_has_the_form_that_a_runtime_reads() {
    let log = promoted();
    let read = |state: &State| -> serde_json::Value {
        let bytes = state.selection.model_selection("m").unwrap().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut state = State::default();
    log.0[..6].iter().for_each(|event| state.apply(event).unwrap());
    assert_eq!(read(&state)["aliases"]["canary"]["overridden"], "demo tomorrow");
    let id = deployment("one").1.to_string();
    assert_eq!(
        read(&log.fold()),
        json!({
            "model": "m",
            "aliases": { "canary": {
                "deployment": id, "base": "b", "adapter": "one", "template": "t", "cep": "none",
                "since": 6, "overridden": null,
            } },
        })
    );
    assert_eq!(state.selection.model_selection("other").unwrap(), None);
}

#[test]
fn folding_again_gives_the_same_bytes() {
    let log = promoted();
    let whole = log.fold().dumps().unwrap();
    assert_eq!(whole, log.fold().dumps().unwrap());
    assert_eq!(whole.len(), 5);
    assert!(whole.iter().all(|(_, bytes)| bytes.len() > 10));
}

#[test]
fn lineage_leads_both_ways() {
    let state = promoted().fold();
    // The override at 5 rests on the verdict at 4.
    assert_eq!(state.lineage.upstream(5).into_iter().collect::<Vec<_>>(), [0, 4, 5]);
    assert!(state.lineage.downstream(2).contains(&3));
    assert!(!state.lineage.downstream(2).contains(&5));
}

#[test]
fn runs_tell_how_far_they_came() {
    let mut log = Log::default();
    let requested = RunRequested {
        run: "r".to_owned(),
        work: "eval".to_owned(),
        request: json!({ "suite": "s" }),
    };
    log.add("run/r", &requested);
    assert_eq!(log.fold().runs.get("r").unwrap().status, RunStatus::Requested);
    log.add("run/r", &started("r", "one"));
    assert_eq!(log.fold().runs.get("r").unwrap().status, RunStatus::Running);
    log.add("run/r", &RunFailed { run: "r".to_owned(), reason: "disk".to_owned() });
    let state = log.fold();
    let run = state.runs.get("r").unwrap();
    assert_eq!((run.status, run.reason.as_deref()), (RunStatus::Failed, Some("disk")));
    assert_eq!((run.requested, run.started, run.ended), (Some(0), Some(1), Some(2)));
    assert_eq!(run.suite(), Some(Digest::of(b"s")));
    assert_eq!(state.runs.matching("r").count(), 1);
}

#[test]
fn unknown_kinds_are_passed_over_and_newer_ones_are_told() {
    let mut log = promoted();
    log.0[0].kind = "weather.changed".to_owned();
    assert_eq!(log.fold().next, 7);
    log.0[3].schema = 99;
    let mut state = State::default();
    let error = log.0.iter().find_map(|event| state.apply(event).err()).unwrap();
    assert!(error.to_string().contains("upgrade ledger"), "{error}");
}
