//! Whether a knob does anything on this machine: measured with and without, in turns, and judged.
//!
//! ```text
//! without with  without with  …      rounds of the same length, the order turned in every other pair
//!    └ ratio ┘     └ ratio ┘         with / without of p99.9, pair by pair
//! ```
//!
//! A knob is better (or worse) only if the ratio is below (above) 1 in every pair: with six pairs that happens to a knob that
//! does nothing in one case of 32. Anything else is "cannot tell here", which on a noisy machine is the usual and honest answer.

mod command;
mod probe;

pub use command::{CommandError, CommandProbe};
pub use probe::{DiskProbe, NetProbe};

use serde::Serialize;

use crate::change::{Journal, JournalError, Undone, Wanted, apply, undo_to};
use crate::knobs::{PlaceError, Settings};

/// Pairs below which no verdict is given: five that agree are one case in 16 by chance.
pub const PAIRS_MIN: u32 = 5;

/// Something that measures once, for a while.
pub trait Probe {
    /// What is measured, for people.
    fn name(&self) -> String;
    /// The p99.9 of one round, in microseconds.
    fn round(&mut self) -> Result<f64, ProbeError>;
}

#[derive(Debug, thiserror::Error)]
#[error("{probe} cannot be measured: {reason}")]
pub struct ProbeError {
    pub probe: String,
    pub reason: String,
}

/// What the rounds say of a knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    Better,
    Worse,
    CannotTell,
}

/// One knob, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    pub tuner: &'static str,
    pub probe: String,
    /// With the knob, to without it; one per pair.
    pub ratios: Vec<f64>,
    pub without_us: f64,
    pub with_us: f64,
    pub judgement: Judgement,
    /// It stays as the knob wants it.
    pub kept: bool,
}

impl Verified {
    /// Least, median and greatest ratio.
    #[must_use]
    pub fn spread(&self) -> (f64, f64, f64) {
        let mut sorted = self.ratios.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], median(&sorted), sorted[sorted.len() - 1])
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("{tuner} cannot be set: {error}")]
    Set { tuner: &'static str, error: PlaceError },
    #[error("{tuner} was changed by somebody else while it was measured: {what}")]
    Disturbed { tuner: &'static str, what: String },
    #[error("{found} pairs are too few for a verdict: at least {PAIRS_MIN}")]
    Pairs { found: u32 },
}

/// Measures the changes of one tuner with and without, and leaves them made if that is better, else undone.
///
/// Each switch goes through the journal, behind what is there already, so that an interrupted run is undone by `undo`.
pub fn verify(
    settings: &Settings,
    changes: &[Wanted],
    probe: &mut dyn Probe,
    pairs: u32,
    journal: &mut Journal,
) -> Result<Verified, VerifyError> {
    let tuner = changes.first().map_or("", |wanted| wanted.tuner);
    if pairs < PAIRS_MIN {
        return Err(VerifyError::Pairs { found: pairs });
    }
    let before = journal.entries().len();
    let measured = measure(settings, changes, probe, pairs, journal);
    let (without, with) = match measured {
        Ok(rounds) => rounds,
        Err(error) => {
            undo_to(settings, journal, before, false)?;
            return Err(error);
        }
    };
    let ratios: Vec<f64> = without.iter().zip(&with).map(|(without, with)| with / without).collect();
    let judgement = judge(&ratios);
    let kept = judgement == Judgement::Better;
    if kept {
        set(settings, changes, journal, tuner)?;
    }
    Ok(Verified {
        tuner,
        probe: probe.name(),
        without_us: median_of(without),
        with_us: median_of(with),
        ratios,
        judgement,
        kept,
    })
}

fn measure(
    settings: &Settings,
    changes: &[Wanted],
    probe: &mut dyn Probe,
    pairs: u32,
    journal: &mut Journal,
) -> Result<(Vec<f64>, Vec<f64>), VerifyError> {
    let tuner = changes.first().map_or("", |wanted| wanted.tuner);
    let before = journal.entries().len();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
        for is_set in order {
            if is_set {
                set(settings, changes, journal, tuner)?;
                with.push(probe.round()?);
                reset(settings, journal, before, tuner)?;
            } else {
                without.push(probe.round()?);
            }
        }
    }
    Ok((without, with))
}

fn set(
    settings: &Settings,
    changes: &[Wanted],
    journal: &mut Journal,
    tuner: &'static str,
) -> Result<(), VerifyError> {
    for applied in apply(settings, changes.to_vec(), journal)? {
        applied.result.map_err(|error| VerifyError::Set { tuner, error })?;
    }
    Ok(())
}

