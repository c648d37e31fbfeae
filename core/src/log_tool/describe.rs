//! What lies in a log, in words: messages and control records as one line each.

use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use apogee_net::body::perm;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{StoredMessage, property};

use crate::shard::control::{ControlRecord, GroupOffsets};
use crate::shard::forbidden::ForbiddenRecord;
use crate::shard::pop::PopRecord;
use crate::shard::resets::OffsetReset;
use crate::shard::settings::SettingsRecord;
use crate::shard::timers::{TimerPut, TimerRecord};
use crate::shard::topics::TopicNumber;
use crate::shard::transactions::TransactionRecord;

/// Bytes of a body that are shown; the rest is counted.
const BODY_BYTES_SHOWN: usize = 1024;

/// Offsets of one control record that are shown; the rest is counted.
const OFFSETS_SHOWN: usize = 16;

/// The same of timers.
const TIMERS_SHOWN: usize = 16;

/// Where four digits of a year end.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// Milliseconds since 1970, as a date in UTC.
pub(super) fn time(ms: i64) -> String {
    match u64::try_from(ms) {
        Ok(ms) if ms < YEAR_10000_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => format!("{ms} ms"),
    }
}

/// A stored message: its queue, what its producer says of it, and whether its body is what was sent.
pub(super) fn message(record: &[u8]) -> String {
    match StoredMessage::decode(record) {
        Ok(message) => text(|out| describe_message(out, &message)),
        Err(error) => format!("NO MESSAGE: {error}"),
    }
}

fn describe_message(out: &mut String, message: &StoredMessage<'_>) -> fmt::Result {
    write!(out, "{}:{} offset {}", plain(message.topic), message.queue_id, message.queue_offset)?;
    for (label, name) in [("tag", property::TAGS), ("keys", property::KEYS), ("id", property::UNIQUE_KEY)] {
        if let Some(value) = message.properties.get(name) {
            write!(out, "  {label} {}", plain(value))?;
        }
    }
    write!(out, "  born {} at {}", time(message.born_timestamp), message.born_host)?;
    if message.reconsume_times > 0 {
        write!(out, "  consumed {} times before", message.reconsume_times)?;
    }
    if message.flag != 0 {
        write!(out, "  flag {}", message.flag)?;
    }
    write!(out, "  body {} B", message.body.len())?;
    if message.sys_flag.contains(MessageSysFlag::COMPRESSED) {
        out.push_str(" compressed");
    }
    if !message.is_body_intact() {
        out.push_str("  BODY DAMAGED: its CRC is not the stored one");
    }
    Ok(())
}

/// The body of a stored message: as text if it is that, otherwise as hexadecimal digits. None for what is no message.
pub(super) fn body(record: &[u8]) -> Option<String> {
    let body = StoredMessage::decode(record).ok()?.body;
    let shown = &body[..body.len().min(BODY_BYTES_SHOWN)];
    Some(text(|out| {
        match text_of(shown) {
            Some(text) => out.push_str(&plain(text)),
            None => shown.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?,
        }
        more(out, body.len() - shown.len(), "bytes")
    }))
}

