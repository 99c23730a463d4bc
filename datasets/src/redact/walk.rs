//! All texts of an episode, in one order.

use serde_json::{Map, Number, Value};

use crate::episode::{Call, Episode, Gold};

/// What is done to each text.
pub(super) trait Edit {
    /// Changes a text; `key` names the member that holds it, where it is a leaf of a JSON value.
    fn text(&mut self, text: &mut String, key: Option<&str>);

    /// Returns the text that a number gives way to.
    fn number(&mut self, _number: &Number) -> Option<String> {
        None
    }
}

/// Something that has texts.
pub(super) trait Texts {
    /// Shows all texts to `edit`, always in the same order.
    fn each(&mut self, edit: &mut dyn Edit);
}

impl Texts for String {
    fn each(&mut self, edit: &mut dyn Edit) {
        edit.text(self, None);
    }
}

impl Texts for Value {
    fn each(&mut self, edit: &mut dyn Edit) {
        leaves(self, None, Keys::AreTexts, edit);
    }
}

impl Texts for Episode {
    fn each(&mut self, edit: &mut dyn Edit) {
        for turn in &mut self.turns {
            edit.text(&mut turn.content, None);
            calls(&mut turn.tool_calls, edit);
        }
        for tool in &mut self.tools {
            edit.text(&mut tool.name, None);
            edit.text(&mut tool.description, None);
            // The members of a schema name parameters and say nothing of what its leaves hold. A
            // name in `properties` and in `required` is one value and has one placeholder.
            leaves(&mut tool.parameters, None, Keys::AreNames, edit);
        }
        gold(&mut self.gold, edit);
        if let Some(answer) = &mut self.answer {
            edit.text(&mut answer.model, None);
            answer.text.iter_mut().for_each(|text| edit.text(text, None));
            calls(&mut answer.calls, edit);
        }
        edit.text(&mut self.query, None);
    }
}

/// What the names of members, which are texts as well, say of their values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Nothing: they are words of a schema, and names of parameters.
    AreNames,
    /// What the value is.
    AreTexts,
}

fn gold(gold: &mut Gold, edit: &mut dyn Edit) {
    match gold {
        Gold::None | Gold::NoCall => {}
        Gold::Calls { calls: of_gold } => calls(of_gold, edit),
        Gold::Json { value } => leaves(value, None, Keys::AreTexts, edit),
        Gold::Text { text } => edit.text(text, None),
        Gold::AnyOf { calls: of_gold, options, .. } => {
            calls(of_gold, edit);
            for of_call in options {
                for (mut key, mut values) in std::mem::take(of_call) {
                    let name = key.clone();
                    edit.text(&mut key, None);
                    let each = |value| leaves(value, Some(&name), Keys::AreTexts, edit);
                    values.iter_mut().for_each(each);
                    of_call.entry(key).or_default().append(&mut values);
                }
            }
        }
    }
}

fn calls(calls: &mut [Call], edit: &mut dyn Edit) {
    for call in calls {
        edit.text(&mut call.name, None);
        members(&mut call.arguments, Keys::AreTexts, edit);
    }
}

fn leaves(value: &mut Value, key: Option<&str>, keys: Keys, edit: &mut dyn Edit) {
    match value {
        Value::String(text) => edit.text(text, key),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| leaves(item, key, keys, edit));
        }
        Value::Object(object) => members(object, keys, edit),
        Value::Number(number) => {
            if let Some(text) = edit.number(number) {
                *value = Value::String(text);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn members(object: &mut Map<String, Value>, keys: Keys, edit: &mut dyn Edit) {
    let (mut renamed, mut name) = (Vec::new(), String::new());
    for (place, (key, value)) in object.iter_mut().enumerate() {
        name.clone_from(key);
        edit.text(&mut name, None);
        let of_value = (keys == Keys::AreTexts).then_some(key.as_str());
        leaves(value, of_value, keys, edit);
        if name != *key {
            renamed.push((place, std::mem::take(&mut name)));
        }
    }
    if renamed.is_empty() {
        return;
    }
    let mut renamed = renamed.into_iter().peekable();
    for (place, (key, value)) in std::mem::take(object).into_iter().enumerate() {
        let new = renamed.next_if(|(renamed, _)| *renamed == place);
        let mut key = new.map_or(key, |(_, key)| key);
        // Two names that differ in their case only have one placeholder: neither may be lost.
        while object.contains_key(&key) {
            key.push('_');
        }
        object.insert(key, value);
    }
}
