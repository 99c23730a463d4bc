//! Recording what went through the gateway, on a thread of its own.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use datasets::Episode;
use datasets::ingest::{self, Format, Reading, SourceInfo};
use datasets::redact::Rules;
use ledger::catalogue::{CallCaptured, CallEnded, Location, TraceRejected};
use ledger::{BodyRef, Digest, NewEvent, Notebook};
use serde_json::{Value, json};

use super::keep::{self, Answer, Kept};
use super::tee::Call;
use crate::capture::{Gap, Identity, trace_facts};
use crate::error::{AppError, Kind};
use crate::lab::{Lab, Place, Talk};
use crate::serve::capture::Newest;

/// Source of calls that went through the gateway.
const GATEWAY: &str = "gateway";
/// Mark of an answer that is not whole.
const BROKEN_OFF: &str = "answer.broken_off";
/// Mark of a call that the teacher failed.
const FAILURE: &str = "outcome.failure";
/// Bytes of calls that may be on their way or wait to be recorded.
const HELD_BYTES_MAX: usize = 256 << 20;
/// Calls, and bytes of them, that are made durable together.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 16 << 20;
/// Most bytes of a trace's facts: an event holds 65,535 in all.
const FACTS_BYTES_MAX: usize = 48 * 1024;
/// How often the record is told what was lost while nothing else happens.
const TELL: Duration = Duration::from_secs(2);
/// Ids of answers that are remembered, to tell a second one with the same id.
const IDS_MAX: usize = 100_000;

/// Takes calls for a thread that records them.
pub(in crate::serve) struct Recorder {
    queue: Mutex<Option<Sender<Call>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    lost: AtomicU64,
    held_bytes: AtomicUsize,
    /// Calls that were lost outside of the thread, which does not write to the disk at once: calls
    /// do not wait for it.
    untold: AtomicU64,
}

impl Counts {
    /// Counts a call that is lost because too many wait to be recorded.
    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Recorder {
    /// Starts the thread. It tells `newest` whose calls it knows, and the record what `gap` counts.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(in crate::serve) fn start(
        notebook: Notebook,
        actor: &str,
        newest: Arc<Mutex<Newest>>,
        gap: Arc<Gap>,
    ) -> std::io::Result<Self> {
        let (send, receive) = channel();
        let counts = Arc::new(Counts::default());
        let began = chrono::Utc::now().timestamp_micros();
        let (actor, rules) = (actor.to_owned(), Rules::default());
        let hand = Hand { notebook, actor, began, rules, newest, gap };
        let told = Arc::clone(&counts);
        let thread = std::thread::Builder::new().name("ledger-gateway".to_owned());
        let thread = thread.spawn(move || record_all(&hand, &receive, &told))?;
        Ok(Self { queue: Mutex::new(Some(send)), thread: Mutex::new(Some(thread)), counts })
    }

    /// Counts (calls, calls that were not recorded).
    pub(in crate::serve) fn counts(&self) -> (u64, u64) {
        let Counts { calls, lost, .. } = &*self.counts;
        (calls.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }

    /// Holds room for bytes of a call, where there is some.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let held = self.counts.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = held + bytes <= HELD_BYTES_MAX;
        if !fits {
            self.counts.release(bytes);
        }
        fits
    }

    /// Counts a call that is not recorded.
    pub(super) fn lose(&self) {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.counts.lose();
    }

    /// Takes a call to record. Never waits.
    pub(super) fn give(&self, call: Call) {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let reserved = call.reserved;
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.as_ref().is_none_or(|queue| queue.send(call).is_err()) {
            self.counts.release(reserved);
            self.counts.lose();
        }
    }

    /// Records what waits, and ends the thread.
    pub(in crate::serve) fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has told so on the standard error.
            let _ = thread.join();
        }
    }
}

/// Records calls until nobody can give any more.
fn record_all(hand: &Hand, receive: &Receiver<Call>, counts: &Counts) {
    let (mut number, mut ids) = (0, Ids::default());
    loop {
        hand.tell_lost(counts);
        let first = match receive.recv_timeout(TELL) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut bytes = first.reserved;
        let mut calls = vec![first];
        while calls.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(next) = receive.try_recv() else { break };
            bytes += next.reserved;
            calls.push(next);
        }
        if hand.record(&calls, number, &mut ids).is_err() {
            // Whatever one of them is refused for shall not cost the others.
            for (place, call) in (number..).zip(&calls) {
                if let Err(failure) = hand.record(std::slice::from_ref(call), place, &mut ids) {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    if !hand.gap.lose(GATEWAY, 1, &failure.to_string()) {
                        continue;
                    }
                    // Nobody has to read it: a closed standard error is no reason to stop.
                    let what = format!("a call was answered but not recorded: {failure}");
                    let more = "`ledger status` counts it, and those that follow";
                    let _ = writeln!(std::io::stderr(), "{what}; {more}");
                }
            }
        }
        number += calls.len() as u64;
        counts.release(bytes);
    }
    hand.tell_lost(counts);
}

