//! Messages that a tracer printed instead of writing: `role='user' content='hi' tool_calls=None`,
//! as Python prints a pydantic model. Agno's tracer writes them.

use serde_json::{Map, Value};

use crate::literal;

/// Fields that a message is made of.
const KEPT: [&str; 4] = ["role", "content", "tool_calls", "tool_call_id"];
/// Fields with images, sounds and files, of which a message must have none.
const MEDIA: [&str; 4] = ["audio", "images", "videos", "files"];

/// Reads a message that was printed. None where a text is no such message.
pub(super) fn message(text: &str) -> Option<Result<Value, String>> {
    let mut rest = text.trim_start();
    let (mut message, mut unread) = (Map::new(), None);
    while let Some((name, behind)) = field(rest) {
        let Ok((value, length, _)) = literal::parse_prefix(behind) else {
            unread = Some(rest);
            break;
        };
        if MEDIA.contains(&name) && !value.is_null() {
            let what = "a message holds an image, a sound or a file, which is not kept";
            return Some(Err(what.to_owned()));
        }
        if KEPT.contains(&name) && !value.is_null() {
            message.insert(name.to_owned(), value);
        }
        rest = behind.get(length..).unwrap_or_default().trim_start();
    }
    if !message.get("role")?.is_string() {
        return None;
    }
    // What stands behind a value that only Python knows may be a part of the message.
    let hides = |unread: &str| {
        let mut needed = KEPT.iter().chain(&MEDIA);
        needed.any(|name| unread.split_whitespace().any(|word| is_field(word, name)))
    };
    if unread.is_some_and(hides) {
        return Some(Err("a printed message has a field that cannot be read".to_owned()));
    }
    Some(Ok(Value::Object(message)))
}

/// Takes the name of a field off, where one begins.
fn field(text: &str) -> Option<(&str, &str)> {
    let (name, behind) = text.split_once('=')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_value = !behind.starts_with(['=', ' ']);
    (!name.is_empty() && name.chars().all(is_name) && is_value).then_some((name, behind))
}

/// Says whether a word begins a field of this name that is not empty.
fn is_field(word: &str, name: &str) -> bool {
    let value = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    value.is_some_and(|value| value != "None")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_as_python_printed_them() {
        let printed = r#"role='assistant' content="it's\n\"so\" \\u2014" name=None
            tool_calls=[{'id': 'c', 'function': {'arguments': '{"a": 1}', 'name': 'f'}}]
            images=None metrics=Metrics(input=0, timer=<Timer object at 0x30>) created_at=1"#;
        let message = message(printed).unwrap().unwrap();
        let function = json!({ "arguments": "{\"a\": 1}", "name": "f" });
        let calls = json!([{ "id": "c", "function": function }]);
        let content = "it's\n\"so\" \\u2014";
        assert_eq!(
            message,
            json!({ "role": "assistant", "content": content, "tool_calls": calls })
        );
    }

    #[test]
    fn what_cannot_be_read_is_never_left_out() {
        let refused = |text: &str| message(text).unwrap().unwrap_err();
        let unread = "a printed message has a field that cannot be read";
        assert_eq!(refused("role='user' content=Image(url='x') name=None"), unread);
        assert_eq!(refused("role='user' when=At(1) content='hi'"), unread);
        assert_eq!(refused("role='user' content='a' x=X() tool_calls=[1]"), unread);
        let media = "a message holds an image, a sound or a file, which is not kept";
        assert_eq!(refused("role='user' content='a' images=['x']"), media);
        assert!(message("role='user' content='a' x=X() tool_calls=None").unwrap().is_ok());
    }

    #[test]
    fn other_texts_are_no_printed_messages() {
        for text in ["", "hi", "a=1", "role=1", "role == 'user'", "the role='user'", "role="] {
            assert_eq!(message(text), None, "{text}");
        }
    }
}
