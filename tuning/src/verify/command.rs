//! Somebody else's measurement as a probe: a command that prints JSON, or writes it to a file, as
//! `apogee-loadgen run … --json {json}` does.

use std::process::{Command, Stdio};

use super::{Probe, ProbeError};

/// Stands for the file that the command writes; without it what it prints is read.
const FILE: &str = "{json}";

/// A command, and where in what it prints the figure stands.
#[derive(Debug, Clone)]
pub struct CommandProbe {
    words: Vec<String>,
    pointer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("no command is given")]
    Empty,
    #[error("{0:?} is no place in a JSON document: expected a pointer such as /publish/p999_us")]
    Pointer(String),
}

impl CommandProbe {
    /// `command` is split at blanks, and runs without a shell; `{json}` in it becomes the name of a file that is read
    /// afterwards. `pointer` is a JSON pointer (RFC 6901).
    pub fn new(command: &str, pointer: &str) -> Result<Self, CommandError> {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(CommandError::Empty);
        }
        if !pointer.starts_with('/') {
            return Err(CommandError::Pointer(pointer.to_owned()));
        }
        Ok(CommandProbe { words, pointer: pointer.to_owned() })
    }
}

impl Probe for CommandProbe {
    fn name(&self) -> String {
        format!("{} of `{}`", self.pointer, self.words.join(" "))
    }

    fn round(&mut self) -> Result<f64, ProbeError> {
        let failed = |reason: String| ProbeError { probe: self.name(), reason };
        let file = std::env::temp_dir().join(format!("apogee-tune-{}.json", std::process::id()));
        let name = file.to_string_lossy();
        let words: Vec<String> = self.words.iter().map(|word| word.replace(FILE, &name)).collect();
        let output = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        // A load generator that gives no verdict says so by its exit code, and prints its figures all the same.
        let bytes = if words == self.words {
            output.stdout
        } else {
            let bytes = std::fs::read(&file);
            // One that stays is written over by the next round.
            let _ = std::fs::remove_file(&file);
            bytes.map_err(|error| failed(format!("{}; it wrote no {name}: {error}", output.status)))?
        };
        let report: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("{}; what it gave is no JSON: {error}", output.status)))?;
        let figure = report.pointer(&self.pointer).and_then(serde_json::Value::as_f64);
        figure
            .filter(|figure| *figure > 0.0)
            .ok_or_else(|| failed(format!("it gave no number above 0 at {}", self.pointer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_pointer() {
        let mut probe = CommandProbe::new("echo {\"publish\":{\"p999\":12.5}}", "/publish/p999").unwrap();
        assert_eq!(probe.round().unwrap(), 12.5);
        let mut probe = CommandProbe::new("echo {}", "/publish/p999").unwrap();
        assert!(probe.round().unwrap_err().to_string().contains("/publish/p999"));
        let mut probe = CommandProbe::new("cp /proc/self/nothing {json}", "/a").unwrap();
        assert!(probe.round().unwrap_err().to_string().contains("wrote no"));
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made.json");
        std::fs::write(&made, "{\"a\": 3}").unwrap();
        let mut probe = CommandProbe::new(&format!("cp {} {{json}}", made.display()), "/a").unwrap();
        assert_eq!(probe.round().unwrap(), 3.0);
        assert_eq!(CommandProbe::new(" ", "/a").unwrap_err(), CommandError::Empty);
        assert_eq!(CommandProbe::new("a", "b").unwrap_err(), CommandError::Pointer("b".into()));
    }
}
