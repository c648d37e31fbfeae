//! Where a setting of the machine is kept, how it is read and how it is written.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::roots::{Roots, chosen, read_line};

/// One setting. Written into the journal, so that `undo` finds it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A file of one value below `/proc` or `/sys`, without the leading slash. Of `none [mq-deadline] kyber` the value is
    /// the bracketed word.
    File(PathBuf),
    /// A number that `ethtool` shows and sets.
    Nic { nic: String, option: NicOption },
    /// TCP to `port` goes to receive queue `queue`, by the rule in slot `slot` of the interface. Its values are
    /// [`FLOW_RULE_SET`] and [`FLOW_RULE_ABSENT`].
    FlowRule { nic: String, port: u16, queue: u32, slot: u32 },
}

/// Values of a [`Place::FlowRule`].
pub(crate) const FLOW_RULE_SET: &str = "set";
pub(crate) const FLOW_RULE_ABSENT: &str = "absent";

/// What `ethtool` can set of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicOption {
    /// `-c`/`-C`: microseconds that a receive interrupt waits for more packets.
    RxUsecs,
    /// `-c`/`-C`: whether the driver chooses that wait by itself: `on` or `off`.
    AdaptiveRx,
    /// `-l`/`-L`: queues for both directions.
    CombinedQueues,
    /// `-g`/`-G`: packets that a receive ring holds.
    RxRing,
    /// `-k`/`-K`: whether rules may steer flows to queues: `on` or `off`.
    NtupleFilters,
}

impl NicOption {
    /// The flag that shows, the one that sets, what it is called in both.
    fn flags(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            NicOption::RxUsecs => ("-c", "-C", "rx-usecs", "rx-usecs"),
            NicOption::AdaptiveRx => ("-c", "-C", "Adaptive RX", "adaptive-rx"),
            NicOption::CombinedQueues => ("-l", "-L", "Combined", "combined"),
            NicOption::RxRing => ("-g", "-G", "RX", "rx"),
            NicOption::NtupleFilters => ("-k", "-K", "ntuple-filters", "ntuple"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "/{}", path.display()),
            Place::Nic { nic, option } => write!(f, "{nic} {}", option.flags().3),
            Place::FlowRule { nic, port, queue, .. } => {
                write!(f, "{nic} flow rule port {port} to queue {queue}")
            }
        }
    }
}

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot write {value:?} to {place}: {error}{}", hint(error))]
    Write { place: Place, value: String, error: io::Error },
    #[error("{place} cannot be read")]
    Unreadable { place: Place },
    #[error("{place} is {found:?} after {written:?} was written: the kernel did not take it")]
    NotTaken { place: Place, written: String, found: String },
    #[error("ethtool is needed for {place} and cannot be run: {error}")]
    NoEthtool { place: Place, error: io::Error },
    #[error("ethtool refused {place}: {message}")]
    Ethtool { place: Place, message: String },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        io::ErrorKind::ReadOnlyFilesystem => "; a container shows it read-only: set it on the host",
        _ => "",
    }
}

/// The machine's settings, to be read and written.
#[derive(Debug, Clone)]
pub struct Settings {
    roots: Roots,
    ethtool: PathBuf,
}

impl Settings {
    #[must_use]
    pub fn machine() -> Self {
        Settings { roots: Roots::machine(), ethtool: PathBuf::from("ethtool") }
    }

    /// A made-up tree, and a program in the place of ethtool.
    #[cfg(test)]
    pub(crate) fn under(root: &std::path::Path) -> Self {
        Settings { roots: Roots::under(root), ethtool: root.join("ethtool") }
    }

    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What the setting is now; nothing if the machine has no such setting, or does not tell.
    #[must_use]
    pub fn read(&self, place: &Place) -> Option<String> {
        match place {
            Place::File(path) => read_line(&self.roots.below(path)).map(|line| chosen(&line).to_owned()),
            Place::Nic { nic, option } => {
                let (show, _, label, _) = option.flags();
                let text = self.ethtool(place, &[show, nic]).ok()?;
                shown(&text, label)
            }
            Place::FlowRule { nic, port, queue, slot } => {
                let text = self.ethtool(place, &["-n", nic]).ok()?;
                let is_set = flow_rules(&text).any(|rule| rule == (*slot, Some(*port), Some(*queue)));
                Some(if is_set { FLOW_RULE_SET } else { FLOW_RULE_ABSENT }.to_owned())
            }
        }
    }

    /// Whether it is `value`, in whatever notation the kernel shows it.
    #[must_use]
    pub fn is(&self, place: &Place, value: &str) -> bool {
        self.read(place).is_some_and(|found| is_same(&found, value))
    }

