//! How a run looks while it goes on: a few lines that renew themselves on a terminal, one line now and then elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::driver::run::{Observer, Phase, View};
use crate::failure::Failures;
use crate::figures::{clock, count, micros};
use crate::latency;
use crate::live::{self, Live, LiveLatency};
use crate::scenario::Scenario;

/// Rates are taken over about the last second.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// Samples kept for it; at the usual tick they span more than `RATE_SPAN`, the oldest leaves first.
const SAMPLES_MAX: usize = 64;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The observer that suits standard error.
pub fn for_stderr() -> Box<dyn Observer> {
    if std::io::stderr().is_terminal() { Box::new(Terminal::new()) } else { Box::new(Lines::default()) }
}

/// For series of runs: one renewing view of each on a terminal; elsewhere nothing, the series has its own lines.
pub fn on_terminal() -> Box<dyn Observer> {
    if std::io::stderr().is_terminal() { Box::new(Terminal::new()) } else { Box::new(Quiet) }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn on_step(&mut self, _: &str) {}
    fn on_tick(&mut self, _: &View<'_>) {}
    fn on_end(&mut self) {}
}

/// Counters of all threads at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    at: Duration,
    sent: u64,
    acked: u64,
    received: u64,
    failed: u64,
    in_flight: u64,
}

impl Counts {
    fn read(view: &View<'_>) -> Counts {
        let sum = |figure: fn(&Live) -> u64| view.live.iter().map(|live| figure(live)).sum();
        Counts {
            at: view.elapsed,
            sent: sum(|live| live.sent.get()),
            acked: sum(|live| live.acked.get()),
            received: sum(|live| live.received.get()),
            failed: sum(|live| live.failed.get()),
            in_flight: sum(|live| live.in_flight.get()),
        }
    }
}

/// Figures derived from what was seen so far.
#[derive(Debug, Default)]
struct Gauge {
    samples: VecDeque<Counts>,
}

impl Gauge {
    /// Takes in the newest counts and gives messages sent, acknowledged and received per second.
    fn rates(&mut self, newest: Counts) -> [f64; 3] {
        while self.samples.len() > 1 && newest.at.saturating_sub(self.samples[1].at) >= RATE_SPAN
            || self.samples.len() == SAMPLES_MAX
        {
            self.samples.pop_front();
        }
        self.samples.push_back(newest);
        let oldest = self.samples[0];
        let span = newest.at.saturating_sub(oldest.at).as_secs_f64();
        let rate = |new: u64, old: u64| if span > 0.0 { (new - old) as f64 / span } else { 0.0 };
        [
            rate(newest.sent, oldest.sent),
            rate(newest.acked, oldest.acked),
            rate(newest.received, oldest.received),
        ]
    }
}

fn flow_line(rates: [f64; 3], counts: Counts, consume: bool) -> String {
    let [sent, acked, received] = rates.map(|rate| count(rate.round() as u64));
    let received = if consume { format!("  received {received:>7}/s") } else { String::new() };
    format!("sent {sent:>7}/s  acked {acked:>7}/s{received}  in flight {}", count(counts.in_flight))
}

/// One distribution of all threads, as far as it has got.
struct Row {
    name: &'static str,
    part: fn(&Live) -> &LiveLatency,
}

const PUBLISH: Row = Row { name: "publish", part: |live| &live.publish };
const END_TO_END: Row = Row { name: "end to end", part: |live| &live.end_to_end };
const LATENESS: Row = Row { name: "own lateness", part: |live| &live.lateness };

impl Row {
    /// The distributions that a scenario has. A closed loop has no plan to be late against.
    fn of(scenario: &Scenario) -> Vec<Row> {
        let rows = [(PUBLISH, true), (END_TO_END, scenario.consumes()), (LATENESS, scenario.load.is_open())];
        rows.into_iter().filter(|(_, is_shown)| *is_shown).map(|(row, _)| row).collect()
    }

    fn at(&self, live: &[Arc<Live>], quantile: f64) -> String {
        micros(live::quantile(live.iter().map(|live| (self.part)(live)), quantile).map(latency::micros))
    }
}

