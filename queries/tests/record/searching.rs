use ledger::Reader;
use ledger::catalogue::TraceRevised;
use queries::search::{Filters, Hits, Index, Options, SearchError};

use crate::fixture::{Lab, episode, ingested, lab};

/// An index with the record that its hits are told from.
pub(crate) struct Searched {
    pub(crate) index: Index,
    pub(crate) reader: Reader,
}

impl Searched {
    pub(crate) fn catch_up(&mut self) -> queries::search::CaughtUp {
        self.index.catch_up(&self.reader).unwrap()
    }
}

pub(crate) fn index(lab: &Lab) -> Searched {
    let index = Index::open_or_rebuild(&lab.index_path()).unwrap();
    let mut searched = Searched { index, reader: lab.reader() };
    searched.catch_up();
    searched
}

pub(crate) fn find(searched: &Searched, query: &str) -> Hits {
    let asked = (query, &Filters::default());
    searched.index.search(&searched.reader, asked, &Options::best(20)).unwrap()
}

pub(crate) fn seqs(hits: &Hits) -> Vec<u64> {
    hits.hits.iter().map(|hit| hit.seq).collect()
}

#[test]
fn traces_are_found_by_words_with_the_words_marked() {
    let lab = lab();
    let index = index(&lab);
    let hits = find(&index, "kind:trace Oslo weather");
    assert_eq!(seqs(&hits), [lab.traces[0]]);
    let hit = &hits.hits[0];
    assert_eq!(hit.kind, "trace.ingested");
    assert_eq!(hit.title, "What is the weather in Oslo tomorrow?");
    assert!(hit.snippet.marked("[", "]").contains("[weather] in [Oslo]"), "{hit:?}");
    assert_eq!(hit.fields["tool"], ["get_weather"]);
    assert_eq!(hit.fields["source"], ["toolcall/train"]);
    assert_eq!(seqs(&find(&index, "kind:trace tool:get_weather")).len(), 3);
    assert_eq!(find(&index, "zebra").total, 0);
}

#[test]
fn failed_cases_are_found_by_issue_run_and_answer() {
    let lab = lab();
    let index = index(&lab);
    let failed = find(&index, "kind:case outcome:failed run:eval-adapter");
    assert_eq!(failed.total, 1);
    assert_eq!(failed.hits[0].fields["case"], ["case7"]);
    assert_eq!(failed.hits[0].fields["label"], ["adapter"]);
    assert_eq!(failed.hits[0].title, "Book a table for two");
    let penguins = find(&index, "penguins issue:invalid_tool_call_format");
    assert_eq!(penguins.total, 9, "eight of the base, one of the adapter");
    assert_eq!(penguins.hits[0].snippet.marked("*", "*").matches("*penguins*").count(), 1);
    let filters = Filters {
        kind: Some("case".to_owned()),
        tool: Some("get_weather".to_owned()),
        issue: Some("invalid_tool_call_format".to_owned()),
        run: Some("eval-base".to_owned()),
        ..Filters::default()
    };
    let asked = ("", &filters);
    let filtered = index.index.search(&index.reader, asked, &Options::best(1)).unwrap();
    assert_eq!((filtered.total, filtered.hits.len()), (2, 1));
}

#[test]
fn decisions_and_rejections_are_found() {
    let lab = lab();
    let index = index(&lab);
    assert_eq!(seqs(&find(&index, "kind:decision outcome:pass")), [lab.gates[1]]);
    assert_eq!(find(&index, "kind:decision outcome:promoted").total, 1);
    let rejected = find(&index, "kind:rejection comma");
    assert_eq!(rejected.hits[0].title, "train.jsonl row 17");
}

#[test]
fn a_typed_field_is_told_and_pasted_text_is_searched() {
    let lab = lab();
    let index = index(&lab);
    let filters = Filters::default();
    let search =
        |query: &str| index.index.search(&index.reader, (query, &filters), &Options::best(5));
    let error = search("tol:get_weather").unwrap_err();
    assert!(matches!(&error, SearchError::UnknownField { name } if name == "tol"), "{error}");
    assert!(error.to_string().contains("tool, issue, run"), "{error}");
    assert!(find(&index, "\"weather in Oslo").total > 0);
    assert_eq!(search("").unwrap().hits.len(), 5);
}

