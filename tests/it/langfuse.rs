//! Pulling from a Langfuse server.

mod server;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::server::{PUBLIC, SECRET, Server, State};
use crate::ingesting::shared_data;
use crate::support::{Bench, Said, holding, said};

const LIST: &str = "/api/public/v2/observations";

/// An observation as version 4 has it.
fn observation(trace: &str, second: u32, words: &str) -> Value {
    let input = json!([{ "role": "user", "content": words }]);
    let call = json!({ "id": "c1", "type": "function",
        "function": { "name": "get_weather", "arguments": "{\"city\":\"Oslo\"}" } });
    let output = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let time = |second: u32| format!("2026-11-22T10:{:02}:{:02}.000Z", second / 60, second % 60);
    json!({ "id": format!("o{second}"), "traceId": trace, "startTime": time(second),
        "endTime": time(second + 1), "parentObservationId": null, "type": "GENERATION",
        "name": "chat", "level": "DEFAULT", "statusMessage": "", "environment": "default",
        "userId": "", "sessionId": "", "input": input.to_string(), "output": output.to_string(),
        "metadata": {}, "providedModelName": "m", "usageDetails": { "input": 3, "output": 5 },
        "updatedAt": "2026-11-22T10:30:00.000Z", "tags": [], "release": null,
        "traceName": "run" })
}

fn score(id: &str, subject: Value, kind: &str, value: Value) -> Value {
    json!({ "id": id, "name": "quality", "dataType": kind, "value": value, "source": "API",
        "timestamp": format!("2026-11-22T11:00:0{}.000Z", id.len()), "comment": "as told",
        "subject": subject })
}

fn on_trace(trace: &str) -> Value {
    json!({ "kind": "trace", "id": trace })
}

/// The exported traces as a server of version 4 would list them; a few of our own where there are
/// none at hand.
fn real() -> State {
    let Some(data) = shared_data() else {
        let rows = (0..9).map(|at| observation(&format!("t{}", at / 3), at * 20, "words"));
        let scores = vec![score("s1", on_trace("t1"), "NUMERIC", json!(1))];
        return State { observations: rows.collect(), scores, ..State::default() };
    };
    let mut state = State::default();
    let mut files: Vec<PathBuf> = fs::read_dir(data.join("langfuse_traces"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".trace.json"))
        .collect();
    files.sort();
    for file in files {
        let export: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let trace = &export["trace"];
        for row in export["observations"].as_array().unwrap() {
            state.observations.push(listed(row, trace));
        }
        for row in trace["scores"].as_array().unwrap() {
            let mut row = row.clone();
            let trace = row.as_object_mut().unwrap().remove("traceId").unwrap();
            row["subject"] = on_trace(trace.as_str().unwrap());
            state.scores.push(row);
        }
    }
    assert!(state.observations.len() > 50, "{}", state.observations.len());
    state
}

fn listed(row: &Value, trace: &Value) -> Value {
    let mut row = row.clone();
    for key in ["input", "output"] {
        if !row[key].is_string() && !row[key].is_null() {
            row[key] = json!(row[key].to_string());
        }
    }
    if let Some(metadata) = row["metadata"].as_str() {
        row["metadata"] = serde_json::from_str(metadata).unwrap();
    }
    row["providedModelName"] = row.as_object_mut().unwrap().remove("model").unwrap();
    for (key, of_trace) in [
        ("userId", "userId"),
        ("sessionId", "sessionId"),
        ("tags", "tags"),
        ("release", "release"),
        ("traceName", "name"),
    ] {
        row[key] = trace[of_trace].clone();
    }
    row
}

fn command(bench: &Bench, server: &Server, more: &[&str]) -> Command {
    let pull = ["pull", "langfuse", "--requests-per-minute", "0", "--retry-delay", "0.01"];
    let mut command = bench.command(&[&pull[..], more].concat());
    command.env_remove("LANGFUSE_HOST").env("LANGFUSE_BASE_URL", &server.address);
    command.env("LANGFUSE_PUBLIC_KEY", PUBLIC).env("LANGFUSE_SECRET_KEY", SECRET);
    command
}

