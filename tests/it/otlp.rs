//! The OTLP receiver: spans of tracers become trees and traces, once each, whatever comes.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::gateway::{Teacher, gateway, logged, receive, reply};
use crate::support::{Bench, Running, holding};

const JSON: &str = "content-type: application/json\r\n";

/// A server that takes spans, in front of a teacher that answers nothing.
fn server(bench: &Bench, more: &[&str]) -> (Running, String) {
    let teacher = Teacher::start(|_, stream| reply(stream, "200 OK", "application/json", b"{}"));
    gateway(bench, &teacher.address, more)
}

/// Posts a body and returns status and answer.
fn post(address: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    try_post(address, path, headers, body).unwrap()
}

fn try_post(
    address: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\nconnection: close\r\n\
         \r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let broke = || std::io::Error::other("no whole answer");
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broke)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(broke)?;
    Ok((status, all[end + 4..].to_vec()))
}

fn attributes(pairs: &Value) -> Value {
    let pair = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => json!({ "stringValue": text }),
            Value::Number(number) => json!({ "intValue": number.to_string() }),
            other => panic!("{other}"),
        };
        json!({ "key": key, "value": value })
    };
    pairs.as_object().unwrap().iter().map(pair).collect()
}

/// A span; ids are numbers, `parent` 0 means none.
fn span(trace: u64, id: u64, parent: u64, name: &str, pairs: &Value) -> Value {
    // A root takes 400 ms, what is within it 100 ms, one after another.
    let length = if parent == 0 { 400_000_000 } else { 100_000_000 };
    let start = 1_700_000_000_000_000_000 + id.saturating_sub(1) * 100_000_000;
    let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
    json!({
        "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"),
        "parentSpanId": parent, "name": name,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": (start + length).to_string(),
        "attributes": attributes(pairs),
    })
}

fn export(spans: &[Value]) -> Vec<u8> {
    let resource = json!({ "attributes": attributes(&json!({ "service.name": "shop" })) });
    let of_scope = json!({ "scope": { "name": "test" }, "spans": spans });
    let of_resource = json!({ "resource": resource, "scopeSpans": [of_scope] });
    json!({ "resourceSpans": [of_resource] }).to_string().into_bytes()
}

/// A call of a model that asks for the weather, in today's convention.
fn call(question: &str) -> Value {
    let asked = json!([{ "role": "user", "parts": [{ "type": "text", "content": question }] }]);
    let answered = json!([{ "role": "assistant", "finish_reason": "tool_call", "parts": [
        { "type": "tool_call", "id": "c1", "name": "weather", "arguments": { "city": "Oslo" } },
    ] }]);
    let tools = json!([{ "type": "function", "name": "weather", "description": "of a city",
        "parameters": { "type": "object" } }]);
    json!({
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
        "gen_ai.response.id": format!("resp-{}", question.len()),
        "gen_ai.input.messages": asked.to_string(),
        "gen_ai.output.messages": answered.to_string(),
        "gen_ai.tool.definitions": tools.to_string(),
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 4,
    })
}

