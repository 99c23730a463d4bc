//! Context engineering prefixes: a block of rules put before the system text, as data.

use ledger::Digest;
use serde::{Deserialize, Serialize};

use crate::episode::Turn;

/// A context engineering prefix. The same bytes serve training, evaluation and runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cep {
    /// Name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Digest of the prefix that it was made from.
    pub parent: Option<Digest>,
    /// Issue tags that it is meant to mend.
    pub targets: Vec<String>,
}

impl Cep {
    /// Makes a prefix without a parent. White space around the text is dropped.
    pub fn new(name: &str, text: &str, targets: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            text: text.trim().to_owned(),
            parent: None,
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
        }
    }

    /// Returns the prefix that ships for the toolcall track.
    pub fn toolcall() -> Self {
        let targets = ["attribute_arguments", "invalid_tool_call_format", "missing_opening_tag"];
        Self::new("toolcall", include_str!("../ceps/toolcall.txt"), &targets)
    }

    /// Returns the identity of the prefix: the digest of its text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// Puts the prefix before the system text of `turns`, which gets one if it has none.
    #[must_use]
    pub fn apply(&self, turns: &[Turn]) -> Vec<Turn> {
        let mut with = turns.to_vec();
        match with.first_mut() {
            Some(first) if first.role == "system" => {
                first.content = format!("{}\n\n{}", self.text, first.content);
            }
            _ => with.insert(0, Turn::text("system", self.text.clone())),
        }
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_stands_before_system_text() {
        let cep = Cep::new("x", "Rules.\n", &[]);
        let bare = cep.apply(&[Turn::text("user", "hi")]);
        assert_eq!(bare[0], Turn::text("system", "Rules."));
        assert_eq!(bare[1], Turn::text("user", "hi"));
        let led = cep.apply(&[Turn::text("system", "Be kind."), Turn::text("user", "hi")]);
        assert_eq!(led[0].content, "Rules.\n\nBe kind.");
        assert_eq!(led.len(), 2);
    }

    #[test]
    fn shipped_prefix_is_short_and_has_a_stable_identity() {
        let cep = Cep::toolcall();
        assert!(cep.text.split_whitespace().count() <= 120);
        assert_eq!(cep.digest(), Cep::toolcall().digest());
        assert!(!cep.text.ends_with('\n'));
    }
}
