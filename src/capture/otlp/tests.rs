#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Held;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Sent, Status};
use prost::Message as _;
use serde_json::json;

use super::*;

fn value(held: Held) -> Option<AnyValue> {
    Some(AnyValue { value: Some(held) })
}

fn pair(key: &str, held: Held) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value(held), ..KeyValue::default() }
}

fn text(text: &str) -> Held {
    Held::StringValue(text.to_owned())
}

fn sent() -> Sent {
    let list =
        ArrayValue { values: vec![AnyValue { value: Some(text("a")) }, AnyValue { value: None }] };
    let inner = KeyValueList { values: vec![pair("deep", Held::IntValue(i64::MAX))] };
    Sent {
        trace_id: vec![0x0a; 16],
        span_id: vec![0x0b; 8],
        parent_span_id: vec![0x0c; 8],
        name: "chat".to_owned(),
        start_time_unix_nano: 1_700_000_000_123_456_789,
        end_time_unix_nano: 1_700_000_001_000_000_000,
        attributes: vec![
            pair("text", text("é")),
            pair("truth", Held::BoolValue(true)),
            pair("whole", Held::IntValue(-7)),
            pair("part", Held::DoubleValue(0.5)),
            pair("list", Held::ArrayValue(list)),
            pair("map", Held::KvlistValue(inner)),
        ],
        events: vec![Event {
            time_unix_nano: 1_700_000_000_500_000_000,
            name: "said".to_owned(),
            attributes: vec![pair("n", Held::IntValue(1))],
            dropped_attributes_count: 0,
        }],
        status: Some(Status { message: "broke".to_owned(), code: 2 }),
        ..Sent::default()
    }
}

fn request(spans: Vec<Sent>) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        ..InstrumentationScope::default()
    };
    let service = pair("service.name", text("Web Shop"));
    let resource = Resource { attributes: vec![service], ..Resource::default() };
    let of_scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let of_resource = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![of_scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
}

fn as_json() -> String {
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": "Web Shop" } },
        ] },
        "scopeSpans": [{ "scope": { "name": "lib", "version": "1.2" }, "spans": [{
            "traceId": "0A".repeat(16), "spanId": "0b".repeat(8), "parentSpanId": "0c".repeat(8),
            "name": "chat", "kind": 3,
            "startTimeUnixNano": "1700000000123456789", "endTimeUnixNano": 1700000001000000000_u64,
            "attributes": [
                { "key": "text", "value": { "stringValue": "é" } },
                { "key": "truth", "value": { "boolValue": true } },
                { "key": "whole", "value": { "intValue": "-7" } },
                { "key": "part", "value": { "doubleValue": 0.5 } },
                { "key": "list", "value": { "arrayValue": { "values": [
                    { "stringValue": "a" }, {},
                ] } } },
                { "key": "map", "value": { "kvlistValue": { "values": [
                    { "key": "deep", "value": { "intValue": i64::MAX.to_string() } },
                ] } } },
            ],
            "events": [{
                "timeUnixNano": "1700000000500000000", "name": "said",
                "attributes": [{ "key": "n", "value": { "intValue": 1 } }],
            }],
            "status": { "code": "STATUS_CODE_ERROR", "message": "broke" },
        }] }],
    }] })
    .to_string()
}

#[test]
fn both_encodings_say_the_same() {
    let from_protobuf = read(&request(vec![sent()]), Encoding::Protobuf).unwrap();
    let from_json = read(as_json().as_bytes(), Encoding::Json).unwrap();
    assert_eq!(from_protobuf, from_json);
    let [span] = from_json.sources["otlp/web-shop"].as_slice() else { panic!("one span") };
    assert_eq!(span.external_id(), format!("{}/{}", "0a".repeat(16), "0b".repeat(8)));
    assert_eq!(span.parent_id.as_deref(), Some("0c0c0c0c0c0c0c0c"));
    assert_eq!((span.start_us, span.end_us), (1_700_000_000_123_456, Some(1_700_000_001_000_000)));
    assert_eq!((span.is_error, span.status_message.as_str()), (true, "broke"));
    assert_eq!(span.attributes["list"], json!(["a", null]));
    assert_eq!(span.attributes["map"], json!({ "deep": i64::MAX.to_string() }));
    assert_eq!(span.scope, "lib 1.2");
    assert_eq!(span.events[0].at_us, 1_700_000_000_500_000);
}

#[test]
fn spans_without_proper_ids_are_rejected_alone() {
    let nameless = Sent { span_id: Vec::new(), ..sent() };
    let zero = Sent { trace_id: vec![0; 16], ..sent() };
    let export = read(&request(vec![nameless, sent(), zero]), Encoding::Protobuf).unwrap();
    assert_eq!((export.spans(), export.rejected), (1, 2));
    assert!(export.reason.contains("16 bytes"), "{}", export.reason);
}

