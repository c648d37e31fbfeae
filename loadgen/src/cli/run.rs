use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::flags::ScenarioArgs;
use super::formats::Formats;
use super::output::{Output, stop_on_ctrl_c};
use crate::driver::run;
use crate::progress;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// Print the scenario as it would be run, as TOML, and run nothing
    #[arg(long, help_heading = "Scenario")]
    print_scenario: bool,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    formats: Formats,
}

impl RunArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        let scenario = self.scenario.resolve()?;
        if self.print_scenario {
            print!("{}", scenario.to_toml());
            return Ok(Outcome::Good);
        }
        let json = Output::create(self.json.as_deref())?;
        self.formats.check()?;
        eprintln!(
            "{}, {}, {:?} after {:?} of warm-up (Ctrl-C ends it early)",
            scenario.load, scenario.messages.size, scenario.run.duration, scenario.run.warmup
        );
        let report = run::run(&scenario, &stop_on_ctrl_c()?, &mut *progress::for_stderr())?;
        print!("{}", report.text());
        json.write_json(&report)?;
        self.formats.write(&report)?;
        let no_verdict = report.scheduling.verdict.generator_was_the_bottleneck;
        Ok(match report.faults.is_empty() {
            false => Outcome::Faulty,
            true if no_verdict => Outcome::NoVerdict,
            true => Outcome::Good,
        })
    }
}
