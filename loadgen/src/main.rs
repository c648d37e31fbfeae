//! `apogee-loadgen`: see `apogee-loadgen --help`.

use std::process::ExitCode;

use apogee_loadgen::cli::{Cli, Outcome};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The run worked, but messages were lost, duplicated or corrupted, or none was acknowledged.
const EXIT_FAULTY: u8 = 1;
/// There is no result.
const EXIT_ERROR: u8 = 2;
/// The run worked, but the generator was the bottleneck: its figures say nothing of the broker.
const EXIT_NO_VERDICT: u8 = 3;

fn main() -> ExitCode {
    apogee_loadgen::driver::early_init();
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match cli.execute() {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Faulty) => ExitCode::from(EXIT_FAULTY),
        Ok(Outcome::NoVerdict) => ExitCode::from(EXIT_NO_VERDICT),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}
