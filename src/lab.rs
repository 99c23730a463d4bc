//! What every executor is given: the notebook, who acts, and a place to talk.

use indicatif::{ProgressBar, ProgressStyle};
use ledger::{BodyRef, Digest, Facts, NewEvent, Notebook};
use serde_json::Value;

use crate::error::AppError;
use crate::rows::View;

/// An executor's hands.
pub struct Lab<'a> {
    /// The record.
    pub notebook: &'a Notebook,
    /// Who acts.
    pub actor: &'a str,
    /// Where to talk.
    pub talk: Talk,
}

/// Where an event belongs, beside its facts.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Event that led to it.
    pub cause: Option<u64>,
    /// Run that it belongs to.
    pub run: Option<String>,
    /// What was measured on the way.
    pub measured: Option<Value>,
}

impl Place {
    /// Belongs to a run.
    pub fn run(run: &str) -> Self {
        Self { run: Some(run.to_owned()), ..Self::default() }
    }

    /// Was led to by an event.
    #[must_use]
    pub fn because(self, cause: u64) -> Self {
        Self { cause: Some(cause), ..self }
    }

    /// Was measured so.
    #[must_use]
    pub fn measured(self, measured: Value) -> Self {
        Self { measured: Some(measured), ..self }
    }
}

impl Lab<'_> {
    /// Returns the record as it stands.
    pub fn view(&self) -> View {
        View::now(self.notebook.reader())
    }

    /// Makes an event without appending it.
    ///
    /// # Errors
    /// When the facts have no JSON form.
    pub fn event<F: Facts>(
        &self,
        stream: &str,
        id: &str,
        facts: &F,
        place: Place,
    ) -> Result<NewEvent, AppError> {
        let mut event = NewEvent::new(stream, id, self.actor, facts)?;
        event.cause = place.cause;
        event.run = place.run;
        if let Some(measured) = place.measured {
            event.measured = measured;
        }
        Ok(event)
    }

    /// Appends one event and returns its number; a repetition returns the number it had.
    ///
    /// # Errors
    /// When the record refuses it.
    pub fn record<F: Facts>(
        &self,
        stream: &str,
        id: &str,
        facts: &F,
        place: Place,
    ) -> Result<u64, AppError> {
        let event = self.event(stream, id, facts, place)?;
        Ok(self.notebook.append_one(event)?.seq())
    }
}

/// Returns the reference that storing `bytes` would give.
pub fn body_ref(bytes: &[u8]) -> BodyRef {
    BodyRef { digest: Digest::of(bytes), length: bytes.len() as u64, cipher: None, subject: None }
}

/// Talk on the standard error: lines, and progress bars on a terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Talk {
    /// Say nothing.
    pub quiet: bool,
}

impl Talk {
    /// Says a line.
    pub fn say(self, line: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", line.as_ref());
        }
    }

    /// Shows a progress bar of `length` bytes where there is a terminal.
    pub fn bytes_bar(self, length: u64) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let form = "  {msg:24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let bar = ProgressBar::new(length);
        match ProgressStyle::with_template(form) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// Shows a progress bar of `length` where there is a terminal.
    pub fn bar(self, length: u64, label: &str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let form = "  {msg:24} {wide_bar} {pos}/{len} {per_sec} {eta} left";
        let style = ProgressStyle::with_template(form);
        let bar = ProgressBar::new(length).with_message(label.to_owned());
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
