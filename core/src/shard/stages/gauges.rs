use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

/// What is counted; the first five in requests, the others each time that it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Gauge {
    Sealed,
    Written,
    Durable,
    Answered,
    Total,
    DiskWrite,
    DiskSync,
    BatchMessages,
    BatchBytes,
    /// What one connection had the thread for, without a break.
    Turn,
}

/// Names as tools see them, in the order of [`Gauge`], and what they count.
const GAUGES: [(Gauge, &str, Unit); 10] = [
    (Gauge::Sealed, "sealed", Unit::Nanos),
    (Gauge::Written, "written", Unit::Nanos),
    (Gauge::Durable, "durable", Unit::Nanos),
    (Gauge::Answered, "answered", Unit::Nanos),
    (Gauge::Total, "total", Unit::Nanos),
    (Gauge::DiskWrite, "diskWrite", Unit::Nanos),
    (Gauge::DiskSync, "diskSync", Unit::Nanos),
    (Gauge::BatchMessages, "batchMessages", Unit::One),
    (Gauge::BatchBytes, "batchBytes", Unit::One),
    (Gauge::Turn, "turn", Unit::Nanos),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Told to people in ms.
    Nanos,
    One,
}

/// Times are told apart from 512 ns on, up to a minute: what takes longer counts as that.
const NS_MIN: u64 = 1_000;
const NS_MAX: u64 = 60_000_000_000;

/// The longest batch has 16 MiB.
const COUNT_MAX: u64 = 16 << 20;

/// Two digits: a value is off by at most 1 %, and all ten take 200 KiB. Three would take eight times that.
const DIGITS: u8 = 2;

/// A percentile is told with so many counts beyond it.
const BEYOND_MIN: f64 = 10.0;

/// One histogram each, from the start on.
#[derive(Debug)]
pub(super) struct Gauges([Histogram<u64>; GAUGES.len()]);

impl Gauges {
    pub(super) fn new() -> Self {
        Gauges(GAUGES.map(|(_, _, unit)| {
            let (low, high) = match unit {
                Unit::Nanos => (NS_MIN, NS_MAX),
                Unit::One => (1, COUNT_MAX),
            };
            Histogram::new_with_bounds(low, high, DIGITS).expect("the bounds are in order")
        }))
    }

    /// Some 10 ns, so for many at once where they are known together.
    pub(super) fn count(&mut self, gauge: Gauge, value: u64, times: u64) {
        self.0[gauge as usize].saturating_record_n(value, times);
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let counted = GAUGES.iter().zip(&self.0).filter(|(_, histogram)| !histogram.is_empty());
        counted.map(|((_, name, unit), histogram)| (*name, text(histogram, *unit)))
    }

    /// Base64 of HdrHistogram's V2 form, compressed: what its libraries in other languages read too. Whoever wants to
    /// know about a while takes it before and after, and subtracts.
    pub(super) fn encoded(&self) -> impl Iterator<Item = (&'static str, String)> {
        let mut serializer = V2DeflateSerializer::new();
        GAUGES.iter().zip(&self.0).map(move |((_, name, _), histogram)| {
            let mut bytes = Vec::new();
            serializer.serialize(histogram, &mut bytes).expect("a vector takes all");
            (*name, STANDARD.encode(bytes))
        })
    }
}

fn text(histogram: &Histogram<u64>, unit: Unit) -> String {
    let mut text = format!("count {}", histogram.len());
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
        if histogram.len() as f64 * (1.0 - part) >= BEYOND_MIN {
            write(&mut text, name, histogram.value_at_quantile(part), unit);
        }
    }
    write(&mut text, "max", histogram.max(), unit);
    text
}

fn write(text: &mut String, name: &str, value: u64, unit: Unit) {
    let written = match unit {
        Unit::Nanos => write!(text, ", {name} {} ms", millis(value)),
        Unit::One => write!(text, ", {name} {value}"),
    };
    written.expect("a string takes all");
}

/// Three digits behind the point: microseconds.
pub(super) fn millis(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    #[test]
    fn each_gauge_has_its_own_place_and_name() {
        for (at, (gauge, name, _)) in GAUGES.iter().enumerate() {
            assert_eq!(*gauge as usize, at, "{name}");
        }
    }

    #[test]
    fn people_read_milliseconds_and_no_percentile_of_too_few() {
        let mut gauges = Gauges::new();
        gauges.count(Gauge::Sealed, 1_500_000, 1);
        gauges.count(Gauge::BatchMessages, 7, 1_000);
        let texts: Vec<_> = gauges.texts().collect();
        assert_eq!(texts[0].0, "sealed");
        assert!(texts[0].1.starts_with("count 1, max 1.5"), "{}", texts[0].1);
        assert_eq!(texts[1], ("batchMessages", "count 1000, p50 7, p99 7, max 7".into()));
        assert_eq!(texts.len(), 2);
    }

    #[test]
    fn programs_read_what_was_counted() {
        let mut gauges = Gauges::new();
        gauges.count(Gauge::Total, 12_000_000, 3);
        gauges.count(Gauge::Total, u64::MAX, 1);
        let encoded: Vec<_> = gauges.encoded().collect();
        assert_eq!(encoded.len(), GAUGES.len());
        let bytes = STANDARD.decode(&encoded[Gauge::Total as usize].1).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!((read.len(), read.count_at(12_000_000)), (4, 3));
        assert!(read.max() >= NS_MAX);
    }
}
