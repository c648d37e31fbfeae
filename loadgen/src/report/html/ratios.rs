//! Ratios with their intervals beside the line of no difference.

use super::frame::Frame;
use super::scale::Scale;

#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) estimate: f64,
    pub(crate) high: f64,
    pub(crate) verdict: String,
}

const WIDTH: f64 = 1000.0;
const ROW_HEIGHT: f64 = 30.0;
/// Above and below the rows.
const MARGINS: f64 = 82.0;

pub(crate) fn draw(intervals: &[Interval]) -> String {
    let heading = "Ratios and how sure they are";
    let rows = intervals.len().max(2) as f64;
    let mut frame = Frame::new(WIDTH, rows * ROW_HEIGHT + MARGINS, heading);
    let ends = intervals.iter().flat_map(|one| [one.low, one.high, 1.0 / one.low, 1.0 / one.high]);
    // Symmetric on a logarithmic axis: half is as far from 1 as double.
    let furthest = ends.filter(|end| end.is_finite()).fold(1.25, f64::max);
    let across = Scale::Log { low: 1.0 / furthest / 1.05, high: furthest * 1.05 };
    let ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
    let reach = |tick: &f64| *tick >= 1.0 / furthest / 1.06 && *tick <= furthest * 1.06;
    let crowded = furthest > 4.0;
    let ticks: Vec<_> = ticks
        .into_iter()
        .filter(reach)
        .filter(|tick| !crowded || ![0.8, 1.25].contains(tick))
        .map(|tick| (across.place(tick), format!("{tick}")))
        .collect();
    frame.bottom_axis(&ticks, "A / B (log); the thick line is no difference");
    if intervals.is_empty() {
        frame.empty("too few runs for any interval");
    }
    let (top, bottom, one) = (frame.y(1.0), frame.y(0.0), frame.x(across.place(1.0)));
    frame.add(format_args!("<path class=\"l neutral\" d=\"M{one:.1} {top:.1}V{bottom:.1}\"/>"));
    for (row, interval) in intervals.iter().enumerate() {
        let y = frame.y(1.0 - (row as f64 + 0.62) / rows);
        let place = |value: f64| frame.x(across.place(value));
        let (low, middle, high) = (place(interval.low), place(interval.estimate), place(interval.high));
        let name = super::document::escape(&format!("{}: {}", interval.name, interval.verdict));
        frame.add(format_args!(
            "<path class=\"l c0\" d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {:.1}V{:.1}M{high:.1} {:.1}V{:.1}\"/>",
            y - 5.0,
            y + 5.0,
            y - 5.0,
            y + 5.0
        ));
        frame.add(format_args!("<path class=\"l c0 dot\" d=\"M{middle:.1} {y:.1}h0\"/>"));
        // On the side where there is room.
        let (class, x) = if middle < one { ("", high.max(one) + 12.0) } else { ("e", low.min(one) - 12.0) };
        frame.add(format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{name}</text>", y + 4.0));
    }
    frame.finish(heading, "", &[], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_named_and_the_line_of_no_difference_is_there() {
        let interval = Interval {
            name: "publish <p99>".into(),
            low: 0.4,
            estimate: 0.5,
            high: 0.6,
            verdict: "A is better".into(),
        };
        let svg = draw(&[interval]);
        for part in ["publish &lt;p99&gt;: A is better", "class=\"l neutral\"", ">0.5<", ">2<"] {
            assert!(svg.contains(part), "'{part}' is missing in {svg}");
        }
        assert!(draw(&[]).contains("too few runs"));
    }
}
