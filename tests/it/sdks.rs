//! Real SDKs against the server, with nothing changed but an address.
//!
//! Each is installed once into the target's folder, by the name of its version, and a test is
//! passed over, aloud, where that cannot be done. What the scripts in `clients/` print is held
//! against what the record says.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::{
    Seen, Teacher, answered, begin_stream, gateway, logged, pieces, receive, reply,
};
use crate::support::{Bench, holding};

/// What installs packages into a folder of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Installer {
    Npm,
    Pip,
}

/// Without a network it gives up in seconds: left alone, it tries for minutes.
const NPM: &[&str] = &[
    "install",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
    "--prefix",
];

impl Installer {
    fn command(self, dir: &Path) -> Command {
        let (program, arguments) = match self {
            Self::Npm => ("npm", NPM),
            Self::Pip => ("python3", &["-m", "pip", "install", "--quiet", "--target"][..]),
        };
        let mut command = Command::new(program);
        command.args(arguments).arg(dir);
        command
    }
}

/// Installs packages once, in the versions named, and returns their folder. Says so aloud where
/// that cannot be done here: without the program, or without a network.
fn installed(name: &str, installer: Installer, packages: &[&str]) -> Option<PathBuf> {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let dir = clients.join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    // Under its name stands only what was installed to its end, whoever else installs it now.
    let own = clients.join(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&own).unwrap();
    let why = match installer.command(&own).args(packages).output() {
        Ok(output) if output.status.success() => {
            if fs::rename(&own, &dir).is_err() {
                assert!(dir.is_dir(), "{} cannot be put in its place", own.display());
                fs::remove_dir_all(&own).unwrap();
            }
            return Some(dir);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let _ = fs::remove_dir_all(&own);
    let is_error = |line: &&str| line.starts_with("ERROR") || line.starts_with("npm error");
    let why = why.lines().find(is_error).unwrap_or(&why);
    eprintln!("SKIPPED: {name} cannot be installed here: {why}");
    None
}

/// Runs a script of `clients/` to its end and returns the line that it prints.
fn ran(bench: &Bench, script: &str, packages: &Path, address: &str) -> Value {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients");
    let mut command = if script.ends_with(".mjs") {
        // Node looks for packages beside the script.
        let (copy, beside) = (bench.path(script), bench.path("node_modules"));
        fs::copy(clients.join(script), &copy).unwrap();
        std::os::unix::fs::symlink(packages.join("node_modules"), beside).unwrap();
        let mut command = Command::new("node");
        command.arg(copy);
        command
    } else {
        let mut command = Command::new("python3");
        command.arg(clients.join(script));
        command
    };
    // Nothing of the machine's environment may steer a client.
    let steering = ["LANGFUSE_", "OTEL_", "OPENAI_", "MASTRA_", "NODE_", "PYTHON"];
    for (key, _) in std::env::vars() {
        let is_proxy = key.to_ascii_lowercase().ends_with("_proxy");
        if is_proxy || steering.iter().any(|prefix| key.starts_with(prefix)) {
            command.env_remove(key);
        }
    }
    command.env("LEDGER_ADDRESS", address).current_dir(bench.root.path());
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    // Mastra tells its makers what is used, and asks for lists of models, unless told otherwise.
    command.env("MASTRA_TELEMETRY_DISABLED", "1").env("MASTRA_OFFLINE", "1");
    let output = command.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {out}{err}");
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{script}: {error}: {out}{err}"))
}

/// A teacher that asks for the tool first and says what the weather is once it was told.
fn desk() -> Teacher {
    Teacher::start(|seen, stream| {
        if seen.path == "/v1/models" {
            let card = json!({ "id": "teacher-1", "object": "model", "created": 1 });
            let list = json!({ "object": "list", "data": [card] });
            return reply(stream, "200 OK", "application/json", list.to_string().as_bytes());
        }
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let told = asked["messages"].as_array().unwrap().iter().any(|turn| turn["role"] == "tool");
        let streamed = asked["stream"] == true;
        match (streamed, told) {
            (false, false) => {
                let body = answered("chatcmpl-w", "Oslo");
                reply(stream, "200 OK", "application/json", &body);
            }
            (true, false) => {
                begin_stream(stream);
                stream.write_all(pieces().concat().as_bytes()).unwrap();
            }
            (false, true) => {
                let choice = json!({ "index": 0, "finish_reason": "stop",
                    "message": { "role": "assistant", "content": RAIN } });
                let body = json!({ "id": "chatcmpl-t", "object": "chat.completion", "created": 1,
                    "model": "teacher-1", "choices": [choice], "usage": usage(30, 5) });
                reply(stream, "200 OK", "application/json", body.to_string().as_bytes());
            }
            (true, true) => {
                begin_stream(stream);
                stream.write_all(rain_streamed().as_bytes()).unwrap();
            }
        }
    })
}

const RAIN: &str = "It rains on the heron.";

fn usage(asked: u64, said: u64) -> Value {
    json!({ "prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said })
}

/// Events of a streamed answer in words.
fn rain_streamed() -> String {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({ "id": "chatcmpl-u", "object": "chat.completion.chunk", "created": 1,
            "model": "teacher-1", "choices": choices, "usage": usage });
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, why: Value| {
        chunk(json!([{ "index": 0, "delta": delta, "finish_reason": why }]), Value::Null)
    };
    let (first, second) = RAIN.split_at(9);
    [
        delta(json!({ "role": "assistant", "content": first }), Value::Null),
        delta(json!({ "content": second }), Value::Null),
        delta(json!({}), json!("stop")),
        chunk(json!([]), usage(31, 5)),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

/// Returns the event among these whose facts say this.
fn one<'a>(events: &'a [Value], key: &str, value: &str) -> &'a Value {
    let mut fitting = events.iter().filter(|event| event["facts"][key] == value);
    let (first, second) = (fitting.next(), fitting.next());
    assert!(second.is_none(), "{key} {value} twice");
    first.unwrap_or_else(|| panic!("no {key} {value} in {events:?}"))
}

/// Returns the episode that a trace is.
fn episode(bench: &Bench, trace: &Value) -> Value {
    bench.run(&["show", &trace["seq"].to_string(), "--body"]).ok().json()
}

/// Returns the words of an episode's turns, and who said them.
fn turns(episode: &Value) -> Vec<(String, String)> {
    let text = |turn: &Value, key: &str| turn[key].as_str().unwrap_or_default().to_owned();
    let turns = episode["turns"].as_array().unwrap();
    turns.iter().map(|turn| (text(turn, "role"), text(turn, "content"))).collect()
}

/// Returns the cities that an episode's answer asks the tool for.
fn cities(episode: &Value) -> Vec<&str> {
    let calls = episode["answer"]["calls"].as_array().unwrap();
    assert!(calls.iter().all(|call| call["name"] == "get_weather"), "{calls:?}");
    calls.iter().map(|call| call["arguments"]["city"].as_str().unwrap()).collect()
}

/// Asserts that a search for these words finds all of these.
fn found(bench: &Bench, words: &str, ids: &[&str]) {
    let said = bench.run(&["search", words]).ok();
    for id in ids {
        assert!(said.out.contains(id), "{words}: no {id} in {}", said.out);
    }
}

/// Asserts that a span is recorded with who it is and what read it, and returns its facts.
fn span<'a>(spans: &'a [Value], trace_id: &str, span_id: &str, parent: Option<&str>) -> &'a Value {
    let facts = &one(spans, "span_id", span_id)["facts"];
    assert_eq!(facts["trace_id"], trace_id);
    assert_eq!(facts["parent_id"], json!(parent));
    for key in ["source", "role", "form"] {
        assert!(facts[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {facts}");
    }
    assert!(facts["mapper"].as_str().is_some_and(|name| name.starts_with("spans/")), "{facts}");
    facts
}

#[test]
fn openais_client_for_node_sees_no_difference() {
    let name = "openai-7.59.0";
    let Some(packages) = installed(name, Installer::Npm, &["openai@7.59.0"]) else { return };
    let (bench, teacher) = (Bench::with_notebook(), desk());
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let got = ran(&bench, "openai_node.mjs", &packages, &format!("http://{address}"));
    assert_eq!(running.stop(), 0);
    assert_eq!(got["models"], json!(["teacher-1"]));
    let (plain, streamed) = (&got["plain"], &got["streamed"]);
    assert_eq!((&plain["id"], &plain["usage"]), (&json!("chatcmpl-w"), &usage(9, 4)));
    assert_eq!(plain["calls"][0]["arguments"], r#"{"city":"Oslo"}"#);
    assert_eq!((&streamed["id"], &streamed["usage"]), (&json!("chatcmpl-s1"), &usage(5, 6)));
    assert_eq!(streamed["text"], "Let me see.");
    let wanted = json!([
        { "id": "c0", "name": "get_weather", "arguments": r#"{"city": "Oslo"}"# },
        { "id": "c1", "name": "get_weather", "arguments": r#"{"city": "Bergen"}"# },
    ]);
    assert_eq!(streamed["calls"], wanted);

    let calls = logged(&bench, "call.captured");
    assert_eq!(calls.len(), 2);
    for (id, is_streamed) in [("chatcmpl-w", false), ("chatcmpl-s1", true)] {
        let facts = &one(&calls, "external_id", id)["facts"];
        let expected = (json!(200), json!("complete"), json!(is_streamed));
        let said = (&facts["status"], &facts["ended"], &facts["streamed"]);
        assert_eq!(said, (&expected.0, &expected.1, &expected.2));
        assert!(facts["request"].is_object() && facts["response"].is_object(), "{facts}");
    }
    let traces = logged(&bench, "trace.ingested");
    assert_eq!(traces.len(), 2);
    for (id, tokens, asked_for) in
        [("chatcmpl-w", 13, &["Oslo"][..]), ("chatcmpl-s1", 11, &["Oslo", "Bergen"])]
    {
        let trace = one(&traces, "external_id", id);
        assert_eq!(trace["facts"]["tools"], json!(["get_weather"]));
        assert_eq!(trace["measured"]["usage"]["total_tokens"], tokens);
        let episode = episode(&bench, trace);
        let parameters = &episode["tools"][0]["parameters"];
        assert_eq!(parameters["required"], json!(["city"]));
        assert_eq!(parameters["properties"]["city"]["description"], "Name of the city");
        let said = [("system", "Answer by the tool."), ("user", "the weather, says the bittern?")];
        assert_eq!(turns(&episode), said.map(|(role, text)| (role.to_owned(), text.to_owned())));
        assert_eq!(cities(&episode), asked_for);
    }
    found(&bench, "bittern tool:get_weather", &["chatcmpl-w", "chatcmpl-s1"]);
    assert_eq!(holding(&bench.notebook(), &["sk-of-the-caller"]), Vec::<PathBuf>::new());
    bench.run(&["verify"]).ok();
}

/// Hands each request on to the server twice, and back what it said to the second.
fn twice(to: String) -> Teacher {
    Teacher::start(move |seen, stream| {
        let answer = [(); 2].map(|()| handed_on(&to, seen));
        let [first, second] = &answer;
        assert_eq!(first.0, second.0, "the same export is taken in the same way");
        let head = &second.0;
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&second.1).unwrap();
    })
}

fn handed_on(to: &str, seen: &Seen) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut head = format!("POST {} HTTP/1.1\r\nconnection: close\r\n", seen.path);
    let kept = seen.headers.lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !name.is_empty() && !name.eq_ignore_ascii_case("connection")
    });
    kept.for_each(|line| head.push_str(&format!("{line}\r\n")));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(&seen.body).unwrap();
    let (head, body) = receive(stream);
    // Times may differ between two answers.
    let head = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
    (head.collect::<Vec<_>>().join("\r\n"), body)
}

#[test]
fn langfuses_sdk_is_understood_and_may_send_again() {
    let name = "langfuse-5.0.4";
    let Some(packages) = installed(name, Installer::Pip, &["langfuse==5.0.4"]) else { return };
    let (bench, teacher) = (Bench::with_notebook(), desk());
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let relay = twice(address);
    let to = relay.address.trim_end_matches("/v1");
    let got = ran(&bench, "langfuse_python.py", &packages, to);
    assert_eq!(running.stop(), 0);
    let seen = relay.seen();
    assert!(!seen.is_empty());
    for request in &seen {
        let headers = request.headers.to_ascii_lowercase();
        assert_eq!(request.path, "/api/public/otel/v1/traces");
        assert!(headers.contains("authorization: basic "), "{headers}");
        assert!(headers.contains("content-type: application/x-protobuf"), "{headers}");
        assert!(headers.contains("content-encoding: gzip"), "{headers}");
    }

    let id = |name: &str| got["spans"][name].as_str().unwrap();
    let trace_id = got["trace_id"].as_str().unwrap();
    let spans = logged(&bench, "span.captured");
    assert_eq!(spans.len(), 4);
    for (name, role) in
        [("root", "span"), ("first", "generation"), ("tool", "tool"), ("second", "generation")]
    {
        let parent = (name != "root").then(|| id("root"));
        let facts = span(&spans, trace_id, id(name), parent);
        assert_eq!((&facts["role"], &facts["form"]), (&json!(role), &json!("langfuse")));
        // The user is named in the trace, so that all of it is theirs.
        assert!(facts["body"]["subject"].is_string(), "{facts}");
    }
    let traces = logged(&bench, "trace.ingested");
    assert_eq!(traces.len(), 2);
    let call = |name: &str| one(&traces, "external_id", &format!("{trace_id}/{}", id(name)));
    for (name, asked, said) in [("first", 9, 4), ("second", 21, 6)] {
        let trace = call(name);
        assert!(trace["facts"]["body"]["subject"].is_string(), "{trace}");
        assert_eq!(trace["measured"]["usage"], json!({ "input": asked, "output": said }));
        assert!(trace["facts"]["aliases"].as_array().unwrap().contains(&json!(trace_id)));
    }
    let (first, second) = (episode(&bench, call("first")), episode(&bench, call("second")));
    assert_eq!(first["tools"][0]["parameters"]["required"], json!(["city"]));
    assert_eq!(cities(&first), ["Oslo"]);
    let said = turns(&second);
    let roles: Vec<&str> = said.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
    assert!(said[3].1.contains("drizzle"), "{said:?}");
    assert_eq!(second["turns"][2]["tool_calls"][0]["arguments"], json!({ "city": "Oslo" }));
    assert_eq!(second["answer"]["text"], "Seven degrees and drizzle.");
    found(&bench, "plover", &[id("first"), id("second")]);
    let hidden = ["ann@example.org", "sk-lf-test"];
    assert_eq!(holding(&bench.notebook(), &hidden), Vec::<PathBuf>::new());
    bench.run(&["forget", "ann@example.org", "--yes"]).ok();
    bench.run(&["verify"]).ok();
}

#[test]
fn opentelemetrys_sdk_is_understood_and_may_send_again() {
    let name = "opentelemetry-1.45.2";
    let wanted = ["opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-http==1.45.2"];
    let Some(packages) = installed(name, Installer::Pip, &wanted) else { return };
    let (bench, teacher) = (Bench::with_notebook(), desk());
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let got = ran(&bench, "otel_python.py", &packages, &format!("http://{address}"));
    assert_eq!(running.stop(), 0);
    // The second time is the same batch again.
    assert_eq!((&got["flushed"], &got["exported"]), (&json!(true), &json!(["SUCCESS", "SUCCESS"])));

    let id = |name: &str| got["spans"][name].as_str().unwrap();
    let trace_id = got["trace_id"].as_str().unwrap();
    let spans = logged(&bench, "span.captured");
    assert_eq!(spans.len(), 3);
    for (name, role) in [("agent", "agent"), ("chat", "generation"), ("tool", "tool")] {
        let parent = (name != "agent").then(|| id("agent"));
        let facts = span(&spans, trace_id, id(name), parent);
        assert_eq!((&facts["role"], &facts["form"]), (&json!(role), &json!("genai")));
        assert_eq!(facts["source"], "otlp/weather-desk");
    }
    let traces = logged(&bench, "trace.ingested");
    assert_eq!(traces.len(), 1);
    let trace = one(&traces, "external_id", &format!("{trace_id}/{}", id("chat")));
    assert_eq!(trace["facts"]["tools"], json!(["get_weather"]));
    assert_eq!(trace["measured"]["usage"], json!({ "input": 9, "output": 4 }));
    let aliases = trace["facts"]["aliases"].as_array().unwrap();
    for alias in [trace_id, "chatcmpl-dunlin"] {
        assert!(aliases.contains(&json!(alias)), "{alias} in {aliases:?}");
    }
    let episode = episode(&bench, trace);
    let parameters = &episode["tools"][0]["parameters"];
    assert_eq!(parameters["properties"]["city"]["type"], "string");
    let said = [("system", "Answer by the tool."), ("user", "the weather, says the dunlin?")];
    assert_eq!(turns(&episode), said.map(|(role, text)| (role.to_owned(), text.to_owned())));
    assert_eq!(episode["answer"]["text"], "Let me see.");
    assert_eq!(cities(&episode), ["Oslo"]);
    found(&bench, "dunlin tool:get_weather", &[id("chat")]);
    bench.run(&["verify"]).ok();
}

/// Packages that an agent of Mastra needs that sends its spans to a collector.
const MASTRA: [&str; 5] = [
    "@mastra/core@1.71.0",
    "@mastra/observability@1.17.9",
    "@mastra/otel-exporter@1.4.0",
    "@opentelemetry/exporter-trace-otlp-proto@0.218.0",
    "zod@4.6.7",
];

#[test]
fn mastras_agent_goes_through_and_its_spans_arrive() {
    let Some(packages) = installed("mastra-1.71.0", Installer::Npm, &MASTRA) else { return };
    let (bench, teacher) = (Bench::with_notebook(), desk());
    let (running, address) = gateway(&bench, &teacher.address, &[]);
    let got = ran(&bench, "mastra.mjs", &packages, &format!("http://{address}"));
    assert_eq!(running.stop(), 0);
    assert_eq!(
        (&got["text"], &got["streamed"]),
        (&json!(RAIN), &json!(format!("Let me see.{RAIN}")))
    );
    let mut ran: Vec<&str> =
        got["ran"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    ran.sort_unstable();
    assert_eq!(ran, ["Bergen", "Oslo", "Oslo"]);

    assert_eq!(logged(&bench, "call.captured").len(), 4);
    // Spans tell neither the tools nor what tools gave, which is why the calls go through here.
    let traces: Vec<Value> = logged(&bench, "trace.ingested")
        .into_iter()
        .filter(|trace| trace["facts"]["source"] == "gateway")
        .collect();
    assert_eq!(traces.len(), 4);
    for (id, tokens) in
        [("chatcmpl-w", 13), ("chatcmpl-t", 35), ("chatcmpl-s1", 11), ("chatcmpl-u", 36)]
    {
        let trace = one(&traces, "external_id", id);
        assert_eq!(trace["facts"]["tools"], json!(["get_weather"]));
        assert_eq!(trace["measured"]["usage"]["total_tokens"], tokens);
        let parameters = &episode(&bench, trace)["tools"][0]["parameters"];
        assert_eq!(parameters["required"], json!(["city"]));
        assert_eq!(parameters["properties"]["city"]["description"], "Name of the city");
    }
    for (id, results) in [("chatcmpl-t", 1), ("chatcmpl-u", 2)] {
        let episode = episode(&bench, one(&traces, "external_id", id));
        let said = turns(&episode);
        let told = said.iter().filter(|(role, text)| role == "tool" && text.contains("drizzle"));
        assert_eq!(told.count(), results, "{said:?}");
        assert_eq!(episode["answer"]["text"], RAIN);
    }
    found(&bench, "curlew", &["chatcmpl-w", "chatcmpl-t", "chatcmpl-s1", "chatcmpl-u"]);

    let spans = logged(&bench, "span.captured");
    for key in ["trace_id", "streamed_trace_id"] {
        whole_trace(&spans, got[key].as_str().unwrap());
    }
    // The first step of each run says all that was said; the second was shortened by its tracer.
    let of_spans = |kind: &str| -> Vec<Value> {
        let all = logged(&bench, kind).into_iter();
        all.filter(|event| event["facts"]["source"] == "otlp/weather-desk").collect()
    };
    let steps = of_spans("trace.ingested");
    assert_eq!(steps.len(), 2, "{steps:?}");
    for step in &steps {
        assert_eq!(step["facts"]["format"], "otel-mastra");
        assert!(cities(&episode(&bench, step)).contains(&"Oslo"));
    }
    let rejected = of_spans("trace.rejected");
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert!(rejected[0]["facts"]["reason"].as_str().unwrap().contains("through the gateway"));
    bench.run(&["verify"]).ok();
}

/// Asserts that all of a trace of Mastra is there: one root, each other span below another, and an
/// agent, calls of a model and of the tool among them.
fn whole_trace(spans: &[Value], trace_id: &str) {
    let own = spans.iter().map(|event| &event["facts"]);
    let own: Vec<&Value> = own.filter(|facts| facts["trace_id"] == trace_id).collect();
    let roots = own.iter().filter(|facts| facts["parent_id"].is_null());
    assert_eq!(roots.count(), 1, "{own:?}");
    for facts in &own {
        let span_id = facts["span_id"].as_str().unwrap();
        let parent = facts["parent_id"].as_str();
        span(spans, trace_id, span_id, parent);
        let is_known = |id: &str| own.iter().any(|other| other["span_id"] == id);
        assert!(parent.is_none_or(is_known), "{facts}");
        assert_eq!(facts["source"], "otlp/weather-desk");
    }
    for role in ["agent", "generation", "tool"] {
        assert!(own.iter().any(|facts| facts["role"] == role), "no {role} in {own:?}");
    }
}
