//! Figures over time as lines on one axis that begins at zero.

use super::frame::{Frame, STYLES};
use super::scale::{Scale, Unit, write_time};

/// One figure over time; `None` is a gap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Seconds since the first message, rising, and the value.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// Several figures of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    pub(crate) heading: &'a str,
    pub(crate) caption: &'a str,
    /// What stands above the vertical axis.
    pub(crate) axis: &'a str,
    pub(crate) unit: Unit,
    pub(crate) total_s: f64,
    /// Told apart at the beginning, if not zero.
    pub(crate) warmup_s: f64,
    pub(crate) lines: &'a [Line],
    /// Said in place of the lines if there are none.
    pub(crate) none: &'a str,
}

const WIDTH: f64 = 500.0;
const HEIGHT: f64 = 280.0;

const CLASSES: [&str; STYLES] = ["l c0", "l c1", "l c2", "l c3", "l c4", "l c5"];

pub(crate) fn draw(chart: &Lines<'_>) -> String {
    let mut frame = Frame::new(WIDTH, HEIGHT, chart.heading);
    let total = chart.total_s.max(f64::MIN_POSITIVE);
    let across = Scale::Linear { low: 0.0, high: total };
    let values = chart.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
    let up = Scale::from_zero(values.clone().fold(0.0, f64::max));
    frame.band(0.0, across.place(chart.warmup_s), "warm-up");
    frame.left_axis(&up, chart.axis, |tick| chart.unit.write(tick));
    let ticks: Vec<_> =
        across.ticks(5).into_iter().map(|tick| (across.place(tick), write_time(tick, total))).collect();
    frame.bottom_axis(&ticks, "time since the first message");
    if values.count() == 0 {
        frame.empty(chart.none);
        return frame.finish(chart.heading, chart.caption, &[], false);
    }
    for (line, class) in chart.lines.iter().zip(CLASSES.iter().cycle()) {
        let points = line
            .points
            .iter()
            .map(|(at, value)| value.map(|value| (frame.x(across.place(*at)), frame.y(up.place(value)))));
        let points: Vec<_> = points.collect();
        frame.line(class, points);
    }
    frame.tips(tips(chart, &across));
    let legend: Vec<_> = chart
        .lines
        .iter()
        .zip(CLASSES.iter().cycle())
        .map(|(line, class)| (line.name.clone(), *class))
        .collect();
    frame.finish(chart.heading, chart.caption, &legend, false)
}

/// A column around each moment of the longest line, with what every line says there.
fn tips(chart: &Lines<'_>, across: &Scale) -> Vec<(f64, f64, String)> {
    let Some(longest) = chart.lines.iter().max_by_key(|line| line.points.len()) else { return vec![] };
    let moments: Vec<f64> = longest.points.iter().map(|(at, _)| *at).collect();
    let between = |a: usize, b: usize| across.place((moments[a] + moments[b]) / 2.0);
    let columns = moments.iter().enumerate().map(|(index, moment)| {
        let from = if index > 0 { between(index - 1, index) } else { 0.0 };
        let to = if index + 1 < moments.len() { between(index, index + 1) } else { 1.0 };
        let mut text = write_time(*moment, chart.total_s);
        for line in chart.lines {
            let nearest = line.points.partition_point(|(at, _)| at < moment);
            if let Some((_, Some(value))) = line.points.get(nearest) {
                text.push_str(&format!("\n{}: {}", line.name, chart.unit.write(*value)));
            }
        }
        (from, to, text)
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: &[Line]) -> String {
        draw(&Lines {
            heading: "throughput",
            caption: "",
            axis: "msg/s",
            unit: Unit::Rate,
            total_s: 10.0,
            warmup_s: 2.0,
            lines,
            none: "nothing was sent",
        })
    }

    #[test]
    fn lines_have_names_values_and_dashes_of_their_own() {
        let line = |name: &str, value| Line {
            name: name.into(),
            points: vec![(0.5, Some(value)), (1.5, None), (2.5, Some(value))],
        };
        let svg = chart(&[line("planned", 5_000.0), line("acked <1>", 4_000.0)]);
        for part in
            ["class=\"l c0\"", "class=\"l c1\"", "planned: 5000/s", "acked &lt;1&gt;: 4000/s", ">warm-up<"]
        {
            assert!(svg.contains(part), "'{part}' is missing in {svg}");
        }
        assert!(svg.contains(">6000/s<"), "the axis ends at a round figure: {svg}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert!(chart(&[]).contains(">nothing was sent<"));
        assert!(chart(&[Line::default()]).contains(">nothing was sent<"));
    }
}
