//! Scenarios as text: read with errors that say where and what, changed key by key, written.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Scenario, keys, library};

/// Longest text of a wrong value that is quoted.
const FOUND_CHARS_MAX: usize = 60;

/// A text that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Path of the file, or what else the text came from.
    pub source: String,
    /// Counted from one; `None` where the text as a whole is wrong.
    pub line: Option<usize>,
    pub problem: Box<Problem>,
}

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{reason}; ready-made scenarios are {}", .ready_made.join(", "))]
    Unreadable { reason: String, ready_made: Vec<&'static str> },
    #[error("{0}")]
    Syntax(String),
    #[error("there is no key {key}{}", .nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default())]
    UnknownKey { key: String, nearest: Option<&'static str> },
    #[error("{key} is {found}{}: {reason}", .expected.map(|expected| format!("; expected: {expected}")).unwrap_or_default())]
    Value { key: String, found: String, expected: Option<&'static str>, reason: String },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.source, self.problem),
            None => write!(f, "{}: {}", self.source, self.problem),
        }
    }
}

impl std::error::Error for FileError {}

impl Scenario {
    /// The file of that path, or the ready-made scenario of that name.
    pub fn open(path_or_name: &str) -> Result<Scenario, FileError> {
        if let Some(ready_made) = library::find(path_or_name) {
            return Scenario::parse(path_or_name, ready_made.text);
        }
        Scenario::from_file(Path::new(path_or_name))
    }

    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Scenario, FileError> {
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| FileError {
            source: source.clone(),
            line: None,
            problem: Box::new(Problem::Unreadable {
                reason: error.to_string(),
                ready_made: library::names(),
            }),
        })?;
        Scenario::parse(&source, &text)
    }

    /// Reads a TOML text; `source` is what errors call it.
    pub fn parse(source: &str, text: &str) -> Result<Scenario, FileError> {
        let at = |span: Option<Range<usize>>, problem| FileError {
            source: source.to_owned(),
            line: span.map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            problem: Box::new(problem),
        };
        let table = DeTable::parse(text)
            .map_err(|error| at(error.span(), Problem::Syntax(error.message().to_owned())))?;
        if let Some((key, span)) = unknown_key("", table.get_ref()) {
            let nearest = keys::nearest(&key);
            return Err(at(Some(span), Problem::UnknownKey { key, nearest }));
        }
        toml::from_str(text).map_err(|error| {
            let reason = error.message().to_owned();
            let span = error.span();
            let found = span.clone().and_then(|span| place(table.get_ref(), &span));
            let problem = match found {
                Some((key, value)) => Problem::Value {
                    expected: keys::find(&key).map(|key| key.expected),
                    found: text[value].chars().take(FOUND_CHARS_MAX).collect(),
                    key,
                    reason,
                },
                None => Problem::Syntax(reason),
            };
            at(span, problem)
        })
    }

    /// The whole scenario as TOML; reading it gives this scenario again, but for the secrets, which are not written.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a scenario has no value that TOML lacks")
    }
}

/// The first key that no scenario has, and where it stands.
fn unknown_key(within: &str, table: &DeTable<'_>) -> Option<(String, Range<usize>)> {
    table.iter().find_map(|(key, value)| {
        let path = join(within, key.get_ref());
        if !keys::is_known(&path) {
            return Some((path, key.span()));
        }
        tables_in(value.get_ref()).find_map(|table| unknown_key(&path, table))
    })
}

/// The innermost key whose value holds `span`, and where that value stands.
fn place(table: &DeTable<'_>, span: &Range<usize>) -> Option<(String, Range<usize>)> {
    fn search(within: &str, table: &DeTable<'_>, span: &Range<usize>) -> Option<(String, Range<usize>)> {
        table.iter().find_map(|(key, value)| {
            let path = join(within, key.get_ref());
            let holds = |value: &Spanned<DeValue<'_>>| {
                value.span().start <= span.start && span.end <= value.span().end
            };
            tables_in(value.get_ref())
                .find_map(|table| search(&path, table, span))
                .or_else(|| holds(value).then(|| (path.clone(), value.span())))
        })
    }
    search("", table, span)
}

