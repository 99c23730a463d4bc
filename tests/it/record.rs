//! The record through the binary: writing beside a holder, proofs, keys, checkpoints elsewhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;

use crate::support::{Bench, samples};

fn open(bench: &Bench) -> ledger::Notebook {
    ledger::Notebook::open(&bench.notebook(), Arc::new(ledger::SystemClock)).unwrap()
}

#[test]
fn commands_work_while_another_process_holds_the_notebook() {
    let bench = Bench::with_notebook();
    let holder = open(&bench);
    bench.run(&["ingest", &samples()]).ok();
    for command in [&["status"][..], &["log", "-n", "3"], &["show", "0"], &["search", "weather"]] {
        bench.run(command).ok();
    }
    let questions = ["--questions", "recorded/toolcall_azure", "--golds", "toolcall/train"];
    bench.run(&[&["suite", "build", "s"], &questions[..]].concat()).ok();
    bench.run(&["checkpoint"]).ok();
    assert_eq!(bench.run(&["verify"]).ok().json()["good"], true);
    let size = holder.reader().head().unwrap().size;
    assert_eq!(bench.run(&["log"]).ok().lines().len() as u64, size);
    holder.close().unwrap();
    bench.run(&["ingest", &samples()]).ok();
}

#[test]
fn the_log_is_followed_as_it_grows() {
    let bench = Bench::with_notebook();
    let follow = ["log", "--follow", "--kind", "dataset.imported"];
    let mut child = bench.command(&follow).stdout(Stdio::piped()).spawn().unwrap();
    bench.run(&["ingest", &samples()]).ok();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["kind"], "dataset.imported");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_event_is_proven_to_whoever_has_the_key() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    bench.run(&["checkpoint"]).ok();
    let proof = bench.path("third.tlog-proof");
    let said = bench.run(&["prove", "3", "--out", proof.to_str().unwrap()]).ok().json();
    let key = said["verifier_key"].as_str().unwrap();
    let check = ["verify", "--proof", proof.to_str().unwrap(), "--key", key];
    let good = bench.run(&check).ok().json();
    assert_eq!((good["event"].as_u64(), &good["root"]), (Some(3), &said["root"]));
    // No notebook is needed to check, and other bytes are not the event.
    fs::rename(bench.notebook(), bench.path("away")).unwrap();
    bench.run(&check).ok();
    let event = bench.path("third.event");
    let mut bytes = fs::read(&event).unwrap();
    bytes[20] ^= 1;
    fs::write(&event, bytes).unwrap();
    bench.run(&check).fails(6);
    fs::write(&proof, "no proof").unwrap();
    bench.run(&check).fails(4);
    fs::rename(bench.path("away"), bench.notebook()).unwrap();
    bench.run(&["prove", "999999"]).fails(3);
}

#[test]
fn keys_rotate_and_checkpoints_are_kept_elsewhere() {
    let bench = Bench::with_notebook();
    let elsewhere = bench.path("elsewhere");
    let sent = bench.run(&["checkpoint", "--send", elsewhere.to_str().unwrap()]).ok().json();
    let kept = sent["sent"][0].as_str().unwrap().to_owned();
    let first = bench.run(&["key"]).ok().json()["keys"][0]["key"].as_str().unwrap().to_owned();
    bench.run(&["key", "rotate"]).ok();
    bench.run(&["ingest", &samples()]).ok();
    bench.run(&["checkpoint", "--send", elsewhere.to_str().unwrap()]).ok();
    assert_eq!(bench.run(&["key", "show"]).ok().json()["keys"].as_array().unwrap().len(), 2);
    let report = bench.run(&["verify", "--against", &kept, "--key", &first]).ok().json();
    assert_eq!((&report["good"], &report["outside"]), (&true.into(), &sent["size"]));
    let tiles = bench.path("tiles");
    bench.run(&["export", "--tiles", tiles.to_str().unwrap()]).ok();
    assert!(tiles.join("tile/0/000").is_file() && tiles.join("tile/entries/000").is_file());
    // Another log is not an extension of what was kept.
    let other = Bench::with_notebook();
    let error = other.run(&["verify", "--against", &kept]).fails(6);
    assert_eq!(error["kind"], "damaged");
}

