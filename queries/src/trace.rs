//! One trace: its spans as a tree, whatever order they came in.

use std::collections::{BTreeMap, BTreeSet};

use datasets::Episode;
use datasets::manifest::Stored as _;
use datasets::span::Span;
use ledger::catalogue::{SpanCaptured, TraceIngested, TraceRevised};
use ledger::event::FactsError;
use ledger::{Envelope, Facts as _, ReadError, Reader};
use serde::Serialize;
use serde_json::Value;

/// Fewest characters of a trace's id that name it.
const PREFIX_MIN: usize = 6;
/// Deepest place in a tree: whoever walks it needs a stack.
const DEPTH_MAX: usize = 200;

/// Says why a trace cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event is malformed.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Nothing has this id.
    #[error("no trace, span or response {id:?} is in the record")]
    Unknown {
        /// Id that was asked for.
        id: String,
    },
    /// Several traces begin so.
    #[error("{id:?} is the beginning of several traces: {found}")]
    Ambiguous {
        /// Id that was asked for.
        id: String,
        /// Some of them.
        found: String,
    },
}

/// A call of a model, as it was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Its event.
    pub event: u64,
    /// Its source.
    pub source: String,
    /// Its id within the source.
    pub external_id: String,
    /// What was asked and answered; none where it was erased or is missing.
    pub episode: Option<Episode>,
    /// What was measured: latency, usage.
    pub measured: Value,
}

/// A span in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its newest event.
    pub event: u64,
    /// What the record says of it.
    pub facts: SpanCaptured,
    /// What it did; none where it was erased or is missing.
    pub span: Option<Span>,
    /// The call of a model that it is.
    pub call: Option<Call>,
    /// It names a parent that is not here.
    pub is_orphan: bool,
    /// Spans within it, by the time they began.
    pub children: Vec<Node>,
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceTree {
    /// Its id.
    pub trace_id: String,
    /// Spans that are within no other, by the time they began.
    pub roots: Vec<Node>,
}

/// What an id leads to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The spans of a trace.
    Tree(TraceTree),
    /// A call that came without spans.
    Call(Box<Call>),
}

/// Finds what an id means: the beginning of a trace's id, `<trace>/<span>`, the id of a response,
/// or that of an imported row.
///
/// # Errors
/// When nothing has the id, several traces begin with it, or the record cannot be read.
pub fn find(reader: &Reader, id: &str) -> Result<Found, TraceError> {
    let mut finding = Finding { id, ..Finding::default() };
    for event in reader.events(0)? {
        finding.take(&event?)?;
    }
    let mut traces = std::mem::take(&mut finding.traces);
    if traces.contains(id) {
        // A whole id may be the beginning of another.
        traces.retain(|trace| trace == id);
    }
    let mut traces = traces.into_iter();
    match (traces.next(), traces.next()) {
        (Some(trace), None) => Ok(Found::Tree(tree(reader, trace)?)),
        (Some(first), Some(second)) => {
            let found = format!("{first}, {second}, ...");
            Err(TraceError::Ambiguous { id: id.to_owned(), found })
        }
        (None, _) => match finding.call {
            Some((event, trace)) => Ok(Found::Call(Box::new(call(reader, &event, trace)))),
            None => Err(TraceError::Unknown { id: id.to_owned() }),
        },
    }
}

/// Looks for what an id means.
#[derive(Default)]
struct Finding<'a> {
    id: &'a str,
    /// Traces with spans that it names.
    traces: BTreeSet<String>,
    /// The newest call that it names, and that is of no such trace.
    call: Option<(Envelope, TraceIngested)>,
}

impl Finding<'_> {
    fn take(&mut self, event: &Envelope) -> Result<(), TraceError> {
        let trace = match event.kind.as_str() {
            SpanCaptured::KIND => {
                let span: SpanCaptured = event.facts()?;
                let begins = self.id.len() >= PREFIX_MIN && span.trace_id.starts_with(self.id);
                let is_span = || {
                    let rest = self.id.strip_prefix(span.trace_id.as_str());
                    rest.and_then(|rest| rest.strip_prefix('/')) == Some(&span.span_id)
                };
                if begins || span.trace_id == self.id || is_span() {
                    self.traces.insert(span.trace_id);
                }
                return Ok(());
            }
            TraceIngested::KIND => event.facts::<TraceIngested>()?,
            TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
            _ => return Ok(()),
        };
        if !trace.is_called(self.id) {
            return Ok(());
        }
        match trace.external_id.split_once('/').filter(|_| trace.mapper.is_some()) {
            Some((of, _)) => drop(self.traces.insert(of.to_owned())),
            None => self.call = Some((event.clone(), trace)),
        }
        Ok(())
    }
}

