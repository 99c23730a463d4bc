//! What every log must do. An implementation calls [`check`] with a way to make empty logs.
//!
//! The clock of the logs must be a [`crate::FixedClock`] that begins at the Unix epoch, so that
//! the same appends come to the same root everywhere.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::event::NewEvent;
use crate::log::Log;
use crate::memory::MemoryLog;
use crate::notebook::{AppendError, Appended, Expected};
use crate::{FixedClock, clock::Clock};

/// Makes an empty log with the given clock.
pub type Make<'a> = &'a dyn Fn(Arc<dyn Clock>) -> Arc<dyn Log>;

/// Makes an event.
pub fn event(stream: &str, id: &str, n: u64) -> NewEvent {
    NewEvent {
        id: id.to_owned(),
        stream: stream.to_owned(),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "tester".to_owned(),
        cause: None,
        run: None,
        facts: json!({ "n": n }),
        measured: json!({ "ms": 1.5 }),
    }
}

fn at(stream: &str, version: Option<u64>) -> Expected {
    Expected { stream: stream.to_owned(), version }
}

/// Checks everything.
pub fn check(make: Make<'_>) {
    let fresh = || make(Arc::new(FixedClock::default()));
    order_and_versions(fresh().as_ref());
    conflicts_name_the_version(fresh().as_ref());
    repetitions_and_reused_ids(fresh().as_ref());
    batches_are_whole_or_not_there(fresh().as_ref());
    events_that_have_no_place(fresh().as_ref());
    writers_side_by_side(&fresh());
    subscribers_see_everything_once(&fresh());
    same_appends_come_to_the_same_root(fresh().as_ref());
}

/// Events before the suite's own: a notebook begins with one.
fn begin(log: &dyn Log) -> u64 {
    log.head().unwrap().size
}

fn order_and_versions(log: &dyn Log) {
    let first = begin(log);
    assert_eq!(log.version("a/x").unwrap(), None);
    for n in 0..10 {
        let stream = if n % 3 == 0 { "a/x" } else { "a/y" };
        let appended = log.append(&[], vec![event(stream, &format!("id-{n}"), n)]).unwrap();
        assert_eq!(appended, [Appended::New(first + n)]);
    }
    let events: Vec<_> = log.read(first).unwrap().map(Result::unwrap).collect();
    assert_eq!(events.len(), 10);
    for (n, event) in events.iter().enumerate() {
        assert_eq!((event.seq, &event.facts), (first + n as u64, &json!({ "n": n })));
        let before = events[..n].iter().rfind(|earlier| earlier.stream == event.stream);
        assert_eq!(event.version, before.map_or(0, |earlier| earlier.version + 1));
        assert_eq!(event.prev.is_some(), before.is_some());
    }
    assert_eq!(log.version("a/x").unwrap(), Some(3));
    assert_eq!(log.head().unwrap().size, first + 10);
    assert_eq!(log.read(first + 7).unwrap().count(), 3);
    assert_eq!(log.read(first + 10).unwrap().count(), 0);
}

fn conflicts_name_the_version(log: &dyn Log) {
    log.append(&[at("a/x", None)], vec![event("a/x", "one", 1)]).unwrap();
    log.append(&[at("a/x", Some(0))], vec![event("a/x", "two", 2)]).unwrap();
    let refused = log.append(&[at("a/x", Some(0))], vec![event("a/x", "three", 3)]);
    match refused {
        Err(AppendError::Conflict { stream, expected, actual }) => {
            assert_eq!((stream.as_str(), expected, actual), ("a/x", Some(0), Some(1)));
        }
        other => panic!("{other:?}"),
    }
    let refused = log.append(&[at("a/new", Some(4))], vec![event("a/new", "four", 4)]);
    assert!(matches!(refused, Err(AppendError::Conflict { actual: None, .. })), "{refused:?}");
    assert_eq!(log.version("a/x").unwrap(), Some(1));
    assert_eq!(log.version("a/new").unwrap(), None);
}

fn repetitions_and_reused_ids(log: &dyn Log) {
    let first = begin(log);
    let batch = || vec![event("a/x", "one", 1), event("a/y", "two", 2)];
    log.append(&[at("a/x", None)], batch()).unwrap();
    // The caller who missed the answer asks again, with what it believed then.
    let again = log.append(&[at("a/x", None)], batch()).unwrap();
    assert_eq!(again, [Appended::Duplicate(first), Appended::Duplicate(first + 1)]);
    let mut measured = event("a/x", "one", 1);
    measured.measured = json!({ "ms": 99 });
    assert_eq!(log.append(&[], vec![measured]).unwrap(), [Appended::Duplicate(first)]);
    let other = log.append(&[], vec![event("a/x", "one", 7)]);
    assert!(matches!(other, Err(AppendError::IdReused { seq, .. }) if seq == first), "{other:?}");
    let elsewhere = log.append(&[], vec![event("a/z", "two", 2)]);
    assert!(matches!(elsewhere, Err(AppendError::IdReused { .. })), "{elsewhere:?}");
    let twice = vec![event("a/x", "three", 3), event("a/x", "three", 3)];
    let appended = log.append(&[], twice).unwrap();
    assert_eq!(appended, [Appended::New(first + 2), Appended::Duplicate(first + 2)]);
    let mixed = vec![event("a/x", "one", 1), event("a/x", "four", 4)];
    let appended = log.append(&[], mixed).unwrap();
    assert_eq!(appended, [Appended::Duplicate(first), Appended::New(first + 3)]);
    assert_eq!(log.head().unwrap().size, first + 4);
}

