//! Taking a message in for later.

use apogee_net::code::ResponseCode;
use apogee_net::message::{PROPERTIES_BYTES_MAX, Properties, PropertyEdit, property};
use apogee_storage::{Append, Buffer, QueueOffset};
use smallvec::SmallVec;

use super::copy::ADDED_BYTES_MAX;
use super::levels::{DelayLevel, DelayLevels};
use super::record::{TimerId, TimerPut, TimerRecord};
use super::table::{TIMERS_MAX, recall_hash};
use crate::shard::control::ControlRecord;
use crate::shard::record::{NewMessage, ShardRecord};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::{SCHEDULE, TIMER};

/// What `timerMaxDelaySec` may be: up to a leap year.
pub const TIMER_DELAY_SEC: std::ops::RangeInclusive<u64> = 1..=31_622_400;

/// What a broker is told about delayed messages, besides what can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerSettings {
    /// `messageDelayLevel`
    pub levels: DelayLevels,
    /// A message that waits longer is put into the log anew after this time (`timerRollWindowSlot`), or after half the
    /// time that messages are kept, so that retention never takes it.
    pub roll_window_ms_max: i64,
}

impl Default for TimerSettings {
    fn default() -> Self {
        TimerSettings { levels: DelayLevels::default(), roll_window_ms_max: 48 * HOUR_MS }
    }
}

const HOUR_MS: i64 = 3_600_000;

/// When a message shall become visible, if not at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Delay {
    Level(DelayLevel),
    /// At a time, in ms.
    Until(i64),
}

/// A message for later, to be staged together with its change in one batch.
#[derive(Debug)]
pub(in crate::shard) struct Delayed {
    pub append: Append<ShardRecord>,
    pub change: Option<ControlRecord>,
}

/// Properties that a message with a delay level loses (`HookUtils#checkIfTimerMessage`).
const TIMER_PROPERTIES: [&str; 3] =
    [property::TIMER_DELAY_SEC, property::TIMER_DELAY_MS, property::TIMER_DELIVER_MS];

