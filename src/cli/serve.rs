//! `ledger serve`.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use queries::projection::fold_all;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Globals, Output};
use crate::error::{AppError, Kind};
use crate::hub;
use crate::lab::Lab;
use crate::serve::engine::{Engine, find_deployment};
use crate::serve::{Listen, start};

/// Serve a deployment over an OpenAI-compatible API. Every call becomes a trace; a deployment
/// without an alias is marked `unpromoted` in every answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Alias (canary, toolcall@canary) or the start of a deployment id
    #[arg(default_value = "canary")]
    deployment: String,
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
    let state = fold_all(&notebook.reader())?;
    find_deployment(&state, &args.deployment)?;
    let base = hub::load(&lab, &args.model)?;
    let engine = Engine::load(&state, &lab.view(), base, &args.deployment)?;
    let marks = engine.marks();
    let (id, aliases) = (engine.id, engine.aliases.clone());
    let listen = Listen {
        address: SocketAddr::new(args.host, args.port),
        token: args.token,
        checkpoint_every: Some(args.checkpoint_every).filter(|every| !every.is_zero()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
    runtime.block_on(async {
        let server = start(notebook.clone(), &globals.actor, engine, listen).await?;
        // Before anybody hears of the address, so that whoever does can end us in good order.
        let mut ends = Ends::listen().map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
        // The address stands on standard output at once, so that a script can wait for it.
        let document = json!({
            "address": format!("http://{}", server.address),
            "deployment": id,
            "aliases": aliases,
            "marks": marks,
        });
        let line = if globals.json {
            document.to_string()
        } else {
            let marks = if marks.is_empty() { String::new() } else { format!(" {marks:?}") };
            format!("serving {} at http://{}/v1{marks}", id.short(), server.address)
        };
        // Nobody has to read it: a closed output is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
        ends.wait().await;
        globals.talk().say("stopping");
        server.stop().await
    })?;
    notebook.close()?;
    Ok(Output::lines(Vec::new(), ""))
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
