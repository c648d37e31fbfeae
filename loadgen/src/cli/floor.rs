use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use super::output::Output;
use crate::driver::floor::{self, FloorSettings};

#[derive(Debug, Args)]
pub(super) struct FloorArgs {
    /// Bytes each way
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Round trips under way at once
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Length of the measured part
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Before it, not measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "500ms")]
    warmup: Duration,
    /// CPU of the echoing side
    #[arg(long, value_name = "CPU")]
    pin_server: Option<usize>,
    /// CPU of the asking side
    #[arg(long, value_name = "CPU")]
    pin_client: Option<usize>,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl FloorArgs {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        let json = Output::create(self.json.as_deref())?;
        let report = floor::measure(&FloorSettings {
            size_bytes: self.size,
            depth: self.depth,
            duration: self.duration,
            warmup: self.warmup,
            server_cpu: self.pin_server,
            client_cpu: self.pin_client,
        })?;
        print!("{}", report.text());
        json.write_json(&report)?;
        Ok(Outcome::Good)
    }
}
