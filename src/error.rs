//! What the commands can fail with: kind, hint, and the exit code that scripts may rely on.

use std::path::PathBuf;

use datasets::split::SplitError;
use ledger::notebook::{AppendError, CreateError, OpenError};
use queries::trace::TraceError;

/// What kind of failure it is. Its number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A fault of ours.
    Internal = 1,
    /// The command line or a configuration file is wrong.
    Usage = 2,
    /// A file, notebook, run, suite or model is not there.
    NotFound = 3,
    /// An input cannot be read as what it should be.
    Input = 4,
    /// Another process holds the notebook.
    Busy = 5,
    /// Stored bytes are not what was written.
    Damaged = 6,
    /// A rule forbids it: a gate that did not pass, a contaminated suite.
    Refused = 7,
    /// A replay came out otherwise.
    Diverged = 8,
    /// Something outside cannot be reached.
    Unavailable = 9,
    /// The record moved on, or an id stands for something else.
    Conflict = 10,
    /// The disk is full or refused a write.
    Storage = 11,
    /// What is asked for was erased with its subject.
    Erased = 12,
}

impl Kind {
    /// All kinds with the meaning that the documents give.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Internal, "a fault of the program"),
        (Self::Usage, "wrong command line or configuration"),
        (Self::NotFound, "a file, notebook, run, suite or model is not there"),
        (Self::Input, "an input cannot be read as what it should be"),
        (Self::Busy, "another process holds the notebook"),
        (Self::Damaged, "stored bytes are not what was written"),
        (Self::Refused, "a rule forbids it: a gate did not pass, a suite is contaminated"),
        (Self::Diverged, "a replay came out otherwise"),
        (Self::Unavailable, "something outside cannot be reached"),
        (Self::Conflict, "the record moved on, or an id stands for something else"),
        (Self::Storage, "the disk is full or refused a write"),
        (Self::Erased, "it was erased: its subject was forgotten"),
    ];

    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Input => "input",
            Self::Busy => "busy",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Diverged => "diverged",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Storage => "storage",
            Self::Erased => "erased",
        }
    }
}

