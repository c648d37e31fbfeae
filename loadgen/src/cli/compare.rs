use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::Outcome;
use super::flags::ScenarioArgs;
use super::formats::read_report;
use super::output::{Output, stop_on_ctrl_c};
use crate::compare::{self, Comparison, ROUNDS_MIN, Run, Side, Turn};
use crate::driver::run::{self, RunError};
use crate::progress;
use crate::report::Report;
use crate::scenario::Scenario;

/// Either runs that were saved with --json, or two NameServers between which runs take turns: A B B A A B ...
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Saved reports of A
    #[arg(value_name = "A.json", requires = "against", conflicts_with_all = ["a", "b"])]
    saved: Vec<PathBuf>,
    /// Saved reports of B
    #[arg(long, value_name = "B.json", num_args = 1.., requires = "saved")]
    against: Vec<PathBuf>,
    /// NameServers of A, host:port, several separated by ';'
    #[arg(long, value_name = "NAMESRV", value_delimiter = ';', requires = "b")]
    a: Vec<String>,
    /// NameServers of B
    #[arg(long, value_name = "NAMESRV", value_delimiter = ';', requires = "a")]
    b: Vec<String>,
    /// Runs of each side
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How the sides are called, like Apogee,RocketMQ
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1, default_value = "A,B")]
    names: Vec<String>,
    /// Also save the report of every run in this folder, to be compared again
    #[arg(long, value_name = "FOLDER", requires = "a")]
    save: Option<PathBuf>,
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// Also write the comparison to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write a page for the browser to this file, with the spectra of all runs laid over each other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl CompareArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        let [a_name, b_name] = &self.names[..] else { bail!("--names wants two, separated by a comma") };
        let (json, html) = (Output::create(self.json.as_deref())?, Output::create(self.html.as_deref())?);
        let (mut a, mut b) =
            (Side { name: a_name.clone(), runs: vec![] }, Side { name: b_name.clone(), runs: vec![] });
        if self.a.is_empty() {
            if self.saved.is_empty() {
                bail!(
                    "nothing to compare: name saved reports (A.json ... --against B.json ...) or --a and --b"
                );
            }
            a.runs = self.saved.iter().map(|path| saved(path)).collect::<anyhow::Result<_>>()?;
            b.runs = self.against.iter().map(|path| saved(path)).collect::<anyhow::Result<_>>()?;
        } else {
            self.take_turns(&mut a, &mut b)?;
        }
        let comparison = Comparison::of(&a, &b);
        print!("{}", comparison.text());
        json.write_json(&comparison)?;
        html.write(|| comparison.html())?;
        let is_faulty = |side: &Side| side.runs.iter().any(|run| !run.report.faults.is_empty());
        Ok(if is_faulty(&a) || is_faulty(&b) { Outcome::Faulty } else { Outcome::Good })
    }

    fn take_turns(&self, a: &mut Side, b: &mut Side) -> anyhow::Result<()> {
        if self.rounds < ROUNDS_MIN {
            eprintln!("with fewer than {ROUNDS_MIN} rounds no verdict is possible");
        }
        if let Some(folder) = &self.save {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let scenario = self.scenario.clone().resolve()?;
        let stop = stop_on_ctrl_c()?;
        for turn in compare::turns(self.rounds) {
            let (side, letter, namesrv) = match turn {
                Turn::A => (&mut *a, "a", &self.a),
                Turn::B => (&mut *b, "b", &self.b),
            };
            let number = side.runs.len() + 1;
            eprintln!(
                "{}, run {number} of {} (Ctrl-C ends it, and compares what there is)",
                side.name, self.rounds
            );
            let mut scenario: Scenario = scenario.clone();
            scenario.target.namesrv.clone_from(namesrv);
            let report = match run::run(&scenario, &stop, &mut *progress::for_stderr()) {
                Err(RunError::Interrupted) if number > 1 => break,
                result => result.with_context(|| format!("{}, run {number}", side.name))?,
            };
            if let Some(folder) = &self.save {
                save(&folder.join(format!("{letter}{number}.json")), &report)?;
            }
            side.runs.push(Run { label: format!("run {number}"), report });
            if stop.is_set() {
                break;
            }
        }
        Ok(())
    }
}

fn saved(path: &Path) -> anyhow::Result<Run> {
    Ok(Run { label: path.display().to_string(), report: read_report(path)? })
}

fn save(path: &Path, report: &Report) -> anyhow::Result<()> {
    Output::create(Some(path))?.write_json(report)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn parse(line: &str) -> Result<CompareArgs, clap::Error> {
        Line::try_parse_from(["compare"].into_iter().chain(line.split_whitespace())).map(|line| line.args)
    }

    #[test]
    fn saved_runs_and_live_ones_are_two_forms() {
        let saved =
            parse("a1.json a2.json --against b1.json b2.json b3.json --names Apogee,RocketMQ").unwrap();
        assert_eq!((saved.saved.len(), saved.against.len(), saved.a.len()), (2, 3, 0));
        assert_eq!(saved.names, ["Apogee", "RocketMQ"]);
        let live = parse("--a one:9876;two:9876 --b three:9876 --rate 500 --rounds 7").unwrap();
        assert_eq!((live.a.len(), live.b.len(), live.rounds), (2, 1, 7));
        for half in ["--a one:9876", "a.json", "a.json --against b.json --a one:1 --b two:2", "--save x"] {
            assert!(parse(half).is_err(), "{half}");
        }
        assert!(parse("").unwrap().execute().unwrap_err().to_string().starts_with("nothing to compare"));
    }
}
