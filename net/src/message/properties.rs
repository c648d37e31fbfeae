//! Property strings: `name 0x01 value 0x02`, repeated.
//!
//! 5.x ends the string with 0x02, 4.9 leaves the last one out; both are read. Source:
//! `MessageDecoder#string2messageProperties`, `MessageDecoder#messageProperties2String`.

use bytes::BufMut;

/// Longest property string: its length is a signed 16-bit field.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;

const NAME_END: u8 = 1;
const VALUE_END: u8 = 2;

/// Names of properties that brokers and clients set (`MessageConst`).
pub mod property {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    /// `false`: answer before the message is durable.
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    /// `true`: a half message.
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    /// Of a half message: its unique key once more.
    pub const TRANSACTION_ID: &str = "__transactionId__";
    /// How often a producer was asked what became of a half message.
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    /// Seconds that the producer wants to have before it is asked.
    pub const CHECK_IMMUNITY_SEC: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// Of a request and of its reply: the client id of the requester.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// When a reply was pushed to the requester, in ms.
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    /// The producer's id of the message; clients show it as the message id.
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    pub const CLUSTER: &str = "CLUSTER";
    /// Receipt handle of a popped message; never stored.
    pub const POP_CHECK_POINT: &str = "POP_CK";
    /// How many messages an inner batch wraps; only brokers set it.
    pub const INNER_NUM: &str = "INNER_NUM";
    /// When a message that is redelivered was popped first, in ms.
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// When a message in the timer topic is due.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    /// When a delivered message was taken into the timer topic.
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    /// When a delivered message was taken out of it.
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    /// How often a message was put into the timer topic anew, so as not to expire there.
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
}

/// A property string, read where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties<'a>(pub &'a [u8]);

impl<'a> Properties<'a> {
    /// The value of `name`; of several, the last. Also `None` if the value is not UTF-8, which no client sends.
    pub fn get(self, name: &str) -> Option<&'a str> {
        let mut found = None;
        for (key, value) in self.iter() {
            if key == name.as_bytes() {
                found = Some(value);
            }
        }
        std::str::from_utf8(found?).ok()
    }

    /// Names and values in order, duplicates included. Pieces without a name or without a value are left out.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.split(|byte| *byte == VALUE_END).filter_map(split_pair)
    }
}

/// At the first 0x01: a value may contain more of them.
fn split_pair(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_end = piece.iter().position(|byte| *byte == NAME_END)?;
    let (name, value) = (&piece[..name_end], &piece[name_end + 1..]);
    (!name.is_empty() && !value.is_empty()).then_some((name, value))
}

/// Appends one property to a string that ends with a separator or is empty.
pub fn append_property(out: &mut impl BufMut, name: &str, value: &str) {
    out.put_slice(name.as_bytes());
    out.put_u8(NAME_END);
    out.put_slice(value.as_bytes());
    out.put_u8(VALUE_END);
}

fn property_len(name: &str, value: &str) -> usize {
    name.len() + 1 + value.len() + 1
}

/// A received property string with what the broker changes in it before it is stored.
///
/// `set` replaces properties or adds them at the end, `remove` drops them. With neither, the string is stored as
/// received, untouched; otherwise what is left of it ends with a separator, as 5.x writes it.
#[derive(Clone, Copy, Debug)]
pub struct PropertyEdit<'a> {
    pub received: &'a [u8],
    pub set: &'a [(&'a str, &'a str)],
    pub remove: &'a [&'a str],
}

impl<'a> PropertyEdit<'a> {
    pub fn unchanged(received: &'a [u8]) -> Self {
        Self { received, set: &[], remove: &[] }
    }

    fn is_unchanged(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    fn keeps(&self, name: &[u8]) -> bool {
        !self.set.iter().any(|(set, _)| set.as_bytes() == name)
            && !self.remove.iter().any(|removed| removed.as_bytes() == name)
    }

    /// What [`PropertyEdit::write`] writes at most, known without a walk. Exact if nothing received is dropped.
    pub fn encoded_len_max(&self) -> usize {
        if self.is_unchanged() {
            return self.received.len();
        }
        let separator = usize::from(self.received.last().is_some_and(|last| *last != VALUE_END));
        self.received.len() + separator + self.set_len()
    }

    fn set_len(&self) -> usize {
        self.set.iter().map(|(name, value)| property_len(name, value)).sum()
    }

    pub fn encoded_len(&self) -> usize {
        if self.is_unchanged() {
            return self.received.len();
        }
        let kept = Properties(self.received).iter().filter(|(name, _)| self.keeps(name));
        kept.map(|(name, value)| name.len() + 1 + value.len() + 1).sum::<usize>() + self.set_len()
    }

    /// Writes exactly [`PropertyEdit::encoded_len`] bytes.
    pub fn write(&self, out: &mut impl BufMut) {
        if self.is_unchanged() {
            return out.put_slice(self.received);
        }
        self.write_and_show(out, |_, _| {});
    }

    /// Like [`PropertyEdit::write`], and shows on the way what a reader of the written string would find, in order.
    ///
    /// One walk: what stays between two properties that are dropped is copied as it lies.
    pub fn write_and_show(&self, out: &mut impl BufMut, mut show: impl FnMut(&'a [u8], &'a [u8])) {
        if self.is_unchanged() {
            out.put_slice(self.received);
            return Properties(self.received).iter().for_each(|(name, value)| show(name, value));
        }
        let (mut kept_from, mut at) = (0, 0);
        for piece in self.received.split(|byte| *byte == VALUE_END) {
            let next = at + piece.len() + 1;
            match split_pair(piece).filter(|(name, _)| self.keeps(name)) {
                Some((name, value)) => show(name, value),
                None => {
                    out.put_slice(&self.received[kept_from..at]);
                    kept_from = next;
                }
            }
            at = next;
        }
        // The last piece ends the string, by a separator of its own if the string has none there.
        if kept_from < at {
            out.put_slice(&self.received[kept_from..]);
            out.put_u8(VALUE_END);
        }
        for (name, value) in self.set {
            append_property(out, name, value);
            show(name.as_bytes(), value.as_bytes());
        }
    }
}