/// Any failure of a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A notebook cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A notebook cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Events cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The notebook cannot be closed.
    #[error(transparent)]
    Close(#[from] ledger::notebook::CloseError),
    /// The record cannot be read.
    #[error(transparent)]
    Read(#[from] ledger::ReadError),
    /// A body cannot be read or written.
    #[error(transparent)]
    Blob(#[from] ledger::BlobError),
    /// The record cannot be verified at all.
    #[error(transparent)]
    Verify(#[from] ledger::VerifyError),
    /// A checkpoint cannot be signed or read.
    #[error(transparent)]
    Checkpoint(#[from] ledger::CheckpointError),
    /// The log cannot be written out as lines or read in.
    #[error(transparent)]
    Interchange(#[from] ledger::InterchangeError),
    /// A subject cannot be forgotten.
    #[error(transparent)]
    Forget(#[from] ledger::ForgetError),
    /// Garbage cannot be found or removed.
    #[error(transparent)]
    Gc(#[from] ledger::GcError),
    /// Nothing could be repaired.
    #[error(transparent)]
    Repair(#[from] ledger::RepairError),
    /// There is no proof, or one proves nothing.
    #[error(transparent)]
    Proof(#[from] ledger::ProofError),
    /// The log cannot be written out.
    #[error(transparent)]
    Export(#[from] ledger::ExportError),
    /// The facts of an event are not of their kind.
    #[error(transparent)]
    Facts(#[from] ledger::event::FactsError),
    /// An input cannot be read.
    #[error(transparent)]
    Ingest(#[from] datasets::IngestError),
    /// Redaction rules are unknown.
    #[error(transparent)]
    Redact(#[from] datasets::redact::RulesError),
    /// A dataset cannot be written out.
    #[error(transparent)]
    WriteOut(#[from] datasets::export::ExportError),
    /// A suite cannot be frozen.
    #[error(transparent)]
    Suite(#[from] datasets::suite::SuiteError),
    /// A split cannot be frozen.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// A stored manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] datasets::manifest::ManifestError),
    /// A model, adapter or its numbers.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The record cannot be folded.
    #[error(transparent)]
    Fold(#[from] queries::projection::FoldError),
    /// A report cannot be made.
    #[error(transparent)]
    Report(#[from] queries::report::LoadError),
    /// A policy cannot be read.
    #[error("{name}: {source}")]
    Policy {
        /// Name or file of the policy.
        name: String,
        /// What is wrong.
        source: queries::gate::PolicyError,
    },
    /// The index cannot be used.
    #[error(transparent)]
    Search(#[from] queries::search::SearchError),
    /// A search cannot be saved or read.
    #[error(transparent)]
    Saved(#[from] queries::search::SavedError),
    /// There is no chain to show.
    #[error(transparent)]
    Why(#[from] queries::why::WhyError),
    /// A trace cannot be shown.
    #[error(transparent)]
    Trace(#[from] queries::trace::TraceError),
    /// A replay cannot be planned.
    #[error(transparent)]
    Plan(#[from] queries::replay::PlanError),
    /// A value has no JSON form.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A failure with a kind of its own.
    #[error("{message}")]
    Said {
        /// Its kind.
        kind: Kind,
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl AppError {
    /// Makes a failure of a kind.
    pub fn said(kind: Kind, message: impl Into<String>) -> Self {
        Self::Said { kind, message: message.into(), hint: None }
    }

    /// Makes a failure of a kind with a hint.
    pub fn hinted(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Said { kind, message: message.into(), hint: Some(hint.into()) }
    }

    /// Makes the failure of a file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        use queries::report::LoadError;
        match self {
            Self::Said { kind, .. } => *kind,
            Self::Create(CreateError::AlreadyExists { .. }) => Kind::Usage,
            Self::Create(CreateError::Open(source)) | Self::Open(source) => open_kind(source),
            Self::Append(source) => append_kind(source),
            Self::Read(source) => read_kind(source),
            Self::Blob(source) => blob_kind(source),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            Self::File { .. } | Self::Close(_) | Self::Create(_) => Kind::Storage,
            Self::Ingest(_) | Self::Suite(_) | Self::Split(_) | Self::Policy { .. } => Kind::Input,
            Self::Model(models::ModelError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Kind::NotFound
            }
            Self::Model(_) => Kind::Input,
            Self::WriteOut(datasets::export::ExportError::UnknownFormat { .. }) => Kind::Usage,
            Self::WriteOut(_) => Kind::Storage,
            Self::Report(LoadError::Report(_)) => Kind::Refused,
            Self::Report(_) | Self::Why(_) | Self::Plan(_) => Kind::NotFound,
            Self::Trace(error) => trace_kind(error),
            Self::Search(_) | Self::Saved(_) | Self::Redact(_) => Kind::Usage,
            Self::Verify(ledger::VerifyError::Read(source)) => read_kind(source),
            Self::Verify(_) => Kind::Storage,
            Self::Checkpoint(error) => checkpoint_kind(error),
            Self::Manifest(_) | Self::Facts(_) => Kind::Damaged,
            Self::Proof(error) | Self::Export(ledger::ExportError::Proof(error)) => {
                proof_kind(error)
            }
            Self::Export(ledger::ExportError::Read(source)) => read_kind(source),
            Self::Export(_) => Kind::Storage,
            Self::Repair(error) => repair_kind(error),
            Self::Interchange(error) => interchange_kind(error),
            Self::Forget(error) => forget_kind(error),
            Self::Gc(error) => gc_kind(error),
            Self::Fold(_) | Self::Json(_) => Kind::Internal,
        }
    }

    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Said { hint, .. } => return hint.clone(),
            Self::Create(CreateError::AlreadyExists { .. }) => {
                "use it as it is, or name another directory with --dir"
            }
            Self::Create(CreateError::Open(source)) | Self::Open(source) => {
                return open_hint(source);
            }
            Self::Read(ledger::ReadError::NotANotebook { .. })
            | Self::Verify(ledger::VerifyError::Read(ledger::ReadError::NotANotebook { .. })) => {
                NO_NOTEBOOK
            }
            Self::Trace(TraceError::Ambiguous { .. }) => "write more of the id",
            Self::Trace(TraceError::Unknown { .. }) => {
                "take a trace's id from `ledger search`, or the id of a response"
            }
            Self::Split(SplitError::NoTrainRows { excluded: 0, .. }) => {
                "all questions fell to the dev side: --dev-fraction 0 holds none out"
            }
            Self::Ingest(datasets::IngestError::NotOfFormat { .. }) => {
                "name the format with --format; `ledger ingest --help` lists them"
            }
            Self::Blob(ledger::BlobError::Damaged { .. } | ledger::BlobError::Missing { .. }) => {
                "`ledger verify` lists all that is damaged; restore the file from a copy"
            }
            Self::Model(models::ModelError::Malformed { .. }) => {
                "the file is damaged or cut short: `ledger model pull` fetches it again"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

const NO_NOTEBOOK: &str =
    "make one with `ledger init`, or name one with --dir or the environment's LEDGER_DIR";

fn open_kind(error: &OpenError) -> Kind {
    match error {
        OpenError::NotANotebook { .. } => Kind::NotFound,
        OpenError::Locked { .. } => Kind::Busy,
        OpenError::Corrupt { .. } => Kind::Damaged,
        OpenError::Config { .. } | OpenError::Newer { .. } => Kind::Usage,
        _ => Kind::Storage,
    }
}

fn open_hint(error: &OpenError) -> Option<String> {
    let hint = match error {
        OpenError::NotANotebook { .. } => NO_NOTEBOOK,
        OpenError::Locked { .. } => {
            "the process that holds it does not answer through its socket: wait until it ends, or \
             end it; reading commands (log, show, search, why, status) work meanwhile"
        }
        OpenError::Corrupt { .. } => {
            "`ledger verify` says which events are sound, `ledger repair` restores what has a copy"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn append_kind(error: &AppendError) -> Kind {
    match error {
        AppendError::Conflict { .. } | AppendError::IdReused { .. } => Kind::Conflict,
        AppendError::DiskLow { .. } | AppendError::Poisoned { .. } => Kind::Storage,
        _ => Kind::Internal,
    }
}

fn trace_kind(error: &TraceError) -> Kind {
    match error {
        TraceError::Read(source) => read_kind(source),
        TraceError::Facts(_) => Kind::Damaged,
        TraceError::Unknown { .. } => Kind::NotFound,
        TraceError::Ambiguous { .. } => Kind::Usage,
    }
}

fn read_kind(error: &ledger::ReadError) -> Kind {
    match error {
        ledger::ReadError::NotANotebook { .. } => Kind::NotFound,
        ledger::ReadError::Io { .. } => Kind::Storage,
        _ => Kind::Damaged,
    }
}

fn interchange_kind(error: &ledger::InterchangeError) -> Kind {
    match error {
        ledger::InterchangeError::Line { .. } => Kind::Input,
        ledger::InterchangeError::Exists { .. } => Kind::Usage,
        ledger::InterchangeError::Read(source) => read_kind(source),
        ledger::InterchangeError::Blob(source) => blob_kind(source),
        _ => Kind::Storage,
    }
}

fn repair_kind(error: &ledger::RepairError) -> Kind {
    match error {
        ledger::RepairError::Locked { .. } => Kind::Busy,
        ledger::RepairError::NoCopy { .. } | ledger::RepairError::Contradiction { .. } => {
            Kind::Damaged
        }
        ledger::RepairError::Read(source) => read_kind(source),
        ledger::RepairError::Open(source) => open_kind(source),
        _ => Kind::Storage,
    }
}

fn proof_kind(error: &ledger::ProofError) -> Kind {
    match error {
        ledger::ProofError::NotCovered { .. } => Kind::NotFound,
        ledger::ProofError::Malformed { .. } => Kind::Input,
        ledger::ProofError::Read(source) => read_kind(source),
        _ => Kind::Damaged,
    }
}

fn blob_kind(error: &ledger::BlobError) -> Kind {
    match error {
        ledger::BlobError::Damaged { .. } | ledger::BlobError::Missing { .. } => Kind::Damaged,
        ledger::BlobError::Erased { .. } => Kind::Erased,
        ledger::BlobError::Subject(source) => subject_kind(source),
        _ => Kind::Storage,
    }
}

fn subject_kind(error: &ledger::SubjectError) -> Kind {
    match error {
        ledger::SubjectError::NoName => Kind::Usage,
        ledger::SubjectError::Io { .. } => Kind::Storage,
        _ => Kind::Damaged,
    }
}

fn forget_kind(error: &ledger::ForgetError) -> Kind {
    match error {
        ledger::ForgetError::Unknown { .. } => Kind::NotFound,
        ledger::ForgetError::Read(source) => read_kind(source),
        ledger::ForgetError::Facts(_) => Kind::Damaged,
        ledger::ForgetError::Append(source) => append_kind(source),
        ledger::ForgetError::Subject(source) => subject_kind(source),
        _ => Kind::Storage,
    }
}

fn gc_kind(error: &ledger::GcError) -> Kind {
    match error {
        ledger::GcError::Read(source) => read_kind(source),
        ledger::GcError::Blob(source) => blob_kind(source),
        ledger::GcError::Io { .. } => Kind::Storage,
        _ => Kind::Damaged,
    }
}

fn checkpoint_kind(error: &ledger::CheckpointError) -> Kind {
    match error {
        ledger::CheckpointError::Key { .. } => Kind::NotFound,
        ledger::CheckpointError::Forked { .. } => Kind::Diverged,
        ledger::CheckpointError::Append(source) => append_kind(source),
        ledger::CheckpointError::Read(source) => read_kind(source),
        ledger::CheckpointError::Io { .. } => Kind::Storage,
        _ => Kind::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ledger::{ForgetError, GcError, ReadError};

    use super::*;

    fn damaged() -> ReadError {
        let path = PathBuf::from("journal/0.seg");
        ReadError::Corrupt { path, offset: 9, seq: 3, what: "its checksum is wrong" }
    }

    #[test]
    fn damage_is_damage_whatever_met_it() {
        for error in [
            AppError::Read(damaged()),
            AppError::Gc(GcError::Read(damaged())),
            AppError::Forget(ForgetError::Read(damaged())),
            AppError::Checkpoint(ledger::CheckpointError::Read(damaged())),
        ] {
            assert_eq!(error.kind(), Kind::Damaged, "{error}");
        }
        let full = || AppendError::DiskLow { free: 1, needed: 2 };
        assert_eq!(AppError::Forget(ForgetError::Append(full())).kind(), Kind::Storage);
        let unsigned = ledger::CheckpointError::Append(Box::new(full()));
        assert_eq!(AppError::Checkpoint(unsigned).kind(), Kind::Storage);
        let nobody = ForgetError::Subject(ledger::SubjectError::NoName);
        assert_eq!(AppError::Forget(nobody).kind(), Kind::Usage);
    }
}
