//! The programs that fetch peers from package registries.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Attempts at a step that talks to a registry.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(3);

/// Lines of a tool's output that an error quotes.
const QUOTED_LINES: usize = 12;

/// Why a peer cannot be had on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// The first of the tools that does not answer to `-version`.
pub fn first_missing<'a>(tools: &[&'a str]) -> Option<&'a str> {
    tools.iter().copied().find(|tool| {
        let mut command = Command::new(tool);
        command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_err()
    })
}

/// Runs a step until it succeeds, a few times; registries have bad moments.
pub fn run_with_retries(what: &str, command: &mut Command) -> Result<(), Missing> {
    command.stdin(Stdio::null());
    let mut failure = String::new();
    for attempt in 1..=TRIES {
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                failure = format!("{}: {}", output.status, last_lines(&String::from_utf8_lossy(&text)));
            }
            // The tool is not there; trying again does not bring it.
            Err(error) => {
                let program = command.get_program().display();
                return Err(Missing(format!("{what}: cannot run {program}: {error}")));
            }
        }
        if attempt < TRIES {
            pause(PAUSE);
        }
    }
    Err(Missing(format!("{what} failed {TRIES} times; {failure}")))
}

/// The first line a tool prints when asked for its version.
pub fn version_line(program: impl AsRef<OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    // Java says it on the error stream.
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// Sleeps. Nothing else runs on the threads that start programs.
#[expect(clippy::disallowed_methods, reason = "no shard runs on this thread")]
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_there_is_named_at_once() {
        assert_eq!(first_missing(&["sh", "no-such-tool-here"]), Some("no-such-tool-here"));
        let missing = run_with_retries("fetching", &mut Command::new("no-such-tool-here")).unwrap_err();
        assert!(missing.0.starts_with("fetching: cannot run no-such-tool-here: "), "{missing}");
    }

    #[test]
    fn the_end_of_the_output_is_quoted() {
        let text = (0..20).map(|n| format!("line {n}\n\n")).collect::<String>();
        let quoted = last_lines(&text);
        assert!(quoted.starts_with("line 8\n") && quoted.ends_with("line 19"), "{quoted}");
    }
}
