//! The track `calls`: all calls of an answer against all calls of the gold.
//!
//! The strict reading takes an answer that is wrappers only, one behind the other with white space
//! between them. The lenient reading takes the same calls where that is valid, else every call that
//! can be decoded anywhere in the answer; where a gold has options, texts are then compared as BFCL
//! compares them. `name` means that the names are those of the gold (in its order, or in any),
//! `exact` that the calls are.
//!
//! Leaves of a call are its name and the leaves of its arguments, so that a call without arguments
//! counts, too. The gold has a fixed number of them: of an argument with options, those of its
//! first value, and none where it may be left out. An argument that equals one of its options has
//! them all; one that does not is held against the nearest option. So no answer gets a better
//! recall by leaving a call out.

use std::collections::BTreeMap;

use ledger::Digest;
use ledger::catalogue::Reading;
use serde_json::{Value, json};

use super::leaves::{self, compare};
use super::matching::{self, Pair};
use super::options::{self, Options, Tally, Texts};
use super::{call_faults, unread_leaves};
use crate::episode::Call;
use crate::gold::{Found, all_calls, strict_calls};
use crate::manifest::digest_of;

/// Name of the track.
pub(super) const TRACK: &str = "calls";

/// What a wrapper begins with.
const OPEN: &str = "<tool_call";

/// Places at which a search for calls gives up (see [`all_calls`]).
const STARTS_MAX: usize = 1_000;

/// Version of the rules of this module. Any change of a score's meaning raises it.
const VERSION: u32 = 2;

/// Returns the identity of this scorer.
pub(super) fn digest() -> Digest {
    digest_of(&json!({
        "scorer": TRACK,
        "version": VERSION,
        "rules": {
            "strict": "whole trimmed answer is wrappers around JSON objects, white space between",
            "lenient": "strict where valid, else all calls: wrapper, attributes, tags, object",
            "exact": "as many calls as the gold, names and arguments equal, in order where it says",
            "pairing": "most shared leaves, then fewest extra, then most right calls",
            "options": "any of the values; \"\" may be left out; none is the empty list; members \
                        of objects have options; lenient: texts without space and ,./-_*^, lower \
                        case, \" for '",
            "no_call": "exact where nothing can be decoded to a call, no wrapper opens, and all \
                        of the answer was searched; else one false positive at least",
        },
        "leaves": "the name, and (path, scalar) of arguments; numbers by value; of options those \
                   of the first value, none where it may be left out",
        "invalid": "all gold leaves are false negatives, none is a false positive",
    }))
}

/// All calls that an answer must make.
pub(super) struct WantedCalls<'a> {
    calls: Vec<WantedCall<'a>>,
    in_order: bool,
}

struct WantedCall<'a> {
    name: &'a str,
    arguments: Value,
    options: Option<&'a Options>,
    leaves: u32,
}

/// A call of an answer.
struct Made<'a> {
    name: &'a str,
    arguments: Value,
    leaves: u64,
}

impl<'a> WantedCalls<'a> {
    pub(super) fn new(
        calls: &'a [Call],
        options: Option<&'a [Options]>,
        in_order: bool,
    ) -> WantedCalls<'a> {
        let wanted = |(place, call): (usize, &'a Call)| {
            let arguments = Value::Object(call.arguments.clone());
            let options = options.and_then(|options| options.get(place));
            let of_arguments = options.map_or_else(
                || leaves::count(&arguments),
                |options| options.values().map(|options| wanted_leaves(options)).sum(),
            );
            WantedCall { name: &call.name, arguments, options, leaves: of_arguments + 1 }
        };
        Self { calls: calls.iter().enumerate().map(wanted).collect(), in_order }
    }

    /// Counts the leaves of the gold.
    pub(super) fn leaves(&self) -> u32 {
        self.calls.iter().map(|call| call.leaves).sum()
    }

    /// Reads the calls of an answer.
    fn read(&self, calls: &[Call], texts: Texts) -> (Reading, Vec<&'static str>) {
        let made: Vec<Made<'_>> = calls.iter().map(Made::of).collect();
        let row = |wanted: &WantedCall<'_>| -> Vec<Pair> {
            made.iter().map(|made| wanted.pair(made, texts)).collect()
        };
        let pairs: Vec<Vec<Pair>> = self.calls.iter().map(row).collect();
        let any_order = matching::any_order(&pairs);
        let sum = if self.in_order { matching::in_order(&pairs) } else { any_order };
        let size = self.calls.len();
        let is_all = |right: u64| made.len() == size && right == size as u64;
        let all: u64 = made.iter().map(|made| made.leaves).sum();
        let (lacking, beyond) = self.other_names(&made);
        let same_order = || self.calls.iter().map(|c| c.name).eq(made.iter().map(|c| c.name));
        let shared = narrow(sum.shared);
        let reading = Reading {
            valid: true,
            name: lacking + beyond == 0 && (!self.in_order || same_order()),
            exact: is_all(sum.right),
            true_positives: shared,
            false_positives: narrow(all.saturating_sub(sum.excused)),
            false_negatives: self.leaves().saturating_sub(shared),
        };
        let is_known = |right: u64| right >= (size - lacking) as u64;
        let mut issues = Vec::new();
        for (is_so, issue) in [
            (made.len() != size, "wrong_count"),
            (made.len() < size, "missing_call"),
            (made.len() > size, "extra_call"),
            (lacking > 0 && beyond > 0, "tool_name_mismatch"),
            (!is_known(any_order.right), "arguments_mismatch"),
            (is_all(any_order.right) && !reading.exact, "wrong_order"),
        ] {
            if is_so {
                issues.push(issue);
            }
        }
        (reading, issues)
    }

    /// Counts names of the gold that the answer lacks, and the other way round.
    fn other_names(&self, made: &[Made<'_>]) -> (usize, usize) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(call.name).or_default() += 1;
        }
        for call in made {
            *counts.entry(call.name).or_default() -= 1;
        }
        let sum = |sign: i64| {
            let left: i64 = counts.values().map(|count| (count * sign).max(0)).sum();
            usize::try_from(left).unwrap_or_default()
        };
        (sum(1), sum(-1))
    }
}

