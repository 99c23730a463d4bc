//! The canonical episode: one request to a model with everything that is known about its answer.

use std::collections::BTreeMap;

use ledger::Digest;
use ledger::catalogue::Location;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gold::write_wrapper;
use crate::manifest::canonical;
use crate::template::normalise_query;

/// Newest version of the form of [`Episode`]. Each is stored in the lowest version that can say it
/// (see [`Episode::lowest_schema`]), so that a row keeps its digests when the form grows.
pub const EPISODE_SCHEMA: u32 = 2;

/// One request to a model: what it was shown, what it should say, and what was said.
///
/// Stored as canonical JSON (RFC 8785). `turns` never hold the answer that `gold` or `answer`
/// holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Version of this form.
    pub schema: u32,
    /// `toolcall`, `structured` or `chat`.
    pub track: String,
    /// Tools on offer, in the order given.
    pub tools: Vec<Tool>,
    /// The conversation up to the answer.
    pub turns: Vec<Turn>,
    /// What the answer should be.
    pub gold: Gold,
    /// What a model answered, where that was recorded.
    pub answer: Option<Answer>,
    /// The user's request without the template around it.
    pub query: String,
    /// Where the episode came from.
    pub source: Source,
    /// Licence, as an SPDX expression, or `unknown`.
    pub licence: String,
    /// Whom the licence asks to name.
    pub attribution: String,
    /// Person that the episode is about, where known.
    pub subject: Option<String>,
    /// Marks such as `answer.recorded`, sorted.
    pub flags: Vec<String>,
}

/// A tool that a model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Name to call it by.
    pub name: String,
    /// What it does; empty when unknown.
    pub description: String,
    /// JSON Schema of its arguments; null when unknown.
    pub parameters: Value,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text.
    pub content: String,
    /// Calls that an assistant made beside its text.
    pub tool_calls: Vec<Call>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name of the tool.
    pub name: String,
    /// Arguments by name.
    pub arguments: Map<String, Value>,
}

/// What an answer should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Gold {
    /// Nobody knows.
    None,
    /// These calls, in order.
    Calls {
        /// All calls that are known.
        calls: Vec<Call>,
    },
    /// This JSON value.
    Json {
        /// The value.
        value: Value,
    },
    /// This text, without any call.
    Text {
        /// The text.
        text: String,
    },
    /// No call, whatever the words: none of the tools on offer fits.
    NoCall,
    /// Calls of which some arguments may have one of several values, as in BFCL's possible answers.
    AnyOf {
        /// The calls with the first value of each argument; arguments that may be left out are.
        calls: Vec<Call>,
        /// For each call, all values that count as right by argument. `""` among them means that
        /// the argument may be left out.
        options: Vec<BTreeMap<String, Vec<Value>>>,
        /// The calls must come in this order.
        in_order: bool,
    },
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Label of the model.
    pub model: String,
    /// Text as the model wrote it; none where it gave calls only.
    pub text: Option<String>,
    /// Calls that came beside the text, as the provider decoded them.
    pub calls: Vec<Call>,
}

/// Where an episode came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the source, which also names the stream.
    pub name: String,
    /// Id within the source.
    pub external_id: String,
    /// File and row.
    pub location: Location,
    /// Format that it was read from.
    pub format: String,
}

/// An episode that came from nowhere. Its members are those of [`Episode`].
#[derive(Serialize)]
struct Content<'a> {
    schema: u32,
    track: &'a str,
    tools: &'a [Tool],
    turns: &'a [Turn],
    gold: &'a Gold,
    answer: Option<&'a Answer>,
    query: &'a str,
    source: Source,
    licence: &'a str,
    attribution: &'a str,
    subject: Option<&'a str>,
    flags: &'a [String],
}

