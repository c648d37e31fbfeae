//! What acts: executors, connections and timers. Everything decided here is decided elsewhere, in plain code.

mod books;
mod consume;
mod link;
mod processes;
mod produce;
mod runtime;
mod setup;
mod stages;
mod watch;
mod worker;

pub mod floor;
pub mod run;

pub use runtime::{allowed_cpus, early_init};
pub use setup::SetupError;