const COLUMNS: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The latencies since the first message: a heading and a line for each distribution.
fn latency_lines(live: &[Arc<Live>], scenario: &Scenario) -> Vec<String> {
    let heading = COLUMNS.iter().map(|(name, _)| format!("{name:>10}"));
    let mut lines = vec![format!("{:<14}{}", "latency, µs", heading.collect::<String>())];
    for row in Row::of(scenario) {
        let cells = COLUMNS.iter().map(|(_, quantile)| format!("{:>10}", row.at(live, *quantile)));
        lines.push(format!("{:<14}{}", row.name, cells.collect::<String>()));
    }
    lines
}

/// The same in one line, for logs.
fn latency_line(live: &[Arc<Live>], scenario: &Scenario) -> String {
    let row = |row: Row| {
        format!(
            "{} p50 {} p99 {} p99.9 {} µs",
            row.name,
            row.at(live, 0.5),
            row.at(live, 0.99),
            row.at(live, 0.999)
        )
    };
    Row::of(scenario).into_iter().map(row).collect::<Vec<_>>().join(", ")
}

/// Fits a terminal of 80 columns, with the indentation.
const ERRORS_CHARS_MAX: usize = 76;

/// How many errors there are and of which kinds, the most frequent first. Kinds are known once their interval is
/// through.
fn errors_line(failed: u64, kinds: &Failures) -> String {
    if failed == 0 {
        return "no errors".to_owned();
    }
    let mut kinds: Vec<_> = kinds.iter().map(|(failure, counted)| (counted.count, failure)).collect();
    kinds.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let mut line = format!("{} errors", count(failed));
    for (at, (number, failure)) in kinds.into_iter().enumerate() {
        let part = format!("{} {} x {failure}", if at == 0 { ":" } else { "," }, count(number));
        if line.chars().count() + part.chars().count() > ERRORS_CHARS_MAX - 3 {
            line.push_str(", …");
            break;
        }
        line.push_str(&part);
    }
    line
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    }
}

/// Elapsed, planned and remaining time.
fn time_line(view: &View<'_>) -> String {
    let total = view.scenario.length();
    if view.phase == Phase::Draining {
        return format!("waiting for what is outstanding, at most {:?}", view.scenario.run.drain);
    }
    let left = total.saturating_sub(view.elapsed);
    let left = if left.subsec_nanos() > 0 { left.as_secs() + 1 } else { left.as_secs() };
    format!("{} of {}, {} left", clock(view.elapsed.as_secs()), clock(total.as_secs()), clock(left))
}

/// A few lines on a terminal that renew themselves.
struct Terminal {
    bars: MultiProgress,
    time: ProgressBar,
    figures: ProgressBar,
    gauge: Gauge,
}

impl Terminal {
    fn new() -> Terminal {
        let bars = MultiProgress::new();
        let line = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("fixed templates");
            bars.add(ProgressBar::new(1).with_style(style.progress_chars("━╸─")))
        };
        let (time, figures) = (line("{spinner:.cyan} {prefix:.bold} {msg}"), line("{msg}"));
        Terminal { bars, time, figures, gauge: Gauge::default() }
    }
}

impl Observer for Terminal {
    fn on_step(&mut self, step: &str) {
        self.time.set_prefix("preparing ");
        self.time.set_message(step.to_owned());
        self.time.tick();
    }

    fn on_tick(&mut self, view: &View<'_>) {
        let millis = |duration: Duration| duration.as_millis() as u64;
        if self.time.length() != Some(millis(view.scenario.length())) {
            let template = "{spinner:.cyan} {prefix:.bold} {bar:32.cyan/dim}  {msg}";
            let style = ProgressStyle::with_template(template).expect("fixed template");
            self.time.set_style(style.progress_chars("━╸─"));
            self.time.set_length(millis(view.scenario.length()));
        }
        self.time.set_prefix(format!("{:<10}", phase_name(view.phase)));
        self.time.set_position(millis(view.elapsed).min(millis(view.scenario.length())));
        self.time.set_message(time_line(view));
        let counts = Counts::read(view);
        let mut lines = vec![flow_line(self.gauge.rates(counts), counts, view.scenario.consumes())];
        lines.extend(latency_lines(view.live, view.scenario));
        lines.push(errors_line(counts.failed, &view.series.failures()));
        self.figures.set_message(lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
    }

    fn on_end(&mut self) {
        for bar in [&self.time, &self.figures] {
            bar.finish_and_clear();
        }
        // Nothing is left to clear if the terminal went away meanwhile.
        let _ = self.bars.clear();
        // A search goes on with another run: finished bars are not drawn again.
        *self = Terminal::new();
    }
}

/// A line every few seconds, for logs.
#[derive(Default)]
struct Lines {
    gauge: Gauge,
    printed: Option<Duration>,
}

impl Observer for Lines {
    fn on_step(&mut self, step: &str) {
        eprintln!("preparing: {step}");
    }

