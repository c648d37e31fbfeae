use std::fmt::Write;

/// What a producer gets back for a message that waits for its time, and shows to have it recalled
/// (`RecallMessageHandle.HandleV1`).
///
/// ```text
///     base64url( v1 topic broker-name time-ms unique-key )       blanks between the parts, padded with '='
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    pub topic: String,
    pub broker_name: String,
    /// When the message is due, in ms: decimal digits, unless somebody made the handle up.
    pub due_ms: String,
    pub unique_key: String,
}

/// Answered with ILLEGAL_OPERATION (604), in RocketMQ's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("recall handle is invalid")]
pub struct BadRecallHandle;

const VERSION: &str = "v1";

impl RecallHandle {
    pub fn encode(&self) -> String {
        let Self { topic, broker_name, due_ms, unique_key } = self;
        let mut plain = String::new();
        let _ = write!(plain, "{VERSION} {topic} {broker_name} {due_ms} {unique_key}");
        encode_base64_url(plain.as_bytes())
    }

    /// More parts than there should be are ignored, as in Java.
    pub fn decode(text: &str) -> Result<Self, BadRecallHandle> {
        let plain = decode_base64_url(text.as_bytes()).ok_or(BadRecallHandle)?;
        let plain = String::from_utf8(plain).map_err(|_| BadRecallHandle)?;
        let mut parts = plain.split(' ');
        let mut part = || parts.next().ok_or(BadRecallHandle);
        if part()? != VERSION {
            return Err(BadRecallHandle);
        }
        let [topic, broker_name, due_ms, unique_key] =
            [part()?, part()?, part()?, part()?].map(str::to_owned);
        if unique_key.is_empty() {
            return Err(BadRecallHandle);
        }
        Ok(Self { topic, broker_name, due_ms, unique_key })
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode_base64_url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            // One byte needs two digits, two bytes three.
            let digit = DIGITS[(bits >> (18 - 6 * nth) & 63) as usize];
            text.push(if nth <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The padding may be left out, but not be halved (`Base64.Decoder`).
fn decode_base64_url(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || padding > 0 && !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text[..text.len() - padding].chunks(4) {
        let mut bits = 0_u32;
        for byte in chunk {
            let digit = DIGITS.iter().position(|digit| digit == byte)?;
            bits = bits << 6 | digit as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        if chunk.len() == 1 {
            return None;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle() -> RecallHandle {
        RecallHandle {
            topic: "Tea".into(),
            broker_name: "broker-a-0".into(),
            due_ms: "1700000000001".into(),
            unique_key: "7F0000010001".into(),
        }
    }

    #[test]
    fn a_handle_is_javas() {
        // What `Base64.getUrlEncoder()` makes of `v1 Tea broker-a-0 1700000000001 7F0000010001`.
        let text = "djEgVGVhIGJyb2tlci1hLTAgMTcwMDAwMDAwMDAwMSA3RjAwMDAwMTAwMDE=";
        assert_eq!(handle().encode(), text);
        assert_eq!(RecallHandle::decode(text), Ok(handle()));
        assert_eq!(RecallHandle::decode(text.trim_end_matches('=')), Ok(handle()));
    }

    #[test]
    fn anything_else_is_refused() {
        let of = |plain: &str| encode_base64_url(plain.as_bytes());
        for text in [
            String::new(),
            "!!!".into(),
            "djE".into(),
            "A".into(),
            of("v2 Tea broker-a-0 1 key"),
            of("v1 Tea broker-a-0 1"),
            of("v1 Tea broker-a-0 1 "),
            handle().encode() + "=",
        ] {
            assert_eq!(RecallHandle::decode(&text), Err(BadRecallHandle), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = encode_base64_url(&bytes);
            prop_assert_eq!(text.len() % 4, 0);
            let bare = text.trim_end_matches('=');
            prop_assert_eq!(decode_base64_url(bare.as_bytes()), Some(bytes.clone()));
            prop_assert_eq!(decode_base64_url(text.as_bytes()), Some(bytes));
        }
    }
}
