//! A group's logs on a real file system: what a node must not forget, and a log that is begun anew behind another one's.

use std::any::Any;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use crate::harness::{Numbered, append, identity, on_executor, open_disk};
use crate::place::directory;
use apogee_storage::driver::{Disk, DiskConfig, DmaBuffer, ShardDirectory};
use apogee_storage::{
    BatchIndex, Checkpoint, CommitLog, CommitRule, Completion, DerivedState, DiskOp, ForeignBatch,
    GroupState, LogConfig, LogFile, LogOffset, LogSource as _, LogStart, Member, NodeId, OpId, QueueKey,
    QueueOffset, ResetJob, Retention, Run, Term, read_group_state, read_saved_group_state, recover_group,
};

const SLOT: u64 = 4096;

/// How many control records there were, and the places of all of them added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Control {
    records: u64,
    places: u64,
}

impl DerivedState for Control {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let number = |at: usize| u64::from_le_bytes(snapshot[at..at + 8].try_into().unwrap());
        *self = Control { records: number(0), places: number(8) };
        Ok(())
    }

    fn apply(&mut self, at: LogOffset, _control_record: &[u8]) -> Result<(), String> {
        self.records += 1;
        self.places = self.places.wrapping_add(at.0);
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        [self.records.to_le_bytes(), self.places.to_le_bytes()].concat()
    }
}

fn config() -> LogConfig {
    LogConfig {
        commit_rule: CommitRule::Group,
        segment_bytes: 256 << 10,
        batch_bytes_max: 64 << 10,
        batch_bytes_target: 16 << 10,
        tail_cache_bytes: 32 << 10,
        batches_in_flight_max: 64,
        reserve_bytes: 0,
        snapshot_pause_ms: 0,
        retention: Retention { bytes: Some(1 << 20), ..Retention::default() },
        ..LogConfig::new(identity().group_id(), identity().node)
    }
}

/// A node's log, its files and what it must not forget.
struct Node {
    log: CommitLog<DmaBuffer, Numbered>,
    disk: Rc<Disk>,
    directory: ShardDirectory,
    state: GroupState,
    control: Control,
    now_ms: i64,
}

impl Node {
    async fn open(path: &Path) -> Node {
        let directory = ShardDirectory::open(path, &identity()).unwrap();
        let (group, node) = (config().group, config().node);
        let state = read_group_state(directory.files(), group, node).unwrap();
        let state = state.unwrap_or_else(|| GroupState::new(group, node));
        let mut control = Control::default();
        let found = recover_group(directory.files(), &config(), state, &mut control).unwrap();
        assert_eq!((found.damage, found.state.recovering), (None, false));
        let disk = open_disk(directory.files().clone(), DiskConfig::DEFAULT, Control::default()).await;
        let log = CommitLog::open_group(config(), found.recovered, |len| disk.alloc(len)).unwrap();
        Node { log, disk: Rc::new(disk), directory, state: found.state, control, now_ms: 1000 }
    }

    /// Carries out all that the log wants done, one after the other, and commits what is stored.
    async fn settle(&mut self) {
        loop {
            self.now_ms += 10;
            let Some(op) = self.log.poll_op(self.now_ms, |len| self.disk.alloc(len)) else { break };
            let completion = self.disk.execute(op).await;
            self.log.on_completion(completion);
            self.log.on_tick();
        }
        while self.log.take_sealed().is_some() {}
    }

    async fn settle_and_commit(&mut self) {
        self.settle().await;
        self.log.commit_to(self.log.persisted_index());
        // With what is committed there may be more to do.
        self.settle().await;
        while self.log.take_committed().is_some() {}
    }

    async fn save(&mut self, term: u64) {
        self.state.term = Term(term);
        let state = Box::new(self.state.clone());
        match self.disk.execute(DiskOp::SaveGroupState { id: OpId(term), state }).await {
            Completion::GroupStateSaved { id: OpId(id), result: Ok(()) } => assert_eq!(id, term),
            other => panic!("{other:?}"),
        }
    }

    async fn checkpoint(&self) -> Checkpoint {
        match self.disk.execute(DiskOp::TakeCheckpoint(self.log.checkpoint_job(OpId(1)))).await {
            Completion::CheckpointTaken { result: Ok(checkpoint), .. } => *checkpoint,
            other => panic!("{other:?}"),
        }
    }

