//! The command line: arguments, output, exit codes.

mod adapter;
mod catalog;
mod checkpoint;
mod compare;
mod completions;
mod dataset;
mod demo;
mod eval;
mod export;
mod finding;
mod forget;
mod gate;
mod gc;
mod import;
mod ingest;
mod init;
mod key;
mod log;
mod model;
mod plot;
mod promote;
mod prove;
mod pull;
mod repair;
mod replay;
mod search;
mod serve;
mod show;
mod split;
mod status;
mod suite;
mod trace;
mod train;
mod verify;
mod why;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser, Subcommand};
use ledger::{Notebook, Reader, SystemClock};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{AppError, Kind};
use crate::lab::{Lab, Talk};

/// Event-sourced lab notebook that takes a team from the traces of a large model to a small model
/// that they can prove is good enough.
#[derive(Debug, Parser)]
#[command(name = "ledger", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Arguments of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Notebook [default: ./.ledger]
    #[arg(long, global = true, env = "LEDGER_DIR", value_name = "NOTEBOOK")]
    dir: Option<PathBuf>,
    /// One JSON document or JSON lines on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Who acts
    #[arg(long, global = true, env = "LEDGER_ACTOR", default_value = "operator")]
    actor: String,
    /// Threads of the kernels [default: all]; the numbers do not depend on it
    #[arg(long, global = true)]
    threads: Option<usize>,
    /// No talk and no progress bars on standard error
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a notebook
    Init(init::Args),
    /// Show how the notebook stands
    Status(status::Args),
    /// Read files into canonical episodes
    Ingest(ingest::Args),
    /// Fetch traces and scores from another system
    Pull(pull::Args),
    /// List, show and build datasets
    Dataset(dataset::Args),
    /// Freeze a dataset with a training and a dev side
    Split(split::Args),
    /// List, show and build suites
    Suite(suite::Args),
    /// Fetch and list base models
    Model(model::Args),
    /// Train an adapter
    Train(train::Args),
    /// List adapters and write them out
    Adapter(adapter::Args),
    /// Answer a suite and score the answers
    Eval(eval::Args),
    /// Compare evaluated arms in a report
    Compare(compare::Args),
    /// Hold a policy against a report
    Gate(gate::Args),
    /// Give an alias to the deployment whose gate passed
    Promote(promote::Args),
    /// List deployments and who holds which alias
    Catalog(catalog::Args),
    /// Serve a deployment over an OpenAI-compatible API
    Serve(serve::Args),
    /// Show a trace as a tree
    Trace(trace::Args),
    /// Search traces, scored cases and decisions
    Search(Box<search::Args>),
    /// Do a run again and compare every fact
    Replay(replay::Args),
    /// Show the chain behind a deployment
    Why(why::Args),
    /// Verify that nobody edited the record
    Verify(verify::Args),
    /// Forget a subject
    Forget(forget::Args),
    /// List and remove what nothing needs
    Gc(gc::Args),
    /// Restore damaged copies from sound ones
    Repair(repair::Args),
    /// Sign size and root of the log, and send that elsewhere
    Checkpoint(checkpoint::Args),
    /// Write a proof that an event is in the signed log
    Prove(prove::Args),
    /// Show or replace the signing key
    Key(key::Args),
    /// Write the log out for others
    Export(export::Args),
    /// Make a notebook from an export
    Import(import::Args),
    /// List events
    Log(log::Args),
    /// Show one event
    Show(show::Args),
    /// Run the whole loop on real input
    Demo(demo::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// What a command says on standard output.
pub struct Output {
    json: Json,
    text: String,
    /// A failure that comes with output (damage found, a divergence).
    failure: Option<AppError>,
}

enum Json {
    Document(Value),
    Lines(Vec<Value>),
}

impl Output {
    /// One document, and what people read instead.
    ///
    /// # Errors
    /// When the document has no JSON form.
    fn document<T: Serialize>(document: &T, text: impl Into<String>) -> Result<Self, AppError> {
        let json = Json::Document(serde_json::to_value(document)?);
        Ok(Self { json, text: text.into(), failure: None })
    }

    /// JSON lines, and what people read instead.
    fn lines(lines: Vec<Value>, text: impl Into<String>) -> Self {
        Self { json: Json::Lines(lines), text: text.into(), failure: None }
    }

    /// Adds a JSON line behind the others.
    fn with_line(mut self, line: Value) -> Self {
        if let Json::Lines(lines) = &mut self.json {
            lines.push(line);
        }
        self
    }

    /// The output goes with a failure.
    fn failing(self, failure: Option<AppError>) -> Self {
        Self { failure, ..self }
    }
}

impl Globals {
    fn dir(&self) -> &Path {
        self.dir.as_deref().unwrap_or_else(|| Path::new(".ledger"))
    }

    fn talk(&self) -> Talk {
        Talk { quiet: self.quiet }
    }

    fn reader(&self) -> Result<Reader, AppError> {
        Ok(Reader::open(self.dir())?)
    }

    fn open(&self) -> Result<Notebook, AppError> {
        let notebook = Notebook::attach(self.dir(), Arc::new(SystemClock))?;
        tell_recovery(self.talk(), &notebook);
        Ok(notebook)
    }

    /// Opens the notebook for writing, does the work and closes it.
    fn with_lab<T>(
        &self,
        work: impl FnOnce(&Lab<'_>) -> Result<T, AppError>,
    ) -> Result<T, AppError> {
        let notebook = self.open()?;
        let lab = Lab { notebook: &notebook, actor: &self.actor, talk: self.talk() };
        let done = work(&lab);
        let closed = notebook.close();
        let done = done?;
        closed?;
        Ok(done)
    }
}

/// Says what opening had to mend.
fn tell_recovery(talk: Talk, notebook: &Notebook) {
    let opened = notebook.opened();
    if let Some(dropped) = &opened.dropped {
        talk.say(format!(
            "an unfinished write behind event {} was dropped; its bytes are kept in {}",
            dropped.seq,
            dropped.quarantined.display()
        ));
    }
    if let Some(rebuilt) = &opened.rebuilt {
        let aside = rebuilt.set_aside.as_ref();
        let aside = aside.map(|path| format!("; the old one is kept in {}", path.display()));
        let aside = aside.unwrap_or_default();
        talk.say(format!("the store was rebuilt from the journal: {}{aside}", rebuilt.why));
    }
    if opened.reapplied > 0 {
        let count = opened.reapplied;
        talk.say(format!("{count} events that the store had not made durable were applied again"));
    }
    if let Some(why) = &opened.unreachable {
        talk.say(format!("other processes cannot write through this one: {why}"));
    }
}

/// Runs the command line and returns the process's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, arguments.iter().any(|word| word == "--json")),
    };
    if let Some(threads) = cli.globals.threads {
        models::kernels::set_threads(threads.max(1));
    }
    let json = cli.globals.json;
    match dispatch(cli) {
        Ok(output) => finish(json, output),
        Err(error) => {
            tell(json, &error);
            ExitCode::from(error.kind() as u8)
        }
    }
}

