//! The routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use models::ModelError;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::capture::{Served, UnderWay};
use super::connections::Lane;
use super::engine::Engine;
use super::gateway::{Asked, Wanted};
use super::wire::{ChatRequest, Envelope};
use super::{Answering, Shared, feedback, otlp};
use crate::error::{AppError, Kind};

/// Most bytes of a request that is answered here, and of one that is handed on: pictures and
/// files may stand in it.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
const HANDED_ON_BYTES_MAX: usize = 32 << 20;
/// Bodies above are looked into on a thread of their own.
const LOOKED_INTO_AT_ONCE: usize = 256 << 10;

pub(super) type Handle = Arc<Shared>;

/// Makes the router of a thread that answers.
pub(super) fn routes(shared: Handle, lane: Lane) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/traces", post(otlp::export))
        // Langfuse's SDKs send spans and scores here.
        .route("/api/public/otel/v1/traces", post(otlp::export))
        .route("/api/public/ingestion", post(feedback::ingestion))
        .route("/api/public/scores", post(feedback::score))
        .route("/v1/feedback", post(feedback::feedback))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), authorised))
        .layer(Extension(lane))
        .with_state(shared)
}

/// An error in OpenAI's form.
pub(super) fn error(status: StatusCode, kind: &str, message: impl Into<String>) -> Response {
    let body = json!({ "error": { "message": message.into(), "type": kind, "code": null } });
    (status, Json(body)).into_response()
}

async fn authorised(State(shared): State<Handle>, request: Request, next: Next) -> Response {
    let Some(token) = &shared.token else { return next.run(request).await };
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let sent = sent.and_then(token_of).unwrap_or_default();
    // Every byte is compared, so that the time taken tells nothing of where they differ.
    let differs = sent.len() != token.len()
        || sent.bytes().zip(token.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) != 0;
    if differs {
        return error(StatusCode::UNAUTHORIZED, "invalid_request_error", "wrong or missing token");
    }
    next.run(request).await
}

/// Returns the token that a caller sends: as such, or as the password (Langfuse's secret key).
fn token_of(sent: &str) -> Option<String> {
    if let Some(token) = sent.strip_prefix("Bearer ") {
        return Some(token.to_owned());
    }
    let pair = BASE64.decode(sent.strip_prefix("Basic ")?.trim()).ok()?;
    let (_, token) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(token.to_owned())
}

async fn health(State(shared): State<Handle>) -> Json<Value> {
    let (calls, lost) = shared.capture.counts();
    let (handed_on, not_recorded) = shared.recorder.counts();
    let (spans, spans_rejected) = shared.receiver.counts();
    let (signed, unsigned) = shared.signing.counts();
    Json(json!({
        "status": "ok",
        "deployment": shared.answering.engine.as_ref().map(|engine| engine.id),
        "teacher": shared.answering.teacher.is_some(),
        "calls": calls + handed_on,
        "calls_not_recorded": lost + not_recorded,
        "spans": spans,
        "spans_rejected": spans_rejected,
        "checkpoints": signed,
        "checkpoints_failed": unsigned,
    }))
}

async fn models(
    State(shared): State<Handle>,
    Extension(lane): Extension<Lane>,
    headers: HeaderMap,
) -> Response {
    let Answering { engine, teacher } = &shared.answering;
    let mut data: Vec<Value> = engine.iter().map(|engine| card(engine)).collect();
    if let Some(teacher) = teacher {
        let reply = teacher.models(lane, headers, shared.token.is_some()).await;
        match (engine, reply) {
            (None, Some(reply)) => return reply.into_response(),
            (None, None) => {
                let what = "the teacher does not say which models it has";
                return error(StatusCode::BAD_GATEWAY, "server_error", what);
            }
            // What is served here can be used whatever the teacher says.
            (Some(_), reply) => {
                let list = reply.and_then(|(_, _, body)| serde_json::from_slice(&body).ok());
                let theirs = list.as_ref().and_then(|list: &Value| list.get("data")?.as_array());
                data.extend(theirs.into_iter().flatten().cloned());
            }
        }
    }
    Json(json!({ "object": "list", "data": data })).into_response()
}

fn card(engine: &Engine) -> Value {
    let id = engine.aliases.first().cloned().unwrap_or_else(|| engine.id.to_string());
    json!({
        "id": id,
        "object": "model",
        "created": 0,
        "owned_by": "ledger",
        "parent": engine.deployment.base,
        "adapter_generation": engine.id,
        "marks": engine.marks(),
    })
}