/// A text, also one that was cut within its last character.
fn text_of(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

/// A text without anything that would move a terminal's cursor or change its colours.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

fn more(out: &mut String, count: usize, what: &str) -> fmt::Result {
    if count == 0 { Ok(()) } else { write!(out, " … and {count} {what} more") }
}

fn text(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut out = String::new();
    write(&mut out).expect("a string takes what is written");
    out
}

/// A change of a shard's topics, groups or offsets.
pub(super) fn control(record: &[u8]) -> String {
    match ControlRecord::decode(record) {
        Ok(change) => text(|out| describe_control(out, &change)),
        Err(error) => format!("UNREADABLE: {error}"),
    }
}

fn describe_control(out: &mut String, change: &ControlRecord) -> fmt::Result {
    match change {
        ControlRecord::TopicPut { number, version, config } => write!(
            out,
            "topic #{} {} has {} read and {} write queues, may be {}; version {} of the topics",
            number.0,
            plain(&config.topic_name),
            config.read_queue_nums,
            config.write_queue_nums,
            permission(config.perm),
            version.counter
        ),
        ControlRecord::TopicDelete { number, version } => {
            write!(out, "topic #{} is deleted; version {} of the topics", number.0, version.counter)
        }
        ControlRecord::GroupPut { version, config } => write!(
            out,
            "group {} {}, {} attempts; version {} of the groups",
            plain(&config.group_name),
            if config.consume_enable { "may consume" } else { "may not consume" },
            config.retry_max_times,
            version.counter
        ),
        ControlRecord::GroupDelete { version, group, forget_offsets } => write!(
            out,
            "group {} is deleted, its offsets {}; version {} of the groups",
            plain(group),
            if *forget_offsets { "too" } else { "stay" },
            version.counter
        ),
        ControlRecord::Offsets(groups) => {
            out.push_str("offsets");
            let all = groups.iter().flat_map(|of_group| {
                of_group.offsets.iter().map(move |(queue, offset)| (&of_group.group, *queue, *offset))
            });
            for (group, queue, offset) in all.clone().take(OFFSETS_SHOWN) {
                let (topic, queue_id) = TopicNumber::of(queue);
                write!(out, "  {} in #{}:{queue_id} at {offset}", plain(group), topic.0)?;
            }
            more(out, all.count().saturating_sub(OFFSETS_SHOWN), "offsets")
        }
        ControlRecord::Pop(change) => describe_pop(out, change),
        ControlRecord::RequestMode(set) => write!(
            out,
            "group {} gets the messages of {} by {}, shared {}",
            plain(&set.group),
            plain(&set.topic),
            set.mode.name(),
            set.pop_share_queue_num
        ),
        ControlRecord::Forbidden(ForbiddenRecord { group, topic, readable }) => {
            let may = if *readable { "may" } else { "may not" };
            write!(out, "group {} {may} consume topic {}", plain(group), plain(topic))
        }
        ControlRecord::OffsetReset(OffsetReset::Set(of_group) | OffsetReset::Pending(of_group)) => {
            let GroupOffsets { group, offsets } = of_group;
            write!(out, "offsets of {} are reset", plain(group))?;
            for (queue, offset) in offsets.iter().take(OFFSETS_SHOWN) {
                let (topic, queue_id) = TopicNumber::of(*queue);
                write!(out, "  #{}:{queue_id} to {offset}", topic.0)?;
            }
            more(out, offsets.len().saturating_sub(OFFSETS_SHOWN), "offsets")
        }
        ControlRecord::OffsetReset(OffsetReset::Done { group, queue }) => {
            let (topic, queue_id) = TopicNumber::of(*queue);
            write!(out, "group {} has heard of its reset in #{}:{queue_id}", plain(group), topic.0)
        }
        ControlRecord::TopicTableState { next_number, version } => {
            write!(out, "the next topic is #{next_number}; version {} of the topics", version.counter)
        }
        ControlRecord::GroupTableState { version } => {
            write!(out, "version {} of the groups", version.counter)
        }
        ControlRecord::Timer(TimerRecord::Put(timers)) => {
            out.push_str("timers put");
            for TimerPut { id, topic, .. } in timers.iter().take(TIMERS_SHOWN) {
                write!(out, "  {} for #{} due at {}", id.offset, topic.0, id.due_ms)?;
            }
            more(out, timers.len().saturating_sub(TIMERS_SHOWN), "timers")
        }
        ControlRecord::Timer(TimerRecord::Done(timers)) => {
            out.push_str("timers done");
            for id in timers.iter().take(TIMERS_SHOWN) {
                write!(out, "  {} due at {}", id.offset, id.due_ms)?;
            }
            more(out, timers.len().saturating_sub(TIMERS_SHOWN), "timers")
        }
        ControlRecord::Timer(TimerRecord::Level { level, next }) => {
            write!(out, "delay level {} is delivered up to {next}", level.number())
        }
        ControlRecord::Transaction(TransactionRecord::Begun(pending)) => {
            write!(out, "transaction {} begins", pending.half)
        }
        ControlRecord::Transaction(TransactionRecord::Ended { half }) => {
            write!(out, "transaction {half} ends")
        }
        ControlRecord::Transaction(TransactionRecord::Checked(checked)) => {
            out.push_str("checks");
            for pending in checked.iter().take(OFFSETS_SHOWN) {
                write!(out, "  {} of transaction {}", pending.checks, pending.half)?;
            }
            more(out, checked.len().saturating_sub(OFFSETS_SHOWN), "transactions")
        }
        ControlRecord::BrokerSettings(SettingsRecord { version, changed }) => {
            out.push_str("settings that differ from the file:");
            for (name, value) in changed {
                write!(out, " {}={}", plain(name), plain(value))?;
            }
            write!(out, "; version {} of the settings", version.counter)
        }
    }
}

fn describe_pop(out: &mut String, change: &PopRecord) -> fmt::Result {
    write!(out, "pop of group {}: ", plain(change.group()))?;
    let place = |queue| {
        let (topic, queue_id) = TopicNumber::of(queue);
        format!("#{}:{queue_id}", topic.0)
    };
    match change {
        PopRecord::Popped { group: _, pop_ms, due_ms, queues } => {
            write!(out, "at {pop_ms} until {due_ms}")?;
            for popped in queues.iter().take(OFFSETS_SHOWN) {
                let (start, count, next) = (popped.start, popped.offsets.len(), popped.next);
                write!(out, "  {count} messages of {} from {start}, now at {next}", place(popped.queue))?;
            }
            more(out, queues.len().saturating_sub(OFFSETS_SHOWN), "queues")
        }
        PopRecord::Acked { group: _, queue, check_point, offsets } => {
            let (start, due_ms) = (check_point.start, check_point.due_ms);
            write!(out, "{offsets:?} of {} are done, of check point {start} until {due_ms}", place(*queue))
        }
        PopRecord::Changed { group: _, queue, check_point, offset, pop_ms: _, due_ms } => {
            let until_ms = check_point.due_ms;
            write!(out, "{offset} of {} is hidden until {due_ms}, not {until_ms}", place(*queue))
        }
        PopRecord::Ordered { group: _, queue, next, order } => {
            write!(out, "{} messages of {} in order, at {next}", order.messages.len(), place(*queue))
        }
        PopRecord::OrderAcked { group: _, queue, pop_ms: _, offsets, next } => {
            write!(out, "{offsets:?} of {} are done in order, now at {next}", place(*queue))
        }
        PopRecord::OrderDelayed { group: _, queue, pop_ms: _, offset, visible_ms } => {
            write!(out, "{offset} of {} stops its queue until {visible_ms}", place(*queue))
        }
        PopRecord::OrderCleared { group: _, queue } => {
            write!(out, "nothing stops {} any more", place(*queue))
        }
        PopRecord::Held { group: _, queue, check_points } => {
            write!(out, "{} check points in {}", check_points.len(), place(*queue))
        }
        PopRecord::OrderHeld { group: _, queue, order } => {
            write!(out, "{} messages of {} in order", order.messages.len(), place(*queue))
        }
    }
}

fn permission(perm: i32) -> &'static str {
    match (perm & perm::READ != 0, perm & perm::WRITE != 0) {
        (true, true) => "read and written",
        (true, false) => "read",
        (false, true) => "written",
        (false, false) => "neither read nor written",
    }
}

