//! The report for people, in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::record::{Cell, Figures, Record, Stretch, What};
use super::spread::Spread;
use crate::figures::{count, latency};
use crate::latency::Latency;
use crate::peers::peer::{Peer, Product};

const NOTHING: &str = "–";

/// One stretch in one line, while the bench goes on.
pub(super) fn line(what: What, figures: &Figures) -> String {
    let mut line = format!("{what}: {} msg/s", whole(figures.published_per_s));
    if what.rate().is_some() {
        let at = |value: Option<f64>| value.map_or(NOTHING.to_owned(), latency);
        let publish = figures.publish.summary();
        let _ = write!(line, ", p50 {}, p99 {}", at(publish.p50_us), at(publish.p99_us));
        let _ = write!(line, ", p99.9 {}", at(publish.p999_us));
    }
    let _ = write!(line, ", broker {:.2} CPU, generator {:.2}", figures.broker_cpus, figures.generator_cpus);
    if figures.errors_total() > 0 {
        let _ = write!(line, ", {} errors", count(figures.errors_total()));
    }
    for fault in &figures.faults {
        let _ = write!(line, ", FAULT: {fault}");
    }
    line
}

pub(super) fn render(record: &Record) -> String {
    let peers: Vec<Peer> = record.participants.iter().map(|participant| participant.peer).collect();
    let view = View { record, peers };
    let mut out = String::from("# Peers' bench\n\n");
    if record.interrupted {
        out.push_str("**Ended early by the user: not everything was measured.**\n\n");
    }
    view.surroundings(&mut out);
    view.saturation(&mut out);
    view.own_shares(&mut out);
    view.shared_rates(&mut out);
    view.cpu(&mut out);
    view.memory(&mut out);
    view.ratios(&mut out);
    view.caveats(&mut out);
    out
}

struct View<'a> {
    record: &'a Record,
    peers: Vec<Peer>,
}

