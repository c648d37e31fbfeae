//! `apogee-tune`: the machine measured, each core given a profile, every change undoable.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
