//! `ledger trace show`.

use std::fmt::Write as _;

use chrono::DateTime;
use datasets::span::Span;
use datasets::{Call as ToolCall, Episode, Turn};
use queries::trace::{Call, Found, Node, TraceTree, find};
use serde_json::Value;

use super::super::{Globals, Output};
use crate::error::AppError;

/// Columns of a name, with the branches before it, and of a bar.
const NAME: usize = 44;
const BAR: usize = 24;
/// Characters of a text that are shown unless all is asked for.
const SHOWN: usize = 160;
/// Attributes that may hold what a step was given, and what it gave.
const INPUTS: [&str; 6] = [
    "langfuse.observation.input",
    "gen_ai.tool.call.arguments",
    "input.value",
    "ai.toolCall.args",
    "traceloop.entity.input",
    "input",
];
const OUTPUTS: [&str; 6] = [
    "langfuse.observation.output",
    "gen_ai.tool.call.result",
    "output.value",
    "ai.toolCall.result",
    "traceloop.entity.output",
    "output",
];

/// Draw the spans of a trace with timing, messages, tool calls and results.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id of a trace or its beginning, `<trace>/<span>`, or the id of a response
    id: String,
    /// Show all messages, and all of their text
    #[arg(long)]
    full: bool,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let found = find(&globals.reader()?, args.id.trim())?;
    let mut drawing = Drawing { text: String::new(), is_full: args.full, began: 0, length: 1 };
    match &found {
        Found::Tree(tree) => drawing.tree(tree),
        Found::Call(call) => drawing.call(call),
    }
    Output::document(&found, drawing.text)
}

/// A tree as text.
struct Drawing {
    text: String,
    is_full: bool,
    /// When the trace began, and how long it took, in microseconds.
    began: i64,
    length: i64,
}

/// What is drawn before a line: of the line itself, and of those below it.
struct Branch {
    first: String,
    rest: String,
}

impl Branch {
    fn within(&self, is_last: bool) -> Self {
        let (first, rest) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        Self { first: format!("{}{first}", self.rest), rest: format!("{}{rest}", self.rest) }
    }
}

