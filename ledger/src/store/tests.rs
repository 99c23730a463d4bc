#![allow(clippy::unwrap_used)]

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys and values as every later version must read them, or rebuild.
#[test]
fn the_stored_forms_are_as_documented() {
    let row = Applied { seq: 258, stream: "s", version: 3, leaf: Digest::of(b"x"), bytes: b"e" };
    let mark = Watermark { size: 258, root: Digest::of(b"r"), ids: 0x0102_0304 };
    let head = format!("00000000000001020000000000000003{}", Digest::of(b"x"));
    assert_eq!(hex(&row.head()), head);
    let noted = format!("0000000000000102{}01020304", Digest::of(b"r"));
    assert_eq!(hex(&mark.encode()), noted);
    assert_eq!(Watermark::decode(&mark.encode()), Some(mark));
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(&dir.path().join("store")).unwrap();
    store.apply(&[row]).unwrap();
    assert_eq!(store.get(b"e\0\0\0\0\0\0\x01\x02").unwrap().unwrap(), b"e");
    assert_eq!(hex(&store.get(b"ss").unwrap().unwrap()), head);
    assert_eq!(hex(&store.get(b"n").unwrap().unwrap()), "0000000000000103");
    assert_eq!(store.stream("s").unwrap(), Some((258, (3, Digest::of(b"x")))));
}

/// Event `seq` of a stream of its own, about 1 KiB.
fn fill(store: &mut Store, events: std::ops::Range<u64>) {
    let bytes: Vec<_> = events.clone().map(body).collect();
    let names: Vec<_> = events.clone().map(|seq| format!("stream/{seq}")).collect();
    let row = |seq: u64, bytes, stream| {
        let leaf = Digest::of(bytes);
        Applied { seq, stream, version: seq + 1, leaf, bytes }
    };
    let rows = bytes.iter().zip(&names).zip(events);
    let rows: Vec<_> = rows.map(|((bytes, name), seq)| row(seq, bytes, name)).collect();
    store.apply(&rows).unwrap();
}

fn body(seq: u64) -> Vec<u8> {
    format!("{seq:016x}").repeat(64).into_bytes()
}

fn mark(size: u64) -> Watermark {
    Watermark { size, root: Digest::of(&size.to_be_bytes()), ids: 7 }
}

/// A full store is opened anew when it is flushed. Nothing is lost, and a reader that was lent
/// before answers all the while.
#[test]
fn a_full_store_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::create(&dir.path().join("store")).unwrap();
    let reader = store.reader();
    let known = std::sync::atomic::AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let mut renewals = 0;
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Acquire) {
                let below = known.load(Ordering::Acquire);
                for seq in below.saturating_sub(3)..below {
                    let (found, (version, leaf)) =
                        reader.stream(&format!("stream/{seq}")).unwrap().unwrap();
                    assert_eq!((found, version, leaf), (seq, seq + 1, Digest::of(&body(seq))));
                    asked += 1;
                }
            }
            asked
        });
        for round in 0..40 {
            fill(&mut store, round * 64..(round + 1) * 64);
            known.store((round + 1) * 64, Ordering::Release);
            let is_due = store.is_full();
            store.flush(mark((round + 1) * 64)).unwrap();
            assert!(!store.is_full());
            renewals += u32::from(is_due);
        }
        done.store(true, Ordering::Release);
        assert!(asks.join().unwrap() > 0);
    });
    assert!(renewals >= 5, "{renewals}");
    drop((store, reader));
    let (store, noted, applied) = Store::open(&dir.path().join("store")).unwrap();
    assert_eq!(applied, 2560);
    assert!(noted == mark(2560) || noted == mark(2496), "{noted:?}");
    let mut next = 0;
    store
        .visit_events(|seq, bytes| {
            assert_eq!((seq, bytes), (next, body(next).as_slice()));
            next += 1;
        })
        .unwrap();
    assert_eq!(next, 2560);
}

/// Where the database cannot be opened anew, or is another then, the store has failed: it says so,
/// and so does the reader, and neither hangs.
fn opened_anew_where_it_is_not(is_in_the_way: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = Store::create(&path).unwrap();
    let reader = store.reader();
    let mut next = 0;
    while !store.is_full() {
        fill(&mut store, next..next + 64);
        next += 64;
    }
    std::fs::rename(&path, dir.path().join("gone")).unwrap();
    if is_in_the_way {
        std::fs::write(&path, b"in the way").unwrap();
    }
    assert!(store.flush(mark(next)).is_err());
    assert!(store.event(0).is_err());
    // Not absent: a stream that is told to be would be begun again.
    assert!(reader.stream("stream/0").is_err());
    drop((store, reader));
}

#[test]
fn a_store_that_is_another_when_it_is_opened_anew_has_failed() {
    opened_anew_where_it_is_not(true);
    opened_anew_where_it_is_not(false);
}

/// Where an opening ended between its snapshot and its first log, sled would lose the snapshot at
/// the next one.
#[test]
fn a_store_whose_opening_was_cut_short_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = Store::create(&path).unwrap();
    fill(&mut store, 0..64);
    store.flush_noted(mark(64)).unwrap();
    drop(store);
    for _ in 0..3 {
        let (store, noted, applied) = Store::open(&path).unwrap();
        assert_eq!((noted, applied), (mark(64), 64));
        drop(store);
    }
    let metadata = std::fs::read_dir(path.join("metadata")).unwrap();
    let logs = metadata
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("log_"));
    logs.for_each(|log| std::fs::remove_file(log.path()).unwrap());
    let error = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}
