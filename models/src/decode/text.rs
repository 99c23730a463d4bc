//! Text of an answer while it is being said: whole characters only, and no further than a string
//! that ends it.

use crate::error::ModelError;
use crate::tokenizer::Tokenizer;

/// Turns tokens into text, a piece at a time.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: Vec<String>,
    ids: Vec<u32>,
    /// Tokens before `told` were told; those from `from` on are read again with what follows, as a
    /// token's text may depend on the one before it.
    from: usize,
    told: usize,
    /// Text that may be the beginning of a stop string.
    held: String,
    is_stopped: bool,
}

impl<'a> TextStream<'a> {
    /// Begins a text that ends before any of `stops`.
    pub fn new(tokenizer: &'a Tokenizer, stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let (ids, held) = (Vec::new(), String::new());
        Self { tokenizer, stops, ids, from: 0, told: 0, held, is_stopped: false }
    }

    /// Says whether a stop string was met: what follows it is not told.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Takes a token; returns what can be told now, which may be nothing.
    ///
    /// # Errors
    /// When the tokenizer refuses.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        if self.is_stopped {
            return Ok(String::new());
        }
        let piece = self.piece()?;
        // A character may need several tokens; until it is whole it decodes to U+FFFD.
        match piece {
            piece if piece.ends_with('\u{fffd}') => Ok(String::new()),
            piece => {
                (self.from, self.told) = (self.told, self.ids.len());
                Ok(self.released(&piece))
            }
        }
    }

    /// Ends the text; returns what was held back.
    ///
    /// # Errors
    /// When the tokenizer refuses.
    pub fn finish(&mut self) -> Result<String, ModelError> {
        if self.is_stopped {
            return Ok(String::new());
        }
        let piece = self.piece()?;
        self.told = self.ids.len();
        let mut last = self.released(&piece);
        if !self.is_stopped {
            last.push_str(&std::mem::take(&mut self.held));
        }
        Ok(last)
    }

    /// Returns the text of the tokens that were not told.
    fn piece(&self) -> Result<String, ModelError> {
        let known = self.tokenizer.decode(&self.ids[self.from..self.told])?;
        let all = self.tokenizer.decode(&self.ids[self.from..])?;
        Ok(all.get(known.len()..).unwrap_or_default().to_owned())
    }

    /// Returns what stands before a stop string, and before what may become one.
    fn released(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.is_stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |from: &usize| {
            let rest = &self.held[*from..];
            self.stops.iter().any(|stop| stop.starts_with(rest))
        };
        let mut places = self.held.char_indices().map(|(at, _)| at);
        let keep = places.find(begins).unwrap_or(self.held.len());
        let kept = self.held.split_off(keep);
        std::mem::replace(&mut self.held, kept)
    }
}
