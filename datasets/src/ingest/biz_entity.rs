//! `{instruction, input, output}`: fields to be taken out of a sentence.

use super::Format;
use super::lines::Input;
use super::make::{id_of, start};
use super::prompt_completion::text;
use crate::episode::{Episode, Gold, Turn};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let (instruction, sentence) = (text(input, "instruction")?, text(input, "input")?);
    let output = input.object.get("output").ok_or("no field \"output\"")?;
    if !output.is_object() {
        return Err("field \"output\" is no object".to_owned());
    }
    let prompt = format!("{instruction}\n\n{sentence}");
    let mut episode =
        start(input.source, input.location.clone(), Format::BizEntity, id_of(&prompt));
    episode.track = "structured".to_owned();
    episode.gold = Gold::Json { value: output.clone() };
    episode.query = sentence.to_owned();
    episode.turns = vec![Turn::text("user", prompt)];
    Ok(vec![episode])
}
