//! The JSON values of an episode, brought into the form in which the record keeps them.
//!
//! That form is what reading the stored bytes gives (canonical JSON, RFC 8785): keys sorted by
//! their UTF-16 units, numbers shortest. Work on fresh and on stored episodes is then the same.

use ledger::id::canonical_json;
use serde_json::{Map, Number, Value};

use crate::episode::{Call, Episode, Gold};

/// Greatest whole number that canonical JSON keeps exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Least digits of a whole number that may lose some as a float.
const LONG_DIGITS: usize = 17;

/// Deepest nesting that is read again, as in serde_json.
const DEPTH_MAX: usize = 127;

/// Brings all values of an episode into their stored form.
///
/// `has_long_number` says what [`has_long_number`] says of the row: a whole number beyond 2^64 has
/// become a float by now, and nothing but its digits in the row tell it from `1e300`.
///
/// # Errors
/// When the form would change a whole number, or a value is nested too deeply. The reason quotes
/// nothing, because reasons stand in the log for ever, and a number may be somebody's.
pub(super) fn settle(episode: &mut Episode, has_long_number: bool) -> Result<(), String> {
    let keep = Keep { has_long_number };
    if episode.source.location.row > EXACT_MAX {
        return Err(inexact());
    }
    // How deep a value stands is that of the arrays and objects of the episode around it.
    for turn in &mut episode.turns {
        keep.calls(&mut turn.tool_calls, DEPTH_MAX - 4)?;
    }
    for tool in &mut episode.tools {
        keep.value(&mut tool.parameters, DEPTH_MAX - 3)?;
    }
    match &mut episode.gold {
        Gold::None | Gold::NoCall | Gold::Text { .. } => {}
        Gold::Calls { calls } => keep.calls(calls, DEPTH_MAX - 3)?,
        Gold::Json { value } => keep.value(value, DEPTH_MAX - 2)?,
        Gold::AnyOf { calls, options, .. } => {
            keep.calls(calls, DEPTH_MAX - 3)?;
            for value in options.iter_mut().flat_map(|of_call| of_call.values_mut()).flatten() {
                keep.value(value, DEPTH_MAX - 5)?;
            }
        }
    }
    episode.answer.iter_mut().try_for_each(|answer| keep.calls(&mut answer.calls, DEPTH_MAX - 3))
}

fn inexact() -> String {
    "a whole number is beyond 2^53 and would lose digits: write it as text".to_owned()
}

fn too_deep() -> String {
    format!("nested more than {DEPTH_MAX} levels deep")
}

/// What is known of the row that the values come from.
#[derive(Clone, Copy)]
struct Keep {
    has_long_number: bool,
}

impl Keep {
    /// Settles the arguments of calls; `left` counts the levels that calls themselves may take.
    fn calls(self, calls: &mut [Call], left: usize) -> Result<(), String> {
        calls.iter_mut().try_for_each(|call| self.members(&mut call.arguments, left - 1))
    }

    fn value(self, value: &mut Value, left: usize) -> Result<(), String> {
        match value {
            Value::Number(number) => self.number(number),
            Value::Array(items) => {
                let left = left.checked_sub(1).ok_or_else(too_deep)?;
                items.iter_mut().try_for_each(|item| self.value(item, left))
            }
            Value::Object(object) => self.members(object, left),
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        }
    }

    fn members(self, object: &mut Map<String, Value>, left: usize) -> Result<(), String> {
        let left = left.checked_sub(1).ok_or_else(too_deep)?;
        let units = |key: &String| key.encode_utf16().collect::<Vec<_>>();
        let in_order = |one: &String, next: &String| one.encode_utf16().lt(next.encode_utf16());
        if !object.keys().is_sorted_by(|one, next| in_order(one, next)) {
            let mut members: Vec<_> = std::mem::take(object).into_iter().collect();
            members.sort_by_cached_key(|(key, _)| units(key));
            object.extend(members);
        }
        object.values_mut().try_for_each(|value| self.value(value, left))
    }

    fn number(self, number: &mut Number) -> Result<(), String> {
        if let Some(whole) = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs)) {
            return if whole > EXACT_MAX { Err(inexact()) } else { Ok(()) };
        }
        // Beyond 2^53, no float has a fraction.
        let is_beyond = number.as_f64().is_some_and(|float| float.abs() > EXACT_MAX as f64);
        if is_beyond && self.has_long_number {
            return Err(inexact());
        }
        let text = canonical_json(number).map_err(|error| error.to_string())?;
        *number = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// Says whether a text has a run of 17 or more digits that is no part of a decimal or of a number
/// with an exponent. It may stand inside a string, because arguments often are JSON text.
pub(super) fn has_long_number(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(start) = text.get(at..).and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        let start = at + start;
        let rest = text.get(start..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let before = start.checked_sub(1).and_then(|place| text.get(place));
        let is_decimal =
            matches!(before, Some(b'.')) || matches!(rest.get(length), Some(b'.' | b'e' | b'E'));
        if length >= LONG_DIGITS && !is_decimal {
            return true;
        }
        at = start + length;
    }
    false
}

#[cfg(test)]
mod tests;