    async fn rebuilt(&self) -> (LogOffset, Control) {
        match self.disk.execute(DiskOp::Rebuild(self.log.rebuild_job(OpId(1)))).await {
            Completion::Rebuilt { result: Ok(rebuilt), .. } => {
                let state: Box<dyn Any> = rebuilt.state;
                (rebuilt.at, *state.downcast().unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn reset(&mut self, checkpoint: Checkpoint) {
        self.log.pause(true);
        assert!(self.log.is_at_rest());
        let job = ResetJob { id: OpId(1), state: self.state.clone(), checkpoint };
        match self.disk.execute(DiskOp::Reset(Box::new(job))).await {
            Completion::ResetDone { result: Ok(done), .. } => {
                self.log.reset(&done);
                self.state = done.state;
                let derived: Box<dyn Any> = done.derived;
                self.control = *derived.downcast().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// The bytes of a batch, from wherever they are.
    async fn batch(&self, index: BatchIndex) -> Option<DmaBuffer> {
        let place = self.log.batch_at(index).unwrap()?;
        let mut buffer = self.disk.alloc(place.len as usize);
        match place.run {
            Run::Memory(run) => {
                buffer.as_bytes_mut().copy_from_slice(&(*run.buffer).as_ref()[run.range.clone()]);
            }
            Run::File(run) => {
                let bytes = self.disk.read(run).await.unwrap();
                buffer.as_bytes_mut().copy_from_slice(bytes.as_ref());
            }
        }
        Some(buffer)
    }

    /// Takes all that a leader has and this node has not.
    async fn follow(&mut self, leader: &Node) {
        while let Some(bytes) = leader.batch(self.log.last_index().next()).await {
            let batch = ForeignBatch::verify(bytes, config().group).unwrap();
            self.log.append_foreign(batch).unwrap();
            self.settle_and_commit().await;
        }
    }

    fn segments(&self) -> Vec<LogOffset> {
        let mut segments: Vec<_> =
            self.directory.files().segments().unwrap().iter().map(|segment| segment.base).collect();
        segments.sort();
        segments
    }
}

/// A leader that has appended so much that its oldest segments have left.
async fn leader(path: &Path) -> Node {
    let mut leader = Node::open(path).await;
    leader.log.lead(Term(1));
    leader.log.seal_noop(leader.now_ms, |len| leader.disk.alloc(len)).unwrap();
    for id in 0..400 {
        let queue = if id % 16 == 0 { QueueKey::CONTROL.0 } else { id % 3 };
        leader.log.stage([append(queue, id, 7000)]).unwrap();
        leader.settle_and_commit().await;
    }
    assert!(leader.log.before_first().index > BatchIndex(50), "{:?}", leader.log.before_first());
    leader
}

#[test]
fn state_is_there_when_it_was_answered_and_again_when_the_node_is_opened() {
    let Some(directory) = directory() else { return };
    on_executor(async {
        let mut node = Node::open(directory.path()).await;
        let path = node.directory.files().path(LogFile::GroupState);
        node.state.vote = Some(NodeId(3));
        node.state.members = vec![Member { node: NodeId(3), address: b"10.0.0.3:10912".to_vec() }];
        for term in 2..9 {
            let before = fs::read(&path).unwrap();
            node.save(term).await;
            let after = fs::read(&path).unwrap();
            let saved = read_saved_group_state(node.directory.files()).unwrap().unwrap();
            assert_eq!((saved.state, saved.seq), (node.state.clone(), term));
            let other = (1 - saved.slot as usize) * SLOT as usize;
            assert_eq!(after.len() as u64, 2 * SLOT);
            assert!(before[other..other + 4096] == after[other..other + 4096], "the other slot was touched");
        }
        let (state, files) = (node.state.clone(), node.directory.files().clone());
        drop(node);
        let node = Node::open(directory.path()).await;
        assert_eq!(node.state, state);
        // The next one was torn in the middle.
        let saved = read_saved_group_state(&files).unwrap().unwrap();
        let torn = u64::from(1 - saved.slot) * SLOT;
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xee; 512], torn + 100).unwrap();
        drop(node);
        assert_eq!(Node::open(directory.path()).await.state, state);
        file.write_all_at(&[0xee; 512], u64::from(saved.slot) * SLOT).unwrap();
        let error = read_group_state(&files, config().group, config().node).unwrap_err().to_string();
        assert!(error.contains("state/group: both slots are damaged"), "{error}");
    });
}

#[test]
#[should_panic(expected = "two states of a group's node are saved at once")]
fn two_states_at_once_are_a_fault_of_the_caller() {
    let Some(directory) = directory() else { panic!("two states of a group's node are saved at once") };
    on_executor(async {
        let node = Node::open(directory.path()).await;
        let save =
            |id| node.disk.execute(DiskOp::SaveGroupState { id: OpId(id), state: node.state.clone().into() });
        futures_lite::future::zip(save(1), save(2)).await;
    });
}

#[test]
fn what_is_not_committed_waits_for_the_group_over_a_restart() {
    let Some(directory) = directory() else { return };
    on_executor(async {
        let mut node = Node::open(directory.path()).await;
        node.log.lead(Term(1));
        node.log.seal_noop(1000, |len| node.disk.alloc(len)).unwrap();
        node.settle_and_commit().await;
        for id in 0..20 {
            node.log.stage([append(id % 2, id, 3000), append(QueueKey::CONTROL.0, id, 100)]).unwrap();
            node.settle().await;
        }
        node.log.commit_to(BatchIndex(11));
        drop(node);
        let mut node = Node::open(directory.path()).await;
        // Nobody sealed a batch that tells of the later commit.
        assert_eq!((node.log.committed_index(), node.log.last_index()), (BatchIndex(1), BatchIndex(21)));
        assert_eq!((node.control.records, node.state.term), (0, Term(1)));
        assert_eq!(node.log.max_offset(QueueKey(0)), QueueOffset(0));
        node.log.commit_to(BatchIndex(15));
        assert_eq!(node.rebuilt().await.1.records, 14);
        node.log.truncate_from(BatchIndex(18));
        node.log.lead(Term(2));
        node.log.seal_noop(1000, |len| node.disk.alloc(len)).unwrap();
        node.settle_and_commit().await;
        drop(node);
        let node = Node::open(directory.path()).await;
        assert_eq!((node.log.committed_index(), node.log.last_index()), (BatchIndex(15), BatchIndex(18)));
        assert_eq!((node.control.records, node.state.term, node.log.last_term()), (14, Term(2), Term(2)));
    });
}

/// A follower that lacks what its leader no longer has, with files of its own open.
#[test]
fn log_begins_anew_behind_its_leaders_and_becomes_the_same() {
    let (Some(first), Some(second)) = (directory(), directory()) else { return };
    on_executor(async {
        let leader = leader(first.path()).await;
        let mut follower = Node::open(second.path()).await;
        follower.log.lead(Term(1));
        for id in 0..60 {
            follower.log.stage([append(9, id, 9000)]).unwrap();
            follower.settle_and_commit().await;
        }
        follower.log.follow();
        let reader = follower.disk.segment_file(LogOffset(0)).await.unwrap();

        let checkpoint = leader.checkpoint().await;
        assert_eq!(checkpoint.start, leader.log.before_first());
        follower.reset(checkpoint.clone()).await;
        assert_eq!(follower.segments(), []);
        assert_eq!(reader.read(0..100).await.unwrap().len(), 100, "whoever reads a file keeps it");
        assert_eq!(follower.log.before_first(), leader.log.before_first());
        follower.follow(&leader).await;
        assert_eq!(follower.log.last_index(), leader.log.last_index());
        for queue in [0, 1, 2, QueueKey::CONTROL.0].map(QueueKey) {
            let of = |node: &Node| (node.log.min_offset(queue), node.log.max_offset(queue));
            assert_eq!(of(&follower), of(&leader), "queue {queue}");
        }
        assert_eq!(follower.log.max_offset(QueueKey(9)), QueueOffset(0));
        let (leaders, followers) = (leader.rebuilt().await, follower.rebuilt().await);
        assert_eq!(followers, leaders);
        assert_eq!(leaders.1.records, 25);
        let segment = leader.segments()[1];
        let read = |node: &Node| fs::read(node.directory.files().path(LogFile::Segment(segment))).unwrap();
        assert!(read(&follower) == read(&leader), "the same bytes in the same place");

        drop(follower);
        let mut follower = Node::open(second.path()).await;
        assert_eq!(follower.log.last_index(), leader.log.last_index());
        assert_eq!(follower.control, leaders.1);
        // Once more, behind the same place, by a node that has all of it.
        follower.reset(checkpoint).await;
        follower.follow(&leader).await;
        assert_eq!(follower.rebuilt().await, leaders);
        assert_ne!(follower.state.log_start, LogStart::default());
    });
}
