use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::Outcome;
use super::flags::ScenarioArgs;
use super::output::{Output, stop_on_ctrl_c};
use crate::progress;
use crate::search::{self, Measure, POINTS_MAX, Told, rates_up_to};

#[derive(Debug, Args)]
pub(super) struct CurveArgs {
    /// Rates to run, separated by commas; without them, equal steps up to the throughput of a closed loop
    #[arg(long, value_name = "RATES", value_delimiter = ',')]
    rates: Vec<u64>,
    /// Number of those steps
    #[arg(long, default_value_t = 10, conflicts_with = "rates")]
    points: usize,
    /// Requests which that closed loop keeps in flight on each connection
    #[arg(long, default_value_t = 256, conflicts_with = "rates")]
    depth: u32,
    /// Which latency is shown
    #[arg(long, value_enum, default_value_t)]
    of: Measure,
    /// Also write the points to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// … as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// … as a page with a chart, one file that works offline
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    scenario: ScenarioArgs,
}

impl CurveArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        let [json, csv, html] =
            [&self.json, &self.csv, &self.html].map(|path| Output::create(path.as_deref()));
        let (json, csv, html) = (json?, csv?, html?);
        if !(1..=POINTS_MAX).contains(&self.points) || self.rates.len() > POINTS_MAX {
            bail!("a curve has 1 to {POINTS_MAX} points");
        }
        self.scenario.refuse_rate("a curve runs several (--rates, --points)")?;
        let scenario = self.scenario.resolve()?;
        let stop = stop_on_ctrl_c()?;
        let (mut observer, mut line) = (progress::on_terminal(), |line: &str| eprintln!("{line}"));
        let told = &mut Told { observer: &mut *observer, line: &mut line };
        let (rates, saturation) = if self.rates.is_empty() {
            eprintln!("how much a closed loop gets through, {} in flight per connection …", self.depth);
            let Some(saturation) = search::saturation(&scenario, self.depth, &stop, told.observer)? else {
                bail!("interrupted before the first point");
            };
            (rates_up_to(saturation, self.points), Some(saturation))
        } else {
            (self.rates, None)
        };
        let report = search::curve(&scenario, self.of, rates, saturation, &stop, told)?;
        print!("{}", report.text());
        json.write_json(&report)?;
        csv.write(|| report.csv())?;
        html.write(|| report.html())?;
        let is_empty = report.points.iter().all(|point| point.latency.count == 0);
        Ok(if is_empty { Outcome::Faulty } else { Outcome::Good })
    }
}
