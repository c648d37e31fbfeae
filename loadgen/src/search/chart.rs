//! The curve as one page that works offline: rates to the right, latencies upwards on a log scale.

use std::fmt::Write;

use super::bound::Percentile;
use super::curve::Point;
use super::report::{CurveReport, remarks};
use crate::figures::{count, latency, micros, per_second};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 76.0;
/// Room for the lines' names.
const RIGHT: f64 = 70.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Names of lines that end near each other are moved this far apart.
const NAME_HEIGHT: f64 = 15.0;

/// The percentiles drawn, with their class in the style sheet.
const LINES: [(Percentile, &str); 4] =
    [(Percentile::P50, "a"), (Percentile::P99, "b"), (Percentile::P999, "c"), (Percentile::P9999, "d")];

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6a737d; --grid: #d8dde3; --paper: #ffffff;
  --a: #1f77b4; --b: #2f9e44; --c: #e8590c; --d: #c2255c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #98a2ad; --grid: #333a42; --paper: #16191d;
  --a: #5aa9e6; --b: #63c174; --c: #ff9554; --d: #f06595; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--grid); } .frame { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; } .a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); }
.d { stroke: var(--d); } text.a, text.b, text.c, text.d { stroke: none; font-weight: 600; }
text.a { fill: var(--a); } text.b { fill: var(--b); } text.c { fill: var(--c); } text.d { fill: var(--d); }
circle { fill: currentColor; } circle.a { color: var(--a); } circle.b { color: var(--b); } circle.c { color: var(--c); }
circle.d { color: var(--d); } circle.unsound { fill: var(--paper); stroke-width: 2; }
table { border-collapse: collapse; margin: 1.5rem 0; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--grid); }
td:last-child, th:last-child { text-align: left; } pre { overflow-x: auto; color: var(--soft); }
p { color: var(--soft); }
";

impl CurveReport {
    /// One self-contained page: chart, table, scenario.
    pub fn html(&self) -> String {
        let title = format!("Rate and latency, {}", self.measure_name());
        let saturation = self
            .saturation
            .map(|rate| format!(" A closed loop got {} through.", per_second(rate)))
            .unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n\
             <p>{sizes}; each rate held for {hold:?} after {warmup:?} of warm-up; latency from the planned \
             send.{saturation} Hollow points are no clean answer of the broker: the table says why.</p>\n\
             {chart}\n{table}\n<h2>Scenario</h2>\n<pre>{scenario}</pre>\n<p>apogee-loadgen {version}</p>\n\
             </body></html>\n",
            sizes = escape(&self.scenario.messages.size.to_string()),
            hold = self.scenario.run.duration,
            warmup = self.scenario.run.warmup,
            chart = chart(&self.points),
            table = table(&self.points),
            scenario = escape(&self.scenario.to_toml()),
            version = self.version,
        )
    }
}

fn table(points: &[Point]) -> String {
    let mut out = String::from("<table><tr><th>planned/s<th>acknowledged/s");
    for percentile in Percentile::ALL {
        let _ = write!(out, "<th>{}", percentile.name());
    }
    out += "<th>max, µs<th>samples<th></tr>\n";
    for point in points {
        let _ = write!(out, "<tr><td>{}<td>{}", count(point.rate), count(point.acknowledged.round() as u64));
        for percentile in Percentile::ALL {
            let _ = write!(out, "<td>{}", micros(percentile.of(&point.latency)));
        }
        let (max, samples) = (micros(point.latency.max_us), count(point.latency.count));
        let _ = writeln!(out, "<td>{max}<td>{samples}<td>{}</tr>", escape(&remarks(point)));
    }
    out + "</table>"
}

/// Where figures lie in the picture.
struct Axes {
    rate_max: f64,
    /// Powers of ten, in microseconds.
    decade_min: i32,
    decade_max: i32,
}

impl Axes {
    fn around(points: &[Point]) -> Option<Axes> {
        let drawn = |point: &Point| LINES.map(|(percentile, _)| percentile.of(&point.latency));
        let values: Vec<f64> = points.iter().flat_map(drawn).flatten().filter(|us| *us > 0.0).collect();
        let (min, max) = (values.iter().copied().reduce(f64::min)?, values.iter().copied().reduce(f64::max)?);
        let decade_min = min.log10().floor() as i32;
        Some(Axes {
            rate_max: points.iter().map(|point| point.rate).max()? as f64,
            decade_min,
            decade_max: (max.log10().ceil() as i32).max(decade_min + 1),
        })
    }

