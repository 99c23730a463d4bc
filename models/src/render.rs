//! The one renderer: training, evaluation and serving get their prompt bytes and ids here.

use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::Tokenizer;

/// Version of the rules below; part of the renderer's identity.
const VERSION: &str = "ledger/renderer/1";

/// Turns conversations into token ids for one model.
pub struct Renderer {
    template: ChatTemplate,
    tokenizer: Tokenizer,
    vocabulary: [u8; 32],
}

/// A row to train on: prompt, answer and end, with the loss on answer and end only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingRow {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether the loss covers the prediction of each id; never the first.
    pub supervised: Vec<bool>,
    /// The answer was cut to fit the limit.
    pub truncated: bool,
}

impl TrainingRow {
    /// Returns how many tokens the loss covers.
    pub fn supervised_tokens(&self) -> usize {
        self.supervised.iter().filter(|covered| **covered).count()
    }
}

impl Renderer {
    /// Makes a renderer; `vocabulary` is a digest of the tokenizer's data.
    pub fn new(template: ChatTemplate, tokenizer: Tokenizer, vocabulary: [u8; 32]) -> Self {
        Self { template, tokenizer, vocabulary }
    }

    /// Returns its identity: SHA-256 over rules, template and tokenizer.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(VERSION);
        hash.update([0]);
        hash.update(self.template.source());
        hash.update([0]);
        hash.update(self.vocabulary);
        // Texts that the template takes from elsewhere; most templates take none.
        for (name, text) in self.template.tokens() {
            for part in [name, text] {
                hash.update([0]);
                hash.update(part);
            }
        }
        hash.finalize().into()
    }

    /// Returns the chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the prompt's text for a conversation, up to where the assistant begins.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn prompt_text(&self, messages: &[Message]) -> Result<String, ModelError> {
        self.template.render(messages, true)
    }

    /// Returns the prompt's ids.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.prompt_text(messages)?)
    }

    /// Returns a row to train on: the very ids that `prompt` gives, then the answer's, then the
    /// end token, at most `limit` ids.
    ///
    /// # Errors
    /// When the template refuses the conversation, or the prompt alone fills the limit.
    pub fn training_row(
        &self,
        messages: &[Message],
        answer: &str,
        limit: usize,
    ) -> Result<TrainingRow, ModelError> {
        let mut ids = self.prompt(messages)?;
        let prompt = ids.len();
        if prompt >= limit {
            return Err(ModelError::Context { tokens: prompt, new: 1, context: limit });
        }
        ids.extend(self.tokenizer.encode(answer)?);
        ids.push(self.tokenizer.eos());
        let truncated = ids.len() > limit;
        ids.truncate(limit);
        let supervised = (0..ids.len()).map(|at| at >= prompt).collect();
        Ok(TrainingRow { ids, supervised, truncated })
    }

    /// Returns tokenizer and template as transformers reads them: names of files and their texts.
    ///
    /// # Errors
    /// When the tokenizer has no such form.
    pub fn files(&self) -> Result<Vec<(&'static str, String)>, ModelError> {
        let template = self.template.source();
        let mut config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "chat_template": template,
        });
        for (name, text) in self.template.tokens() {
            config[name] = text.into();
        }
        config["eos_token"] = self.tokenizer.eos_text().into();
        Ok(vec![
            ("tokenizer.json", self.tokenizer.to_json()?),
            ("tokenizer_config.json", config.to_string()),
            ("chat_template.jinja", template.to_owned()),
        ])
    }
}
