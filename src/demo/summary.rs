//! The one-screen summary.

use std::fmt::Write as _;
use std::path::PathBuf;

use ledger::VerifyReport;
use ledger::catalogue::SplitBuilt;
use queries::gate::verdict_word;
use queries::report::{ArmFacts, ReadingKind, Report};
use serde_json::{Value, json};

use crate::capture::ImportReport;
use crate::eval::Evaluated;
use crate::promote::Decided;
use crate::replay::ReplayReport;
use crate::train::Trained;

/// What was decided.
pub struct Verdicts {
    /// Report over the toolcall suite.
    pub report: Report,
    /// Report over the structured suite.
    pub structured: Report,
    /// Policy by policy.
    pub gates: Vec<Decided>,
    /// What became of each alias.
    pub promotions: Vec<String>,
    /// Pages to open.
    pub pages: Vec<PathBuf>,
}

/// What was served and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// Marks of the deployment.
    pub marks: Vec<String>,
    /// The deployment that answered.
    pub deployment: String,
    /// Event of the trace.
    pub trace: u64,
    /// The correction that was sent.
    pub correction: String,
    /// The next dataset, once there is one.
    pub next: Option<SplitBuilt>,
    /// Where its rows came from.
    pub lineage: Vec<String>,
    /// The search that found them.
    pub query: String,
}

/// What the demo did.
pub struct Summary {
    /// Notebook.
    pub dir: PathBuf,
    /// What came in.
    pub ingested: ImportReport,
    /// The dataset.
    pub split: SplitBuilt,
    /// All evaluations.
    pub arms: Vec<Evaluated>,
    /// Why the adapter is not scored on the structured suite.
    pub contaminated: String,
    /// The training run.
    pub trained: Trained,
    /// Verdicts.
    pub decided: Verdicts,
    /// The served call and the next dataset.
    pub served: Served,
    /// Replays.
    pub replays: Vec<ReplayReport>,
    /// The chain behind the adapter.
    pub why: String,
    /// What verification found.
    pub verified: VerifyReport,
    /// Wall time.
    pub seconds: f64,
    /// Most memory held, in MiB.
    pub peak_rss_mb: Option<u64>,
}

impl Summary {
    /// Says everything as JSON.
    pub fn json(&self) -> Value {
        let gate = |decided: &Decided| json!({ "event": decided.event, "facts": decided.facts });
        json!({
            "dir": self.dir,
            "ingested": self.ingested,
            "dataset": self.split,
            "training": { "run": self.trained.run, "outcome": self.trained.outcome },
            "report": self.decided.report.facts,
            "structured": self.decided.structured.facts,
            "contaminated": self.contaminated,
            "gates": self.decided.gates.iter().map(gate).collect::<Vec<_>>(),
            "promotions": self.decided.promotions,
            "served": {
                "question": self.served.question,
                "answer": self.served.answer,
                "marks": self.served.marks,
                "deployment": self.served.deployment,
                "trace": self.served.trace,
                "correction": self.served.correction,
            },
            "next": { "dataset": self.served.next, "lineage": self.served.lineage },
            "replays": self.replays,
            "why": self.why,
            "verified": { "good": self.verified.good(), "events": self.verified.events },
            "pages": self.decided.pages,
            "evaluations": self.arms.iter().map(|arm| &arm.run).collect::<Vec<_>>(),
            "seconds": self.seconds,
            "peak_rss_mb": self.peak_rss_mb,
        })
    }

    /// Says the same on one screen.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "\n{} rows in, {} accepted, {} rejected; {} to train on, {} held out",
            self.ingested.rows,
            self.ingested.accepted,
            self.ingested.rejected,
            self.split.train,
            self.split.dev
        );
        let _ = writeln!(
            text,
            "{}: adapter from epoch with dev loss {}\n",
            self.trained.run,
            self.trained.dev_loss_text()
        );
        tables(&mut text, &self.decided.report);
        tables(&mut text, &self.decided.structured);
        let _ = writeln!(text, "not scored there: {}\n", self.contaminated);
        for decided in &self.decided.gates {
            verdict(&mut text, decided);
        }
        for promotion in &self.decided.promotions {
            let _ = writeln!(text, "{promotion}");
        }
        self.served(&mut text);
        for replay in &self.replays {
            let _ = writeln!(
                text,
                "replay of {} ({}): {} events compared fact by fact, all equal",
                replay.run, replay.tier, replay.compared
            );
            for scope in replay.stages.iter().filter_map(|stage| stage.scope.as_ref()) {
                let _ = writeln!(text, "  only {scope}");
            }
        }
        let good = if self.verified.good() { "good" } else { "DAMAGED" };
        let _ = writeln!(
            text,
            "verify: {good}, {} events, {} blobs, root {}",
            self.verified.events,
            self.verified.blobs,
            self.verified.root.short()
        );
        let _ = writeln!(
            text,
            "{:.0} s, at most {} MiB of memory",
            self.seconds,
            self.peak_rss_mb.unwrap_or_default()
        );
        for page in self.decided.pages.iter().filter(|p| p.extension().is_some_and(|e| e == "html"))
        {
            let _ = writeln!(text, "open {}", page.display());
        }
        let dir = self.dir.display();
        let _ = writeln!(text, "ask  ledger --dir {dir} why adapter");
        text
    }

    fn served(&self, text: &mut String) {
        let served = &self.served;
        let marks = served.marks.join(", ");
        let _ = writeln!(text, "\nserved: {}\n  -> {} [{marks}]", served.question, served.answer);
        let _ =
            writeln!(text, "  corrected to {} (trace: event {})", served.correction, served.trace);
        if let Some(next) = &served.next {
            let _ =
                writeln!(text, "next dataset: {} rows, found by {:?}", next.train, served.query);
        }
        for line in served.lineage.iter().take(4) {
            let _ = writeln!(text, "  {line}");
        }
        if served.lineage.len() > 4 {
            let _ = writeln!(text, "  and {} more", served.lineage.len() - 4);
        }
        let _ = writeln!(text);
    }
}

/// Writes the table of arms, a line for each stratum and reading.
fn tables(text: &mut String, report: &Report) {
    let facts = &report.facts;
    let _ = writeln!(
        text,
        "{} (n = {}, {} looks){:>14} {:>8} {:>9} {:>9} {:>9} {:>7}",
        facts.suite.name,
        facts.suite.n,
        facts.looks,
        "reading",
        "n",
        "valid",
        "name",
        "exact",
        "F1"
    );
    for stratum in facts.strata() {
        for arm in &facts.arms {
            for reading in ReadingKind::BOTH {
                line(text, arm, stratum, reading);
            }
        }
    }
    let _ = writeln!(text);
}

fn line(text: &mut String, arm: &ArmFacts, stratum: &str, reading: ReadingKind) {
    let Some(group) = arm.group(stratum, reading) else { return };
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.3}"));
    let _ = writeln!(
        text,
        "  {:12} {:24} {:>8} {:>8} {:>9} {:>9} {:>9} {:>7}",
        stratum,
        arm.label,
        format!("{reading:?}").to_lowercase(),
        group.n,
        rate(group.valid.rate),
        rate(group.name.rate),
        rate(group.exact.rate),
        rate(group.micro.f1.value)
    );
}

fn verdict(text: &mut String, decided: &Decided) {
    let _ = writeln!(text, "{}: {}", decided.policy.name, verdict_word(decided.decision.verdict));
    for rule in &decided.decision.rules {
        let _ = writeln!(text, "  {:12} {}: {}", verdict_word(rule.verdict), rule.rule, rule.says);
    }
}
