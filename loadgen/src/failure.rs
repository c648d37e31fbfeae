//! What went wrong with messages and pulls, counted by kind; nothing goes wrong silently.

use std::collections::BTreeMap;
use std::fmt;

use apogee_net::client::CallError;
use apogee_net::code::ResponseCode;
use serde::{Deserialize, Serialize};

/// Kinds told apart in one table. Codes come from the broker, so their number is its choice; further ones are
/// counted together as `Failure::Other`.
pub const KINDS_MAX: usize = 64;

/// Longest remark kept as an example, in characters.
const REMARK_CHARS_MAX: usize = 200;

/// Why a planned message was not acknowledged, or a pull brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The broker answered with this code. 10, 11 and 12 mean "stored, but", hence stand beside an acknowledgement.
    Answered(ResponseCode),
    /// No reply in time; the message may or may not be stored.
    TimedOut,
    /// The connection broke while the reply was awaited; the message may or may not be stored.
    Disconnected,
    /// Due while there was no connection to its broker: not sent.
    NotConnected,
    /// Due while as many messages were in flight as the generator allows: not sent.
    InFlightLimit,
    /// The connection would not take the request: too much is unanswered, or it does not fit a frame.
    NotTaken,
    /// The reply could not be understood.
    Malformed,
    /// Kinds beyond `KINDS_MAX`.
    Other,
}

impl Failure {
    /// Whether the broker stored the message all the same; RocketMQ's clients count these three as sent.
    /// Source: `MQClientAPIImpl#processSendResponse`.
    pub fn is_stored(self) -> bool {
        matches!(
            self,
            Failure::Answered(
                ResponseCode::FLUSH_DISK_TIMEOUT
                    | ResponseCode::SLAVE_NOT_AVAILABLE
                    | ResponseCode::FLUSH_SLAVE_TIMEOUT
            )
        )
    }
}

impl Failure {
    /// Whether stock producers try another broker after it. Not after a time-out: that was all the time there is.
    /// Source: `DefaultMQProducerImpl#sendDefaultImpl`, `DefaultMQProducer#retryResponseCodes`.
    pub fn is_for_another_broker(self) -> bool {
        match self {
            Failure::Disconnected | Failure::NotConnected => true,
            Failure::Answered(code) => matches!(
                code,
                ResponseCode::TOPIC_NOT_EXIST
                    | ResponseCode::SERVICE_NOT_AVAILABLE
                    | ResponseCode::SYSTEM_ERROR
                    | ResponseCode::SYSTEM_BUSY
                    | ResponseCode::NO_PERMISSION
            ),
            _ => false,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Timeout(_) => Failure::TimedOut,
            CallError::Closed => Failure::Disconnected,
            CallError::TooManyPending | CallError::TooLarge(_) => Failure::NotTaken,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Answered(code) => code.fmt(f),
            Failure::TimedOut => f.write_str("timed out"),
            Failure::Disconnected => f.write_str("disconnected"),
            Failure::NotConnected => f.write_str("not connected"),
            Failure::InFlightLimit => f.write_str("in-flight limit"),
            Failure::NotTaken => f.write_str("not taken by the connection"),
            Failure::Malformed => f.write_str("malformed reply"),
            Failure::Other => f.write_str("other"),
        }
    }
}

/// One kind's count, with the first remark that came with it as an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCount {
    pub count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Failures by kind. Tables of several threads merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    kinds: BTreeMap<Failure, FailureCount>,
}

impl Failures {
    pub fn record(&mut self, failure: Failure, remark: Option<&str>) {
        self.add(failure, 1, remark);
    }

    pub fn record_many(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            self.add(failure, count, None);
        }
    }

    pub fn merge(&mut self, other: &Failures) {
        for (failure, counted) in &other.kinds {
            self.add(*failure, counted.count, counted.remark.as_deref());
        }
    }

    pub fn total(&self) -> u64 {
        self.kinds.values().map(|counted| counted.count).sum()
    }

    pub fn count(&self, failure: Failure) -> u64 {
        self.kinds.get(&failure).map_or(0, |counted| counted.count)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Failure, &FailureCount)> {
        self.kinds.iter().map(|(failure, counted)| (*failure, counted))
    }

    fn add(&mut self, failure: Failure, count: u64, remark: Option<&str>) {
        let is_known = self.kinds.contains_key(&failure) || self.kinds.len() < KINDS_MAX - 1;
        let counted = self.kinds.entry(if is_known { failure } else { Failure::Other }).or_default();
        counted.count += count;
        if counted.remark.is_none() {
            counted.remark = remark
                .filter(|remark| !remark.is_empty())
                .map(|remark| remark.chars().take(REMARK_CHARS_MAX).collect());
        }
    }
}

/// Failures as reports have them, and can be read again: by what they are called.
pub type FailuresByName = BTreeMap<String, FailureCount>;

impl Failures {
    pub fn by_name(&self) -> FailuresByName {
        self.kinds.iter().map(|(failure, counted)| (failure.to_string(), counted.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: i32) -> Failure {
        Failure::Answered(ResponseCode(code))
    }

    #[test]
    fn kinds_are_counted_apart_and_keep_their_first_remark() {
        let mut failures = Failures::default();
        failures.record(answered(2), Some("busy"));
        failures.record(answered(2), Some("busier"));
        failures.record(Failure::TimedOut, None);
        let mut sum = failures.clone();
        sum.merge(&failures);
        assert_eq!((sum.count(answered(2)), sum.count(Failure::TimedOut), sum.total()), (4, 2, 6));
        let json = serde_json::to_value(sum.by_name()).unwrap();
        assert_eq!(json["SYSTEM_BUSY (2)"], serde_json::json!({"count": 4, "remark": "busy"}));
        assert_eq!(json["timed out"], serde_json::json!({"count": 2}));
    }

    #[test]
    fn three_codes_mean_stored_and_only_they() {
        let stored: Vec<i32> = (-10..2_000).filter(|code| answered(*code).is_stored()).collect();
        assert_eq!(stored, [10, 11, 12]);
        assert!(!Failure::TimedOut.is_stored());
    }

    #[test]
    fn a_broker_cannot_grow_the_table_without_bound() {
        let mut failures = Failures::default();
        for code in 0..10_000 {
            failures.record(answered(code), Some(&"x".repeat(10_000)));
        }
        assert_eq!(failures.iter().count(), KINDS_MAX);
        assert_eq!(failures.total(), 10_000);
        assert!(
            failures.iter().all(|(_, counted)| counted.remark.as_ref().unwrap().len() <= REMARK_CHARS_MAX)
        );
    }
}
