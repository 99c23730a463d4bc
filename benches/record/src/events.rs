//! The events: about 1 KiB each as stored, with a text that hardly compresses.

use std::cell::RefCell;

use ledger::{Clock as _, Digest, Envelope, NewEvent, SystemClock, codec};
use serde_json::json;

/// Texts that take turns.
const TEXTS: u64 = 1024;

thread_local! {
    static MADE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Letters of 6 bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn text(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = (0..740).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 40) as usize % 64])
    });
    letters.collect()
}

fn made(n: u64) -> String {
    MADE.with_borrow_mut(|texts| {
        if texts.is_empty() {
            texts.extend((0..TEXTS).map(text));
        }
        texts[(n % TEXTS) as usize].clone()
    })
}

/// Makes event `n`.
pub(crate) fn event(n: u64) -> NewEvent {
    NewEvent {
        id: format!("run-7/step/{n:08}"),
        stream: "run/7".to_owned(),
        kind: "step.completed".to_owned(),
        schema: 1,
        actor: "bench".to_owned(),
        cause: None,
        run: Some("run-7".to_owned()),
        facts: json!({ "step": n, "payload": made(n) }),
        measured: json!({ "ms": 1.25 }),
    }
}

/// The same event as the record would store it: what the peers write.
pub(crate) fn encoded(n: u64) -> Vec<u8> {
    let event = event(n);
    let envelope = Envelope {
        seq: n,
        id: event.id,
        stream: event.stream,
        version: n,
        kind: event.kind,
        schema: event.schema,
        at: SystemClock.now(),
        actor: event.actor,
        cause: None,
        run: event.run,
        prev: Some(Digest::from_bytes([n as u8; 32])),
        facts: event.facts,
        measured: event.measured,
    };
    codec::encode(&envelope).expect("an event has bytes")
}
