//! What a client shows to acknowledge a popped message.

use std::fmt;

/// `reviveQid` of ordered pops: nothing of them is revived (`KeyBuilder.POP_ORDER_REVIVE_QUEUE`).
pub const ORDER_REVIVE_QUEUE_ID: i32 = 999;

/// Which topic a popped message lies in, in the letters of receipt handles and offset lists (`ExtraInfoUtil`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryKind {
    /// The topic that was asked for.
    Normal,
    /// `%RETRY%group_topic`
    V1,
    /// `%RETRY%group+topic`
    V2,
}

impl RetryKind {
    pub fn letter(self) -> char {
        match self {
            RetryKind::Normal => '0',
            RetryKind::V1 => '1',
            RetryKind::V2 => '2',
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "0" => Some(RetryKind::Normal),
            "1" => Some(RetryKind::V1),
            "2" => Some(RetryKind::V2),
            _ => None,
        }
    }
}

/// Property `POP_CK` and field `extraInfo`: eight values separated by blanks.
///
/// ```text
/// {start offset} {pop time} {invisible time} {revive queue} {retry} {broker} {queue} {offset}
/// ```
///
/// The start offset is that of the check point: the queue's position when the message was popped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptHandle<'a> {
    pub start_offset: i64,
    pub pop_ms: i64,
    pub invisible_ms: i64,
    pub revive_queue_id: i32,
    pub retry: RetryKind,
    pub broker: &'a str,
    pub queue_id: i32,
    pub offset: i64,
}

/// Java throws out of `ExtraInfoUtil` and answers with code 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("receipt handle {handle:?}: {field} is missing or wrong")]
pub struct ReceiptHandleError {
    handle: String,
    field: &'static str,
}

/// Most of a wrong handle that an error repeats.
const HANDLE_CHARS_MAX: usize = 128;

impl<'a> ReceiptHandle<'a> {
    pub fn parse(text: &'a str) -> Result<Self, ReceiptHandleError> {
        let mut values = text.split(' ');
        let mut next = || values.next().unwrap_or_default();
        let wrong =
            |field| ReceiptHandleError { handle: text.chars().take(HANDLE_CHARS_MAX).collect(), field };
        Ok(Self {
            start_offset: next().parse().map_err(|_| wrong("start offset"))?,
            pop_ms: next().parse().map_err(|_| wrong("pop time"))?,
            invisible_ms: next().parse().map_err(|_| wrong("invisible time"))?,
            revive_queue_id: next().parse().map_err(|_| wrong("revive queue"))?,
            retry: RetryKind::parse(next()).ok_or_else(|| wrong("retry"))?,
            broker: next(),
            queue_id: next().parse().map_err(|_| wrong("queue"))?,
            offset: next().parse().map_err(|_| wrong("offset"))?,
        })
    }

    pub fn is_ordered(&self) -> bool {
        self.revive_queue_id == ORDER_REVIVE_QUEUE_ID
    }
}

impl fmt::Display for ReceiptHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_offset, pop_ms, invisible_ms, revive_queue_id, retry, broker, queue_id, offset } =
            *self;
        let retry = retry.letter();
        write!(
            f,
            "{start_offset} {pop_ms} {invisible_ms} {revive_queue_id} {retry} {broker} {queue_id} {offset}"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handle_of_the_java_client_is_read() {
        let text = "100 1700000000000 60000 3 1 broker-a 2 103";
        let handle = ReceiptHandle::parse(text).unwrap();
        assert_eq!(
            (handle.start_offset, handle.pop_ms, handle.invisible_ms),
            (100, 1_700_000_000_000, 60_000)
        );
        assert_eq!((handle.retry, handle.broker, handle.queue_id), (RetryKind::V1, "broker-a", 2));
        assert_eq!((handle.offset, handle.is_ordered()), (103, false));
        assert_eq!(handle.to_string(), text);
        assert!(ReceiptHandle::parse("1 2 3 999 0 b 0 1").unwrap().is_ordered());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let field = |text| ReceiptHandle::parse(text).unwrap_err().field;
        assert_eq!(field(""), "start offset");
        assert_eq!(field("1 x 3 4 0 b 0 1"), "pop time");
        assert_eq!(field("1 2 3 4 7 b 0 1"), "retry");
        assert_eq!(field("1 2 3 4 0 b 0"), "offset");
    }

    proptest! {
        #[test]
        fn a_handle_is_read_as_it_was_written(
            numbers: [i64; 4], ids: [i32; 2], retry in 0..3usize, broker in "[a-z0-9_-]{1,20}",
        ) {
            let handle = ReceiptHandle {
                start_offset: numbers[0],
                pop_ms: numbers[1],
                invisible_ms: numbers[2],
                revive_queue_id: ids[0],
                retry: [RetryKind::Normal, RetryKind::V1, RetryKind::V2][retry],
                broker: &broker,
                queue_id: ids[1],
                offset: numbers[3],
            };
            let text = handle.to_string();
            prop_assert_eq!(ReceiptHandle::parse(&text), Ok(handle));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = ReceiptHandle::parse(&text);
        }
    }
}
