//! What the record cannot take: calls succeed all the same, and the gap is seen.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::{Teacher, answered, ask, gateway, logged, receive, reply, send};
use crate::support::{Bench, Running};

fn teacher() -> Teacher {
    Teacher::start(|_, stream| {
        reply(stream, "200 OK", "application/json", &answered("chatcmpl-1", "Oslo"));
    })
}

fn call(address: &str, question: &str) {
    let (head, body) = receive(send(address, "", &ask(question, json!({}))));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, answered("chatcmpl-1", "Oslo"));
}

/// Waits until the status says what is wanted.
fn wait_for(bench: &Bench, is_wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        let status = bench.run(&["status"]).ok().json();
        if is_wanted(&status) {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{}", bench.run(&["status"]).out);
}

/// A file system of its own, let go when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u64) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(at);
        let done = mount.output().is_ok_and(|done| done.status.success());
        if !done {
            eprintln!("skipped: no file system can be mounted here");
        }
        done.then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_calls_succeed_and_the_gap_is_seen_and_told() {
    let bench = Bench::new();
    let Some(_small) = Small::mount(&bench.notebook(), 96) else { return };
    std::fs::create_dir(bench.notebook().join("here")).unwrap();
    let inner = bench.at("notebook/here");
    inner.run(&["init"]).ok();
    let teacher = teacher();
    let (running, address) = gateway(&inner, &teacher.address, &[]);
    call(&address, "before");
    let room = bench.notebook().join("ballast");
    fill(&room);
    call(&address, "during, the first");
    call(&address, "during, the second");
    let full = wait_for(&inner, |status| status["gaps"][0]["calls"] == 2);
    assert_eq!(full["gaps"][0]["source"], "gateway");
    let reason = full["gaps"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("No space left") || reason.contains("free"), "{reason}");
    let text = people(&inner, &["status"]);
    assert!(text.contains("GAP: 2 calls of source gateway are not recorded"), "{text}");
    // Spans are not taken: exporters keep them, and send them again.
    let (head, _) = receive(post_spans(&address));
    assert!(head.contains(" 503 ") && head.contains("retry-after"), "{head}");

    std::fs::remove_file(&room).unwrap();
    // Nobody has to call for the record to be told.
    let told = wait_for(&inner, |status| status["gaps"] == json!([]));
    assert_eq!(told["calls_lost"], 2);
    call(&address, "after");
    assert!(receive(post_spans(&address)).0.contains(" 200 "));
    assert_eq!(running.stop(), 0);
    let lost = logged(&inner, "capture.lost");
    assert_eq!((lost.len(), &lost[0]["facts"]["calls"]), (1, &json!(2)));
    assert_eq!(logged(&inner, "call.captured").len(), 2);
    assert_eq!(people(&inner, &["status"]).matches("not recorded").count(), 1);
    inner.run(&["verify"]).ok();
}

fn post_spans(address: &str) -> std::net::TcpStream {
    use std::io::Write as _;
    let span = json!({ "traceId": "0a".repeat(16), "spanId": "0b".repeat(8), "name": "x" });
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let length = body.len();
    write!(stream, "{head}content-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
    stream
}

/// Takes all the room of a file system.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![7; 64 << 10];
    while file.write_all(&piece).is_ok() {}
}

/// What a command says to people.
fn people(bench: &Bench, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ledger"));
    command.args(arguments).arg("--dir").arg(bench.notebook());
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn with_a_log_that_failed_calls_succeed_and_the_next_server_tells() {
    let bench = Bench::with_notebook();
    let teacher = teacher();
    // Files may grow to half a megabyte: the journal fails in the middle of a write.
    let serve = ["serve", "--teacher", &teacher.address, "--port", "0"];
    let (running, first) = bench.start_with(&serve, "trap '' XFSZ; ulimit -f 1024; exec \"$@\"");
    let address = first["address"].as_str().unwrap().trim_start_matches("http://").to_owned();
    // Bodies are small, events are many.
    let lost = (0..4000).find(|number| {
        call(&address, &format!("question {number}"));
        number % 50 == 0 && !bench.run(&["status"]).ok().json()["gaps"][0].is_null()
    });
    assert!(lost.is_some(), "the log never failed");
    let calls = 20;
    let before = wait_for(&bench, |status| status["gaps"][0]["calls"].as_u64() > Some(0));
    let before = before["gaps"][0]["calls"].as_u64().unwrap();
    (0..calls).for_each(|number| call(&address, &format!("later question {number}")));
    wait_for(&bench, |status| status["gaps"][0]["calls"].as_u64() >= Some(before + calls));
    drop::<Running>(running);
    let lost = bench.run(&["status"]).ok().json()["gaps"][0]["calls"].as_u64().unwrap();

    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let told = wait_for(&bench, |status| status["gaps"] == json!([]));
    assert_eq!(told["calls_lost"], lost);
    call(&address, "after");
    assert_eq!(running.stop(), 0);
    bench.run(&["verify"]).ok();
}
