//! BFCL: `{id, question, function}`, with the possible answers in a file beside.
//!
//! What becomes of the answers, by their shape:
//! - `[{"f": {"a": [1, ""]}}]`: calls with options, in any order where the id says parallel;
//! - `[["f(a=1)"], ...]`, one list a turn: one episode a turn, the earlier turns answered by
//!   their gold calls. The results of those calls are not known, because nothing runs them here;
//! - `["f(a=1)"]` beside functions: these calls;
//! - texts without functions (memory, web search): no gold. Any of the texts must occur in the
//!   last answer of an agent that has called its tools before. As a gold text they would teach a
//!   model to guess without a call, and a score against them would say nothing of one request.
//!   The texts stay in the stored row;
//! - a text (the result of a call): no gold.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Format;
use super::lines::Input;
use super::make::{last_user, start};
use crate::episode::{Call, Episode, Gold, Tool, Turn};
use crate::export::extra;
use crate::score::first_choice;
use crate::signature::schema_of_bfcl;

mod calls;

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let id = match input.object.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => return Err("field \"id\" is neither text nor number".to_owned()),
    };
    let turns = question(input.object.get("question").unwrap_or(&Value::Null))?;
    let gold = input.object.get("ground_truth").or_else(|| input.beside.answers.get(&id));
    let functions = Functions::of(input)?;
    let row = Row { input, id, functions };
    let is_by_turn = |gold: &Value| {
        let lists = gold.as_array().filter(|lists| !lists.is_empty());
        lists.is_some_and(|lists| lists.iter().all(Value::is_array))
    };
    let episodes = match gold {
        Some(Value::Array(golds)) if gold.is_some_and(is_by_turn) => row.by_turn(&turns, golds)?,
        // What an earlier turn was answered with is not known: only the first can be asked.
        None => vec![row.first(&turns, None)?],
        gold if turns.len() == 1 => vec![row.first(&turns, gold)?],
        Some(_) => return Err("several turns, but not a list of calls for each".to_owned()),
    };
    extra::settle(episodes, &input.object)
}

/// A row as it is read.
struct Row<'a> {
    input: &'a Input<'a>,
    id: String,
    functions: Functions,
}

impl Row<'_> {
    fn start(&self, turns: Vec<Turn>, tools: Vec<Tool>) -> Episode {
        let (source, location) = (self.input.source, self.input.location.clone());
        let mut episode = start(source, location, Format::Bfcl, self.id.clone());
        episode.track = "toolcall".to_owned();
        episode.query = last_user(&turns).trim().to_owned();
        (episode.turns, episode.tools) = (turns, tools);
        if self.functions.is_unknown {
            episode.flags.push("tools.not_found".to_owned());
        }
        episode
    }

    /// Reads the first turn of a row, with the gold of a row of one turn.
    fn first(&self, turns: &[Vec<Turn>], gold: Option<&Value>) -> Result<Episode, String> {
        let turns = turns.first().cloned().unwrap_or_default();
        let mut episode = self.start(turns, self.functions.on_offer(0));
        let mut flag = |flag: &str| episode.flags.push(flag.to_owned());
        let gold = match gold {
            None if self.id.contains("irrelevance") => Gold::NoCall,
            None if self.id.contains("relevance") => {
                flag("gold.some_call");
                Gold::None
            }
            None => {
                flag("gold.not_found");
                Gold::None
            }
            Some(Value::Array(golds)) if golds.is_empty() => Gold::NoCall,
            Some(Value::Array(golds)) if golds.iter().all(Value::is_object) => {
                any_of(golds, &episode.tools, !self.id.contains("parallel"))?
            }
            Some(Value::Array(golds)) if golds.iter().all(Value::is_string) => {
                if self.input.object.contains_key("function") {
                    Gold::Calls { calls: self.functions.calls(golds)? }
                } else {
                    flag("gold.accepted_texts");
                    Gold::None
                }
            }
            Some(Value::String(_)) => {
                flag("gold.result_only");
                Gold::None
            }
            Some(_) => return Err("possible answers of a shape that is not known".to_owned()),
        };
        episode.gold = gold;
        Ok(episode)
    }

    /// Reads all turns: one episode each.
    fn by_turn(&self, turns: &[Vec<Turn>], golds: &[Value]) -> Result<Vec<Episode>, String> {
        if turns.len() != golds.len() {
            return Err("another number of turns than of answers".to_owned());
        }
        let mut history = Vec::new();
        let mut episodes = Vec::new();
        for (place, (turn, gold)) in turns.iter().zip(golds).enumerate() {
            let golds = gold.as_array().map(Vec::as_slice).unwrap_or_default();
            let calls = self.functions.calls(golds);
            let calls = calls.map_err(|why| format!("turn {}: {why}", place + 1))?;
            history.extend(turn.iter().cloned());
            let mut episode = self.start(history.clone(), self.functions.on_offer(place));
            if place > 0 {
                episode.source.external_id = format!("{}#{}", self.id, place + 1);
            }
            if history.iter().any(|turn: &Turn| !turn.tool_calls.is_empty()) {
                episode.flags.push("turns.no_results".to_owned());
            }
            // A turn without calls has no words to answer with: the next one follows at once.
            episode.gold = if calls.is_empty() {
                Gold::NoCall
            } else {
                let answer = Turn { tool_calls: calls.clone(), ..Turn::text("assistant", "") };
                history.push(answer);
                Gold::Calls { calls }
            };
            episodes.push(episode);
        }
        Ok(episodes)
    }
}

