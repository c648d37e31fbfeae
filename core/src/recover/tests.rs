use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use apogee_storage::driver::LogFiles;
use apogee_storage::format::{BLOCK_LEN, BatchFields, BatchKind, BatchLayout, BatchWriter};
use apogee_storage::{
    BatchIndex, GroupState, LogFile, LogOffset, Term, read_saved_group_state, save_group_state,
};

use super::*;

const SEGMENT_BYTES: u64 = 16 * BLOCK_LEN as u64;

fn identity() -> Identity {
    Identity { cluster: "C".into(), group: "set".into(), shard: 0, node: NodeId(2) }
}

/// The directory of a shard whose node was stopped in order. Its log has eight batches of a block each, all but the last two are
/// known to be committed.
fn stopped_node(root: &Path) -> PathBuf {
    let shard = root.join("shard-0");
    drop(ShardDirectory::open(&shard, &identity()).unwrap());
    let files = LogFiles::new(&shard);
    let segment = File::create(files.path(LogFile::Segment(LogOffset(0)))).unwrap();
    segment.set_len(SEGMENT_BYTES).unwrap();
    for index in 1..=8 {
        let layout = BatchLayout::default();
        let fields = BatchFields {
            kind: BatchKind::NoOp,
            group: identity().group_id(),
            leader: NodeId(1),
            term: Term(5),
            index: BatchIndex(index),
            prev_term: Term(if index == 1 { 0 } else { 5 }),
            base_offset: LogOffset((index - 1) * BLOCK_LEN as u64),
            commit_hint: BatchIndex(0),
            store_time_ms: 1000,
        };
        let mut bytes = vec![0; layout.batch_len()];
        BatchWriter::new(&mut bytes, layout, fields).finish();
        assert_eq!(bytes.len(), BLOCK_LEN);
        segment.write_all_at(&bytes, fields.base_offset.0).unwrap();
    }
    let mut state = GroupState::new(identity().group_id(), NodeId(2));
    (state.term, state.vote, state.commit) = (Term(5), Some(NodeId(1)), BatchIndex(6));
    state.conf.voters = [1, 2, 3].map(NodeId).to_vec();
    (state.segment_bytes, state.write_window_bytes) = (SEGMENT_BYTES, 2 * BLOCK_LEN as u64);
    save_group_state(&files, &state).unwrap();
    shard
}

/// Batch 5 is no longer what it was.
fn damage(shard: &Path) {
    let path = LogFiles::new(shard).path(LogFile::Segment(LogOffset(0)));
    let segment = File::options().write(true).open(path).unwrap();
    segment.write_all_at(&[0xee; 8], 4 * BLOCK_LEN as u64 + 60).unwrap();
}

fn state_of(shard: &Path) -> GroupState {
    read_saved_group_state(&LogFiles::new(shard)).unwrap().unwrap().state
}

/// Runs the command; what it printed, or why it failed.
fn recover(dir: &Path, accept_loss: bool) -> Result<String, String> {
    let mut out = Vec::new();
    let done = run(&RecoverArgs { dir: dir.to_owned(), accept_loss }, &mut out);
    done.map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).unwrap())
}

#[track_caller]
fn assert_has(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_damaged_node_counts_with_what_it_has_once_a_person_says_so() {
    let root = tempfile::tempdir().unwrap();
    let shard = stopped_node(root.path());
    damage(&shard);
    // As often as one looks.
    for _ in 0..2 {
        let text = recover(&shard, false).unwrap();
        assert_has(
            &text,
            &[
                "shard 0 of group set in C, on node 2",
                "term 5; its last batch is 4 of term 5",
                "all up to batch 4, of what is left",
                "voters 1 2 3, as batch 0 made them",
                "DAMAGED: ",
                "Batches behind 4 were acknowledged to clients",
                "Nothing was given up",
            ],
        );
        assert!(state_of(&shard).recovering);
    }
    // The only shard of a data directory may be named by that.
    let text = recover(root.path(), true).unwrap();
    assert_has(&text, &["Done.", "from term 6 on"]);
    let state = state_of(&shard);
    assert_eq!((state.recovering, state.term, state.vote), (false, Term(6), None));
    // As the node finds it.
    let survey = survey_loss(&LogFiles::new(&shard)).unwrap().unwrap();
    assert_eq!((survey.state, survey.damage), (state, None));
    assert_eq!((survey.report.last_index, survey.report.batches), (BatchIndex(4), 4));
    assert_has(
        &recover(&shard, true).unwrap_err(),
        &["stays as it is", "nothing to accept: the node is not recovering"],
    );
}

#[test]
fn where_there_is_nothing_to_accept_nothing_is_done() {
    let root = tempfile::tempdir().unwrap();
    let shard = stopped_node(root.path());
    for accept_loss in [false, true] {
        let before = state_of(&shard);
        let refused = recover(&shard, accept_loss).unwrap_err();
        assert_has(&refused, &["stays as it is", "nothing to accept: the node is not recovering"]);
        assert_eq!(state_of(&shard), before);
    }
}

#[test]
fn an_emptied_disk_is_not_made_to_count() {
    let root = tempfile::tempdir().unwrap();
    let shard = root.path().join("shard-0");
    drop(ShardDirectory::open(&shard, &identity()).unwrap());
    let mut state = GroupState::new(identity().group_id(), NodeId(2));
    state.conf.voters = [1, 2, 3].map(NodeId).to_vec();
    (state.segment_bytes, state.write_window_bytes) = (SEGMENT_BYTES, 2 * BLOCK_LEN as u64);
    state.recovering = true;
    save_group_state(&LogFiles::new(&shard), &state).unwrap();
    assert_has(&recover(&shard, true).unwrap_err(), &["it may have voted in terms that it does not know"]);
    assert_eq!(state_of(&shard), state);
}

#[test]
fn a_node_that_runs_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let shard = stopped_node(root.path());
    damage(&shard);
    let held = ShardDirectory::open(&shard, &identity()).unwrap();
    assert_has(
        &recover(&shard, true).unwrap_err(),
        &["has to be stopped first", "in use by another process"],
    );
    assert!(!state_of(&shard).recovering, "nobody has looked yet");
    drop(held);
    recover(&shard, true).unwrap();
}

#[test]
fn what_is_no_shard_of_a_group_is_refused() {
    let root = tempfile::tempdir().unwrap();
    assert_has(&recover(root.path(), true).unwrap_err(), &["holds no log"]);
    let shard = root.path().join("shard-0");
    std::fs::create_dir_all(shard.join("log")).unwrap();
    assert_has(&recover(&shard, true).unwrap_err(), &["is not the directory of a shard"]);
    assert!(!shard.join("lock").exists(), "left as it is");
    drop(ShardDirectory::open(&shard, &Identity { node: NodeId(0), ..identity() }).unwrap());
    assert_has(&recover(&shard, true).unwrap_err(), &["belongs to no group of nodes"]);
    drop(ShardDirectory::open(&root.path().join("shard-1"), &identity()).unwrap());
    assert_has(&recover(root.path(), true).unwrap_err(), &["has 2 shards: name one of them"]);
}
