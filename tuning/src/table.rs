//! What a person at a terminal reads: knobs, disk figures, round trips, a profile.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, TableComponent, Width,
};

use crate::change::Report;
use crate::disk::{DiskProfile, Row};
use crate::facts::Bytes;
use crate::knobs::{Finding, Verdict};
use crate::net::NetRow;
use crate::profile::Profile;
use crate::verify::{Judgement, Verified};

/// Width where there is no terminal to ask.
const WIDTH: u16 = 120;

/// Columns that leave the sentences enough room.
const KNOB_WIDTH: u16 = 22;
const VALUE_WIDTH: u16 = 18;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    // A line between rows would be half of what one sees.
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table.set_header(header.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    table
}

fn right(mut table: Table, columns: std::ops::Range<usize>) -> Table {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// One line per finding that is not as wanted, with why and what it costs; what is right is counted, or listed too with `all`.
#[must_use]
pub fn knobs(reports: &[Report], all: bool) -> String {
    let mut shown = table(&["", "knob", "found", "wanted", "why, and what it costs"]);
    for (column, width) in [(1, KNOB_WIDTH), (2, VALUE_WIDTH), (3, VALUE_WIDTH)] {
        if let Some(column) = shown.column_mut(column) {
            column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width)));
        }
    }
    let mut rows = 0;
    for report in reports {
        for finding in &report.findings {
            if finding.verdict == Verdict::Right && !all {
                continue;
            }
            rows += 1;
            shown.add_row(finding_row(report, finding));
        }
    }
    let mut text = if rows == 0 { String::new() } else { format!("{shown}\n") };
    text.push_str(&summary(reports));
    text
}

fn finding_row(report: &Report, finding: &Finding) -> Vec<Cell> {
    let (mark, colour) = match finding.verdict {
        Verdict::Right => ("ok", Color::Green),
        Verdict::Change(_) => ("set", Color::Yellow),
        Verdict::Advice(_) => ("by hand", Color::Magenta),
        Verdict::NotHere(_) => ("not here", Color::DarkGrey),
    };
    let tuner = report.tuner;
    let name = match finding.target.as_str() {
        "" => tuner.name().to_owned(),
        target => format!("{}\n{target}", tuner.name()),
    };
    let why = match &finding.verdict {
        Verdict::Right => tuner.why().to_owned(),
        Verdict::Change(_) => format!("{} Costs {}.", tuner.why(), tuner.cost()),
        Verdict::Advice(advice) => format!("{} Costs {}.\n→ {advice}", tuner.why(), tuner.cost()),
        Verdict::NotHere(reason) => format!("Not judged: {reason}."),
    };
    vec![
        Cell::new(mark).fg(colour),
        Cell::new(name),
        Cell::new(&finding.found),
        Cell::new(&finding.wanted),
        Cell::new(why),
    ]
}

/// How many findings there are of each kind.
#[must_use]
pub fn summary(reports: &[Report]) -> String {
    let count = |is_it: fn(&Verdict) -> bool| {
        reports.iter().flat_map(|report| &report.findings).filter(|finding| is_it(&finding.verdict)).count()
    };
    format!(
        "{} right, {} to set (`apogee-tune apply`), {} by hand, {} that cannot be judged here",
        count(|verdict| matches!(verdict, Verdict::Right)),
        count(|verdict| matches!(verdict, Verdict::Change(_))),
        count(|verdict| matches!(verdict, Verdict::Advice(_))),
        count(|verdict| matches!(verdict, Verdict::NotHere(_))),
    )
}

