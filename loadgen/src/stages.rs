//! Where the time of sends went inside the brokers, for those that say so.
//!
//! Apogee answers GET_BROKER_RUNTIME_INFO (28) with a histogram per stage, counted since its start, if the request has the
//! field `apogeeHistograms`; others leave that field alone and answer without any. What was asked before a run is taken off
//! what is asked after it, so warm-up and drain are within, and other clients' sends too.

use std::collections::BTreeMap;
use std::time::Duration;

use apogee_net::header::{ExtWriter, WriteExt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::{Deserialize, Serialize};

use crate::latency::{Latency, enough_samples};

const HISTOGRAM: &str = "apogeeHistogram.";
const SLOW: &str = "apogeeSlow.";

/// Longest text of a histogram that is looked into; Apogee's have some hundred bytes.
const HISTOGRAM_CHARS_MAX: usize = 1 << 20;

/// The way of a send comes first, in its order; what a broker tells besides follows by name.
const ORDER: [&str; 5] = ["sealed", "written", "durable", "answered", "total"];

/// What one broker did with the sends of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokerStages {
    pub broker: String,
    /// The broker was started anew during the run: this is from then on.
    pub since_restart: bool,
    /// Each from the end of the one before. `total` is all of them; the first five count requests.
    pub times: Vec<StageTimes>,
    /// Sizes of batches, in what the name ends in.
    pub sizes: Vec<StageSizes>,
    /// The slowest sends of the last one or two minutes, in the broker's words.
    pub slowest: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    pub name: String,
    /// With the two digits that the broker counts with.
    pub latency: Latency,
}

/// As of times, a percentile is `None` when there are too few samples for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSizes {
    pub name: String,
    pub mean: f64,
    pub p50: Option<u64>,
    pub p99: Option<u64>,
    pub max: u64,
    pub count: u64,
}

/// The header of a request for all of it.
pub struct AskForStages;

impl WriteExt for AskForStages {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        fields.bool("apogeeHistograms", true);
    }
}

/// What a broker had counted at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    histograms: BTreeMap<String, Histogram<u64>>,
    slowest: Vec<String>,
}

impl Snapshot {
    /// From the runtime facts of a broker; nothing if it tells no stages. What cannot be read is left out.
    pub fn of(facts: &BTreeMap<String, String>) -> Option<Snapshot> {
        let named = |prefix| {
            facts.iter().filter_map(move |(key, text)| key.strip_prefix(prefix).map(|name| (name, text)))
        };
        let histograms: BTreeMap<_, _> = named(HISTOGRAM)
            .filter_map(|(name, text)| Some((name.to_owned(), read_histogram(text)?)))
            .collect();
        let slowest = named(SLOW).map(|(_, text)| text.clone()).collect();
        (!histograms.is_empty()).then_some(Snapshot { histograms, slowest })
    }

