use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::figures;

/// Delays of the levels as every broker has them unless `messageDelayLevel` was changed there; level 1 is the first.
/// Source: `MessageStoreConfig.messageDelayLevel`.
pub const DELAY_LEVELS: [Duration; 18] = {
    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    const MINUTE: u64 = 60;
    [
        seconds(1),
        seconds(5),
        seconds(10),
        seconds(30),
        seconds(MINUTE),
        seconds(2 * MINUTE),
        seconds(3 * MINUTE),
        seconds(4 * MINUTE),
        seconds(5 * MINUTE),
        seconds(6 * MINUTE),
        seconds(7 * MINUTE),
        seconds(8 * MINUTE),
        seconds(9 * MINUTE),
        seconds(10 * MINUTE),
        seconds(20 * MINUTE),
        seconds(30 * MINUTE),
        seconds(60 * MINUTE),
        seconds(120 * MINUTE),
    ]
};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Messages {
    /// Bytes of a body.
    pub size: Sizes,
    pub kind: Kind,
    /// Messages per request. More than one: batches, each of consecutive messages of one queue. In an open loop a
    /// batch leaves when its last message is due; the latency of each runs from its own time.
    pub batch: u32,
    /// Messages take these tags in turn, queue by queue; one named twice is twice as frequent.
    pub tags: Vec<String>,
    /// Give each message a key of its own (KEYS), which brokers index.
    pub keys: bool,
    /// Messages written, as fast as it goes and unmeasured, before the run: what consumers with `from = "start"` find.
    pub prefill: u64,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages {
            size: Sizes::default(),
            kind: Kind::default(),
            batch: 1,
            tags: Vec::new(),
            keys: false,
            prefill: 0,
        }
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if self.batch > 1 {
            write!(f, ", batches of {}", self.batch)?;
        }
        if !self.tags.is_empty() {
            write!(f, ", {} tags", self.tags.len())?;
        }
        f.write_str(if self.keys { ", with keys" } else { "" })?;
        if self.prefill > 0 {
            write!(f, ", {} before the run", figures::count(self.prefill))?;
        }
        Ok(())
    }
}

/// What the broker is asked to do with a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Store it and deliver it.
    #[default]
    Normal,
    /// The same, unanswered. What does not arrive is no loss: nothing was promised.
    Oneway,
    /// Each queue carries so many keys; of each key one message is under way at a time, as order demands. Out of
    /// order within a key is a fault.
    Ordered { keys: u32 },
    /// Deliver it after the delay of this level, which is taken as [`DELAY_LEVELS`] has it.
    Delayed { level: u32 },
    /// Deliver it so long after its planned time (property TIMER_DELIVER_MS).
    Timed {
        #[serde(with = "humantime_serde")]
        after: Duration,
        /// Ask for a delay instead of a point in time (TIMER_DELAY_MS).
        #[serde(default)]
        relative: bool,
        /// A delivery earlier than this before its time is a fault. Brokers keep time in steps: Java's in steps of a
        /// second (`timerPrecisionMs`) that begin up to one step too early.
        #[serde(default = "early_max_default", with = "humantime_serde")]
        early_max: Duration,
    },
    /// Two phases: a half message, then commit or rollback.
    Transactional {
        /// Of a hundred messages so many are rolled back. One that arrives all the same is a fault.
        #[serde(default)]
        rollback: u32,
        /// Of a hundred messages so many are left to the broker's question what became of them, and then committed.
        #[serde(default)]
        check: u32,
        /// Ask for a reply to commit and rollback, which stock clients send one-way.
        #[serde(default)]
        reply: bool,
    },
}

fn early_max_default() -> Duration {
    Duration::from_secs(1)
}

impl Kind {
    /// How long the broker is to keep a message before it delivers it.
    pub fn delay(&self) -> Duration {
        match self {
            Kind::Delayed { level } => {
                let level = (*level as usize).clamp(1, DELAY_LEVELS.len());
                DELAY_LEVELS[level - 1]
            }
            Kind::Timed { after, .. } => *after,
            _ => Duration::ZERO,
        }
    }

    /// Keys within a queue whose messages keep their order among themselves.
    pub fn lanes(&self) -> u32 {
        match self {
            Kind::Ordered { keys } => *keys,
            _ => 1,
        }
    }

    /// Whether each message is answered by the broker.
    pub fn is_acknowledged(&self) -> bool {
        !matches!(self, Kind::Oneway)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Normal => f.write_str("normal"),
            Kind::Oneway => f.write_str("one-way"),
            Kind::Ordered { keys } => {
                write!(f, "ordered, {} keys per queue", figures::count(u64::from(*keys)))
            }
            Kind::Delayed { level } => write!(f, "delayed by level {level} ({:?})", self.delay()),
            Kind::Timed { after, relative: false, .. } => write!(f, "timed, {after:?} ahead"),
            Kind::Timed { after, relative: true, .. } => write!(f, "timed, delayed by {after:?}"),
            Kind::Transactional { rollback, check, reply } => {
                write!(f, "transactional, {rollback} % rolled back")?;
                if *check > 0 {
                    write!(f, ", {check} % left to the broker's question")?;
                }
                f.write_str(if *reply { ", ends answered" } else { "" })
            }
        }
    }
}