impl View<'_> {
    fn surroundings(&self, out: &mut String) {
        section(out, "Machine, versions, settings", "");
        for fact in self.record.machine.iter().chain(&self.record.settings) {
            let _ = writeln!(out, "- {fact}");
        }
        let _ = writeln!(out, "- generator: apogee-loadgen {}", self.record.generator_version);
        let _ = writeln!(out, "- `{}`", self.record.command);
        out.push('\n');
        for participant in &self.record.participants {
            let _ = writeln!(out, "**{}**: {}\n", participant.peer, participant.version);
            if !participant.commands.is_empty() {
                let _ = writeln!(out, "```\n{}\n```\n", participant.commands.join("\n"));
            }
        }
        for skipped in &self.record.skipped {
            let _ = writeln!(out, "**SKIPPED {}**: {}\n", skipped.peer, skipped.reason);
        }
    }

    fn saturation(&self, out: &mut String) {
        section(
            out,
            "Saturation",
            "Acknowledged messages per second and broker CPU: median (lowest–highest round). In brackets below: how much of its \
             CPUs the broker used. Below one, something else was the limit: the disk for sync flush, or the generator.",
        );
        let mut table = Table::new("message", self.names());
        for saturated in self.saturation_cells() {
            let cell = |peer: Peer| {
                let stretches = self.stretches(peer, |what| what.cell() == Some(saturated));
                let per_cpu =
                    |stretch: &&Stretch| stretch.figures.published_per_s / self.record.broker_cpus as f64;
                let Some(rate) = Spread::of(stretches.iter().map(per_cpu)) else { return NOTHING.to_owned() };
                let used = stretches.iter().map(|stretch| stretch.figures.broker_cpus);
                let used = Spread::of(used).map_or(0.0, |used| used.median) / self.record.broker_cpus as f64;
                format!("{} [{used:.2}]{}", rate.text(whole), self.error_mark(&stretches))
            };
            table.row(saturated.to_string(), self.peers.iter().map(|peer| cell(*peer)));
        }
        table.render(out);
    }

    fn own_shares(&self, out: &mut String) {
        section(
            out,
            "Latency at shares of each broker's own saturation",
            "From the planned send to the acknowledgement: medians of the rounds (lowest–highest); p99.99 of all rounds \
             together. A dash: too few samples for that percentile, or so many \
             failed that they might all lie beyond it.",
        );
        let mut table = Table::new("broker", latency_columns());
        for peer in &self.peers {
            for what in self.levels(*peer, |what| matches!(what, What::Own { .. })) {
                let What::Own { percent, rate } = what else { continue };
                let stretches = self.stretches(*peer, |other| other == what);
                let name = format!("{peer}, {percent} %: {} msg/s", count(rate));
                table.row(name, self.latency_cells(rate, &stretches));
            }
        }
        table.render(out);
    }

    fn shared_rates(&self, out: &mut String) {
        section(
            out,
            "Latency at equal rates",
            "The same for all brokers that saturate at least a tenth above the rate; the others could not hold it.",
        );
        for rate in self.rates() {
            let mut table = Table::new(&format!("{} msg/s", count(rate)), latency_columns());
            for peer in &self.peers {
                let stretches = self.stretches(*peer, |what| what == What::Shared { rate });
                if stretches.is_empty() {
                    let cells = std::iter::once("above its saturation".to_owned());
                    table.row(
                        peer.to_string(),
                        cells.chain((1..latency_columns().len()).map(|_| String::new())),
                    );
                } else {
                    table.row(peer.to_string(), self.latency_cells(rate, &stretches));
                }
            }
            table.render(out);
        }
    }

    fn cpu(&self, out: &mut String) {
        section(
            out,
            "CPU seconds of the broker per million messages",
            "User and system time of all its threads, NameServer included.",
        );
        let mut table = Table::new("load", self.names());
        let mut row = |name: String, wanted: &dyn Fn(What) -> bool| {
            let cell = |peer: &Peer| {
                let stretches = self.stretches(*peer, wanted);
                let seconds = stretches.iter().filter_map(|stretch| stretch.figures.cpu_s_per_million());
                Spread::of(seconds)
                    .map_or(NOTHING.to_owned(), |spread| spread.text(|value| format!("{value:.1}")))
            };
            table.row(name, self.peers.iter().map(cell));
        };
        for saturated in self.saturation_cells() {
            row(format!("saturation, {saturated}"), &|what| what.cell() == Some(saturated));
        }
        for rate in self.rates() {
            row(format!("{} msg/s", count(rate)), &|what| what == What::Shared { rate });
        }
        table.render(out);
    }

    fn memory(&self, out: &mut String) {
        section(
            out,
            "Memory",
            "Resident, MiB. Anonymous memory is the broker's own (heap, buffers, stacks); the rest of the peak is mostly \
             pages of mapped files, which the kernel may take back.",
        );
        let columns = ["after the start", "peak", "anonymous, most after a stretch"];
        let mut table = Table::new("broker", columns.map(str::to_owned).to_vec());
        for participant in &self.record.participants {
            let after: Vec<_> = self
                .stretches(participant.peer, |_| true)
                .iter()
                .map(|stretch| stretch.figures.memory)
                .collect();
            let start = Spread::of(participant.memory_at_start.iter().map(|memory| mib(memory.resident)));
            let most = |values: Vec<f64>| Spread::of(values).map(|spread| spread.max);
            let peak = most(after.iter().map(|memory| mib(memory.resident_peak)).collect());
            let anonymous = most(after.iter().map(|memory| mib(memory.anonymous)).collect());
            let cells = [start.map(|spread| spread.median), peak, anonymous];
            table.row(
                participant.peer.to_string(),
                cells.map(|value| value.map_or(NOTHING.to_owned(), whole)),
            );
        }
        table.render(out);
    }

    fn ratios(&self, out: &mut String) {
        let others = || self.peers.iter().copied().filter(|peer| peer.product() != Product::Apogee);
        for own in self.peers.iter().copied().filter(|peer| peer.product() == Product::Apogee) {
            section(
                out,
                &format!("{own} flush, against the others"),
                "Throughput and CPU: ratios of medians. Latency: ratios of percentiles of all rounds together, at the \
                 highest equal rate that both hold. Throughput wants to be above 1, latency and CPU below.",
            );
            let cells = self.saturation_cells();
            let columns = cells.iter().map(|cell| format!("throughput {cell}"));
            let columns = columns.chain(["at", "p99", "p99.9", "p99.99", "CPU/message"].map(str::to_owned));
            let mut table = Table::new("against", columns.collect());
            for other in others() {
                let throughput = cells.iter().map(|cell| {
                    let wanted = |what: What| what.cell() == Some(*cell);
                    let rate = |peer| self.median(peer, wanted, |figures| Some(figures.published_per_s));
                    times(rate(own), rate(other))
                });
                let rate = self.rates().into_iter().rev().find(|rate| {
                    [own, other].iter().all(|peer| self.holds(*peer, What::Shared { rate: *rate }))
                });
                let level = rate.map(|rate| What::Shared { rate });
                let at = |quantile: f64| {
                    let of = |peer| {
                        let stretches = self.stretches(peer, |what| Some(what) == level);
                        tail(&stretches, |figures| &figures.publish, quantile)
                    };
                    times(of(own), of(other))
                };
                let cpu = |peer| self.median(peer, |what| Some(what) == level, Figures::cpu_s_per_million);
                let latency = [
                    rate.map_or(NOTHING.to_owned(), |rate| format!("{} msg/s", count(rate))),
                    at(0.99),
                    at(0.999),
                    at(0.9999),
                    times(cpu(own), cpu(other)),
                ];
                table.row(other.to_string(), throughput.chain(latency));
            }
            table.render(out);
        }
    }

    /// What speaks against the figures.
    fn caveats(&self, out: &mut String) {
        section(out, "What went wrong", "");
        let before = out.len();
        for trouble in &self.record.troubles {
            let _ =
                writeln!(out, "- {}, {}: {}", trouble.peer, trouble.turn, trouble.error.replace('\n', " "));
        }
        for peer in &self.peers {
            let mut kinds: BTreeMap<String, (u64, String)> = BTreeMap::new();
            for stretch in self.stretches(*peer, |_| true) {
                let place = format!("{}, round {}", stretch.what, stretch.round + 1);
                for (kind, number) in &stretch.figures.errors {
                    // Remarks name times and lengths that differ each time.
                    let kind = kind.split_once(": ").map_or(kind.as_str(), |(kind, _)| kind);
                    kinds.entry(kind.to_owned()).or_insert((0, place.clone())).0 += number;
                }
                for fault in &stretch.figures.faults {
                    let _ = writeln!(out, "- {peer}, {place}: **{fault}**");
                }
                if let Some(rate) = stretch.what.rate().filter(|rate| !stretch.figures.holds(*rate)) {
                    let _ = writeln!(
                        out,
                        "- {peer}, {place}: {} of {} msg/s were acknowledged; the rate was not held",
                        whole(stretch.figures.published_per_s),
                        count(rate)
                    );
                }
            }
            for (kind, (number, place)) in kinds {
                let _ = writeln!(out, "- {peer}: {} × {kind}, first at {place}", count(number));
            }
        }
        let warned =
            self.record.stretches.iter().filter(|stretch| stretch.figures.generator_warning.is_some());
        let warned: Vec<_> = warned.collect();
        if let Some(first) = warned.first() {
            let _ = writeln!(
                out,
                "- the generator was late in {} of {} stretches, first {} at {}: {}",
                warned.len(),
                self.record.stretches.len(),
                first.peer,
                first.what,
                first.figures.generator_warning.as_deref().unwrap_or_default()
            );
        }
        if out.len() == before {
            out.push_str("Nothing.\n");
        }
    }

    fn names(&self) -> Vec<String> {
        self.peers.iter().map(Peer::to_string).collect()
    }

    fn stretches(&self, peer: Peer, wanted: impl Fn(What) -> bool) -> Vec<&Stretch> {
        let all = self.record.stretches.iter();
        all.filter(|stretch| stretch.peer == peer && wanted(stretch.what)).collect()
    }

    /// Without the number of requests in flight, in which peers may differ.
    fn saturation_cells(&self) -> BTreeSet<Cell> {
        self.record.stretches.iter().filter_map(|stretch| stretch.what.cell()).collect()
    }

    /// In the order in which they were measured.
    fn levels(&self, peer: Peer, wanted: impl Fn(What) -> bool) -> Vec<What> {
        let mut levels = vec![];
        for stretch in self.stretches(peer, wanted) {
            if !levels.contains(&stretch.what) {
                levels.push(stretch.what);
            }
        }
        levels
    }

    /// All shared rates, rising.
    fn rates(&self) -> BTreeSet<u64> {
        let rates = self.record.stretches.iter().filter_map(|stretch| match stretch.what {
            What::Shared { rate } => Some(rate),
            _ => None,
        });
        rates.collect()
    }

    fn holds(&self, peer: Peer, what: What) -> bool {
        let stretches = self.stretches(peer, |other| other == what);
        let Some(rate) = what.rate() else { return false };
        !stretches.is_empty() && stretches.iter().all(|stretch| stretch.figures.holds(rate))
    }

    fn median(
        &self,
        peer: Peer,
        wanted: impl Fn(What) -> bool,
        value: impl Fn(&Figures) -> Option<f64>,
    ) -> Option<f64> {
        let stretches = self.stretches(peer, wanted);
        Some(Spread::of(stretches.iter().filter_map(|stretch| value(&stretch.figures)))?.median)
    }

    fn latency_cells(&self, rate: u64, stretches: &[&Stretch]) -> Vec<String> {
        let published = Spread::of(stretches.iter().map(|stretch| stretch.figures.published_per_s));
        let held = stretches.iter().all(|stretch| stretch.figures.holds(rate));
        let achieved = match published {
            Some(_) if held => "yes".to_owned(),
            Some(spread) => format!("no: {}", spread.text(whole)),
            None => NOTHING.to_owned(),
        };
        // The far end needs more samples than a round has: there all rounds are one distribution.
        let rounds = |of: fn(&Figures) -> &Latency, quantile: f64| {
            let values = stretches.iter().filter_map(|stretch| tail(&[stretch], of, quantile));
            Spread::of(values).map_or(NOTHING.to_owned(), |spread| spread.text(latency))
        };
        let publish: fn(&Figures) -> &Latency = |figures| &figures.publish;
        let far = tail(stretches, publish, 0.9999);
        vec![
            achieved + &self.error_mark(stretches),
            rounds(publish, 0.5),
            rounds(publish, 0.99),
            rounds(publish, 0.999),
            far.map_or(NOTHING.to_owned(), latency),
            rounds(|figures| &figures.e2e, 0.99),
            rounds(|figures| &figures.lateness, 0.999),
        ]
    }

    fn error_mark(&self, stretches: &[&Stretch]) -> String {
        match stretches.iter().map(|stretch| stretch.figures.errors_total()).sum() {
            0 => String::new(),
            errors => format!(", {} errors", count(errors)),
        }
    }
}

