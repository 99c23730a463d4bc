//! A Langfuse server on loopback, as far as reading goes: versions 4 and 3.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(super) const PUBLIC: &str = "pk-lf-test";
pub(super) const SECRET: &str = "sk-lf-of-the-tests";
/// `PUBLIC:SECRET` in base 64.
const BASIC: &str = "Basic cGstbGYtdGVzdDpzay1sZi1vZi10aGUtdGVzdHM=";
const GROUPS: &str = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context";

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) at: Instant,
}

impl Seen {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What the server has and how it behaves.
#[derive(Default)]
pub(super) struct State {
    /// Rows of version 4: a server of version 3 takes from them what belongs to the trace.
    pub(super) observations: Vec<Value>,
    /// Scores in the form of version 3 of their list.
    pub(super) scores: Vec<Value>,
    /// It is of version 3.
    pub(super) is_old: bool,
    /// Answers that come in the place of the next ones: status line, further headers.
    pub(super) instead: Vec<(&'static str, &'static str)>,
    /// So many more lists of observations are answered; others wait.
    pub(super) left: Option<usize>,
    pub(super) seen: Vec<Seen>,
}

pub(super) struct Server {
    pub(super) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&served);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Requests for a path since the last time somebody asked for all of them.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        self.with(|state| state.seen.iter().filter(|seen| seen.path == path).cloned().collect())
    }

    pub(super) fn forget_seen(&self) {
        self.with(|state| state.seen.clear());
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(&stream);
    let (mut first, mut headers) = (String::new(), String::new());
    if reader.read_line(&mut first).is_err() {
        return;
    }
    while !headers.ends_with("\r\n\r\n") && reader.read_line(&mut headers).is_ok_and(|n| n > 0) {}
    let Some(target) = first.split(' ').nth(1) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    let seen = Seen { path: decoded(path), query, at: Instant::now() };
    let instead = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        if state.instead.is_empty() { None } else { Some(state.instead.remove(0)) }
    };
    let is_known = headers.lines().any(|line| {
        line.split_once(": ").is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == BASIC
        })
    });
    let (status, more, body) = match instead {
        _ if !is_known => {
            let message = "Invalid credentials. Confirm that you've configured the correct host.";
            ("401 Unauthorized", "", json!({ "error": "Unauthorized", "message": message }))
        }
        Some((status, more)) => (status, more, json!({ "message": "not now" })),
        None => {
            wait_for_turn(&seen, state);
            let (status, body) = answer(&seen, &state.lock().unwrap());
            (status, "", body)
        }
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}\
         connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn wait_for_turn(seen: &Seen, state: &Mutex<State>) {
    if !seen.path.ends_with("/observations") {
        return;
    }
    loop {
        match &mut state.lock().unwrap().left {
            None => return,
            Some(0) => {}
            Some(left) => {
                *left -= 1;
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(seen: &Seen, state: &State) -> (&'static str, Value) {
    match (seen.path.as_str(), state.is_old) {
        ("/api/public/v2/observations", false) => {
            listed(seen, &state.observations, ("startTime", "fromStartTime", "toStartTime"), 1000)
        }
        ("/api/public/v3/scores", false) => {
            listed(seen, &state.scores, ("timestamp", "fromTimestamp", "toTimestamp"), 100)
        }
        ("/api/public/observations", true) => {
            let rows: Vec<Value> = state.observations.iter().map(old_observation).collect();
            numbered(seen, &rows, ("startTime", "fromStartTime"))
        }
        ("/api/public/traces", true) => {
            let mut traces: Vec<Value> = state.observations.iter().map(trace).collect();
            traces.dedup_by(|a, b| a["id"] == b["id"]);
            numbered(seen, &traces, ("timestamp", "fromTimestamp"))
        }
        ("/api/public/v2/scores", true) => {
            let rows: Vec<Value> = state.scores.iter().map(old_score).collect();
            numbered(seen, &rows, ("timestamp", "fromTimestamp"))
        }
        (path, true) if path.starts_with("/api/public/traces/") => {
            let id = path.rsplit('/').next().unwrap_or_default();
            let found = state.observations.iter().find(|row| row["traceId"] == id);
            found.map_or(("404 Not Found", json!({})), |row| ("200 OK", trace(row)))
        }
        _ => ("404 Not Found", json!({ "message": "not found" })),
    }
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// A page of a list that is read by cursor, newest first.
fn listed(
    seen: &Seen,
    rows: &[Value],
    (time, from, to): (&str, &str, &str),
    most: usize,
) -> (&'static str, Value) {
    let limit: usize = seen.get("limit").map_or(50, |limit| limit.parse().unwrap());
    let known = if most == 100 { "details,subject,annotation" } else { GROUPS };
    let groups = seen.get("fields").unwrap_or_default();
    if limit > most || groups.split(',').any(|one| !known.split(',').any(|k| k == one)) {
        return ("400 Bad Request", json!({ "message": "Invalid request data" }));
    }
    let key = |row: &Value| format!("{}|{}", text(row, time), text(row, "id"));
    let mut rows: Vec<&Value> = rows
        .iter()
        .filter(|row| seen.get(from).is_none_or(|from| text(row, time) >= from))
        .filter(|row| seen.get(to).is_none_or(|to| text(row, time) < to))
        .filter(|row| seen.get("cursor").is_none_or(|cursor| key(row).as_str() < cursor))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    let rest = rows.split_off(limit.min(rows.len()));
    let mut meta = json!({ "limit": limit });
    if !rest.is_empty() {
        meta["cursor"] = json!(key(rows.last().unwrap()));
    }
    ("200 OK", json!({ "data": rows, "meta": meta }))
}

/// A page of a list whose pages have numbers.
fn numbered(seen: &Seen, rows: &[Value], (time, from): (&str, &str)) -> (&'static str, Value) {
    let number = |name: &str, none: usize| seen.get(name).map_or(none, |n| n.parse().unwrap());
    let (page, limit) = (number("page", 1), number("limit", 50));
    let mut rows: Vec<&Value> = rows
        .iter()
        .filter(|row| seen.get(from).is_none_or(|from| text(row, time) >= from))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(text(row, time)));
    if seen.get("orderBy") == Some("timestamp.asc") {
        rows.reverse();
    }
    let total = rows.len();
    let rows: Vec<&Value> = rows.into_iter().skip((page - 1) * limit).take(limit).collect();
    let meta = json!({ "page": page, "limit": limit, "totalItems": total,
        "totalPages": total.div_ceil(limit) });
    ("200 OK", json!({ "data": rows, "meta": meta }))
}

/// An observation as version 3 has it: input and output are values, and nothing is of the trace.
fn old_observation(row: &Value) -> Value {
    let mut old = row.clone();
    let members = old.as_object_mut().unwrap();
    for of_trace in ["userId", "sessionId", "tags", "release", "traceName"] {
        members.remove(of_trace);
    }
    let model = members.remove("providedModelName").unwrap_or_default();
    members.insert("model".to_owned(), model);
    for key in ["input", "output"] {
        let value = row[key].as_str().and_then(|text| serde_json::from_str(text).ok());
        members.insert(key.to_owned(), value.unwrap_or_else(|| row[key].clone()));
    }
    old
}

fn trace(row: &Value) -> Value {
    json!({ "id": row["traceId"], "timestamp": row["startTime"], "name": row["traceName"],
        "userId": row["userId"], "sessionId": row["sessionId"], "tags": row["tags"],
        "release": row["release"], "input": row["input"], "output": row["output"] })
}

/// A score as version 2 of its list has it.
fn old_score(row: &Value) -> Value {
    let mut old = row.clone();
    let subject = old.as_object_mut().unwrap().remove("subject").unwrap();
    let key = match subject["kind"].as_str().unwrap() {
        "trace" => "traceId",
        "session" => "sessionId",
        _ => "observationId",
    };
    old[key] = subject["id"].clone();
    if key == "observationId" {
        old["traceId"] = subject["traceId"].clone();
    }
    match row["value"].clone() {
        Value::Bool(value) => old["value"] = json!(u8::from(value)),
        Value::String(value) => (old["value"], old["stringValue"]) = (json!(0), json!(value)),
        _ => {}
    }
    old
}
