//! An index that follows the log, forgets with it, and does not depend on how it was made.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use datasets::Episode;
use ledger::BodyRef;
use ledger::catalogue::{BodyErased, FeedbackRecorded, TraceIngested, TraceRevised};
use queries::search::{Filters, Follower, Found, Hits, Index, Options, Sort};
use serde_json::json;

use crate::fixture::{Lab, episode, evaluate, ingested, lab};
use crate::searching::{find, index, seqs};

/// Waits until something holds, or too long.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn behind(follower: &Follower) -> u64 {
    follower.progress().unwrap().behind()
}

/// Everything that a user could compare, over words, fields, orders and facets.
fn answers(path: &Path, lab: &Lab) -> (Vec<Hits>, Vec<Found>) {
    let index = Index::open_or_rebuild(path).unwrap();
    let filters = Filters::default();
    let (mut hits, mut found) = (Vec::new(), Vec::new());
    for query in
        ["", "weather", "weather OR oslo OR jazz", "penguins", "kind:case", "\"in oslo\"", "p*"]
    {
        for sort in [Sort::Best, Sort::Newest, Sort::LowestScore, Sort::HighestScore] {
            let facets = vec!["kind".to_owned(), "tool".to_owned(), "outcome".to_owned()];
            let options = Options { limit: 30, sort, facets, ..Options::default() };
            hits.push(index.search(&lab.reader(), (query, &filters), &options).unwrap());
            found.push(index.find((query, &filters), &options).unwrap());
        }
    }
    (hits, found)
}

#[test]
fn an_index_made_in_many_steps_answers_as_one_made_at_once() {
    let mut lab = lab();
    let mut stepwise = index(&lab);
    for n in 0..30_u64 {
        // Of some words more in some segments than in others, with documents that go again.
        let words = "weather jazz ".repeat(1 + n as usize % 5) + "in oslo";
        let facts = ingested(&lab, &episode(n, (&words, "get_weather")));
        let seq = lab.append("trace/toolcall/train", &facts);
        if n % 4 == 0 {
            let trace = ingested(&lab, &episode(n, ("quiet now", "get_weather")));
            lab.append("trace/toolcall/train", &TraceRevised { revises: seq, trace });
        }
        if n == 20 {
            evaluate(&mut lab, "later", 3);
        }
        stepwise.catch_up();
    }
    let (grown, found) = answers(&lab.index_path(), &lab);
    let elsewhere = lab.dir.path().join("at-once");
    Index::open_or_rebuild(&elsewhere).unwrap().catch_up(&lab.reader()).unwrap();
    // Scores too, to the last bit.
    let (built, listed) = answers(&elsewhere, &lab);
    assert_eq!(grown, built);
    assert_eq!(found, listed);
    assert!(grown.iter().filter(|hits| hits.total > 5).count() > 10);
}

#[test]
fn a_follower_keeps_the_index_up_and_says_how_far_it_came() {
    let mut lab = lab();
    let follower = Follower::start(&lab.index_path(), lab.reader()).unwrap();
    until("it reads what is there", || behind(&follower) == 0);
    let mut searching = Index::open_or_rebuild(&lab.index_path()).unwrap();
    let facts = ingested(&lab, &episode(99, ("Weather on Mars", "get_weather")));
    let seq = lab.append("trace/toolcall/train", &facts);
    until("it reads what comes", || follower.followed().next > seq);
    // Another process searches meanwhile, and sees who keeps the index up.
    let facts = ingested(&lab, &episode(98, ("Weather on Venus", "get_weather")));
    lab.append("trace/toolcall/train", &facts);
    let caught = searching.catch_up(&lab.reader()).unwrap();
    assert!(caught.held_elsewhere || caught.next == caught.head, "{caught:?}");
    searching.refresh().unwrap();
    let asked = ("mars", &Filters::default());
    assert_eq!(searching.find(asked, &Options::default()).unwrap().events, [seq]);
    follower.stop();
    // The lock is free again.
    let caught = searching.catch_up(&lab.reader()).unwrap();
    assert!(!caught.held_elsewhere && caught.next == caught.head);
}

