//! Which state of a broker's configuration somebody has seen.

use super::fastjson::body;

body! {
    /// Two configurations are the same if all three members are (`DataVersion#equals`).
    #[derive(Copy, Eq)]
    pub struct DataVersion {
        /// Changes so far.
        "counter" => counter: i64,
        /// Epoch of the election that made the broker master; 0 without elections, absent before 5.0.
        "stateVersion" => state_version: i64,
        /// Time of the last change, milliseconds since 1970.
        "timestamp" => timestamp: i64,
    }
}

impl DataVersion {
    /// The version after one more change (`DataVersion#nextVersion`).
    #[must_use]
    pub fn next(self, now_ms: i64) -> Self {
        Self { counter: self.counter + 1, timestamp: now_ms, ..self }
    }
}
