//! Apogee: a program that was built before.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::broker::Place;
use super::peer::Flush;
use super::process::Launch;
use super::tools::{self, Missing};

/// As RocketMQ's commit log files: both change files equally often.
const SEGMENT_MIB: &str = "1024";

/// Apogee on this machine.
#[derive(Clone, Debug)]
pub struct Apogee {
    pub version: String,
    program: PathBuf,
}

impl Apogee {
    pub fn obtain(program: &Path) -> Result<Apogee, Missing> {
        let program = std::path::absolute(program).map_err(|error| Missing(error.to_string()))?;
        let version = tools::version_line(&program, "--version").ok_or_else(|| {
            Missing(format!(
                "there is no program {}; `cargo build --release -p apogee` makes it",
                program.display()
            ))
        })?;
        let version = version.strip_prefix("apogee ").unwrap_or(&version).to_owned();
        Ok(Apogee { version, program })
    }

    /// One program is NameServer and broker, with a shard on each CPU.
    pub fn prepare(&self, flush: Flush, place: &Place) -> Vec<Launch> {
        let cpus: Vec<_> = place.cpus.iter().map(usize::to_string).collect();
        let flush = match flush {
            Flush::Sync => "sync",
            Flush::Async => "async",
        };
        let args = [
            "standalone",
            "--data",
            "data",
            "--cores",
            &cpus.join(","),
            "--segment-mib",
            SEGMENT_MIB,
            "--durability",
            flush,
            "--namesrv-port",
            &place.ports.namesrv.to_string(),
            "--base-port",
            &place.ports.broker.to_string(),
        ]
        .map(OsString::from);
        vec![Launch {
            role: "broker",
            program: self.program.clone().into_os_string(),
            args: args.to_vec(),
            env: vec![],
            folder: place.folder.clone(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::broker::Ports;

    #[test]
    fn it_is_told_its_cpus_ports_and_durability() {
        let apogee = Apogee { version: String::new(), program: "/bin/apogee".into() };
        let place = Place {
            folder: "/data/run".into(),
            ports: Ports::from_base(21_000).unwrap(),
            cpus: vec![0, 2],
            memory_bytes: 0,
        };
        let line = apogee.prepare(Flush::Sync, &place)[0].line();
        let end = "--cores 0,2 --segment-mib 1024 --durability sync --namesrv-port 21000 --base-port 21010";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_program_that_is_not_there_is_missing_with_a_hint() {
        let missing = Apogee::obtain(Path::new("/nowhere/apogee")).unwrap_err();
        assert!(missing.0.contains("/nowhere/apogee") && missing.0.contains("cargo build"), "{missing}");
    }
}
