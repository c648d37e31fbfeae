//! From values to places on a drawing, and how values are written beside an axis.

/// How values spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear { low: f64, high: f64 },
    Log { low: f64, high: f64 },
}

/// Marks on one axis at most, so that their labels never touch.
const TICKS_MAX: usize = 12;

impl Scale {
    /// From zero to a round figure above all values.
    pub(crate) fn from_zero(highest: f64) -> Scale {
        let step = round_step(highest.max(f64::MIN_POSITIVE) / 4.0);
        let high = if highest > 0.0 { (highest / step).ceil() * step } else { 1.0 };
        Scale::Linear { low: 0.0, high }
    }

    /// From 1, 2 or 5 times a power of ten below all values to such a figure above them; a single value gets room on
    /// both sides. Without any positive value, one decade.
    pub(crate) fn log_around(values: impl IntoIterator<Item = f64>) -> Scale {
        let (low, high) = values
            .into_iter()
            .filter(|value| *value > 0.0 && value.is_finite())
            .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return Scale::Log { low: 1.0, high: 10.0 };
        }
        let low = *fine_marks(low / 10.0, low * 0.97).last().expect("a decade has marks");
        let high = *fine_marks(high * 1.03, high * 10.0).first().expect("a decade has marks");
        Scale::Log { low, high }
    }

    /// The place of a value, 0 at the low end and 1 at the high one; beyond them it stays at the end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let place = match *self {
            Scale::Linear { low, high } => (value - low) / (high - low),
            Scale::Log { low, high } => (value.max(low) / low).ln() / (high / low).ln(),
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The value at a place; the reverse of `place`.
    pub(crate) fn value(&self, place: f64) -> f64 {
        match *self {
            Scale::Linear { low, high } => low + (high - low) * place,
            Scale::Log { low, high } => low * (high / low).powf(place),
        }
    }

    /// Round values to be marked; `about` so many on a linear scale.
    pub(crate) fn ticks(&self, about: usize) -> Vec<f64> {
        match *self {
            Scale::Linear { low, high } => {
                let step = round_step((high - low) / about as f64);
                let first = (low / step).ceil() as i64;
                let marks = (first..).map(|number| number as f64 * step);
                marks.take_while(|mark| *mark <= high + step * 1e-6).take(TICKS_MAX).collect()
            }
            Scale::Log { low, high } => {
                let fine = fine_marks(low, high);
                if fine.len() <= TICKS_MAX {
                    return fine;
                }
                let decades: Vec<_> = fine.into_iter().filter(|mark| is_power_of_ten(*mark)).collect();
                let skip = decades.len().div_ceil(TICKS_MAX).max(1);
                decades.into_iter().step_by(skip).collect()
            }
        }
    }
}

/// 1, 2 and 5 times powers of ten, within bounds.
fn fine_marks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let marks = (first..=last).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
    marks.filter(|mark| *mark >= low * 0.999_999 && *mark <= high * 1.000_001).collect()
}

fn is_power_of_ten(value: f64) -> bool {
    (value.log10() - value.log10().round()).abs() < 1e-9
}

/// The next of 1, 2, 2.5 and 5 times a power of ten that is no smaller.
fn round_step(at_least: f64) -> f64 {
    let power = 10f64.powf(at_least.max(1e-12).log10().floor());
    let digits = [1.0, 2.0, 2.5, 5.0, 10.0];
    let digit = digits.into_iter().find(|digit| digit * power >= at_least * 0.999_999).unwrap_or(10.0);
    digit * power
}

/// What the values of an axis are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds, written in the unit that suits.
    Latency,
    /// Messages per second.
    Rate,
    /// Events in an interval.
    Count,
    /// Of one CPU.
    Percent,
    Mebibytes,
}