fn call(reader: &Reader, event: &Envelope, trace: TraceIngested) -> Call {
    let bytes = reader.blobs().get(&trace.body).ok();
    Call {
        event: event.seq,
        source: trace.source,
        external_id: trace.external_id,
        episode: bytes.and_then(|bytes| Episode::from_stored(&bytes).ok()),
        measured: event.measured.clone(),
    }
}

/// Reads the spans of a trace.
fn tree(reader: &Reader, trace_id: String) -> Result<TraceTree, TraceError> {
    let (mut spans, mut calls) = (BTreeMap::new(), BTreeMap::new());
    let within = format!("{trace_id}/");
    for event in reader.events(0)? {
        let event = event?;
        let trace = match event.kind.as_str() {
            SpanCaptured::KIND => {
                let facts: SpanCaptured = event.facts()?;
                if facts.trace_id == trace_id {
                    spans.insert(facts.span_id.clone(), (event.seq, facts));
                }
                continue;
            }
            TraceIngested::KIND => event.facts::<TraceIngested>()?,
            TraceRevised::KIND => event.facts::<TraceRevised>()?.trace,
            _ => continue,
        };
        if let Some(span) = trace.external_id.strip_prefix(&within).map(str::to_owned)
            && trace.mapper.is_some()
        {
            calls.insert(span, call(reader, &event, trace));
        }
    }
    let nodes = spans.into_iter().map(|(id, (event, facts))| {
        let bytes = reader.blobs().get(&facts.body).ok();
        let span = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let call = calls.remove(&id);
        Node { event, facts, span, call, is_orphan: false, children: Vec::new() }
    });
    Ok(TraceTree { trace_id, roots: arrange(nodes.collect()) })
}

/// Puts spans into their places. A span whose parent is not here is a root, and so is one span of
/// any ring: the first of it.
pub fn arrange(nodes: Vec<Node>) -> Vec<Node> {
    let mut nodes: BTreeMap<Place, Node> =
        nodes.into_iter().map(|node| (Place::of(&node), node)).collect();
    let places: BTreeMap<String, Place> =
        nodes.iter().map(|(place, node)| (node.facts.span_id.clone(), place.clone())).collect();
    let mut within: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
    let mut roots = Vec::new();
    for (place, node) in &mut nodes {
        let parent = node.facts.parent_id.as_ref();
        match parent.and_then(|parent| places.get(parent)).filter(|parent| *parent != place) {
            Some(parent) => within.entry(parent.clone()).or_default().push(place.clone()),
            None => {
                node.is_orphan = parent.is_some();
                roots.push(place.clone());
            }
        }
    }
    let mut arranged: Vec<Node> =
        roots.iter().filter_map(|root| gathered(root, &within, &mut nodes)).collect();
    // What is left hangs in rings.
    while let Some(first) = nodes.keys().next().cloned() {
        arranged.extend(gathered(&first, &within, &mut nodes));
    }
    arranged.sort_by_cached_key(Place::of);
    arranged
}

/// Where a span stands among others: by the time it began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(i64, String);

impl Place {
    fn of(node: &Node) -> Self {
        let began = node.span.as_ref().map_or(i64::MAX, |span| span.start_us);
        Self(began, node.facts.span_id.clone())
    }
}