    /// Sets it, and reads it back.
    pub fn write(&self, place: &Place, value: &str) -> Result<(), PlaceError> {
        match place {
            Place::File(path) => {
                fs::write(self.roots.below(path), value).map_err(|error| PlaceError::Write {
                    place: place.clone(),
                    value: value.to_owned(),
                    error,
                })?;
            }
            Place::Nic { .. } | Place::FlowRule { .. } => {
                let arguments = ethtool_arguments(place, value);
                self.ethtool(place, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
        }
        match self.read(place) {
            Some(found) if is_same(&found, value) => Ok(()),
            Some(found) => {
                Err(PlaceError::NotTaken { place: place.clone(), written: value.to_owned(), found })
            }
            None => Err(PlaceError::Unreadable { place: place.clone() }),
        }
    }

    fn ethtool(&self, place: &Place, arguments: &[&str]) -> Result<String, PlaceError> {
        let run = Command::new(&self.ethtool).args(arguments).stdin(Stdio::null()).output();
        let output = run.map_err(|error| PlaceError::NoEthtool { place: place.clone(), error })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(PlaceError::Ethtool { place: place.clone(), message });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The line of a script that sets `place` to `value`.
#[must_use]
pub(crate) fn script_line(place: &Place, value: &str) -> String {
    match place {
        Place::File(path) => format!("echo {} > /{}", quoted(value), quoted(&path.to_string_lossy())),
        Place::Nic { .. } | Place::FlowRule { .. } => {
            let arguments = ethtool_arguments(place, value);
            let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
            format!("ethtool {}", words.join(" "))
        }
    }
}

/// In single quotes where a shell would see more than a word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:+@%=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn ethtool_arguments(place: &Place, value: &str) -> Vec<String> {
    let words: Vec<String> = match place {
        Place::File(_) => Vec::new(),
        Place::Nic { nic, option } => {
            let (_, set, _, name) = option.flags();
            [set, nic, name, value].map(str::to_owned).into()
        }
        Place::FlowRule { nic, slot, .. } if value == FLOW_RULE_ABSENT => {
            ["-N", nic, "delete", &slot.to_string()].map(str::to_owned).into()
        }
        Place::FlowRule { nic, port, queue, slot } => {
            let (port, queue, slot) = (port.to_string(), queue.to_string(), slot.to_string());
            ["-N", nic, "flow-type", "tcp4", "dst-port", &port, "action", &queue, "loc", &slot]
                .map(str::to_owned)
                .into()
        }
    };
    words
}

/// Masks and lists of cpus read back in another notation than they were written in.
fn is_same(found: &str, written: &str) -> bool {
    let plain = |text: &str| -> String {
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let digits = text.trim_start_matches(['0', ',']);
        if digits.is_empty() && !text.is_empty() { "0".to_owned() } else { digits.to_ascii_lowercase() }
    };
    plain(found) == plain(written)
}

/// The value behind `label:`; where ethtool shows what is possible first and what is set second, the second.
fn shown(text: &str, label: &str) -> Option<String> {
    let current = text.split_once("Current hardware settings").map_or(text, |(_, current)| current);
    let value = current.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == label).then(|| value.trim())
    })?;
    // "off [requested on]", and "on  TX: off" of `Adaptive RX: on  TX: off`.
    let word = value.split_ascii_whitespace().next()?;
    (word != "n/a").then(|| word.to_owned())
}

/// Slot, destination port and queue of each rule that `ethtool -n` lists.
fn flow_rules(text: &str) -> impl Iterator<Item = (u32, Option<u16>, Option<u32>)> + '_ {
    text.split("Filter: ").skip(1).filter_map(|rule| {
        let slot = rule.lines().next()?.trim().parse().ok()?;
        let value = |label: &str| {
            let line = rule.lines().find_map(|line| line.trim().strip_prefix(label))?;
            line.split_ascii_whitespace().next().map(str::to_owned)
        };
        let port = value("Dest port:").and_then(|port| port.parse().ok());
        let queue = value("Action: Direct to queue").and_then(|queue| queue.parse().ok());
        Some((slot, port, queue))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethtools_tables_are_read() {
        let coalescing = "Coalesce parameters for eth0:\nAdaptive RX: on  TX: off\nstats-block-usecs:\tn/a\nrx-usecs:\t3\n";
        assert_eq!(shown(coalescing, "Adaptive RX").as_deref(), Some("on"));
        assert_eq!(shown(coalescing, "rx-usecs").as_deref(), Some("3"));
        assert_eq!(shown(coalescing, "stats-block-usecs"), None);
        let channels = "Channel parameters for eth0:\nPre-set maximums:\nCombined:\t63\nCurrent hardware settings:\nCombined:\t8\n";
        assert_eq!(shown(channels, "Combined").as_deref(), Some("8"));
        let rules = "4 RX rings available\nTotal 1 rules\n\nFilter: 900\n\tRule Type: TCP over IPv4\n\
                     \tDest port: 10911 mask: 0x0\n\tAction: Direct to queue 3\n";
        assert_eq!(flow_rules(rules).collect::<Vec<_>>(), [(900, Some(10911), Some(3))]);
    }

    #[test]
    fn values_are_compared_as_the_kernel_writes_them() {
        assert!(is_same("00000000,0000000f", "f"));
        assert!(is_same("4096\t131072\t6291456", "4096 131072 6291456"));
        assert!(is_same("0", "0") && is_same("00", "0"));
        assert!(!is_same("1", "0") && !is_same("10", "1"));
    }

    #[test]
    fn a_script_line_is_safe_in_a_shell() {
        let file = |value: &str| script_line(&Place::File("proc/sys/a".into()), value);
        assert_eq!(file("none"), "echo none > /proc/sys/a");
        assert_eq!(file("4096 87380 1"), "echo '4096 87380 1' > /proc/sys/a");
        let rule = Place::FlowRule { nic: "eth0".into(), port: 10911, queue: 2, slot: 900 };
        assert_eq!(
            script_line(&rule, FLOW_RULE_SET),
            "ethtool -N eth0 flow-type tcp4 dst-port 10911 action 2 loc 900"
        );
        assert_eq!(script_line(&rule, FLOW_RULE_ABSENT), "ethtool -N eth0 delete 900");
    }
}