/// Sizes of bodies: one number in a file, or a table that says how they are distributed.
///
/// Which message has which size follows from the run's id and the message's number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected bytes, { min = bytes, max = bytes } or [{ bytes = bytes, weight = share }, …]"
)]
pub enum Sizes {
    Fixed(usize),
    /// Every size from `min` to `max` is as likely.
    Uniform {
        min: usize,
        max: usize,
    },
    Weighted(Vec<WeightedSize>),
}

/// One of several sizes, and how often it comes compared with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedSize {
    pub bytes: usize,
    pub weight: u32,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes::Fixed(1024)
    }
}

impl Sizes {
    pub fn smallest(&self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform { min, .. } => *min,
            Sizes::Weighted(sizes) => sizes.iter().map(|size| size.bytes).min().unwrap_or(0),
        }
    }

    pub fn largest(&self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform { max, .. } => *max,
            Sizes::Weighted(sizes) => sizes.iter().map(|size| size.bytes).max().unwrap_or(0),
        }
    }

    /// Bytes of a body on average.
    pub fn mean(&self) -> f64 {
        match self {
            Sizes::Fixed(size) => *size as f64,
            Sizes::Uniform { min, max } => (*min as f64 + *max as f64) / 2.0,
            Sizes::Weighted(sizes) => {
                let weighed: f64 = sizes.iter().map(|size| size.bytes as f64 * f64::from(size.weight)).sum();
                weighed / (total_weight(sizes) as f64).max(1.0)
            }
        }
    }

    /// The size that a random number stands for.
    pub fn pick(&self, random: u64) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform { min, max } => min + below(random, (max - min) as u64 + 1) as usize,
            Sizes::Weighted(sizes) => {
                let mut place = below(random, total_weight(sizes));
                for size in sizes {
                    match place.checked_sub(u64::from(size.weight)) {
                        Some(rest) => place = rest,
                        None => return size.bytes,
                    }
                }
                self.largest()
            }
        }
    }
}

pub(super) fn total_weight(sizes: &[WeightedSize]) -> u64 {
    sizes.iter().map(|size| u64::from(size.weight)).sum()
}

/// Maps a random number evenly to 0, 1, … `end` − 1: its place on the line of all of them.
fn below(random: u64, end: u64) -> u64 {
    ((u128::from(random) * u128::from(end)) >> 64) as u64
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |size: usize| figures::count(size as u64);
        match self {
            Sizes::Fixed(size) => write!(f, "{} B each", bytes(*size)),
            Sizes::Uniform { min, max } => write!(f, "{} to {} B each", bytes(*min), bytes(*max)),
            Sizes::Weighted(sizes) => {
                let total = total_weight(sizes).max(1) as f64;
                for (at, size) in sizes.iter().enumerate() {
                    let share = f64::from(size.weight) / total * 100.0;
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{} B ({share:.1$} %)", bytes(size.bytes), usize::from(share < 1.0))?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<T: serde::de::DeserializeOwned>(value: &str) -> Result<T, String> {
        #[derive(Deserialize)]
        struct File<T> {
            value: T,
        }
        toml::from_str::<File<T>>(&format!("value = {value}"))
            .map(|file| file.value)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_and_sizes_are_written_as_documented() {
        assert_eq!(parse("'normal'"), Ok(Kind::Normal));
        assert_eq!(parse("{ delayed = { level = 3 } }"), Ok(Kind::Delayed { level: 3 }));
        let early_max = Duration::from_secs(1);
        let after = Duration::from_secs(2);
        assert_eq!(
            parse("{ timed = { after = '2s' } }"),
            Ok(Kind::Timed { after, relative: false, early_max })
        );
        let rollback = Kind::Transactional { rollback: 10, check: 0, reply: false };
        assert_eq!(parse("{ transactional = { rollback = 10 } }"), Ok(rollback));
        assert!(parse::<Kind>("{ timed = { after = '2s', often = 1 } }").unwrap_err().contains("often"));
        assert_eq!(parse("128"), Ok(Sizes::Fixed(128)));
        assert_eq!(parse("{ min = 100, max = 200 }"), Ok(Sizes::Uniform { min: 100, max: 200 }));
        let weighted: Sizes = parse("[{ bytes = 128, weight = 9 }, { bytes = 1024, weight = 1 }]").unwrap();
        assert_eq!((weighted.smallest(), weighted.largest(), weighted.mean()), (128, 1024, 217.6));
        assert_eq!(weighted.to_string(), "128 B (90 %), 1,024 B (10 %)");
        assert!(parse::<Sizes>("'big'").unwrap_err().contains("expected bytes, { min"));
    }

    #[test]
    fn weights_are_kept() {
        let sizes = Sizes::Weighted(vec![
            WeightedSize { bytes: 100, weight: 3 },
            WeightedSize { bytes: 200, weight: 0 },
            WeightedSize { bytes: 300, weight: 1 },
        ]);
        let picked: Vec<_> = (0..8u64).map(|eighth| sizes.pick(eighth << 61)).collect();
        assert_eq!(picked, [100, 100, 100, 100, 100, 100, 300, 300]);
        assert_eq!(sizes.pick(u64::MAX), 300);
    }

    proptest! {
        #[test]
        fn a_uniform_size_lies_between_its_bounds(random: u64, min in 44usize..5_000, more in 0usize..5_000) {
            let sizes = Sizes::Uniform { min, max: min + more };
            prop_assert!((min..=min + more).contains(&sizes.pick(random)));
            prop_assert_eq!((sizes.pick(0), sizes.pick(u64::MAX)), (min, min + more));
        }
    }
}
