//! The list in `commands.txt`, and what each command prints on one side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::java::Java;
use crate::normal::{self, Detail};
use crate::side::Side;
use crate::tool::Tool;

const LIST: &str = include_str!("commands.txt");

/// What mqadmin is asked.
pub(crate) struct Step {
    /// As it stands in the list.
    pub(crate) text: &'static str,
    detail: Detail,
}

pub(crate) struct Commands {
    pub(crate) steps: Vec<Step>,
    /// Commands that are not run, each with the reason.
    pub(crate) not_applicable: BTreeMap<&'static str, &'static str>,
}

impl Commands {
    pub(crate) fn read() -> Commands {
        let mut commands = Commands { steps: Vec::new(), not_applicable: BTreeMap::new() };
        for line in LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(not_applicable) = line.strip_prefix("n/a ") {
                let (name, why) = not_applicable.split_once(": ").expect("n/a COMMAND: why");
                commands.not_applicable.insert(name, why);
                continue;
            }
            let (detail, text) = match line.split_once(": ") {
                Some(("shape", text)) => (Detail::Shape, text),
                Some(("keys", text)) => (Detail::Keys, text),
                _ => (Detail::Exact, line),
            };
            commands.steps.push(Step { text, detail });
        }
        commands
    }

    /// Every sub-command is run, or has a reason not to be.
    pub(crate) fn must_cover(&self, existing: &[String]) {
        let run = |name: &str| self.steps.iter().any(|step| step.command() == name);
        let covered = |name: &str| run(name) != self.not_applicable.contains_key(name);
        let uncovered = existing.iter().filter(|name| !covered(name)).collect::<Vec<_>>();
        assert!(uncovered.is_empty(), "neither run nor listed as not applicable, or both: {uncovered:?}");
    }
}

impl Step {
    /// The sub-command's name.
    fn command(&self) -> &str {
        let mut words = self.text.split(' ');
        match words.next() {
            Some("!limit") => words.nth(1).unwrap_or_default(),
            first => first.unwrap_or_default(),
        }
    }
}

/// What every step prints on this side, as comparable lines. A step that is no command prints nothing.
pub(crate) fn run_all(commands: &Commands, java: &Java, side: &Side) -> Vec<Vec<String>> {
    let files = side.work.join("files");
    std::fs::create_dir(&files).expect("make a folder");
    for entry in
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/twin/files")).expect("files")
    {
        let entry = entry.expect("an entry of the folder");
        std::fs::copy(entry.path(), files.join(entry.file_name())).expect("copy a file");
    }
    let mut values = BTreeMap::from([
        ("$files".to_owned(), files.display().to_string()),
        ("$broker".to_owned(), side.ports.broker.to_string()),
        ("$namesrv".to_owned(), side.ports.namesrv.to_string()),
    ]);
    let mut tool = Tool::start(java, side);
    let existing = tool.commands();
    commands.must_cover(&existing);

    let mut log = File::create(side.work.join("commands.log")).expect("make commands.log");
    let mut printed = Vec::new();
    for step in &commands.steps {
        let words = step.text.split(' ').map(|word| fill_in(word, &values)).collect::<Vec<_>>();
        let words = words.iter().map(String::as_str).collect::<Vec<_>>();
        let begun = Instant::now();
        let text = match words[0] {
            "!populate" => {
                values.extend(tool.populate());
                String::new()
            }
            "!sleep" => {
                std::thread::sleep(Duration::from_millis(words[1].parse().expect("!sleep MS")));
                String::new()
            }
            "!file" => std::fs::read_to_string(files.join(words[1])).unwrap_or_else(|e| e.to_string()),
            _ => tool.run(&words),
        };
        // Unabridged, for whoever looks into a difference.
        writeln!(log, "=== {} ({:.1} s)\n{text}", words.join(" "), begun.elapsed().as_secs_f64())
            .expect("write commands.log");
        let mut lines = normal::lines(&text, side, step.detail);
        if words[0] == "!limit" {
            // How often it says a thing is a matter of time.
            lines.sort();
            lines.dedup();
        }
        printed.push(lines);
    }
    printed
}

/// Replaces a name with a dollar that the word begins with.
fn fill_in(word: &str, values: &BTreeMap<String, String>) -> String {
    let name = word.split('/').next().unwrap_or_default();
    values.get(name).map_or(word.to_owned(), |value| format!("{value}{}", &word[name.len()..]))
}
