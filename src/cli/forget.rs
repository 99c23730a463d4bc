//! `ledger forget`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::forget::{Downstream, downstream, forget};

/// Forget a subject: destroy the key of everything that was recorded of it, remove what the key
/// encrypted, and name what was built of it. The log stays as it is and still verifies.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the subject, as it stood in the traces
    subject: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    globals.with_lab(|lab| {
        let held = lab.notebook.reader().holdings(&args.subject)?;
        if !args.yes {
            let listed = list(&downstream(&lab.view(), &held)?);
            agree(&format!("{} bodies in {} events{listed}", held.bodies, held.events.len()))?;
        }
        let forgotten = forget(lab, &args.subject)?;
        let text = format!(
            "forgotten: {} bodies in {} events can no longer be read{}",
            forgotten.bodies,
            forgotten.events.len(),
            list(&forgotten.downstream)
        );
        Output::document(&forgotten, text)
    })
}

fn list(found: &Downstream) -> String {
    let mut text = String::new();
    let parts = [
        ("datasets", &found.datasets),
        ("suites", &found.suites),
        ("training runs", &found.runs),
        ("adapters, which cannot unlearn", &found.adapters),
        ("promotions", &found.promotions),
    ];
    for (what, names) in parts.into_iter().filter(|(_, names)| !names.is_empty()) {
        let _ = write!(text, "\n  in {what}: {}", names.join(", "));
    }
    if !found.unreadable.is_empty() {
        let names = found.unreadable.join(", ");
        let _ = write!(text, "\n  perhaps in what cannot be read (see `ledger verify`): {names}");
    }
    text
}

/// Asks on a terminal; without one, `--yes` is needed.
pub(super) fn agree(what: &str) -> Result<(), AppError> {
    let refused = || {
        AppError::hinted(
            Kind::Usage,
            "this cannot be undone, and nobody agreed to it",
            "answer `yes` on a terminal, or add --yes",
        )
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    eprint!("{what}\nThis cannot be undone. Go on? [yes/no] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|_| refused())?;
    if line.trim() == "yes" { Ok(()) } else { Err(refused()) }
}
