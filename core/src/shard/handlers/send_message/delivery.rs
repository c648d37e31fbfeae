//! When and how a message that is sent becomes visible, as its properties ask for.

use apogee_net::message::{Properties, property};
use apogee_net::request::SendMessageRequest;

/// What a message's properties ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Now,
    /// By a delay level or a time, unless these say now.
    Later,
    /// When its transaction is committed.
    Half,
}

impl Delivery {
    /// One pass: every send comes through here.
    pub(super) fn of(send: &SendMessageRequest<'_>) -> Self {
        const TRANSACTION: &[u8] = property::TRANSACTION_PREPARED.as_bytes();
        const DELAY: &[u8] = property::DELAY.as_bytes();
        const TIMERS: [&[u8]; 3] = [
            property::TIMER_DELAY_SEC.as_bytes(),
            property::TIMER_DELAY_MS.as_bytes(),
            property::TIMER_DELIVER_MS.as_bytes(),
        ];
        let (mut delivery, mut is_half, mut has_level) = (Delivery::Now, false, false);
        for (name, value) in Properties(send.properties.as_bytes()).iter() {
            if name == TRANSACTION {
                is_half = value.eq_ignore_ascii_case(b"true");
            }
            if name == DELAY {
                has_level = is_above_zero(value);
            }
            if name == DELAY || TIMERS.contains(&name) {
                delivery = Delivery::Later;
            }
        }
        // Clients before 4.6.1 send a message that they could not consume with all the properties it came with
        // (`SendMessageProcessor#sendMessage`).
        let is_redelivery = send.reconsume_times > 0 && has_level;
        if is_half && !is_redelivery { Delivery::Half } else { delivery }
    }
}

fn is_above_zero(level: &[u8]) -> bool {
    std::str::from_utf8(level).is_ok_and(|level| level.parse::<i32>().is_ok_and(|level| level > 0))
}
