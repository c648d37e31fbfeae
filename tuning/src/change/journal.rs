//! What was changed and what it was before: a file of one JSON object a line, oldest first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::knobs::Place;

/// Where the journal is kept if nobody says otherwise.
pub const JOURNAL_PATH: &str = "/var/lib/apogee/tune.journal";

/// Changes remembered at most: a machine of 1,024 cpus with ten idle states each is far below it.
const ENTRIES_MAX: usize = 65_536;

/// Longest journal that is read.
const BYTES_MAX: u64 = 64 << 20;

/// One change of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalEntry {
    pub tuner: String,
    pub place: Place,
    pub old: String,
    pub new: String,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal {path} cannot be {action}: {error}{}", if error.kind() == io::ErrorKind::PermissionDenied { "; run it as root, or name another with --journal" } else { "" })]
    Io { path: String, action: &'static str, error: io::Error },
    #[error("line {line} of the journal {path} cannot be understood: {error}; nothing was changed")]
    Malformed { path: String, line: usize, error: serde_json::Error },
    #[error("the journal {path} has {ENTRIES_MAX} changes already: undo them first")]
    Full { path: String },
    #[error("the journal {path} has more than {BYTES_MAX} bytes: it is not one of ours")]
    TooLarge { path: String },
}

/// The changes that `undo` would take back.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Vec<JournalEntry>,
}

impl Journal {
    /// Reads what an earlier `apply` left; none is an empty journal.
    pub fn open(path: &Path) -> Result<Journal, JournalError> {
        let name = || path.display().to_string();
        let unreadable = |error| JournalError::Io { path: name(), action: "read", error };
        let text = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(unreadable(error)),
            Ok(found) if found.len() > BYTES_MAX => return Err(JournalError::TooLarge { path: name() }),
            Ok(_) => fs::read_to_string(path).map_err(unreadable)?,
        };
        let mut entries = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(entry) => entries.push(entry),
                // The process ended while it wrote the line: the machine was not changed yet.
                Err(_) if nth + 1 == text.lines().count() && !text.ends_with('\n') => {}
                Err(error) => return Err(JournalError::Malformed { path: name(), line: nth + 1, error }),
            }
        }
        Ok(Journal { path: path.to_owned(), entries })
    }

    #[must_use]
    pub fn entries(&self) -> &[JournalEntry] {
        &self.entries
    }

    #[must_use]
    pub fn last(&self) -> Option<&JournalEntry> {
        self.entries.last()
    }

    /// Remembers a change that is about to be made; durable when it returns.
    pub fn push(&mut self, entry: JournalEntry) -> Result<(), JournalError> {
        if self.entries.len() >= ENTRIES_MAX {
            return Err(JournalError::Full { path: self.path.display().to_string() });
        }
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(|error| self.error("made", error))?;
        }
        let open = OpenOptions::new().create(true).append(true).open(&self.path);
        let append = |mut file: File| {
            file.write_all(line(&entry).as_bytes())?;
            file.sync_data()
        };
        open.and_then(append).map_err(|error| self.error("written", error))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Forgets the newest change; durable when it returns. An empty journal has no file.
    pub fn pop(&mut self) -> Result<Option<JournalEntry>, JournalError> {
        let Some(entry) = self.entries.pop() else { return Ok(None) };
        if self.entries.is_empty() {
            fs::remove_file(&self.path).map_err(|error| self.error("removed", error))?;
            return Ok(Some(entry));
        }
        let bytes: u64 = self.entries.iter().map(|entry| line(entry).len() as u64).sum();
        let open = OpenOptions::new().write(true).open(&self.path);
        let shorten = |file: File| {
            file.set_len(bytes)?;
            file.sync_data()
        };
        open.and_then(shorten).map_err(|error| self.error("shortened", error))?;
        Ok(Some(entry))
    }

    fn error(&self, action: &'static str, error: io::Error) -> JournalError {
        JournalError::Io { path: self.path.display().to_string(), action, error }
    }
}

fn line(entry: &JournalEntry) -> String {
    let mut line = serde_json::to_string(entry).expect("an entry has nothing that JSON cannot say");
    line.push('\n');
    line
}
