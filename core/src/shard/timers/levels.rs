//! Delay levels: a fixed list of delays, each with a queue of its own in which messages come due in order.

use std::str::FromStr;

use apogee_storage::QueueOffset;

/// The topic `SCHEDULE_TOPIC_XXXX` has a queue for each (`TopicConfigManager.SCHEDULE_TOPIC_QUEUE_NUM`).
pub const DELAY_LEVELS_MAX: usize = 18;

/// RocketMQ's `messageDelayLevel`.
pub const DEFAULT_DELAY_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";

/// A level that exists, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelayLevel(u8);

impl DelayLevel {
    pub fn new(number: u8) -> Option<DelayLevel> {
        (1..=DELAY_LEVELS_MAX).contains(&number.into()).then_some(DelayLevel(number))
    }

    pub fn all() -> impl Iterator<Item = DelayLevel> {
        (1..=DELAY_LEVELS_MAX as u8).map(DelayLevel)
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// Its queue in the topic of delayed messages.
    pub fn queue_id(self) -> u32 {
        u32::from(self.0) - 1
    }

    pub fn index(self) -> usize {
        usize::from(self.0) - 1
    }
}

/// How long each level delays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayLevels(Vec<i64>);

impl Default for DelayLevels {
    fn default() -> Self {
        DEFAULT_DELAY_LEVELS.parse().expect("a legal list")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayLevelsError {
    #[error("{0} delay levels; expected 1 to {DELAY_LEVELS_MAX}")]
    Count(usize),
    #[error("{0:?} is no delay; expected a number of up to 9 digits followed by s, m, h or d")]
    Delay(String),
}

/// Delays separated by blanks, each a number and a unit (`ScheduleMessageService#parseDelayLevel`).
impl FromStr for DelayLevels {
    type Err = DelayLevelsError;

    fn from_str(text: &str) -> Result<Self, DelayLevelsError> {
        let delays: Vec<i64> = text.split_whitespace().map(delay_ms).collect::<Result<_, _>>()?;
        if delays.is_empty() || delays.len() > DELAY_LEVELS_MAX {
            return Err(DelayLevelsError::Count(delays.len()));
        }
        Ok(DelayLevels(delays))
    }
}

fn delay_ms(text: &str) -> Result<i64, DelayLevelsError> {
    const NUMBER_DIGITS_MAX: usize = 9;
    let illegal = || DelayLevelsError::Delay(text.to_owned());
    let (unit_at, unit) = text.char_indices().next_back().ok_or_else(illegal)?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(illegal()),
    };
    let number = &text[..unit_at];
    if number.len() > NUMBER_DIGITS_MAX || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(illegal());
    }
    Ok(number.parse::<i64>().map_err(|_| illegal())? * unit_ms)
}

impl DelayLevels {
    /// The level a message asks for; higher ones mean the last (`HookUtils#transformDelayLevelMessage`).
    pub fn clamp(&self, number: i32) -> Option<DelayLevel> {
        let last = self.0.len() as i32;
        (number > 0).then(|| DelayLevel(number.min(last) as u8))
    }

    /// A level that is configured no more delays as the last does: what is in its queue is still delivered.
    pub fn delay_ms(&self, level: DelayLevel) -> i64 {
        self.0[level.index().min(self.0.len() - 1)]
    }
}

/// Which of a level's messages come next, and what is under way. At most one read or one delivery is, so that a level's
/// messages stay in order; each covers many messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelQueue {
    /// Being read from the log, or delivered and not yet durable.
    pub(super) is_busy: bool,
    /// When the first message is due; unknown while the queue is empty, or was not looked at.
    pub(super) head: Option<Head>,
    /// Not before this: something failed, or was read to be looked at once more.
    pub(super) resume_at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) offset: QueueOffset,
    pub(super) due_ms: i64,
}

impl LevelQueue {
    pub(super) fn wake_at_ms(&self) -> Option<i64> {
        let head = self.head.filter(|_| !self.is_busy)?;
        Some(head.due_ms.max(self.resume_at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocketmqs_levels_are_the_default() {
        let levels = DelayLevels::default();
        let at = |number| levels.delay_ms(levels.clamp(number).unwrap());
        assert_eq!([at(1), at(5), at(14), at(18)], [1_000, 60_000, 600_000, 7_200_000]);
        assert_eq!(levels.clamp(99), DelayLevel::new(18));
        assert_eq!((levels.clamp(0), levels.clamp(-1)), (None, None));
    }

    #[test]
    fn fewer_levels_keep_what_is_in_the_queues_of_more() {
        let levels: DelayLevels = " 3s  1d".parse().unwrap();
        assert_eq!(levels.clamp(7), DelayLevel::new(2));
        assert_eq!(levels.delay_ms(DelayLevel(2)), 86_400_000);
        assert_eq!(levels.delay_ms(DelayLevel(9)), 86_400_000);
    }

    #[test]
    fn wrong_lists_are_refused_by_name() {
        let refused = |text: &str| text.parse::<DelayLevels>().unwrap_err().to_string();
        assert!(refused("").contains("0 delay levels"));
        assert!(refused(&"1s ".repeat(19)).contains("19 delay levels"));
        for text in ["1", "s", "1x", "-1s", "1.5s", "1 s", "1234567890s", "é"] {
            assert!(refused(text).contains("is no delay"), "{text:?}");
        }
    }
}
