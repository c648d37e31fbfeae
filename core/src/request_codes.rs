//! `docs/request-codes.md` against the codes and the lists that broker and NameServer dispatch by.

use std::collections::BTreeMap;

use apogee_net::code::RequestCode;

use crate::shard::handlers::{AnsweredBy, answered_by};
use crate::{nameserver, shard};

const DOCUMENT: &str = include_str!("../docs/request-codes.md");

/// One line of the table.
#[derive(Debug)]
struct Row<'a> {
    code: i32,
    name: &'a str,
    broker: &'a str,
    name_server: &'a str,
    note: &'a str,
}

impl Row<'_> {
    fn parse(line: &str) -> Option<Row<'_>> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [code, name, broker, name_server, note] = cells[..] else { return None };
        Some(Row { code: code.parse().ok()?, name, broker, name_server, note })
    }
}

/// What is wrong with the cell of a code that is answered or not.
fn wrong_cell(cell: &str, is_answered: bool, may_send: bool) -> Option<&'static str> {
    match (cell, is_answered) {
        ("yes" | "partly", true) | ("no" | "-", false) => None,
        ("sends", false) if may_send => None,
        (_, true) => Some("has a handler: write yes, or partly and a note"),
        (_, false) => Some("has no handler: write no and a note, or -"),
    }
}

#[test]
fn the_table_of_request_codes_tells_what_is_answered() {
    let rows: Vec<Row<'_>> = DOCUMENT.lines().filter_map(Row::parse).collect();
    assert!(rows.is_sorted_by(|a, b| a.code < b.code), "rows stand in ascending order, each code once");
    let by_code: BTreeMap<i32, &Row<'_>> = rows.iter().map(|row| (row.code, row)).collect();
    let mut wrong = Vec::new();
    for code in RequestCode::ALL {
        let by_broker = shard::handlers::SUPPORTED.contains(code);
        let by_name_server = nameserver::CODES.contains(code);
        let Some(row) = by_code.get(&code.0) else {
            let cell = |answered| if answered { "yes" } else { "no" };
            let (broker, name_server) = (cell(by_broker), if by_name_server { "yes" } else { "-" });
            wrong.push(format!("missing: | {} | {} | {broker} | {name_server} | |", code.0, code.name()));
            continue;
        };
        if row.name != code.name() {
            wrong.push(format!("{}: is called {}, not {}", code.0, code.name(), row.name));
        }
        if let Some(why) = wrong_cell(row.broker, by_broker, true) {
            wrong.push(format!("{code}, column broker, {:?}: {why}", row.broker));
        }
        if let Some(why) = wrong_cell(row.name_server, by_name_server, false) {
            wrong.push(format!("{code}, column NameServer, {:?}: {why}", row.name_server));
        }
        let is_answered = row.broker == "yes" || row.name_server == "yes" || row.broker == "sends";
        if row.note.is_empty() && !is_answered {
            wrong.push(format!("{code}: a note tells how or why not"));
        }
        if row.note == "not yet" && (by_broker || by_name_server) {
            wrong.push(format!("{code}: is answered, but its note says \"not yet\""));
        }
    }
    for row in rows.iter().filter(|row| !RequestCode::ALL.contains(&RequestCode(row.code))) {
        wrong.push(format!("no such request code: {row:?}"));
    }
    assert!(wrong.is_empty(), "core/docs/request-codes.md is not true:\n  {}", wrong.join("\n  "));
}

/// The codes that stand in the list behind `heading`, up to the next item.
fn listed(heading: &str) -> Vec<i32> {
    let (_, list) = DOCUMENT.split_once(heading).expect("the list is there");
    let (_, list) = list.split_once(":\n").expect("codes follow a colon");
    let end = list.find("\n-").expect("another item follows");
    list[..end].split(',').map(|code| code.trim().parse().expect("a number")).collect()
}

#[test]
fn the_list_of_who_answers_in_a_group_is_true() {
    for (heading, by) in
        [("- **the leader**", AnsweredBy::Leader), ("- **each node for itself**", AnsweredBy::Each)]
    {
        let mut expected: Vec<i32> = shard::handlers::SUPPORTED.iter().map(|code| code.0).collect();
        expected.retain(|code| answered_by(RequestCode(*code)) == by);
        expected.sort_unstable();
        assert_eq!(listed(heading), expected, "{heading}");
    }
}
