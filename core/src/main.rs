use clap::Parser;

use apogee::cli::{self, Cli};
use apogee::node;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    node::prepare_process();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("apogee: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