fn tables_in<'a, 'i>(value: &'a DeValue<'i>) -> impl Iterator<Item = &'a DeTable<'i>> {
    let own = value.as_table().into_iter();
    own.chain(value.as_array().into_iter().flatten().filter_map(|entry| entry.get_ref().as_table()))
}

fn join(within: &str, key: &str) -> String {
    if within.is_empty() { key.to_owned() } else { format!("{within}.{key}") }
}

/// One key changed from outside the file: `load.rate=500`, `consumers.0.group="g"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    text: String,
    path: Vec<String>,
    value: toml::Value,
}

/// Why a setting is none, or does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("'{0}' is not KEY=VALUE")]
    NoValue(String),
    #[error("'{value}' is no TOML value: {reason} (texts need quotes: '{key}=\"…\"')")]
    Value { key: String, value: String, reason: String },
    #[error("there is no key {key}{}", .nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default())]
    UnknownKey { key: String, nearest: Option<&'static str> },
    #[error("--set {text}: {at} is no table")]
    NoTable { text: String, at: String },
    #[error("--set {text}: the list has {entries} entries, counted from 0")]
    NoEntry { text: String, entries: usize },
    #[error("--set {text}: {reason}{}", .expected.map(|expected| format!("; expected: {expected}")).unwrap_or_default())]
    Misfit { text: String, reason: String, expected: Option<&'static str> },
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Setting, SettingError> {
        let (key, value) = text.split_once('=').ok_or_else(|| SettingError::NoValue(text.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let plain = without_indexes(&path);
        if !keys::is_known(&plain) {
            return Err(SettingError::UnknownKey { nearest: keys::nearest(&plain), key: key.to_owned() });
        }
        let mut table: toml::Table =
            toml::from_str(&format!("value = {value}")).map_err(|error| SettingError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                reason: error.message().to_owned(),
            })?;
        let value = table.remove("value").expect("just written");
        Ok(Setting { text: text.to_owned(), path, value })
    }
}

impl Setting {
    /// Changes the key in `scenario` and nothing else.
    pub fn apply(&self, scenario: &mut Scenario) -> Result<(), SettingError> {
        let mut whole = toml::Value::try_from(&*scenario).expect("a scenario has no value that TOML lacks");
        *self.place(&mut whole)? = self.value.clone();
        let text = toml::to_string(&whole).expect("a scenario has no value that TOML lacks");
        let mut changed = Scenario::parse("", &text).map_err(|error| SettingError::Misfit {
            text: self.text.clone(),
            reason: match *error.problem {
                Problem::Value { reason, .. } => reason,
                other => other.to_string(),
            },
            expected: keys::find(&without_indexes(&self.path)).map(|key| key.expected),
        })?;
        // Secrets are never written, not even to be read at once.
        if let (Some(before), Some(after)) = (&mut scenario.target.acl, &mut changed.target.acl) {
            if after.secret_key.is_empty() {
                after.secret_key = std::mem::take(&mut before.secret_key);
            }
            after.security_token = after.security_token.take().or(before.security_token.take());
        }
        *scenario = changed;
        Ok(())
    }

    /// Where in `whole` the key stands; made if it is not there.
    fn place<'a>(&self, whole: &'a mut toml::Value) -> Result<&'a mut toml::Value, SettingError> {
        let mut place = whole;
        for (depth, part) in self.path.iter().enumerate() {
            place = match place {
                toml::Value::Table(table) => {
                    let is_last = depth + 1 == self.path.len();
                    let empty = || toml::Value::Table(toml::Table::new());
                    table.entry(part).or_insert_with(|| if is_last { self.value.clone() } else { empty() })
                }
                toml::Value::Array(list) => {
                    let entries = list.len();
                    part.parse()
                        .ok()
                        .and_then(|index: usize| list.get_mut(index))
                        .ok_or_else(|| SettingError::NoEntry { text: self.text.clone(), entries })?
                }
                _ => {
                    let at = self.path[..depth].join(".");
                    return Err(SettingError::NoTable { text: self.text.clone(), at });
                }
            };
        }
        Ok(place)
    }
}

