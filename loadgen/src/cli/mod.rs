//! The command line: one file for each subcommand; what they share beside them.

mod compare;
mod cpus;
mod curve;
mod flags;
mod floor;
mod formats;
mod output;
mod report;
mod run;
mod scenario;
mod search;
mod target;

use clap::{Parser, Subcommand};

/// Measures latency tails of any RocketMQ-compatible broker, and keeps books on every message.
#[derive(Debug, Parser)]
#[command(name = "apogee-loadgen", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send at a planned rate, receive everything back, report latencies and losses
    Run(Box<run::RunArgs>),
    /// Find the highest rate at which a percentile stays below a bound
    Search(Box<search::SearchArgs>),
    /// Measure the latencies at one rate after the other: the rate-latency curve
    Curve(Box<curve::CurveArgs>),
    /// Compare two brokers, several runs each: better, worse, or cannot tell
    Compare(Box<compare::CompareArgs>),
    /// Write a saved report as a page, as .hgrm or as an interval log
    Report(report::ReportArgs),
    /// Measure raw TCP round trips on loopback: the limit that no broker can go below
    Floor(floor::FloorArgs),
    /// The ready-made scenarios and the keys of a scenario file
    Scenario(scenario::ScenarioCommand),
}

/// Whether what was measured is in order; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Faulty,
}

impl Cli {
    /// Does what was asked and prints the result.
    pub fn execute(self) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Run(args) => args.execute(),
            Command::Search(args) => args.execute(),
            Command::Curve(args) => args.execute(),
            Command::Compare(args) => args.execute(),
            Command::Report(args) => args.execute(),
            Command::Floor(args) => args.execute(),
            Command::Scenario(args) => args.execute(),
        }
    }
}
