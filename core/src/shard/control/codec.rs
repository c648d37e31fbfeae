//! The few forms that fields of control records take. Each value has exactly one encoding: what decodes encodes
//! back to the same bytes.
//!
//! - unsigned: LEB128, seven bits a byte from the lowest, the top bit says that more follow; shortest form only
//! - signed: zigzag (0, −1, 1, −2, …), then as unsigned
//! - flag: one byte, 0 or 1
//! - text: length in bytes, unsigned, then UTF-8

use super::{ControlError, ControlKind};

/// A `u64` in groups of seven bits.
const VARINT_BYTES_MAX: usize = 10;

pub(in crate::shard) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(in crate::shard) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, (value << 1 ^ value >> 63) as u64);
}

pub(in crate::shard) fn put_flag(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

pub(in crate::shard) fn put_text(out: &mut Vec<u8>, value: &str) {
    put_unsigned(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// Reads fields one after the other. Lengths meet what is left before anything is allocated from them.
pub(in crate::shard) struct Fields<'a> {
    kind: ControlKind,
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(in crate::shard) fn new(kind: ControlKind, bytes: &'a [u8]) -> Self {
        Self { kind, left: bytes }
    }

    pub(in crate::shard) fn unsigned(&mut self, field: &'static str) -> Result<u64, ControlError> {
        let mut value = 0;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if bits << shift >> shift != bits {
                return Err(self.bad(field, "number above 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(self.bad(field, "number not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.bad(field, "number above 64 bits"))
    }

    pub(in crate::shard) fn signed(&mut self, field: &'static str) -> Result<i64, ControlError> {
        let value = self.unsigned(field)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(in crate::shard) fn u32(&mut self, field: &'static str) -> Result<u32, ControlError> {
        let value = self.unsigned(field)?;
        u32::try_from(value).map_err(|_| self.bad(field, "number above 32 bits"))
    }

    pub(in crate::shard) fn i32(&mut self, field: &'static str) -> Result<i32, ControlError> {
        let value = self.signed(field)?;
        i32::try_from(value).map_err(|_| self.bad(field, "number above 32 bits"))
    }

    pub(in crate::shard) fn flag(&mut self, field: &'static str) -> Result<bool, ControlError> {
        match self.byte(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad(field, "flag neither 0 nor 1")),
        }
    }

    pub(in crate::shard) fn text(&mut self, field: &'static str) -> Result<&'a str, ControlError> {
        let len = self.unsigned(field)?;
        let bytes = usize::try_from(len).ok().and_then(|len| self.left.split_at_checked(len));
        let Some((text, left)) = bytes else { return Err(self.cut_short(field)) };
        self.left = left;
        std::str::from_utf8(text).map_err(|_| self.bad(field, "text not UTF-8"))
    }

    pub(in crate::shard) fn byte(&mut self, field: &'static str) -> Result<u8, ControlError> {
        let Some((&byte, left)) = self.left.split_first() else { return Err(self.cut_short(field)) };
        self.left = left;
        Ok(byte)
    }

    pub(in crate::shard) fn end(&self) -> Result<(), ControlError> {
        match self.left.len() {
            0 => Ok(()),
            count => Err(ControlError::TrailingBytes { kind: self.kind, count }),
        }
    }

    pub(in crate::shard) fn bad(&self, field: &'static str, problem: &'static str) -> ControlError {
        ControlError::BadField { kind: self.kind, field, problem }
    }

    fn cut_short(&self, field: &'static str) -> ControlError {
        ControlError::CutShort { kind: self.kind, field }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(bytes: &[u8]) -> Fields<'_> {
        Fields::new(ControlKind::TopicPut, bytes)
    }

    fn problem<T: std::fmt::Debug>(result: Result<T, ControlError>) -> &'static str {
        match result {
            Err(ControlError::BadField { field: "f", problem, .. }) => problem,
            other => panic!("expected a bad field, got {other:?}"),
        }
    }

    #[test]
    fn numbers_have_known_bytes() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            put_unsigned(&mut out, value);
            assert_eq!(out, bytes);
        }
        for (value, byte) in [(0, 0), (-1, 1), (1, 2), (-2, 3)] {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(out, [byte]);
        }
    }

    #[test]
    fn second_encodings_of_a_value_are_refused() {
        assert_eq!(problem(fields(&[0x80, 0x00]).unsigned("f")), "number not in its shortest form");
        assert_eq!(problem(fields(&[0xff, 0x80, 0x00]).unsigned("f")), "number not in its shortest form");
        let mut above = [0xff; 10];
        above[9] = 0x02;
        assert_eq!(problem(fields(&above).unsigned("f")), "number above 64 bits");
        assert_eq!(problem(fields(&[0xff; 11]).unsigned("f")), "number above 64 bits");
        assert_eq!(problem(fields(&[2]).flag("f")), "flag neither 0 nor 1");
    }

    #[test]
    fn length_beyond_the_record_is_cut_short_whatever_it_claims() {
        let mut bytes = Vec::new();
        put_unsigned(&mut bytes, u64::MAX);
        assert_eq!(
            fields(&bytes).text("f"),
            Err(ControlError::CutShort { kind: ControlKind::TopicPut, field: "f" })
        );
    }

    #[test]
    fn narrow_numbers_have_their_range() {
        let mut bytes = Vec::new();
        put_unsigned(&mut bytes, u64::from(u32::MAX) + 1);
        assert_eq!(problem(fields(&bytes).u32("f")), "number above 32 bits");
        let mut bytes = Vec::new();
        put_signed(&mut bytes, i64::from(i32::MIN) - 1);
        assert_eq!(problem(fields(&bytes).i32("f")), "number above 32 bits");
        assert_eq!(problem(fields(&[1, 0xff]).text("f")), "text not UTF-8");
    }

    proptest! {
        #[test]
        fn values_round_trip(unsigned: u64, signed: i64, narrow: i32, flag: bool, text: String) {
            let mut out = Vec::new();
            put_unsigned(&mut out, unsigned);
            put_signed(&mut out, signed);
            put_signed(&mut out, i64::from(narrow));
            put_flag(&mut out, flag);
            put_text(&mut out, &text);
            let mut read = fields(&out);
            prop_assert_eq!(read.unsigned("f"), Ok(unsigned));
            prop_assert_eq!(read.signed("f"), Ok(signed));
            prop_assert_eq!(read.i32("f"), Ok(narrow));
            prop_assert_eq!(read.flag("f"), Ok(flag));
            prop_assert_eq!(read.text("f"), Ok(text.as_str()));
            prop_assert_eq!(read.end(), Ok(()));
        }
    }
}