#[cfg(test)]
mod tests {
    use apogee_net::body::{DataVersion, TopicConfig};
    use apogee_net::message::{MessageRecord, Place, PropertyEdit};
    use apogee_storage::QueueOffset;

    use super::*;

    fn stored(body: &[u8], set: &[(&str, &str)]) -> Vec<u8> {
        let record = MessageRecord {
            topic: "orders",
            queue_id: 3,
            flag: 0,
            sys_flag: MessageSysFlag(0),
            born_timestamp: 1_700_000_000_123,
            born_host: "10.0.0.1:5555".parse().unwrap(),
            store_host: "10.0.0.9:10911".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: PropertyEdit { received: b"", set, remove: &[] },
        };
        let mut bytes = vec![0; record.encoded_len().unwrap()];
        let place = Place { queue_offset: 17, physical_offset: 4096, store_timestamp: 1_700_000_000_200 };
        record.encode(place, &mut bytes);
        bytes
    }

    #[test]
    fn a_message_is_one_line() {
        let bytes = stored(b"hello", &[("TAGS", "red"), ("UNIQ_KEY", "0A01")]);
        let line =
            "orders:3 offset 17  tag red  id 0A01  born 2023-11-14T22:13:20.123Z at 10.0.0.1:5555  body 5 B";
        assert_eq!(message(&bytes), line);
        assert_eq!(body(&bytes).unwrap(), "hello");
    }

