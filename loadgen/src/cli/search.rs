use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use super::flags::ScenarioArgs;
use super::output::{Output, stop_on_ctrl_c};
use crate::progress;
use crate::schedule::RATE_MAX;
use crate::search::{self, Bound, HOLD_MAX, Measure, Percentile, Plan, Told};

/// Without `--to`: beyond what any broker has borne.
const HIGHEST_DEFAULT: u64 = 100_000_000;
const FIRST_DEFAULT: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// The 99.9th percentile has to stay below this, like 5ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, required_unless_present = "below", conflicts_with = "below")]
    p999_below: Option<Duration>,
    /// The percentile of --percentile has to stay below this
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "percentile")]
    below: Option<Duration>,
    /// p50, p90, p99, p99.9, p99.99 or p99.999
    #[arg(long, conflicts_with = "p999_below")]
    percentile: Option<Percentile>,
    /// Which latency is meant
    #[arg(long, value_enum, default_value_t)]
    of: Measure,
    /// Rate to begin with, and the lowest that is tried [default: what has samples enough in the hold time]
    #[arg(long, value_name = "RATE")]
    from: Option<u64>,
    /// Highest rate that is tried
    #[arg(long, value_name = "RATE", default_value_t = HIGHEST_DEFAULT)]
    to: u64,
    /// How long each rate is held after its warm-up; longer where the percentile needs more samples
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    hold: Duration,
    /// Most probes
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Attempts at a rate near the border, of which the majority decides
    #[arg(long, default_value_t = 3)]
    attempts: u32,
    /// Done when a rate higher by this part has failed
    #[arg(long, default_value_t = 0.05)]
    precision: f64,
    /// Also write the result and every probe to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    scenario: ScenarioArgs,
}

impl SearchArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        let json = Output::create(self.json.as_deref())?;
        let below = self.p999_below.or(self.below).expect("clap asks for one of them");
        let percentile = self.percentile.unwrap_or(Percentile::P999);
        let bound = Bound { measure: self.of, percentile, below };
        let first =
            self.from.unwrap_or_else(|| percentile.lowest_rate(self.hold).max(FIRST_DEFAULT).min(self.to));
        let plan = Plan {
            first,
            lowest: self.from.unwrap_or_else(|| percentile.lowest_rate(HOLD_MAX).min(first)),
            highest: self.to.min(RATE_MAX),
            precision: self.precision,
            attempts: self.attempts,
            rounds: self.rounds,
        };
        self.scenario.refuse_rate("a search chooses its rates (--from, --to)")?;
        let scenario = self.scenario.resolve()?;
        eprintln!(
            "highest rate with {bound}, each held for {:?} or longer (Ctrl-C ends it early)",
            self.hold
        );
        let stop = stop_on_ctrl_c()?;
        let (mut observer, mut line) = (progress::on_terminal(), |line: &str| eprintln!("{line}"));
        let told = &mut Told { observer: &mut *observer, line: &mut line };
        let report = search::search(&scenario, bound, plan, self.hold, &stop, told)?;
        print!("{}", report.text());
        json.write_json(&report)?;
        Ok(if report.conclusion.rate.is_some() { Outcome::Good } else { Outcome::Faulty })
    }
}
