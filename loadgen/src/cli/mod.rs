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
    /// No message went astray, but the generator's own error is not small against what it reports.
    NoVerdict,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::scenario::keys::KEYS;

    fn help(subcommand: &str) -> String {
        let mut command = Cli::command();
        command.find_subcommand_mut(subcommand).expect(subcommand).render_help().to_string()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_that_a_key_has_is_in_the_help_of_all_that_take_a_scenario() {
        for subcommand in ["run", "search", "curve"] {
            let help = help(subcommand);
            let named =
                |flag: &str| help.split_whitespace().any(|word| word.trim_end_matches([',', '.']) == flag);
            for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
                assert!(named(key.flag), "{subcommand} --help lacks {} of {}", key.flag, key.path);
            }
            for flag in ["--scenario", "--set", "--constant", "--poisson", "--tls", "--json"] {
                assert!(named(flag), "{subcommand} --help lacks {flag}");
            }
        }
    }

    #[test]
    fn the_documents_name_every_subcommand_scenario_and_key() {
        let readme = include_str!("../../README.md");
        for subcommand in Cli::command().get_subcommands() {
            let name = format!("`{}`", subcommand.get_name());
            assert!(readme.contains(&name), "README.md lacks {name}");
        }
        let table = crate::scenario::keys::markdown();
        let page = include_str!("../../docs/scenario.md");
        assert!(
            page.contains(&table),
            "docs/scenario.md: replace its table by `apogee-loadgen scenario keys`"
        );
        for name in crate::scenario::library::names() {
            assert!(readme.contains(&format!("`{name}`")), "README.md lacks the scenario {name}");
        }
    }

    #[test]
    fn a_search_needs_a_bound() {
        let parse = |line: &str| {
            Cli::try_parse_from(["apogee-loadgen"].into_iter().chain(line.split_whitespace())).map(|_| ())
        };
        assert!(parse("search").is_err());
        assert!(parse("search --below 5ms").is_err());
        assert!(parse("search --p999-below 5ms --percentile p99").is_err());
        for line in ["search --p999-below 5ms", "search --below 5ms --percentile p99.99 --of e2e --rate 5"] {
            parse(line).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
