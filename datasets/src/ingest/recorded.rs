//! `{prompt_index, prompt, prediction, reference}`: what a model answered, beside the gold.

use serde_json::Value;

use super::Format;
use super::lines::Input;
use super::make::{id_of, start};
use super::prompt_completion::{fill, text};
use crate::episode::{Answer, Episode};

/// Reads a row.
pub(super) fn read(input: &Input<'_>) -> Result<Vec<Episode>, String> {
    let prompt = text(input, "prompt")?;
    let reference = text(input, "reference")?;
    let prediction = match input.object.get("prediction") {
        Some(Value::Null) => None,
        _ => Some(text(input, "prediction")?.to_owned()),
    };
    let id = match input.object.get("prompt_index") {
        Some(Value::Number(index)) => index.to_string(),
        Some(Value::String(index)) => index.clone(),
        _ => id_of(prompt),
    };
    let mut episode = start(input.source, input.location.clone(), Format::RecordedAnswers, id);
    fill(&mut episode, prompt, reference)?;
    let model = model_label(&input.source.name);
    episode.answer = Some(Answer { model, text: prediction, calls: Vec::new() });
    episode.flags.push("answer.recorded".to_owned());
    Ok(vec![episode])
}

/// Names the model by the last word of the source: `recorded/toolcall_azure` is the teacher.
fn model_label(source: &str) -> String {
    let stem = source.rsplit('/').next().unwrap_or(source);
    match stem.rsplit('_').next().unwrap_or(stem) {
        "azure" => "azure-teacher-recorded".to_owned(),
        "phi" => "phi-4-mini-recorded".to_owned(),
        other => format!("{other}-recorded"),
    }
}
