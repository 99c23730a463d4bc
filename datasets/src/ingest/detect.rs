//! Telling formats by the first bytes of a file.

use std::path::Path;

use super::Format;

/// A file's first object, as far as the first bytes go.
struct First {
    /// Keys, in order.
    keys: Vec<String>,
    /// First character of each key's value.
    starts: Vec<Option<char>>,
    /// The bytes end inside the object.
    is_cut: bool,
}

impl First {
    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }

    fn has_all(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.has(key))
    }

    fn has_any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.has(key))
    }
}

/// Tells the format of a file by its first bytes; none where they are not enough to be sure.
///
/// The keys of the first object are read, even where the bytes end inside it. Of a packed file,
/// [`head`](super::head) gives the bytes that are wanted here. The content decides, whatever the
/// path ends in. A path in a folder that holds what is read beside questions has no format of its
/// own (see [`is_companion`]).
pub fn detect(path: &Path, first_bytes: &[u8]) -> Option<Format> {
    let first = first_object(&String::from_utf8_lossy(first_bytes));
    if is_companion_of(path, &first) {
        return None;
    }
    Format::ALL.into_iter().find(|format| is_of(*format, &first)).or_else(|| {
        // The trace stands before the observations and may be longer than the first bytes.
        let key = first.keys.first()?;
        (key == "trace" || key == "observations").then_some(Format::LangfuseExport)
    })
}

/// Says whether a file is only read beside others, so that a walk through a folder should pass it
/// over: BFCL's possible answers, the documents of its functions, and its list of questions for
/// sensitivity to formats, which is no list of rows.
pub fn is_companion(path: &Path, first_bytes: &[u8]) -> bool {
    is_companion_of(path, &first_object(&String::from_utf8_lossy(first_bytes)))
}

fn is_companion_of(path: &Path, first: &First) -> bool {
    let lies_in =
        |folder: &str| path.parent().and_then(Path::file_name).is_some_and(|name| name == folder);
    let is_answer = first.has_all(&["id", "ground_truth"]) && !first.has("question");
    let is_function = first.has_all(&["name", "description", "parameters"])
        && (first.has("response") || lies_in("multi_turn_func_doc"))
        && !first.has_any(&["messages", "question", "query", "request"]);
    let is_list = |start: &Option<char>| *start == Some('[');
    let is_of_lists = first.has("simple_python") && first.starts.iter().all(is_list);
    is_answer || is_function || is_of_lists
}

/// Says whether the first object looks like a row of `format`. Keys are asked for that stand early
/// in the rows as they are written, because the bytes may end before the others.
fn is_of(format: Format, first: &First) -> bool {
    let is_answered = first.has_any(&["prediction", "reference", "pred_tool_call"]);
    match format {
        Format::LangfuseExport => false,
        Format::Bfcl => {
            let is_told = first.has_any(&[
                "function",
                "involved_classes",
                "initial_config",
                "missed_function",
            ]);
            let is_nested = || {
                let place = first.keys.iter().position(|key| key == "question");
                let start = place.and_then(|place| first.starts.get(place));
                first.is_cut && start == Some(&Some('['))
            };
            first.has("question")
                && (first.has("id") && (is_told || is_nested()))
                && !first.has("ground_truth")
        }
        Format::OpenAi => first.has("messages") && !is_answered,
        Format::Exchange => first.has_all(format.keys()) || is_cut_exchange(first),
        Format::TauBench => {
            first.has("task_id") && (first.has("traj") || first.has_all(&["reward", "info"]))
        }
        Format::WorkflowLog => {
            let others = ["user_query", "assistant_response", "system_prompt", "model_used"];
            first.has("agent_type") && first.has_any(&others)
        }
        Format::CepText => first.has("cep") && !first.has_any(&["prompt", "messages", "query"]),
        _ => first.has_all(format.keys()),
    }
}

/// A request may be longer than the first bytes; what stands before it in the logs of gateways
/// tells it from other rows with a request.
fn is_cut_exchange(first: &First) -> bool {
    let others = ["uri", "status", "workload_id", "client_id", "has_tools"];
    first.is_cut && first.has("request") && first.has_any(&others)
}

/// Reads the keys of the first JSON object in `text`, which may end inside it.
fn first_object(text: &str) -> First {
    let mut first = First { keys: Vec::new(), starts: Vec::new(), is_cut: true };
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let start = start.strip_prefix('[').map_or(start, str::trim_start);
    let Some(inner) = start.strip_prefix('{') else {
        return first;
    };
    let (mut depth, mut in_string, mut escaped, mut is_key) = (0_u32, false, false, true);
    let mut written = String::new();
    for c in inner.chars() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    in_string = false;
                    if depth == 0 && is_key {
                        first.keys.push(std::mem::take(&mut written));
                        first.starts.push(None);
                    }
                }
                _ if depth == 0 && is_key => written.push(c),
                _ => {}
            }
            continue;
        }
        if !is_key
            && !c.is_whitespace()
            && let Some(start @ None) = first.starts.last_mut()
        {
            *start = Some(c);
        }
        match c {
            '"' => {
                in_string = true;
                written.clear();
            }
            ':' if depth == 0 => is_key = false,
            ',' if depth == 0 => is_key = true,
            '{' | '[' => depth += 1,
            '}' | ']' if depth == 0 => {
                first.is_cut = false;
                break;
            }
            '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    first
}

#[cfg(test)]
mod tests;
