//! The rows: questions of BFCL with their functions and answers, varied by number.
//!
//! The first rows are the real questions. In each later one a third of the words are others, drawn
//! from the words of all questions, so that rows differ as much as rows of different people do.
//! One of twenty repeats an earlier row but for one word: what a search for near duplicates finds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::Outcome;

/// Every so many rows, one repeats an earlier row but for one word.
pub(crate) const REPEATS: u64 = 20;
/// How far back that row is.
const BACK: u64 = 7;

/// A question of BFCL.
struct Question {
    messages: Vec<Value>,
    tools: Value,
    /// Calls that count as right, in the form of OpenAI; without any, none of the tools fits.
    calls: Vec<Value>,
}

/// All questions, and all of their words.
pub(crate) struct Questions {
    all: Vec<Question>,
    words: Vec<String>,
}

/// Random numbers that depend on a seed only (splitmix64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

impl Questions {
    /// Reads all files of BFCL in a folder: questions of one turn with functions, and answers.
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        let mut questions = BTreeMap::new();
        let mut answers = BTreeMap::new();
        for file in files(folder)? {
            for line in BufReader::new(File::open(&file)?).lines() {
                let Ok(Value::Object(mut row)) = serde_json::from_str(&line?) else { continue };
                let Some(id) = row.get("id").and_then(Value::as_str).map(str::to_owned) else {
                    continue;
                };
                if let Some(truth) = row.remove("ground_truth") {
                    answers.insert(id, truth);
                } else if let Some(question) = question(&row) {
                    questions.insert(id, question);
                }
            }
        }
        let (mut all, mut words) = (Vec::new(), std::collections::BTreeSet::new());
        for (id, mut question) in questions {
            question.calls = answers.get(&id).map(calls).unwrap_or_default();
            let text = question.text().to_owned();
            words.extend(text.split_whitespace().map(str::to_owned));
            all.push(question);
        }
        if all.is_empty() {
            return Err(format!("{}: no question of BFCL in it", folder.display()).into());
        }
        Ok(Self { all, words: words.into_iter().collect() })
    }

    /// How many real questions there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    fn base(&self, n: u64) -> &Question {
        &self.all[(n % self.all.len() as u64) as usize]
    }

    /// What row `n` asks.
    pub(crate) fn text(&self, n: u64) -> String {
        let text = self.base(n).text();
        if n < self.all.len() as u64 {
            return text.to_owned();
        }
        let mut random = Random::new(n);
        if n % REPEATS == REPEATS - 1 && n - BACK >= self.all.len() as u64 {
            let earlier = self.text(n - BACK);
            let mut words: Vec<&str> = earlier.split_whitespace().collect();
            if let Some(last) = words.last_mut() {
                *last = self.word(&mut random);
            }
            return words.join(" ");
        }
        let words = text.split_whitespace();
        let mut varied: Vec<&str> = words
            .map(|word| if random.below(3) == 0 { self.word(&mut random) } else { word })
            .collect();
        // Also a question of one word gives many rows.
        varied.extend([self.word(&mut random), self.word(&mut random), self.word(&mut random)]);
        varied.join(" ")
    }

    fn word(&self, random: &mut Random) -> &str {
        &self.words[random.below(self.words.len())]
    }

    /// Row `n`, in the form that OpenAI's fine-tuning takes.
    pub(crate) fn row(&self, n: u64) -> Value {
        let base = self.base(n);
        let mut messages = base.messages.clone();
        if let Some(last) = messages.last_mut() {
            last["content"] = json!(self.text(n));
        }
        messages.push(if base.calls.is_empty() {
            json!({ "role": "assistant", "content": "None of the tools can do that." })
        } else {
            json!({ "role": "assistant", "content": null, "tool_calls": base.calls })
        });
        json!({ "id": format!("row-{n:09}"), "messages": messages, "tools": base.tools })
    }

    /// Writes the first `total` rows, one a line. Returns the bytes written.
    pub(crate) fn write(&self, total: u64, path: &Path) -> Outcome<u64> {
        let partial = path.with_extension("partial");
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        for n in 0..total {
            serde_json::to_writer(&mut file, &self.row(n))?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&partial, path)?;
        Ok(fs::metadata(path)?.len())
    }
}

impl Question {
    /// What the user asked.
    fn text(&self) -> &str {
        self.messages.last().and_then(|last| last["content"].as_str()).unwrap_or_default()
    }
}

/// Lists the JSON files of a folder and of those in it, in order.
fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|end| end == "json" || end == "jsonl") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Takes a question of one turn that ends with the user, and has functions.
fn question(row: &Map<String, Value>) -> Option<Question> {
    let turns = row.get("question")?.as_array()?;
    let functions = row.get("function")?.as_array()?;
    let ([Value::Array(messages)], false) = (turns.as_slice(), functions.is_empty()) else {
        return None;
    };
    let last = messages.last()?;
    if last["role"] != "user" || !last["content"].is_string() {
        return None;
    }
    let tool = |function: &Value| {
        let parameters = schema(&function["parameters"]);
        json!({ "type": "function", "function": {
            "name": called(function["name"].as_str().unwrap_or_default()),
            "description": function["description"], "parameters": parameters,
        }})
    };
    let tools = functions.iter().map(tool).collect();
    Some(Question { messages: messages.clone(), tools, calls: Vec::new() })
}

/// Names have no dots there.
fn called(name: &str) -> String {
    name.replace('.', "_")
}

/// BFCL calls the types of JSON Schema by their names in Python.
fn schema(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let named = match (name.as_str(), value.as_str()) {
                    ("type", Some("dict")) => Some("object"),
                    ("type", Some("float")) => Some("number"),
                    ("type", Some("tuple")) => Some("array"),
                    ("type", Some("any")) => Some("string"),
                    _ => None,
                };
                (name.clone(), named.map_or_else(|| schema(value), |named| json!(named)))
            })
            .collect(),
        Value::Array(items) => items.iter().map(schema).collect(),
        other => other.clone(),
    }
}

/// Writes the right calls, with the first of the right values of each argument.
fn calls(truth: &Value) -> Vec<Value> {
    let truths = truth.as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
    let call = |(at, (name, arguments)): (usize, (&String, &Value))| {
        let first = arguments.as_object().into_iter().flatten().filter_map(|(name, right)| {
            let value = right.as_array()?.first()?;
            (value != "").then(|| (name.clone(), value.clone()))
        });
        let arguments = Value::Object(first.collect()).to_string();
        json!({ "id": format!("call_{at}"), "type": "function",
            "function": { "name": called(name), "arguments": arguments } })
    };
    truths.enumerate().map(call).collect()
}
