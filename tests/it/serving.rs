//! The server, as its callers see it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Bench, holding, samples, tiny_model};

/// Sends one request over a plain connection and returns (status, body).
fn http(address: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// A notebook with an evaluated base model, which no alias names.
fn evaluated() -> (Bench, String) {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let questions = ["--questions", "recorded/toolcall_azure", "--golds", "toolcall/train"];
    bench.run(&[&["suite", "build", "s"], &questions[..]].concat()).ok();
    let model = tiny_model().to_str().unwrap();
    let eval = ["eval", "--suite", "s", "--cep", "toolcall", "--max-new-tokens", "9"];
    let said = bench.run(&[&eval[..], &["--model", model]].concat()).ok();
    let id = said.json()["deployment_id"].as_str().unwrap().to_owned();
    (bench, id)
}

#[test]
fn calls_that_are_answered_together_get_what_each_gets_alone() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    let ask = |i: usize| {
        let text = format!("Request: {}", "the weather ".repeat(i * 7));
        let message = json!({ "role": "user", "content": text });
        let body = json!({ "model": id, "messages": [message] });
        let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&body));
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        (answer["choices"][0].clone(), answer["usage"].clone())
    };
    let alone: Vec<_> = (0..8).map(ask).collect();
    assert!(alone.iter().any(|one| one.0 != alone[0].0));
    let ask = &ask;
    let together: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|i| scope.spawn(move || ask(i))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    assert_eq!(running.stop(), 0);
}

#[test]
fn kernels_of_an_evaluation_are_recorded_and_taken_by_a_replay() {
    let bench = Bench::with_notebook();
    bench.run(&["ingest", &samples()]).ok();
    let questions = ["--questions", "recorded/toolcall_azure", "--golds", "toolcall/train"];
    bench.run(&[&["suite", "build", "s"], &questions[..]].concat()).ok();
    let model = tiny_model().to_str().unwrap();
    let eval = ["eval", "--suite", "s", "--model", model, "--max-new-tokens", "5"];
    bench.run(&[&eval[..], &["--kernels", "abacus"]].concat()).fails(2);
    let said = bench.run(&[&eval[..], &["--kernels", "scalar"]].concat()).ok().json();
    let started = bench.run(&["log"]).ok().lines();
    let started = started.into_iter().find(|event| event["kind"] == "run.started").unwrap();
    assert_eq!(started["measured"]["kernels"], "scalar");
    let replay = ["replay", said["run"].as_str().unwrap(), "--model", model, "--cases", "5"];
    let replay = bench.run(&replay).ok().json();
    assert!(replay["divergence"].is_null(), "{replay}");
}

#[test]
fn a_deployment_answers_whole_and_in_pieces_and_every_call_is_a_trace() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    assert_eq!(first["marks"], json!(["unpromoted"]));

    let ask = |stream: bool| {
        json!({
            "model": id,
            "messages": [{ "role": "user", "content": "Request: the weather in Oslo" }],
            "stream": stream,
            "stream_options": { "include_usage": true },
        })
    };
    let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&ask(false)));
    assert_eq!(status, 200, "{body}");
    let whole: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["deployment"]["id"], json!(id));
    assert_eq!(whole["deployment"]["marks"], json!(["unpromoted"]));
    assert_eq!(whole["usage"]["completion_tokens"], 9);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");

    let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&ask(true)));
    assert_eq!(status, 200);
    let data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(*data.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        data[..data.len() - 1].iter().map(|d| serde_json::from_str(d).unwrap()).collect();
    let piece = |c: &Value| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    let text: String = chunks.iter().filter_map(piece).collect();
    assert_eq!(json!(text), whole["choices"][0]["message"]["content"]);
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 9);

    // An answer ends before a stop, wherever in its tokens that stands.
    let answer = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let (at, stop) = answer.char_indices().nth(3).unwrap();
    for stops in [json!(stop.to_string()), json!(["never said", stop.to_string()])] {
        let mut ask = ask(false);
        ask["stop"] = stops;
        let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&ask));
        assert_eq!(status, 200, "{body}");
        let ended: Value = serde_json::from_str(&body).unwrap();
        let first = answer.find(stop).unwrap().min(at);
        assert_eq!(ended["choices"][0]["message"]["content"], answer[..first]);
        assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    }
    let mut wrong = ask(false);
    wrong["stop"] = json!(7);
    assert_eq!(http(&address, "POST", "/v1/chat/completions", Some(&wrong)).0, 400);

    let (status, body) = http(&address, "GET", "/v1/models", None);
    assert_eq!(status, 200);
    assert!(body.contains(&id));
    let feedback = json!({ "target": whole["id"], "name": "thumb", "value": 1, "comment": null });
    assert_eq!(http(&address, "POST", "/v1/feedback", Some(&feedback)).0, 200);
    assert_eq!(running.stop(), 0);

    let traces = bench.run(&["log", "--stream", "trace/serve"]).ok().lines();
    assert_eq!(traces.len(), 4);
    assert_eq!(traces[0]["facts"]["external_id"], whole["id"]);
    let flags = json!([format!("deployment:{id}"), "served", "unpromoted"]);
    assert_eq!(traces[0]["facts"]["flags"], flags);
    let seq = traces[0]["seq"].to_string();
    let body = bench.run(&["show", &seq, "--body"]).ok().json();
    assert_eq!(body["answer"]["text"], whole["choices"][0]["message"]["content"]);
    assert_eq!(body["answer"]["model"], json!(id));
    bench.run(&["verify"]).ok();
}