/// Ids that answers had, the newest of them.
#[derive(Default)]
struct Ids {
    /// Id -> number of the call that had it first.
    known: BTreeMap<String, u64>,
    order: VecDeque<String>,
}

impl Ids {
    /// Says whether an id is that of another call.
    fn is_taken(&mut self, id: &str, number: u64) -> bool {
        if let Some(first) = self.known.get(id) {
            return *first != number;
        }
        self.known.insert(id.to_owned(), number);
        self.order.push_back(id.to_owned());
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

/// What recording needs.
struct Hand {
    notebook: Notebook,
    actor: String,
    /// When the server began: ids that are given to calls differ from those of other servers.
    began: i64,
    rules: Rules,
    newest: Arc<Mutex<Newest>>,
    gap: Arc<Gap>,
}

/// What one call adds to the record.
#[derive(Default)]
struct Made {
    bodies: Vec<Vec<u8>>,
    events: Vec<NewEvent>,
}

impl Hand {
    fn lab(&self) -> Lab<'_> {
        Lab { notebook: &self.notebook, actor: &self.actor, talk: Talk { quiet: true } }
    }

    /// Counts on disk what was lost, and tells the record as soon as it takes events.
    fn tell_lost(&self, counts: &Counts) {
        let untold = counts.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            let why = "more calls than could be recorded: they were answered only";
            self.gap.lose(GATEWAY, untold, why);
        }
        // Where it takes none, it is asked again.
        let _ = self.gap.settle(&self.lab());
    }

    /// Records some calls, numbered from `first`: bodies first, then the events that name them.
    fn record(&self, calls: &[Call], first: u64, ids: &mut Ids) -> Result<(), AppError> {
        let mut all = Made::default();
        for (number, call) in (first..).zip(calls) {
            // What a reader trips over shall not end the recording of all that follows.
            let made =
                catch_unwind(AssertUnwindSafe(|| self.make(call, number, (&mut *ids, &mut all))));
            made.unwrap_or_else(|_| Err(AppError::said(Kind::Internal, "reading it panicked")))?;
        }
        // Bodies that no event would name are not stored.
        self.notebook.ready(all.bodies.iter().map(|body| body.len() as u64).sum())?;
        self.notebook.blobs().put_many(&all.bodies)?;
        self.notebook.append(&[], all.events)?;
        Ok(())
    }

    fn make(
        &self,
        call: &Call,
        number: u64,
        (ids, all): (&mut Ids, &mut Made),
    ) -> Result<(), AppError> {
        let (answer, own_id) = (Answer::of(&self.rules, call), self.own_id(number));
        let id = answer.id.clone().filter(|id| !ids.is_taken(id, number));
        let id = id.unwrap_or_else(|| own_id.clone());
        let request = keep::request(&self.rules, call);
        let read = match &request.bytes {
            Some(_) => read(&self.rules, call, &answer, &id),
            None => Err("the request cannot be read".to_owned()),
        };
        let identity = self.identity(call, read.as_ref().ok().map(|(episode, _)| episode), &id)?;
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(&id, call.subject.as_deref());
        let is_clean = read.as_ref().is_ok_and(|(_, places)| *places == 0) && !request.redacted;
        let response = match &request.bytes {
            Some(_) => answer.keep(&self.rules, call, is_clean),
            // Nobody can say whose it is.
            None => Kept { bytes: None, redacted: false },
        };
        let kept = (request, response);
        let facts = self.call_facts(call, (&answer, &identity), kept, all);
        let measured = json!({
            "latency_ms": call.all_ms,
            "first_byte_ms": call.first_ms,
            "usage": answer.usage,
        });
        let place = || Place::default().measured(measured.clone());
        let (lab, stream) = (self.lab(), format!("trace/{GATEWAY}"));
        let event_id = |what: &str| format!("{what}/{GATEWAY}/{own_id}");
        all.events.push(lab.event(&stream, &event_id("call"), &facts, place())?);
        let trace = read.and_then(|(episode, redacted)| {
            let stored = identity.stored(episode.to_bytes());
            let mut facts = trace_facts(&episode, &identity, identity.body(&stored));
            (facts.rules, facts.redacted) = (self.rules.names().to_vec(), redacted);
            let size = serde_json::to_vec(&facts).map_err(|error| error.to_string())?.len();
            if size > FACTS_BYTES_MAX {
                return Err(format!("id, tools and flags take more than {FACTS_BYTES_MAX} bytes"));
            }
            Ok((facts, stored))
        });
        all.events.push(match trace {
            Ok((facts, stored)) => {
                all.bodies.push(stored);
                lab.event(&stream, &event_id("trace"), &facts, place())?
            }
            Err(reason) => {
                let location = Location { file: String::new(), row: 0 };
                let source = GATEWAY.to_owned();
                // A digest of what nobody could read may be that of somebody's words.
                let content = Digest::of(own_id.as_bytes());
                let facts = TraceRejected { source, location, reason, content };
                lab.event(&stream, &event_id("reject"), &facts, place())?
            }
        });
        Ok(())
    }

