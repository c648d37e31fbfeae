//! Which lines differ, and which of them are meant to.
//!
//! `differences.toml` is the one list of deliberate differences. Every pattern in it must match a line that does differ:
//! a difference that is gone must leave the list.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Entry>,
}

/// One difference. A `*` in a pattern stands for any text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    suite: String,
    /// Patterns of steps.
    steps: Vec<String>,
    /// Patterns of lines that only RocketMQ has there.
    #[serde(default)]
    only_rocketmq: Vec<String>,
    /// Patterns of lines that only Apogee has there.
    #[serde(default)]
    only_apogee: Vec<String>,
    reason: String,
    /// Depends on the moment, and need not be there.
    #[serde(default)]
    sometimes: bool,
}

/// Lines that one side has and the other has not.
#[derive(Default)]
struct Differing {
    only_rocketmq: Vec<String>,
    only_apogee: Vec<String>,
}

/// Everything that one suite compares.
pub(crate) struct Comparison {
    suite: &'static str,
    entries: Vec<Entry>,
    /// Pattern of a line, by entry, side and position: whether it was needed.
    used: BTreeMap<(usize, bool, usize), bool>,
    equal: usize,
    explained: usize,
    unexplained: usize,
}

impl Comparison {
    /// Without the list, everything must be equal.
    pub(crate) fn new(suite: &'static str, with_list: bool) -> Comparison {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/twin/differences.toml");
        let text = std::fs::read_to_string(path).expect("read differences.toml");
        let file = toml::from_str::<File>(&text).expect("differences.toml");
        let mut entries = if with_list { file.difference } else { Vec::new() };
        entries.retain(|entry| entry.suite == suite);
        let mut used = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            assert!(!entry.reason.trim().is_empty(), "{:?} has no reason", entry.steps);
            for (apogee, patterns) in [(false, &entry.only_rocketmq), (true, &entry.only_apogee)] {
                if entry.sometimes {
                    continue;
                }
                used.extend((0..patterns.len()).map(|at| ((number, apogee, at), false)));
            }
        }
        Comparison { suite, entries, used, equal: 0, explained: 0, unexplained: 0 }
    }

    /// Compares what two sides said in one step, in any order. Prints what differs and is not on the list.
    pub(crate) fn step(&mut self, step: &str, rocketmq: Vec<String>, apogee: Vec<String>) {
        let mut differing = differing(rocketmq, apogee);
        if differing.only_rocketmq.is_empty() && differing.only_apogee.is_empty() {
            self.equal += 1;
            return;
        }
        for (number, entry) in self.entries.iter().enumerate() {
            if !entry.steps.iter().any(|pattern| matches(pattern, step)) {
                continue;
            }
            let used = &mut self.used;
            for (apogee, patterns, lines) in [
                (false, &entry.only_rocketmq, &mut differing.only_rocketmq),
                (true, &entry.only_apogee, &mut differing.only_apogee),
            ] {
                lines.retain(|line| {
                    let Some(at) = patterns.iter().position(|pattern| matches(pattern, line)) else {
                        return true;
                    };
                    used.insert((number, apogee, at), true);
                    false
                });
            }
        }
        if differing.only_rocketmq.is_empty() && differing.only_apogee.is_empty() {
            self.explained += 1;
            return;
        }
        self.unexplained += 1;
        println!("  {step}");
        differing.only_rocketmq.iter().for_each(|line| println!("    only RocketMQ: {line}"));
        differing.only_apogee.iter().for_each(|line| println!("    only Apogee:   {line}"));
    }

    /// Fails if anything differs that is not on the list, or anything on the list does not.
    pub(crate) fn finish(self) {
        let mut idle = 0;
        for ((number, apogee, at), _) in self.used.iter().filter(|(_, used)| !**used) {
            let entry = &self.entries[*number];
            let (side, patterns) =
                if *apogee { ("Apogee", &entry.only_apogee) } else { ("RocketMQ", &entry.only_rocketmq) };
            println!("  no such difference any more: {:?}, only {side}: {:?}", entry.steps, patterns[*at]);
            idle += 1;
        }
        println!(
            "{}: {} steps equal, {} with differences that are on the list, {} with others; {idle} on the list for nothing",
            self.suite, self.equal, self.explained, self.unexplained
        );
        assert!(self.unexplained == 0 && idle == 0, "{}: see the differences above", self.suite);
    }
}

/// As multisets.
fn differing(rocketmq: Vec<String>, apogee: Vec<String>) -> Differing {
    let mut counts = BTreeMap::<String, i64>::new();
    rocketmq.into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    apogee.into_iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    let mut differing = Differing::default();
    for (line, count) in counts {
        let lines = if count > 0 { &mut differing.only_rocketmq } else { &mut differing.only_apogee };
        (0..count.abs()).for_each(|_| lines.push(line.clone()));
    }
    differing
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*c*e", "abcde"), ("abc", "abc")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a*", "ba"), ("*c", "cb"), ("a*c*e", "abcd"), ("abc", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn lines_are_compared_in_any_order_and_counted() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let differing = differing(lines("a b b c"), lines("c b d a"));
        assert_eq!((differing.only_rocketmq, differing.only_apogee), (lines("b"), lines("d")));
    }
}