impl Drawing {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}", text.trim_end());
    }

    fn tree(&mut self, tree: &TraceTree) {
        let mut spans = Vec::new();
        tree.roots.iter().for_each(|root| times(root, &mut spans));
        self.began = spans.iter().map(|(start, _)| *start).min().unwrap_or_default();
        let end = spans.iter().map(|(_, end)| *end).max().unwrap_or(self.began);
        self.length = end.saturating_sub(self.began).max(1);
        let began = DateTime::from_timestamp_micros(self.began).unwrap_or_default();
        let source = tree.roots.first().map(|root| root.facts.source.as_str());
        self.line(&format!(
            "trace {}: {} spans of {}, {} from {}",
            plain(&tree.trace_id, 64),
            count(&tree.roots),
            plain(source.unwrap_or_default(), 64),
            duration(end.saturating_sub(self.began)),
            began.format("%Y-%m-%dT%H:%M:%SZ"),
        ));
        let top = Branch { first: String::new(), rest: String::new() };
        self.nodes(&tree.roots, &top);
    }

    fn nodes(&mut self, nodes: &[Node], branch: &Branch) {
        for (place, node) in nodes.iter().enumerate() {
            self.node(node, &branch.within(place + 1 == nodes.len()));
        }
    }

    fn node(&mut self, node: &Node, branch: &Branch) {
        let name = match &node.span {
            Some(span) => plain(&span.name, NAME),
            None => "(erased or missing)".to_owned(),
        };
        let room = NAME.saturating_sub(branch.first.chars().count()).max(8);
        let mut line = format!("{}{:room$} {:11}", branch.first, cut(&name, room), node.facts.role);
        if let Some(span) = &node.span {
            let took = span.end_us.map(|end| duration(end.saturating_sub(span.start_us)));
            let _ = write!(line, " {} {:>9}", self.bar(span), took.unwrap_or_default());
        }
        self.line(&line);
        let below = if node.children.is_empty() { "   " } else { "│  " };
        let below = format!("{}{below}", branch.rest);
        self.marks(node, &below);
        match (&node.call, &node.span) {
            (Some(call), _) => self.messages(call, &below),
            (None, Some(span)) => self.values(span, &below),
            (None, None) => {}
        }
        self.nodes(&node.children, branch);
    }

    /// Draws when a span ran within its trace.
    fn bar(&self, span: &Span) -> String {
        let place = |at: i64| {
            let since = at.saturating_sub(self.began).clamp(0, self.length);
            usize::try_from(i128::from(since) * BAR as i128 / i128::from(self.length)).unwrap_or(0)
        };
        let start = place(span.start_us).min(BAR - 1);
        let end = place(span.end_us.unwrap_or(span.start_us)).clamp(start + 1, BAR);
        let (before, within, behind) = (start, end - start, BAR - end);
        format!("{}{}{}", "·".repeat(before), "█".repeat(within), "·".repeat(behind))
    }

    fn marks(&mut self, node: &Node, below: &str) {
        if node.is_orphan {
            let parent = node.facts.parent_id.as_deref().unwrap_or_default();
            self.line(&format!("{below}(its parent {} has not come)", plain(parent, 64)));
        }
        let Some(span) = node.span.as_ref().filter(|span| span.is_error) else { return };
        let said = self.shown(&span.status_message);
        self.line(format!("{below}FAILED {said}").trim_end());
    }

    /// Draws the messages of a call: the last ones that were shown to the model, and its answer.
    fn messages(&mut self, call: &Call, below: &str) {
        let Some(episode) = &call.episode else {
            return self.line(&format!("{below}(erased or missing)"));
        };
        let before = self.before(episode);
        if before > 0 {
            self.line(&format!("{below}… {before} messages before: --full shows them"));
        }
        for turn in episode.turns.iter().skip(before) {
            self.turn(turn, below);
        }
        if let Some(answer) = &episode.answer {
            if let Some(text) = answer.text.as_deref().filter(|text| !text.trim().is_empty()) {
                let text = self.shown(text);
                self.line(&format!("{below}{}: {text}", plain(&answer.model, 40)));
            }
            self.calls(&answer.calls, below);
        }
        if !episode.tools.is_empty() {
            let names: Vec<String> =
                episode.tools.iter().map(|tool| plain(&tool.name, 40)).collect();
            let names = self.shown(&names.join(", "));
            self.line(&format!("{below}tools: {names}"));
        }
        if let Some(usage) = call.measured.get("usage").filter(|usage| usage.is_object()) {
            self.line(&format!("{below}usage: {}", self.shown(&usage.to_string())));
        }
    }

    /// Says how many messages are left out: those before the last thing the user said.
    fn before(&self, episode: &Episode) -> usize {
        if self.is_full {
            return 0;
        }
        episode.turns.iter().rposition(|turn| turn.role == "user").unwrap_or_default()
    }

    fn turn(&mut self, turn: &Turn, below: &str) {
        let sign = if turn.role == "tool" {
            "←".to_owned()
        } else {
            format!("{}:", plain(&turn.role, 20))
        };
        if !turn.content.trim().is_empty() {
            let text = self.shown(&turn.content);
            self.line(&format!("{below}{sign} {text}"));
        }
        self.calls(&turn.tool_calls, below);
    }

    fn calls(&mut self, calls: &[ToolCall], below: &str) {
        for call in calls {
            let arguments = self.shown(&Value::Object(call.arguments.clone()).to_string());
            self.line(&format!("{below}→ {}({arguments})", plain(&call.name, 60)));
        }
    }

    /// Draws what a step was given and what it gave.
    fn values(&mut self, span: &Span, below: &str) {
        for (sign, keys) in [("→", INPUTS), ("←", OUTPUTS)] {
            let found = keys.iter().find_map(|&key| span.attributes.get(key));
            if let Some(value) = found.filter(|value| !value.is_null()) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let text = self.shown(&text);
                self.line(&format!("{below}{sign} {text}"));
            }
        }
    }

    /// Draws a call that came without spans.
    fn call(&mut self, call: &Call) {
        let latency = call.measured.get("latency_ms").and_then(Value::as_f64);
        let took = latency.map(|ms| duration((ms * 1000.0) as i64)).unwrap_or_default();
        let (id, source) = (plain(&call.external_id, 80), plain(&call.source, 64));
        self.line(&format!("call {id}  source {source}  event {}  {took}", call.event));
        self.messages(call, "   ");
    }

    /// Brings a text onto one line, cut unless all is asked for.
    fn shown(&self, text: &str) -> String {
        plain(text, if self.is_full { usize::MAX } else { SHOWN })
    }
}

/// Lists when spans began and ended.
fn times(node: &Node, all: &mut Vec<(i64, i64)>) {
    if let Some(span) = &node.span {
        all.push((span.start_us, span.end_us.unwrap_or(span.start_us)));
    }
    node.children.iter().for_each(|child| times(child, all));
}

fn count(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| 1 + count(&node.children)).sum()
}

/// Brings a text onto one line of a terminal: text that came from elsewhere must not steer it.
fn plain(text: &str, most: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    cut(&line, most)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{kept}…")
        }
        None => text.to_owned(),
    }
}

fn duration(us: i64) -> String {
    match us {
        ..1_000 => format!("{us} µs"),
        1_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}
