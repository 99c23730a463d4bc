//! `ledger split`.

use datasets::SplitSpec;
use datasets::split::NearDuplicate;

use super::{Globals, Output, dataset};
use crate::build::{SplitSource, SplitWish, build_split};
use crate::error::AppError;

/// Freeze a dataset: rows of sources, with a training and a dev side. A row's side is a salted
/// hash of its question and never changes as data grows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name
    name: String,
    /// Sources of the rows
    #[arg(long, required = true)]
    source: Vec<String>,
    /// Suites whose questions are kept out, with their near duplicates
    #[arg(long)]
    keep_out: Vec<String>,
    /// Suites that are only checked for leakage
    #[arg(long)]
    check: Vec<String>,
    #[command(flatten)]
    sides: Sides,
}

/// How rows are split.
#[derive(Debug, clap::Args)]
pub(super) struct Sides {
    /// Salt of the hash that decides the sides
    #[arg(long, default_value_t = SplitSpec::default().salt)]
    salt: String,
    /// Share of questions held out
    #[arg(long, default_value_t = SplitSpec::default().dev_fraction)]
    dev_fraction: f64,
    /// Similarity (Jaccard, word shingles) from which two questions are near duplicates
    #[arg(long, default_value_t = NearDuplicate::default().threshold)]
    near_duplicate: f64,
    /// Also leave out rows that nearly repeat an earlier row on the same side
    #[arg(long)]
    drop_near: bool,
}

impl Sides {
    pub(super) fn spec(&self) -> SplitSpec {
        let threshold = self.near_duplicate;
        SplitSpec {
            drop_near: self.drop_near,
            salt: self.salt.clone(),
            dev_fraction: self.dev_fraction,
            near_duplicate: NearDuplicate { threshold, ..NearDuplicate::default() },
        }
    }
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let wish = SplitWish {
        name: args.name,
        source: SplitSource::Sources { sources: args.source },
        split: args.sides.spec(),
        keep_out: args.keep_out,
        check: args.check,
    };
    let split = globals.with_lab(|lab| build_split(lab, &wish))?;
    Output::document(&split.facts, dataset::lines(&split.facts, split.event))
}
