//! The stages that close the loop: serve, correct, build the next dataset, replay.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use datasets::{Side, SplitSpec};
use ledger::Facts as _;
use ledger::catalogue::{CaseScored, FeedbackRecorded, TraceIngested};
use queries::projection::fold_all;
use queries::search::SavedSearch;
use serde_json::{Value, json};

use super::DemoWish;
use super::stages::{After, Data, TOOLCALL};
use super::summary::Served;
use crate::build::{CORRECTION, Searched, Split, build_split, wish_of_search};
use crate::error::{AppError, Kind};
use crate::hub::{self, Base};
use crate::lab::Lab;
use crate::replay::{ReplayReport, ReplayWish, replay};
use crate::serve::engine::Engine;
use crate::serve::{Answering, DEPLOYMENT_FLAG, Listen, SERVED_FLAG, start};

/// Serves the adapter's deployment, asks it a question, corrects the answer, and builds the next
/// dataset from served traces and failed dev cases.
///
/// # Errors
/// When the server cannot be started or the record refuses an event.
pub(super) fn close(
    lab: &Lab<'_>,
    data: &Data,
    wish: &DemoWish,
    after: &After,
) -> Result<Served, AppError> {
    let served = match earlier(lab)? {
        Some(served) => served,
        None => ask(lab, data, wish, after)?,
    };
    let query = format!("source:serve OR (run:{} AND outcome:failed)", after.dev.run);
    let split = SplitSpec { dev_fraction: 0.0, ..SplitSpec::default() };
    let keep_out = vec![TOOLCALL.to_owned()];
    let search = SavedSearch::of_words(&query);
    let Searched { wish, bytes, .. } = wish_of_search(lab, "next", &search, (split, keep_out))?;
    lab.notebook.blobs().put(&bytes)?;
    let next = build_split(lab, &wish)?;
    let lineage = lineage(lab, &next)?;
    Ok(Served { next: Some(next.facts), lineage, query, ..served })
}

/// Finds the call that an earlier run of the demo served and corrected.
fn earlier(lab: &Lab<'_>) -> Result<Option<Served>, AppError> {
    // Recording follows the answer, so a correction may stand before the trace that it corrects.
    let mut traces: Vec<(u64, TraceIngested)> = Vec::new();
    let mut corrections: BTreeMap<String, FeedbackRecorded> = BTreeMap::new();
    for event in lab.notebook.reader().events(0)? {
        let event = event?;
        if event.stream == "trace/serve" && event.kind == TraceIngested::KIND {
            traces.push((event.seq, event.facts()?));
        } else if event.kind == FeedbackRecorded::KIND {
            let feedback: FeedbackRecorded = event.facts()?;
            corrections.insert(feedback.target.clone(), feedback);
        }
    }
    let corrected = |(seq, facts): (u64, TraceIngested)| {
        let feedback = corrections.remove(&facts.external_id)?;
        Some((seq, facts, feedback))
    };
    let Some((seq, facts, feedback)) = traces.into_iter().find_map(corrected) else {
        return Ok(None);
    };
    let bytes = lab.notebook.blobs().get(&facts.body)?;
    let episode: Value = serde_json::from_slice(&bytes)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_mark = |flag: &String| flag != SERVED_FLAG && !flag.starts_with(DEPLOYMENT_FLAG);
    Ok(Some(Served {
        question: text(&episode["query"]),
        answer: text(&episode["answer"]["text"]),
        marks: facts.flags.into_iter().filter(is_mark).collect(),
        deployment: text(&episode["answer"]["model"]),
        trace: seq,
        correction: text(&feedback.value),
        ..Served::default()
    }))
}

