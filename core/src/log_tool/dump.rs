//! Prints batches or records, one line each; what is wrong with the log stands where it is met.

use std::io::Write;
use std::str::FromStr;

use apogee_net::message::StoredMessage;
use apogee_storage::driver::LogFiles;
use apogee_storage::format::BatchKind;
use apogee_storage::inspect::{self, BatchInfo, Problem, RecordInfo};
use apogee_storage::{LogOffset, QueueKey};
use rustc_hash::FxHashMap;

use super::{BAD, DumpArgs, Failed, GOOD, describe, place};

/// A queue as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    topic: String,
    id: i32,
}

impl FromStr for Queue {
    type Err = String;

    fn from_str(text: &str) -> Result<Queue, String> {
        let (topic, id) = text.rsplit_once(':').filter(|(topic, _)| !topic.is_empty()).unwrap_or((text, ""));
        let id = id.parse().ok().filter(|id| *id >= 0);
        id.map(|id| Queue { topic: topic.to_owned(), id })
            .ok_or_else(|| "expected the topic, a colon and the number of the queue, such as orders:3".into())
    }
}

pub(super) fn run(args: &DumpArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let files = LogFiles::new(&place::one_shard(&args.dir)?.0);
    let from = LogOffset(args.from);
    if args.batches {
        return print(inspect::batches(&files, None, from), args.limit, out, |batch, out| {
            writeln!(out, "{}", batch_line(batch))
        });
    }
    let wanted = args.control.then_some(QueueKey::CONTROL);
    let mut queue = args.queue.as_ref().map(|queue| Filter { queue, known: FxHashMap::default() });
    let records = inspect::records(&files, None, from, wanted).filter(|record| match (&mut queue, record) {
        (Some(filter), Ok(record)) => filter.takes(record),
        (None, _) | (_, Err(_)) => true,
    });
    print(records, args.limit, out, |record, out| {
        writeln!(out, "{}", record_line(record))?;
        match describe::body(&record.bytes).filter(|_| args.bodies && record.queue != QueueKey::CONTROL) {
            Some(body) => writeln!(out, "    {body}"),
            None => Ok(()),
        }
    })
}

fn print<T>(
    items: impl Iterator<Item = Result<T, Problem>>,
    limit: Option<u64>,
    out: &mut dyn Write,
    line: impl Fn(&T, &mut dyn Write) -> std::io::Result<()>,
) -> Result<u8, Failed> {
    let (mut code, mut left) = (GOOD, limit.unwrap_or(u64::MAX));
    for item in items {
        if left == 0 {
            break;
        }
        match item {
            Ok(item) => {
                line(&item, out)?;
                left -= 1;
            }
            Err(problem) => {
                code = BAD;
                writeln!(out, "PROBLEM: {problem}")?;
            }
        }
    }
    Ok(code)
}

/// The messages of one queue. The log knows queues by numbers, messages by names: the first message of each number tells.
struct Filter<'a> {
    queue: &'a Queue,
    known: FxHashMap<QueueKey, bool>,
}

impl Filter<'_> {
    fn takes(&mut self, record: &RecordInfo) -> bool {
        let Queue { topic, id } = self.queue;
        !matches!(record.queue, QueueKey::CONTROL | QueueKey::MEMBERS)
            && *self.known.entry(record.queue).or_insert_with(|| {
                StoredMessage::decode(&record.bytes)
                    .is_ok_and(|message| message.topic == topic && message.queue_id == *id)
            })
    }
}

fn batch_line(batch: &BatchInfo) -> String {
    let BatchInfo { file, position, header, damage } = batch;
    let mut line = format!(
        "{}  batch {}  {}  {} records, {} bytes  term {} after {}  committed up to {}  {file} at {position}",
        header.base_offset(),
        header.index(),
        describe::time(header.store_time.get()),
        header.record_count.get(),
        header.batch_len(),
        header.term(),
        header.prev_term(),
        header.commit_hint(),
    );
    line.push_str(match header.batch_kind() {
        BatchKind::Records => "",
        BatchKind::NoOp => "  begins a term",
        BatchKind::Configuration => "  changes the members",
    });
    if let Some(damage) = damage {
        line.push_str(&format!("  DAMAGED: {damage}"));
    }
    line
}

fn record_line(record: &RecordInfo) -> String {
    let (offset, time) = (record.log_offset, describe::time(record.store_time_ms));
    let said = match record.queue {
        QueueKey::CONTROL => describe::control(&record.bytes),
        QueueKey::MEMBERS => format!("a change of the group's members, {} bytes", record.bytes.len()),
        _ => describe::message(&record.bytes),
    };
    format!("{offset}  {time}  {said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_named_by_topic_and_number() {
        let queue = |topic: &str, id| Ok(Queue { topic: topic.into(), id });
        assert_eq!("orders:3".parse(), queue("orders", 3));
        assert_eq!("%RETRY%a:b:0".parse(), queue("%RETRY%a:b", 0));
        for wrong in ["orders", "orders:", ":3", "orders:x", "orders:-1", ""] {
            assert!(wrong.parse::<Queue>().unwrap_err().contains("such as orders:3"), "{wrong}");
        }
    }
}