fn pull(bench: &Bench, server: &Server, more: &[&str]) -> Said {
    said(command(bench, server, more).output().unwrap())
}

fn logged(bench: &Bench, kind: &str) -> Vec<Value> {
    bench.run(&["log", "--kind", kind]).ok().lines()
}

fn size(bench: &Bench) -> Value {
    bench.run(&["status"]).ok().json()["events"].clone()
}

/// The value of a score, in plain or out of its body.
fn said_of(bench: &Bench, target: &str, name: &str) -> Value {
    let feedback = logged(bench, "feedback.recorded");
    let fits =
        |event: &&Value| event["facts"]["target"] == target && event["facts"]["name"] == name;
    let event = feedback.iter().find(fits).unwrap();
    if event["facts"]["body"].is_null() {
        return event["facts"]["value"].clone();
    }
    let body = bench.run(&["show", &event["seq"].to_string(), "--body"]).ok().json();
    body["value"].clone()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_whole_server_is_pulled_once() {
    let state = real();
    let (rows, scores) = (state.observations.len(), state.scores.len());
    let server = Server::start(state);
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &["--limit", "7"]).ok().json();
    assert_eq!((&report["api"], &report["source"]), (&json!("v4"), &json!("langfuse")));
    assert_eq!((&report["observations"], &report["new"]), (&json!(rows), &json!(rows)));
    assert_eq!((&report["scores"], &report["duplicates"]), (&json!(scores), &json!(0)));
    let asked = server.seen(LIST);
    assert_eq!(asked.len(), rows.div_ceil(7));
    assert!(asked[0].get("cursor").is_none() && asked[1].get("cursor").is_some());
    assert!(asked.iter().all(|seen| seen.get("fields").unwrap().contains("trace_context")));

    let spans = logged(&bench, "span.captured");
    assert_eq!(spans.len(), rows);
    assert!(report["traces"].as_u64().unwrap() > 0, "{report}");
    let pages = logged(&bench, "page.pulled");
    assert_eq!(json!(pages.len()), report["pages"]);
    let first = &pages[0]["facts"];
    assert_eq!((&first["rows"], &first["route"]), (&json!(7), &json!(LIST)));
    assert_eq!(first["origin"], json!(server.address));
    assert_eq!(pages.iter().filter(|page| page["facts"]["next"].is_null()).count(), 2);
    // Nothing of the keys is kept.
    assert_eq!(holding(&bench.notebook(), &[SECRET, PUBLIC]), Vec::<PathBuf>::new());

    let before = size(&bench);
    server.forget_seen();
    let again = pull(&bench, &server, &["--limit", "7"]).ok().json();
    assert_eq!((&again["new"], &again["revised"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!(size(&bench), before);
    // It goes on from the newest row, and a little before.
    let asked = server.seen(LIST);
    assert!(asked.len() <= 2 && asked[0].get("fromStartTime").is_some(), "{asked:?}");
    bench.run(&["verify"]).ok();
}

#[test]
fn what_was_cut_short_goes_on_at_the_next_page() {
    let rows: Vec<Value> = (0..10).map(|at| observation("t1", at * 60, "words")).collect();
    let server = Server::start(State { observations: rows, left: Some(2), ..State::default() });
    let bench = Bench::with_notebook();
    let mut child = command(&bench, &server, &["--limit", "3"]).spawn().unwrap();
    // The third page is asked for when two are recorded.
    until("three requests", || server.seen(LIST).len() == 3);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(logged(&bench, "page.pulled").len(), 2);
    server.with(|state| state.left = None);
    server.forget_seen();
    let report = pull(&bench, &server, &["--limit", "3"]).ok().json();
    assert_eq!(report["new"], 4, "{report}");
    let asked = server.seen(LIST);
    let cursor = asked[0].get("cursor").unwrap();
    assert!(cursor.starts_with("2026-11-22T10:04:00"), "{cursor}");
    assert_eq!(asked[1].get("fromStartTime"), None);
    // The next round begins near the newest row.
    assert_eq!(asked[2].get("fromStartTime"), Some("2026-11-22T09:49:00.000Z"));
    let ids: BTreeSet<String> = logged(&bench, "span.captured")
        .iter()
        .map(|span| span["facts"]["span_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 10);
}

#[test]
fn a_busy_server_is_waited_for_and_a_broken_one_is_told() {
    let server = Server::start(State {
        observations: vec![observation("t1", 1, "words")],
        instead: vec![
            ("429 Too Many Requests", "retry-after: 1\r\n"),
            ("502 Bad Gateway", ""),
            ("503 Service Unavailable", "retry-after: 0\r\n"),
        ],
        ..State::default()
    });
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &[]).ok().json();
    assert_eq!(report["new"], 1);
    let asked = server.seen(LIST);
    assert_eq!(asked.len(), 4);
    assert!(asked[1].at.duration_since(asked[0].at) >= Duration::from_secs(1));
    assert!(asked[2].at.duration_since(asked[1].at) < Duration::from_secs(1));

    server.with(|state| state.instead = vec![("500 Internal Server Error", ""); 99]);
    let error = pull(&bench, &server, &[]).fails(9);
    assert_eq!(error["kind"], "unavailable");
    assert!(error["message"].as_str().unwrap().contains("500"), "{error}");
    server.with(|state| state.instead = vec![("302 Found", "location: http://else.where/\r\n")]);
    assert!(pull(&bench, &server, &[]).fails(9)["hint"].as_str().unwrap().contains("--url"));
}

#[test]
fn wrong_keys_are_told_with_what_names_them() {
    let server = Server::start(State::default());
    let bench = Bench::with_notebook();
    let mut wrong = command(&bench, &server, &[]);
    let error = said(wrong.env("LANGFUSE_SECRET_KEY", "sk-lf-wrong").output().unwrap()).fails(2);
    assert_eq!(error["kind"], "usage");
    assert!(error["message"].as_str().unwrap().contains("Invalid credentials"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("LANGFUSE_SECRET_KEY"), "{error}");
    assert!(!error.to_string().contains("sk-lf-wrong"));
    let mut none = command(&bench, &server, &[]);
    let error = said(none.env("LANGFUSE_PUBLIC_KEY", " ").output().unwrap()).fails(2);
    assert!(error["message"].as_str().unwrap().contains("LANGFUSE_PUBLIC_KEY"), "{error}");
    let inside = server.address.replace("http://", "http://a:b@");
    let mut inside_url = command(&bench, &server, &["--url", &inside]);
    assert_eq!(said(inside_url.output().unwrap()).fails(2)["kind"], "usage");
}

#[test]
fn a_server_of_version_3_is_read_by_its_own_lists() {
    let mut rows: Vec<Value> = (0..7).map(|at| observation("t1", at * 60, "words")).collect();
    rows[2]["userId"] = json!("Ada Lovelace");
    rows[2]["traceId"] = json!("t2");
    let scores = vec![score("s1", on_trace("t1"), "BOOLEAN", json!(true))];
    let server =
        Server::start(State { observations: rows, scores, is_old: true, ..State::default() });
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &["--limit", "3"]).ok().json();
    assert_eq!((&report["api"], &report["new"]), (&json!("v3"), &json!(7)), "{report}");
    assert_eq!((&report["scores"], &report["joined"]), (&json!(1), &json!(1)));
    let pages = server.seen("/api/public/observations");
    assert_eq!(pages.len(), 3);
    assert_eq!(said_of(&bench, "t1", "quality"), true);
    // The user stands with the trace only.
    assert_eq!(holding(&bench.notebook(), &["Ada Lovelace"]), Vec::<PathBuf>::new());
    let encrypted = |span: &&Value| !span["facts"]["body"]["subject"].is_null();
    assert_eq!(logged(&bench, "span.captured").iter().filter(encrypted).count(), 1);
    let before = size(&bench);
    let again = pull(&bench, &server, &["--limit", "3"]).ok().json();
    assert_eq!((&again["new"], &again["revised"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!(size(&bench), before);
}

#[test]
fn scores_find_their_traces_and_wait_for_those_that_are_not_there() {
    let inside = json!({ "kind": "observation", "id": "o1", "traceId": "t1" });
    let session = json!({ "kind": "session", "id": "s" });
    let correction = json!("get_weather(city='Bergen')");
    let server = Server::start(State {
        observations: vec![observation("t1", 1, "words")],
        scores: vec![
            score("a", inside.clone(), "NUMERIC", json!(0.5)),
            score("bb", on_trace("t1"), "CATEGORICAL", json!("good")),
            score("ccc", on_trace("t-later"), "TEXT", json!("wombats came early")),
            score("dddd", session, "NUMERIC", json!(1)),
            score("eeeee", inside, "CORRECTION", correction.clone()),
            json!({ "id": "ffffff", "name": "lost", "value": "of no trace" }),
        ],
        ..State::default()
    });
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &[]).ok().json();
    assert_eq!((&report["scores"], &report["joined"]), (&json!(6), &json!(3)), "{report}");
    assert_eq!((&report["passed_over"], &report["rejected"]), (&json!(1), &json!(1)));
    assert_eq!(said_of(&bench, "t1/o1", "quality"), 0.5);
    assert_eq!(said_of(&bench, "t1", "quality"), "good");
    assert_eq!(said_of(&bench, "t1/o1", "correction"), correction);
    // It may be about anybody, and so may the page that it stands on.
    assert_eq!(said_of(&bench, "t-later", "quality"), "wombats came early");
    assert_eq!(holding(&bench.notebook(), &["wombats"]), Vec::<PathBuf>::new());
    let rejected = logged(&bench, "trace.rejected");
    assert_eq!(rejected[0]["facts"]["location"]["row"], 1, "{rejected:?}");

    let later = observation("t-later", 2, "words");
    server.with(|state| state.observations.push(later));
    let report = pull(&bench, &server, &[]).ok().json();
    assert_eq!((&report["new"], &report["joined"]), (&json!(1), &json!(4)), "{report}");
    assert_eq!(logged(&bench, "trace.rejected").len(), 1);
    bench.run(&["verify"]).ok();
}

#[test]
fn rows_that_are_none_are_told_and_secrets_stay_outside() {
    let secret = "sk-proj-Xk29fLq83ZtUvW71mNbRs45TyHuJiOpA";
    let mut broken = observation("t1", 2, "whose words are these");
    broken.as_object_mut().unwrap().remove("id");
    let server = Server::start(State {
        observations: vec![observation("t1", 1, &format!("my key is {secret}")), broken],
        ..State::default()
    });
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &[]).ok().json();
    assert_eq!((&report["new"], &report["rejected"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(holding(&bench.notebook(), &[secret]), Vec::<PathBuf>::new());
    let page = &logged(&bench, "page.pulled")[0]["facts"];
    assert_eq!((&page["redacted"], &page["rows"]), (&json!(true), &json!(2)));
    let rejected = &logged(&bench, "trace.rejected")[0]["facts"];
    assert_eq!(rejected["reason"], "the observation has no id");
    assert!(rejected["location"]["file"].as_str().unwrap().ends_with(LIST));
    let before = size(&bench);
    assert_eq!(pull(&bench, &server, &[]).ok().json()["rejected"], 1);
    assert_eq!(size(&bench), before);
}

#[test]
fn a_page_of_two_users_is_encrypted_and_goes_with_either() {
    let mut rows =
        vec![observation("t1", 1, "ada asks for wombats"), observation("t2", 2, "grace for moths")];
    rows[0]["userId"] = json!("Ada Lovelace");
    rows[1]["userId"] = json!("Grace Hopper");
    let words = ["Ada Lovelace", "Grace Hopper", "wombats", "moths"];
    let server = Server::start(State { observations: rows, ..State::default() });
    let bench = Bench::with_notebook();
    pull(&bench, &server, &[]).ok();
    assert_eq!(holding(&bench.notebook(), &words), Vec::<PathBuf>::new());
    let page = &logged(&bench, "page.pulled")[0];
    let facts = &page["facts"];
    let subjects = facts["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 2);
    assert!(!facts["body"]["cipher"].is_null() && !subjects.contains(&facts["body"]["subject"]));
    let seq = page["seq"].to_string();
    let shown = bench.run(&["show", &seq]).ok();
    assert!(words.iter().all(|word| !shown.out.contains(word)), "{}", shown.out);
    assert!(bench.run(&["show", &seq, "--body"]).ok().out.contains("wombats"));
    bench.run(&["forget", "Ada Lovelace", "--yes"]).ok();
    assert_eq!(bench.run(&["show", &seq, "--body"]).fails(12)["kind"], "erased");
}

#[test]
fn a_page_is_of_whom_another_page_named() {
    let rows = vec![observation("t1", 1, "ada asks for wombats"), observation("t1", 2, "and who")];
    let server = Server::start(State { observations: rows, ..State::default() });
    // The newest row, which comes first, names the user of the trace; the other does not.
    server.with(|state| state.observations[1]["userId"] = json!("Ada Lovelace"));
    let bench = Bench::with_notebook();
    let report = pull(&bench, &server, &["--limit", "1"]).ok().json();
    assert_eq!(report["new"], 2, "{report}");
    assert_eq!(holding(&bench.notebook(), &["wombats", "lovelace"]), Vec::<PathBuf>::new());
    let pages = logged(&bench, "page.pulled");
    assert_eq!(pages[0]["facts"]["subjects"], pages[1]["facts"]["subjects"]);
    bench.run(&["forget", "Ada Lovelace", "--yes"]).ok();
    for page in &pages {
        let seq = page["seq"].to_string();
        assert_eq!(bench.run(&["show", &seq, "--body"]).fails(12)["kind"], "erased");
    }
    // What was forgotten does not come back with a page that has news of others.
    server.with(|state| state.observations.push(observation("t2", 3, "of nobody")));
    pull(&bench, &server, &["--limit", "3"]).ok();
    let kept = logged(&bench, "page.pulled").pop().unwrap();
    assert_eq!((&kept["facts"]["rows"], &kept["facts"]["redacted"]), (&json!(3), &json!(true)));
    let body = bench.run(&["show", &kept["seq"].to_string(), "--body"]).ok().out;
    assert!(body.contains("of nobody") && !body.contains("wombats"), "{body}");
}

#[test]
fn following_picks_up_what_is_new_and_stops_when_asked() {
    let server = Server::start(State {
        observations: vec![observation("t1", 1, "words")],
        ..State::default()
    });
    let bench = Bench::with_notebook();
    let mut follow = command(&bench, &server, &["--follow", "--every", "0.05"]);
    let child = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let child = Following(Some(child));
    until("the first", || logged(&bench, "span.captured").len() == 1);
    server.with(|state| state.observations.push(observation("t1", 2, "more words")));
    until("the second", || logged(&bench, "span.captured").len() == 2);
    // A server that is away for a while is waited for.
    server.with(|state| state.instead = vec![("500 Internal Server Error", ""); 7]);
    until("the failures", || server.with(|state| state.instead.is_empty()));
    server.with(|state| state.observations.push(observation("t1", 3, "last words")));
    until("the third", || logged(&bench, "span.captured").len() == 3);
    let ended = child.stop().ok().json();
    assert_eq!((&ended["new"], &ended["revised"]), (&json!(3), &json!(0)), "{ended}");
    // Rounds without news leave nothing.
    assert_eq!(logged(&bench, "page.pulled").len(), 3);
    bench.run(&["verify"]).ok();
}

/// A pull that follows, killed when dropped.
struct Following(Option<Child>);

impl Following {
    fn stop(mut self) -> Said {
        let child = self.0.take().unwrap();
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        said(child.wait_with_output().unwrap())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
