//! Latency over time: every message as heat, so that a second kind of slowness is seen that no percentile line shows.

use std::fmt::Write;

use super::frame::Frame;
use super::scale::{Scale, Unit, write_time};

/// Messages of one interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) from_s: f64,
    pub(crate) length_s: f64,
    /// Latency in microseconds and how many messages had it.
    pub(crate) cells: Vec<(f64, u64)>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
}

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 400.0;
/// Rows of cells over the height of the chart.
const ROWS: usize = 64;
/// A line over the heat: its name, its class, its figure.
type Figure = (&'static str, &'static str, fn(&Slice) -> Option<f64>);

/// Shades of heat; each is a class of the style sheet.
const SHADES: usize = 8;

pub(crate) fn draw(heading: &str, caption: &str, total_s: f64, slices: &[Slice]) -> String {
    let mut frame = Frame::new(WIDTH, HEIGHT, heading);
    let across = Scale::Linear { low: 0.0, high: total_s.max(f64::MIN_POSITIVE) };
    let latencies = slices.iter().flat_map(|slice| slice.cells.iter().map(|(latency, _)| *latency));
    let up = Scale::log_around(latencies.chain(slices.iter().filter_map(|slice| slice.max_us)));
    let rows: Vec<[u64; ROWS]> = slices.iter().map(|slice| rows(slice, &up)).collect();
    let most = rows.iter().flatten().copied().max().unwrap_or(0);
    if most == 0 {
        frame.empty("no samples");
    }

    frame.left_axis(&up, "latency (log)", |tick| Unit::Latency.write(tick));
    let ticks: Vec<_> =
        across.ticks(10).into_iter().map(|tick| (across.place(tick), write_time(tick, total_s))).collect();
    frame.bottom_axis(&ticks, "time since the first message");
    // One path for each shade keeps the page small: a cell is a dozen characters instead of an element.
    let mut shades = vec![String::new(); SHADES];
    for (slice, rows) in slices.iter().zip(&rows) {
        let left = frame.x(across.place(slice.from_s));
        let width = (frame.x(across.place(slice.from_s + slice.length_s)) - left).max(0.5);
        for (row, count) in rows.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (low, high) = (row as f64 / ROWS as f64, (row + 1) as f64 / ROWS as f64);
            let (bottom, top) = (frame.y(low), frame.y(high));
            let _ = write!(
                shades[shade(*count, most)],
                "M{left:.1} {top:.1}h{width:.1}v{:.1}h-{width:.1}z",
                bottom - top
            );
        }
    }
    for (shade, path) in shades.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        frame.add(format_args!("<path class=\"h{shade}\" d=\"{path}\"/>"));
    }

    let lines: [Figure; 3] = [
        ("p50", "l over p50", |slice| slice.p50_us),
        ("p99", "l over p99", |slice| slice.p99_us),
        ("max", "l over max", |slice| slice.max_us),
    ];
    for (_, class, value) in lines {
        let points = slices.iter().map(|slice| {
            let middle = slice.from_s + slice.length_s / 2.0;
            value(slice).map(|latency| (frame.x(across.place(middle)), frame.y(up.place(latency))))
        });
        let points: Vec<_> = points.collect();
        frame.line("l halo", points.iter().copied());
        frame.line(class, points);
    }
    let tips = slices.iter().map(|slice| {
        let count: u64 = slice.cells.iter().map(|(_, count)| count).sum();
        let mut text = format!("{}: {count} messages", write_time(slice.from_s, total_s));
        for (name, _, value) in lines {
            let value = value(slice).map_or_else(|| "n/a".to_owned(), |value| Unit::Latency.write(value));
            let _ = write!(text, "\n{name}: {value}");
        }
        (across.place(slice.from_s), across.place(slice.from_s + slice.length_s), text)
    });
    frame.tips(tips.collect::<Vec<_>>());
    let mut legend: Vec<_> = lines.iter().map(|(name, class, _)| ((*name).to_owned(), *class)).collect();
    if most > 0 {
        const SWATCHES: [(usize, &str); 3] = [(0, "s h0"), (SHADES / 2, "s h4"), (SHADES - 1, "s h7")];
        for (shade, class) in SWATCHES {
            let count = (most as f64).powf(shade as f64 / (SHADES - 1) as f64).round();
            legend.push((format!("{} msg", Unit::Count.write(count)), class));
            if most == 1 {
                break;
            }
        }
    }
    frame.finish(heading, caption, &legend, true)
}

fn rows(slice: &Slice, up: &Scale) -> [u64; ROWS] {
    let mut rows = [0; ROWS];
    for (latency, count) in &slice.cells {
        let row = (up.place(*latency) * ROWS as f64) as usize;
        rows[row.min(ROWS - 1)] += count;
    }
    rows
}

/// The logarithm of the count in `SHADES` steps: a single message is the faintest, and is seen.
fn shade(count: u64, most: u64) -> usize {
    let place = (count.max(1) as f64).ln() / (most.max(2) as f64).ln();
    ((place * (SHADES - 1) as f64).round() as usize).min(SHADES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_slow_message_among_thousands_is_drawn() {
        let slice = Slice {
            length_s: 1.0,
            cells: vec![(100.0, 9_999), (40_000.0, 1)],
            p50_us: Some(100.0),
            max_us: Some(40_000.0),
            ..Slice::default()
        };
        let svg = draw("publish", "", 1.0, &[slice]);
        assert!(svg.contains("<path class=\"h0\"") && svg.contains("<path class=\"h7\""), "{svg}");
        for part in ["0 s: 10000 messages", "p50: 100 µs", "p99: n/a", "max: 40 ms"] {
            assert!(svg.contains(part), "'{part}' is missing in {svg}");
        }
    }

    #[test]
    fn no_slices_and_empty_slices_are_said_in_words() {
        assert!(draw("publish", "", 0.0, &[]).contains(">no samples<"));
        assert!(
            draw("publish", "", 5.0, &[Slice { length_s: 1.0, ..Slice::default() }]).contains(">no samples<")
        );
    }

    #[test]
    fn shades_are_steps_of_the_logarithm() {
        assert_eq!([shade(1, 1), shade(1, 10_000), shade(100, 10_000), shade(10_000, 10_000)], [0, 0, 4, 7]);
    }
}
