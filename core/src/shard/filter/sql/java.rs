//! How Java reads numbers and orders doubles.

use std::cmp::Ordering;
use std::str::FromStr;

/// `Integer#valueOf`, `Long#valueOf`; of ASCII digits only.
pub(super) fn integer<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `Double#valueOf`, but for hexadecimal numbers.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    let is_blank = |byte: &u8| *byte <= b' ';
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let end = text.iter().rposition(|byte| !is_blank(byte))? + 1;
    let text = &text[begin..end];
    let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let sign = if text[0] == b'-' { -1.0 } else { 1.0 };
    match unsigned {
        b"NaN" => return Some(f64::NAN),
        b"Infinity" => return Some(sign * f64::INFINITY),
        _ => {}
    }
    let digits = match unsigned {
        [digits @ .., b'f' | b'F' | b'd' | b'D'] => digits,
        digits => digits,
    };
    // What Rust reads besides, such as `inf`, begins with a letter.
    let first = digits.first()?;
    if !first.is_ascii_digit() && *first != b'.' {
        return None;
    }
    let value: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(sign * value)
}

/// `Boolean#valueOf`.
pub(super) fn boolean(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"true")
}

/// `Double#compareTo`: zeros have signs, and what is no number is above all that are.
pub(super) fn compare(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => left.total_cmp(&right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_read_as_java_reads_them() {
        let read: [(&str, f64); 12] = [
            ("1", 1.0),
            (" +1.5\t", 1.5),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("2f", 2.0),
            ("2.5D", 2.5),
            ("1e999", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("+Infinity", f64::INFINITY),
            ("007", 7.0),
        ];
        for (text, value) in read {
            assert_eq!(double(text.as_bytes()), Some(value), "{text}");
        }
        assert!(double(b"-NaN").unwrap().is_nan());
        for text in
            ["", " ", "+", "-", ".", "f", "e5", "1e", "inf", "infinity", "nan", "1_0", "--1", "+-1", "1ff"]
        {
            assert_eq!(double(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn integers_have_no_blanks_and_fit() {
        assert_eq!(integer::<i32>(b"+5"), Some(5));
        assert_eq!(integer::<i32>(b"-2147483648"), Some(i32::MIN));
        for text in ["", " 5", "5 ", "2147483648", "3.5", "5L", "-"] {
            assert_eq!(integer::<i32>(text.as_bytes()), None, "{text}");
        }
        assert_eq!(integer::<i64>(b"2147483648"), Some(2_147_483_648));
    }

    #[test]
    fn doubles_are_ordered_as_java_orders_them() {
        assert_eq!(compare(-0.0, 0.0), Ordering::Less);
        assert_eq!(compare(f64::NAN, f64::INFINITY), Ordering::Greater);
        assert_eq!(compare(f64::INFINITY, -f64::NAN), Ordering::Less);
        assert_eq!(compare(f64::NAN, -f64::NAN), Ordering::Equal);
        assert_eq!(compare(1.0, 2.0), Ordering::Less);
    }
}
