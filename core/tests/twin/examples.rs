//! RocketMQ's example programs against Apogee: the list in `examples.txt`, and what each must print.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::java::Java;
use crate::side::Side;

const LIST: &str = include_str!("examples.txt");

/// Where some of the examples look for a NameServer, whatever they are told.
pub(crate) const NAMESRV_PORT: u16 = 9876;

/// One program.
struct Example {
    how: &'static str,
    count: usize,
    seconds: u64,
    text: &'static str,
    /// Class and arguments.
    words: Vec<&'static str>,
}

impl Example {
    fn parse(line: &'static str) -> Example {
        let mut parts = line.splitn(3, '"');
        let mut part = || parts.next().unwrap_or_else(|| panic!("three parts: {line}"));
        let (head, text, program) = (part(), part(), part());
        let [how, count, seconds] =
            head.split_whitespace().collect::<Vec<_>>()[..].try_into().expect("how, how often, how long");
        Example {
            how,
            count: count.parse().expect("how often"),
            seconds: seconds.parse().expect("how long"),
            text,
            words: program.split_whitespace().collect(),
        }
    }
}

/// The address that the examples expect, if nobody has it.
pub(crate) fn namesrv() -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], NAMESRV_PORT));
    TcpListener::bind(address).unwrap_or_else(|e| panic!("the examples need {address}: {e}"));
    address
}

/// Runs all; returns how many did not do what they must.
pub(crate) fn run_all(java: &Java, side: &Side) -> usize {
    let log = side.work.join("examples.log");
    let mut log = OpenOptions::new().create(true).append(true).open(log).expect("open examples.log");
    let mut child = Command::new("java")
        .args(java.args("apogee.twin.Examples", &side.work))
        .arg(side.ports.namesrv.to_string())
        .current_dir(&side.work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().expect("a second handle of the log"))
        .spawn()
        .expect("start the examples");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let namesrv = side.ports.namesrv.to_string();

    let mut failed = 0;
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for example in lines.map(Example::parse) {
        let words = example.words.iter().map(|word| word.replace("$namesrv", &namesrv)).collect::<Vec<_>>();
        // A text that is never printed keeps the program for its whole time.
        let (text, wanted) = if example.count == 0 { ("\u{1}", 1) } else { (example.text, example.count) };
        let begun = Instant::now();
        let millis = example.seconds * 1000;
        writeln!(stdin, "{}\t{text}\t{wanted}\t{millis}\t{}", example.how, words.join("\t"))
            .expect("write to the examples");
        let answer = answers.next().expect("the examples ended, see examples.log").expect("read");
        let printed = serde_json::from_str::<String>(&answer).expect("a JSON text");
        let count = if example.count == 0 { 0 } else { printed.matches(example.text).count() };
        let error = printed.lines().find(|line| line.contains("Exception") || line.contains("Error:"));
        let good = count >= example.count && error.is_none();
        failed += usize::from(!good);
        println!(
            "  {} {:5.1} s  {} of {} {:?}  {}",
            if good { "pass" } else { "FAIL" },
            begun.elapsed().as_secs_f64(),
            count,
            example.count,
            example.text,
            words.join(" ")
        );
        if !good {
            println!("    {}", error.unwrap_or("too few"));
            writeln!(log, "=== {}\n{printed}", words.join(" ")).expect("write the log");
        }
    }
    // Both fail only when the process is gone already.
    let _ = child.kill();
    let _ = child.wait();
    failed
}
