//! Files that bear their names only once they are whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ExportError;

/// A file under way.
pub(super) struct Target {
    path: PathBuf,
    partial: PathBuf,
}

impl Target {
    pub(super) fn new(path: PathBuf) -> Result<Self, ExportError> {
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let target = Self { path, partial: partial.into() };
        if target.path.exists() {
            let taken = io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file of that name is there: move it away, or choose another folder",
            );
            return Err(target.failed(taken));
        }
        let folder = target.path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|error| target.failed(error))?;
        Ok(target)
    }

    pub(super) fn open(&self) -> Result<File, ExportError> {
        File::create(&self.partial).map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, source: io::Error) -> ExportError {
        ExportError::Io { file: self.path.clone(), source }
    }

    pub(super) fn columns(&self, reason: impl ToString) -> ExportError {
        ExportError::Columns { file: self.path.clone(), reason: reason.to_string() }
    }

    /// Gives the file its name.
    pub(super) fn finish(self, file: &File) -> Result<PathBuf, ExportError> {
        let named = file.sync_all().and_then(|()| std::fs::rename(&self.partial, &self.path));
        named.map_err(|error| self.failed(error))?;
        Ok(self.path)
    }
}

/// A file of JSON lines. It is opened with its first row, or when it ends.
pub(super) struct Lines {
    target: Target,
    file: Option<BufWriter<File>>,
}

impl Lines {
    pub(super) fn new(target: Target) -> Self {
        Self { target, file: None }
    }

    fn file(&mut self) -> Result<&mut BufWriter<File>, ExportError> {
        match &mut self.file {
            Some(file) => Ok(file),
            empty => Ok(empty.insert(BufWriter::new(self.target.open()?))),
        }
    }

    pub(super) fn write(&mut self, row: &Map<String, Value>) -> Result<(), ExportError> {
        let mut line = serde_json::to_vec(row).map_err(|error| self.target.failed(error.into()))?;
        line.push(b'\n');
        let written = self.file()?.write_all(&line);
        written.map_err(|error| self.target.failed(error))
    }

    pub(super) fn finish(mut self) -> Result<PathBuf, ExportError> {
        self.file()?;
        let ended = self.file.take().map(BufWriter::into_inner).transpose();
        match ended {
            Ok(Some(file)) => self.target.finish(&file),
            Ok(None) => Err(self.target.failed(io::Error::other("it was never opened"))),
            Err(error) => Err(self.target.failed(error.into_error())),
        }
    }
}