/// Reads the question: messages by turn, messages, or one text.
fn question(question: &Value) -> Result<Vec<Vec<Turn>>, String> {
    let items = match question {
        Value::String(text) => return Ok(vec![vec![Turn::text("user", text.clone())]]),
        Value::Array(items) if !items.is_empty() => items,
        _ => return Err("field \"question\" holds no messages".to_owned()),
    };
    if items.iter().all(Value::is_object) {
        return Ok(vec![messages(items)?]);
    }
    let turn = |item: &Value| {
        let items = item.as_array().ok_or("a turn of the question is no list of messages")?;
        messages(items)
    };
    items.iter().map(turn).collect()
}

fn messages(items: &[Value]) -> Result<Vec<Turn>, String> {
    let turn = |item: &Value| {
        let field = |name: &str| {
            let text = item.get(name).and_then(Value::as_str);
            text.ok_or_else(|| format!("a message of the question has no text {name:?}"))
        };
        match field("role")? {
            role @ ("system" | "user" | "assistant") => Ok(Turn::text(role, field("content")?)),
            _ => Err("a message with another role than system, user or assistant".to_owned()),
        }
    };
    items.iter().map(turn).collect()
}

/// The functions of a row, and from which turn on each is on offer.
struct Functions {
    tools: Vec<(usize, Tool)>,
    /// Names of the parameters by function, in the order of the document.
    order: BTreeMap<String, Vec<String>>,
    /// Some class has no document.
    is_unknown: bool,
}

