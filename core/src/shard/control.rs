//! Control records: each change of a shard's topics, groups and offsets, as bytes in the shard's log.
//!
//! They lie in the queue [`QueueKey::CONTROL`](apogee_storage::QueueKey::CONTROL), in the order of the changes;
//! `apply` of each table, fed with them from the first on, rebuilds the table.
//!
//! ```text
//! 0         1         2
//! +---------+---------+------------------+
//! | kind u8 | form u8 | fields, the rest |
//! +---------+---------+------------------+
//! kind    which change, `ControlKind`
//! form    1: the fields as written below; other fields or meanings take a new form of the kind
//! fields  one after the other, in the encodings of `codec`; the log knows the record's length and guards its
//!         bytes with the batch's checksum
//! ```
//!
//! Every record has exactly one encoding. A kind or form that this version does not know is an error, never skipped:
//! a table rebuilt without it would be wrong.
//!
//! `TopicTableState` and `GroupTableState` are no changes and never in a log: they stand in snapshots only, where they hold what the
//! records before them do not tell (see [`replay`](super::replay)).

pub(super) mod codec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use apogee_net::body::{
    DataVersion, GroupRetryPolicy, GroupRetryPolicyType, RawValue, SubscriptionGroupConfig, TopicConfig,
    TopicFilterType,
};
use apogee_storage::{QueueKey, QueueOffset};

use self::codec::{Fields, put_flag, put_signed, put_text, put_unsigned};
use super::assignment::RequestModeRecord;
use super::forbidden::ForbiddenRecord;
use super::pop::PopRecord;
use super::resets::OffsetReset;
use super::settings::SettingsRecord;
use super::timers::TimerRecord;
use super::topics::TopicNumber;
use super::transactions::TransactionRecord;

/// The only form of every kind so far.
const FORM: u8 = 1;

/// One change of state.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlRecord {
    /// A topic was made, or its configuration changed; `version` is that of all topics after it.
    TopicPut { number: TopicNumber, version: DataVersion, config: Box<TopicConfig> },
    /// A topic and all offsets in it are gone. Its number is never given to another.
    TopicDelete { number: TopicNumber, version: DataVersion },
    /// A consumer group was made, or its configuration changed; `version` is that of all groups after it.
    GroupPut { version: DataVersion, config: Box<SubscriptionGroupConfig> },
    /// A consumer group is gone, and with `forget_offsets` all it had consumed.
    GroupDelete { version: DataVersion, group: String, forget_offsets: bool },
    /// Consumer offsets that were committed since the last record of this kind.
    Offsets(Vec<GroupOffsets>),
    /// A topic was forbidden for a group, or allowed again.
    Forbidden(ForbiddenRecord),
    /// A group's offsets were reset, or it has heard of that.
    OffsetReset(OffsetReset),
    /// All topics of a snapshot stand before this: the number of the next one, above every number ever given, and
    /// the version of the table.
    TopicTableState { next_number: u32, version: DataVersion },
    /// All groups of a snapshot stand before this: the version of the table.
    GroupTableState { version: DataVersion },
    /// Delayed messages: which wait, and which no more.
    Timer(TimerRecord),
    /// A transaction began, was checked or ended.
    Transaction(TransactionRecord),
    /// Settings of the broker were changed by request.
    BrokerSettings(SettingsRecord),
    /// Messages were popped, acknowledged, hidden for longer, or put into a retry topic.
    Pop(PopRecord),
    /// How a group gets the messages of a topic.
    RequestMode(RequestModeRecord),
}

/// Offsets of one consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffsets {
    pub group: String,
    /// Each queue at most once, in ascending order.
    pub offsets: Vec<(QueueKey, QueueOffset)>,
}

/// First byte of a record. Numbers are never given a second meaning.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    TopicPut = 1,
    TopicDelete = 2,
    GroupPut = 3,
    GroupDelete = 4,
    Offsets = 5,
    TopicTableState = 6,
    GroupTableState = 7,
    Timer = 8,
    Transaction = 9,
    BrokerSettings = 14,
    Pop = 10,
    RequestMode = 11,
    Forbidden = 12,
    OffsetReset = 13,
}

impl ControlKind {
    pub const ALL: &[ControlKind] = &[
        Self::TopicPut,
        Self::TopicDelete,
        Self::GroupPut,
        Self::GroupDelete,
        Self::Offsets,
        Self::TopicTableState,
        Self::GroupTableState,
        Self::Timer,
        Self::Transaction,
        Self::BrokerSettings,
        Self::Pop,
        Self::RequestMode,
        Self::Forbidden,
        Self::OffsetReset,
    ];
}

