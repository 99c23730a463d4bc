//! Trajectories of tau-bench: `{task_id, reward, info, traj: [messages], trial}`.
//!
//! One episode for each message of the assistant that calls tools. The reward is of the whole
//! trajectory: where it falls short, some call was wrong, and nobody knows which. A trajectory
//! without any call is one episode of chat: what was asked before the last answer, without gold.

use serde_json::Value;

use super::Format;
use super::chat::turns_of;
use super::lines::Input;
use super::make::{last_user, start};
use crate::episode::{Episode, Gold, Turn};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let messages = input.object.get("traj").filter(|messages| messages.is_array());
    let turns = turns_of(messages.ok_or("field \"traj\" is no array")?)
        .map_err(|reason| format!("traj: {reason}"))?;
    let number = |key: &str| match input.object.get(key) {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let task = number("task_id").ok_or("field \"task_id\" is neither number nor text")?;
    let trial = number("trial").unwrap_or_else(|| "0".to_owned());
    let reward = input.object.get("reward").and_then(Value::as_f64);
    let reward = reward.ok_or("field \"reward\" is no number")?;
    let episode = |place: usize| {
        let id = format!("{task}/{trial}#{place}");
        let mut episode = start(input.source, input.location.clone(), Format::TauBench, id);
        episode.turns = turns.get(..place).unwrap_or_default().to_vec();
        episode.query = last_user(&episode.turns).trim().to_owned();
        let outcome = if reward < 1.0 { "outcome.failure" } else { "outcome.success" };
        episode.flags.push(outcome.to_owned());
        episode
    };
    let calls = |(_, turn): &(usize, &Turn)| is_answer(turn) && !turn.tool_calls.is_empty();
    let mut episodes = Vec::new();
    for (place, turn) in turns.iter().enumerate().filter(calls) {
        let mut episode = episode(place);
        episode.track = "toolcall".to_owned();
        episode.gold = Gold::Calls { calls: turn.tool_calls.clone() };
        if reward < 1.0 {
            episode.flags.push("gold.unchecked".to_owned());
        }
        episodes.push(episode);
    }
    if episodes.is_empty() {
        let last = turns.iter().rposition(is_answer).ok_or("the assistant says nothing")?;
        episodes.push(episode(last));
    }
    Ok(episodes)
}

fn is_answer(turn: &Turn) -> bool {
    turn.role == "assistant"
}
