//! Walking through the journal's stored bytes, past damage where there is some.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use super::{VerifyError, VerifyReport};
use crate::blob::bodies_in;
use crate::catalogue::CheckpointSigned;
use crate::codec;
use crate::event::{Envelope, Facts};
use crate::id::Digest;
use crate::journal::{Cursor, Frame, Segment, Step, Tail, segments};
use crate::layout::Layout;
use crate::merkle::{Frontier, Nodes};
use crate::reader::ReadError;

/// How often the end is looked at again while somebody may be writing there.
const PATIENCE: u32 = 40;

/// What the journal holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Digest of the stored bytes of every sound event.
    pub(super) events: BTreeMap<u64, Digest>,
    /// Last version and digest by stream.
    pub(super) streams: BTreeMap<String, (u64, Digest)>,
    /// Event by request id.
    pub(super) ids: BTreeMap<String, u64>,
    /// Bodies by digest: the first event that names each, and the lengths that were said.
    pub(super) bodies: BTreeMap<Digest, (u64, BTreeSet<u64>)>,
    pub(super) checkpoints: Vec<(u64, CheckpointSigned)>,
    pub(super) first: Option<Envelope>,
    frontier: Frontier,
    nodes: Nodes,
    /// Number of the next event.
    next: u64,
    /// Some events could not be read, so that what refers to them cannot be checked.
    gap: bool,
}

impl Scan {
    /// Reads the whole journal. `live` says that somebody may be writing.
    pub(super) fn over(
        layout: &Layout,
        live: bool,
        report: &mut VerifyReport,
    ) -> Result<Self, VerifyError> {
        let mut scan = Self::default();
        // Listed once: what a writer appends to later segments is not part of this verification.
        let all = segments(&layout.journal())?;
        for (index, segment) in all.iter().enumerate() {
            let last = index + 1 == all.len();
            report.segments += 1;
            scan.segment(segment, last.then_some(live), report)?;
        }
        if report.segments == 0 {
            report.wrong(None, layout.journal().display().to_string(), "there is no segment");
        }
        report.events = scan.events.len() as u64;
        Ok(scan)
    }

    /// Returns the root over the events before the first that is damaged.
    pub(super) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Returns the root over the first `size` events, if they are all sound.
    pub(super) fn root_at(&self, size: u64) -> Option<Digest> {
        self.nodes.root_at(size)
    }

    /// Returns how many events lie before the first that is damaged.
    pub(super) fn sound(&self) -> u64 {
        self.frontier.size()
    }