fn reset(
    settings: &Settings,
    journal: &mut Journal,
    before: usize,
    tuner: &'static str,
) -> Result<(), VerifyError> {
    for undone in undo_to(settings, journal, before, false)? {
        match undone {
            Undone::Restored(_) => {}
            Undone::Failed { error, .. } => return Err(VerifyError::Set { tuner, error }),
            Undone::ChangedSince { entry, found } => {
                return Err(VerifyError::Disturbed { tuner, what: format!("{} is {found}", entry.place) });
            }
            Undone::Gone(entry) => {
                return Err(VerifyError::Disturbed { tuner, what: format!("{} has gone", entry.place) });
            }
        }
    }
    Ok(())
}

fn judge(ratios: &[f64]) -> Judgement {
    if ratios.iter().all(|ratio| *ratio < 1.0) {
        Judgement::Better
    } else if ratios.iter().all(|ratio| *ratio > 1.0) {
        Judgement::Worse
    } else {
        Judgement::CannotTell
    }
}

fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// Of values in order, of which there is one at least.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::change::undo;
    use crate::knobs::{Change, Place};

    /// Answers by the value of the knob, or by turns.
    struct FakeProbe<'a> {
        settings: &'a Settings,
        place: Place,
        rounds: u32,
        fast_value: Option<&'static str>,
    }

    impl Probe for FakeProbe<'_> {
        fn name(&self) -> String {
            "fake".to_owned()
        }

        fn round(&mut self) -> Result<f64, ProbeError> {
            self.rounds += 1;
            Ok(match self.fast_value {
                Some(value) if self.settings.is(&self.place, value) => 100.0 + f64::from(self.rounds % 3),
                Some(_) => 200.0 + f64::from(self.rounds % 3),
                None => 100.0 + f64::from(self.rounds * 7 % 5),
            })
        }
    }

    fn world() -> (tempfile::TempDir, Settings, Vec<Wanted>, Journal) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/knob"), "1\n").unwrap();
        let change = Change { place: Place::File("proc/knob".into()), value: "2".to_owned() };
        let journal = Journal::open(&root.path().join("journal")).unwrap();
        let settings = Settings::under(root.path());
        (root, settings, vec![Wanted { tuner: "fake", change }], journal)
    }

    #[test]
    fn a_knob_that_helps_every_time_is_kept_and_can_be_undone() {
        let (_root, settings, changes, mut journal) = world();
        let place = changes[0].change.place.clone();
        let mut probe =
            FakeProbe { settings: &settings, place: place.clone(), rounds: 0, fast_value: Some("2") };
        let verified = verify(&settings, &changes, &mut probe, 6, &mut journal).unwrap();
        assert_eq!((verified.judgement, verified.kept), (Judgement::Better, true));
        assert!(verified.spread().2 < 0.6, "{verified:?}");
        assert_eq!(settings.read(&place).as_deref(), Some("2"));
        undo(&settings, &mut journal, false).unwrap();
        assert_eq!(settings.read(&place).as_deref(), Some("1"));
    }

    #[test]
    fn a_knob_that_harms_or_does_nothing_is_left_as_it_was() {
        for (fast_value, judgement) in [(Some("1"), Judgement::Worse), (None, Judgement::CannotTell)] {
            let (_root, settings, changes, mut journal) = world();
            let place = changes[0].change.place.clone();
            let mut probe = FakeProbe { settings: &settings, place: place.clone(), rounds: 0, fast_value };
            let verified = verify(&settings, &changes, &mut probe, 6, &mut journal).unwrap();
            assert_eq!((verified.judgement, verified.kept), (judgement, false));
            assert_eq!(settings.read(&place).as_deref(), Some("1"));
            assert!(journal.entries().is_empty());
        }
    }

    #[test]
    fn changes_from_before_stay_made_and_in_the_journal() {
        let (root, settings, changes, mut journal) = world();
        fs::write(root.path().join("proc/other"), "7\n").unwrap();
        let other = Change { place: Place::File("proc/other".into()), value: "8".to_owned() };
        apply(&settings, vec![Wanted { tuner: "other", change: other.clone() }], &mut journal).unwrap();
        let place = changes[0].change.place.clone();
        let mut probe = FakeProbe { settings: &settings, place: place.clone(), rounds: 0, fast_value: None };
        verify(&settings, &changes, &mut probe, 6, &mut journal).unwrap();
        assert_eq!(settings.read(&other.place).as_deref(), Some("8"));
        assert_eq!(settings.read(&place).as_deref(), Some("1"));
        assert_eq!(journal.entries().len(), 1);
    }

    #[test]
    fn too_few_pairs_are_refused() {
        let (_root, settings, changes, mut journal) = world();
        let place = changes[0].change.place.clone();
        let mut probe = FakeProbe { settings: &settings, place, rounds: 0, fast_value: None };
        let refused = verify(&settings, &changes, &mut probe, 2, &mut journal);
        assert!(matches!(refused, Err(VerifyError::Pairs { found: 2 })));
        assert_eq!(probe.rounds, 0);
    }
}