async fn chat(
    State(shared): State<Handle>,
    Extension(lane): Extension<Lane>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let is_gateway = shared.answering.teacher.is_some();
    let body_max = if is_gateway { HANDED_ON_BYTES_MAX } else { BODY_BYTES_MAX };
    if !is_json(&headers) {
        let what = "say that it is JSON: content-type: application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return error(status, "invalid_request_error", what);
    }
    let (body, _room) = match shared.bodies.read(body, body_max).await {
        Ok(read) => read,
        Err(refused) => return refused.response(),
    };
    let Answering { engine, teacher } = &shared.answering;
    let Some(teacher) = teacher else { return answer_here(shared, &body).await };
    if shared.token.is_none() && is_of_a_page(&headers) {
        let what = "pages of other sites may not call this server without its token";
        return error(StatusCode::FORBIDDEN, "invalid_request_error", what);
    }
    let wanted = if body.len() > LOOKED_INTO_AT_ONCE {
        let (headers, body) = (headers.clone(), body.clone());
        let work = tokio::task::spawn_blocking(move || Wanted::of(&headers, &body));
        work.await.unwrap_or_default()
    } else {
        Wanted::of(&headers, &body)
    };
    if let Some(engine) = engine {
        // What nobody can read may have been meant for here, and stays here.
        let is_theirs = wanted.model.as_ref().is_some_and(|model| !engine.answers_to(model));
        if !is_theirs {
            return answer_here(shared, &body).await;
        }
    }
    let recording = (Arc::clone(&shared.recorder), shared.capture.enter());
    let stop = shared.hurry.subscribe();
    let asked = Asked { lane, headers, query, body, stop };
    teacher.forward(recording, wanted, asked, shared.token.is_some()).await
}

/// Says whether a body is said to be JSON, which pages of other sites cannot say unasked.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Says whether a browser sends the call for a page of another site.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_here = |origin: &str| {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    };
    text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"))
        || text("origin").is_some_and(|origin| !is_here(origin))
}

/// Answers by the deployment.
async fn answer_here(shared: Handle, body: &Bytes) -> Response {
    let began = Instant::now();
    if body.len() > BODY_BYTES_MAX {
        let what = format!("the request takes more than {BODY_BYTES_MAX} bytes");
        return error(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", what);
    }
    let request: ChatRequest = match Json::from_bytes(body) {
        Ok(Json(request)) => request,
        Err(rejection) => {
            return error(rejection.status(), "invalid_request_error", rejection.body_text());
        }
    };
    let Some(engine) = &shared.answering.engine else {
        return error(StatusCode::NOT_FOUND, "invalid_request_error", "nothing is served here");
    };
    if !engine.answers_to(&request.model) {
        let known = [engine.aliases.clone(), vec![engine.id.to_string()]].concat().join(", ");
        let what = format!("model {:?} is not served here (served: {known})", request.model);
        return error(StatusCode::NOT_FOUND, "invalid_request_error", what);
    }
    let turns = match request.turns() {
        Ok(turns) => turns,
        Err(what) => return error(StatusCode::BAD_REQUEST, "invalid_request_error", what),
    };
    let stops = match request.stops() {
        Ok(stops) => stops,
        Err(what) => return error(StatusCode::BAD_REQUEST, "invalid_request_error", what),
    };
    let subject = request.subject();
    let id = shared.capture.next_id(engine, &turns, subject.as_deref());
    let call = Call {
        engine: Arc::clone(engine),
        _under_way: shared.capture.begin(&id, subject.as_deref()),
        id,
        created: chrono::Utc::now().timestamp(),
        request,
        turns,
        stops,
        began,
    };
    if call.request.stream { streamed(shared, call) } else { whole(shared, call).await }
}

/// A call under way.
struct Call {
    engine: Arc<Engine>,
    id: String,
    created: i64,
    request: ChatRequest,
    turns: Vec<datasets::Turn>,
    stops: Vec<String>,
    began: Instant,
    _under_way: UnderWay,
}

impl Call {
    fn envelope(&self) -> Envelope<'_> {
        let (id, model) = (&self.id, &self.request.model);
        Envelope { id, model, created: self.created, engine: &self.engine }
    }

    /// Answers, and gives back what is to be recorded.
    fn answer(&self, text: &mut dyn FnMut(&str)) -> Result<Served, AppError> {
        let limit = self.request.limit();
        let (made, all) = self.engine.answer(&self.turns, (limit, &self.stops), text)?;
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

pub(super) fn failed(failure: &AppError) -> Response {
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

async fn whole(shared: Handle, call: Call) -> Response {
    let work = tokio::task::spawn_blocking(move || {
        let served = match call.answer(&mut |_| {}) {
            Ok(served) => served,
            Err(failure) => return failed(&failure),
        };
        let body = call.envelope().response(&served.made, &served.text);
        // The answer leaves first; recording follows and cannot delay or break it.
        tokio::task::spawn_blocking(move || {
            shared.capture.record(&call.engine, &served);
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
        let envelope = call.envelope();
        // A caller who left gets no more pieces; what was answered is recorded all the same.
        let send = |chunk: Value| drop(sender.send(chunk.to_string()));
        send(envelope.chunk(json!({ "role": "assistant", "content": "" }), None));
        let mut text = |piece: &str| send(envelope.chunk(json!({ "content": piece }), None));
        let answered = call.answer(&mut text);
        match &answered {
            Ok(served) => {
                send(envelope.chunk(json!({}), Some(&served.made)));
                if call.request.wants_usage() {
                    send(envelope.usage_chunk(&served.made));
                }
                drop(sender.send("[DONE]".to_owned()));
            }
            Err(failure) => {
                let what = json!({ "message": failure.to_string(), "type": "server_error" });
                send(json!({ "error": what }));
            }
        }
        // The answer ends here; recording follows and cannot delay it.
        drop(sender);
        if let Ok(served) = &answered {
            shared.capture.record(&call.engine, served);
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
