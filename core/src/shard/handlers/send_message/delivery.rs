//! When and how a message that is sent becomes visible, as its properties ask for.

use apogee_net::code::ResponseCode;
use apogee_net::message::{Properties, RETRY_PREFIX, property};
use apogee_net::request::SendMessageRequest;

use crate::shard::refusal::Refusal;

/// What a message's properties ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery<'a> {
    Now,
    /// By a delay level, as text: above zero is later.
    Level(&'a [u8]),
    /// By one of the timer properties: its name and value, as text.
    Timer(&'a [u8], &'a [u8]),
    /// When its transaction is committed.
    Half,
}

impl<'a> Delivery<'a> {
    /// One pass: every send comes through here.
    pub(super) fn of(send: &SendMessageRequest<'a>) -> Self {
        const TRANSACTION: &[u8] = property::TRANSACTION_PREPARED.as_bytes();
        const DELAY: &[u8] = property::DELAY.as_bytes();
        const TIMERS: [&[u8]; 3] = [
            property::TIMER_DELAY_SEC.as_bytes(),
            property::TIMER_DELAY_MS.as_bytes(),
            property::TIMER_DELIVER_MS.as_bytes(),
        ];
        let (mut delivery, mut is_half) = (Delivery::Now, false);
        for (name, value) in Properties(send.properties.as_bytes()).iter() {
            if name == TRANSACTION {
                is_half = value.eq_ignore_ascii_case(b"true");
            }
            // A level wins over timers.
            if name == DELAY && value != b"0" {
                delivery = Delivery::Level(value);
            } else if TIMERS.contains(&name) && value != b"0" && delivery == Delivery::Now {
                delivery = Delivery::Timer(name, value);
            }
        }
        // Clients before 4.6.1 send a message that they could not consume with all the properties it came with
        // (`SendMessageProcessor#sendMessage`).
        let is_redelivery =
            send.reconsume_times > 0 && matches!(delivery, Delivery::Level(level) if is_above_zero(level));
        if is_half && !is_redelivery { Delivery::Half } else { delivery }
    }

    /// Refuses what is not built yet, rather than storing it as something else.
    pub(super) fn check_supported(self, topic: &str) -> Result<(), Refusal> {
        match self {
            Delivery::Now | Delivery::Half => Ok(()),
            // A consumer that asks for a later redelivery gets one at once: late is a wish, losing it would not be.
            Delivery::Level(_) if topic.starts_with(RETRY_PREFIX) => Ok(()),
            Delivery::Level(_) => Err(Self::not_taken(property::DELAY.as_bytes())),
            Delivery::Timer(name, _) => Err(Self::not_taken(name)),
        }
    }

    fn not_taken(name: &[u8]) -> Refusal {
        let name = String::from_utf8_lossy(name);
        let remark = format!("this broker does not take delayed messages (property {name})");
        Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
    }
}

fn is_above_zero(level: &[u8]) -> bool {
    std::str::from_utf8(level).is_ok_and(|level| level.parse::<i32>().is_ok_and(|level| level > 0))
}
