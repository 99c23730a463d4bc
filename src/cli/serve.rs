//! `ledger serve`.

use std::net::{IpAddr, SocketAddr};

use queries::projection::fold_all;
use serde_json::json;

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
    let listen = Listen { address: SocketAddr::new(args.host, args.port), token: args.token };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| AppError::said(Kind::Internal, e.to_string()))?;
    runtime.block_on(async {
        let server = start(notebook.clone(), &globals.actor, engine, listen).await?;
        // The address stands on standard output at once, so that a script can wait for it.
        let document = json!({
            "address": format!("http://{}", server.address),
            "deployment": id,
            "aliases": aliases,
            "marks": marks,
        });
        if globals.json {
            println!("{document}");
        } else {
            let marks = if marks.is_empty() { String::new() } else { format!(" {marks:?}") };
            println!("serving {} at http://{}/v1{marks}", id.short(), server.address);
        }
        stopped().await;
        globals.talk().say("stopping");
        server.stop().await
    })?;
    notebook.close()?;
    Ok(Output::lines(Vec::new(), ""))
}

/// Waits for an interrupt or, where there is such a thing, a request to end.
async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    if let Ok(mut end) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = interrupt => {}
            _ = end.recv() => {}
        }
        return;
    }
    let _ = interrupt.await;
}