/// Says what is wrong with the command line, or gives the help that was asked for.
fn misused(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if json {
        let text = error.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        tell(true, &AppError::said(Kind::Usage, message));
    } else {
        let _ = error.print();
    }
    ExitCode::from(Kind::Usage as u8)
}

fn finish(json: bool, output: Output) -> ExitCode {
    let text = match (&output.json, json) {
        (_, false) => output.text.clone(),
        (Json::Document(document), true) => document.to_string(),
        (Json::Lines(lines), true) => {
            lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
        }
    };
    let mut out = std::io::stdout().lock();
    // A reader that left (a pager, `head`) is no failure of ours.
    if !text.is_empty() && writeln!(out, "{}", text.trim_end_matches('\n')).is_err() {
        return ExitCode::SUCCESS;
    }
    let _ = out.flush();
    match output.failure {
        None => ExitCode::SUCCESS,
        Some(error) => {
            tell(json, &error);
            ExitCode::from(error.kind() as u8)
        }
    }
}

fn tell(json: bool, error: &AppError) {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    let kind = error.kind();
    if json {
        let document = json!({
            "error": { "kind": kind.name(), "message": message, "hint": error.hint() }
        });
        eprintln!("{document}");
        return;
    }
    eprintln!("error: {message}");
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}

fn dispatch(cli: Cli) -> Result<Output, AppError> {
    let globals = &cli.globals;
    match cli.command {
        Command::Init(args) => init::run(globals, args),
        Command::Status(args) => status::run(globals, args),
        Command::Ingest(args) => ingest::run(globals, args),
        Command::Pull(args) => pull::run(globals, args),
        Command::Dataset(args) => dataset::run(globals, args),
        Command::Split(args) => split::run(globals, args),
        Command::Suite(args) => suite::run(globals, args),
        Command::Model(args) => model::run(globals, args),
        Command::Train(args) => train::run(globals, args),
        Command::Adapter(args) => adapter::run(globals, args),
        Command::Eval(args) => eval::run(globals, args),
        Command::Compare(args) => compare::run(globals, args),
        Command::Gate(args) => gate::run(globals, args),
        Command::Promote(args) => promote::run(globals, args),
        Command::Catalog(args) => catalog::run(globals, args),
        Command::Serve(args) => serve::run(globals, args),
        Command::Trace(args) => trace::run(globals, args),
        Command::Search(args) => search::run(globals, *args),
        Command::Replay(args) => replay::run(globals, args),
        Command::Why(args) => why::run(globals, args),
        Command::Verify(args) => verify::run(globals, args),
        Command::Forget(args) => forget::run(globals, args),
        Command::Gc(args) => gc::run(globals, args),
        Command::Repair(args) => repair::run(globals, args),
        Command::Checkpoint(args) => checkpoint::run(globals, args),
        Command::Prove(args) => prove::run(globals, args),
        Command::Key(args) => key::run(globals, args),
        Command::Export(args) => export::run(globals, args),
        Command::Import(args) => import::run(globals, args),
        Command::Log(args) => log::run(globals, args),
        Command::Show(args) => show::run(globals, args),
        Command::Demo(args) => demo::run(globals, args),
        Command::Completions(args) => completions::run(globals, args),
    }
}

/// Returns the command for documents and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Brings a text onto one line of a terminal.
fn one_line(text: &str) -> String {
    // Text that came from elsewhere must not steer a terminal.
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let flat: String = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", flat.get(..end).unwrap_or_default()),
        None => flat,
    }
}