impl Functions {
    fn of(input: &Input<'_>) -> Result<Self, String> {
        let mut functions = Self { tools: Vec::new(), order: BTreeMap::new(), is_unknown: false };
        let mut documents: Vec<&Value> = Vec::new();
        match input.object.get("function") {
            Some(Value::Array(items)) => documents.extend(items),
            Some(item @ Value::Object(_)) => documents.push(item),
            _ => {}
        }
        let names = |value: Option<&Value>| -> Vec<String> {
            let items = value.and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for class in names(input.object.get("involved_classes")) {
            // `MemoryAPI` has three back ends, and the row does not say which one.
            match input.beside.functions.get(&class) {
                Some(found) => documents.extend(found),
                None => functions.is_unknown = true,
            }
        }
        let excluded = names(input.object.get("excluded_function"));
        let missed = input.object.get("missed_function").and_then(Value::as_object);
        let mut from: BTreeMap<String, usize> = BTreeMap::new();
        for (turn, held) in missed.into_iter().flatten() {
            let turn = turn.parse().map_err(|_| "\"missed_function\" names no turn".to_owned())?;
            from.extend(names(Some(held)).into_iter().map(|name| (name, turn)));
        }
        for document in documents {
            let tool = tool_of(document)?;
            let properties = document.get("parameters").and_then(|all| all.get("properties"));
            let order = properties.and_then(Value::as_object);
            let order = order.map(|all| all.keys().cloned().collect()).unwrap_or_default();
            functions.order.insert(tool.name.clone(), order);
            if !excluded.contains(&tool.name) {
                functions.tools.push((from.get(&tool.name).copied().unwrap_or_default(), tool));
            }
        }
        Ok(functions)
    }

    fn on_offer(&self, turn: usize) -> Vec<Tool> {
        let on_offer = self.tools.iter().filter(|(from, _)| *from <= turn);
        on_offer.map(|(_, tool)| tool.clone()).collect()
    }

    /// Reads calls written as in Python.
    fn calls(&self, golds: &[Value]) -> Result<Vec<Call>, String> {
        let call = |(place, gold): (usize, &Value)| {
            let text = gold.as_str().ok_or("no text".to_owned());
            let read = text.and_then(|text| calls::parse(text, &self.order));
            read.map_err(|why| format!("call {}: {why}", place + 1))
        };
        golds.iter().enumerate().map(call).collect()
    }
}

fn tool_of(document: &Value) -> Result<Tool, String> {
    let mut tool = super::hermes::tool_of(document).ok_or("a function has no name")?;
    tool.parameters = schema_of_bfcl(&tool.parameters);
    Ok(tool)
}

/// Reads possible answers: for each call, the values that each argument may have.
fn any_of(golds: &[Value], tools: &[Tool], in_order: bool) -> Result<Gold, String> {
    let (mut calls, mut options) = (Vec::new(), Vec::new());
    for (place, gold) in golds.iter().enumerate() {
        let wrong = |why: &str| format!("possible answer {}: {why}", place + 1);
        let members = gold.as_object().filter(|members| members.len() == 1);
        let (name, arguments) = members
            .and_then(|members| members.iter().next())
            .ok_or_else(|| wrong("not one function"))?;
        let arguments = arguments.as_object().ok_or_else(|| wrong("arguments are no object"))?;
        let required = tools.iter().find(|tool| tool.name == *name).map(required);
        let required = required.unwrap_or_default();
        let mut call = Call { name: name.clone(), arguments: Map::new() };
        let mut choices = BTreeMap::new();
        for (argument, values) in arguments {
            let values = values.as_array().ok_or_else(|| wrong("an argument without a list"))?;
            if values.is_empty() {
                // No answer at all counts as right then, not even leaving the argument out.
                return Err(wrong("an argument has an empty list of values"));
            }
            if let Some(value) = first_value(values, required.contains(&argument.as_str())) {
                call.arguments.insert(argument.clone(), value);
            }
            choices.insert(argument.clone(), values.clone());
        }
        calls.push(call);
        options.push(choices);
    }
    Ok(Gold::AnyOf { calls, options, in_order })
}

fn required(tool: &Tool) -> Vec<&str> {
    let names = tool.parameters.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns the first value of an argument; none where it may be left out, unless the function
/// asks for it.
fn first_value(values: &[Value], is_required: bool) -> Option<Value> {
    let may_be_left_out = values.iter().any(|value| value == "");
    if may_be_left_out && !is_required {
        return None;
    }
    values.iter().find(|value| *value != "").or(values.first()).map(plain)
}

/// Makes a value of one with options inside, however deep they stand, as the scorer reads them.
fn plain(value: &Value) -> Value {
    first_choice(std::slice::from_ref(value)).unwrap_or_else(|| value.clone())
}

#[cfg(test)]
mod tests;