#[must_use]
pub fn disk(disk: &DiskProfile) -> String {
    let mut shown = table(&["load", "size", "at once", "rounds", "p50 µs", "p99", "p99.9", "max", "MB/s"]);
    for row in &disk.rows {
        let Row { load, bytes, depth, rounds, p50_us, p99_us, p999_us, max_us, bytes_per_s } = row;
        shown.add_row(vec![
            load.text().to_owned(),
            Bytes((*bytes).into()).to_string(),
            depth.to_string(),
            rounds.to_string(),
            micros(*p50_us),
            micros(*p99_us),
            p999_us.map_or_else(|| "-".to_owned(), micros),
            micros(*max_us),
            format!("{:.0}", *bytes_per_s as f64 / 1e6),
        ]);
    }
    let shown = right(shown, 1..9);
    let choice = |found: Option<(u32, u32)>| match found {
        Some((bytes, depth)) => format!("{} in {depth} at once", Bytes(bytes.into())),
        None => "nothing measured".to_owned(),
    };
    format!(
        "{}{}\n{shown}\n\
         a round is all writes of a row at once, and its sync; MB/s of single writes of 4 KiB say little\n\
         fresh blocks take {:.1} times as long as prewritten ones (write + sync of 4 KiB, median)\n\
         beside reads at full speed p99 is {:.1} times that alone (write + sync of 64 KiB)\n\
         lowest latency: batches of {}; most throughput: {}",
        disk.directory,
        disk.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default(),
        disk.fresh_to_prewritten,
        disk.beside_reads_to_alone,
        choice(disk.lowest_latency()),
        choice(disk.deepest_gainful()),
    )
}

#[must_use]
pub fn net(rows: &[NetRow]) -> String {
    let mut shown =
        table(&["message", "round trips", "p50 µs", "p99", "p99.9", "max", "echoes/s, many under way"]);
    for row in rows {
        shown.add_row(vec![
            Bytes(row.bytes.into()).to_string(),
            row.round_trips.to_string(),
            micros(row.p50_us),
            micros(row.p99_us),
            row.p999_us.map_or_else(|| "-".to_owned(), micros),
            micros(row.max_us),
            row.echoes_per_s.to_string(),
        ]);
    }
    right(shown, 0..7).to_string()
}

/// Which cpu does what.
#[must_use]
pub fn profile(profile: &Profile) -> String {
    let mut shown = table(&["cpu", "node", "does", "port", "receives from"]);
    for cpu in profile.cpus().iter() {
        let shards = profile.shards.iter().filter(|shard| shard.cpu == cpu);
        let mut does: Vec<String> = shards.clone().map(|shard| format!("shard {}", shard.shard)).collect();
        if profile.control_cpus.contains(cpu) {
            does.push("control, interrupts".to_owned());
        }
        let node = shards.clone().find_map(|shard| shard.node);
        let ports: Vec<String> = shards.map(|shard| shard.port.to_string()).collect();
        let queues = profile.steering.iter().filter(|steering| steering.cpu == cpu);
        let mut queues: Vec<String> =
            queues.map(|steering| format!("{} queue {}", steering.nic, steering.queue)).collect();
        queues.dedup();
        shown.add_row(vec![
            cpu.to_string(),
            node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
            does.join(", "),
            ports.join(", "),
            queues.join(", "),
        ]);
    }
    let memory = profile.memory;
    let disk = profile.disk;
    format!(
        "goal {}\n{shown}\neach shard: tail cache {}, index of {} entries, up to {} batches of {} on their way\n\
         spin before sleep: {} µs; {} settings to keep",
        profile.goal,
        Bytes(memory.tail_cache_bytes),
        memory.index_entries_max,
        disk.batches_in_flight_max,
        Bytes(disk.batch_bytes_target.into()),
        profile.spin_us,
        profile.settings.len(),
    )
}

#[must_use]
pub fn verified(results: &[Verified]) -> String {
    let mut shown = table(&["knob", "measured", "p99.9 without, µs", "with", "with / without", "verdict"]);
    for result in results {
        let (least, middle, most) = result.spread();
        let verdict = match (result.judgement, result.kept) {
            (Judgement::Better, true) => Cell::new("better: kept").fg(Color::Green),
            (Judgement::Better, false) => Cell::new("better").fg(Color::Green),
            (Judgement::Worse, _) => Cell::new("worse: undone").fg(Color::Red),
            (Judgement::CannotTell, _) => Cell::new("cannot tell here: undone").fg(Color::DarkGrey),
        };
        shown.add_row(vec![
            Cell::new(result.tuner),
            Cell::new(&result.probe),
            Cell::new(micros(result.without_us)),
            Cell::new(micros(result.with_us)),
            Cell::new(format!("{middle:.2} ({least:.2} to {most:.2}, {} pairs)", result.ratios.len())),
            verdict,
        ]);
    }
    shown.to_string()
}

fn micros(us: f64) -> String {
    if us >= 100.0 { format!("{us:.0}") } else { format!("{us:.1}") }
}