impl Unit {
    /// A value with its unit, in at most three digits.
    pub(crate) fn write(self, value: f64) -> String {
        match self {
            Unit::Latency if value >= 999_500.0 => format!("{} s", three(value / 1e6)),
            Unit::Latency if value >= 999.5 => format!("{} ms", three(value / 1e3)),
            Unit::Latency => format!("{} µs", three(value)),
            Unit::Rate => format!("{}/s", metric(value)),
            Unit::Count => metric(value),
            Unit::Percent => format!("{} %", three(value)),
            Unit::Mebibytes => format!("{} MiB", metric(value)),
        }
    }
}

/// Seconds since a beginning; from two minutes on as minutes and seconds.
pub(crate) fn write_time(seconds: f64, total: f64) -> String {
    if total < 120.0 {
        return format!("{} s", three(seconds));
    }
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// A quantile given as 1/(1-q), written as a percentage with as many nines as it has.
pub(crate) fn write_percentile(inverse: f64) -> String {
    if inverse <= 1.0 {
        return "0 %".to_owned();
    }
    let digits = (inverse.log10() - 2.0).ceil().clamp(0.0, 9.0) as usize;
    let text = format!("{:.*}", digits + 1, 100.0 - 100.0 / inverse);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

fn metric(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{}M", three(value / 1e6)),
        value if value >= 9_995.0 => format!("{}k", three(value / 1e3)),
        value if value >= 999.5 => format!("{value:.0}"),
        value => three(value),
    }
}

/// Three digits at most, no empty decimals.
fn three(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 99.95 => return format!("{value:.0}"),
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_at_round_figures_around_all_values() {
        assert_eq!(Scale::from_zero(4_821.0), Scale::Linear { low: 0.0, high: 6_000.0 });
        assert_eq!(Scale::from_zero(0.0), Scale::Linear { low: 0.0, high: 1.0 });
        let Scale::Log { low, high } = Scale::log_around([87.0, 30_000.0, 0.0]) else { panic!() };
        assert!((low - 50.0).abs() < 1e-6 && (high - 50_000.0).abs() < 1e-3, "{low} {high}");
        assert_eq!(Scale::log_around([]), Scale::Log { low: 1.0, high: 10.0 });
    }

    #[test]
    fn a_value_comes_back_from_its_place() {
        for scale in [Scale::Linear { low: 0.0, high: 8.0 }, Scale::Log { low: 2.0, high: 2_000.0 }] {
            assert_eq!([scale.place(-5.0), scale.place(1e9), scale.place(f64::NAN)], [0.0, 1.0, 0.0]);
            assert!((scale.value(scale.place(5.0)) - 5.0).abs() < 1e-9);
        }
    }

    #[test]
    fn no_axis_has_more_marks_than_it_has_room_for() {
        for high in [1.0, 3.0, 999.0, 1e9, 1e300] {
            assert!(Scale::from_zero(high).ticks(5).len() <= TICKS_MAX);
            let log = Scale::log_around([1e-3, high]);
            assert!((1..=TICKS_MAX).contains(&log.ticks(5).len()), "{high}: {:?}", log.ticks(5));
        }
    }

    #[test]
    fn values_read_well() {
        let latencies = [0.5, 87.0, 999.6, 1_234.0, 34_000.0, 999_999.0, 12_340_000.0];
        assert_eq!(
            latencies.map(|value| Unit::Latency.write(value)),
            ["0.5 µs", "87 µs", "1 ms", "1.23 ms", "34 ms", "1 s", "12.3 s"]
        );
        assert_eq!([0.0, 5_000.0, 15_000.0].map(|value| Unit::Rate.write(value)), ["0/s", "5000/s", "15k/s"]);
        assert_eq!(Unit::Mebibytes.write(700.0), "700 MiB");
        assert_eq!([write_time(5.0, 30.0), write_time(65.0, 300.0)], ["5 s", "1:05"]);
        assert_eq!(write_time(3_725.0, 9_000.0), "1:02:05");
        assert_eq!(
            [1.0, 2.0, 10.0, 100.0, 1_000.0, 100_000.0].map(write_percentile),
            ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.999 %"]
        );
    }
}
