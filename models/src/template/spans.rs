//! Where the assistant's own text lies: what `{% generation %}` blocks wrote.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State};

use super::clock::Clock;

/// Variable that leads a block to the record of its rendering.
pub(super) const RECORDING: &str = "__recording__";

/// What is kept of one rendering while it goes on.
#[derive(Debug)]
pub(super) struct Recording {
    clock: Option<Clock>,
    /// Characters written so far, outside of blocks and macros that still gather their text.
    written: AtomicUsize,
    /// Character at which each block began, and its text.
    blocks: Mutex<Vec<(usize, String)>>,
}

impl Object for Recording {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl Recording {
    pub(super) fn new(clock: Option<Clock>) -> Arc<Self> {
        Arc::new(Self { clock, written: AtomicUsize::new(0), blocks: Mutex::default() })
    }

    pub(super) fn clock(&self) -> Option<Clock> {
        self.clock
    }

    /// Returns the bytes of each block in the rendered text, and how many hold another text.
    pub(super) fn places(&self, text: &str) -> (Vec<Range<usize>>, usize) {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
        let mut misplaced = 0;
        let mut places = Vec::with_capacity(blocks.len());
        for (start, block) in blocks.iter() {
            let place = byte(*start)..byte(start + block.chars().count());
            misplaced += usize::from(text.get(place.clone()) != Some(block.as_str()));
            places.push(place);
        }
        (places, misplaced)
    }
}

/// Returns the record of the rendering that goes on.
pub(super) fn recording(state: &State<'_, '_>) -> Result<Arc<Recording>, Error> {
    let found = state.lookup(RECORDING).and_then(|value| value.downcast_object());
    let lost = || Error::new(ErrorKind::InvalidOperation, "the record of the rendering is lost");
    found.ok_or_else(lost)
}

/// Takes the text of a `{% generation %}` block and lets it through.
///
/// The block's place is what was written before it, as transformers counts.
pub(super) fn generation(state: &State<'_, '_>, text: String) -> Result<String, Error> {
    let recording = recording(state)?;
    let start = recording.written.load(Ordering::Relaxed);
    let mut blocks = recording.blocks.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.push((start, text.clone()));
    drop(blocks);
    Ok(text)
}

/// Takes what a template writes, and counts its characters.
pub(super) struct Sink {
    bytes: Vec<u8>,
    recording: Arc<Recording>,
}

impl Sink {
    pub(super) fn new(recording: Arc<Recording>) -> Self {
        Self { bytes: Vec::new(), recording }
    }

    pub(super) fn into_text(self) -> Result<String, String> {
        String::from_utf8(self.bytes).map_err(|e| e.to_string())
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Bytes of the form 10xxxxxx go on with a character.
        let characters = bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        self.recording.written.fetch_add(characters, Ordering::Relaxed);
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
