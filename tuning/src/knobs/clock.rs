//! What the kernel tells the time from.

use super::{Finding, Machine, Tuner, Verdict};

const DIR: &str = "sys/devices/system/clocksource/clocksource0";

pub(super) struct ClockSource;

impl Tuner for ClockSource {
    fn name(&self) -> &'static str {
        "clock-source"
    }

    fn why(&self) -> &'static str {
        "The broker reads the clock at every turn; a source outside of the processor makes each reading a slow system call."
    }

    fn cost(&self) -> &'static str {
        "1 µs or more per reading instead of 0.03"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let path = format!("{DIR}/current_clocksource");
        let is_fast = |found: &str| {
            matches!(found, "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page")
        };
        let available = machine.read(&format!("{DIR}/available_clocksource")).unwrap_or_default();
        let Some(finding) = machine.file_if("", &path, is_fast, "tsc") else { return Vec::new() };
        if matches!(finding.verdict, Verdict::Change(_)) && !available.split(' ').any(|name| name == "tsc") {
            let why = "the kernel offers no tsc here: it found it unstable, or the host hides it".to_owned();
            return vec![Finding { verdict: Verdict::NotHere(why), ..finding }];
        }
        vec![machine.unless_shared(finding)]
    }
}