/// The three spans of an agent that asks a model and runs a tool.
fn agent(trace: u64, question: &str) -> [Value; 3] {
    let tool = json!({ "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.arguments": "{\"city\":\"Oslo\"}",
        "gen_ai.tool.call.result": "rain over the fjord" });
    [
        span(trace, 1, 0, "invoke_agent", &json!({ "gen_ai.operation.name": "invoke_agent" })),
        span(trace, 2, 1, "chat m-1", &call(question)),
        span(trace, 3, 1, "execute_tool weather", &tool),
    ]
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn spans_become_one_tree_and_once_only() {
    let bench = Bench::with_notebook();
    let (running, address) = server(&bench, &[]);
    let [root, chat, tool] = agent(7, "is it raining where the capybara lives?");
    // Children come first, in requests of their own, on either route, packed or not.
    assert_eq!(post(&address, "/v1/traces", JSON, &export(std::slice::from_ref(&tool))).0, 200);
    let gzip = format!("{JSON}content-encoding: gzip\r\n");
    let route = "/api/public/otel/v1/traces";
    assert_eq!(post(&address, route, &gzip, &packed(&export(std::slice::from_ref(&chat)))).0, 200);
    let (status, body) = post(&address, "/v1/traces", JSON, &export(std::slice::from_ref(&root)));
    assert_eq!((status, body.as_slice()), (200, &b"{}"[..]));
    let before = logged(&bench, "span.captured").len() + logged(&bench, "trace.ingested").len();
    assert_eq!(before, 4);
    let all = [root, chat.clone(), tool];
    for _ in 0..2 {
        assert_eq!(post(&address, "/v1/traces", JSON, &export(&all)).0, 200);
    }
    let after = logged(&bench, "span.captured").len() + logged(&bench, "trace.ingested").len();
    assert_eq!(after, before, "what was sent again added something");

    // The same span with other content revises.
    let mut other = chat.clone();
    other["name"] = json!("chat m-1 again");
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[other.clone()])).0, 200);
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[other.clone()])).0, 200);
    assert_eq!(logged(&bench, "span.captured").len(), 4);
    // What it was first is news again, and so is what it was then.
    for _ in 0..2 {
        assert_eq!(post(&address, "/v1/traces", JSON, &export(std::slice::from_ref(&chat))).0, 200);
    }
    assert_eq!(logged(&bench, "span.captured").len(), 5);
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[other.clone()])).0, 200);
    assert_eq!(logged(&bench, "span.captured").len(), 6);
    assert_eq!(logged(&bench, "trace.revised").len(), 3);
    // Twice in one request, with other content each time.
    let mut third = other.clone();
    third["name"] = json!("chat m-1 a third time");
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[third, other])).0, 200);
    assert_eq!(logged(&bench, "span.captured").len(), 8);
    assert_eq!(running.stop(), 0);

    let trace = &logged(&bench, "trace.ingested")[0]["facts"];
    assert_eq!(trace["source"], "otlp/shop");
    assert_eq!(trace["external_id"], json!(format!("{:032x}/{:016x}", 7, 2)));
    assert_eq!(trace["mapper"], "spans/2");
    assert!(trace["aliases"].as_array().unwrap().contains(&json!(format!("{:032x}", 7))));
    let hits = bench.run(&["search", "capybara tool:weather"]).ok();
    assert!(hits.out.contains("capybara"), "{}", hits.out);
    let shown = bench.run(&["trace", "show", "000000000000000000000000"]).ok().json();
    let root = &shown["tree"]["roots"][0];
    assert_eq!(
        (&root["facts"]["role"], root["children"].as_array().unwrap().len()),
        (&json!("agent"), 2)
    );
    assert_eq!(root["children"][0]["span"]["name"], "chat m-1 again");
    assert_eq!(root["children"][0]["call"]["episode"]["answer"]["calls"][0]["name"], "weather");
    bench.run(&["verify"]).ok();

    let mut command = bench.command(&["trace", "show", &format!("resp-{}", 39)]);
    let drawn = command.output().unwrap();
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
}