impl WantedCall<'_> {
    fn pair(&self, made: &Made<'_>, texts: Texts) -> Pair {
        let is_named = self.name == made.name;
        let name = u32::from(is_named);
        let (arguments, is_right) = match self.options {
            None => {
                let compared = compare(&self.arguments, &made.arguments);
                let tally = Tally {
                    shared: compared.shared,
                    missing: compared.missing + compared.changed,
                    extra: compared.extra + compared.changed,
                };
                (tally, compared.is_equal)
            }
            Some(options) => any_of(options, &made.arguments, texts),
        };
        let extra = u64::from(arguments.extra) + u64::from(1 - name);
        Pair {
            shared: u64::from(arguments.shared) + u64::from(name),
            excused: made.leaves.saturating_sub(extra),
            is_right: is_named && is_right,
        }
    }
}

impl<'a> Made<'a> {
    fn of(call: &'a Call) -> Self {
        let arguments = Value::Object(call.arguments.clone());
        let leaves = u64::from(leaves::count(&arguments)) + 1;
        Self { name: &call.name, arguments, leaves }
    }
}

/// Counts the leaves that a gold has for an argument.
fn wanted_leaves(options: &[Value]) -> u32 {
    options::first_choice(options).as_ref().map_or(0, leaves::count)
}

/// Holds arguments against their options: what they share with them, and whether all are right.
fn any_of(options: &Options, arguments: &Value, texts: Texts) -> (Tally, bool) {
    let mut sum = Tally::default();
    let mut is_right = true;
    for (name, options) in options {
        let wanted = wanted_leaves(options);
        let (shared, extra) = match arguments.get(name) {
            None => {
                is_right &= options::may_be_left_out(options);
                (0, 0)
            }
            Some(value) if options::accepts(options, value, texts) => (wanted, 0),
            Some(value) => {
                is_right = false;
                let nearest = options::nearest(options, value, texts);
                // What the nearest option misses is not had, though the first may have less.
                (nearest.shared.min(wanted.saturating_sub(nearest.missing)), nearest.extra)
            }
        };
        sum.add(Tally { shared, missing: wanted - shared, extra });
    }
    let found = arguments.as_object().into_iter().flatten();
    for (_, value) in found.filter(|(name, _)| !options.contains_key(*name)) {
        is_right = false;
        sum.extra = sum.extra.saturating_add(leaves::count(value));
    }
    (sum, is_right)
}

/// Scores an answer: strict, lenient, issues of the strict reading.
pub(super) fn score(
    wanted: &WantedCalls<'_>,
    answer: &str,
) -> (Reading, Reading, Vec<&'static str>) {
    if let Some(calls) = strict_calls(answer) {
        let (strict, issues) = wanted.read(&calls, Texts::Exact);
        return (strict, wanted.read(&calls, Texts::Loose).0, issues);
    }
    let found = all_calls(answer);
    let unread = unread_leaves(wanted.leaves());
    let mut issues = call_faults(answer, found.first());
    // More calls than one are no fault here.
    issues.retain(|issue| *issue != "several_calls");
    if found.is_empty() {
        issues.push("missing_call");
        return (unread, unread, issues);
    }
    let calls: Vec<Call> = found.into_iter().map(|found| found.call).collect();
    (unread, wanted.read(&calls, Texts::Loose).0, issues)
}

/// Says whether an answer in which no call was found holds something that looks like one.
///
/// The search tries so many places only. A JSON value without a call is read as a whole, however
/// many objects it has.
fn may_call(answer: &str) -> bool {
    let opens = answer.matches(['{']).count();
    let is_searched = || {
        opens < STARTS_MAX || serde_json::from_str::<serde::de::IgnoredAny>(answer.trim()).is_ok()
    };
    answer.contains(OPEN) || !is_searched()
}

/// Scores an answer that should call nothing: both readings look for any call in it.
///
/// A wrapper that cannot be read is a call, too, and so may be what the search did not come to.
pub(super) fn score_none(answer: &str) -> (Reading, Reading, Vec<&'static str>) {
    let found: Vec<Found> = all_calls(answer);
    let is_silent = found.is_empty() && !may_call(answer);
    let leaves: u64 = found.iter().map(|found| Made::of(&found.call).leaves).sum();
    let made = leaves.max(u64::from(!is_silent));
    let reading = Reading {
        valid: true,
        name: is_silent,
        exact: is_silent,
        false_positives: narrow(made),
        ..Reading::default()
    };
    let mut issues = Vec::new();
    for (is_so, issue) in [
        (!is_silent, "unexpected_call"),
        (answer.trim().is_empty(), "empty_answer"),
        (found.is_empty() && answer.contains(OPEN), "invalid_tool_call_format"),
    ] {
        if is_so {
            issues.push(issue);
        }
    }
    (reading, reading, issues)
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
