//! HdrHistogram's interval log, format 1.3: one line for each interval and distribution, with the whole histogram.
//!
//! `HistogramLogProcessor` reads it (`-tag publish`), and so does every library of the HdrHistogram family.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Report;
use crate::latency::Latency;

/// What Java's writer divides the maximum by: recorded nanoseconds become milliseconds.
const MAX_DIVISOR: f64 = 1e6;

const HEAD: &str = "#[Histogram log format version 1.3]\n";
const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// One distribution over one stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// No comma, no space, no line break.
    pub tag: &'static str,
    /// Since the start of the run.
    pub from: Duration,
    pub length: Duration,
    pub latency: &'a Latency,
}

/// All intervals of a run, with the tags `publish`, `e2e` and, where consumers acknowledge, `consume-ack`.
pub fn of_report(report: &Report) -> String {
    let distributions = report.series.intervals.iter().flat_map(|interval| {
        let all =
            [("publish", &interval.publish), ("e2e", &interval.e2e), ("consume-ack", &interval.consume_ack)];
        all.into_iter().map(move |(tag, latency)| (tag, interval, Latency::from(latency)))
    });
    let is_measured = |tag: &str| match tag {
        "e2e" => report.configuration.consume,
        "consume-ack" => report.consume_ack.count() > 0,
        _ => true,
    };
    let distributions: Vec<_> = distributions.filter(|(tag, ..)| is_measured(tag)).collect();
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(report.started_unix_ms);
    let entries = distributions.iter().map(|(tag, interval, latency)| Entry {
        tag,
        from: Duration::from_secs_f64(interval.start_s),
        length: Duration::from_secs_f64(interval.length_s),
        latency,
    });
    text(started, entries)
}

/// The log of a run that began at `started`. Entries are to come by time; those without samples are kept, for a
/// second in which nothing was answered is a finding too.
pub fn text<'a>(started: SystemTime, entries: impl IntoIterator<Item = Entry<'a>>) -> String {
    let mut out = format!("{HEAD}{LEGEND}").into_bytes();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Recorded by apogee-loadgen in nanoseconds; Interval_Max in milliseconds]");
    builder.with_start_time(started).with_base_time(started).with_max_value_divisor(MAX_DIVISOR);
    // Nothing below can fail: the target is memory, and the histograms have the library's own bounds.
    let mut writer = builder.begin_log_with(&mut out, &mut serializer).expect("memory takes what is written");
    for entry in entries {
        let tag = Tag::new(entry.tag).expect("fixed names without comma and space");
        writer
            .write_histogram(entry.latency.histogram(), entry.from, entry.length, Some(tag))
            .expect("memory takes what is written");
    }
    String::from_utf8(out).expect("the log is ASCII")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn the_librarys_reader_finds_every_interval_with_all_its_samples() {
        let mut busy = Latency::new();
        (1..=5_000).for_each(|micros| busy.record(Duration::from_micros(micros)));
        let silent = Latency::new();
        let second = Duration::from_secs(1);
        let entry = |tag, from, latency| Entry { tag, from: second * from, length: second, latency };
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let text = text(
            started,
            [entry("publish", 0, &busy), entry("e2e", 0, &silent), entry("publish", 1, &silent)],
        );

        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            match entry.unwrap() {
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => assert_eq!(at.as_secs(), 1_700_000_000),
                LogEntry::Interval(interval) => {
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(interval.encoded_histogram())
                        .unwrap();
                    let histogram: Histogram<u64> =
                        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    read.push((tag, interval.start_timestamp().as_secs(), interval.max(), histogram));
                }
            }
        }
        let seen: Vec<_> = read.iter().map(|(tag, from, _, h)| (tag.as_str(), *from, h.len())).collect();
        assert_eq!(seen, [("publish", 0, 5_000), ("e2e", 0, 0), ("publish", 1, 0)]);
        assert!((read[0].2 - 5.0).abs() < 0.01, "{} ms", read[0].2);
        assert_eq!(read[0].3, *busy.histogram());
    }
}
