//! `ledger serve`.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ledger::Digest;
use queries::projection::fold_all;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::hub;
use crate::lab::Lab;
use crate::serve::engine::{Engine, find_deployment};
use crate::serve::gateway::Teacher;
use crate::serve::{Answering, Listen, start};

/// Serve a deployment over an OpenAI-compatible API, or hand calls on to a teacher. Every call
/// becomes a trace; a deployment without an alias is marked `unpromoted` in every answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alias (canary, toolcall@canary) or the start of a deployment id [default: canary; with
    /// --teacher none]
    deployment: Option<String>,
    /// Hand calls for other models on to this API, as https://api.openai.com/v1, and record them
    #[arg(long, env = "LEDGER_TEACHER", value_name = "URL")]
    teacher: Option<String>,
    /// Key for the teacher in the place of the callers' own; better set in the environment
    #[arg(long, env = "LEDGER_TEACHER_KEY", hide_env_values = true, value_name = "KEY")]
    teacher_key: Option<String>,
    /// Base model: a known name or a GGUF file
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Address; off loopback a token is needed
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port; 0 takes a free one
    #[arg(long, default_value_t = 7070)]
    port: u16,
    /// Token that callers must send
    #[arg(long, env = "LEDGER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Sign a checkpoint every so many minutes if events came since the last one; 0 signs none
    #[arg(long, default_value = "60", value_name = "MINUTES", value_parser = parse_minutes)]
    checkpoint_every: Duration,
}

/// Longest time between two checkpoints: a year, in minutes.
const MINUTES_MAX: f64 = 525_600.0;

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text:?} is no number of minutes"))?;
    if !(0.0..=MINUTES_MAX).contains(&minutes) {
        return Err(format!("it must be from 0 to {MINUTES_MAX} minutes"));
    }
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    let notebook = globals.open()?;
    let lab = Lab { notebook: &notebook, actor: &globals.actor, talk: globals.talk() };
    let answering = answering(&lab, &args)?;
    let said = Said::of(&answering);
    let listen = Listen {
        address: SocketAddr::new(args.host, args.port),
        token: args.token,
        checkpoint_every: Some(args.checkpoint_every).filter(|every| !every.is_zero()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
    runtime.block_on(async {
        let server = start(notebook.clone(), &globals.actor, answering, listen).await?;
        // Before anybody hears of the address, so that whoever does can end us in good order.
        let mut ends = Ends::listen().map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
        // The address stands on standard output at once, so that a script can wait for it.
        let line = said.line(server.address, globals.json);
        // Nobody has to read it: a closed output is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
        ends.wait().await;
        globals.talk().say("stopping");
        server.stop().await
    })?;
    notebook.close()?;
    Ok(Output::lines(Vec::new(), ""))
}

/// Makes ready who answers.
fn answering(lab: &Lab<'_>, args: &Args) -> Result<Answering, AppError> {
    let teacher = args.teacher.as_deref().filter(|address| !address.trim().is_empty());
    let teacher = teacher.map(|address| Teacher::new(address, args.teacher_key.clone()));
    let teacher = teacher.transpose()?;
    let name = match (&args.deployment, &teacher) {
        (Some(name), _) => name,
        (None, Some(_)) => return Ok(Answering { engine: None, teacher }),
        (None, None) => "canary",
    };
    let state = fold_all(&lab.notebook.reader())?;
    find_deployment(&state, name)?;
    let base = hub::load(lab, &args.model)?;
    let engine = Engine::load(&state, &lab.view(), base, name)?;
    Ok(Answering { engine: Some(Arc::new(engine)), teacher })
}

/// What is said of who answers.
struct Said {
    deployment: Option<(Digest, Vec<String>, Vec<String>)>,
    teacher: Option<String>,
}

impl Said {
    fn of(answering: &Answering) -> Self {
        let engine = answering.engine.as_ref();
        let deployment = engine.map(|engine| (engine.id, engine.aliases.clone(), engine.marks()));
        let teacher = answering.teacher.as_ref().map(|teacher| teacher.address().to_owned());
        Self { deployment, teacher }
    }

    fn line(&self, address: SocketAddr, is_json: bool) -> String {
        let Self { deployment, teacher } = self;
        if is_json {
            let (id, aliases, marks) = deployment.clone().map_or_else(
                || (json!(null), Vec::new(), Vec::new()),
                |(id, aliases, marks)| (json!(id), aliases, marks),
            );
            let document = json!({
                "address": format!("http://{address}"),
                "deployment": id,
                "aliases": aliases,
                "marks": marks,
                "teacher": teacher,
            });
            return document.to_string();
        }
        let here = deployment.as_ref().map(|(id, _, marks)| {
            let marks = if marks.is_empty() { String::new() } else { format!(" {marks:?}") };
            format!("serving {} at http://{address}/v1{marks}", id.short())
        });
        let there = teacher.as_ref().map(|teacher| match here {
            Some(_) => format!("; calls for other models go on to {teacher}"),
            None => format!("calls to http://{address}/v1 go on to {teacher} and are recorded"),
        });
        [here, there].into_iter().flatten().collect()
    }
}

/// What asks the server to end: an interrupt, or a service manager.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
