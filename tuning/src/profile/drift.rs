//! What has changed since a profile was made.

use std::fmt;

use super::{ExpectedSetting, Profile};
use crate::facts::Facts;
use crate::knobs::Settings;

/// A difference between a profile and the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// A knob has another value than the profile wants: it was never applied, or was changed since.
    Knob { setting: ExpectedSetting, found: String },
    /// The hardware, or what the process may use of it, is another.
    Machine { what: &'static str, expected: String, found: String },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Knob { setting: ExpectedSetting { tuner, place, value }, found } => {
                write!(f, "{place} is {found}, and the profile wants {value} ({tuner})")
            }
            Drift::Machine { what, expected, found } => {
                write!(f, "{what}: {found} here, {expected} in the profile; make the profile anew")
            }
        }
    }
}

/// Everything in which the machine differs from the profile. Reads a file per knob.
#[must_use]
pub fn drift(settings: &Settings, facts: &Facts, profile: &Profile) -> Vec<Drift> {
    let made_for = &profile.made_for;
    let mut found = Vec::new();
    let mut compare = |what, expected: String, now: String| {
        if expected != now {
            found.push(Drift::Machine { what, expected, found: now });
        }
    };
    compare("cpus", made_for.allowed_cpus.to_string(), facts.cpus.allowed.to_string());
    compare(
        "virtualised by",
        made_for.virtualised_by.clone().unwrap_or_default(),
        facts.kernel.virtualised_by.clone().unwrap_or_default(),
    );
    // A guest's memory differs by a few pages from boot to boot.
    let gib = |bytes: u64| format!("{} GiB", (bytes + (1 << 29)) >> 30);
    compare("memory", gib(made_for.memory_bytes), gib(facts.memory.usable_bytes()));
    for setting in &profile.settings {
        if let Some(now) = settings.read(&setting.place)
            && !settings.is(&setting.place, &setting.value)
        {
            found.push(Drift::Knob { setting: setting.clone(), found: now });
        }
    }
    found
}
