//! JSON as templates see it: lists and dicts that show themselves as Python would.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde_json::Value as Json;

use super::Message;
use super::python;

#[derive(Debug)]
struct List(Vec<Value>);

#[derive(Debug)]
struct Dict {
    /// In order.
    keys: Vec<Value>,
    members: BTreeMap<String, Value>,
}

/// Turns JSON into a value.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(v) => Value::from(*v),
        Json::Number(v) => Value::from_serialize(v),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => list(items.iter().map(value)),
        Json::Object(members) => dict(members.iter().map(|(key, member)| (key, value(member)))),
    }
}

/// Turns messages into a value.
pub(super) fn messages(messages: &[Message]) -> Value {
    list(messages.iter().map(|message| {
        let members = [("role", &message.role), ("content", &message.content)];
        dict(members.into_iter().map(|(key, text)| (key, Value::from(text.as_str()))))
    }))
}

pub(super) fn list(items: impl Iterator<Item = Value>) -> Value {
    Value::from_object(List(items.collect()))
}

fn dict(members: impl Iterator<Item = (impl Into<String>, Value)>) -> Value {
    let mut keys = Vec::new();
    let members = members.map(|(key, value)| {
        let key = key.into();
        keys.push(Value::from(key.as_str()));
        (key, value)
    });
    let members = members.collect();
    Value::from_object(Dict { keys, members })
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::text(&Value::from_dyn_object(self.clone())))
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.members.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.keys.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::text(&Value::from_dyn_object(self.clone())))
    }
}
