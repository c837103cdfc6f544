//! What went wrong with the file, and what to do about it: for the operator.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::error::LogError;

#[derive(Debug)]
pub(super) struct Failure {
    path: PathBuf,
    what: String,
    remedy: &'static str,
}

impl Failure {
    pub(super) fn new(path: &Path, error: &rusqlite::Error) -> Self {
        let remedy = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "free some space; publishing goes on by itself",
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                "make the file and its folder writable for this user"
            }
            Some(ErrorCode::NotADatabase) => "name another file, or move this one away",
            Some(ErrorCode::DatabaseCorrupt) => "put a backup back, or move the file away to begin a new log",
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "end the other process that has it open"
            }
            Some(ErrorCode::SystemIoFailure) => "look at the disk and the system's log",
            _ => "look at the file with the sqlite3 program",
        };
        Self { path: path.into(), what: error.to_string(), remedy }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        let remedy = "make the file and its folder writable for this user";
        Self { path: path.into(), what: error.to_string(), remedy }
    }

    pub(super) fn thread(path: &Path, error: &std::io::Error) -> Self {
        let what = format!("no thread could be started: {error}");
        Self { path: path.into(), what, remedy: "raise the limit of threads" }
    }

    pub(super) fn taken(path: &Path) -> Self {
        let what = "the log is open in another process".into();
        Self { path: path.into(), what, remedy: "end that process, or name another file" }
    }

    pub(super) fn misfit(path: &Path, is_index: bool) -> Self {
        let (what, remedy) = if is_index {
            ("the file is a log of its own", "name another file for the index, or move this one away")
        } else {
            ("the file is the index of a shared order", "name the order as well, or another file for the log")
        };
        Self { path: path.into(), what: what.into(), remedy }
    }

    pub(super) fn panicked(path: &Path) -> Self {
        let what = "a thread of the log panicked".into();
        Self { path: path.into(), what, remedy: "restart, and report it with the log of the program" }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.what, self.remedy)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}
