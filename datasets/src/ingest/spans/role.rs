//! What a span is a step of.

use std::fmt;

use serde_json::Value;

use super::{content, langfuse, mastra};
use crate::span::Span;

/// What a span is a step of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A call of a model.
    Generation,
    /// A call of a tool.
    Tool,
    /// A run of an agent.
    Agent,
    /// Steps that belong together.
    Chain,
    /// A search for what a model is shown.
    Retriever,
    /// A text made into a vector.
    Embedding,
    /// A judgement of an answer.
    Evaluator,
    /// A check of what goes in or out.
    Guardrail,
    /// Something that happened at one time.
    Event,
    /// Anything else.
    Span,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 10] = [
        Self::Generation,
        Self::Tool,
        Self::Agent,
        Self::Chain,
        Self::Retriever,
        Self::Embedding,
        Self::Evaluator,
        Self::Guardrail,
        Self::Event,
        Self::Span,
    ];

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Chain => "chain",
            Self::Retriever => "retriever",
            Self::Embedding => "embedding",
            Self::Evaluator => "evaluator",
            Self::Guardrail => "guardrail",
            Self::Event => "event",
            Self::Span => "span",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Attribute by which Mastra tells what a span is.
const MASTRA: &str = "mastra.span.type";

/// Reads what a span is from the value of an attribute, in small letters.
type ReadRole = fn(&str) -> Option<Role>;

/// Attributes that say what a span is, with the convention that they are of. An earlier one wins.
const TOLD_BY: [(&str, &str, ReadRole); 7] = [
    ("langfuse.observation.type", langfuse::FORM, of_langfuse),
    (MASTRA, "genai", of_mastra),
    ("ai.operationId", "vercel", of_vercel),
    ("gen_ai.operation.name", "genai", of_genai),
    ("openinference.span.kind", "openinference", of_openinference),
    ("traceloop.span.kind", "genai-indexed", of_traceloop),
    ("llm.request.type", "genai-indexed", of_request),
];

/// Says what a span is, and by which convention that is told.
pub(super) fn of(span: &Span) -> (Role, &'static str) {
    let text = |key: &str| span.attributes.get(key).and_then(Value::as_str);
    let told = TOLD_BY.iter().find_map(|&(key, form, read)| {
        let kind = text(key)?.trim().to_ascii_lowercase();
        Some((key, read(&kind)?, form))
    });
    if let Some((key, role, form)) = told {
        let is_mastra = key == MASTRA;
        return match role {
            Role::Span if is_mastra && mastra::is_step(span) => (Role::Generation, form),
            Role::Generation if is_mastra && mastra::is_around_steps(span) => (Role::Chain, form),
            role => (role, form),
        };
    }
    let has = |keys: &[&str]| keys.iter().any(|&key| text(key).is_some());
    let models =
        ["gen_ai.request.model", "gen_ai.response.model", "llm.model_name", "llm.request.model"];
    if has(&models) && content::is_there(span) {
        return (Role::Generation, "genai");
    }
    if has(&["gen_ai.tool.name"]) {
        return (Role::Tool, "genai");
    }
    if has(&["gen_ai.agent.name"]) {
        return (Role::Agent, "genai");
    }
    (Role::Span, "none")
}

fn of_langfuse(kind: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| role.name() == kind)
}

/// Mastra's spans for parts of a call stand within that of the call itself.
fn of_mastra(kind: &str) -> Option<Role> {
    Some(match kind {
        "model_generation" => Role::Generation,
        "agent_run" => Role::Agent,
        "tool_call" | "mcp_tool_call" | "client_tool_call" | "provider_tool_call" => Role::Tool,
        kind if kind.starts_with("workflow_") => Role::Chain,
        _ => Role::Span,
    })
}

/// The outer spans, such as `ai.generateText`, hold one or more calls of a model.
fn of_vercel(operation: &str) -> Option<Role> {
    if operation.ends_with(".dogenerate") || operation.ends_with(".dostream") {
        return Some(Role::Generation);
    }
    Some(match operation {
        "ai.toolcall" => Role::Tool,
        operation if operation.starts_with("ai.embed") => Role::Embedding,
        operation if operation.starts_with("ai.generate") => Role::Chain,
        operation if operation.starts_with("ai.stream") => Role::Chain,
        _ => return None,
    })
}

fn of_genai(operation: &str) -> Option<Role> {
    Some(match operation {
        "chat" | "generate_content" | "text_completion" => Role::Generation,
        "execute_tool" => Role::Tool,
        "invoke_agent" | "create_agent" => Role::Agent,
        "embeddings" | "embedding" => Role::Embedding,
        "invoke_workflow" | "workflow" | "chain" => Role::Chain,
        "retrieval" | "retriever" => Role::Retriever,
        "evaluate" | "evaluation" | "evaluator" => Role::Evaluator,
        "guardrail" => Role::Guardrail,
        _ => return None,
    })
}

fn of_openinference(kind: &str) -> Option<Role> {
    Some(match kind {
        "llm" => Role::Generation,
        "tool" => Role::Tool,
        "agent" => Role::Agent,
        "chain" => Role::Chain,
        "retriever" | "reranker" => Role::Retriever,
        "embedding" => Role::Embedding,
        "evaluator" => Role::Evaluator,
        "guardrail" => Role::Guardrail,
        _ => return None,
    })
}

fn of_traceloop(kind: &str) -> Option<Role> {
    Some(match kind {
        "tool" => Role::Tool,
        "agent" => Role::Agent,
        "workflow" | "task" => Role::Chain,
        _ => return None,
    })
}

fn of_request(kind: &str) -> Option<Role> {
    Some(match kind {
        "chat" | "completion" => Role::Generation,
        "embedding" => Role::Embedding,
        "rerank" => Role::Retriever,
        _ => return None,
    })
}
