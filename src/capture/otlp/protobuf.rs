//! Bodies of protobuf.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datasets::span::{Span, SpanEvent};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Held;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use serde_json::{Map, Number, Value};

use super::{Common, Export, OtlpError, blank, micros, whole};

/// Reads a body whose parts were counted.
pub(super) fn read(body: &[u8]) -> Result<Export, OtlpError> {
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|error| OtlpError::Malformed(error.to_string()))?;
    let mut export = Export::default();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| resource.attributes);
        let mut common = Common::new(attributes(resource.unwrap_or_default()));
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.unwrap_or_default();
            common.scoped(&scope.name, &scope.version);
            for sent in of_scope.spans {
                let ids =
                    [sent.trace_id.clone(), sent.span_id.clone(), sent.parent_span_id.clone()];
                let [trace, own, parent] = &ids;
                export.put(&common, [trace, own, parent], span(sent))?;
            }
        }
    }
    Ok(export)
}

fn span(sent: Sent) -> Span {
    let status = sent.status.unwrap_or_default();
    let event = |event: opentelemetry_proto::tonic::trace::v1::span::Event| SpanEvent {
        name: event.name,
        at_us: micros(event.time_unix_nano),
        attributes: attributes(event.attributes),
    };
    Span {
        name: sent.name,
        start_us: micros(sent.start_time_unix_nano),
        end_us: (sent.end_time_unix_nano > 0).then(|| micros(sent.end_time_unix_nano)),
        attributes: attributes(sent.attributes),
        events: sent.events.into_iter().map(event).collect(),
        is_error: status.code == StatusCode::Error as i32,
        status_message: status.message,
        ..blank()
    }
}

fn attributes(sent: Vec<KeyValue>) -> Map<String, Value> {
    sent.into_iter().map(|KeyValue { key, value, .. }| (key, value_of(value))).collect()
}

fn value_of(sent: Option<AnyValue>) -> Value {
    match sent.and_then(|sent| sent.value) {
        None | Some(Held::StringValueStrindex(_)) => Value::Null,
        Some(Held::StringValue(text)) => Value::String(text),
        Some(Held::BoolValue(value)) => Value::Bool(value),
        Some(Held::IntValue(value)) => whole(value),
        // JSON has no infinity, and nothing else that is no number.
        Some(Held::DoubleValue(value)) => {
            Number::from_f64(value).map_or_else(|| Value::from(value.to_string()), Value::Number)
        }
        Some(Held::ArrayValue(all)) => {
            all.values.into_iter().map(|value| value_of(Some(value))).collect()
        }
        Some(Held::KvlistValue(all)) => Value::Object(attributes(all.values)),
        Some(Held::BytesValue(bytes)) => Value::String(BASE64.encode(&bytes)),
    }
}