/// Asks the served deployment a question of the dev side that it failed, and sends the gold as a
/// reviewer's correction.
fn ask(lab: &Lab<'_>, data: &Data, wish: &DemoWish, after: &After) -> Result<Served, AppError> {
    let state = fold_all(&lab.notebook.reader())?;
    let cases = state.runs.get(&after.dev.run).map(|run| run.cases.as_slice()).unwrap_or_default();
    let failed = cases.iter().find(|case| !case.facts.strict.exact);
    let asked: Option<&CaseScored> = failed.or(cases.first()).map(|case| &case.facts);
    let case = asked.and_then(|asked| data.dev.manifest.cases.iter().find(|c| c.id == asked.case));
    let Some(case) = case else {
        return Err(AppError::said(Kind::Internal, "the dev side has no case to ask"));
    };
    // The server owns its engine, so the file is loaded once more.
    let own = hub::load(lab, &wish.model)?;
    let id = after.adapter.deployment_id.to_string();
    let engine = Engine::load(&state, &lab.view(), own, &id)?;
    let messages: Vec<Value> = case
        .turns
        .iter()
        .map(|turn| json!({ "role": turn.role, "content": turn.content }))
        .collect();
    let request = json!({ "model": id, "messages": messages });
    let gold = case.expected.text();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
    let reply = runtime.block_on(talk_to(lab, engine, &request, &gold))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let response = text(&reply["id"]);
    Ok(Served {
        question: case.query.clone(),
        answer: text(&reply["choices"][0]["message"]["content"]),
        marks: list(&reply["deployment"]["marks"]),
        deployment: text(&reply["deployment"]["id"]),
        trace: trace_of(lab, &response)?,
        correction: gold,
        ..Served::default()
    })
}

/// Starts the server on loopback, makes the call and sends the correction.
async fn talk_to(
    lab: &Lab<'_>,
    engine: Engine,
    request: &Value,
    gold: &str,
) -> Result<Value, AppError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = Listen { address, token: None, checkpoint_every: None };
    let answering = Answering { engine: Some(Arc::new(engine)), teacher: None };
    let server = start(lab.notebook.clone(), lab.actor, answering, listen).await?;
    let failed = |e: reqwest::Error| AppError::said(Kind::Unavailable, e.to_string());
    let at = format!("http://{}/v1", server.address);
    let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
    let send = |path: &str, body: &Value| client.post(format!("{at}/{path}")).json(body).send();
    let reply = send("chat/completions", request).await.map_err(failed)?;
    let reply: Value = reply.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
    let feedback = json!({
        "target": reply["id"],
        "name": CORRECTION,
        "value": gold,
        "comment": "the answer that should have come",
    });
    let sent = send("feedback", &feedback).await.map_err(failed)?;
    sent.error_for_status().map_err(failed)?;
    server.stop().await?;
    Ok(reply)
}

/// Finds the event of a served call. Recording follows the answer, so it may need a moment.
fn trace_of(lab: &Lab<'_>, response: &str) -> Result<u64, AppError> {
    for _ in 0..200 {
        for event in lab.notebook.reader().events(0)? {
            let event = event?;
            if event.stream == "trace/serve"
                && event.facts.get("external_id").and_then(Value::as_str) == Some(response)
            {
                return Ok(event.seq);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(AppError::said(Kind::Internal, format!("the call {response} left no trace")))
}

/// Says where the rows of a dataset came from, a line each.
fn lineage(lab: &Lab<'_>, split: &Split) -> Result<Vec<String>, AppError> {
    let reader = lab.notebook.reader();
    let mut lines = Vec::new();
    for row in split.manifest.side(Side::Train) {
        let Some(event) = reader.get(row.seq)? else { continue };
        let facts: TraceIngested = event.facts()?;
        let (source, file) = (facts.source, facts.location);
        lines.push(match file.row {
            0 => format!("row <- event {} (source {source}, served and corrected)", row.seq),
            at => format!("row <- event {} ({source} row {at}, failed on the dev side)", row.seq),
        });
    }
    Ok(lines)
}

/// Replays the training run (its first steps) and the adapter's evaluation (its first cases), each
/// from the imports on.
///
/// # Errors
/// When something diverges, or a body is damaged.
pub(super) fn replays(
    lab: &Lab<'_>,
    base: &Base,
    after: &After,
) -> Result<Vec<ReplayReport>, AppError> {
    // The evaluation rests on the training run, so one replay covers both.
    let wish = ReplayWish {
        run: after.adapter.run.clone(),
        changes: Vec::new(),
        steps: Some(20),
        cases: Some(10),
    };
    let report = replay(lab, Some(base), &wish)?;
    if let Some(divergence) = &report.divergence {
        let what = format!("event {} came out otherwise at {}", divergence.seq, divergence.path);
        return Err(AppError::said(Kind::Diverged, what));
    }
    Ok(vec![report])
}
