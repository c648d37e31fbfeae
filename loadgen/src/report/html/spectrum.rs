//! The percentile spectrum: how long the slowest part of all messages took, with as many nines as there are samples.

use super::frame::{Frame, STYLES};
use super::scale::{Scale, Unit, write_percentile};

/// One distribution, drawn as a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// 1/(1-quantile) and the latency in microseconds, both rising.
    pub(crate) points: Vec<(f64, f64)>,
    /// The last 1/(1-quantile) with enough samples beyond it; the rest is drawn as what it is, the luck of a few.
    pub(crate) trusted_to: f64,
    /// Colour and dashes, counted from 0.
    pub(crate) style: usize,
    /// One of several alike: drawn faint, without a legend and without a figure of its own.
    pub(crate) is_background: bool,
    /// Does not stretch the axis of latencies: what lies below it is not drawn.
    pub(crate) is_aside: bool,
}

impl Curve {
    /// The latency at 1/(1-quantile); between two points that of the upper one, as quantiles are defined.
    fn at(&self, inverse: f64) -> Option<f64> {
        self.points.iter().find(|(reached, _)| *reached >= inverse * 0.999_999).map(|(_, latency)| *latency)
    }
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 430.0;
/// Columns that answer a pointer, per tenfold of 1/(1-p).
const TIPS_PER_DECADE: usize = 8;

pub(crate) fn draw(heading: &str, caption: &str, curves: &[Curve]) -> String {
    let mut frame = Frame::new(WIDTH, HEIGHT, heading);
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let furthest = all().map(|(inverse, _)| *inverse).fold(10.0, f64::max);
    let across = Scale::Log { low: 1.0, high: furthest };
    let decisive = curves.iter().filter(|curve| !curve.is_aside).flat_map(|curve| &curve.points);
    let up = Scale::log_around(decisive.map(|(_, latency)| *latency));
    frame.left_axis(&up, "latency (log)", |tick| Unit::Latency.write(tick));
    let mut ticks: Vec<f64> = vec![1.0, 2.0, 4.0];
    ticks.extend((1..).map(|power| 10f64.powi(power)).take_while(|inverse| *inverse <= furthest * 1.000_001));
    let ticks: Vec<_> =
        ticks.into_iter().map(|inverse| (across.place(inverse), write_percentile(inverse))).collect();
    frame.bottom_axis(
        &ticks,
        "part of all messages that was at least this fast (each tenfold step adds a nine)",
    );
    if all().next().is_none() {
        frame.empty("no samples");
    }

    let mut legend = Vec::new();
    const CLASSES: [&str; STYLES] = ["l c0", "l c1", "l c2", "l c3", "l c4", "l c5"];
    // The faint ones first, so that they never cover the others.
    for is_background in [true, false] {
        for curve in curves.iter().filter(|curve| curve.is_background == is_background) {
            let class = CLASSES[curve.style % STYLES];
            let place = |(inverse, latency): &(f64, f64)| {
                let is_below = curve.is_aside && *latency < up.value(0.0);
                (!is_below).then(|| (frame.x(across.place(*inverse)), frame.y(up.place(*latency))))
            };
            let trusted =
                curve.points.partition_point(|(inverse, _)| *inverse <= curve.trusted_to * 1.000_001);
            let (sure, rest) = curve.points.split_at(trusted);
            let rest = sure.last().into_iter().chain(rest);
            let (sure, rest): (Vec<_>, Vec<_>) =
                (sure.iter().map(place).collect(), rest.map(place).collect());
            let faint = if is_background { " thin" } else { "" };
            if rest.len() > 1 {
                frame.line(&format!("{class} few{faint}"), rest);
            }
            frame.line(&format!("{class}{faint}"), sure);
            if !is_background {
                legend.push((curve.name.clone(), class));
            }
        }
    }
    if curves.iter().any(|curve| curve.points.last().is_some_and(|(last, _)| *last > curve.trusted_to)) {
        legend.push(("dotted: fewer than ten samples beyond".to_owned(), "l few neutral"));
    }

    let steps = (furthest.log10() * TIPS_PER_DECADE as f64).ceil() as usize;
    let columns = (0..steps).map(|step| {
        let inverse = across.value((step as f64 + 0.5) / steps as f64);
        let mut text = format!("at least as fast: {}", write_percentile(inverse));
        for curve in curves.iter().filter(|curve| !curve.is_background) {
            if let Some(latency) = curve.at(inverse) {
                text.push_str(&format!("\n{}: {}", curve.name, Unit::Latency.write(latency)));
            }
        }
        (step as f64 / steps as f64, (step as f64 + 1.0) / steps as f64, text)
    });
    frame.tips(columns.collect::<Vec<_>>());
    frame.finish(heading, caption, &legend, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(trusted_to: f64) -> Curve {
        Curve {
            name: "publish".into(),
            points: vec![(1.0, 100.0), (2.0, 150.0), (10.0, 300.0), (1_000.0, 9_000.0)],
            trusted_to,
            ..Curve::default()
        }
    }

    #[test]
    fn nines_stand_below_and_latencies_beside() {
        let svg = draw("spectrum", "", &[curve(1_000.0)]);
        for part in
            [">99.9 %<", ">90 %<", ">50 %<", ">100 µs<", ">10 ms<", "publish: 300 µs", "latency (log)"]
        {
            assert!(svg.contains(part), "'{part}' is missing in {svg}");
        }
        assert!(!svg.contains("dotted"));
    }

    #[test]
    fn what_few_samples_say_is_drawn_apart() {
        let svg = draw("spectrum", "", &[curve(10.0)]);
        assert!(svg.contains("class=\"l c0 few\"") && svg.contains("dotted: fewer than ten"), "{svg}");
    }

    #[test]
    fn a_curve_aside_does_not_stretch_the_axis() {
        let aside = |is_aside| Curve { points: vec![(1.0, 0.1), (10.0, 200.0)], is_aside, ..curve(10.0) };
        assert!(draw("spectrum", "", &[curve(10.0), aside(false)]).contains("0.1 µs<"));
        assert!(!draw("spectrum", "", &[curve(10.0), aside(true)]).contains(">0.1 µs<"));
    }

    #[test]
    fn nothing_measured_is_said_in_words() {
        assert!(draw("spectrum", "", &[]).contains(">no samples<"));
        assert!(draw("spectrum", "", &[Curve::default()]).contains(">no samples<"));
    }
}