    /// Returns the number behind the last event.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// Reads one segment; `last` is `Some(live)` for the last one.
    fn segment(
        &mut self,
        segment: &Segment,
        last: Option<bool>,
        report: &mut VerifyReport,
    ) -> Result<(), VerifyError> {
        let where_ = segment.path.display().to_string();
        if segment.first != self.next {
            self.missing(segment.first, &where_, report);
        }
        let mut cursor = match Cursor::open(&segment.path, segment.first) {
            Ok(cursor) => cursor,
            Err(ReadError::Corrupt { seq, what, .. }) => {
                report.wrong(Some(seq), where_, what);
                self.gap = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut batch = Vec::new();
        let mut start = cursor.place();
        let patience = if last == Some(true) { PATIENCE } else { 0 };
        let mut waits = patience;
        loop {
            let what = match cursor.step()? {
                Step::Frame(frame) => {
                    let ends = frame.mark.rest == 0;
                    batch.push(frame);
                    if ends {
                        for frame in batch.drain(..) {
                            self.event(&frame, &where_, report);
                        }
                        start = cursor.place();
                        waits = patience;
                    }
                    continue;
                }
                Step::End if batch.is_empty() && cursor.tail()? == Tail::Clean => return Ok(()),
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
            if !self.pass_damage(&mut cursor, &mut batch, &where_, what, report)? {
                return Ok(());
            }
            start = cursor.place();
        }
    }

    /// Reports damage and goes on behind it. `false` where nothing sound follows.
    fn pass_damage(
        &mut self,
        cursor: &mut Cursor,
        batch: &mut Vec<Frame>,
        where_: &str,
        what: &str,
        report: &mut VerifyReport,
    ) -> Result<bool, VerifyError> {
        let place = cursor.place();
        let unfinished = cursor.tail()? != Tail::Damaged;
        let mut text = format!("at byte {}: {what}", place.offset);
        if unfinished {
            text.push_str("; an unfinished write (opening the notebook drops it), or damage");
        }
        report.wrong(Some(place.seq), where_, text);
        // Events of the batch before the damage are sound by themselves.
        for frame in batch.drain(..) {
            self.event(&frame, where_, report);
        }
        self.gap = true;
        if !cursor.skip_damage()? {
            return Ok(false);
        }
        let found = cursor.place().seq;
        if found > place.seq + 1 {
            self.missing(found, where_, report);
        }
        self.begin_again(found);
        Ok(true)
    }

    /// Reports that the events up to `found` are not there.
    fn missing(&mut self, found: u64, where_: &str, report: &mut VerifyReport) {
        let what = format!("events {} to {} cannot be read", self.next, found.saturating_sub(1));
        report.wrong(Some(self.next), where_, what);
        self.begin_again(found);
    }

    /// Goes on at `seq` behind a gap: what stood before it says nothing about streams any more.
    fn begin_again(&mut self, seq: u64) {
        self.gap = true;
        self.next = seq;
        self.streams.clear();
    }

    /// Checks one event and takes note of it.
    fn event(&mut self, frame: &Frame, where_: &str, report: &mut VerifyReport) {
        let seq = frame.mark.seq;
        let digest = Digest::of(&frame.event);
        self.next = seq + 1;
        self.events.insert(seq, digest);
        if !self.gap {
            let nodes = self.frontier.push(&frame.event);
            self.nodes.extend(&nodes);
        }
        let event = match codec::decode(&frame.event) {
            Ok(event) => event,
            Err(error) => {
                report.wrong(Some(seq), where_, error.to_string());
                return;
            }
        };
        for what in self.contradictions(seq, &event) {
            report.wrong(Some(seq), where_, what);
        }
        self.streams.insert(event.stream.clone(), (event.version, digest));
        self.ids.insert(event.id.clone(), seq);
        for body in bodies_in(&event.facts) {
            let entry = self.bodies.entry(body.digest).or_insert((seq, BTreeSet::new()));
            entry.1.insert(body.length);
        }
        if event.kind == CheckpointSigned::KIND {
            match event.facts::<CheckpointSigned>() {
                Ok(facts) => self.checkpoints.push((seq, facts)),
                Err(error) => report.wrong(Some(seq), where_, error.to_string()),
            }
        }
        if seq == 0 {
            self.first = Some(event);
        }
    }

    /// Says what in an event contradicts the events before it.
    fn contradictions(&self, seq: u64, event: &Envelope) -> Vec<String> {
        let mut wrong = Vec::new();
        if event.seq != seq {
            wrong.push(format!("the event says that it is number {}", event.seq));
        }
        match self.streams.get(&event.stream) {
            Some((version, digest)) => {
                if event.version != version + 1 {
                    wrong.push(format!(
                        "version {} of stream {} follows version {version}",
                        event.version, event.stream
                    ));
                }
                if event.prev != Some(*digest) {
                    wrong.push(format!(
                        "the digest of the event before it in stream {} is not that of its bytes",
                        event.stream
                    ));
                }
            }
            None if self.gap => {}
            None => {
                if event.version != 0 || event.prev.is_some() {
                    wrong.push(format!("stream {} does not begin with it", event.stream));
                }
            }
        }
        if let Some(earlier) = self.ids.get(&event.id) {
            wrong.push(format!("its id {:?} is that of event {earlier}", event.id));
        }
        wrong
    }
}