impl<'a> Content<'a> {
    fn of(episode: &'a Episode) -> Self {
        let source = Source {
            name: String::new(),
            external_id: String::new(),
            location: Location { file: String::new(), row: 0 },
            format: String::new(),
        };
        Self {
            schema: episode.schema,
            track: &episode.track,
            tools: &episode.tools,
            turns: &episode.turns,
            gold: &episode.gold,
            answer: episode.answer.as_ref(),
            query: &episode.query,
            source,
            licence: &episode.licence,
            attribution: &episode.attribution,
            subject: episode.subject.as_deref(),
            flags: &episode.flags,
        }
    }
}

impl Turn {
    /// Makes a turn of text only.
    pub fn text(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), tool_calls: Vec::new() }
    }
}

impl Gold {
    /// Returns the gold calls; none for golds of another kind.
    pub fn calls(&self) -> &[Call] {
        match self {
            Self::Calls { calls } | Self::AnyOf { calls, .. } => calls,
            Self::None | Self::Json { .. } | Self::Text { .. } | Self::NoCall => &[],
        }
    }
}

impl Episode {
    /// Encodes the episode as it is stored: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical(self)
    }

    /// Returns the digest of the stored bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Returns the digest of everything but where the episode came from.
    ///
    /// A row that moved to another line or file keeps this digest.
    pub fn content_digest(&self) -> Digest {
        Digest::of(&canonical(&Content::of(self)))
    }

    /// Returns what a model is shown: the turns up to the last one that is not its own.
    pub fn prompt_turns(&self) -> &[Turn] {
        let end = self.turns.iter().rposition(|turn| turn.role != "assistant");
        end.and_then(|end| self.turns.get(..=end)).unwrap_or_default()
    }

    /// Returns the lowest version of the form that can say what this episode says.
    pub fn lowest_schema(&self) -> u32 {
        match self.gold {
            Gold::None | Gold::Calls { .. } | Gold::Json { .. } => 1,
            Gold::Text { .. } | Gold::NoCall | Gold::AnyOf { .. } => 2,
        }
    }

    /// Returns the answer to train on; empty where there is no gold, or where the gold says only
    /// what must not be called and no words of an answer are known.
    ///
    /// Calls stand one wrapper a line, JSON stands compact with sorted keys. Numbers have their
    /// shortest form (`1.0` is written `1`), because that is what the record keeps.
    pub fn gold_text(&self) -> String {
        match &self.gold {
            Gold::None => String::new(),
            Gold::Calls { calls } | Gold::AnyOf { calls, .. } => {
                calls.iter().map(write_wrapper).collect::<Vec<_>>().join("\n")
            }
            Gold::Json { value } => json_text(value),
            Gold::Text { text } => text.clone(),
            Gold::NoCall => {
                let words = self.answer.as_ref().filter(|answer| answer.calls.is_empty());
                words.and_then(|answer| answer.text.clone()).unwrap_or_default()
            }
        }
    }

    /// Returns the key that keeps rows with the same question together: the normalised query.
    pub fn group(&self) -> String {
        normalise_query(&self.query)
    }

    /// Returns the names of tools called or offered, sorted, each once.
    pub fn tool_names(&self) -> Vec<String> {
        let called = self.gold.calls().iter().map(|call| call.name.clone());
        sorted(self.offered().chain(called).collect())
    }

    /// Returns the names of tools offered, sorted, each once: of these, no word was said in the
    /// conversation itself.
    pub fn offered_names(&self) -> Vec<String> {
        sorted(self.offered().collect())
    }

    fn offered(&self) -> impl Iterator<Item = String> + '_ {
        self.tools.iter().map(|tool| tool.name.clone())
    }

    /// Returns whether the episode carries `flag`.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// Adds `flag`, keeping the flags sorted and each once.
    pub fn add_flag(&mut self, flag: &str) {
        if let Err(place) = self.flags.binary_search_by(|known| known.as_str().cmp(flag)) {
            self.flags.insert(place, flag.to_owned());
        }
    }
}

/// Sorts names, each once.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// Writes `value` as compact JSON with sorted keys and shortest numbers.
pub fn json_text(value: &Value) -> String {
    String::from_utf8_lossy(&canonical(value)).into_owned()
}