fn length(bytes: usize) -> Vec<u8> {
    let (mut rest, mut varint) = (bytes, Vec::new());
    while rest >= 0x80 {
        varint.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    varint.push(rest as u8);
    varint
}

/// Wraps bytes as field `tag` of a message.
fn field(tag: u8, held: &[u8]) -> Vec<u8> {
    [vec![tag << 3 | 2], length(held.len()), held.to_vec()].concat()
}

#[test]
fn absurd_counts_cost_nothing() {
    // Two bytes for each span: thirty million of them, of some hundred bytes each in memory.
    let spans = [0x12, 0x00].repeat(30_000_000);
    let body = field(1, &field(2, &spans));
    let refused = read(&body, Encoding::Protobuf).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { what: "parts", .. }), "{refused}");
    let spans = "{},".repeat(20_000_000);
    let body = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{spans}{{}}]}}]}}]}}");
    let refused = read(body.as_bytes(), Encoding::Json).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { what: "parts", .. }), "{refused}");
}

#[test]
fn what_stands_within_texts_and_for_all_spans_is_counted_too() {
    let list = format!("[{}0]", "0,".repeat(PARTS_MAX));
    let many = Sent { attributes: vec![pair("gen_ai.prompt", text(&list))], ..sent() };
    let refused = read(&request(vec![many]), Encoding::Protobuf).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { what: "parts", .. }), "{refused}");
    let note = "x".repeat(1 << 20);
    let resource = Resource { attributes: vec![pair("note", text(&note))], ..Resource::default() };
    let spans = vec![sent(); COMMON_BYTES_MAX / note.len() + 1];
    let of_resource = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    let body = ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec();
    let refused = read(&body, Encoding::Protobuf).unwrap_err();
    assert!(refused.to_string().contains("resources"), "{refused}");
    // A resource's entities, of two bytes each.
    let entity = field(3, &[0x1a, 0x00].repeat(PARTS_MAX + 1));
    let refused = read(&field(1, &field(1, &entity)), Encoding::Protobuf).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { what: "parts", .. }), "{refused}");
    let refused = read(&request(vec![sent(); SPANS_MAX + 1]), Encoding::Protobuf).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { what: "spans", .. }), "{refused}");
}

#[test]
fn absurd_depth_costs_nothing() {
    let mut value = field(1, b"x");
    for _ in 0..100_000 {
        // An array within a value: the first bytes would be enough.
        value = field(5, &field(1, &value));
        if value.len() > 100_000 {
            break;
        }
    }
    let attribute = field(9, &field(2, &value));
    let body = field(1, &field(2, &field(2, &attribute)));
    let refused = read(&body, Encoding::Protobuf).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { .. }), "{refused}");
    let body = format!("{{\"resourceSpans\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let refused = read(body.as_bytes(), Encoding::Json).unwrap_err();
    assert!(matches!(refused, OtlpError::TooLarge { .. }), "{refused}");
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_is_packed_is_unpacked_up_to_a_bound() {
    let body = request(vec![sent()]);
    assert_eq!(unpacked(&packed(&body)).unwrap(), body);
    let bomb = packed(&vec![0; BODY_BYTES_MAX + 1]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(unpacked(&bomb), Err(OtlpError::TooLarge { what: "bytes", .. })));
    let damaged = packed(&body);
    assert!(matches!(unpacked(&damaged[..damaged.len() - 9]), Err(OtlpError::Malformed(_))));
    assert!(matches!(unpacked(b"no gzip"), Err(OtlpError::Malformed(_))));
}

#[test]
fn damaged_bodies_are_read_or_refused() {
    for (body, encoding) in
        [(request(vec![sent()]), Encoding::Protobuf), (as_json().into_bytes(), Encoding::Json)]
    {
        for end in 0..body.len() {
            let _ = read(&body[..end], encoding);
        }
        for place in 0..body.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = body.clone();
                damaged[place] ^= change;
                let _ = read(&damaged, encoding);
            }
        }
    }
    for text in ["", "[]", "{\"resourceSpans\":7}", "{\"resourceSpans\":[7]}", "nul"] {
        let refused = read(text.as_bytes(), Encoding::Json).unwrap_err();
        assert!(matches!(refused, OtlpError::Malformed(_)), "{text}: {refused}");
    }
    assert_eq!(read(b"{}", Encoding::Json).unwrap().spans(), 0);
    assert_eq!(read(b"", Encoding::Protobuf).unwrap().spans(), 0);
}

#[test]
fn services_name_sources() {
    let source = |service: &str| {
        let resource = json!({ "service.name": service });
        source_of(resource.as_object().unwrap())
    };
    assert_eq!(source("unknown_service:python"), "otlp");
    assert_eq!(source(" "), "otlp");
    assert_eq!(source("a/../b\u{7}Ü"), "otlp/a-..-b--");
    assert_eq!(source(&"x".repeat(500)).len(), "otlp/".len() + SERVICE_MAX);
    assert_eq!(source_of(&Map::new()), "otlp");
}