    fn on_tick(&mut self, view: &View<'_>) {
        let counts = Counts::read(view);
        let rates = self.gauge.rates(counts);
        if self.printed.is_some_and(|printed| view.elapsed < printed + LINE_EVERY) {
            return;
        }
        // The first tick has nothing to show yet; the next line is due one period later.
        if self.printed.replace(view.elapsed).is_some() {
            eprintln!(
                "{}, {}: {}; {}; {}",
                phase_name(view.phase),
                time_line(view),
                flow_line(rates, counts, view.scenario.consumes()),
                latency_line(view.live, view.scenario),
                errors_line(counts.failed, &view.series.failures())
            );
        }
    }

    fn on_end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use apogee_net::code::ResponseCode;

    use super::*;
    use crate::failure::Failure;
    use crate::scenario::Load;

    fn counts(at_ms: u64, sent: u64) -> Counts {
        Counts { at: Duration::from_millis(at_ms), sent, acked: sent, ..Counts::default() }
    }

    #[test]
    fn rates_are_those_of_the_last_second() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.rates(counts(0, 0))[0], 0.0);
        for tick in 1..=20 {
            gauge.rates(counts(tick * 100, tick * 50));
        }
        let rate = gauge.rates(counts(2_100, 1_000 + 1_000))[0];
        assert!((rate - 1_450.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn samples_stay_bounded_however_often_they_come() {
        let mut gauge = Gauge::default();
        for micros in 0..10_000 {
            gauge.rates(Counts { at: Duration::from_micros(micros), ..Counts::default() });
        }
        assert!(gauge.samples.len() <= SAMPLES_MAX);
    }

    fn live() -> [Arc<Live>; 1] {
        let live = Arc::new(Live::default());
        for _ in 0..1_000 {
            live.publish.record(Duration::from_micros(200));
            live.lateness.record(Duration::from_nanos(900));
        }
        [live]
    }

    #[test]
    fn every_distribution_has_a_line_and_no_percentile_without_samples() {
        let lines = latency_lines(&live(), &Scenario::default());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines.len(), 4);
        assert_eq!(words(&lines[1]), ["publish", "197", "197", "197", "n/a", "n/a"]);
        assert_eq!(words(&lines[2])[3], "n/a");
        assert_eq!(words(&lines[3]), ["own", "lateness", "0.9", "0.9", "0.9", "n/a", "n/a"]);
        assert!(lines.iter().all(|line| line.chars().count() <= 76), "{lines:#?}");
        let line = latency_line(&live(), &Scenario { consumers: vec![], ..Scenario::default() });
        assert!(line.starts_with("publish p50 197 p99 197 p99.9 n/a µs, own lateness p50 0.9"), "{line}");
    }

    #[test]
    fn a_closed_loop_without_consumers_has_one_distribution() {
        let scenario = Scenario { load: Load::Closed { depth: 4 }, consumers: vec![], ..Scenario::default() };
        assert_eq!(latency_lines(&live(), &scenario).len(), 2);
        let line = flow_line([4_999.7, 5_000.2, 0.0], Counts { in_flight: 2, ..counts(0, 0) }, false);
        assert_eq!(line, "sent   5,000/s  acked   5,000/s  in flight 2");
    }

    #[test]
    fn errors_are_named_by_kind_as_far_as_there_is_room() {
        assert_eq!(errors_line(0, &Failures::default()), "no errors");
        let mut kinds = Failures::default();
        kinds.record_many(Failure::Disconnected, 3);
        kinds.record_many(Failure::TimedOut, 1_200);
        assert_eq!(errors_line(1_204, &kinds), "1,204 errors: 1,200 x timed out, 3 x disconnected");
        for code in 0..10 {
            kinds.record_many(Failure::Answered(ResponseCode(code)), 2);
        }
        let line = errors_line(1_224, &kinds);
        assert!(line.ends_with(", …") && line.chars().count() <= ERRORS_CHARS_MAX, "{line}");
    }
}