#[test]
fn a_tree_is_drawn_for_people() {
    let bench = Bench::with_notebook();
    let (running, address) = server(&bench, &[]);
    let spans = agent(0xabcdef, "is it raining in Oslo?");
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&spans)).0, 200);
    assert_eq!(running.stop(), 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ledger"));
    let notebook = bench.notebook();
    command.args(["--quiet", "trace", "show", &format!("{:032x}", 0xabcdef), "--dir"]);
    let said = command.arg(notebook).output().unwrap();
    insta::assert_snapshot!(String::from_utf8(said.stdout).unwrap(), @r#"
    trace 00000000000000000000000000abcdef: 3 spans of otlp/shop, 400 ms from 2023-11-14T22:13:20Z
    └─ invoke_agent                              agent       ████████████████████████    400 ms
       ├─ chat m-1                               generation  ······██████············    100 ms
       │     user: is it raining in Oslo?
       │     → weather({"city":"Oslo"})
       │     tools: weather
       │     usage: {"input":9,"output":4}
       └─ execute_tool weather                   tool        ············██████······    100 ms
             → {"city":"Oslo"}
             ← rain over the fjord
    "#);
}

#[test]
fn spans_of_a_subject_are_encrypted_and_can_be_forgotten() {
    let bench = Bench::with_notebook();
    let (running, address) = server(&bench, &[]);
    let [mut root, chat, tool] = agent(8, "where is the okapi of Ann?");
    let user = json!({ "key": "user.id", "value": { "stringValue": "ann@zoo" } });
    root["attributes"].as_array_mut().unwrap().push(user);
    // The root alone names her, and comes last.
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[chat, tool, root])).0, 200);
    // Feedback names the trace; some of it came before.
    let trace = format!("{:032x}", 8);
    let say = |target: &str, comment: &str| {
        let body = json!({ "target": target, "name": "thumb", "value": 1, "comment": comment });
        post(&address, "/v1/feedback", JSON, body.to_string().as_bytes())
    };
    assert_eq!(say(&trace, "the okapi was fine").0, 200);
    assert_eq!(say(&format!("{:032x}", 9), "quagga: before its trace").0, 202);
    let [mut root, chat, tool] = agent(9, "and the quagga?");
    let user = json!({ "key": "langfuse.user.id", "value": { "stringValue": "ann@zoo" } });
    root["attributes"].as_array_mut().unwrap().push(user);
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[root, chat, tool.clone()])).0, 200);
    assert_eq!(running.stop(), 0);
    // Another server knows whose the trace is.
    let (running, address) = server(&bench, &[]);
    let mut late = tool;
    late["spanId"] = json!("00000000000000ff");
    late["attributes"][2]["value"]["stringValue"] = json!("thylacine");
    assert_eq!(post(&address, "/v1/traces", JSON, &export(std::slice::from_ref(&late))).0, 200);
    assert_eq!(running.stop(), 0);
    let words = ["okapi", "quagga", "fjord", "thylacine"];
    assert_eq!(holding(&bench.notebook().join("blobs"), &words), Vec::<std::path::PathBuf>::new());
    assert_eq!(
        holding(&bench.notebook().join("journal"), &words),
        Vec::<std::path::PathBuf>::new()
    );
    let found = |words: &str| bench.run(&["search", words]).ok().out;
    assert!(found("okapi kind:trace").contains("okapi"));
    assert!(found("quagga kind:feedback").contains("quagga"));
    bench.run(&["forget", "ann@zoo", "--yes"]).ok();
    assert!(!found("okapi OR quagga").contains("okapi"), "{}", found("okapi OR quagga"));
    assert!(!found("quagga").contains("before its trace"));
    let keys = holding(&bench.notebook().join("keys"), &["feedback on"]);
    assert_eq!(keys, Vec::<std::path::PathBuf>::new());
    // What was forgotten does not come back by being sent again.
    let (running, address) = server(&bench, &[]);
    let count = || bench.run(&["status"]).ok().json()["events"].as_u64().unwrap();
    let before = count();
    let [root, chat, tool] = agent(9, "and the quagga?");
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&[root, chat, tool, late])).0, 200);
    assert_eq!(count(), before);
    assert_eq!(running.stop(), 0);
    let all = ["blobs", "journal", "store", "index", "keys"];
    let left = all.iter().flat_map(|part| holding(&bench.notebook().join(part), &words));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    bench.run(&["verify"]).ok();
}

