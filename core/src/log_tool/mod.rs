//! `apogee log`: looks at the log of a broker without opening it, whole or damaged, in use or not. Changes nothing.
//!
//! `verify` checks everything; `dump` prints batches and records for people. What the bytes mean to the log is
//! storage's [`inspect`](apogee_storage::inspect); what messages and control records say is said here.

mod describe;
mod dump;
mod place;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use place::PlaceError;
pub(crate) use place::{ShardPlace, one_shard};

/// Found as it should be.
const GOOD: u8 = 0;
/// Something is wrong with the log.
const BAD: u8 = 1;
/// Nothing could be looked at; also clap's own for arguments it does not understand.
const USAGE: u8 = 2;

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check every batch, index and snapshot. Exit code 0: all is well; 1: something is not; 2: no log.
    Verify(VerifyArgs),
    /// Print what is in the log of one shard, one line for each batch or record.
    Dump(DumpArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Data directory of a node, directory of a shard, or its log/.
    dir: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DumpArgs {
    /// Directory of a shard, its log/, or the data directory of a node with one shard.
    dir: PathBuf,
    /// Begin at this byte of the log.
    #[arg(long, value_name = "LOG_OFFSET", default_value_t = 0)]
    from: u64,
    /// Messages of one queue only.
    #[arg(long, value_name = "TOPIC:ID", conflicts_with_all = ["control", "batches"])]
    queue: Option<dump::Queue>,
    /// Control records only: changes of topics, groups and offsets.
    #[arg(long, conflicts_with = "batches")]
    control: bool,
    /// Batches instead of records.
    #[arg(long, conflicts_with = "records")]
    batches: bool,
    /// Records; the default.
    #[arg(long)]
    records: bool,
    /// Stop after so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print the bodies of messages too, the first KiB of each.
    #[arg(long, conflicts_with_all = ["batches", "control"])]
    bodies: bool,
}

/// Why there is no finding.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command to its end and tells how it went by the exit code.
pub(crate) fn run(args: LogArgs) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let found = match args.command {
        Command::Verify(args) => verify::run(&args, &mut out),
        Command::Dump(args) => dump::run(&args, &mut out),
    };
    let found = found.and_then(|found| {
        out.flush()?;
        Ok(found)
    });
    match found {
        Ok(code) => code.into(),
        // Whoever reads has seen enough.
        Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => GOOD.into(),
        Err(error) => {
            eprintln!("apogee: {error}");
            USAGE.into()
        }
    }
}
