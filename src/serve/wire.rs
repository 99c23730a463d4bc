//! The bytes on the wire: OpenAI's chat completions, as far as they are served.

use datasets::Turn;
use models::decode::Generation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::engine::Engine;
use crate::capture::bounded_name;

/// A request for a chat completion. Unknown fields are ignored, as OpenAI's clients expect.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    /// Model that should answer.
    pub(super) model: String,
    /// The conversation.
    pub(super) messages: Vec<ChatMessage>,
    /// Send the answer piece by piece.
    #[serde(default)]
    pub(super) stream: bool,
    /// Options of a stream.
    pub(super) stream_options: Option<StreamOptions>,
    /// Most new tokens (older name).
    pub(super) max_tokens: Option<u32>,
    /// Most new tokens.
    pub(super) max_completion_tokens: Option<u32>,
    /// Text before which the answer ends, or a list of such.
    #[serde(default)]
    stop: Value,
    /// Tools that may be called.
    #[serde(default)]
    pub(super) tools: Vec<Value>,
    /// Whose call it is (newer name).
    pub(super) safety_identifier: Option<String>,
    /// Whose call it is (older name).
    pub(super) user: Option<String>,
}

/// Options of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    /// End with a chunk that tells the usage.
    #[serde(default)]
    pub(super) include_usage: bool,
}

/// One message.
#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Value,
    tool_calls: Option<Value>,
}

impl ChatRequest {
    /// Returns whose call it is.
    pub(super) fn subject(&self) -> Option<String> {
        let named = self.safety_identifier.iter().chain(&self.user);
        named
            .map(|name| name.trim())
            .find(|name| !name.is_empty())
            .map(str::to_owned)
            .map(bounded_name)
    }

    /// Returns the conversation as turns.
    pub(super) fn turns(&self) -> Result<Vec<Turn>, String> {
        if self.messages.is_empty() {
            return Err("messages is empty".to_owned());
        }
        // Dropping them in silence would answer another question than the one that was asked.
        if !self.tools.is_empty() {
            return Err("this deployment's template renders no tools: describe them in the \
                        prompt, as in training"
                .to_owned());
        }
        let turn = |(at, message): (usize, &ChatMessage)| {
            let content = message.text().map_err(|e| format!("messages[{at}].content {e}"))?;
            Ok(Turn::text(&message.role, content))
        };
        self.messages.iter().enumerate().map(turn).collect()
    }

    /// Returns the texts before which the answer ends.
    pub(super) fn stops(&self) -> Result<Vec<String>, String> {
        let wrong = || "stop is a text, or a list of up to four".to_owned();
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
        match &self.stop {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) if list.len() <= 4 => list.iter().map(text).collect(),
            one => Ok(vec![text(one)?]),
        }
    }

    /// Returns the most new tokens that are asked for.
    pub(super) fn limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Says whether the stream should end with the usage.
    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }
}

impl ChatMessage {
    fn text(&self) -> Result<String, String> {
        if self.tool_calls.is_some() {
            return Err("comes with tool_calls, which this deployment's template does not \
                        render"
                .to_owned());
        }
        match &self.content {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            Value::Array(parts) => parts
                .iter()
                .map(|part| match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text"), Some(text)) => Ok(text.to_owned()),
                    (kind, _) => Err(format!("has a part of type {kind:?}; only text is served")),
                })
                .collect(),
            _ => Err("is neither text nor a list of parts".to_owned()),
        }
    }
}

/// What every response and chunk says of the deployment that answers.
fn who(engine: &Engine) -> Value {
    json!({
        "id": engine.id,
        "aliases": engine.aliases,
        "marks": engine.marks(),
        "base": engine.deployment.base,
        "adapter": engine.deployment.adapter,
        "cep": engine.deployment.cep,
    })
}

fn finish_reason(made: &Generation) -> &'static str {
    made.ended.name()
}

fn usage(made: &Generation) -> Value {
    let (prompt, answer) = (made.prompt_tokens, made.ids.len());
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    })
}

/// The parts of a response that its pieces share.
pub(super) struct Envelope<'a> {
    /// Response id.
    pub(super) id: &'a str,
    /// Model that was asked for.
    pub(super) model: &'a str,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// Who answers.
    pub(super) engine: &'a Engine,
}

impl Envelope<'_> {
    fn wrap(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.engine.id.short(),
            "deployment": who(self.engine),
            "choices": choices,
        })
    }

    /// Makes a whole response.
    pub(super) fn response(&self, made: &Generation, text: &str) -> Value {
        let choice = json!({
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "logprobs": null,
            "finish_reason": finish_reason(made),
        });
        let mut response = self.wrap("chat.completion", json!([choice]));
        response["usage"] = usage(made);
        response
    }

    /// Makes a chunk with a piece of text.
    pub(super) fn chunk(&self, delta: Value, finish: Option<&Generation>) -> Value {
        let reason = finish.map(finish_reason);
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
        self.wrap("chat.completion.chunk", json!([choice]))
    }

    /// Makes the chunk that tells the usage.
    pub(super) fn usage_chunk(&self, made: &Generation) -> Value {
        let mut chunk = self.wrap("chat.completion.chunk", json!([]));
        chunk["usage"] = usage(made);
        chunk
    }
}
