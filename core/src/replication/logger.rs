//! What raft logs, into our own logging: its warnings for people, the rest for those who look for a fault.

use slog::{Drain, Level, Logger, OwnedKVList, Record, o};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("raft: {}", record.msg()),
            Level::Warning => tracing::warn!("raft: {}", record.msg()),
            Level::Info => tracing::debug!("raft: {}", record.msg()),
            Level::Debug | Level::Trace => tracing::trace!("raft: {}", record.msg()),
        }
        Ok(())
    }
}

pub(super) fn raft_logger() -> Logger {
    Logger::root(ToTracing, o!())
}