/// Takes a span with all that is within it. What lies deeper than [`DEPTH_MAX`] stands beside
/// what it is within.
fn gathered(
    root: &Place,
    within: &BTreeMap<Place, Vec<Place>>,
    nodes: &mut BTreeMap<Place, Node>,
) -> Option<Node> {
    // From the top down, each with its parent's number and its depth.
    let mut taken: Vec<(usize, usize, Node)> = vec![(0, 0, nodes.remove(root)?)];
    let mut next = 0;
    while let Some((parent, depth, node)) = taken.get(next) {
        let (parent, depth) =
            if *depth < DEPTH_MAX { (next, depth + 1) } else { (*parent, *depth) };
        let place = Place::of(node);
        for child in within.get(&place).into_iter().flatten() {
            if let Some(child) = nodes.remove(child) {
                taken.push((parent, depth, child));
            }
        }
        next += 1;
    }
    // From the bottom up.
    while taken.len() > 1 {
        let Some((parent, _, mut node)) = taken.pop() else { break };
        // They come last first.
        node.children.reverse();
        if let Some((_, _, parent)) = taken.get_mut(parent) {
            parent.children.push(node);
        }
    }
    let (_, _, mut node) = taken.pop()?;
    node.children.reverse();
    Some(node)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ledger::{BodyRef, Digest};
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn node(id: usize, parent: Option<usize>, start_us: i64) -> Node {
        let digest = Digest::of(b"");
        let body = BodyRef { digest, length: 0, cipher: None, subject: None };
        let name = |id: usize| format!("s{id}");
        let facts = SpanCaptured {
            source: "otlp".to_owned(),
            trace_id: "t".to_owned(),
            span_id: name(id),
            parent_id: parent.map(name),
            role: "span".to_owned(),
            form: "none".to_owned(),
            mapper: "spans/2".to_owned(),
            content: digest,
            body,
            rules: Vec::new(),
            redacted: 0,
            revises: None,
        };
        let span = Span {
            schema: 1,
            trace_id: "t".to_owned(),
            span_id: name(id),
            parent_id: parent.map(name),
            name: name(id),
            start_us,
            end_us: None,
            attributes: Map::new(),
            events: Vec::new(),
            is_error: false,
            status_message: String::new(),
            resource: Map::new(),
            scope: String::new(),
        };
        let children = Vec::new();
        Node { event: 0, facts, span: Some(span), call: None, is_orphan: false, children }
    }

    fn count(nodes: &[Node]) -> usize {
        nodes.iter().map(|node| 1 + count(&node.children)).sum()
    }

    /// Writes a tree as `s1(s2,s3(s4))`.
    fn drawn(nodes: &[Node]) -> String {
        let one = |node: &Node| match drawn(&node.children) {
            within if within.is_empty() => node.facts.span_id.clone(),
            within => format!("{}({within})", node.facts.span_id),
        };
        nodes.iter().map(one).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn spans_stand_within_their_parents_by_time() {
        let nodes = vec![node(3, Some(1), 30), node(1, None, 10), node(4, Some(3), 5)];
        let nodes = [nodes, vec![node(2, Some(1), 20), node(5, Some(9), 1)]].concat();
        let roots = arrange(nodes);
        assert_eq!(drawn(&roots), "s5,s1(s2,s3(s4))");
        assert!(roots[0].is_orphan && !roots[1].is_orphan);
    }

    #[test]
    fn rings_and_depth_lose_nothing() {
        let ring = vec![node(1, Some(2), 1), node(2, Some(1), 2), node(3, Some(3), 3)];
        assert_eq!(drawn(&arrange(ring)), "s1(s2),s3");
        let chain = (0..100_000).map(|n: usize| node(n, n.checked_sub(1), 0)).collect();
        let arranged = arrange(chain);
        assert_eq!((arranged.len(), count(&arranged)), (1, 100_000));
    }

    proptest! {
        /// Whatever order spans come in, they make one tree, and none is lost.
        #[test]
        fn order_of_arrival_says_nothing(
            parents in prop::collection::vec((prop::option::of(0_usize..14), 0_i64..4), 1..12),
            seed in any::<u64>(),
        ) {
            let made = |(id, (parent, start)): (usize, &(Option<usize>, i64))| {
                node(id, *parent, *start)
            };
            let nodes: Vec<Node> = parents.iter().enumerate().map(made).collect();
            let mut mixed = nodes.clone();
            let order = |node: &Node| {
                Digest::of(format!("{seed}{}", node.facts.span_id).as_bytes())
            };
            mixed.sort_by_key(order);
            let arranged = arrange(nodes);
            prop_assert_eq!(count(&arranged), parents.len());
            prop_assert_eq!(arrange(mixed), arranged);
        }
    }
}