    /// What happened between the two.
    pub fn since(&self, before: &Snapshot, broker: &str) -> BrokerStages {
        let between: Option<BTreeMap<_, _>> = self
            .histograms
            .iter()
            .map(|(name, after)| Some((name, subtract(after, before.histograms.get(name)?)?)))
            .collect();
        let since_restart = between.is_none();
        let between = between
            .unwrap_or_else(|| self.histograms.iter().map(|(name, all)| (name, all.clone())).collect());
        let mut names: Vec<_> = between.keys().copied().collect();
        names.sort_by_key(|name| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
        let (mut times, mut sizes) = (Vec::new(), Vec::new());
        for name in names {
            let histogram = &between[name];
            if histogram.is_empty() {
                continue;
            }
            match is_size(name) {
                true => sizes.push(StageSizes::of(name, histogram)),
                false => times.push(StageTimes { name: name.clone(), latency: latency(histogram) }),
            }
        }
        let is_new = |slow: &&String| !before.slowest.contains(slow);
        let slowest = self.slowest.iter().filter(is_new).cloned().collect();
        BrokerStages { broker: broker.to_owned(), since_restart, times, sizes, slowest }
    }
}

impl StageSizes {
    fn of(name: &str, histogram: &Histogram<u64>) -> StageSizes {
        let at = |quantile| {
            enough_samples(histogram.len(), quantile).then(|| histogram.value_at_quantile(quantile))
        };
        StageSizes {
            name: name.to_owned(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: at(0.5),
            p99: at(0.99),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

fn is_size(name: &str) -> bool {
    name.ends_with("Messages") || name.ends_with("Bytes")
}

fn read_histogram(text: &str) -> Option<Histogram<u64>> {
    let bytes = (text.len() <= HISTOGRAM_CHARS_MAX).then(|| STANDARD.decode(text).ok())??;
    Deserializer::new().deserialize(&mut &bytes[..]).ok()
}

/// Nothing if `before` has something that `after` has not: it began anew in between.
fn subtract(after: &Histogram<u64>, before: &Histogram<u64>) -> Option<Histogram<u64>> {
    let form = |of: &Histogram<u64>| (of.low(), of.high(), of.sigfig());
    if form(after) != form(before) {
        return None;
    }
    let mut between = after.clone();
    between.subtract(before).ok()?;
    Some(between)
}

/// Each count at the end of its cell, as HdrHistogram's own percentiles are.
fn latency(nanos: &Histogram<u64>) -> Latency {
    let mut latency = Latency::new();
    for cell in nanos.iter_recorded() {
        latency.record_many(Duration::from_nanos(cell.value_iterated_to()), cell.count_at_value());
    }
    latency
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    use super::*;

    fn encoded(counts: &[(u64, u64)]) -> String {
        let mut histogram = Histogram::<u64>::new_with_bounds(1_000, 60_000_000_000, 2).unwrap();
        for &(value, times) in counts {
            histogram.saturating_record_n(value, times);
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
        STANDARD.encode(bytes)
    }

    fn facts(facts: &[(&str, String)]) -> BTreeMap<String, String> {
        facts.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect()
    }

    fn snapshot(own: &[(&str, String)]) -> Snapshot {
        Snapshot::of(&facts(own)).unwrap()
    }

    #[test]
    fn a_run_has_what_was_counted_during_it() {
        let before = snapshot(&[
            ("apogeeHistogram.total", encoded(&[(900_000_000, 50)])),
            ("apogeeHistogram.batchMessages", encoded(&[(10_000, 2)])),
            ("apogeeSlow.0", "900 ms, long ago".into()),
        ]);
        let after = snapshot(&[
            ("apogeeHistogram.total", encoded(&[(900_000_000, 50), (2_000_000, 1_990), (30_000_000, 10)])),
            ("apogeeHistogram.batchMessages", encoded(&[(10_000, 2), (70_000, 4)])),
            ("apogeeHistogram.sealed", encoded(&[(2_000_000, 1_000)])),
            ("apogeeSlow.0", "900 ms, long ago".into()),
            ("apogeeSlow.1", "30 ms, just now".into()),
        ]);
        assert!(after.since(&before, "b").since_restart, "before knew no such stage");
        let before = snapshot(&[
            ("apogeeHistogram.total", encoded(&[(900_000_000, 50)])),
            ("apogeeHistogram.batchMessages", encoded(&[(10_000, 2)])),
            ("apogeeHistogram.sealed", encoded(&[])),
            ("apogeeSlow.0", "900 ms, long ago".into()),
        ]);
        let run = after.since(&before, "broker-a-0");
        assert!(!run.since_restart);
        assert_eq!(run.times.iter().map(|stage| &*stage.name).collect::<Vec<_>>(), ["sealed", "total"]);
        let total = run.times[1].latency.summary();
        assert_eq!(total.count, 2_000);
        assert!((total.p50_us.unwrap() - 2_000.0).abs() < 20.0, "{total:?}");
        assert!((total.max_us.unwrap() - 30_000.0).abs() < 300.0, "{total:?}");
        assert_eq!(total.p999_us, None, "two samples beyond it");
        assert_eq!((run.sizes[0].count, run.sizes[0].p50), (4, None));
        assert!(run.sizes[0].mean > 69_000.0, "{run:?}");
        assert_eq!(run.slowest, ["30 ms, just now"]);
    }

    #[test]
    fn a_broker_that_began_anew_counts_from_there() {
        let before = snapshot(&[("apogeeHistogram.total", encoded(&[(2_000_000, 50)]))]);
        let after = snapshot(&[("apogeeHistogram.total", encoded(&[(2_000_000, 20)]))]);
        let run = after.since(&before, "b");
        assert!(run.since_restart);
        assert_eq!(run.times[0].latency.count(), 20);
    }

    #[test]
    fn brokers_that_tell_no_stages_have_none() {
        assert!(Snapshot::of(&facts(&[("putTps", "1.0 1.0 1.0".into())])).is_none());
        let broken = [("apogeeHistogram.total", "no base64".to_owned())];
        assert!(Snapshot::of(&facts(&broken)).is_none());
        let cut = encoded(&[(2_000_000, 50)])[..20].to_owned();
        assert!(Snapshot::of(&facts(&[("apogeeHistogram.total", cut)])).is_none());
    }

    #[test]
    fn other_bounds_are_another_life() {
        let before = snapshot(&[("apogeeHistogram.total", encoded(&[(2_000_000, 50)]))]);
        let mut wide = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        wide.record(2_000_000).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&wide, &mut bytes).unwrap();
        let after = snapshot(&[("apogeeHistogram.total", STANDARD.encode(bytes))]);
        let run = after.since(&before, "b");
        assert!(run.since_restart && run.times[0].latency.count() == 1);
    }
}