fn latency_columns() -> Vec<String> {
    ["rate held", "p50", "p99", "p99.9", "p99.99", "received p99", "generator late p99.9"]
        .map(str::to_owned)
        .to_vec()
}

/// The stretches' samples as one distribution.
fn together(stretches: &[&Stretch], of: impl Fn(&Figures) -> &Latency) -> Latency {
    let mut all = Latency::new();
    stretches.iter().for_each(|stretch| all.merge(of(&stretch.figures)));
    all
}

/// A percentile of the stretches as one distribution, in microseconds; none if so many messages failed that they might
/// all belong beyond it, for no distribution has them.
fn tail(stretches: &[&Stretch], of: impl Fn(&Figures) -> &Latency, quantile: f64) -> Option<f64> {
    let all = together(stretches, of);
    let failed: u64 = stretches.iter().map(|stretch| stretch.figures.errors_total()).sum();
    let beyond = (all.count() + failed) as f64 * (1.0 - quantile);
    if failed as f64 <= beyond { micros_at(&all, quantile) } else { None }
}

fn micros_at(latency: &Latency, quantile: f64) -> Option<f64> {
    latency.quantile(quantile).map(crate::latency::micros)
}

fn section(out: &mut String, title: &str, explained: &str) {
    let _ = writeln!(out, "\n## {title}\n");
    if !explained.is_empty() {
        let _ = writeln!(out, "{explained}\n");
    }
}

