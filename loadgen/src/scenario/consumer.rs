use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A consumer group, or several alike. Each group gets every message, as far as its filter wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consumer {
    /// Its name; of several, the beginning of their names, to which `-0`, `-1`, … is added.
    pub group: String,
    /// Groups like this one.
    pub groups: u32,
    pub by: By,
    pub filter: Option<Filter>,
    pub from: From,
    /// Begins to read so long after the run began.
    #[serde(with = "humantime_serde")]
    pub join: Duration,
    /// Work done on each message, during which its queue's reader does nothing else: a slow consumer.
    #[serde(with = "humantime_serde")]
    pub pause: Duration,
    /// Messages asked for at once. `None`: 128 by pull, 32 by pop.
    pub messages: Option<u32>,
    /// Readers by pull store their progress so often with the broker; `None`: never.
    #[serde(with = "humantime_serde")]
    pub commit: Option<Duration>,
    /// Popped messages are hidden from the group for so long, and come again if not acknowledged by then.
    #[serde(with = "humantime_serde")]
    pub invisible: Duration,
    pub ack: Ack,
}

/// How messages are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// PULL_MESSAGE from an offset that the reader keeps.
    #[default]
    Pull,
    /// POP_MESSAGE; each message is acknowledged. Needs a 5.x broker.
    Pop,
}

/// How popped messages are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// ACK_MESSAGE for every message.
    #[default]
    Each,
    /// BATCH_ACK_MESSAGE for all messages of one pop.
    Batch,
}

/// Where a group begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// Where the queues end when the run begins, behind its prefill.
    #[default]
    End,
    /// Before the first message of this run, its prefill included.
    Start,
}

/// Which messages a group wants; evaluated by the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// `"A || B"`: messages with one of these tags, out of `messages.tags`.
    Tags(String),
    /// An SQL92 expression. Every message carries the property `n`: its number within its queue, modulo 100.
    Sql {
        expression: String,
        /// The expression is expected to match the messages whose `n` is below this, and no others.
        expect_below: u32,
    },
}

/// Values of the property `n`.
pub const NUMBERS: u32 = 100;

impl Default for Consumer {
    fn default() -> Consumer {
        Consumer {
            group: "apogee-loadgen".to_owned(),
            groups: 1,
            by: By::Pull,
            filter: None,
            from: From::End,
            join: Duration::ZERO,
            pause: Duration::ZERO,
            messages: None,
            commit: None,
            invisible: Duration::from_secs(60),
            ack: Ack::Each,
        }
    }
}

impl Consumer {
    /// The groups' names.
    pub fn names(&self) -> Vec<String> {
        match self.groups {
            1 => vec![self.group.clone()],
            groups => (0..groups).map(|number| format!("{}-{number}", self.group)).collect(),
        }
    }

    /// Whether it reads along with the run as fast as it can, so that its latencies are the broker's.
    pub fn is_live(&self) -> bool {
        !self.is_late() && self.pause.is_zero()
    }

    /// Whether it has something to catch up with.
    pub fn is_late(&self) -> bool {
        self.from == From::Start || !self.join.is_zero()
    }

    pub fn messages(&self) -> u32 {
        self.messages.unwrap_or(match self.by {
            By::Pull => 128,
            By::Pop => 32,
        })
    }
}

impl Filter {
    /// The expression as brokers are given it, and the name of its language.
    pub fn expression(&self) -> (&str, &'static str) {
        match self {
            Filter::Tags(tags) => (tags, "TAG"),
            Filter::Sql { expression, .. } => (expression, "SQL92"),
        }
    }

    /// Whether a message with this tag and number is wanted.
    pub fn wants(&self, tag: Option<&str>, number: u32) -> bool {
        match self {
            Filter::Tags(tags) => {
                tags == "*" || tag.is_some_and(|tag| tags.split("||").any(|wanted| wanted.trim() == tag))
            }
            Filter::Sql { expect_below, .. } => number < *expect_below,
        }
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.groups {
            1 => write!(f, "group {}", self.group)?,
            groups => write!(f, "{groups} groups {}-…", self.group)?,
        }
        f.write_str(match self.by {
            By::Pull => " by pull",
            By::Pop => " by pop",
        })?;
        match &self.filter {
            Some(Filter::Tags(tags)) => write!(f, ", tags {tags}")?,
            Some(Filter::Sql { expression, .. }) => write!(f, ", where {expression}")?,
            None => {}
        }
        if self.from == From::Start {
            f.write_str(", from the start")?;
        }
        if !self.join.is_zero() {
            write!(f, ", joining after {:?}", self.join)?;
        }
        if !self.pause.is_zero() {
            write!(f, ", {:?} of work per message", self.pause)?;
        }
        Ok(())
    }
}
