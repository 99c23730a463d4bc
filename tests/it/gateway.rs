//! The gateway, between real callers and a teacher that speaks the protocol.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ledger::Digest;
use serde_json::{Value, json};

use crate::support::{Bench, Running, holding};

/// A request as the teacher saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

/// What the teacher does with a connection whose request was read.
type Answer = dyn Fn(&Seen, &mut TcpStream) + Send + Sync;

/// A teacher on loopback.
pub(crate) struct Teacher {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Teacher {
    pub(crate) fn start(answer: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (answer, told): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, told) = (Arc::clone(&answer), Arc::clone(&told));
                std::thread::spawn(move || {
                    let Some(request) = request(&stream) else { return };
                    told.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut headers) = (String::new(), String::new());
    reader.read_line(&mut first).ok()?;
    while !headers.ends_with("\r\n\r\n") && reader.read_line(&mut headers).ok()? > 2 {}
    let length = headers.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { path: first.split(' ').nth(1)?.to_owned(), headers, body })
}

pub(crate) fn reply(stream: &mut TcpStream, status: &str, kind: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nx-teacher: yes\r\n\
         retry-after: 7\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

pub(crate) fn begin_stream(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
}

/// A gateway in front of a teacher.
pub(crate) fn gateway(bench: &Bench, teacher: &str, more: &[&str]) -> (Running, String) {
    let serve = ["serve", "--teacher", teacher, "--port", "0"];
    let (running, first) = bench.start(&[&serve[..], more].concat());
    assert_eq!(first["teacher"], json!(teacher));
    (running, first["address"].as_str().unwrap().trim_start_matches("http://").to_owned())
}

/// Sends a call and returns the open connection.
pub(crate) fn send(address: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{headers}connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

/// Reads a whole reply: its head and its body.
pub(crate) fn receive(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    (head, all[end + 4..].to_vec())
}

pub(crate) fn ask(question: &str, more: Value) -> Vec<u8> {
    let mut body = json!({
        "model": "teacher-1",
        "messages": [{ "role": "user", "content": question }],
        "tools": [{ "type": "function", "function": {
            "name": "get_weather", "description": "Weather of a city",
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
        } }],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // Spaces that no writer of ours would make: bytes are handed on as they are.
    format!(" {body:#}\n").into_bytes()
}

pub(crate) fn answered(id: &str, city: &str) -> Vec<u8> {
    let arguments = json!({ "city": city }).to_string();
    let call = json!({ "id": "c1", "type": "function",
        "function": { "name": "get_weather", "arguments": arguments } });
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13 });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "tool_calls" });
    let body = json!({ "id": id, "object": "chat.completion", "created": 1, "model": "teacher-1",
        "choices": [choice], "usage": usage });
    format!("{body:#}").into_bytes()
}

pub(crate) fn logged(bench: &Bench, kind: &str) -> Vec<Value> {
    bench.run(&["log", "--kind", kind]).ok().lines()
}

fn digest(bytes: &[u8]) -> Value {
    json!(Digest::of(bytes).to_string())
}

#[test]
fn a_call_goes_on_as_it_came_and_is_recorded_byte_for_byte() {
    let wanted = answered("chatcmpl-77", "Oslo");
    let whole = wanted.clone();
    let teacher = Teacher::start(move |seen, stream| match seen.path.as_str() {
        "/v1/models" => reply(stream, "200 OK", "application/json", br#"{"data":[{"id":"t"}]}"#),
        _ => reply(stream, "200 OK", "application/json", &whole),
    });
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let asked = ask("weather in Oslo, where the wombat lives?", json!({ "seed": 7 }));
    let (head, body) =
        receive(send(&address, "authorization: Bearer sk-of-the-caller-1\r\n", &asked));
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-teacher: yes"), "{head}");
    assert_eq!(body, wanted);
    // Twice the same id: both count.
    receive(send(&address, "", &asked));
    // Nobody can say whose this is: it goes on, and nothing of it is kept.
    assert_eq!(receive(send(&address, "", b"{\"user\": broken")).1, wanted);
    let seen = teacher.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (3, "/v1/chat/completions"));
    assert_eq!(seen[0].body, asked);
    assert!(seen[0].headers.contains("authorization: Bearer sk-of-the-caller-1"));
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    assert!(String::from_utf8(receive(stream).1).unwrap().contains(r#""id":"t""#));
    assert_eq!(running.stop(), 0);

    let calls = logged(&bench, "call.captured");
    assert_eq!(calls.len(), 3);
    assert!(calls[2]["facts"]["request"].is_null() && calls[2]["facts"]["response"].is_null());
    let facts = &calls[0]["facts"];
    assert_eq!(facts["external_id"], "chatcmpl-77");
    assert_eq!((&facts["status"], &facts["ended"]), (&json!(200), &json!("complete")));
    assert_eq!(facts["request"]["digest"], digest(&asked));
    assert_eq!(facts["response"]["digest"], digest(&wanted));
    let traces = logged(&bench, "trace.ingested");
    assert_eq!(traces.len(), 2);
    assert_eq!(traces[0]["facts"]["tools"], json!(["get_weather"]));
    assert_eq!(traces[0]["measured"]["usage"]["total_tokens"], 13);
    assert!(traces[0]["measured"]["first_byte_ms"].as_f64().unwrap() > 0.0);
    let episode = bench.run(&["show", &traces[0]["seq"].to_string(), "--body"]).ok().json();
    assert_eq!(episode["tools"][0]["parameters"]["properties"]["city"]["type"], "string");
    assert_eq!(episode["answer"]["calls"][0]["arguments"], json!({ "city": "Oslo" }));
    let hits = bench.run(&["search", "wombat tool:get_weather"]).ok();
    assert!(hits.out.contains("chatcmpl-77"), "{}", hits.out);
    assert_eq!(holding(&bench.notebook(), &["sk-of-the-caller"]), Vec::<std::path::PathBuf>::new());
    bench.run(&["verify"]).ok();
}

/// Events of an answer with two calls, whose arguments come in turns.
pub(crate) fn pieces() -> Vec<String> {
    let chunk = |delta: Value, why: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": why });
        let chunk = json!({ "id": "chatcmpl-s1", "object": "chat.completion.chunk", "created": 1,
            "model": "teacher-1", "choices": [choice], "usage": null });
        format!("data: {chunk}\r\n\r\n")
    };
    let call = |at: u64, id: Value, name: Value, arguments: &str| {
        let function = json!({ "name": name, "arguments": arguments });
        let mut call = json!({ "index": at, "function": function });
        if !id.is_null() {
            call["id"] = id;
            call["type"] = json!("function");
        }
        chunk(json!({ "tool_calls": [call] }), Value::Null)
    };
    let usage = json!({ "id": "chatcmpl-s1", "object": "chat.completion.chunk", "created": 1,
        "model": "teacher-1", "choices": [],
        "usage": { "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11 } });
    vec![
        chunk(json!({ "role": "assistant", "content": "Let me see." }), Value::Null),
        call(0, json!("c0"), json!("get_weather"), ""),
        ": ping\r\n\r\n".to_owned(),
        call(1, json!("c1"), json!("get_weather"), "{\"city\""),
        call(0, Value::Null, Value::Null, "{\"city\": \"Oslo\"}"),
        call(1, Value::Null, Value::Null, ": \"Bergen\"}"),
        chunk(json!({}), json!("tool_calls")),
        format!("data: {usage}\r\n\r\n"),
        "data: [DONE]\r\n\r\n".to_owned(),
    ]
}

/// A teacher that streams one more piece each time it is told to.
fn stepping() -> (Teacher, Sender<()>) {
    let (step, steps): (Sender<()>, Receiver<()>) = channel();
    let steps = Mutex::new(steps);
    let teacher = Teacher::start(move |_, stream| {
        begin_stream(stream);
        for piece in pieces() {
            let stepped = steps.lock().unwrap().recv_timeout(Duration::from_secs(20));
            if stepped.is_err() || stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
    });
    (teacher, step)
}

/// Reads a reply until its first piece is there.
fn first_piece(stream: &mut TcpStream) -> String {
    let (mut got, mut buffer) = (String::new(), [0; 4096]);
    while !got.contains("Let me see.") {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{got}");
        got.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    got
}

#[test]
fn a_stream_is_handed_on_piece_by_piece_and_put_together() {
    let (teacher, step) = stepping();
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let mut stream = send(&address, "", &ask("both cities?", json!({ "stream": true })));
    step.send(()).unwrap();
    // The first piece is here though the teacher has not said the second.
    let mut got = first_piece(&mut stream);
    std::thread::sleep(Duration::from_millis(60));
    (1..pieces().len()).for_each(|_| step.send(()).unwrap());
    stream.read_to_string(&mut got).unwrap();
    for piece in pieces() {
        assert!(got.contains(piece.trim_end()), "{piece} in {got}");
    }
    assert_eq!(running.stop(), 0);
    let call = &logged(&bench, "call.captured")[0];
    assert_eq!(call["facts"]["response"]["digest"], digest(pieces().concat().as_bytes()));
    assert_eq!(
        (&call["facts"]["ended"], &call["facts"]["streamed"]),
        (&"complete".into(), &true.into())
    );
    let trace = &logged(&bench, "trace.ingested")[0];
    assert_eq!(trace["facts"]["external_id"], "chatcmpl-s1");
    let measured = |key: &str| trace["measured"][key].as_f64().unwrap();
    assert!(measured("latency_ms") >= measured("first_byte_ms") + 50.0, "{trace}");
    assert_eq!(trace["measured"]["usage"]["total_tokens"], 11);
    let episode = bench.run(&["show", &trace["seq"].to_string(), "--body"]).ok().json();
    assert_eq!(episode["answer"]["text"], "Let me see.");
    let calls = episode["answer"]["calls"].as_array().unwrap();
    let cities: Vec<&Value> = calls.iter().map(|call| &call["arguments"]["city"]).collect();
    assert_eq!(cities, ["Oslo", "Bergen"]);
}

/// Waits until the server says that so many calls came through.
fn until_calls(address: &str, calls: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let health: Value = serde_json::from_slice(&receive(stream).1).unwrap();
        if health["calls"] == json!(calls) {
            return;
        }
        assert!(Instant::now() < until, "{health}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn calls_that_end_otherwise_are_recorded_as_what_they_were() {
    let (teacher, step) = stepping();
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    // The caller leaves in the middle.
    let mut stream = send(&address, "", &ask("who leaves?", json!({ "stream": true })));
    step.send(()).unwrap();
    first_piece(&mut stream);
    drop(stream);
    // The teacher notices by its next pieces.
    let _ = step.send(()).and_then(|()| step.send(()));
    until_calls(&address, 1);
    assert_eq!(running.stop(), 0);

    let teacher = Teacher::start(|seen, stream| {
        if String::from_utf8_lossy(&seen.body).contains("too many") {
            let why = br#"{"error": {"message": "slow down", "type": "rate_limit"}}"#;
            reply(stream, "429 Too Many Requests", "application/json", why);
        } else {
            // Breaks off in the middle of an event.
            begin_stream(stream);
            stream.write_all(pieces()[0].as_bytes()).unwrap();
            stream.write_all(b"data: {\"id\": \"chatcm").unwrap();
        }
    });
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let (head, body) = receive(send(&address, "", &ask("too many?", json!({}))));
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 7"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("slow down"));
    receive(send(&address, "", &ask("who breaks off?", json!({ "stream": true }))));
    receive(send(&address, "", b"this is no JSON"));
    assert_eq!(running.stop(), 0);

    let (running, address) = gateway(&bench, "http://127.0.0.1:9/v1", &[]);
    let (head, body) = receive(send(&address, "", &ask("who is there?", json!({}))));
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["error"]["type"], "server_error");
    assert_eq!(running.stop(), 0);

    let calls = logged(&bench, "call.captured");
    let ended: Vec<_> =
        calls.iter().map(|call| (&call["facts"]["ended"], &call["facts"]["status"])).collect();
    let (ok, none) = (json!(200), Value::Null);
    let words = ["aborted", "complete", "cut", "cut", "failed"].map(Value::from);
    let statuses = [&ok, &json!(429), &ok, &ok, &none].map(Clone::clone);
    assert_eq!(ended, words.iter().zip(&statuses).collect::<Vec<_>>());
    assert!(calls[4]["facts"]["error"].as_str().unwrap().to_lowercase().contains("refused"));
    let traces = logged(&bench, "trace.ingested");
    let flags: Vec<_> = traces.iter().map(|trace| trace["facts"]["flags"].clone()).collect();
    let broken = json!(["answer.broken_off", "answer.recorded"]);
    let failed = json!(["outcome.failure"]);
    let unreachable = json!(["answer.broken_off", "outcome.failure"]);
    assert_eq!(flags, [&broken, &failed, &broken, &unreachable].map(Clone::clone));
    let episode = bench.run(&["show", &traces[2]["seq"].to_string(), "--body"]).ok().json();
    assert_eq!(episode["answer"]["text"], "Let me see.");
    assert_eq!(logged(&bench, "trace.rejected").len(), 1);
}

#[test]
fn keys_stay_out_and_secrets_are_taken_out() {
    let said = "your token is ghp_0123456789abcdefABCDEF0123456789abcd";
    let body = json!({ "id": "chatcmpl-5", "model": "teacher-1", "choices": [
        { "index": 0, "message": { "role": "assistant", "content": said } }] });
    let teacher = Teacher::start(move |_, stream| {
        reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
    });
    let bench = Bench::with_notebook();
    let (running, address) = gateway(
        &bench,
        &teacher.address,
        &["--token", "our-own-token", "--teacher-key", "t-key-9"],
    );
    let (head, _) = receive(send(&address, "", &ask("may I?", json!({}))));
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let asked = ask("mine is sk-aB3dE5fG7hJ9kL1mN2pQ4rS6", json!({ "user": "ann@example.org" }));
    let (_, body) = receive(send(&address, "authorization: Bearer our-own-token\r\n", &asked));
    // The caller gets what the teacher said.
    assert!(String::from_utf8(body).unwrap().contains(said));
    let seen = teacher.seen();
    assert_eq!((seen.len(), &seen[0].body), (1, &asked));
    assert!(seen[0].headers.contains("authorization: Bearer t-key-9"), "{}", seen[0].headers);
    assert!(!seen[0].headers.contains("our-own-token"));
    assert_eq!(running.stop(), 0);
    let call = &logged(&bench, "call.captured")[0]["facts"];
    assert_eq!(call["redacted"], true);
    assert!(call["request"]["subject"].is_string() && call["response"]["subject"].is_string());
    let secrets =
        ["t-key-9", "our-own-token", "sk-aB3dE5fG7h", "ghp_0123456789", "ann@example.org", "may I"];
    assert_eq!(holding(&bench.notebook(), &secrets), Vec::<std::path::PathBuf>::new());
    bench.run(&["forget", "ann@example.org", "--yes"]).ok();
    bench.run(&["verify"]).ok();
}

/// Secrets behind escapes, in JSON inside strings, and cut into pieces; subjects in odd bodies.
#[test]
fn what_escapes_and_pieces_hide_is_not_kept() {
    let key = "ghp_0123456789abcdefABCDEF0123456789abcd";
    let teacher = Teacher::start(move |_, stream| {
        begin_stream(stream);
        for piece in [&key[..9], &key[9..], " is yours"] {
            let choice = json!({ "index": 0, "delta": { "content": piece } });
            let chunk = json!({ "id": "", "model": "t", "choices": [choice] });
            stream.write_all(format!("data:{chunk}\n\n").as_bytes()).unwrap();
        }
        stream.write_all(b"data:[DONE]\n\n").unwrap();
    });
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let pasted = "my env:\nsk-aB3dE5fG7hJ9kL1mN2pQ4rS6\n";
    let inside = json!({ "note": "a\nsk-zY3dE5fG7hJ9kL1mN2pQ4rS6" }).to_string();
    receive(send(&address, "", &ask(pasted, json!({ "metadata": { "inside": inside } }))));
    // The same member twice: readers take the last.
    let twice = ask("the quince?", json!({ "stream": "yes" }));
    let twice = String::from_utf8(twice).unwrap();
    let twice = twice.replacen('{', r#"{"user": "bob", "user": "ann@example.org","#, 1);
    receive(send(&address, "", twice.as_bytes()));
    receive(send(&address, "", br#"{"user": "ann@example.org", "messages": [broken"#));
    assert_eq!(running.stop(), 0);
    let calls = logged(&bench, "call.captured");
    assert_eq!(calls.len(), 3);
    let facts = |at: usize| &calls[at]["facts"];
    assert_eq!((&facts(0)["ended"], &facts(0)["redacted"]), (&json!("complete"), &json!(true)));
    assert!(facts(0)["request"].is_object() && facts(0)["response"].is_null(), "{}", facts(0));
    assert!(facts(1)["request"]["subject"].is_string(), "{}", facts(1));
    assert!(facts(2)["request"].is_null() && facts(2)["response"].is_null(), "{}", facts(2));
    let traces = logged(&bench, "trace.ingested");
    assert_eq!((traces.len(), logged(&bench, "trace.rejected").len()), (2, 1));
    let episode = bench.run(&["show", &traces[0]["seq"].to_string(), "--body"]).ok().json();
    assert_eq!(episode["answer"]["text"], "[SECRET_2] is yours");
    let hidden = ["aB3dE5fG7hJ9", "zY3dE5fG7hJ9", "ghp_", "456789abcdefABCDEF", "ann@", "quince"];
    assert_eq!(holding(&bench.notebook(), &hidden), Vec::<std::path::PathBuf>::new());
}

/// A page of another site may neither spend the teacher's key nor read an answer.
#[test]
fn pages_of_other_sites_are_refused() {
    let teacher = Teacher::start(|_, stream| {
        reply(stream, "200 OK", "application/json", &answered("chatcmpl-8", "Oslo"));
    });
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &["--teacher-key", "t-key-9"]);
    let asked = ask("may a page?", json!({}));
    let page = "origin: https://evil.example\r\n";
    assert!(receive(send(&address, page, &asked)).0.starts_with("HTTP/1.1 403"));
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        asked.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&asked).unwrap();
    assert!(receive(stream).0.starts_with("HTTP/1.1 415"));
    assert_eq!(teacher.seen().len(), 0);
    let here = "origin: http://localhost:3000\r\n";
    assert!(receive(send(&address, here, &asked)).0.starts_with("HTTP/1.1 200"));
    assert_eq!(running.stop(), 0);
}

/// A server that is asked to stop does not wait for ever for a teacher that says nothing.
#[test]
fn a_silent_teacher_does_not_keep_the_server() {
    let teacher = Teacher::start(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let bench = Bench::with_notebook();
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let stream = send(&address, "", &ask("who is silent?", json!({})));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.stop(), 0);
    assert!(receive(stream).0.starts_with("HTTP/1.1 503"));
    assert_eq!(logged(&bench, "call.captured")[0]["facts"]["ended"], "aborted");
}

#[test]
fn an_address_that_is_no_teachers_is_refused() {
    let bench = Bench::with_notebook();
    for wrong in ["ftp://host/v1", "not an address", "https://me:secret@host/v1", "http://h/v1?k=1"]
    {
        let error = bench.run(&["serve", "--teacher", wrong, "--port", "0"]).fails(2);
        assert!(error["message"].as_str().unwrap().contains("teacher's address"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

/// What a user of OpenAI's client does, with nothing changed but the address.
const CLIENT: &str = r#"
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="sk-of-the-caller")
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}]
messages = [{"role": "user", "content": "the weather, says the heron?"}]
whole = client.chat.completions.create(model="teacher-1", messages=messages, tools=tools)
print(whole.choices[0].message.tool_calls[0].function.arguments)
calls = {}
stream = client.chat.completions.create(model="teacher-1", messages=messages, tools=tools,
    stream=True, stream_options={"include_usage": True})
for chunk in stream:
    for choice in chunk.choices:
        for call in choice.delta.tool_calls or []:
            calls[call.index] = calls.get(call.index, "") + (call.function.arguments or "")
print(json.dumps([calls[at] for at in sorted(calls)]))
"#;

/// A Python with OpenAI's client, where it can be had.
fn python(bench: &Bench) -> Option<std::path::PathBuf> {
    let venv = bench.path("venv");
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return None;
    }
    let pip = Command::new(venv.join("bin/pip")).args(["install", "-q", "openai"]).output();
    pip.is_ok_and(|pip| pip.status.success()).then(|| venv.join("bin/python"))
}

#[test]
fn openais_client_sees_no_difference() {
    let bench = Bench::with_notebook();
    let Some(python) = python(&bench) else {
        eprintln!("SKIPPED: OpenAI's Python client cannot be installed here");
        return;
    };
    let teacher = Teacher::start(|seen, stream| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        if asked["stream"] == true {
            begin_stream(stream);
            stream.write_all(pieces().concat().as_bytes()).unwrap();
        } else {
            reply(stream, "200 OK", "application/json", &answered("chatcmpl-w", "Oslo"));
        }
    });
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let output = Command::new(python)
        .args(["-c", CLIENT, &format!("http://{address}/v1")])
        .env_remove("OPENAI_BASE_URL")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], r#"{"city":"Oslo"}"#);
    let calls: Vec<String> = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(calls, ["{\"city\": \"Oslo\"}", "{\"city\": \"Bergen\"}"]);
    assert_eq!(running.stop(), 0);
    assert_eq!(logged(&bench, "trace.ingested").len(), 2);
    let hits = bench.run(&["search", "heron"]).ok();
    assert!(hits.out.contains("chatcmpl-w") && hits.out.contains("chatcmpl-s1"), "{}", hits.out);
}
