//! Acknowledgements of many popped messages at once.

use super::fastjson::body;

body! {
    /// BATCH_ACK_MESSAGE (200151)
    #[derive(Eq)]
    pub struct BatchAckMessageRequestBody {
        "acks" => acks: Vec<BatchAck>,
        "brokerName" => broker_name: String,
    }
}

body! {
    /// Messages of one check point that are consumed.
    #[derive(Eq)]
    pub struct BatchAck {
        /// Bit i is the offset `start_offset` + i; see [`BatchAck::bits`].
        "b" | "bitSet" => bit_set: String,
        "c" | "consumerGroup" => consumer_group: String,
        "it" | "invisibleTime" => invisible_ms: i64,
        "pt" | "popTime" => pop_ms: i64,
        "q" | "queueId" => queue_id: i32,
        /// `0`, `1` or `2`: the topic itself, its pop retry topic, that of the second form.
        "r" | "retry" => retry: String,
        "rq" | "reviveQueueId" => revive_queue_id: i32,
        "so" | "startOffset" => start_offset: i64,
        /// The original topic, also of redelivered messages.
        "t" | "topic" => topic: String,
    }
}

/// Longest bit set that is read: 48 Ki offsets. Clients acknowledge what one pop gave them, 32 messages at most.
const BIT_SET_BYTES_MAX: usize = 8 * 1024;

impl BatchAck {
    /// The bit set of these offsets, each counted from the start offset.
    pub fn bit_set_of(nths: impl Iterator<Item = u64>) -> String {
        let mut bytes = Vec::new();
        for nth in nths {
            let at = (nth / 8) as usize;
            if bytes.len() <= at {
                bytes.resize(at + 1, 0u8);
            }
            bytes[at] |= 1 << (nth % 8);
        }
        encode_base64(&bytes)
    }

    /// The bits; `None` if they are not base64 of `BitSet#toByteArray`, or too many.
    pub fn bits(&self) -> Option<AckedBits> {
        (self.bit_set.len() <= BIT_SET_BYTES_MAX).then(|| decode_base64(&self.bit_set).map(AckedBits))?
    }
}

/// Which messages are acknowledged, counted from the start offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckedBits(Vec<u8>);

impl AckedBits {
    pub fn contains(&self, nth: u64) -> bool {
        let byte = usize::try_from(nth / 8).ok().and_then(|nth| self.0.get(nth));
        byte.is_some_and(|byte| byte >> (nth % 8) & 1 == 1)
    }
}

/// RFC 4648 with its standard alphabet and padding.
fn encode_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // One byte fills two digits, two fill three.
            let is_filled = digit <= group.len();
            let value = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if is_filled { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

/// RFC 4648 with its standard alphabet; padding may be missing.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        // Four digits are three bytes, three are two, two are one; one alone is nothing.
        bytes.extend_from_slice(bits.to_be_bytes().get(1..group.len()).filter(|_| group.len() > 1)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(bit_set: &str) -> Option<Vec<u64>> {
        let ack = BatchAck { bit_set: bit_set.to_owned(), ..BatchAck::default() };
        ack.bits().map(|bits| (0..100_000).filter(|nth| bits.contains(*nth)).collect())
    }

    #[test]
    fn bits_of_javas_bit_set_are_offsets() {
        // Encoded by java.util.Base64 of BitSet.toByteArray().
        assert_eq!(acked("BQ=="), Some(vec![0, 2]));
        assert_eq!(acked("BQ"), Some(vec![0, 2]));
        assert_eq!(acked("AQI="), Some(vec![0, 9]));
        assert_eq!(acked("AQKA"), Some(vec![0, 9, 23]));
        assert_eq!(acked("/////w=="), Some((0..32).collect()));
        assert_eq!(acked(""), Some(vec![]));
    }

    #[test]
    fn offsets_are_bits_of_javas_bit_set() {
        let bit_set = |nths: &[u64]| BatchAck::bit_set_of(nths.iter().copied());
        assert_eq!(bit_set(&[0, 2]), "BQ==");
        assert_eq!(bit_set(&[0, 9]), "AQI=");
        assert_eq!(bit_set(&[23, 0, 9]), "AQKA");
        assert_eq!(bit_set(&(0..32).collect::<Vec<_>>()), "/////w==");
        assert_eq!(bit_set(&[]), "");
        let places: Vec<u64> = (0..500).filter(|nth| nth % 7 == 3).collect();
        assert_eq!(acked(&bit_set(&places)), Some(places));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["B", "BQ==BQ==", "B!", "BQAAA"] {
            assert_eq!(acked(text), None, "{text:?}");
        }
        assert_eq!(acked(&"A".repeat(BIT_SET_BYTES_MAX + 4)), None);
    }
}
