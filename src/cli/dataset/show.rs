//! `ledger dataset show`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use datasets::{Episode, Side};
use serde_json::json;

use super::super::{Globals, Output, one_line, plot};
use super::lines;
use crate::build::{Bucket, Mask, Part, Profile, Split, Used, load_split, mask, profile};
use crate::error::{AppError, Kind};
use crate::hub;
use crate::prompt::trained_answer;
use crate::rows::{Traces, View};

/// Tools and sources that are shown.
const SHOWN: usize = 12;

/// Show what a dataset is made of, or one of its rows as training sees it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, or the start of its identity
    name: String,
    /// Show this row (its event): what is shown to the model, what is learnt, what is cut
    #[arg(long, value_name = "EVENT")]
    row: Option<u64>,
    /// Model whose template and tokens are used for the row
    #[arg(long, requires = "row")]
    model: Option<String>,
    /// Most tokens of a row, as in the recipe
    #[arg(long, default_value_t = 2048)]
    max_tokens: usize,
    /// Rows that are listed
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let split = load_split(&view, &args.name)?;
    let traces = Traces::list(&view)?;
    match args.row {
        Some(row) => show_row(&split, &traces, row, &args),
        None => show_all(&split, &traces, args.limit),
    }
}

fn show_all(split: &Split, traces: &Traces, limit: usize) -> Result<Output, AppError> {
    let profile = profile(split, traces)?;
    let mut text = lines(&split.facts, split.event);
    text.push('\n');
    plots(&mut text, split, &profile);
    for row in split.manifest.rows.iter().take(limit) {
        let query = traces.row(row)?.query;
        let side = side_name(row.side);
        let _ = writeln!(text, "{side:5} event {} [{}] {}", row.seq, row.stratum, one_line(&query));
    }
    let untold = split.manifest.rows.len().saturating_sub(limit);
    if untold > 0 {
        let _ = writeln!(text, "and {untold} rows more (-n shows more, --row one of them)");
    }
    let document = json!({ "event": split.event, "dataset": split.facts, "profile": profile,
        "manifest": split.manifest });
    Output::document(&document, text)
}

fn plots(text: &mut String, split: &Split, profile: &Profile) {
    let strata: Vec<Used> = split.facts.strata.iter().map(|c| used(&c.name, c.n)).collect();
    let _ = writeln!(text, "  strata");
    plot::bars(text, &named(&strata));
    let _ = writeln!(text, "  prompts by length in characters");
    plot::bars(text, &ranges(&profile.prompt_lengths));
    let _ = writeln!(text, "  answers by length in characters");
    plot::bars(text, &ranges(&profile.answer_lengths));
    for (what, used) in [("tools called", &profile.tools), ("sources", &profile.sources)] {
        let _ = writeln!(text, "  {what} ({})", used.len());
        plot::bars(text, &named(used));
    }
}

fn used(name: &str, n: u64) -> Used {
    Used { name: name.to_owned(), n }
}

fn named(used: &[Used]) -> Vec<(String, u64)> {
    let mut rows: Vec<(String, u64)> =
        used.iter().take(SHOWN).map(|used| (used.name.clone(), used.n)).collect();
    let rest: u64 = used.iter().skip(SHOWN).map(|used| used.n).sum();
    if rest > 0 {
        rows.push((format!("{} others", used.len() - SHOWN), rest));
    }
    rows
}

fn ranges(buckets: &[Bucket]) -> Vec<(String, u64)> {
    buckets.iter().map(|bucket| (bucket.name(), bucket.n)).collect()
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Train => "train",
        Side::Dev => "dev",
    }
}

fn show_row(split: &Split, traces: &Traces, row: u64, args: &Args) -> Result<Output, AppError> {
    let found = split.manifest.rows.iter().find(|known| known.seq == row);
    let Some(found) = found else {
        let out = split.manifest.excluded.iter().find(|known| known.seq == row);
        let why = match out {
            Some(out) => format!("event {row} was left out: {}", out.reason),
            None => format!("event {row} is no row of dataset {}", split.facts.name),
        };
        let hint = "`ledger dataset show` lists the rows with their events";
        return Err(AppError::hinted(Kind::NotFound, why, hint));
    };
    let episode = traces.row(found)?;
    let masked = match &args.model {
        Some(name) => {
            let (_, path, _) = hub::locate(name)?;
            mask(&episode, &models::Model::load(&path)?, None, args.max_tokens)?
        }
        None => unmeasured(&episode),
    };
    let mut text = format!(
        "event {row}, {} side [{}], from {} row {} of {}\n",
        side_name(found.side),
        found.stratum,
        episode.source.name,
        episode.source.location.row,
        episode.source.location.file,
    );
    if args.model.is_some() {
        let _ = writeln!(
            text,
            "{} tokens of prompt, {} of answer; {} are learnt, {} are cut at {}",
            masked.prompt_tokens,
            masked.answer_tokens,
            masked.supervised_tokens,
            masked.cut_tokens,
            args.max_tokens
        );
    } else {
        text.push_str("without --model: nothing is said of tokens and of what is cut\n");
    }
    text.push_str(&painted(&masked, std::io::stdout().is_terminal()));
    let document = json!({ "row": found, "episode": episode, "mask": masked });
    Output::document(&document, text)
}

/// Shows prompt and answer where no model says how they become tokens.
fn unmeasured(episode: &Episode) -> Mask {
    use crate::build::Piece;
    let prompt = crate::prompt::messages(episode.prompt_turns(), None);
    let lines: Vec<String> =
        prompt.iter().map(|message| format!("{}: {}\n", message.role, message.content)).collect();
    let pieces = vec![
        Piece { part: Part::Prompt, text: lines.concat() },
        Piece { part: Part::Answer, text: trained_answer(episode) },
    ];
    Mask { pieces, prompt_tokens: 0, answer_tokens: 0, supervised_tokens: 0, cut_tokens: 0 }
}

/// Paints the pieces of a mask: dim what is only shown, green what is learnt, red and struck what
/// is cut. Without a terminal marks stand around the two latter.
fn painted(mask: &Mask, in_colour: bool) -> String {
    let mut text = String::new();
    for piece in &mask.pieces {
        let (before, after) = match (piece.part, in_colour) {
            (Part::Prompt, true) => ("\x1b[2m", "\x1b[0m"),
            (Part::Answer, true) => ("\x1b[32m", "\x1b[0m"),
            (Part::Cut, true) => ("\x1b[31;9m", "\x1b[0m"),
            (Part::Prompt, false) => ("", ""),
            (Part::Answer, false) => ("«learnt» ", " «/learnt»"),
            (Part::Cut, false) => ("«cut» ", " «/cut»"),
        };
        let _ = write!(text, "{before}{}{after}", piece.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Piece;

    #[test]
    fn what_is_learnt_and_cut_is_marked() {
        let piece = |part, text: &str| Piece { part, text: text.to_owned() };
        let pieces =
            vec![piece(Part::Prompt, "ask "), piece(Part::Answer, "say"), piece(Part::Cut, "more")];
        let mask = Mask {
            pieces,
            prompt_tokens: 1,
            answer_tokens: 2,
            supervised_tokens: 1,
            cut_tokens: 1,
        };
        assert_eq!(painted(&mask, false), "ask «learnt» say «/learnt»«cut» more «/cut»");
        let colour = painted(&mask, true);
        assert!(colour.contains("\x1b[32msay\x1b[0m\x1b[31;9mmore\x1b[0m"), "{colour:?}");
        assert_eq!(one_line("a\n b"), "a b");
        assert_eq!(one_line(&"ä".repeat(200)).chars().count(), 101);
    }
}
