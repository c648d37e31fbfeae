//! When each message of a run is due, and for which stream: fixed before the first one is sent.
//!
//! An open-loop run asks "how long does a message take that was wanted at time t", whatever became of the
//! messages before it. So the plan is a pure function of its parameters: it is never slowed down by late
//! replies, and dividing it among threads moves no message in time.
//!
//! ```text
//! arrival        0    1    2    3    4    5    6   …      due(i) from the arrival process
//! stream (of 3)  0    1    2    0    1    2    0   …      i mod streams: every queue gets the same rate
//! thread A       •         •    •         •    •   …      owns streams 0 and 2
//! thread B            •              •             …      owns stream 1
//! ```
//!
//! Poisson arrivals are the exception: each stream has a process of its own, which together make one of the whole
//! rate, and a thread draws only those of its streams.

mod bursts;
mod pieces;
mod plan;
mod poisson;
mod share;
mod trace;

pub use self::plan::{MESSAGES_MAX, RATE_MAX, Schedule, ScheduleError};
pub use self::share::{Planned, Share, StreamId};
pub use self::trace::{ARRIVALS_MAX, TraceError};

#[cfg(test)]
mod tests;
