//! Changing the machine: `apply`, the journal of old values, `undo`, and the same as a script.
//!
//! ```text
//! apply   for each change: read the old value, journal it (synced), write the new one, read it back
//! undo    the journal from its end: write the old value back if the setting still has ours, then forget the entry
//! ```
//!
//! The journal is written before the machine is, so that whatever happens in between, `undo` knows of it.

mod journal;
mod script;

pub use journal::{JOURNAL_PATH, Journal, JournalEntry, JournalError};
pub use script::script;

use crate::knobs::{Change, Finding, Machine, PlaceError, Settings, Tuner, Verdict, tuners};

/// What one tuner says of the machine.
pub struct Report {
    pub tuner: &'static dyn Tuner,
    pub findings: Vec<Finding>,
}

/// Asks every tuner, or those named.
pub fn look(machine: &Machine<'_>, only: &[String]) -> Vec<Report> {
    let is_asked =
        |tuner: &&&'static dyn Tuner| only.is_empty() || only.iter().any(|name| name == tuner.name());
    tuners()
        .iter()
        .filter(is_asked)
        .map(|tuner| Report { tuner: *tuner, findings: tuner.look(machine) })
        .filter(|report| !report.findings.is_empty())
        .collect()
}

/// A change, and the tuner that wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub tuner: &'static str,
    pub change: Change,
}

/// All changes of the reports, in order.
#[must_use]
pub fn wanted(reports: &[Report]) -> Vec<Wanted> {
    let of_finding = |tuner: &'static str, finding: &Finding| -> Vec<Wanted> {
        match &finding.verdict {
            Verdict::Change(changes) => {
                changes.iter().map(|change| Wanted { tuner, change: change.clone() }).collect()
            }
            Verdict::Right | Verdict::Advice(_) | Verdict::NotHere(_) => Vec::new(),
        }
    };
    reports
        .iter()
        .flat_map(|report| {
            report.findings.iter().flat_map(|finding| of_finding(report.tuner.name(), finding))
        })
        .collect()
}

/// How one change went.
#[derive(Debug)]
pub struct Applied {
    pub wanted: Wanted,
    /// The value before, or why it was not changed.
    pub result: Result<String, PlaceError>,
}

/// Makes the changes, each journalled first. One that fails is reported and left as it was; the others go on.
pub fn apply(
    settings: &Settings,
    changes: Vec<Wanted>,
    journal: &mut Journal,
) -> Result<Vec<Applied>, JournalError> {
    let mut applied = Vec::with_capacity(changes.len());
    for wanted in changes {
        let Change { place, value } = &wanted.change;
        let Some(old) = settings.read(place) else {
            let error = PlaceError::Unreadable { place: place.clone() };
            applied.push(Applied { wanted, result: Err(error) });
            continue;
        };
        journal.push(JournalEntry {
            tuner: wanted.tuner.to_owned(),
            place: place.clone(),
            old: old.clone(),
            new: value.clone(),
        })?;
        let result = settings.write(place, value);
        if result.is_err() {
            // Half a write is possible (a kernel that took another value): back to what it was, then it is forgotten.
            let is_as_it_was =
                settings.read(place).as_ref() == Some(&old) || settings.write(place, &old).is_ok();
            if is_as_it_was {
                journal.pop()?;
            }
        }
        applied.push(Applied { wanted, result: result.map(|()| old) });
    }
    Ok(applied)
}

/// How taking one change back went.
#[derive(Debug)]
pub enum Undone {
    Restored(JournalEntry),
    /// Somebody else has changed it since; it is left as they have it, and forgotten.
    ChangedSince {
        entry: JournalEntry,
        found: String,
    },
    /// It has gone: a device was removed, or a driver unloaded.
    Gone(JournalEntry),
    /// It stays in the journal.
    Failed {
        entry: JournalEntry,
        error: PlaceError,
    },
}

/// Takes all changes back, newest first. With `force` also those that somebody else has changed since.
pub fn undo(settings: &Settings, journal: &mut Journal, force: bool) -> Result<Vec<Undone>, JournalError> {
    undo_to(settings, journal, 0, force)
}

/// The same for all but the oldest `keep` changes.
pub(crate) fn undo_to(
    settings: &Settings,
    journal: &mut Journal,
    keep: usize,
    force: bool,
) -> Result<Vec<Undone>, JournalError> {
    let mut undone = Vec::new();
    let mut kept = Vec::new();
    while journal.entries().len() > keep
        && let Some(entry) = journal.last().cloned()
    {
        let found = settings.read(&entry.place);
        let outcome = match found {
            None => Undone::Gone(entry),
            Some(found) if !force && found != entry.old && !settings.is(&entry.place, &entry.new) => {
                Undone::ChangedSince { entry, found }
            }
            Some(_) => match settings.write(&entry.place, &entry.old) {
                Ok(()) => Undone::Restored(entry),
                Err(error) => Undone::Failed { entry, error },
            },
        };
        journal.pop()?;
        if let Undone::Failed { entry, .. } = &outcome {
            kept.push(entry.clone());
        }
        undone.push(outcome);
    }
    for entry in kept.into_iter().rev() {
        journal.push(entry)?;
    }
    Ok(undone)
}