#[test]
fn feedback_joins_whichever_comes_first() {
    let bench = Bench::with_notebook();
    let (running, address) = server(&bench, &[]);
    let trace = |n: u64| format!("{n:032x}");
    let post_json =
        |path: &str, body: &Value| post(&address, path, JSON, body.to_string().as_bytes());
    let right =
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call>";
    // By the id of the response, before the trace; then a score as Langfuse's SDK sends it.
    let early = json!({ "target": "resp-12", "name": "correction", "value": right });
    assert_eq!(post_json("/v1/feedback", &early).0, 202);
    assert_eq!(post(&address, "/v1/traces", JSON, &export(&agent(21, "hot in Rome?"))).0, 200);
    let score = json!({ "id": "s1", "traceId": trace(21), "observationId": format!("{:016x}", 2),
        "name": "quality", "value": 0.25, "dataType": "NUMERIC" });
    let batch = json!({ "batch": [
        { "id": "e1", "type": "score-create", "timestamp": "2026-01-01T00:00:00Z", "body": score },
        { "id": "e2", "type": "trace-create", "timestamp": "2026-01-01T00:00:00Z", "body": {} },
    ] });
    let (status, body) = post_json("/api/public/ingestion", &batch);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["successes"][0]["id"]), (207, &json!("e1")));
    assert_eq!(
        (&body["errors"][0]["id"], &body["errors"][0]["status"]),
        (&json!("e2"), &json!(400))
    );
    let whole =
        json!({ "traceId": trace(21), "name": "helpful", "value": 1, "dataType": "BOOLEAN" });
    assert_eq!(post_json("/api/public/scores", &whole).0, 200);
    assert_eq!(post_json("/api/public/scores", &json!({ "name": "x", "value": 1 })).0, 400);
    assert_eq!(running.stop(), 0);
    for condition in ["correction", "quality<0.5", "helpful"] {
        let hits = bench.run(&["search", "Rome", "--kind", "trace", "--feedback", condition]).ok();
        assert!(hits.out.contains("hot in Rome"), "{condition}: {}", hits.out);
    }
    let built = [
        "dataset",
        "build",
        "next",
        "--query",
        "Rome",
        "--feedback",
        "correction",
        "--dev-fraction",
        "0",
    ];
    let built = bench.run(&built);
    assert_eq!(built.code, 0, "{}{}", built.out, built.err);
}

#[test]
fn hostile_exports_are_refused_with_their_status() {
    let bench = Bench::with_notebook();
    let (running, address) = server(&bench, &[]);
    let post = |headers: &str, body: &[u8]| post(&address, "/v1/traces", headers, body);
    let gzip = format!("{JSON}content-encoding: gzip\r\n");
    assert_eq!(post("", b"{}").0, 415);
    assert_eq!(post("content-type: text/plain\r\n", b"{}").0, 415);
    assert_eq!(post(&format!("{JSON}content-encoding: br\r\n"), b"{}").0, 415);
    assert_eq!(post(JSON, b"{").0, 400);
    assert_eq!(post("content-type: application/x-protobuf\r\n", b"\x0a\xff\xff\x7f").0, 400);
    assert_eq!(post(&gzip, b"no gzip").0, 400);
    let bomb = packed(&vec![b' '; 200 << 20]);
    assert_eq!(post(&gzip, &bomb).0, 413);
    let many = format!("{{\"resourceSpans\":[{}{{}}]}}", "{},".repeat(2_000_000));
    let (status, body) = post(JSON, many.as_bytes());
    assert_eq!(status, 413);
    assert!(String::from_utf8_lossy(&body).contains("parts"));
    let empty = [0x12, 0x00].repeat(5_000_000);
    let scope = [vec![0x12, 0x80, 0xad, 0xe2, 0x04], empty].concat();
    let body = [vec![0x0a, 0x85, 0xad, 0xe2, 0x04], scope].concat();
    assert_eq!(post("content-type: application/x-protobuf\r\n", &body).0, 413);
    let nameless = span(0, 0, 0, "x", &json!({}));
    let (status, body) = post(JSON, &export(&[nameless, span(1, 2, 0, "y", &json!({}))]));
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains("\"rejectedSpans\":\"1\""));

    // A gigabyte is refused by what it says of itself; what says nothing, once it is too much.
    let mut stream = TcpStream::connect(&address).unwrap();
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 1073741824\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    assert!(receive(stream).0.contains(" 413 "));
    let mut stream = TcpStream::connect(&address).unwrap();
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{JSON}transfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let sent = (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent < 200, "{sent} MiB were taken");
    drop(stream);

    // Connections that say nothing, half a head, half a body, or leave at once.
    let mut open = Vec::new();
    for half in [
        "",
        "POST /v1/tra",
        "POST /v1/traces HTTP/1.1\r\ncontent-type: application/json\r\n\
                  content-length: 100\r\n\r\n{",
    ] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(half.as_bytes()).unwrap();
            open.push(stream);
        }
    }
    for stream in open.iter().step_by(2) {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    assert_eq!(post(JSON, &export(&agent(31, "still there?"))).0, 200);
    drop(open);
    let peak = running.peak_mib();
    assert!(peak < 1500, "{peak} MiB at the peak");
    eprintln!("hostile exports: {peak} MiB at the peak");
    assert_eq!(running.stop(), 0);
    bench.run(&["verify"]).ok();
}

