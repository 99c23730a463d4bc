//! What the journal's stored bytes add up to.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use tlog_tiles::Hash;

use super::segment::{Item, OWN_KINDS, Said, Seen, SegmentScan};
use super::{VerifyError, VerifyReport};
use crate::bodies::Bodies;
use crate::event::Envelope;
use crate::id::Digest;
use crate::journal::{Segment, segments};
use crate::layout::Layout;
use crate::merkle::Frontier;

/// Leaves from one tree that is kept to the next.
const STRIDE: u64 = 4096;
/// Segments that may be read ahead of the one that is looked at.
const AHEAD: usize = 4;

/// What the journal holds.
#[derive(Default)]
pub(super) struct Scan {
    /// Leaf hashes of the sound events, in runs without gaps.
    runs: Vec<(u64, Vec<Hash>)>,
    /// Last version and leaf hash by stream.
    pub(super) streams: HashMap<String, (u64, Digest)>,
    /// Event by hash of its request id.
    pub(super) ids: HashMap<u64, u64>,
    pub(super) bodies: Bodies,
    /// Events about the record itself, in order.
    pub(super) own: Vec<Envelope>,
    frontier: Frontier,
    /// The tree at every [`STRIDE`]th event before the first that is damaged.
    trees: Vec<Frontier>,
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
        report.segments = all.len() as u64;
        if all.is_empty() {
            report.wrong(None, layout.journal().display().to_string(), "there is no segment");
        }
        read_all(&all, live, |segment, read| scan.segment(segment, read, report))?;
        report.events = scan.runs.iter().map(|(_, leaves)| leaves.len() as u64).sum();
        Ok(scan)
    }

    /// Returns the root over the events before the first that is damaged.
    pub(super) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Returns the root over the first `size` events, if they are all sound.
    pub(super) fn root_at(&self, size: u64) -> Option<Digest> {
        if size > self.sound() {
            return None;
        }
        let kept = usize::try_from(size / STRIDE).ok()?;
        let mut tree = self.trees.get(kept).cloned().unwrap_or_default();
        let leaves = self.runs.first().map(|(_, leaves)| leaves.as_slice()).unwrap_or_default();
        let from = usize::try_from(tree.size()).ok()?;
        leaves
            .get(from..usize::try_from(size).ok()?)?
            .iter()
            .for_each(|&leaf| tree.push_leaf(leaf));
        Some(tree.root())
    }

    /// Returns the leaf hash of an event that is sound.
    pub(super) fn leaf(&self, seq: u64) -> Option<Hash> {
        let (first, leaves) = self.runs.iter().rfind(|(first, _)| *first <= seq)?;
        leaves.get(usize::try_from(seq - first).ok()?).copied()
    }

    /// Returns how many events lie before the first that is damaged.
    pub(super) fn sound(&self) -> u64 {
        self.frontier.size()
    }

    /// Returns the number behind the last event.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// Takes up what was read of a segment.
    fn segment(&mut self, segment: &Segment, read: SegmentScan, report: &mut VerifyReport) {
        let where_ = segment.path.display().to_string();
        if segment.first != self.next {
            self.missing(segment.first, &where_, report);
        }
        for item in read.items {
            match item {
                Item::Event(seen) => self.event(seen, &read.streams, &where_, report),
                Item::Damage { seq, what } => {
                    report.wrong(Some(seq), &where_, what);
                    self.gap = true;
                }
                Item::Resume(found) => {
                    if found > self.next + 1 {
                        self.missing(found, &where_, report);
                    }
                    self.begin_again(found);
                }
            }
        }
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
    fn event(&mut self, seen: Seen, streams: &[String], where_: &str, report: &mut VerifyReport) {
        let Seen { seq, leaf, said } = seen;
        match self.runs.last_mut() {
            Some((first, leaves)) if *first + leaves.len() as u64 == seq => leaves.push(leaf),
            _ => self.runs.push((seq, vec![leaf])),
        }
        self.next = seq + 1;
        if !self.gap {
            if self.frontier.size().is_multiple_of(STRIDE) {
                self.trees.push(self.frontier.clone());
            }
            self.frontier.push_leaf(leaf);
        }
        let said = match said {
            Ok(said) => said,
            Err(what) => return report.wrong(Some(seq), where_, what),
        };
        let stream = streams.get(said.stream).map(String::as_str).unwrap_or_default();
        for what in self.contradictions(seq, stream, &said) {
            report.wrong(Some(seq), where_, what);
        }
        let head = (said.version, Digest::from_bytes(leaf.0));
        match self.streams.get_mut(stream) {
            Some(place) => *place = head,
            None => drop(self.streams.insert(stream.to_owned(), head)),
        }
        self.ids.insert(said.id, seq);
        if let Some(event) = said.whole {
            self.whole(*event, where_, report);
        }
    }

    /// Takes note of an event that names bodies or is about the record itself.
    fn whole(&mut self, event: Envelope, where_: &str, report: &mut VerifyReport) {
        if let Err(error) = self.bodies.fold(&event) {
            report.wrong(Some(event.seq), where_, error.to_string());
        }
        if OWN_KINDS.contains(&event.kind.as_str()) {
            self.own.push(event);
        }
    }

    /// Says what in an event contradicts the events before it.
    fn contradictions(&self, seq: u64, stream: &str, said: &Said) -> Vec<String> {
        let mut wrong = Vec::new();
        if said.seq != seq {
            wrong.push(format!("the event says that it is number {}", said.seq));
        }
        let version = said.version;
        match self.streams.get(stream) {
            Some((before, leaf)) => {
                if before.checked_add(1) != Some(version) {
                    wrong.push(format!("version {version} of stream {stream} follows {before}"));
                }
                if said.prev != Some(*leaf) {
                    wrong.push(format!(
                        "the digest of the event before it in stream {stream} is not that of its \
                         bytes"
                    ));
                }
            }
            None if self.gap => {}
            None => {
                if version != 0 || said.prev.is_some() {
                    wrong.push(format!("stream {stream} does not begin with it"));
                }
            }
        }
        if let Some(earlier) = self.ids.get(&said.id) {
            wrong.push(format!("its id is that of event {earlier}"));
        }
        wrong
    }
}

/// Reads segments side by side and hands them on in order.
fn read_all(
    all: &[Segment],
    live: bool,
    mut take: impl FnMut(&Segment, SegmentScan),
) -> Result<(), VerifyError> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(all.len()).max(1);
    let turn = AtomicUsize::new(0);
    let (send, receive) = sync_channel(AHEAD);
    thread::scope(|scope| {
        for _ in 0..workers {
            let (send, turn) = (send.clone(), &turn);
            scope.spawn(move || {
                loop {
                    let index = turn.fetch_add(1, Ordering::Relaxed);
                    let Some(segment) = all.get(index) else { return };
                    let read = SegmentScan::read(segment, live && index + 1 == all.len());
                    // Nobody listens any more when another segment could not be read at all.
                    if send.send((index, read)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (index, read) in receive {
            early.insert(index, read?);
            while let Some(read) = early.remove(&next) {
                if let Some(segment) = all.get(next) {
                    take(segment, read);
                }
                next += 1;
            }
        }
        Ok(())
    })
}
