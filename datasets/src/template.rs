//! The prompt templates that single-prompt rows use, and the query inside them.
//!
//! Rows of the form `{prompt, completion}` carry the user's request inside a template. The query
//! must be found without it, or the same question under another template passes for a new one.

use serde_json::{Map, Value};

use crate::episode::Tool;
use crate::signature::{parse_signature, schema_of_loose};

/// What a templated prompt says.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Name of the template.
    pub template: Template,
    /// The user's request.
    pub query: String,
    /// Tools that the prompt offers or names.
    pub tools: Vec<Tool>,
}

/// A known prompt template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Signature, description and `Request: ...`; wants one wrapped call.
    Toolcall,
    /// `Query: ...`, then `Chosen tool: ...`; wants one JSON object.
    Structured,
    /// The query, then `Tool: ...` with loose parameter types; wants one wrapped call.
    ToolcallWide,
    /// The query, then `Available tools:`; wants a JSON array of all calls.
    StructuredWide,
}

/// Reads a prompt that was made from a known template.
pub fn parse_prompt(prompt: &str) -> Option<Parsed> {
    toolcall(prompt)
        .or_else(|| structured(prompt))
        .or_else(|| structured_wide(prompt))
        .or_else(|| toolcall_wide(prompt))
}

/// Returns the query inside `prompt`, or the whole of it where no template is known.
pub fn query_of(prompt: &str) -> String {
    parse_prompt(prompt).map_or_else(|| prompt.trim().to_owned(), |parsed| parsed.query)
}

/// Normalises a query: lower case, white space collapsed, trailing punctuation dropped.
pub fn normalise_query(query: &str) -> String {
    let lower = query.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let is_end = |c: char| c.is_whitespace() || ".,;:!?…。，！？".contains(c);
    words.join(" ").trim_end_matches(is_end).to_owned()
}

fn toolcall(prompt: &str) -> Option<Parsed> {
    let (head, query) = prompt.split_once("\nRequest: ")?;
    let mut tool = head.lines().find_map(|line| {
        line.strip_prefix("Tool signature: ").map(|signature| parse_signature(signature.trim()))
    })?;
    if let Some((_, description)) = head.split_once("\nTool description: ") {
        tool.description = description.trim().to_owned();
    }
    Some(Parsed { template: Template::Toolcall, query: query.trim().to_owned(), tools: vec![tool] })
}

fn structured(prompt: &str) -> Option<Parsed> {
    let (head, tail) = prompt.rsplit_once("\nChosen tool: ")?;
    let query = head.split_once("\nQuery: ").map(|(_, query)| query)?;
    let name = tail.lines().next().unwrap_or_default().trim().to_owned();
    Some(Parsed {
        template: Template::Structured,
        query: query.trim().to_owned(),
        tools: vec![Tool { name, description: String::new(), parameters: Value::Null }],
    })
}

fn structured_wide(prompt: &str) -> Option<Parsed> {
    let (query, tail) = prompt.split_once("\n\nAvailable tools:")?;
    let mut tools: Vec<Tool> = Vec::new();
    for line in tail.lines().skip(1).take_while(|line| !line.trim().is_empty()) {
        let entry = line.strip_prefix("- ").and_then(|entry| entry.split_once(':'));
        match (entry, tools.last_mut()) {
            (Some((name, description)), _) => tools.push(Tool {
                name: name.trim().to_owned(),
                description: description.trim().to_owned(),
                parameters: Value::Null,
            }),
            (None, Some(last)) => {
                last.description.push('\n');
                last.description.push_str(line.trim());
            }
            (None, None) => {}
        }
    }
    Some(Parsed { template: Template::StructuredWide, query: query.trim().to_owned(), tools })
}

fn toolcall_wide(prompt: &str) -> Option<Parsed> {
    let (query, tail) = prompt.split_once("\n\nTool: ")?;
    let name = tail.lines().next().unwrap_or_default().trim().to_owned();
    let parameters = tail.split_once("\nParameters: ").and_then(|(_, text)| {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>();
        values.next()?.ok()
    });
    let parameters = parameters.map_or(Value::Null, |loose| schema_of_loose(&loose));
    Some(Parsed {
        template: Template::ToolcallWide,
        query: query.trim().to_owned(),
        tools: vec![Tool { name, description: String::new(), parameters }],
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_query_under_four_templates() {
        let prompts = [
            "Respond so.\nTool signature: add(a:int, b:int, optional)\nTool description: Adds.\n\
             Request: What is 1 + 2?",
            "Return JSON.\nQuery: What is 1 + 2?\nChosen tool: add\nMirror.",
            "What is 1 + 2?\n\nAvailable tools:\n- add: Adds: quickly.\n- sub: Subtracts.\n\nGo.",
            "What is 1 + 2?\n\nTool: add\nParameters: {\"a\": {\"type\": \"int\"}}\n\nCall it.",
        ];
        let templates = [
            Template::Toolcall,
            Template::Structured,
            Template::StructuredWide,
            Template::ToolcallWide,
        ];
        for (prompt, template) in prompts.iter().zip(templates) {
            let parsed = parse_prompt(prompt).unwrap();
            assert_eq!(parsed.template, template);
            assert_eq!(parsed.query, "What is 1 + 2?");
            assert_eq!(parsed.tools[0].name, "add");
        }
        let wide = parse_prompt(prompts[2]).unwrap();
        assert_eq!(wide.tools.len(), 2);
        assert_eq!(wide.tools[0].description, "Adds: quickly.");
    }

    #[test]
    fn query_without_a_template_is_the_prompt() {
        assert_eq!(query_of("  How far is it?\n"), "How far is it?");
    }

    #[test]
    fn normal_form_ignores_case_space_and_last_marks() {
        assert_eq!(normalise_query("  What\tIS   it ?!\n"), "what is it");
        assert_eq!(normalise_query("ÉTÉ 1.5?"), "été 1.5");
        assert_eq!(normalise_query("..."), "");
    }
}
