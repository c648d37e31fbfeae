//! What a message that is sent asks for by its properties.

use apogee_net::message::{Properties, property};
use apogee_net::request::SendMessageRequest;

/// When and how a message becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Now,
    /// By a delay level or a time, unless these say now.
    Later,
    /// When its transaction is committed.
    Half,
}

/// What the properties of a send say to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub delivery: Delivery,
    pub unique_key: Option<&'a str>,
    pub has_keys: bool,
    /// Only brokers say that.
    pub is_inner_batch: bool,
}

impl<'a> Asked<'a> {
    /// One walk for all of it: every send comes through here. Of a repeated property the last value counts.
    pub(super) fn of(send: &'a SendMessageRequest<'_>) -> Self {
        const UNIQUE_KEY: &[u8] = property::UNIQUE_KEY.as_bytes();
        const KEYS: &[u8] = property::KEYS.as_bytes();
        const INNER_NUM: &[u8] = property::INNER_NUM.as_bytes();
        const TRANSACTION: &[u8] = property::TRANSACTION_PREPARED.as_bytes();
        const DELAY: &[u8] = property::DELAY.as_bytes();
        const TIMER_DELAY_SEC: &[u8] = property::TIMER_DELAY_SEC.as_bytes();
        const TIMER_DELAY_MS: &[u8] = property::TIMER_DELAY_MS.as_bytes();
        const TIMER_DELIVER_MS: &[u8] = property::TIMER_DELIVER_MS.as_bytes();
        let (mut unique_key, mut keys) = (None, None);
        let (mut is_half, mut has_level, mut is_later, mut is_inner_batch) = (false, false, false, false);
        for (name, value) in Properties(send.properties.as_bytes()).iter() {
            match name {
                UNIQUE_KEY => unique_key = Some(value),
                KEYS => keys = Some(value),
                INNER_NUM => is_inner_batch = true,
                TRANSACTION => is_half = value.eq_ignore_ascii_case(b"true"),
                DELAY => (has_level, is_later) = (is_above_zero(value), true),
                TIMER_DELAY_SEC | TIMER_DELAY_MS | TIMER_DELIVER_MS => is_later = true,
                _ => {}
            }
        }
        // Clients before 4.6.1 send a message that they could not consume with all the properties it came with
        // (`SendMessageProcessor#sendMessage`).
        let is_redelivery = send.reconsume_times > 0 && has_level;
        let delivery = match is_later {
            _ if is_half && !is_redelivery => Delivery::Half,
            true => Delivery::Later,
            false => Delivery::Now,
        };
        let text = |value: &'a [u8]| std::str::from_utf8(value).ok();
        Asked {
            delivery,
            unique_key: unique_key.and_then(text),
            has_keys: keys.and_then(text).is_some_and(|keys| !keys.trim().is_empty()),
            is_inner_batch,
        }
    }
}

fn is_above_zero(level: &[u8]) -> bool {
    std::str::from_utf8(level).is_ok_and(|level| level.parse::<i32>().is_ok_and(|level| level > 0))
}
