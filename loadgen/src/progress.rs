//! How a run looks while it goes on: three lines that renew themselves on a terminal, one line now and then elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::driver::run::{Observer, Phase, View};
use crate::figures::{clock, count, micros};
use crate::latency;
use crate::live::{self, Live};

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
    format!(
        "sent {sent:>7}/s  acked {acked:>7}/s{received}  in flight {}  errors {}",
        count(counts.in_flight),
        count(counts.failed)
    )
}

fn latency_line(live: &[std::sync::Arc<Live>], consume: bool) -> String {
    let at = |part: fn(&Live) -> &live::LiveLatency, quantile| {
        micros(live::quantile(live.iter().map(|live| part(live)), quantile).map(latency::micros))
    };
    let pair = |part: fn(&Live) -> &live::LiveLatency| {
        format!("p50 {:>6} p99 {:>6} µs", at(part, 0.5), at(part, 0.99))
    };
    let publish = pair(|live| &live.publish);
    if !consume {
        return format!("publish {publish}");
    }
    format!("publish {publish}  end to end {}", pair(|live| &live.end_to_end))
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

/// Three lines on a terminal.
struct Terminal {
    bars: MultiProgress,
    time: ProgressBar,
    flow: ProgressBar,
    latency: ProgressBar,
    gauge: Gauge,
}

impl Terminal {
    fn new() -> Terminal {
        let bars = MultiProgress::new();
        let line = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("fixed templates");
            bars.add(ProgressBar::new(1).with_style(style.progress_chars("━╸─")))
        };
        let time = line("{spinner:.cyan} {prefix:.bold} {msg}");
        let (flow, latency) = (line("  {msg}"), line("  {msg}"));
        Terminal { bars, time, flow, latency, gauge: Gauge::default() }
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
        self.flow.set_message(flow_line(self.gauge.rates(counts), counts, view.scenario.consumes()));
        self.latency.set_message(latency_line(view.live, view.scenario.consumes()));
    }

    fn on_end(&mut self) {
        for bar in [&self.time, &self.flow, &self.latency] {
            bar.finish_and_clear();
        }
        // Nothing is left to clear if the terminal went away meanwhile.
        let _ = self.bars.clear();
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
            let consume = view.scenario.consumes();
            eprintln!(
                "{}, {}: {}; {}",
                phase_name(view.phase),
                time_line(view),
                flow_line(rates, counts, consume),
                latency_line(view.live, consume)
            );
        }
    }

    fn on_end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

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

    #[test]
    fn lines_say_what_goes_on() {
        let live = Arc::new(Live::default());
        for _ in 0..1_000 {
            live.publish.record(Duration::from_micros(200));
        }
        let line = latency_line(&[live], true);
        assert!(
            line.starts_with("publish p50    197 p99    197 µs") && line.ends_with("p99    n/a µs"),
            "{line}"
        );
        let line =
            flow_line([4_999.7, 5_000.2, 0.0], Counts { in_flight: 2, failed: 1, ..counts(0, 0) }, false);
        assert_eq!(line, "sent   5,000/s  acked   5,000/s  in flight 2  errors 1");
    }
}