#[test]
fn a_subjects_call_and_what_is_said_of_it_at_once_are_sealed_and_forgotten() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    let message = json!([{ "role": "user", "content": "the marmalade zeppelin" }]);
    let ask = json!({ "model": id, "messages": message, "user": "ann@example.org" });
    let mut targets = Vec::new();
    // As soon as it is answered: the call may stand in the record by then, or not yet.
    for (round, words) in ["a cobalt accordion", "a velvet harpoon"].into_iter().enumerate() {
        let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&ask));
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let value = json!(format!("better say {words}"));
        let feedback = json!({
            "target": answer["id"], "name": "remark", "value": value, "comment": words,
        });
        let (status, body) = http(&address, "POST", "/v1/feedback", Some(&feedback));
        assert_eq!(status, 200, "{round}: {body}");
        targets.push(answer["id"].clone());
    }
    let forget = ["forget", "ann@example.org", "--yes"];
    assert_eq!(running.stop(), 0);
    let said = bench.run(&["log", "--kind", "feedback.recorded"]).ok().lines();
    assert_eq!(said.len(), 2);
    for event in &said {
        assert!(targets.contains(&event["facts"]["target"]));
        assert!(event["facts"]["value"].is_null() && event["facts"]["comment"].is_null());
        assert!(!event["facts"]["body"]["subject"].is_null(), "{event}");
    }
    let calls = bench.run(&["log", "--stream", "trace/serve"]).ok().lines();
    assert_eq!(calls.len(), 2);
    for event in &calls {
        assert_eq!(
            (&event["facts"]["tools"], &event["facts"]["track"]),
            (&json!([]), &"chat".into())
        );
    }
    let words = ["zeppelin", "accordion", "harpoon", "ann@example.org"];
    assert_eq!(holding(&bench.notebook(), &words), Vec::<std::path::PathBuf>::new());
    assert_eq!(bench.run(&forget).ok().json()["bodies"], 4);

    // Of a call whose subject is forgotten, nothing more is taken.
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    let late = json!({ "target": targets[0], "name": "remark", "value": "late", "comment": null });
    assert_eq!(http(&address, "POST", "/v1/feedback", Some(&late)).0, 410);
    assert_eq!(running.stop(), 0);
}

#[test]
fn checkpoints_are_signed_on_a_timer_while_something_happens() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let signed = || bench.run(&["log", "--kind", "checkpoint.signed"]).ok().lines().len();
    let before = signed();
    let serve = ["serve", &id, "--model", model, "--port", "0", "--checkpoint-every", "0.005"];
    let (running, first) = bench.start(&serve);
    let address = first["address"].as_str().unwrap().to_owned();
    for _ in 0..200 {
        if signed() > before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Nothing came since, so nothing more is signed.
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(signed(), before + 1);
    let (_, health) = http(&address, "GET", "/health", None);
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((&health["checkpoints"], &health["checkpoints_failed"]), (&json!(1), &json!(0)));
    assert_eq!(running.stop(), 0);
    bench.run(&["verify"]).ok();
    for wrong in ["-1", "soon", "1e9", "NaN"] {
        let every = format!("--checkpoint-every={wrong}");
        assert_eq!(bench.run(&["serve", &id, &every]).code, 2, "{wrong}");
    }
}