fn batches_are_whole_or_not_there(log: &dyn Log) {
    log.append(&[], vec![event("a/x", "one", 1)]).unwrap();
    let before = log.head().unwrap();
    let expected = [at("a/y", None), at("a/x", None)];
    let batch = vec![event("a/y", "two", 2), event("a/x", "three", 3)];
    assert!(matches!(log.append(&expected, batch), Err(AppendError::Conflict { .. })));
    let batch = vec![event("a/y", "two", 2), event("a/x", "one", 9)];
    assert!(matches!(log.append(&[], batch), Err(AppendError::IdReused { .. })));
    assert_eq!(log.head().unwrap(), before);
    let expected = [at("a/y", None), at("a/x", Some(0)), at("a/z", None)];
    let batch = vec![event("a/y", "two", 2), event("a/x", "three", 3), event("a/z", "four", 4)];
    log.append(&expected, batch).unwrap();
    let versions = ["a/x", "a/y", "a/z"].map(|stream| log.version(stream).unwrap());
    assert_eq!(versions, [Some(1), Some(0), Some(0)]);
    assert_eq!(log.append(&[], Vec::new()).unwrap(), []);
}

fn events_that_have_no_place(log: &dyn Log) {
    let before = log.head().unwrap();
    let mut large = event("a/x", "large", 1);
    large.facts = json!({ "text": "x".repeat(70_000) });
    assert!(matches!(log.append(&[], vec![large]), Err(AppendError::TooLarge { .. })));
    for (stream, id) in [("", "id"), ("a/x", ""), (&"s".repeat(600), "id")] {
        let refused = log.append(&[], vec![event(stream, id, 1)]);
        assert!(matches!(refused, Err(AppendError::Name { .. })), "{refused:?}");
    }
    assert_eq!(log.head().unwrap(), before);
}

fn writers_side_by_side(log: &Arc<dyn Log>) {
    let first = begin(log.as_ref());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let log = Arc::clone(log);
            std::thread::spawn(move || {
                for n in 0..25 {
                    // Everybody writes to one stream, and looks again when another was faster.
                    loop {
                        let version = log.version("a/shared").unwrap();
                        let event = event("a/shared", &format!("w{writer}-{n}"), n);
                        match log.append(&[at("a/shared", version)], vec![event]) {
                            Ok(_) => break,
                            Err(AppendError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let events: Vec<_> = log.read(first).unwrap().map(Result::unwrap).collect();
    assert_eq!(events.len(), 100);
    for (n, event) in (0..).zip(&events) {
        assert_eq!((event.seq, event.version), (first + n, n));
    }
    for writer in 0..4 {
        let own = events.iter().filter(|event| event.id.starts_with(&format!("w{writer}-")));
        assert!(own.map(|event| event.facts["n"].as_u64().unwrap()).eq(0..25));
    }
}

fn subscribers_see_everything_once(log: &Arc<dyn Log>) {
    let first = begin(log.as_ref());
    log.append(&[], (0..5).map(|n| event("a/x", &format!("id-{n}"), n)).collect()).unwrap();
    let mut subscription = log.subscribe(first).unwrap();
    let writer = {
        let log = Arc::clone(log);
        std::thread::spawn(move || {
            for n in 5..60 {
                log.append(&[], vec![event("a/x", &format!("id-{n}"), n)]).unwrap();
                if n % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
        })
    };
    for n in 0..60 {
        let event = subscription.next_within(Duration::from_secs(30)).unwrap();
        assert_eq!(event.map(|event| event.seq), Some(first + n));
    }
    writer.join().unwrap();
    assert_eq!(subscription.next_within(Duration::from_millis(20)).unwrap(), None);
    assert_eq!(log.subscribe(first + 59).unwrap().next().unwrap().unwrap().seq, first + 59);
}

/// The reference is the log in memory, given the same events.
fn same_appends_come_to_the_same_root(log: &dyn Log) {
    for n in 0..40 {
        let stream = format!("s/{}", n % 3);
        log.append(&[], vec![event(&stream, &format!("id-{n}"), n)]).unwrap();
    }
    let events: Vec<_> = log.read(0).unwrap().map(Result::unwrap).collect();
    let memory = MemoryLog::new(Arc::new(FixedClock::default()));
    for event in &events {
        let again = NewEvent {
            id: event.id.clone(),
            stream: event.stream.clone(),
            kind: event.kind.clone(),
            schema: event.schema,
            actor: event.actor.clone(),
            cause: event.cause,
            run: event.run.clone(),
            facts: event.facts.clone(),
            measured: event.measured.clone(),
        };
        memory.append(&[], vec![again]).unwrap();
    }
    assert_eq!(log.head().unwrap(), memory.head().unwrap());
    let again: Vec<_> = memory.read(0).unwrap().map(Result::unwrap).collect();
    assert_eq!(events, again);
}