    fn x(&self, rate: f64) -> f64 {
        LEFT + rate / self.rate_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, us: f64) -> f64 {
        let decades = f64::from(self.decade_max - self.decade_min);
        let share = (us.log10() - f64::from(self.decade_min)) / decades;
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

fn chart(points: &[Point]) -> String {
    let Some(axes) = Axes::around(points) else {
        return "<p>No rate had samples enough for a percentile.</p>".to_owned();
    };
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"latency over rate\">\n");
    grid(&mut out, &axes);
    let mut names: Vec<(f64, Percentile, &str)> = Vec::new();
    for (percentile, class) in LINES {
        let places: Vec<(f64, f64, &Point, f64)> = points
            .iter()
            .filter_map(|point| {
                let us = percentile.of(&point.latency).filter(|us| *us > 0.0)?;
                Some((axes.x(point.rate as f64), axes.y(us), point, us))
            })
            .collect();
        let line: Vec<String> = places.iter().map(|(x, y, ..)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline class=\"line {class}\" points=\"{}\"/>", line.join(" "));
        for (x, y, point, us) in &places {
            let unsound = if point.is_sound() { "" } else { " unsound" };
            let title = format!("{}: {} {}", per_second(point.rate as f64), percentile.name(), latency(*us));
            let _ = writeln!(
                out,
                "<circle class=\"{class}{unsound}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{title}</title></circle>"
            );
        }
        names.extend(places.last().map(|(_, y, ..)| (*y, percentile, class)));
    }
    names.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut lowest_free = f64::INFINITY;
    for (y, percentile, class) in names {
        let y = y.min(lowest_free);
        lowest_free = y - NAME_HEIGHT;
        let x = WIDTH - RIGHT + 10.0;
        let _ = writeln!(
            out,
            "<text class=\"{class}\" x=\"{x}\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            percentile.name()
        );
    }
    out + "</svg>"
}

fn grid(out: &mut String, axes: &Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for decade in axes.decade_min..=axes.decade_max {
        let us = 10f64.powi(decade);
        let (y, name) = (axes.y(us), time(us));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            y + 4.0,
        );
    }
    let step = round_step(axes.rate_max / 6.0);
    let mut rate = 0.0;
    while rate <= axes.rate_max {
        let x = axes.x(rate);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            count(rate as u64),
        );
        rate += step;
    }
    let _ = writeln!(
        out,
        "<path class=\"frame\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">planned messages per second</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 8.0,
    );
}

/// A power of ten of microseconds, in the unit that needs no zeros.
fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", us / 1e6),
        us if us >= 1e3 => format!("{} ms", us / 1e3),
        us => format!("{us} µs"),
    }
}

/// 1, 2 or 5 times a power of ten, not below `step` and not below 1.
fn round_step(step: f64) -> f64 {
    let unit = 10f64.powf(step.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * unit)
        .find(|round| *round >= step)
        .unwrap_or(unit * 10.0)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::curve;
    use super::*;

    #[test]
    fn every_point_is_drawn_and_unsound_ones_are_hollow() {
        let page = curve().html();
        assert_eq!(page.matches("<circle").count(), 2 * LINES.len());
        assert_eq!(page.matches(" unsound\"").count(), LINES.len());
        assert_eq!(page.matches("<polyline").count(), LINES.len());
        assert!(page.contains("rate not reached") && page.contains("[load]"), "{page}");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = curve().html();
        for foreign in ["http", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_curve_without_percentiles_is_a_page_all_the_same() {
        let mut curve = curve();
        curve.points.clear();
        assert!(curve.html().contains("No rate had samples enough"));
    }

    #[test]
    fn axes_have_round_marks() {
        let table = [(0.1, 1.0), (1.0, 1.0), (1.1, 2.0), (420.0, 500.0), (6_000.0, 10_000.0)];
        for (step, expected) in table {
            assert_eq!(round_step(step), expected, "{step}");
        }
        assert_eq!([time(10.0), time(1_000.0), time(1e7)], ["10 µs", "1 ms", "10 s"]);
    }
}
