//! Messages for later: delay levels, timers, and what happens when their time has come.
//!
//! See the README of this folder.

mod copy;
mod deliver_levels;
mod deliver_timers;
mod levels;
mod machine;
mod recall;
mod record;
mod stage;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub use levels::{DEFAULT_DELAY_LEVELS, DELAY_LEVELS_MAX, DelayLevel, DelayLevels, DelayLevelsError};
pub(super) use machine::Timers;
pub use record::{TimerId, TimerPut, TimerRecord};
pub(super) use stage::Delay;
pub use stage::{TIMER_DELAY_SEC, TimerSettings};
pub use table::{TIMERS_MAX, TimerTable};
