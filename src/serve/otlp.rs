//! OTLP/HTTP: spans from tracers, as OpenTelemetry's and Langfuse's SDKs send them.
//!
//! An export is answered once its spans are durable. What cannot be recorded now is answered with
//! a status after which exporters send it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ledger::Notebook;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use super::body::Room;
use crate::capture::SpanIntake;
use crate::capture::otlp::{self, Encoding, Export, OtlpError};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Talk};

/// Most bytes of a body as it comes.
const BODY_BYTES_MAX: usize = 32 << 20;
/// Exports that are unpacked and read at once: each may take hundreds of megabytes.
const AT_ONCE: usize = 2;
/// How long an export may wait for its turn.
const TURN: Duration = Duration::from_secs(20);
/// Seconds after which an exporter may try again.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// Takes exports.
pub(super) struct Receiver {
    notebook: Notebook,
    actor: String,
    intake: Mutex<SpanIntake>,
    turns: Arc<Semaphore>,
    spans: AtomicU64,
    rejected: AtomicU64,
}

/// The body of a refusal (`google.rpc.Status`), as OTLP asks for it.
#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Receiver {
    pub(super) fn new(notebook: Notebook, actor: &str) -> Self {
        let intake = Mutex::new(SpanIntake::new());
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let (spans, rejected) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { notebook, actor: actor.to_owned(), intake, turns, spans, rejected }
    }

    /// Counts (spans that were taken, spans that could not be).
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.spans.load(Ordering::Relaxed), self.rejected.load(Ordering::Relaxed))
    }

    /// Reads the record through, so that the first export need not wait for it.
    pub(super) fn prepare(&self) {
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        // Where that fails, the first export says why.
        let _ = intake.prepare(&self.lab());
    }

    fn lab(&self) -> Lab<'_> {
        Lab { notebook: &self.notebook, actor: &self.actor, talk: Talk { quiet: true } }
    }

    /// Unpacks, reads and records an export.
    fn take(&self, body: &[u8], encoding: Encoding, is_packed: bool) -> Result<Done, Failure> {
        let unpacked = if is_packed { Some(otlp::unpacked(body)?) } else { None };
        let export = otlp::read(unpacked.as_deref().unwrap_or(body), encoding)?;
        drop(unpacked);
        let lab = self.lab();
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        let Export { sources, mut rejected, mut reason, .. } = export;
        let taken = intake.take_all(&lab, sources)?;
        if taken.refused > 0 {
            rejected += taken.refused;
            "a span is too large for an event".clone_into(&mut reason);
        }
        self.spans.fetch_add(taken.spans, Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
        Ok(Done { rejected, reason })
    }
}

/// What came of an export.
struct Done {
    rejected: u64,
    reason: String,
}

enum Failure {
    Body(OtlpError),
    Record(Box<AppError>),
}

impl From<OtlpError> for Failure {
    fn from(error: OtlpError) -> Self {
        Self::Body(error)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::Record(Box::new(error))
    }
}

/// Takes an export.
pub(super) async fn export(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(encoding) = encoding_of(&headers) else {
        let what = "say how it is written: content-type application/x-protobuf or application/json";
        return refusal(Encoding::Json, StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    };
    let Some(is_packed) = is_packed(&headers) else {
        let what = "it may be packed with gzip, or not at all";
        return refusal(encoding, StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    };
    let (body, room) = match shared.capture_bodies.read(body, BODY_BYTES_MAX).await {
        Ok(read) => read,
        Err(refused) => {
            let (status, what) = refused.said();
            return refusal(encoding, status, &what);
        }
    };
    let turns = Arc::clone(&shared.receiver.turns);
    let Ok(Ok(turn)) = tokio::time::timeout(TURN, turns.acquire_owned()).await else {
        let what = "too many exports at once: send it again";
        return refusal(encoding, StatusCode::SERVICE_UNAVAILABLE, what);
    };
    match work(Arc::clone(&shared), body, (encoding, is_packed), (room, turn)).await {
        Ok(done) => success(encoding, done),
        Err(Failure::Body(error)) => {
            let status = match &error {
                OtlpError::Malformed(_) => StatusCode::BAD_REQUEST,
                OtlpError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            };
            refusal(encoding, status, &error.to_string())
        }
        // Whatever the record cannot take now, it may take later: nothing is to be thrown away.
        Err(Failure::Record(error)) => {
            let what = format!("the spans could not be recorded: {error}");
            refusal(encoding, StatusCode::SERVICE_UNAVAILABLE, &what)
        }
    }
}

async fn work(
    shared: Arc<Shared>,
    body: Bytes,
    (encoding, is_packed): (Encoding, bool),
    held: (Room, OwnedSemaphorePermit),
) -> Result<Done, Failure> {
    let under_way = shared.capture.enter();
    let work = tokio::task::spawn_blocking(move || {
        let done = shared.receiver.take(&body, encoding, is_packed);
        // Held until here: whoever asked may have left long ago.
        drop((held, under_way));
        done
    });
    let broke = |_| AppError::said(Kind::Internal, "reading them broke off");
    work.await.map_err(broke).map_err(Failure::from)?
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match kind.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Encoding::Protobuf),
        "application/json" => Some(Encoding::Json),
        _ => None,
    }
}

/// Says whether a body is packed with gzip; none where it is packed otherwise.
fn is_packed(headers: &HeaderMap) -> Option<bool> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Some(false) };
    match encoding.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Some(true),
        "identity" | "none" | "" => Some(false),
        _ => None,
    }
}

fn success(encoding: Encoding, Done { rejected, reason }: Done) -> Response {
    let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
    match encoding {
        Encoding::Protobuf => {
            let partial =
                ExportTracePartialSuccess { rejected_spans: rejected, error_message: reason };
            let partial_success = Some(partial).filter(|partial| partial.rejected_spans > 0);
            protobuf(StatusCode::OK, ExportTraceServiceResponse { partial_success }.encode_to_vec())
        }
        Encoding::Json if rejected == 0 => Json(json!({})).into_response(),
        Encoding::Json => {
            // Whole numbers of 64 bits are texts in protobuf's JSON.
            let partial = json!({ "rejectedSpans": rejected.to_string(), "errorMessage": reason });
            Json(json!({ "partialSuccess": partial })).into_response()
        }
    }
}

fn refusal(encoding: Encoding, status: StatusCode, what: &str) -> Response {
    // Codes of gRPC: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE.
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        _ => 3,
    };
    let mut response = match encoding {
        Encoding::Protobuf => {
            protobuf(status, Refusal { code, message: what.to_owned() }.encode_to_vec())
        }
        Encoding::Json => {
            let body: Value = json!({ "code": code, "message": what });
            (status, Json(body)).into_response()
        }
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, AGAIN);
    }
    response
}

fn protobuf(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/x-protobuf")], body).into_response()
}
