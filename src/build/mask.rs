//! The mask of a row: what the loss covers, what it does not, and what is cut.

use datasets::{Cep, Episode};
use models::Model;
use serde::Serialize;

use crate::error::AppError;
use crate::prompt;

/// A row as a model will be trained on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mask {
    /// Pieces of its text, in order. Together they are the whole text.
    pub pieces: Vec<Piece>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer, with its end token.
    pub answer_tokens: usize,
    /// Tokens of the answer that the loss covers.
    pub supervised_tokens: usize,
    /// Tokens that do not fit.
    pub cut_tokens: usize,
}

/// A piece of a row's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// What becomes of it.
    pub part: Part,
    /// The text.
    pub text: String,
}

/// What becomes of a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Shown to the model; no loss.
    Prompt,
    /// What is learnt.
    Answer,
    /// Beyond the limit: neither shown nor learnt.
    Cut,
}

/// Makes the mask of a row for a model, by the renderer that training uses.
///
/// # Errors
/// When the model's template refuses the conversation.
pub fn mask(
    episode: &Episode,
    model: &Model,
    cep: Option<&Cep>,
    limit: usize,
) -> Result<Mask, AppError> {
    let renderer = &model.renderer;
    let messages = prompt::messages(episode.prompt_turns(), cep);
    let answer = prompt::trained_answer(episode);
    let (asked, tokens) = (renderer.prompt_text(&messages)?, renderer.tokenizer());
    let (prompt_ids, answer_ids) = (tokens.encode(&asked)?, tokens.encode(&answer)?);
    // The end token is learnt too, and is the first to be cut.
    let whole = prompt_ids.len() + answer_ids.len() + 1;
    let mut pieces = Vec::new();
    let mut add = |part, text: String| {
        if !text.is_empty() {
            pieces.push(Piece { part, text });
        }
    };
    // A row whose prompt alone fills the limit cannot be trained on at all.
    let kept = limit.saturating_sub(prompt_ids.len()).min(answer_ids.len());
    if prompt_ids.len() >= limit {
        let shown = cut_at(&asked, &tokens.decode(prompt_ids.get(..limit).unwrap_or_default())?);
        add(Part::Prompt, asked.get(..shown).unwrap_or_default().to_owned());
        add(Part::Cut, asked.get(shown..).unwrap_or_default().to_owned());
        add(Part::Cut, answer);
    } else {
        add(Part::Prompt, asked);
        let learnt = if kept == answer_ids.len() {
            answer.len()
        } else {
            cut_at(&answer, &tokens.decode(answer_ids.get(..kept).unwrap_or_default())?)
        };
        add(Part::Answer, answer.get(..learnt).unwrap_or_default().to_owned());
        add(Part::Cut, answer.get(learnt..).unwrap_or_default().to_owned());
    }
    Ok(Mask {
        pieces,
        prompt_tokens: prompt_ids.len(),
        answer_tokens: answer_ids.len() + 1,
        supervised_tokens: whole.min(limit).saturating_sub(prompt_ids.len()),
        cut_tokens: whole.saturating_sub(limit),
    })
}

/// Returns how many bytes of `whole` the decoded beginning of its tokens stands for. A character
/// that the cut goes through is cut with it.
fn cut_at(whole: &str, beginning: &str) -> usize {
    let same = whole.char_indices().zip(beginning.chars()).take_while(|((_, a), b)| a == b);
    same.last().map_or(0, |((at, c), _)| at + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_falls_between_characters() {
        assert_eq!(cut_at("añb", "añ"), 3);
        assert_eq!(cut_at("añb", "a\u{fffd}"), 1);
        assert_eq!(cut_at("abc", ""), 0);
        assert_eq!(cut_at("abc", "abc"), 3);
    }
}
