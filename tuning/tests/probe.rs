//! The binary, as a user calls it.

use std::process::{Command, Output};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_apogee-tune")).arg("probe").args(arguments).output().unwrap()
}

#[test]
fn json_carries_every_part() {
    let dir = tempfile::tempdir().unwrap();
    let output = probe(&["--json", "--data", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for part in ["cpus", "memory", "kernel", "io_uring", "limits", "data"] {
        assert!(facts[part].is_object(), "{part} of {facts}");
    }
    assert_eq!(facts["data"]["path"], dir.path().to_str().unwrap());
}

#[test]
fn the_table_has_one_line_per_subject() {
    let dir = tempfile::tempdir().unwrap();
    let output = probe(&["--data", dir.path().to_str().unwrap()]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.lines().count(), 11, "{table}");
    assert!(table.starts_with("cpus "), "{table}");
}
