//! `mqadmin` as a process that is asked one command after the other.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;

use crate::java::Java;
use crate::side::Side;

/// Killed when dropped. The program limits the time of each command.
pub(crate) struct Tool {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Tool {
    pub(crate) fn start(java: &Java, side: &Side) -> Tool {
        let log = side.work.join("mqadmin.log");
        let log = OpenOptions::new().create(true).append(true).open(log).expect("open mqadmin.log");
        let mut child = Command::new("java")
            .args(java.args("apogee.twin.Mqadmin", &side.work))
            .arg(side.ports.namesrv.to_string())
            .current_dir(&side.work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start mqadmin");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        Tool { child, stdin, answers: BufReader::new(stdout).lines() }
    }

    /// Names of all sub-commands that there are.
    pub(crate) fn commands(&mut self) -> Vec<String> {
        self.ask(&["!commands"])
    }

    /// Makes what the commands look at; returns the values that they need.
    pub(crate) fn populate(&mut self) -> BTreeMap<String, String> {
        self.ask(&["!populate"])
    }

    /// What the command prints.
    pub(crate) fn run(&mut self, words: &[&str]) -> String {
        self.ask(words)
    }

    fn ask<T: DeserializeOwned>(&mut self, words: &[&str]) -> T {
        writeln!(self.stdin, "{}", words.join("\t")).expect("write to mqadmin");
        let answer = self.answers.next().expect("mqadmin ended, see mqadmin.log").expect("read from mqadmin");
        serde_json::from_str(&answer).expect("a JSON value from mqadmin")
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only when the program is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