/// `consumers.0.group` as `consumers.group`.
fn without_indexes(path: &[String]) -> String {
    let is_index = |part: &&String| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    path.iter().filter(|part| !is_index(part)).cloned().collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        Scenario::parse("a.toml", text).expect_err(text).to_string()
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Scenario::parse("a.toml", ""), Ok(Scenario::default()));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let mut scenario = Scenario::default();
        scenario.run.cpus = Some(vec![1, 2]);
        scenario.topics.queues = 9;
        for scenario in [Scenario::default(), scenario] {
            assert_eq!(Scenario::parse("a.toml", &scenario.to_toml()), Ok(scenario));
        }
    }

    #[test]
    fn errors_name_the_line_the_key_what_is_there_and_what_should_be() {
        let table = [
            (
                "[load]\nkind = 'constant'\nrat = 5",
                "a.toml:3: there is no key load.rat; did you mean load.rate?",
            ),
            (
                "\n[[consumers]]\ngruop = 'x'",
                "a.toml:3: there is no key consumers.gruop; did you mean consumers.group?",
            ),
            (
                "[topics]\ncount = 'many'",
                "a.toml:2: topics.count is 'many'; expected: 1 to 100000: invalid type",
            ),
            (
                "[run]\n\nduration = 5",
                "a.toml:3: run.duration is 5; expected: a time like \"30s\": invalid type",
            ),
            ("[load]\nkind = 'x'", "a.toml:2: load.kind is 'x'; expected: constant, poisson"),
            ("[topics", "a.toml:1: "),
            ("name = 'a'\nname = 'b'", "a.toml:2: duplicate key"),
        ];
        for (text, expected) in table {
            let found = complaint(text);
            assert!(found.starts_with(expected), "{text}\n{found}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_brings_the_names_of_those_that_are() {
        let error = Scenario::open("no-such").unwrap_err().to_string();
        assert!(error.contains("no-such: No such file") && error.contains("steady"), "{error}");
    }

    fn set(text: &str) -> Result<Scenario, SettingError> {
        let mut scenario = Scenario::default();
        text.parse::<Setting>()?.apply(&mut scenario)?;
        Ok(scenario)
    }

    #[test]
    fn a_setting_changes_one_key() {
        let mut expected = Scenario::default();
        expected.topics.count = 8;
        assert_eq!(set("topics.count = 8"), Ok(expected));
        assert_eq!(set("run.cpus=[3, 1]").unwrap().run.cpus, Some(vec![3, 1]));
        assert_eq!(set("consumers.0.group=\"mine\"").unwrap().consumers[0].group, "mine");
        assert_eq!(set("consumers=[]").unwrap().consumers, []);
        assert_eq!(
            set("load={kind='closed', depth=3}").unwrap().load,
            super::super::Load::Closed { depth: 3 }
        );
    }

    #[test]
    fn a_setting_that_does_not_fit_is_refused() {
        let table = [
            ("topics.count", "'topics.count' is not KEY=VALUE"),
            ("topics.cuont=1", "there is no key topics.cuont; did you mean topics.count?"),
            ("topics.name=abc", "'abc' is no TOML value: "),
            ("topics.count=\"x\"", "--set topics.count=\"x\": invalid type"),
            ("consumers.7.group=\"x\"", "--set consumers.7.group=\"x\": the list has 1 entries"),
        ];
        for (text, expected) in table {
            let found = set(text).expect_err(text).to_string();
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }
}