#[test]
fn deleting_the_index_changes_no_answer() {
    let lab = lab();
    let queries = ["weather", "kind:case", "penguins OR weather", "kind:decision", ""];
    // First caught up in two parts, with the record growing in between.
    let mut grown = index(&lab);
    let mut lab = lab;
    let facts = ingested(&lab, &episode(99, ("Weather on Mars", "get_weather")));
    lab.append("trace/toolcall/train", &facts);
    let caught = grown.catch_up();
    assert_eq!((caught.added, caught.held_elsewhere), (1, false));
    let before: Vec<Hits> = queries.map(|query| find(&grown, query)).to_vec();
    drop(grown);
    std::fs::remove_dir_all(lab.index_path()).unwrap();
    let rebuilt = index(&lab);
    let after: Vec<Hits> = queries.map(|query| find(&rebuilt, query)).to_vec();
    assert_eq!(before, after);
    assert!(before.iter().all(|hits| hits.total > 0));
}

#[test]
fn ties_are_broken_by_event() {
    let lab = lab();
    let index = index(&lab);
    let hits = find(&index, "kind:case run:eval-base");
    let mut sorted = seqs(&hits);
    sorted.sort_unstable();
    assert_eq!(seqs(&hits), sorted);
    assert_eq!(hits.total, 8);
}

#[test]
fn a_revision_takes_the_place_of_what_it_revises() {
    let mut lab = lab();
    let mut index = index(&lab);
    let trace = ingested(&lab, &episode(1, ("Humidity in Nuuk", "get_weather")));
    let revised = TraceRevised { revises: lab.traces[0], trace };
    let seq = lab.append("trace/toolcall/train", &revised);
    index.catch_up();
    assert_eq!(seqs(&find(&index, "Humidity")), [seq]);
    assert!(!seqs(&find(&index, "kind:trace Oslo")).contains(&lab.traces[0]));
}

#[test]
fn while_another_holds_the_writer_reading_goes_on() {
    let mut lab = lab();
    let index_of_other = index(&lab);
    let holder = tantivy_writer(&lab);
    let facts = ingested(&lab, &episode(99, ("Weather on Mars", "get_weather")));
    lab.append("trace/toolcall/train", &facts);
    let second = Index::open_or_rebuild(&lab.index_path()).unwrap();
    let mut second = Searched { index: second, reader: lab.reader() };
    let caught = second.catch_up();
    assert!(caught.held_elsewhere && caught.added == 0);
    assert_eq!((caught.next, caught.head), (caught.head - 1, lab.reader().head().unwrap().size));
    assert_eq!(second.index.progress(&lab.reader()).unwrap().behind(), 1);
    assert_eq!(find(&second, "Oslo"), find(&index_of_other, "Oslo"));
    drop(holder);
    assert_eq!(second.catch_up().added, 1);
    assert_eq!(second.index.progress(&lab.reader()).unwrap().behind(), 0);
    assert_eq!(find(&second, "Mars").total, 1);
}

/// Takes tantivy's writer lock as another process would.
fn tantivy_writer(lab: &Lab) -> tantivy::IndexWriter {
    let index = tantivy::Index::open_in_dir(lab.index_path()).unwrap();
    index.writer_with_num_threads(1, 20_000_000).unwrap()
}

#[test]
fn a_broken_or_foreign_index_is_built_again() {
    let lab = lab();
    let whole = find(&index(&lab), "weather");
    std::fs::write(lab.index_path().join("meta.json"), b"{ not json").unwrap();
    assert_eq!(find(&index(&lab), "weather"), whole);
    // The index of another record, whose events have other ids.
    let mut other = crate::fixture::lab();
    other.append("trace/toolcall/train", &ingested(&other, &episode(5, ("Alien", "alien"))));
    let foreign = Index::open_or_rebuild(&lab.index_path()).unwrap();
    let mut foreign = Searched { index: foreign, reader: other.reader() };
    foreign.catch_up();
    assert_eq!(find(&foreign, "Alien").total, 1);
    foreign.reader = lab.reader();
    foreign.catch_up();
    assert_eq!(find(&foreign, "Alien").total, 0);
    assert_eq!(find(&foreign, "weather"), whole);
    // One that has as many events with the same ids.
    let mut lab = lab;
    lab.append("trace/toolcall/train", &ingested(&lab, &episode(5, ("Martian", "alien"))));
    foreign.catch_up();
    foreign.reader = other.reader();
    foreign.catch_up();
    assert_eq!((find(&foreign, "Martian").total, find(&foreign, "Alien").total), (0, 1));
}

#[test]
fn a_lost_body_is_marked_and_breaks_nothing() {
    let lab = lab();
    let reader = lab.reader();
    let event = reader.get(lab.traces[0]).unwrap().unwrap();
    let trace: ledger::catalogue::TraceIngested = event.facts().unwrap();
    std::fs::remove_file(lab.notebook.blobs().path(&trace.body.digest)).unwrap();
    let index = index(&lab);
    assert_eq!(seqs(&find(&index, "flag:body.missing")), [lab.traces[0]]);
}
