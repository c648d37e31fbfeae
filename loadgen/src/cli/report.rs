use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::Outcome;
use super::formats::{Formats, read_report};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// What `run --json` has written
    report: PathBuf,
    /// Print it as `run` does
    #[arg(long)]
    text: bool,
    #[command(flatten)]
    formats: Formats,
}

impl ReportArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        if self.formats.is_empty() && !self.text {
            bail!("nothing to write: name --text, --html, --hgrm or --hlog");
        }
        let report = read_report(&self.report)?;
        if self.text {
            print!("{}", report.text());
        }
        self.formats.write(&report)?;
        Ok(Outcome::Good)
    }
}
