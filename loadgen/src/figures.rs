//! How numbers are written for people.

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds, with a tenth only where it means something; seconds, with their unit, from one second on; `n/a`
/// without enough samples. At most seven characters below 100 seconds.
pub fn micros(value: Option<f64>) -> String {
    match value {
        None => "n/a".to_owned(),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) if value >= 999_999.5 => format!("{:.2} s", value / 1e6),
        Some(value) => count(value.round() as u64),
    }
}

/// Microseconds with their unit.
pub fn latency(value: f64) -> String {
    let text = micros(Some(value));
    if text.ends_with('s') { text } else { format!("{text} µs") }
}

/// A rate of messages.
pub fn per_second(rate: f64) -> String {
    format!("{} msg/s", count(rate.round().max(0.0) as u64))
}

/// Time since a beginning, `1:05`.
pub fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!([micros(None), micros(Some(99.94)), micros(Some(1234.5))], ["n/a", "99.9", "1,235"]);
        assert_eq!([micros(Some(999_999.4)), micros(Some(999_999.6))], ["999,999", "1.00 s"]);
        assert_eq!([latency(1234.5), latency(12_345_678.0)], ["1,235 µs", "12.35 s"]);
        assert_eq!(per_second(4999.6), "5,000 msg/s");
        assert_eq!([clock(5), clock(65), clock(3_600)], ["0:05", "1:05", "60:00"]);
    }
}
