//! What a layer above makes of its control records.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::types::LogOffset;

/// State that follows from the control records of a log alone. The log never looks into it; whoever had it made on
/// another thread takes it back by its own type, as [`Any`].
pub trait DerivedState: Any {
    /// Replaces the state by what [`encode`](DerivedState::encode) once gave.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;

    /// Adds the control record at `at`. Called in the order of the log, once for each.
    fn apply(&mut self, at: LogOffset, control_record: &[u8]) -> Result<(), String>;

    fn encode(&self) -> Vec<u8>;
}

/// No state: of a log whose control records mean nothing to whoever opens it.
impl DerivedState for () {
    fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _at: LogOffset, _control_record: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Makes the state of an empty log, on whatever thread a job runs.
pub type NewState = Arc<dyn Fn() -> Box<dyn DerivedState + Send> + Send + Sync>;

impl fmt::Debug for dyn DerivedState + Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedState")
    }
}

/// The control records as they come, for tests.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Seen(pub(crate) Vec<Vec<u8>>);

#[cfg(test)]
impl DerivedState for Seen {
    fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        unreachable!("there is no snapshot")
    }

    fn apply(&mut self, _at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        self.0.push(control_record.to_vec());
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
}
