//! A process that appends until it is ended, and what its events must be afterwards.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ledger::{BodyRef, NewEvent, Notebook, Reader, SystemClock, verify};
use serde_json::json;

/// Words that nothing else has, by number.
pub(crate) fn noise(n: u64, words: usize) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..words).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    });
    words.collect()
}

/// Text of event `n`: about 700 bytes.
fn text(n: u64) -> String {
    noise(n, 40)
}

/// Every tenth event names a body.
fn has_body(n: u64) -> bool {
    n.is_multiple_of(10)
}

/// Events from `from` up to `end`; their bodies are stored together.
fn events(notebook: &Notebook, from: u64, end: u64) -> Vec<NewEvent> {
    let texts = (from..end).filter(|&n| has_body(n)).map(|n| text(n).into_bytes());
    let stored = notebook.blobs().put_many(&texts.collect::<Vec<_>>()).unwrap();
    let mut stored = stored.into_iter();
    (from..end).map(|n| event(n, has_body(n).then(|| stored.next().unwrap()))).collect()
}

fn event(n: u64, body: Option<BodyRef>) -> NewEvent {
    NewEvent {
        id: format!("event/{n}"),
        stream: format!("stream/{}", n % 7),
        kind: "thing.done".to_owned(),
        schema: 1,
        actor: "writer".to_owned(),
        cause: None,
        run: None,
        facts: json!({ "n": n, "text": text(n), "body": body }),
        measured: json!({}),
    }
}

/// The process: appends in groups and says after each how many events are acknowledged.
#[test]
#[ignore = "started by the tests beside it"]
fn appends_until_ended() {
    let Some(dir) = std::env::var_os("CRASH_DIR") else { return };
    let group = super::times("CRASH_GROUP", 1);
    let clock = Arc::new(SystemClock);
    let dir = Path::new(&dir);
    let notebook = if dir.join("ledger.toml").exists() {
        Notebook::open(dir, clock).unwrap()
    } else {
        Notebook::create(dir, clock, "writer").unwrap()
    };
    let mut n = notebook.reader().head().unwrap().size - 1;
    loop {
        notebook.append(&[], events(&notebook, n, n + group)).unwrap();
        n += group;
        writeln!(std::io::stdout(), "acknowledged {n}").unwrap();
    }
}

/// The running process.
pub(crate) struct Writer {
    child: Child,
    acknowledged: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it, and waits until its first acknowledgement.
    pub(crate) fn start(dir: &Path, group: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "writer::appends_until_ended", "--nocapture"])
            .env("CRASH_DIR", dir)
            .env("CRASH_GROUP", group.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (count, (first, begun)) = (Arc::clone(&acknowledged), mpsc::channel());
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(n) = line.strip_prefix("acknowledged ") {
                    // A line that the kill cut short says less than the truth, never more.
                    count.fetch_max(n.parse().unwrap(), Ordering::SeqCst);
                    let _ = first.send(());
                }
            }
        });
        begun.recv_timeout(Duration::from_secs(60)).expect("the writer begins");
        Self { child, acknowledged, reader: Some(reader) }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Stops it where it stands, without ending it. Returns what was acknowledged until then.
    pub(crate) fn freeze(&self) -> u64 {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        self.signal("-STOP");
        acknowledged
    }

    /// Kills it. Returns all that it acknowledged.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        self.acknowledged.load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the notebook as somebody would after the crash, and holds every event from `from` on
/// against what it must be. Returns how many events of the writer there are.
pub(crate) fn check(dir: &Path, from: u64, acknowledged: u64) -> u64 {
    let notebook = Notebook::open(dir, Arc::new(SystemClock)).unwrap();
    let reader = notebook.reader();
    let count = reader.head().unwrap().size - 1;
    assert!(count >= acknowledged, "{count} events, but {acknowledged} were acknowledged");
    let mut n = from;
    for event in reader.events(from + 1).unwrap() {
        let event = event.unwrap();
        assert_eq!((event.seq, event.id), (n + 1, format!("event/{n}")));
        assert_eq!((&event.facts["n"], &event.facts["text"]), (&json!(n), &json!(text(n))));
        assert_eq!(ledger::bodies_in(&event.facts).len(), usize::from(has_body(n)));
        n += 1;
    }
    assert_eq!(n, count);
    notebook.close().unwrap();
    count
}

/// Reads every stored byte again.
pub(crate) fn check_all(dir: &Path, acknowledged: u64) {
    check(dir, 0, acknowledged);
    let report = verify(dir).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.store, "equal");
    assert_eq!(Reader::open(dir).unwrap().head().unwrap().root, report.root);
}