fn whole(value: f64) -> String {
    count(value.round().max(0.0) as u64)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn times(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => format!("× {:.2}", ours / theirs),
        _ => NOTHING.to_owned(),
    }
}

struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(first: &str, others: Vec<String>) -> Table {
        Table { head: std::iter::once(first.to_owned()).chain(others).collect(), rows: vec![] }
    }

    fn row(&mut self, first: String, others: impl IntoIterator<Item = String>) {
        self.rows.push(std::iter::once(first).chain(others).collect());
    }

    fn render(&self, out: &mut String) {
        if self.rows.is_empty() {
            out.push_str("Nothing was measured.\n\n");
            return;
        }
        let mut line = |cells: &[String]| {
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        };
        line(&self.head);
        let rule: Vec<_> =
            (0..self.head.len()).map(|at| if at == 0 { "---" } else { "--:" }.to_owned()).collect();
        line(&rule);
        self.rows.iter().for_each(|row| line(row));
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::peers::bench::record::{Participant, Skipped, Trouble};
    use crate::peers::usage::Memory;

    const SLOW: Duration = Duration::from_micros(300);

    /// All but a thousandth of the messages take 100 µs.
    fn stretch(peer: Peer, round: u32, what: What, published_per_s: f64, slow: Duration) -> Stretch {
        let mut publish = Latency::new();
        publish.record_many(Duration::from_micros(100), 19_960);
        publish.record_many(slow, 40);
        let figures = Figures { published_per_s, publish, broker_cpus: 0.5, ..Figures::default() };
        Stretch { peer, round, what, figures }
    }

    fn record() -> Record {
        let saturation = |in_flight| What::Saturation { size: 1024, consumed: true, in_flight };
        let participant = |peer| Participant {
            peer,
            version: "1".to_owned(),
            commands: vec!["start it".to_owned()],
            memory_at_start: vec![Memory { resident: 3 << 20, ..Memory::default() }],
        };
        let shared = What::Shared { rate: 8_000 };
        Record {
            generator_version: "0",
            machine: vec!["2 × CPU".to_owned()],
            settings: vec![],
            command: "peers --bench".to_owned(),
            broker_cpus: 1,
            rounds: 2,
            latency_size: 1024,
            participants: vec![participant(Peer::Apogee), participant(Peer::RocketmqAsync)],
            skipped: vec![Skipped { peer: Peer::RocketmqRustSync, reason: "there is no cargo".to_owned() }],
            stretches: vec![
                stretch(Peer::Apogee, 0, saturation(64), 100_000.0, SLOW),
                stretch(Peer::Apogee, 1, saturation(64), 110_000.0, SLOW),
                stretch(Peer::RocketmqAsync, 0, saturation(256), 20_000.0, SLOW),
                stretch(Peer::Apogee, 0, shared, 8_000.0, SLOW),
                stretch(Peer::RocketmqAsync, 0, shared, 8_000.0, SLOW * 10),
                stretch(Peer::RocketmqAsync, 0, What::Own { percent: 80, rate: 16_000 }, 9_000.0, SLOW),
            ],
            troubles: vec![Trouble {
                peer: Peer::RocketmqAsync,
                turn: "round 2 of 2".to_owned(),
                error: "it\ndied".to_owned(),
            }],
            interrupted: false,
        }
    }

    #[test]
    fn the_tables_have_medians_spreads_and_ratios() {
        let text = render(&record());
        for part in [
            "| 1 KiB, read too | 105,000 (100,000–110,000) [0.50] | 20,000 [0.50] |",
            "| Apache RocketMQ, async, 80 %: 16,000 msg/s | no: 9,000 | 100 µs | 100 µs | 300 µs | – |",
            "| 8,000 msg/s | rate held |",
            "| Apogee, sync | yes | 100 µs | 100 µs | 300 µs | – |",
            "| Apache RocketMQ, async | × 5.25 | 8,000 msg/s | × 1.00 | × 0.10 | – | × 1.00 |",
            "**SKIPPED rocketmq-rust, sync**: there is no cargo",
            "- Apache RocketMQ, async, round 2 of 2: it died",
            "9,000 of 16,000 msg/s were acknowledged; the rate was not held",
            "| Apogee, sync | 3 |",
        ] {
            assert!(text.contains(part), "'{part}' is missing in\n{text}");
        }
    }

    #[test]
    fn refused_messages_are_shown_in_the_table_and_by_kind() {
        let mut record = record();
        let busy = "publish SYSTEM_BUSY (2): [TIMEOUT_CLEAN_QUEUE]broker busy, period in queue: 203ms";
        record.stretches[2].figures.errors = BTreeMap::from([(busy.to_owned(), 1_700)]);
        let text = render(&record);
        assert!(text.contains("20,000 [0.50], 1,700 errors |"), "{text}");
        assert!(
            text.contains("- Apache RocketMQ, async: 1,700 × publish SYSTEM_BUSY (2), first at"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_record_says_so() {
        let mut record = record();
        record.stretches.clear();
        record.interrupted = true;
        let text = render(&record);
        assert!(text.contains("Nothing was measured.") && text.contains("Ended early"), "{text}");
    }
}