#[test]
fn a_proof_names_the_key_that_signed_it_also_when_there_is_a_newer_one() {
    let bench = Bench::with_notebook();
    bench.run(&["checkpoint"]).ok();
    // Rotated, and no checkpoint signed since.
    let holder = open(&bench);
    let newest = holder.rotate_key().unwrap();
    holder.close().unwrap();
    let proof = bench.path("first.tlog-proof");
    let said = bench.run(&["prove", "0", "--out", proof.to_str().unwrap()]).ok().json();
    let key = said["verifier_key"].as_str().unwrap();
    assert_ne!(key, newest);
    bench.run(&["verify", "--proof", proof.to_str().unwrap(), "--key", key]).ok();
    bench.run(&["checkpoint"]).ok();
    let said = bench.run(&["prove", "0", "--out", proof.to_str().unwrap()]).ok().json();
    assert_eq!(said["verifier_key"], newest);
    bench.run(&["verify", "--proof", proof.to_str().unwrap(), "--key", &newest]).ok();
}

#[test]
fn the_log_is_listed_as_it_is_read() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let all = bench.run(&["log"]).ok().lines();
    let seqs: Vec<u64> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(bench.run(&["log", "--last", "3"]).ok().lines(), all[all.len() - 3..]);
    assert_eq!(bench.run(&["log", "--last", "99999"]).ok().lines().len(), all.len());
    assert_eq!(bench.run(&["log", "--last", "0"]).ok().out, "");
    assert_eq!(bench.run(&["log", "--from", "7"]).ok().lines(), all[7..]);
    // Whoever reads it may stop at any line.
    let mut child = bench.command(&["log"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    // What could not be written is a failure.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = bench.command(&["log"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(11));
}

#[test]
fn what_opening_mends_is_told() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let store = bench.notebook().join("store");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "no store").unwrap();
    let said = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ledger"));
        command.arg("--dir").arg(bench.notebook()).args(arguments);
        crate::support::said(command.output().unwrap()).ok().err
    };
    let told = said(&["checkpoint"]);
    for part in ["the store was rebuilt", "the old one is kept in", "were applied again"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = said(&["checkpoint"]);
    assert!(!told.contains("rebuilt") && !told.contains("again"), "{told}");
}

#[test]
fn a_checkpoint_is_put_to_an_address() {
    let bench = Bench::with_notebook();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/kept/checkpoint", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = String::new();
        while !seen.contains("\u{2014} ledger/") || !seen.ends_with("\n") {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).unwrap();
            seen.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        seen
    });
    let sent = bench.run(&["checkpoint", "--send", &url]).ok().json();
    let seen = server.join().unwrap();
    assert!(seen.starts_with("PUT /kept/checkpoint "), "{seen}");
    assert!(seen.ends_with(sent["note"].as_str().unwrap()), "{seen}");
    let events = bench.run(&["log", "--kind", "checkpoint.sent"]).ok().lines();
    assert_eq!(events[0]["facts"]["place"], url.as_str());
    // Nobody listens there any more.
    bench.run(&["checkpoint", "--send", &url]).fails(9);
}

#[test]
fn an_export_comes_back_as_the_same_log() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let lines = bench.path("log.jsonl");
    let out = bench.run(&["export", "--out", lines.to_str().unwrap(), "--bodies"]).ok().json();
    let other = Bench::new();
    let back = other.run(&["import", lines.to_str().unwrap()]).ok().json();
    assert_eq!((&back["size"], &back["root"]), (&out["size"], &out["root"]));
    assert_eq!(other.run(&["verify"]).ok().json()["root"], out["root"]);
    assert_eq!(other.run(&["search", "weather"]).ok().lines().len(), 10);
    other.run(&["import", lines.to_str().unwrap()]).fails(2);
    fs::write(&lines, "{}").unwrap();
    Bench::new().run(&["import", lines.to_str().unwrap()]).fails(4);
    bench.run(&["export"]).fails(2);
}
