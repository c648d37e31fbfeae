use clap::{Args, Subcommand};

use super::Outcome;
use crate::scenario::library::{self, READY_MADE};
use crate::scenario::{Scenario, keys};

#[derive(Debug, Args)]
pub(super) struct ScenarioCommand {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Names of the ready-made scenarios, and what they show
    List,
    /// The TOML of a ready-made scenario, to run or to begin one's own with
    Show {
        /// See `list`
        name: String,
    },
    /// All keys of a scenario, with their values and meanings, as a Markdown table
    Keys,
}

impl ScenarioCommand {
    pub(super) fn execute(self) -> anyhow::Result<Outcome> {
        match self.command {
            What::List => {
                for ready_made in READY_MADE {
                    let scenario = Scenario::parse(ready_made.name, ready_made.text)?;
                    print!("{}\n{}", ready_made.name, indented(&scenario.description));
                }
            }
            What::Show { name } => {
                let known = || library::names().join(", ");
                let ready_made = library::find(&name).ok_or_else(|| {
                    anyhow::anyhow!("there is no ready-made scenario '{name}'; there are {}", known())
                })?;
                print!("{}", ready_made.text);
            }
            What::Keys => print!("{}", keys::markdown()),
        }
        Ok(Outcome::Good)
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