/// Why bytes are not a control record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("control record without kind and form")]
    NoHead,
    #[error("control record of unknown kind {kind}; written by a newer version?")]
    UnknownKind { kind: u8 },
    #[error("control record {kind:?} in unknown form {form}; written by a newer version?")]
    UnknownForm { kind: ControlKind, form: u8 },
    #[error("control record {kind:?} ends in its field {field:?}")]
    CutShort { kind: ControlKind, field: &'static str },
    #[error("control record {kind:?}, field {field:?}: {problem}")]
    BadField { kind: ControlKind, field: &'static str, problem: &'static str },
    #[error("control record {kind:?} has {count} bytes after its last field")]
    TrailingBytes { kind: ControlKind, count: usize },
}

impl ControlRecord {
    pub fn kind(&self) -> ControlKind {
        match self {
            Self::TopicPut { .. } => ControlKind::TopicPut,
            Self::TopicDelete { .. } => ControlKind::TopicDelete,
            Self::GroupPut { .. } => ControlKind::GroupPut,
            Self::GroupDelete { .. } => ControlKind::GroupDelete,
            Self::Offsets(_) => ControlKind::Offsets,
            Self::TopicTableState { .. } => ControlKind::TopicTableState,
            Self::GroupTableState { .. } => ControlKind::GroupTableState,
            Self::Timer(_) => ControlKind::Timer,
            Self::Transaction(_) => ControlKind::Transaction,
            Self::BrokerSettings(_) => ControlKind::BrokerSettings,
            Self::Pop(_) => ControlKind::Pop,
            Self::RequestMode(_) => ControlKind::RequestMode,
            Self::Forbidden(_) => ControlKind::Forbidden,
            Self::OffsetReset(_) => ControlKind::OffsetReset,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind() as u8, FORM];
        match self {
            Self::TopicPut { number, version, config } => {
                put_unsigned(&mut out, number.0.into());
                put_version(&mut out, version);
                put_topic_config(&mut out, config);
            }
            Self::TopicDelete { number, version } => {
                put_unsigned(&mut out, number.0.into());
                put_version(&mut out, version);
            }
            Self::GroupPut { version, config } => {
                put_version(&mut out, version);
                put_group_config(&mut out, config);
            }
            Self::GroupDelete { version, group, forget_offsets } => {
                put_version(&mut out, version);
                put_text(&mut out, group);
                put_flag(&mut out, *forget_offsets);
            }
            Self::Offsets(groups) => {
                put_unsigned(&mut out, groups.len() as u64);
                for group in groups {
                    put_group_offsets(&mut out, group);
                }
            }
            Self::TopicTableState { next_number, version } => {
                put_unsigned(&mut out, (*next_number).into());
                put_version(&mut out, version);
            }
            Self::GroupTableState { version } => put_version(&mut out, version),
            Self::Timer(record) => record.encode(&mut out),
            Self::Transaction(record) => record.encode(&mut out),
            Self::BrokerSettings(record) => record.encode(&mut out),
            Self::Pop(change) => change.encode(&mut out),
            Self::RequestMode(change) => change.encode(&mut out),
            Self::Forbidden(record) => record.encode(&mut out),
            Self::OffsetReset(record) => record.encode(&mut out),
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let &[kind, form, ref fields @ ..] = bytes else { return Err(ControlError::NoHead) };
        let kind = ControlKind::ALL
            .iter()
            .copied()
            .find(|known| *known as u8 == kind)
            .ok_or(ControlError::UnknownKind { kind })?;
        if form != FORM {
            return Err(ControlError::UnknownForm { kind, form });
        }
        let mut fields = Fields::new(kind, fields);
        let record = match kind {
            ControlKind::TopicPut => Self::TopicPut {
                number: topic_number(&mut fields)?,
                version: version(&mut fields)?,
                config: Box::new(topic_config(&mut fields)?),
            },
            ControlKind::TopicDelete => {
                Self::TopicDelete { number: topic_number(&mut fields)?, version: version(&mut fields)? }
            }
            ControlKind::GroupPut => Self::GroupPut {
                version: version(&mut fields)?,
                config: Box::new(group_config(&mut fields)?),
            },
            ControlKind::GroupDelete => Self::GroupDelete {
                version: version(&mut fields)?,
                group: fields.text("group")?.to_owned(),
                forget_offsets: fields.flag("forget offsets")?,
            },
            ControlKind::Offsets => {
                let count = fields.unsigned("group count")?;
                Self::Offsets((0..count).map(|_| group_offsets(&mut fields)).collect::<Result<_, _>>()?)
            }
            ControlKind::TopicTableState => Self::TopicTableState {
                next_number: fields.u32("next topic number")?,
                version: version(&mut fields)?,
            },
            ControlKind::GroupTableState => Self::GroupTableState { version: version(&mut fields)? },
            ControlKind::Timer => Self::Timer(TimerRecord::decode(&mut fields)?),
            ControlKind::Transaction => Self::Transaction(TransactionRecord::decode(&mut fields)?),
            ControlKind::BrokerSettings => Self::BrokerSettings(SettingsRecord::decode(&mut fields)?),
            ControlKind::Pop => Self::Pop(PopRecord::decode(&mut fields)?),
            ControlKind::RequestMode => Self::RequestMode(RequestModeRecord::decode(&mut fields)?),
            ControlKind::Forbidden => Self::Forbidden(ForbiddenRecord::decode(&mut fields)?),
            ControlKind::OffsetReset => Self::OffsetReset(OffsetReset::decode(&mut fields)?),
        };
        fields.end()?;
        Ok(record)
    }
}

fn topic_number(fields: &mut Fields<'_>) -> Result<TopicNumber, ControlError> {
    let number = TopicNumber(fields.u32("topic number")?);
    if number > TopicNumber::MAX {
        return Err(fields.bad("topic number", "the number of control records"));
    }
    Ok(number)
}

/// Fields: counter, state version, timestamp.
fn put_version(out: &mut Vec<u8>, version: &DataVersion) {
    let DataVersion { counter, state_version, timestamp } = *version;
    put_signed(out, counter);
    put_signed(out, state_version);
    put_signed(out, timestamp);
}

fn version(fields: &mut Fields<'_>) -> Result<DataVersion, ControlError> {
    Ok(DataVersion {
        counter: fields.signed("version counter")?,
        state_version: fields.signed("state version")?,
        timestamp: fields.signed("version timestamp")?,
    })
}

/// Fields: name, read queues, write queues, permission, filter type (0 single tag, 1 multi tag), system flag, order,
/// attributes.
fn put_topic_config(out: &mut Vec<u8>, config: &TopicConfig) {
    let TopicConfig {
        attributes,
        order,
        perm,
        read_queue_nums,
        topic_filter_type,
        topic_name,
        topic_sys_flag,
        write_queue_nums,
    } = config;
    put_text(out, topic_name);
    put_signed(out, (*read_queue_nums).into());
    put_signed(out, (*write_queue_nums).into());
    put_signed(out, (*perm).into());
    out.push(match topic_filter_type {
        TopicFilterType::SingleTag => 0,
        TopicFilterType::MultiTag => 1,
    });
    put_signed(out, (*topic_sys_flag).into());
    put_flag(out, *order);
    put_attributes(out, attributes);
}

fn topic_config(fields: &mut Fields<'_>) -> Result<TopicConfig, ControlError> {
    Ok(TopicConfig {
        topic_name: fields.text("topic")?.to_owned(),
        read_queue_nums: fields.i32("read queues")?,
        write_queue_nums: fields.i32("write queues")?,
        perm: fields.i32("permission")?,
        topic_filter_type: match fields.byte("filter type")? {
            0 => TopicFilterType::SingleTag,
            1 => TopicFilterType::MultiTag,
            _ => return Err(fields.bad("filter type", "neither 0 nor 1")),
        },
        topic_sys_flag: fields.i32("system flag")?,
        order: fields.flag("order")?,
        attributes: attributes(fields)?,
    })
}

/// Fields: name, nine of the switches and numbers, retry policy (kind: 0 exponential, 1 customized; then both policies),
/// static subscriptions, attributes. What RocketMQ nests and we only pass on is kept as its JSON text.
fn put_group_config(out: &mut Vec<u8>, config: &SubscriptionGroupConfig) {
    let SubscriptionGroupConfig {
        attributes,
        broker_id,
        consume_broadcast_enable,
        consume_enable,
        consume_from_min_enable,
        consume_message_orderly,
        consume_timeout_minute,
        group_name,
        group_retry_policy: GroupRetryPolicy { customized_retry_policy, exponential_retry_policy, kind },
        group_sys_flag,
        notify_consumer_ids_changed_enable,
        retry_max_times,
        retry_queue_nums,
        subscription_data_set,
        which_broker_when_consume_slowly,
    } = config;
    put_text(out, group_name);
    put_flag(out, *consume_enable);
    put_flag(out, *consume_broadcast_enable);
    put_flag(out, *consume_from_min_enable);
    put_flag(out, *consume_message_orderly);
    put_flag(out, *notify_consumer_ids_changed_enable);
    put_signed(out, (*consume_timeout_minute).into());
    put_signed(out, (*retry_max_times).into());
    put_signed(out, (*retry_queue_nums).into());
    put_signed(out, (*group_sys_flag).into());
    put_signed(out, *broker_id);
    put_signed(out, *which_broker_when_consume_slowly);
    out.push(match kind {
        GroupRetryPolicyType::Exponential => 0,
        GroupRetryPolicyType::Customized => 1,
    });
    put_json(out, exponential_retry_policy);
    put_json(out, customized_retry_policy);
    put_json(out, subscription_data_set);
    put_attributes(out, attributes);
}

fn group_config(fields: &mut Fields<'_>) -> Result<SubscriptionGroupConfig, ControlError> {
    Ok(SubscriptionGroupConfig {
        group_name: fields.text("group")?.to_owned(),
        consume_enable: fields.flag("consume")?,
        consume_broadcast_enable: fields.flag("consume broadcast")?,
        consume_from_min_enable: fields.flag("consume from min")?,
        consume_message_orderly: fields.flag("consume orderly")?,
        notify_consumer_ids_changed_enable: fields.flag("notify")?,
        consume_timeout_minute: fields.i32("consume timeout")?,
        retry_max_times: fields.i32("retry times")?,
        retry_queue_nums: fields.i32("retry queues")?,
        group_sys_flag: fields.i32("system flag")?,
        broker_id: fields.signed("broker id")?,
        which_broker_when_consume_slowly: fields.signed("slow broker id")?,
        group_retry_policy: GroupRetryPolicy {
            kind: match fields.byte("retry policy")? {
                0 => GroupRetryPolicyType::Exponential,
                1 => GroupRetryPolicyType::Customized,
                _ => return Err(fields.bad("retry policy", "neither 0 nor 1")),
            },
            exponential_retry_policy: json(fields, "exponential policy")?,
            customized_retry_policy: json(fields, "customized policy")?,
        },
        subscription_data_set: json(fields, "subscriptions")?,
        attributes: attributes(fields)?,
    })
}

/// Absent is the empty text, which is no JSON value.
fn put_json(out: &mut Vec<u8>, value: &Option<RawValue>) {
    put_text(out, value.as_ref().map_or("", RawValue::as_str));
}

fn json(fields: &mut Fields<'_>, field: &'static str) -> Result<Option<RawValue>, ControlError> {
    let text = fields.text(field)?;
    if text.is_empty() {
        return Ok(None);
    }
    match RawValue::parse(text) {
        Ok(value) if value.as_str() == text => Ok(Some(value)),
        Ok(_) | Err(_) => Err(fields.bad(field, "not one JSON value")),
    }
}

/// A count, then name and value of each, in ascending order of the names.
fn put_attributes(out: &mut Vec<u8>, attributes: &BTreeMap<String, String>) {
    put_unsigned(out, attributes.len() as u64);
    for (name, value) in attributes {
        put_text(out, name);
        put_text(out, value);
    }
}

fn attributes(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>, ControlError> {
    let mut attributes = BTreeMap::new();
    for _ in 0..fields.unsigned("attribute count")? {
        let name = fields.text("attribute name")?;
        if attributes.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
            return Err(fields.bad("attribute name", "names not in ascending order"));
        }
        attributes.insert(name.to_owned(), fields.text("attribute value")?.to_owned());
    }
    Ok(attributes)
}

/// The group's name, a count, then for each queue: its key less that of the queue before it (the first: its key),
/// its offset. Queues of one topic are neighbours, so most keys take one byte.
pub(super) fn put_group_offsets(out: &mut Vec<u8>, of_group: &GroupOffsets) {
    put_text(out, &of_group.group);
    put_unsigned(out, of_group.offsets.len() as u64);
    let mut before = None;
    for &(queue, offset) in &of_group.offsets {
        assert!(before < Some(queue), "offsets of {:?}: {queue:?} after {before:?}", of_group.group);
        put_unsigned(out, queue.0 - before.map_or(0, |before: QueueKey| before.0));
        put_unsigned(out, offset.0);
        before = Some(queue);
    }
}

pub(super) fn group_offsets(fields: &mut Fields<'_>) -> Result<GroupOffsets, ControlError> {
    let group = fields.text("group")?.to_owned();
    let mut offsets = Vec::new();
    let mut before = None;
    for _ in 0..fields.unsigned("offset count")? {
        let step = fields.unsigned("queue")?;
        let queue = match before {
            None => Some(step),
            Some(_) if step == 0 => return Err(fields.bad("queue", "the same queue twice")),
            Some(QueueKey(before)) => before.checked_add(step),
        };
        let queue = match queue.map(QueueKey) {
            Some(queue) if queue != QueueKey::CONTROL => queue,
            Some(_) | None => return Err(fields.bad("queue", "no message queue")),
        };
        offsets.push((queue, QueueOffset(fields.unsigned("offset")?)));
        before = Some(queue);
    }
    Ok(GroupOffsets { group, offsets })
}
