use ledger::catalogue::StepCompleted;
use queries::replay::{PlanError, Replayed, Tier, Work, compare, plan};

use crate::fixture::lab;

#[test]
fn an_evaluation_is_planned_back_to_its_imports() {
    let lab = lab();
    let plan = plan(&lab.reader(), "eval-a").unwrap();
    assert_eq!((plan.run.as_str(), plan.tier), ("eval-adapter", Tier::L2));
    let stages: Vec<(&Work, usize)> =
        plan.stages.iter().map(|stage| (&stage.work, stage.recorded.len())).collect();
    assert_eq!(
        stages,
        [
            (&Work::Import { source: "toolcall/train".to_owned() }, 14),
            (&Work::Suite { name: "toolcall-teacher".to_owned() }, 1),
            (&Work::Split { name: "first".to_owned() }, 1),
            (&Work::Train { run: "train-1".to_owned() }, 9),
            (&Work::Eval { run: "eval-adapter".to_owned() }, 10),
        ]
    );
    let whats: Vec<&str> = plan.needed.iter().map(|needed| needed.what.as_str()).collect();
    for what in ["trace", "suite manifest", "split manifest", "checkpoint", "answer"] {
        assert!(whats.contains(&what), "{what} is not needed: {whats:?}");
    }
    assert!(plan.needed.iter().all(|needed| lab.notebook.blobs().get(&needed.body).is_ok()));
    let mut digests: Vec<_> = plan.needed.iter().map(|needed| needed.body.digest).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), plan.needed.len(), "each body once");
}

#[test]
fn a_training_run_needs_no_suite() {
    let lab = lab();
    let plan = plan(&lab.reader(), "train-1").unwrap();
    assert!(
        plan.stages
            .iter()
            .all(|stage| !matches!(stage.work, Work::Eval { .. } | Work::Suite { .. }))
    );
    assert_eq!(plan.stages.len(), 3);
}

#[test]
fn what_the_record_gives_back_compares_equal() {
    let lab = lab();
    let plan = plan(&lab.reader(), "train-1").unwrap();
    let recorded = &plan.stages.last().unwrap().recorded;
    let mut replayed: Vec<Replayed> = recorded
        .iter()
        .map(|event| match event.facts::<StepCompleted>() {
            // Through the struct, as an executor makes it.
            Ok(step) => Replayed::new(&step).unwrap(),
            Err(_) => Replayed {
                kind: event.kind.clone(),
                schema: event.schema,
                facts: event.facts.clone(),
            },
        })
        .collect();
    assert_eq!(compare(recorded, &replayed), None);
    replayed[3].facts["loss"] = (1.0_f64 / 3.0 + f64::EPSILON).into();
    let found = compare(recorded, &replayed).unwrap();
    assert_eq!(
        (found.seq, found.kind.as_str(), found.path.as_str()),
        (recorded[3].seq, "step.completed", "loss")
    );
}

#[test]
fn what_is_not_done_is_not_replayed() {
    let mut lab = lab();
    assert!(matches!(plan(&lab.reader(), "none"), Err(PlanError::Run(_))));
    let failed = ledger::catalogue::RunFailed {
        run: "train-1".to_owned(),
        reason: "interrupted".to_owned(),
    };
    lab.append("run/train-1", &failed);
    let error = plan(&lab.reader(), "train-1").unwrap_err();
    assert!(error.to_string().contains("not finished but failed"), "{error}");
}
