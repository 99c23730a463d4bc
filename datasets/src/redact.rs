//! Taking secrets and personal details out of texts before they are stored.

use crate::episode::Episode;

/// What is taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names of the rules, with their versions, as they stand on events.
    names: Vec<String>,
}

impl Rules {
    /// Takes nothing out.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns the names of the rules with their versions, sorted, as they stand on events.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Puts placeholders into all texts of an episode, and says at how many places.
    pub fn redact(&self, _episode: &mut Episode) -> u64 {
        0
    }

    /// Puts placeholders into a text.
    pub fn redact_text(&self, text: &str) -> String {
        text.to_owned()
    }
}
