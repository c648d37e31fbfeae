//! What it takes to ask an expression of a message: `cargo bench -p apogee --bench filter`.
//!
//! Not measured: finding the message and copying it, which expressions do not do.

use std::hint::black_box;
use std::time::Instant;

use apogee::shard::filter::sql::SqlExpression;
use apogee_net::message::{Properties, append_property};

/// What one round asks; a small one with the ordinary tests.
const EVALUATIONS: usize = if cfg!(debug_assertions) { 1_000 } else { 1_000_000 };
const ROUNDS: usize = 5;

const EXPRESSIONS: [&str; 7] = [
    "TRUE",
    "colour = 'red'",
    "price > 3.5",
    "price BETWEEN 1.0 AND 9.0 AND colour IN ('red', 'green', 'blue')",
    "note CONTAINS 'needle'",
    "colour IS NOT NULL AND (price > 100.0 OR note STARTSWITH 'some')",
    "missing1 = 'a' OR missing2 = 'b' OR missing3 = 'c' OR missing4 > 5 OR colour = 'green'",
];

/// A message as clients send it: its own properties, then what the broker adds; 260 bytes.
fn properties(nth: usize) -> Vec<u8> {
    let colour = ["red", "green", "blue", "black"][nth % 4];
    let price = format!("{}.25", nth % 12);
    let mut out = Vec::new();
    for (name, value) in [
        ("colour", colour),
        ("price", &price),
        ("note", "some words of a user, without what is looked for in them"),
        ("TAGS", "TagA"),
        ("KEYS", "order-20231114-000001"),
        ("UNIQ_KEY", "7F00000100002A9F0000000000000000"),
        ("WAIT", "true"),
        ("MSG_REGION", "DefaultRegion"),
        ("TRACE_ON", "true"),
        ("CLUSTER", "DefaultCluster"),
    ] {
        append_property(&mut out, name, value);
    }
    out
}

fn main() {
    let messages: Vec<Vec<u8>> = (0..64).map(properties).collect();
    println!("{:>12} {:>12}   expression", "ns/message", "ns/parse");
    let mut taken = 0;
    for text in EXPRESSIONS {
        let expression = SqlExpression::parse(text).expect("an expression");
        let mut evaluate = || {
            for nth in 0..EVALUATIONS {
                taken += usize::from(expression.matches(Properties(black_box(&messages[nth % 64]))));
            }
        };
        let per_message = best_ns(&mut evaluate);
        let mut parse = || {
            for _ in 0..EVALUATIONS / 100 {
                black_box(SqlExpression::parse(black_box(text)).is_ok());
            }
        };
        let per_parse = best_ns(&mut parse) * 100.0;
        println!("{per_message:>12.0} {per_parse:>12.0}   {text}");
    }
    println!("{taken} taken");
}

/// The least time of the rounds, for each of [`EVALUATIONS`].
fn best_ns(work: &mut dyn FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_nanos() as f64 / EVALUATIONS as f64
    });
    rounds.fold(f64::MAX, f64::min)
}