#[test]
fn off_loopback_a_token_is_asked_for() {
    let bench = Bench::with_notebook();
    let refused = ["serve", "--teacher", "http://127.0.0.1:9/v1", "--host", "0.0.0.0"];
    assert!(bench.run(&refused).fails(2)["hint"].as_str().unwrap().contains("--token"));
    let (running, address) = server(&bench, &["--token", "tok-1"]);
    let body = export(&agent(41, "who is it?"));
    let post = |more: &str| post(&address, "/v1/traces", &format!("{JSON}{more}"), &body).0;
    assert_eq!(post(""), 401);
    assert_eq!(post("authorization: Bearer tok-2\r\n"), 401);
    assert_eq!(post("authorization: Bearer tok-1\r\n"), 200);
    // Langfuse's SDKs send a public key as the name and the secret as the password.
    assert_eq!(post("authorization: Basic cGstbGYtMTp0b2stMQ==\r\n"), 200);
    assert_eq!(post("authorization: Basic cGstbGYtMTp0b2stMg==\r\n"), 401);
    assert_eq!(running.stop(), 0);
    assert_eq!(holding(&bench.notebook(), &["tok-1"]), Vec::<std::path::PathBuf>::new());
}

#[test]
fn killed_under_load_what_was_acknowledged_is_there() {
    let bench = Bench::with_notebook();
    let acknowledged = Arc::<Mutex<BTreeSet<u64>>>::default();
    let mut next = 100_000;
    for _ in 0..3 {
        let (running, address) = server(&bench, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicU64::new(next));
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let (stop, number) = (Arc::clone(&stop), Arc::clone(&number));
                let (address, acknowledged) = (address.clone(), Arc::clone(&acknowledged));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let trace = number.fetch_add(1, Ordering::Relaxed);
                        let body = export(&agent(trace, &format!("question {trace}?")));
                        if matches!(try_post(&address, "/v1/traces", JSON, &body), Ok((200, _))) {
                            acknowledged.lock().unwrap().insert(trace);
                        }
                    }
                })
            })
            .collect();
        let began = Instant::now();
        let wanted = acknowledged.lock().unwrap().len() + 40;
        while acknowledged.lock().unwrap().len() < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is acknowledged");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Dropping it sends SIGKILL.
        drop(running);
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        next = number.load(Ordering::Relaxed);
    }
    let (running, address) = server(&bench, &[]);
    let count = || logged(&bench, "span.captured").len();
    let recorded: BTreeSet<String> = logged(&bench, "trace.ingested")
        .iter()
        .map(|event| event["facts"]["external_id"].as_str().unwrap()[..32].to_owned())
        .collect();
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<_> =
        acknowledged.iter().filter(|trace| !recorded.contains(&format!("{trace:032x}"))).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    let before = count();
    for trace in acknowledged.iter() {
        let body = export(&agent(*trace, &format!("question {trace}?")));
        assert_eq!(post(&address, "/v1/traces", JSON, &body).0, 200);
    }
    assert_eq!(count(), before, "exporters' repetitions added something");
    assert_eq!(running.stop(), 0);
    bench.run(&["verify"]).ok();
}
