//! Reading one segment's stored bytes, past damage where there is some.
//!
//! Segments are read side by side; what they say of each other is looked at afterwards, in order.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use tlog_tiles::{Hash, record_hash};

use super::VerifyError;
use crate::catalogue::{BodyErased, CheckpointSigned, KeyRotated, LedgerCreated};
use crate::codec;
use crate::event::{Envelope, Facts};
use crate::id::Digest;
use crate::ids::hash_of;
use crate::journal::{Cursor, Frame, Segment, Step, Tail};
use crate::reader::ReadError;

/// How often the end is looked at again while somebody may be writing there.
const PATIENCE: u32 = 40;
/// Kinds that say something about the record itself.
pub(super) const OWN_KINDS: [&str; 4] =
    [LedgerCreated::KIND, CheckpointSigned::KIND, KeyRotated::KIND, BodyErased::KIND];

/// What is kept of a sound frame.
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) leaf: Hash,
    /// Why its event says nothing more.
    pub(super) said: Result<Said, String>,
}

/// What an event says that can be held against other events.
pub(super) struct Said {
    pub(super) seq: u64,
    pub(super) id: u64,
    /// Place in the segment's list of streams.
    pub(super) stream: usize,
    pub(super) version: u64,
    pub(super) prev: Option<Digest>,
    /// The whole event, where it names bodies or is about the record itself.
    pub(super) whole: Option<Box<Envelope>>,
}

/// What stands at a place of the segment.
pub(super) enum Item {
    Event(Seen),
    /// Something is wrong where event `seq` should stand.
    Damage {
        seq: u64,
        what: String,
    },
    /// Behind damage, reading goes on with this event.
    Resume(u64),
}

/// A segment as it was read.
#[derive(Default)]
pub(super) struct SegmentScan {
    pub(super) items: Vec<Item>,
    pub(super) streams: Vec<String>,
    places: HashMap<String, usize>,
}

impl SegmentScan {
    /// Reads a segment. `live` says that somebody may be writing to it.
    pub(super) fn read(segment: &Segment, live: bool) -> Result<Self, VerifyError> {
        let mut scan = Self::default();
        let mut cursor = match Cursor::open(&segment.path, segment.first) {
            Ok(cursor) => cursor,
            Err(ReadError::Corrupt { seq, what, .. }) => {
                scan.items.push(Item::Damage { seq, what: what.to_owned() });
                return Ok(scan);
            }
            Err(error) => return Err(error.into()),
        };
        let mut batch = Vec::new();
        let mut start = cursor.place();
        let patience = if live { PATIENCE } else { 0 };
        let mut waits = patience;
        loop {
            let what = match cursor.step()? {
                Step::Frame(frame) => {
                    let ends = frame.mark.rest == 0;
                    batch.push(frame);
                    if ends {
                        scan.take(&mut batch);
                        start = cursor.place();
                        waits = patience;
                    }
                    continue;
                }
                Step::End if batch.is_empty() && cursor.tail()? == Tail::Clean => return Ok(scan),
                Step::End => "nothing stands here",
                Step::Invalid(what) | Step::Misplaced(what) => what,
            };
            if waits > 0 {
                // Perhaps a write in progress: what is read again later is not.
                waits -= 1;
                thread::sleep(Duration::from_millis(5));
                cursor.go_to(start);
                batch.clear();
                continue;
            }
            if !scan.pass_damage(&mut cursor, &mut batch, what)? {
                return Ok(scan);
            }
            start = cursor.place();
        }
    }

    /// Notes damage and goes on behind it. `false` where nothing sound follows.
    fn pass_damage(
        &mut self,
        cursor: &mut Cursor,
        batch: &mut Vec<Frame>,
        what: &str,
    ) -> Result<bool, VerifyError> {
        let place = cursor.place();
        let mut text = format!("at byte {}: {what}", place.offset);
        if cursor.tail()? != Tail::Damaged {
            text.push_str("; an unfinished write (opening the notebook drops it), or damage");
        }
        // Events of the batch before the damage are sound by themselves.
        self.take(batch);
        self.items.push(Item::Damage { seq: place.seq, what: text });
        if !cursor.skip_damage()? {
            return Ok(false);
        }
        self.items.push(Item::Resume(cursor.place().seq));
        Ok(true)
    }

    fn take(&mut self, batch: &mut Vec<Frame>) {
        for frame in batch.drain(..) {
            let (seq, leaf) = (frame.mark.seq, record_hash(&frame.event));
            let said = self.said(&frame.event);
            self.items.push(Item::Event(Seen { seq, leaf, said }));
        }
    }

    fn said(&mut self, bytes: &[u8]) -> Result<Said, String> {
        let event = codec::outline(bytes).map_err(|error| error.to_string())?;
        let whole = if event.facts.name_bodies || OWN_KINDS.contains(&event.kind) {
            Some(Box::new(codec::decode(bytes).map_err(|error| error.to_string())?))
        } else {
            None
        };
        let stream = match self.places.get(event.stream) {
            Some(&place) => place,
            None => {
                let place = self.streams.len();
                self.streams.push(event.stream.to_owned());
                self.places.insert(event.stream.to_owned(), place);
                place
            }
        };
        Ok(Said {
            seq: event.seq,
            id: hash_of(event.id),
            stream,
            version: event.version,
            prev: event.prev,
            whole,
        })
    }
}
