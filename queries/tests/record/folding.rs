use queries::projection::{State, fold_all};

use crate::fixture::lab;

#[test]
fn folding_in_two_parts_or_anew_gives_the_same_bytes() {
    let lab = lab();
    let reader = lab.reader();
    let whole = fold_all(&reader).unwrap();
    let mut parts = State::default();
    for event in reader.events(0).unwrap().take(17) {
        parts.apply(&event.unwrap()).unwrap();
    }
    parts.catch_up(&reader).unwrap();
    assert_eq!(parts.next, whole.next);
    assert_eq!(parts.dumps().unwrap(), whole.dumps().unwrap());
    assert_eq!(fold_all(&reader).unwrap().dumps().unwrap(), whole.dumps().unwrap());
}

#[test]
fn the_state_holds_what_was_done() {
    let lab = lab();
    let state = lab.state();
    let source = &state.datasets.sources["toolcall/train"];
    assert_eq!((source.traces, source.rejected, source.imports.len()), (12, 1, 1));
    assert_eq!(source.licences["CC-BY-4.0"], 12);
    assert_eq!(state.datasets.looks(&lab.suite.1), 2);
    assert_eq!(state.datasets.suite(&lab.suite.1.short()).unwrap().event, lab.suite.0);
    let run = state.runs.get("train-1").unwrap();
    assert_eq!((run.steps.len(), run.checkpoints.len()), (6, 1));
    assert_eq!(state.runs.training_of(&lab.adapter.to_string()).unwrap().id, "train-1");
    assert_eq!(state.runs.get("eval-adapter").unwrap().cases.len(), 8);
    let selected = state.selection.selected("tools", "canary").unwrap();
    assert_eq!(selected.adapter, lab.adapter.to_string());
    // The split's lineage reaches the import; the promotion's reaches the split.
    let promotion = selected.since;
    let upstream = state.lineage.upstream(promotion);
    assert!(state.lineage.upstream(lab.split).contains(&source.imports[0]));
    assert!(upstream.contains(&lab.split) && upstream.contains(&source.imports[0]));
    assert!(state.lineage.downstream(source.imports[0]).contains(&promotion));
}
