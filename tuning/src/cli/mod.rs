//! The command line of `apogee-tune`.

mod commands;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use apogee_tuning::{Goal, JOURNAL_PATH};
use clap::{Args, Parser, Subcommand};

/// What `check` ends with when something is not as wanted.
const NOT_AS_WANTED: u8 = 1;
/// What every command ends with when it could not be carried out.
const FAILED: u8 = 2;

#[derive(Parser)]
#[command(
    name = "apogee-tune",
    version,
    about = "Measures this machine, gives each core a profile, checks and sets its knobs, and takes every change back"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what there is: cpus, memory, interfaces, disk, kernel.
    Probe {
        #[command(flatten)]
        data: Data,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Measure the disk of a directory as the log uses it.
    Disk {
        /// Directory on the disk; two files are written in it and removed.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Seconds per row of the table.
        #[arg(long, default_value_t = 1.0, value_parser = seconds)]
        seconds: f64,
        /// Size of each of the two files.
        #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(32..=65_536))]
        file_mib: u64,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Also write what was measured, for `profile --disk`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Measure round trips over loopback, or to a peer.
    Net {
        /// Echo for others at this address, until stopped.
        #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["peer", "json"])]
        serve: Option<SocketAddr>,
        /// Where another `apogee-tune net --serve` listens. Default: a thread of this process.
        #[arg(long, value_name = "ADDRESS")]
        peer: Option<SocketAddr>,
        /// Seconds per figure.
        #[arg(long, default_value_t = 2.0, value_parser = seconds)]
        seconds: f64,
        #[arg(long)]
        json: bool,
    },
    /// Derive the profile: which cpu does what, how memory is divided, how deep the disk is written.
    Profile {
        #[command(flatten)]
        machine: MachineArgs,
        /// Where to write it. Default: shown only.
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Compare every knob with what it should be. Ends with 0 if all are, 1 if not, 2 if it failed.
    Check {
        #[command(flatten)]
        machine: MachineArgs,
        #[command(flatten)]
        only: Only,
        /// Show what is right, too.
        #[arg(long)]
        all: bool,
        #[arg(long)]
        json: bool,
    },
    /// Set the knobs that `check` would set; every old value is journalled first.
    Apply {
        #[command(flatten)]
        machine: MachineArgs,
        #[command(flatten)]
        only: Only,
        #[command(flatten)]
        journal: JournalArgs,
        /// Only show what would be changed.
        #[arg(long, conflicts_with = "script")]
        dry_run: bool,
        /// Print a shell script that makes the changes, and takes them back, instead.
        #[arg(long)]
        script: bool,
    },
    /// Take back every change that `apply` made, newest first.
    Undo {
        #[command(flatten)]
        journal: JournalArgs,
        /// Also those that somebody else has changed since.
        #[arg(long)]
        force: bool,
    },
    /// Measure each knob with and without, in turns; keep those that help, undo the rest.
    Verify {
        #[command(flatten)]
        machine: MachineArgs,
        #[command(flatten)]
        only: Only,
        #[command(flatten)]
        journal: JournalArgs,
        /// Pairs of rounds for each knob, 5 and more.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(5..=1000))]
        pairs: u32,
        /// Seconds of each round of the built-in measurements.
        #[arg(long, default_value_t = 3.0, value_parser = seconds)]
        seconds: f64,
        /// Measure by this command instead, which prints JSON or writes it to the file that {json} stands for, such as
        /// "apogee-loadgen run --rate 5000 --duration 5s --json {json}"; split at blanks.
        #[arg(long, value_name = "COMMAND", requires = "figure")]
        measure: Option<String>,
        /// Where in that JSON the figure stands, less being better: a pointer such as /publish/p999_us.
        #[arg(long, value_name = "POINTER", requires = "measure")]
        figure: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Data {
    /// Data directory whose file system and disk to look at; it need not exist yet.
    #[arg(long, value_name = "DIR", default_value = "./apogee-data")]
    data: PathBuf,
}

/// What the machine is to be good for.
#[derive(Args)]
struct MachineArgs {
    #[command(flatten)]
    data: Data,
    /// A profile that `profile --out` wrote. Default: derived anew.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["goal", "shards", "disk", "base_port"])]
    profile: Option<PathBuf>,
    /// Default: vm on a virtual machine, else latency.
    #[arg(long)]
    goal: Option<Goal>,
    /// Shards of the broker. Default: as many as the goal gives.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    shards: Option<u16>,
    /// Port of shard 0.
    #[arg(long, default_value_t = 10911)]
    base_port: u16,
    /// What `disk --out` wrote.
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
}

#[derive(Args)]
struct Only {
    /// These knobs only, by their names as `check --all` shows them, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "KNOB,…")]
    only: Vec<String>,
}

#[derive(Args)]
struct JournalArgs {
    /// Where old values are kept.
    #[arg(long, value_name = "FILE", default_value = JOURNAL_PATH)]
    journal: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.001 to 3600".to_owned()),
    }
}

pub(crate) fn run() -> ExitCode {
    match commands::run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_AS_WANTED),
        Err(error) => {
            eprintln!("apogee-tune: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