    /// Names a call, whether an episode could be read from it or not.
    fn identity(
        &self,
        call: &Call,
        episode: Option<&Episode>,
        id: &str,
    ) -> Result<Identity, AppError> {
        let nobody = Episode { subject: call.subject.clone(), ..nobody(id) };
        let about = episode.unwrap_or(&nobody);
        let named = Identity::make(about, about.content_digest(), self.notebook.blobs())?;
        // The response's id says nothing of the words, so it stays as it is: feedback names it.
        Ok(Identity { external_id: id.to_owned(), ..named })
    }

    fn call_facts(
        &self,
        call: &Call,
        (answer, identity): (&Answer<'_>, &Identity),
        (request, response): (Kept, Kept),
        all: &mut Made,
    ) -> CallCaptured {
        let redacted = request.redacted || response.redacted;
        let mut body = |kept: Kept| -> Option<BodyRef> {
            let stored = identity.stored(kept.bytes?);
            let body = identity.body(&stored);
            all.bodies.push(stored);
            Some(body)
        };
        CallCaptured {
            source: GATEWAY.to_owned(),
            external_id: identity.external_id.clone(),
            request: body(request),
            response: body(response),
            status: call.status,
            ended: answer.ended,
            streamed: call.streamed,
            error: call.error.as_ref().map(|why| self.rules.redact_text(why)),
            rules: self.rules.names().to_vec(),
            redacted,
            truncated: call.is_truncated,
        }
    }

    /// Gives an id to a call whose answer has none.
    fn own_id(&self, number: u64) -> String {
        let key = json!([self.began, number, std::process::id()]);
        let digest = Digest::of(key.to_string().as_bytes());
        format!("call-{}", digest.to_string().get(..24).unwrap_or_default())
    }
}

/// An episode of a call that could not be read, to name its subject.
fn nobody(id: &str) -> Episode {
    let source = datasets::Source {
        name: GATEWAY.to_owned(),
        external_id: id.to_owned(),
        location: Location { file: String::new(), row: 0 },
        format: Format::Exchange.name().to_owned(),
    };
    Episode {
        schema: 1,
        track: "chat".to_owned(),
        tools: Vec::new(),
        turns: Vec::new(),
        gold: datasets::Gold::None,
        answer: None,
        query: String::new(),
        source,
        licence: "own".to_owned(),
        attribution: String::new(),
        subject: None,
        flags: Vec::new(),
    }
}

/// Reads a call as an exchange: its episode with the number of placeholders, or why not.
fn read(
    rules: &Rules,
    call: &Call,
    answer: &Answer<'_>,
    id: &str,
) -> Result<(Episode, u64), String> {
    let request = String::from_utf8_lossy(&call.request);
    let is_readable = answer.is_readable && !call.is_encoded;
    let status = if is_readable { json!(call.status) } else { json!("error") };
    let response = if is_readable { json!(answer.text) } else { Value::Null };
    let row = json!({ "id": id, "request": request, "response": response, "status": status });
    let source = SourceInfo {
        name: GATEWAY.to_owned(),
        licence: "own".to_owned(),
        ..SourceInfo::unknown(Path::new(""))
    };
    let reading = Reading { rules: rules.clone(), ..Format::Exchange.into() };
    let row = row.to_string();
    let mut rows = ingest::read(row.as_bytes(), &source, &reading);
    let row = match rows.next() {
        Some(Ok(row)) => row,
        Some(Err(error)) => return Err(rules.redact_text(&error.to_string())),
        None => return Err("nothing was asked".to_owned()),
    };
    let redacted = row.redacted;
    let mut episode = row.result?.into_iter().next().ok_or("nothing was asked")?;
    episode.source.location = Location { file: String::new(), row: 0 };
    episode.source.external_id = id.to_owned();
    episode.subject.clone_from(&call.subject);
    let is_whole = answer.ended == CallEnded::Complete && !call.is_truncated;
    if !is_whole {
        episode.flags.push(BROKEN_OFF.to_owned());
        episode.flags.sort();
    }
    // A caller who leaves early is no failure of the teacher.
    let is_refused = call.status.is_none_or(|status| status >= 400);
    if !is_readable && !is_refused {
        episode.flags.retain(|flag| flag != FAILURE);
    }
    Ok((episode, redacted))
}