#[test]
fn a_follower_builds_again_what_was_removed_under_it() {
    let mut lab = lab();
    let follower = Follower::start(&lab.index_path(), lab.reader()).unwrap();
    until("it reads what is there", || behind(&follower) == 0);
    fs::remove_dir_all(lab.index_path()).unwrap();
    let facts = ingested(&lab, &episode(99, ("Weather on Mars", "get_weather")));
    let seq = lab.append("trace/toolcall/train", &facts);
    until("it builds again", || {
        let Ok(index) = Index::open_or_rebuild(&lab.index_path()) else { return false };
        let found = index.find(("mars OR oslo", &Filters::default()), &Options::default());
        found.is_ok_and(|found| found.events.contains(&seq) && found.total > 1)
    });
    follower.stop();
}

#[test]
fn a_follower_waits_for_the_lock() {
    let lab = lab();
    drop(index(&lab));
    let holder: tantivy::IndexWriter = tantivy::Index::open_in_dir(lab.index_path())
        .unwrap()
        .writer_with_num_threads(1, 20_000_000)
        .unwrap();
    let mut lab = lab;
    let facts = ingested(&lab, &episode(99, ("Weather on Mars", "get_weather")));
    let seq = lab.append("trace/toolcall/train", &facts);
    let follower = Follower::start(&lab.index_path(), lab.reader()).unwrap();
    until("it sees the other", || follower.followed().held_elsewhere);
    assert_eq!(behind(&follower), 1);
    drop(holder);
    until("it goes on", || follower.followed().next > seq);
    assert!(!follower.followed().held_elsewhere);
}

/// Appends an episode of a subject, as capture does: words in an encrypted body only.
fn personal(lab: &mut Lab, words: &str, id: &str) -> (u64, BodyRef) {
    let key = lab.notebook.blobs().subjects().key_of("ann").unwrap();
    let episode = Episode { subject: Some("ann".to_owned()), ..episode(5, (words, "get_weather")) };
    let body = lab.notebook.blobs().put_for(&key, &episode.to_bytes()).unwrap();
    let plain = ingested(lab, &episode);
    fs::remove_file(lab.notebook.blobs().path(&plain.body.digest)).unwrap();
    let facts = TraceIngested { external_id: id.to_owned(), body: body.clone(), ..plain };
    (lab.append("trace/toolcall/train", &facts), body)
}

fn judge(lab: &mut Lab, target: &str, comment: &str, body: Option<BodyRef>) -> u64 {
    let feedback = FeedbackRecorded {
        target: target.to_owned(),
        name: "quality".to_owned(),
        value: json!(0.5),
        comment: Some(comment.to_owned()),
        body,
    };
    lab.append("trace/feedback", &feedback)
}

/// Tells whether any file of an index holds a word, in a term dictionary or elsewhere.
fn on_disk(dir: &Path, word: &str) -> bool {
    let index = tantivy::Index::open_in_dir(dir).unwrap();
    let text = index.schema().get_field("text").unwrap();
    let reader: tantivy::IndexReader = index.reader().unwrap();
    let term = tantivy::Term::from_field_text(text, word);
    let searcher = reader.searcher();
    let in_terms = searcher.segment_readers().iter().any(|segment| {
        let inverted = segment.inverted_index(text).unwrap();
        inverted.get_term_info(&term).unwrap().is_some()
    });
    let files = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let in_bytes = |bytes: Vec<u8>| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    in_terms || files.into_iter().any(in_bytes)
}