impl<B: Buffer + 'static> Shard<B> {
    /// What the properties of a message ask for (`HookUtils#handleScheduleMessage`): nothing means now, and so does a time that
    /// is past. A level above zero wins over times.
    pub(in crate::shard) fn delay_asked_for(
        &self,
        properties: Properties<'_>,
        now_ms: i64,
    ) -> Result<Option<Delay>, Refusal> {
        if let Some(level) = properties.get(property::DELAY) {
            let number: i32 = level.parse().map_err(|_| {
                Refusal::new(ResponseCode::SYSTEM_ERROR, format!("DELAY is {level:?}, expected a number"))
            })?;
            if let Some(level) = self.config.timers.levels.clamp(number) {
                return Ok(Some(Delay::Level(level)));
            }
        }
        // Such a message waited for its time already.
        if properties.get(property::TIMER_OUT_MS).is_some() {
            return Ok(None);
        }
        let Some((name, value)) =
            TIMER_PROPERTIES.iter().find_map(|name| properties.get(name).map(|value| (*name, value)))
        else {
            return Ok(None);
        };
        if !self.settings.timer_enable {
            let remark = "accurate timer message is not enabled, timerWheelEnable is false";
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        let delay_max_ms = self.settings.timer_delay_max_sec as i64 * 1_000;
        let illegal = || {
            let remark = format!(
                "timer message illegal, the delay time should not be bigger than the max delay {}ms; or if set del msg, the delay time should be bigger than the current time",
                delay_max_ms
            );
            Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
        };
        let value: i64 = value.parse().map_err(|_| illegal())?;
        let due_ms = match name {
            property::TIMER_DELAY_SEC => value.checked_mul(1_000).and_then(|ms| ms.checked_add(now_ms)),
            property::TIMER_DELAY_MS => value.checked_add(now_ms),
            _ => Some(value),
        };
        let due_ms = due_ms.ok_or_else(illegal)?;
        if due_ms <= now_ms {
            return Ok(None);
        }
        if due_ms - now_ms > delay_max_ms {
            return Err(illegal());
        }
        Ok(Some(Delay::Until(due_ms)))
    }

    /// Makes a message for a queue one that waits first: in the topic of its level, or in the timer topic, together
    /// with the record that says so. `before` messages of the same call are staged in the timer topic in front of it.
    pub(in crate::shard) fn delayed(
        &self,
        message: NewMessage<'_>,
        delay: Delay,
        before: u64,
        now_ms: i64,
    ) -> Result<Delayed, Refusal> {
        let (real_topic, real_queue) = (message.topic, message.queue_id.to_string());
        let number: String;
        let mut set: SmallVec<[(&str, &str); 12]> = SmallVec::from_slice(message.properties.set);
        set.push((property::REAL_TOPIC, real_topic));
        set.push((property::REAL_QUEUE_ID, &real_queue));
        match delay {
            Delay::Level(level) => {
                number = level.number().to_string();
                set.retain(|(name, _)| *name != property::DELAY);
                set.push((property::DELAY, &number));
                let mut remove: SmallVec<[&str; 8]> = SmallVec::from_slice(message.properties.remove);
                remove.extend(TIMER_PROPERTIES);
                let properties = PropertyEdit { set: &set, remove: &remove, ..message.properties };
                let queue_id = level.queue_id() as i32;
                let message = NewMessage { topic: SCHEDULE, queue_id, properties, ..message };
                Ok(Delayed { append: message.into_append(self.timers.level_queue(level))?, change: None })
            }
            Delay::Until(due_ms) => {
                self.check_timer_room(before)?;
                number = due_ms.to_string();
                set.push((property::TIMER_OUT_MS, &number));
                let properties = PropertyEdit { set: &set, ..message.properties };
                let len = properties.encoded_len();
                if len + ADDED_BYTES_MAX > PROPERTIES_BYTES_MAX {
                    let remark = format!(
                        "the message is illegal, its properties have {len} bytes with those of a timer, expected at most {}",
                        PROPERTIES_BYTES_MAX - ADDED_BYTES_MAX
                    );
                    return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
                }
                let topic =
                    self.topics.get(real_topic).ok_or_else(|| Refusal::topic_unknown(real_topic))?.number();
                let message = NewMessage { topic: TIMER, queue_id: 0, properties, ..message };
                let append = message.into_append(self.timers.wheel)?;
                let unique_key = append.record.unique_key().unwrap_or_default();
                let put = TimerPut {
                    id: self.timer_id(due_ms, before, now_ms),
                    key_hash: recall_hash(real_topic, unique_key),
                    topic,
                };
                Ok(Delayed { append, change: Some(ControlRecord::Timer(TimerRecord::Put(vec![put]))) })
            }
        }
    }

    /// The timer of a message that is staged next but `before` in the timer topic. One that waits for longer than the
    /// window is looked at when that is over.
    pub(super) fn timer_id(&self, due_ms: i64, before: u64, now_ms: i64) -> TimerId {
        let half_retention_ms = i64::from(self.settings.file_reserved_hours) * HOUR_MS / 2;
        let window_ms = half_retention_ms.min(self.config.timers.roll_window_ms_max);
        let roll_ms = now_ms.saturating_add(window_ms);
        let offset = QueueOffset(self.log.tail_offset(self.timers.wheel).0 + before);
        TimerId { due_ms: due_ms.min(roll_ms), offset }
    }

    fn check_timer_room(&self, before: u64) -> Result<(), Refusal> {
        let wheel = self.timers.wheel;
        let not_durable = self.log.tail_offset(wheel).0 - self.log.max_offset(wheel).0;
        let known = self.timers.table.len() as u64 + not_durable + before;
        if known >= TIMERS_MAX as u64 {
            let remark = format!("timer message is under flow control, max num limit is {TIMERS_MAX}");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        }
        Ok(())
    }
}
