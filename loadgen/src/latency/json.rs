//! Distributions in JSON: the figures that are printed, and in `hdr` all that they were computed from, as
//! HdrHistogram's own tools read it (V2, deflated, base64; values in nanoseconds).

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Decoder, Serializer as Encoder, V2DeflateSerializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Latency, SparseLatency, Summary};

#[derive(Serialize)]
struct Written {
    #[serde(flatten)]
    summary: Summary,
    /// Left out where there are no samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    hdr: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    max_us: Option<f64>,
    hdr: Option<String>,
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hdr = (self.count() > 0).then(|| encode(&self.nanos)).transpose().map_err(S::Error::custom)?;
        Written { summary: self.summary(), hdr }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let Read { max_us, hdr } = Read::deserialize(deserializer)?;
        let mut latency = Latency::new();
        if let Some(hdr) = hdr {
            let nanos = decode(&hdr).map_err(D::Error::custom)?;
            latency.nanos.add(&nanos).map_err(|_| D::Error::custom("hdr: a latency of more than an hour"))?;
            let max_us = max_us.ok_or_else(|| D::Error::missing_field("max_us"))?;
            let max = Duration::try_from_secs_f64(max_us / 1e6);
            latency.max = max.map_err(|_| D::Error::custom(format!("max_us: {max_us} is no latency")))?;
        }
        Ok(latency)
    }
}

impl Serialize for SparseLatency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Latency::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SparseLatency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SparseLatency, D::Error> {
        Ok(SparseLatency::from(&Latency::deserialize(deserializer)?))
    }
}

fn encode(nanos: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(nanos, &mut bytes).map_err(|error| format!("hdr: {error}"))?;
    Ok(BASE64_STANDARD.encode(bytes))
}

fn decode(hdr: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD.decode(hdr).map_err(|error| format!("hdr: {error}"))?;
    Decoder::new().deserialize(&mut &bytes[..]).map_err(|error| format!("hdr: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency() -> Latency {
        let mut latency = Latency::new();
        (1..=20_000u64).for_each(|nanos| latency.record(Duration::from_nanos(nanos * nanos)));
        latency
    }

    #[test]
    fn what_is_written_is_read() {
        let json = serde_json::to_string(&latency()).unwrap();
        let read: Latency = serde_json::from_str(&json).unwrap();
        assert_eq!((read.summary(), &read.nanos), (latency().summary(), &latency().nanos));
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    #[test]
    fn no_samples_are_nulls_without_a_histogram() {
        let json = serde_json::to_value(Latency::new()).unwrap();
        assert!(json["p50_us"].is_null() && json["count"] == 0 && json.get("hdr").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<Latency>(json).unwrap().count(), 0);
    }

    #[test]
    fn sparse_distributions_look_alike_and_are_small() {
        let sparse = SparseLatency::from(&latency());
        let json = serde_json::to_string(&sparse).unwrap();
        assert!(json.len() < 6_000, "{} bytes", json.len());
        assert_eq!(serde_json::from_str::<SparseLatency>(&json).unwrap(), sparse);
    }

    #[test]
    fn nonsense_is_refused() {
        for (json, reason) in [
            (r#"{"max_us": 1.0, "hdr": "!"}"#, "hdr: Invalid symbol"),
            (r#"{"max_us": 1.0, "hdr": "AAAA"}"#, "hdr: "),
            (r#"{"max_us": -1.0, "hdr": "HISTOGRAM"}"#, "max_us: -1 is no latency"),
            (r#"{"hdr": "HISTOGRAM"}"#, "missing field `max_us`"),
        ] {
            let json = json.replace("HISTOGRAM", &encode(&latency().nanos).unwrap());
            let error = serde_json::from_str::<Latency>(&json).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
