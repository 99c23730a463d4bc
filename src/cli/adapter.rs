//! `ledger adapter`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueEnum;
use models::export::Precision;
use serde_json::json;

use super::{Globals, Output};
use crate::adapters::{self, Found};
use crate::error::AppError;
use crate::hub;
use crate::rows::View;

/// List trained adapters and write them out for others.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the adapters of the record
    List,
    /// Write an adapter out: for PEFT, for llama.cpp, or added to its base
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// Adapter: its identity, the start of it, or the run that made it
    adapter: String,
    /// Folder to write to
    #[arg(long, short, value_name = "FOLDER")]
    out: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = Form::Peft)]
    form: Form,
    /// Precision of a merged model
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// File of the base model, where the name that it was trained under does not find it
    #[arg(long)]
    model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// adapter_config.json and adapter_model.safetensors, which PEFT, vLLM and mistral.rs read
    Peft,
    /// adapter.gguf, which llama.cpp reads with --lora
    Gguf,
    /// The base with the adapter added, as transformers reads a model
    Merged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// 32 bits: nothing is lost
    F32,
    /// 16 bits, rounded
    Bf16,
}

pub(super) fn run(globals: &Globals, args: Args) -> Result<Output, AppError> {
    match args.action {
        Action::List => list(globals),
        Action::Export(args) => export(globals, args),
    }
}

fn list(globals: &Globals) -> Result<Output, AppError> {
    let found = adapters::list(&View::now(globals.reader()?))?;
    let mut text = String::new();
    for one in &found {
        let loss = one.dev_loss.map_or("none".to_owned(), |loss| format!("{loss:.4}"));
        let _ = writeln!(text, "{} {} on {}, dev loss {loss}", one.id, one.run, one.model);
    }
    let show = |one: &Found| {
        json!({
            "adapter": one.id, "run": one.run, "model": one.model, "base": one.base,
            "cep": one.cep, "dev_loss": one.dev_loss,
        })
    };
    Ok(Output::lines(found.iter().map(show).collect(), text))
}

fn export(globals: &Globals, args: ExportArgs) -> Result<Output, AppError> {
    let view = View::now(globals.reader()?);
    let found = adapters::find(&view, &args.adapter)?;
    let base = || hub::read(args.model.as_deref().unwrap_or(&found.model));
    let precision = match args.dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    };
    let files = match args.form {
        Form::Peft => found.write_peft(&view, &args.out)?,
        Form::Gguf => vec![found.write_gguf(&view, &base()?, &args.out)?],
        Form::Merged => found.write_merged(&view, &base()?, (&args.out, precision))?,
    };
    let mut text = format!("adapter {} of {}", found.id, found.run);
    for file in &files {
        let _ = write!(text, "\n{}", file.display());
    }
    Output::document(&json!({ "adapter": found.id, "run": found.run, "files": files }), text)
}