#[test]
fn a_live_index_forgets_with_the_record() {
    let mut lab = lab();
    let (first, _) = personal(&mut lab, "the marmalade zeppelin", "commitment-1");
    let (second, _) = personal(&mut lab, "a cobalt accordion", "commitment-2");
    let key = lab.notebook.blobs().subjects().key_of("ann").unwrap();
    let sealed = json!({ "value": 0.1, "comment": "velvet harpoon" }).to_string();
    let sealed = lab.notebook.blobs().put_for(&key, sealed.as_bytes()).unwrap();
    let said = judge(&mut lab, "commitment-1", "", Some(sealed));
    let open = judge(&mut lab, "commitment-2", "clumsy pelican", None);
    let other = judge(&mut lab, "7", "patient pelican", None);
    let mut searched = index(&lab);
    assert_eq!(seqs(&find(&searched, "zeppelin")), [first]);
    assert_eq!(seqs(&find(&searched, "harpoon score:0.1")), [said]);
    assert_eq!(find(&searched, "pelican").total, 2);
    assert_eq!(seqs(&find(&searched, "id:commitment-2")), [second]);
    assert!(on_disk(&lab.index_path(), "zeppelin") && on_disk(&lab.index_path(), "harpoon"));

    lab.notebook.forget("ann", "ada").unwrap();
    // Before the index has heard of it, its hits have no words any more.
    let hit = &find(&searched, "zeppelin").hits[0];
    assert_eq!((hit.title.as_str(), hit.snippet.text.as_str()), ("commitment-1", ""));
    let before = find(&searched, "").total;
    searched.catch_up();
    for query in ["zeppelin", "accordion", "harpoon", "id:commitment-1", "target:commitment-1"] {
        assert_eq!(find(&searched, query).total, 0, "{query}");
    }
    assert_eq!(find(&searched, "").total, before - 4, "two traces, two of feedback");
    assert_eq!(seqs(&find(&searched, "pelican")), [other]);
    assert!(open < other && find(&searched, &format!("seq:{open}")).total == 0);
    for word in ["zeppelin", "marmalade", "accordion", "harpoon", "clumsy"] {
        assert!(!on_disk(&lab.index_path(), word), "{word}");
    }
    assert!(on_disk(&lab.index_path(), "pelican"));

    // Built again from event 0 it answers the same.
    let (live, found) = answers(&lab.index_path(), &lab);
    let elsewhere = lab.dir.path().join("again");
    Index::open_or_rebuild(&elsewhere).unwrap().catch_up(&lab.reader()).unwrap();
    assert_eq!((live, found), answers(&elsewhere, &lab));
}

#[test]
fn cases_that_ask_a_subject_s_question_go_too() {
    let mut lab = lab();
    let mut searched = index(&lab);
    let subject = "pseudonym-of-somebody";
    // The question of case0 is the first trace's; that belongs to a subject from now on.
    let mut facts: TraceIngested =
        lab.reader().get(lab.traces[0]).unwrap().unwrap().facts().unwrap();
    facts.body.subject = Some(subject.to_owned());
    let trace = TraceRevised { revises: lab.traces[0], trace: facts };
    let revised = lab.append("trace/toolcall/train", &trace);
    searched.catch_up();
    assert_eq!(find(&searched, "kind:case case:case0").total, 2);
    let erased = BodyErased { subject: subject.to_owned(), bodies: 1, events: 1 };
    lab.append("trace/erasure", &erased);
    searched.catch_up();
    assert_eq!(find(&searched, &format!("seq:{revised}")).total, 0);
    // The suite names the first event of it.
    assert_eq!(find(&searched, "kind:case case:case0").total, 0);
    assert_eq!(find(&searched, "kind:case case:case1").total, 2);
}

#[test]
fn a_follower_forgets_live() {
    let mut lab = lab();
    let (first, _) = personal(&mut lab, "the marmalade zeppelin", "commitment-1");
    let follower = Follower::start(&lab.index_path(), lab.reader()).unwrap();
    until("it reads what is there", || behind(&follower) == 0);
    let searching = Index::open_or_rebuild(&lab.index_path()).unwrap();
    let asked = ("zeppelin", &Filters::default());
    assert_eq!(searching.find(asked, &Options::default()).unwrap().events, [first]);
    lab.notebook.forget("ann", "ada").unwrap();
    until("it forgets", || behind(&follower) == 0);
    searching.refresh().unwrap();
    assert_eq!(searching.find(asked, &Options::default()).unwrap().total, 0);
    follower.stop();
    assert!(!on_disk(&lab.index_path(), "zeppelin"));
}
