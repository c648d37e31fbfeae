use clap::Parser;

use apogee::cli::{self, Cli};
use apogee::node;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    node::prepare_process();
    match cli::run(cli) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("apogee: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
