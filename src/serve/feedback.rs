//! Feedback: what callers say of answers, in our form and in those of Langfuse's SDKs.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger::catalogue::FeedbackRecorded;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::api::{BODY_BYTES_MAX, Handle, error, failed, is_json};
use crate::build::CORRECTION;
use crate::capture::Judged;
use crate::error::{AppError, Kind};

/// Most events of one batch.
const BATCH_MAX: usize = 10_000;

/// Takes feedback: `{target, name, value, comment}`. What is about a call that is not here yet is
/// taken all the same, and joins it when it comes.
pub(super) async fn feedback(
    State(shared): State<Handle>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let feedback: FeedbackRecorded = match json_of(&shared, &headers, body).await {
        Ok(feedback) => feedback,
        Err(response) => return response,
    };
    match take(&shared, feedback).await {
        Ok(Judged { seq, is_joined }) => {
            let status = if is_joined { StatusCode::OK } else { StatusCode::ACCEPTED };
            (status, Json(json!({ "event": seq, "joined": is_joined }))).into_response()
        }
        Err(failure) => refused(&failure),
    }
}

/// Takes a score as Langfuse's API does: `{traceId, observationId?, name, value, dataType}`.
pub(super) async fn score(
    State(shared): State<Handle>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let score: Map<String, Value> = match json_of(&shared, &headers, body).await {
        Ok(score) => score,
        Err(response) => return response,
    };
    let feedback = match feedback_of(&score) {
        Ok(feedback) => feedback,
        Err(what) => return error(StatusCode::BAD_REQUEST, "invalid_request_error", what),
    };
    match take(&shared, feedback).await {
        Ok(Judged { seq, .. }) => {
            let own = score.get("id").and_then(Value::as_str).map(str::to_owned);
            let id = own.unwrap_or_else(|| format!("event-{seq}"));
            Json(json!({ "id": id })).into_response()
        }
        Err(failure) => refused(&failure),
    }
}

/// Takes a batch as Langfuse's older API does. Scores are feedback; spans come by OTLP.
pub(super) async fn ingestion(
    State(shared): State<Handle>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let batch: Map<String, Value> = match json_of(&shared, &headers, body).await {
        Ok(batch) => batch,
        Err(response) => return response,
    };
    let events = match batch.get("batch").and_then(Value::as_array) {
        Some(events) if events.len() <= BATCH_MAX => events,
        _ => {
            let what = format!("\"batch\" must be a list of up to {BATCH_MAX} events");
            return error(StatusCode::BAD_REQUEST, "invalid_request_error", what);
        }
    };
    let (mut successes, mut errors) = (Vec::new(), Vec::new());
    for event in events {
        let id = event.get("id").cloned().unwrap_or(Value::Null);
        match one(&shared, event).await {
            Ok(()) => successes.push(json!({ "id": id, "status": 201 })),
            Err((status, what)) => {
                errors.push(json!({ "id": id, "status": status, "message": what }));
            }
        }
    }
    let answer = json!({ "successes": successes, "errors": errors });
    (StatusCode::MULTI_STATUS, Json(answer)).into_response()
}

/// Takes one event of a batch.
async fn one(shared: &Handle, event: &Value) -> Result<(), (u16, String)> {
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "sdk-log" => return Ok(()),
        "score-create" => {}
        _ => {
            let what = "only scores are taken here: send spans to /api/public/otel/v1/traces";
            return Err((400, what.to_owned()));
        }
    }
    let Some(score) = event.get("body").and_then(Value::as_object) else {
        return Err((400, "the event has no body".to_owned()));
    };
    let feedback = feedback_of(score).map_err(|what| (400, what.to_owned()))?;
    match take(shared, feedback).await {
        Ok(_) => Ok(()),
        Err(failure) => Err((refused(&failure).status().as_u16(), failure.to_string())),
    }
}

/// Reads a score of Langfuse's.
fn feedback_of(score: &Map<String, Value>) -> Result<FeedbackRecorded, &'static str> {
    let text = |key: &str| score.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let trace = text("traceId").ok_or("the score has no traceId")?;
    let target = match text("observationId") {
        Some(observation) => format!("{trace}/{observation}"),
        None => trace.to_owned(),
    };
    let value = score.get("value").filter(|value| !value.is_null()).ok_or("it has no value")?;
    let kind = text("dataType").unwrap_or_default();
    let value = match (kind, value.as_f64()) {
        ("BOOLEAN", Some(number)) => Value::Bool(number != 0.0),
        _ => value.clone(),
    };
    let name = if kind == "CORRECTION" { CORRECTION } else { text("name").unwrap_or_default() };
    Ok(FeedbackRecorded {
        target,
        name: name.to_owned(),
        value,
        comment: text("comment").map(str::to_owned),
        body: None,
    })
}

async fn take(shared: &Handle, feedback: FeedbackRecorded) -> Result<Judged, AppError> {
    let shared = Handle::clone(shared);
    let broke = |_| AppError::said(Kind::Internal, "it broke off");
    let turn = Arc::clone(&shared.feedback_turns).acquire_owned().await.map_err(broke)?;
    let work = tokio::task::spawn_blocking(move || {
        let judged = shared.capture.feedback(&feedback);
        drop(turn);
        judged
    });
    work.await.map_err(|_| AppError::said(Kind::Internal, "it broke off"))?
}

/// Reads a body of JSON.
async fn json_of<T: DeserializeOwned>(
    shared: &Handle,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Response> {
    let wrong = |status, what: String| error(status, "invalid_request_error", what);
    if !is_json(headers) {
        let what = "say that it is JSON: content-type: application/json".to_owned();
        return Err(wrong(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    let read = shared.capture_bodies.read(body, BODY_BYTES_MAX).await;
    let (body, _room) = read.map_err(|refused| refused.response())?;
    serde_json::from_slice(&body).map_err(|failure| {
        let status = if failure.is_data() {
            StatusCode::UNPROCESSABLE_ENTITY
        } else {
            StatusCode::BAD_REQUEST
        };
        wrong(status, format!("the body cannot be read: {failure}"))
    })
}

/// Says why feedback was not taken.
fn refused(failure: &AppError) -> Response {
    let status = match failure.kind() {
        Kind::Erased => StatusCode::GONE,
        Kind::Storage | Kind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        _ => return failed(failure),
    };
    error(status, "invalid_request_error", failure.to_string())
}
