//! The routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ledger::catalogue::FeedbackRecorded;
use models::ModelError;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Shared;
use super::capture::{Served, UnderWay};
use super::wire::{ChatRequest, Envelope};
use crate::error::{AppError, Kind};

/// Most bytes of a request.
const BODY_BYTES_MAX: usize = 4 << 20;

type Handle = Arc<Shared>;

/// Makes the router.
pub(super) fn routes(shared: Handle) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/feedback", post(feedback))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), authorised))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

/// An error in OpenAI's form.
fn error(status: StatusCode, kind: &str, message: impl Into<String>) -> Response {
    let body = json!({ "error": { "message": message.into(), "type": kind, "code": null } });
    (status, Json(body)).into_response()
}

async fn authorised(State(shared): State<Handle>, request: Request, next: Next) -> Response {
    let Some(token) = &shared.token else { return next.run(request).await };
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let sent = sent.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    // Every byte is compared, so that the time taken tells nothing of where they differ.
    let differs = sent.len() != token.len()
        || sent.bytes().zip(token.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) != 0;
    if differs {
        return error(StatusCode::UNAUTHORIZED, "invalid_request_error", "wrong or missing token");
    }
    next.run(request).await
}

async fn health(State(shared): State<Handle>) -> Json<Value> {
    let (calls, lost) = shared.capture.counts();
    let (signed, unsigned) = shared.signing.counts();
    Json(json!({
        "status": "ok",
        "deployment": shared.engine.id,
        "calls": calls,
        "calls_not_recorded": lost,
        "checkpoints": signed,
        "checkpoints_failed": unsigned,
    }))
}

async fn models(State(shared): State<Handle>) -> Json<Value> {
    let engine = &shared.engine;
    let id = engine.aliases.first().cloned().unwrap_or_else(|| engine.id.to_string());
    let card = json!({
        "id": id,
        "object": "model",
        "created": 0,
        "owned_by": "ledger",
        "parent": engine.deployment.base,
        "adapter_generation": engine.id,
        "marks": engine.marks(),
    });
    Json(json!({ "object": "list", "data": [card] }))
}

async fn chat(
    State(shared): State<Handle>,
    request: Result<Json<ChatRequest>, JsonRejection>,
) -> Response {
    let began = Instant::now();
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => {
            return error(rejection.status(), "invalid_request_error", rejection.body_text());
        }
    };
    if !shared.engine.answers_to(&request.model) {
        let engine = &shared.engine;
        let known = [engine.aliases.clone(), vec![engine.id.to_string()]].concat().join(", ");
        let what = format!("model {:?} is not served here (served: {known})", request.model);
        return error(StatusCode::NOT_FOUND, "invalid_request_error", what);
    }
    let turns = match request.turns() {
        Ok(turns) => turns,
        Err(what) => return error(StatusCode::BAD_REQUEST, "invalid_request_error", what),
    };
    let subject = request.subject();
    let id = shared.capture.next_id(&shared.engine, &turns, subject.as_deref());
    let call = Call {
        _under_way: shared.capture.begin(&id, subject.as_deref()),
        id,
        created: chrono::Utc::now().timestamp(),
        request,
        turns,
        began,
    };
    if call.request.stream { streamed(shared, call) } else { whole(shared, call).await }
}

/// A call under way.
struct Call {
    id: String,
    created: i64,
    request: ChatRequest,
    turns: Vec<datasets::Turn>,
    began: Instant,
    _under_way: UnderWay,
}

impl Call {
    fn envelope<'a>(&'a self, shared: &'a Shared) -> Envelope<'a> {
        let (id, model) = (&self.id, &self.request.model);
        Envelope { id, model, created: self.created, engine: &shared.engine }
    }

    /// Answers, and gives back what is to be recorded.
    fn answer(&self, shared: &Shared, text: &mut dyn FnMut(&str)) -> Result<Served, AppError> {
        let limit = self.request.limit();
        let (made, all) = shared.engine.answer(&self.turns, limit, text)?;
        Ok(Served {
            id: self.id.clone(),
            turns: self.turns.clone(),
            subject: self.request.subject(),
            text: all,
            made,
            latency_ms: self.began.elapsed().as_secs_f64() * 1000.0,
        })
    }
}

fn failed(failure: &AppError) -> Response {
    match failure {
        AppError::Model(ModelError::Context { .. } | ModelError::Template(_)) => {
            error(StatusCode::BAD_REQUEST, "invalid_request_error", failure.to_string())
        }
        _ if failure.kind() == Kind::Input => {
            error(StatusCode::BAD_REQUEST, "invalid_request_error", failure.to_string())
        }
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", failure.to_string()),
    }
}

/// Says why feedback was not taken.
fn refused(failure: &AppError) -> Response {
    let status = match failure {
        AppError::Said { kind: Kind::NotFound, .. } => StatusCode::NOT_FOUND,
        AppError::Said { kind: Kind::Erased, .. } => StatusCode::GONE,
        _ => return failed(failure),
    };
    error(status, "invalid_request_error", failure.to_string())
}

async fn whole(shared: Handle, call: Call) -> Response {
    let work = tokio::task::spawn_blocking(move || {
        let served = match call.answer(&shared, &mut |_| {}) {
            Ok(served) => served,
            Err(failure) => return failed(&failure),
        };
        let body = call.envelope(&shared).response(&served.made, &served.text);
        // The answer leaves first; recording follows and cannot delay or break it.
        tokio::task::spawn_blocking(move || {
            shared.capture.record(&shared.engine, &served);
            drop(call);
        });
        Json(body).into_response()
    });
    work.await.unwrap_or_else(|_| {
        error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the answer broke off")
    })
}

fn streamed(shared: Handle, call: Call) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    tokio::task::spawn_blocking(move || {
        let envelope = call.envelope(&shared);
        // A caller who left gets no more pieces; what was answered is recorded all the same.
        let send = |chunk: Value| drop(sender.send(chunk.to_string()));
        send(envelope.chunk(json!({ "role": "assistant", "content": "" }), None));
        let mut text = |piece: &str| send(envelope.chunk(json!({ "content": piece }), None));
        match call.answer(&shared, &mut text) {
            Ok(served) => {
                send(envelope.chunk(json!({}), Some(&served.made)));
                if call.request.wants_usage() {
                    send(envelope.usage_chunk(&served.made));
                }
                drop(sender.send("[DONE]".to_owned()));
                shared.capture.record(&shared.engine, &served);
            }
            Err(failure) => {
                let what = json!({ "message": failure.to_string(), "type": "server_error" });
                send(json!({ "error": what }));
            }
        }
    });
    Sse::new(pieces(receiver)).into_response()
}

fn pieces(
    receiver: mpsc::UnboundedReceiver<String>,
) -> impl futures_core::Stream<Item = Result<Event, Infallible>> {
    tokio_stream::StreamExt::map(
        tokio_stream::wrappers::UnboundedReceiverStream::new(receiver),
        |data| Ok(Event::default().data(data)),
    )
}

async fn feedback(
    State(shared): State<Handle>,
    feedback: Result<Json<FeedbackRecorded>, JsonRejection>,
) -> Response {
    let feedback = match feedback {
        Ok(Json(feedback)) => feedback,
        Err(rejection) => {
            return error(rejection.status(), "invalid_request_error", rejection.body_text());
        }
    };
    let work = tokio::task::spawn_blocking(move || shared.capture.feedback(&feedback));
    match work.await {
        Ok(Ok(event)) => Json(json!({ "event": event })).into_response(),
        Ok(Err(failure)) => refused(&failure),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "it broke off"),
    }
}
