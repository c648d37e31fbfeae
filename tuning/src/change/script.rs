//! Changes as a shell script, for sites where a person must see, sign and run them.

use super::Wanted;
use crate::knobs::{Settings, script_line};

/// A script that makes the changes with `apply` as its argument and takes them back with `undo`. The old values are those of
/// this moment.
#[must_use]
pub fn script(settings: &Settings, changes: &[Wanted]) -> String {
    let mut apply = String::new();
    let mut undo = Vec::new();
    let mut tuner = "";
    for wanted in changes {
        let change = &wanted.change;
        if wanted.tuner != tuner {
            tuner = wanted.tuner;
            apply.push_str(&format!("    # {tuner}\n"));
        }
        apply.push_str(&format!("    {}\n", script_line(&change.place, &change.value)));
        if let Some(old) = settings.read(&change.place) {
            undo.push(format!("    {}\n", script_line(&change.place, &old)));
        }
    }
    undo.reverse();
    let (apply, undo) = (or_nothing(apply), or_nothing(undo.concat()));
    format!(
        "#!/bin/sh\n# Made by `apogee-tune apply --script`. Needs root.  Usage: sh FILE apply | sh FILE undo\nset -eu\n\n\
         apply() {{\n{apply}}}\n\nundo() {{\n{undo}}}\n\n\
         case \"${{1-}}\" in\n    apply) apply ;;\n    undo) undo ;;\n    *) echo \"usage: $0 apply|undo\" >&2; exit 2 ;;\nesac\n"
    )
}

/// A shell function must not be empty.
fn or_nothing(lines: String) -> String {
    if lines.is_empty() { "    :\n".to_owned() } else { lines }
}
