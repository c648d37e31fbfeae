//! `apogee-tune`: prints what Apogee sees of this machine.

use std::path::PathBuf;

use apogee_tuning::{Facts, Roots};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "apogee-tune", version, about = "The machine as Apogee sees it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the facts that the broker prints at start.
    Probe {
        /// Data directory whose file system and disk to look at; it need not exist yet.
        #[arg(long, value_name = "DIR", default_value = "./apogee-data")]
        data: PathBuf,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Probe { data, json } => {
            let facts = Facts::collect(&Roots::machine(), &data)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&facts)?);
            } else {
                println!("{facts}");
            }
        }
    }
    Ok(())
}
