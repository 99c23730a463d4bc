//! Chat templates, rendered as transformers renders them.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

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

/// A chat template of a model.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
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
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        let failed = |e: Error| ModelError::Template(e.to_string());
        environment.add_template_owned("chat", source.to_owned()).map_err(failed)?;
        Ok(Self { environment, source: source.to_owned() })
    }

    /// Returns the template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation; with `open`, up to where the assistant begins.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn render(&self, messages: &[Message], open: bool) -> Result<String, ModelError> {
        let failed = |e: Error| ModelError::Template(e.to_string());
        let template = self.environment.get_template("chat").map_err(failed)?;
        template
            .render(minijinja::context! { messages, add_generation_prompt => open })
            .map_err(failed)
    }
}

/// `tojson` as transformers has it: Python's separators, key order kept, nothing escaped for HTML.
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut out = String::new();
    write_json(&value, indent, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

fn write_json(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    let wrong = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let separator = if indent.is_some() { "," } else { ", " };
    let line = |depth: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let (open, close) = match value.kind() {
        ValueKind::Map => ('{', '}'),
        ValueKind::Seq | ValueKind::Iterable => ('[', ']'),
        _ => {
            out.push_str(&serde_json::to_string(value).map_err(wrong)?);
            return Ok(());
        }
    };
    out.push(open);
    let mut any = false;
    for item in value.try_iter()? {
        if any {
            out.push_str(separator);
        }
        any = true;
        line(depth + 1, out);
        if open == '{' {
            out.push_str(&serde_json::to_string(&item.to_string()).map_err(wrong)?);
            out.push_str(": ");
            write_json(&value.get_item(&item)?, indent, depth + 1, out)?;
        } else {
            write_json(&item, indent, depth + 1, out)?;
        }
    }
    if any {
        line(depth, out);
    }
    out.push(close);
    Ok(())
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
}