#[test]
fn wrong_calls_get_clear_answers_and_the_server_stays_up() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    let chat = |body: &Value| http(&address, "POST", "/v1/chat/completions", Some(body));
    let user = json!([{ "role": "user", "content": "hi" }]);
    let (status, body) = chat(&json!({ "model": "gpt-5", "messages": user }));
    assert!(status == 404 && body.contains("not served here"), "{status} {body}");
    let (status, _) = chat(&json!({ "model": id, "messages": [] }));
    assert_eq!(status, 400);
    let (status, _) = chat(&json!({ "messages": user }));
    assert_eq!(status, 422);
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let (status, body) = chat(&json!({ "model": id, "messages": user, "tools": tools }));
    assert!(status == 400 && body.contains("tools"), "{status} {body}");
    let unread = json!({ "target": "x", "name": "correction", "value": 3, "comment": null });
    assert_eq!(http(&address, "POST", "/v1/feedback", Some(&unread)).0, 400);
    let unknown = json!({ "target": "x", "name": "thumb", "value": 3, "comment": null });
    let (status, body) = http(&address, "POST", "/v1/feedback", Some(&unknown));
    assert!(status == 202 && body.contains("\"joined\":false"), "{status} {body}");
    let picture = json!([{ "role": "user", "content": [{ "type": "image_url" }] }]);
    let (status, body) = chat(&json!({ "model": id, "messages": picture }));
    assert!(status == 400 && body.contains("only text"), "{status} {body}");
    let long = json!([{ "role": "user", "content": "x".repeat(5000) }]);
    let (status, body) = chat(&json!({ "model": id, "messages": long }));
    assert!(status == 400 && body.contains("context"), "{status} {body}");
    let (status, _) = chat(&json!({ "model": id, "messages": user }));
    assert_eq!(status, 200);
    assert_eq!(http(&address, "GET", "/health", None).0, 200);
    assert_eq!(running.stop(), 0);
}

#[test]
fn off_loopback_a_token_is_needed() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let serve = ["serve", &id, "--model", model, "--port", "0", "--host", "0.0.0.0"];
    let error = bench.run(&serve).fails(2);
    // A variable that is set to nothing is no token.
    bench.run(&[&serve[..], &["--token", ""]].concat()).fails(2);
    assert!(error["hint"].as_str().unwrap().contains("--token"));
    let on_loopback = ["serve", &id, "--model", model, "--port", "0", "--token", "secret"];
    let (running, first) = bench.start(&on_loopback);
    let address = first["address"].as_str().unwrap().to_owned();
    assert_eq!(http(&address, "GET", "/health", None).0, 401);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_corrected_call_is_learnt_as_it_was_corrected() {
    let (bench, id) = evaluated();
    let model = tiny_model().to_str().unwrap();
    let (running, first) = bench.start(&["serve", &id, "--model", model, "--port", "0"]);
    let address = first["address"].as_str().unwrap().to_owned();
    let ask =
        json!({ "model": id, "messages": [{ "role": "user", "content": "to Mars, please" }] });
    let (status, body) = http(&address, "POST", "/v1/chat/completions", Some(&ask));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let wanted = "<tool_call name=\"book_zeppelin\">{\"to\":\"Mars\"}</tool_call>";
    let said = json!({ "target": answer["id"], "name": "correction", "value": wanted });
    let (status, body) = http(&address, "POST", "/v1/feedback", Some(&said));
    assert_eq!(status, 200, "{body}");
    assert_eq!(running.stop(), 0);

    let wish = ["dataset", "build", "next", "--query", "Mars", "--feedback", "correction"];
    let built = bench.run(&[&wish[..], &["--dev-fraction", "0"]].concat()).ok().json();
    assert_eq!(built["dataset"]["train"], 1, "{built}");
    let shown = bench.run(&["dataset", "show", "next"]).ok().json();
    let row = &shown["manifest"]["rows"][0];
    assert!(row["correction"].is_u64(), "{row}");
    let seq = row["seq"].to_string();
    let shown = bench.run(&["dataset", "show", "next", "--row", &seq]).ok().json();
    assert_eq!(shown["mask"]["pieces"][1]["text"], wanted);
    let out = bench.path("out");
    let export = ["dataset", "export", "next", "--format", "trl", "--out", out.to_str().unwrap()];
    bench.run(&export).ok();
    let rows = std::fs::read_to_string(out.join("train.jsonl")).unwrap();
    assert!(rows.contains("book_zeppelin") && rows.contains("Mars"), "{rows}");
}
