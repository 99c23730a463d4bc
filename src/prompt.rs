//! From canonical turns to the messages that the renderer takes: one way for training,
//! evaluation and serving.

use datasets::gold::write_wrapper;
use datasets::template::{Template, parse_prompt};
use datasets::{Cep, Episode, Turn};
use models::template::Message;

/// Returns the messages of a conversation, with a prefix before its system text if there is one.
pub fn messages(turns: &[Turn], cep: Option<&Cep>) -> Vec<Message> {
    let led;
    let turns = match cep {
        Some(cep) => {
            led = cep.apply(turns);
            &led
        }
        None => turns,
    };
    turns.iter().map(|turn| Message::new(turn.role.clone(), text(turn))).collect()
}

/// A turn's text, with the calls that it makes behind it.
fn text(turn: &Turn) -> String {
    let calls = turn.tool_calls.iter().map(write_wrapper);
    let parts = Some(turn.content.clone()).filter(|text| !text.is_empty());
    parts.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}

/// Returns the answer that a row teaches. A prompt of the toolcall templates asks for exactly one
/// call, so it is the first where several are known.
pub fn trained_answer(episode: &Episode) -> String {
    let asked = episode.prompt_turns().last().and_then(|turn| parse_prompt(&turn.content));
    let asks_for_one = asked
        .is_some_and(|asked| matches!(asked.template, Template::Toolcall | Template::ToolcallWide));
    match episode.gold.calls().first() {
        Some(first) if asks_for_one => write_wrapper(first),
        _ => episode.gold_text(),
    }
}