    #[test]
    fn damage_and_foreign_bytes_are_said() {
        let mut bytes = stored(b"hello", &[]);
        let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
        bytes[at] = b'j';
        assert!(message(&bytes).ends_with("BODY DAMAGED: its CRC is not the stored one"));
        assert!(message(b"hello").starts_with("NO MESSAGE: message of 5 bytes"));
        assert!(body(b"hello").is_none());
        assert!(control(&[77, 1]).contains("UNREADABLE: control record of unknown kind 77"));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let bytes = stored(b"a\x1b[2J\nb", &[("KEYS", "k\u{7}")]);
        assert_eq!(body(&bytes).unwrap(), "a\\u{1b}[2J\\nb");
        assert!(message(&bytes).contains("keys k\\u{7}  "));
    }

    #[test]
    fn long_and_binary_bodies_are_cut_and_shown_in_hexadecimal() {
        let text = "é".repeat(BODY_BYTES_SHOWN);
        let cut = format!("x{}", "é".repeat(BODY_BYTES_SHOWN / 2 - 1));
        let shown = body(&stored(format!("x{text}").as_bytes(), &[])).unwrap();
        assert_eq!(shown, format!("{cut} … and {} bytes more", 2 * BODY_BYTES_SHOWN + 1 - BODY_BYTES_SHOWN));
        assert_eq!(body(&stored(&[0xff, 0x00, 0x7f], &[])).unwrap(), "ff007f");
    }

    #[test]
    fn control_records_are_sentences() {
        let version = DataVersion { counter: 4, ..DataVersion::default() };
        let config = Box::new(TopicConfig {
            topic_name: "orders".into(),
            read_queue_nums: 8,
            write_queue_nums: 4,
            perm: perm::READ | perm::WRITE,
            ..TopicConfig::default()
        });
        let put = ControlRecord::TopicPut { number: TopicNumber(17), version, config };
        let line = "topic #17 orders has 8 read and 4 write queues, may be read and written; version 4 of the topics";
        assert_eq!(control(&put.encode()), line);
        let offsets = (0..18).map(|queue| (TopicNumber(17).queue(queue), QueueOffset(100))).collect();
        let offsets = ControlRecord::Offsets(vec![GroupOffsets { group: "g".into(), offsets }]);
        let line = control(&offsets.encode());
        assert!(line.starts_with("offsets  g in #17:0 at 100  g in #17:1 at 100"), "{line}");
        assert!(line.ends_with("#17:15 at 100 … and 2 offsets more"), "{line}");
    }

    #[test]
    fn times_no_calendar_has_are_numbers() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(-1), "-1 ms");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
    }
}
