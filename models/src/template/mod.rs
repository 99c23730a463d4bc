//! Chat templates, rendered as transformers renders them.
//!
//! Templates are Jinja with the settings, functions and filters of transformers'
//! `chat_template_utils`. minijinja runs them; what Python would do otherwise (texts of values,
//! JSON, string methods, some filters) is done here.

mod clock;
mod data;
mod filters;
mod json;
mod python;
mod source;
mod spans;

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::globals;
use serde::{Deserialize, Serialize};

pub use self::clock::Clock;
use self::spans::{Recording, Sink};
use crate::error::ModelError;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text.
    pub content: String,
}

impl Message {
    /// Makes a message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What a template gets beside the messages.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Render up to where the assistant begins (`add_generation_prompt`).
    pub open: bool,
    /// What `strftime_now` shows; a template that asks for it without one is refused.
    pub clock: Option<Clock>,
    /// Tools on offer, as JSON schemas.
    pub tools: Option<serde_json::Value>,
    /// Documents to draw on.
    pub documents: Option<serde_json::Value>,
    /// Variables of the template's own, such as `enable_thinking`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its text.
    pub text: String,
    /// Bytes of the text that came from `{% generation %}` blocks, in order of their ends, at the
    /// places that transformers gives for its assistant mask.
    pub generated: Vec<Range<usize>>,
    /// How many of them are not where their text is. transformers takes a block to begin behind
    /// all that was written so far, which fails within macros, `set` blocks and other blocks.
    pub misplaced: usize,
}

/// A chat template of a model.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Reads a template (Jinja, with the settings and filters of transformers).
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub fn new(source: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_formatter(python::format);
        environment.set_unknown_method_callback(python::method);
        filters::add(&mut environment);
        environment.add_filter("tojson", json::to_json);
        environment.add_filter(source::GENERATION, spans::generation);
        environment.add_function("strftime_now", strftime_now);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("cycler", |values: Rest<Value>| globals::cycler(values.0));
        environment.add_function("joiner", globals::joiner);
        let rewritten = source::rewrite(source).map_err(ModelError::Template)?;
        environment.add_template_owned("chat", rewritten).map_err(failed)?;
        Ok(Self { environment, source: source.to_owned(), tokens: BTreeMap::new() })
    }

    /// Gives the template the texts of special tokens, by their names (`bos_token`, `eos_token`).
    #[must_use]
    pub fn with_tokens(mut self, tokens: impl IntoIterator<Item = (String, String)>) -> Self {
        self.tokens.extend(tokens);
        self
    }

    /// Returns the template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the special tokens that the template names.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.tokens.iter().filter(|(name, _)| self.source.contains(name.as_str()));
        named.map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Renders a conversation; with `open`, up to where the assistant begins.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn render(&self, messages: &[Message], open: bool) -> Result<String, ModelError> {
        let context = Context { open, ..Context::default() };
        Ok(self.run(data::messages(messages), &context)?.text)
    }

    /// Renders a conversation of any messages, with all that a template may ask for.
    ///
    /// As in transformers, members of a message that are null are left out, and reasoning goes
    /// by each name that templates have for it.
    ///
    /// # Errors
    /// When a message is no object, or the template refuses the conversation.
    pub fn render_with(
        &self,
        messages: &[serde_json::Value],
        context: &Context,
    ) -> Result<Rendered, ModelError> {
        let messages: Result<Vec<_>, _> = messages.iter().map(plain).collect();
        self.run(data::list(messages?.into_iter()), context)
    }

    fn run(&self, messages: Value, context: &Context) -> Result<Rendered, ModelError> {
        let recording = Recording::new(context.clock);
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, text) in &self.tokens {
            variables.insert(name, Value::from(text.as_str()));
        }
        for (name, value) in &context.extra {
            variables.insert(name, data::value(value));
        }
        variables.insert("messages", messages);
        let optional = |json: &Option<_>| json.as_ref().map_or(Value::from(()), data::value);
        variables.insert("tools", optional(&context.tools));
        variables.insert("documents", optional(&context.documents));
        variables.insert("add_generation_prompt", Value::from(context.open));
        variables.insert(spans::RECORDING, Value::from_dyn_object(recording.clone()));
        let mut sink = Sink::new(recording.clone());
        let template = self.environment.get_template("chat").map_err(failed)?;
        template.render_captured_to(Value::from(variables), &mut sink).map_err(failed)?;
        let text = sink.into_text().map_err(ModelError::Template)?;
        let (generated, misplaced) = recording.places(&text);
        Ok(Rendered { text, generated, misplaced })
    }
}

fn failed(error: Error) -> ModelError {
    ModelError::Template(error.to_string())
}

fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<String, Error> {
    let refused = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let clock = spans::recording(state)?.clock().ok_or_else(|| {
        refused("the template shows the time (strftime_now) and needs a clock".to_owned())
    })?;
    clock.format(format).map_err(refused)
}

/// Names that reasoning goes by; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Returns a message as transformers hands it to templates.
fn plain(message: &serde_json::Value) -> Result<Value, ModelError> {
    let Some(members) = message.as_object() else {
        let what = format!("a message is an object, this is not: {message}");
        return Err(ModelError::Template(what));
    };
    let present = members.iter().filter(|(_, value)| !value.is_null());
    let reasoning = REASONING.iter().find_map(|name| members.get(*name).filter(|v| !v.is_null()));
    let mut out = serde_json::Map::new();
    if let Some(reasoning) = reasoning {
        out.insert("thinking".to_owned(), reasoning.clone());
    }
    out.extend(present.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(reasoning) = reasoning {
        out.insert("reasoning_content".to_owned(), reasoning.clone());
    }
    Ok(data::value(&out.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn to_json_has_pythons_form() {
        let template = ChatTemplate::new("{{ messages | tojson }}").unwrap();
        let got = template.render(&[Message::new("user", "a<b> & 'é'\n")], false).unwrap();
        assert_eq!(got, r#"[{"role": "user", "content": "a<b> & 'é'\n"}]"#);
    }

    #[test]
    fn a_template_can_refuse() {
        let template = ChatTemplate::new("{{ raise_exception('no tools') }}").unwrap();
        assert!(template.render(&[], false).unwrap_err().to_string().contains("no tools"));
    }

    #[test]
    fn the_time_is_the_callers() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}").unwrap();
        let error = template.render(&[], false).unwrap_err().to_string();
        assert!(error.contains("needs a clock"), "{error}");
        let clock = Some(Clock::from_unix(0));
        let context = Context { clock, ..Context::default() };
        assert_eq!(template.render_with(&[], &context).unwrap().text, "01 Jan 1970");
    }

    #[test]
    fn only_the_tokens_that_are_named_count() {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let template = ChatTemplate::new("{{ bos_token }}").unwrap().with_tokens(tokens);
        assert_eq!(template.tokens().collect::<Vec<_>>(), [("bos_token", "<s>")]);
        assert_eq!(template.render(&[], false).unwrap(), "<s>");
    }
}
