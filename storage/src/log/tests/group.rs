//! A log whose commits a group decides on: what its leader and its followers do.

use super::*;
use crate::config::CommitRule;
use crate::disk::FileRun;
use crate::format::{BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry};
use crate::sealed::IndexFault;
use crate::types::{LogStart, Term};

fn grouped() -> LogConfig {
    LogConfig {
        commit_rule: CommitRule::Group,
        batches_in_flight_max: 16,
        staged_bytes_max: 256 << 10,
        ..config()
    }
}

/// A record of two blocks' bytes takes a batch of three: five of them fill a segment of 64 KiB.
const LEN: usize = 8200;

impl World {
    /// A log that leads in this term, its no-op sealed.
    fn leader(term: u64) -> World {
        let mut world = World::new(grouped());
        world.lead(term);
        world
    }

    fn follower() -> World {
        World::new(grouped())
    }

    fn lead(&mut self, term: u64) {
        self.log.lead(Term(term));
        self.log.seal_noop(self.now_ms, SimDisk::alloc).unwrap();
    }

    fn sealed_batches(&mut self) -> Vec<SealedBatch<AlignedBuffer>> {
        std::iter::from_fn(|| self.log.take_sealed()).collect()
    }

    /// Seals what is staged and gives the batches to be sent.
    fn send(&mut self) -> Vec<SealedBatch<AlignedBuffer>> {
        self.submit();
        self.sealed_batches()
    }

    fn receive(&mut self, batches: &[SealedBatch<AlignedBuffer>]) {
        batches.iter().for_each(|batch| self.log.append_foreign(received(batch)).unwrap());
    }

    fn commit(&mut self, index: u64) -> Vec<Committed<AlignedBuffer>> {
        self.log.commit_to(BatchIndex(index));
        self.committed()
    }

    fn failed(&mut self) -> Vec<(u64, u64, FailureCause)> {
        std::iter::from_fn(|| self.log.take_failed())
            .map(|failed| (failed.first_ticket.0, failed.count, failed.cause))
            .collect()
    }

    fn text_of(&self, queue: u64) -> String {
        String::from_utf8(self.bytes(&self.plan(queue, 0, ALL))).unwrap()
    }

    fn log_bytes(&self) -> Vec<u8> {
        let segments = self.disk.segment_bases();
        let whole = |segment| FileRun { segment, position: 0, len: 64 << 10 };
        segments.into_iter().flat_map(|segment| self.disk.read(whole(segment))).collect()
    }

    /// The writes that the log asks for now, handed to the disk.
    fn writes(&mut self) -> Vec<u64> {
        let mut indexes = Vec::new();
        while let Some(op) = self.log.poll_op(self.now_ms, SimDisk::alloc) {
            if let DiskOp::Write { index, .. } = &op {
                indexes.push(index.0);
            }
            self.disk.submit(op);
        }
        indexes
    }

    fn state(&self) -> (u64, u64, u64, u64) {
        let log = &self.log;
        (log.committed_index().0, log.durable_index().0, log.persisted_index().0, log.last_index().0)
    }
}

/// What comes out of the network.
fn received(batch: &SealedBatch<AlignedBuffer>) -> ForeignBatch<AlignedBuffer> {
    let mut copy = SimDisk::alloc(batch.len as usize);
    copy.as_mut().copy_from_slice(&(*batch.buffer).as_ref()[..batch.len as usize]);
    ForeignBatch::verify(copy, GroupId(7)).unwrap()
}

/// What is found where nothing ever was.
fn recovered_none() -> crate::Recovered {
    recover(&SimDisk::new(3), &grouped(), &mut ()).unwrap()
}

/// A batch that some leader could have sealed, of records of queue 1.
fn sealed_elsewhere(fields: BatchFields, first: u64, texts: &[&str]) -> ForeignBatch<AlignedBuffer> {
    let mut layout = BatchLayout::default();
    texts.iter().for_each(|text| layout.add(text.len() as u32, 0));
    let mut buffer = SimDisk::alloc(layout.batch_len());
    let mut writer = BatchWriter::new(buffer.as_mut(), layout, fields);
    for (nth, text) in texts.iter().enumerate() {
        let entry = NewEntry {
            queue: QueueKey(1),
            queue_offset: QueueOffset(first + nth as u64),
            tag_hash: 0,
            key_hashes: &[],
            size: text.len() as u32,
        };
        writer.push(entry, |_, out| out.copy_from_slice(text.as_bytes()));
    }
    writer.finish();
    ForeignBatch::verify(buffer, fields.group).unwrap()
}

fn fields(term: u64, index: u64, prev_term: u64, base_offset: u64) -> BatchFields {
    BatchFields {
        kind: BatchKind::Records,
        group: GroupId(7),
        leader: NodeId(2),
        term: Term(term),
        index: BatchIndex(index),
        prev_term: Term(prev_term),
        base_offset: LogOffset(base_offset),
        commit_hint: BatchIndex(0),
        store_time_ms: 2000,
    }
}

// A leader and its followers

#[test]
fn durable_batch_of_a_group_is_visible_once_the_group_commits_it() {
    let mut world = World::leader(1);
    world.stage(1, "record");
    world.settle();
    assert_eq!(world.state(), (0, 2, 2, 2));
    assert!(world.committed().is_empty());
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(0));
    assert_eq!(world.log.uncommitted_bytes(), 8192);
    let [noop, records] = &world.commit(2)[..] else { panic!("two batches") };
    assert_eq!((noop.kind, noop.places.len(), noop.first_ticket), (BatchKind::NoOp, 0, Ticket(0)));
    assert_eq!((records.kind, records.term, records.places.len()), (BatchKind::Records, Term(1), 1));
    assert!(records.control.is_empty(), "whoever staged them knows them");
    assert_eq!(world.text_of(1), "record");
    assert_eq!((world.log.uncommitted_bytes(), world.log.settled().0), (0, BatchIndex(2)));
}

#[test]
fn follower_writes_the_bytes_of_its_leader() {
    let (mut leader, mut follower) = (World::leader(1), World::follower());
    leader.log.stage([append(1, "one"), append(QueueKey::CONTROL.0, "change"), append(2, "two")]).unwrap();
    let batches = leader.send();
    follower.receive(&batches);
    leader.settle();
    follower.settle();
    assert_eq!(follower.state(), (0, 2, 2, 2));
    assert!(leader.log_bytes() == follower.log_bytes());
    let committed = follower.commit(2);
    let [_, records] = &committed[..] else { panic!("two batches") };
    assert_eq!((records.places.len(), records.first_ticket), (0, Ticket(0)));
    let control: Vec<_> = records.control.iter().map(|control| control.bytes.as_ref()).collect();
    assert_eq!(control, [b"change"]);
    let grown: Vec<_> = records.queues.iter().map(|grown| (grown.queue.0, grown.records)).collect();
    assert_eq!(grown, [(1, 1), (QueueKey::CONTROL.0, 1), (2, 1)]);
    assert_eq!((follower.text_of(1), follower.text_of(2)), ("one".to_owned(), "two".to_owned()));
    assert_eq!(follower.log.tail_offset(QueueKey(1)), QueueOffset(1));
}

#[test]
fn commit_may_be_ahead_of_the_own_disk_and_is_read_from_memory() {
    for is_written in [false, true] {
        let mut leader = World::leader(1);
        let mut follower = World::new(LogConfig { tail_cache_bytes: 0, ..grouped() });
        leader.stage(1, "committed by the others");
        follower.receive(&leader.send());
        if is_written {
            assert_eq!(follower.writes(), [1, 2]);
        }
        assert_eq!(follower.commit(9).len(), 2, "as far as the log goes");
        assert_eq!(follower.state(), (2, 0, 0, 2));
        assert!(matches!(&follower.plan(1, 0, ALL).runs[..], [Run::Memory(_)]));
        let marks = follower.log.marks();
        assert!(marks.committed == marks.appended && marks.written == LogOffset(0));
        assert_eq!(follower.log.settled(), (BatchIndex(0), LogOffset(0)));
        follower.settle();
        assert_eq!(follower.state(), (2, 2, 2, 2));
        assert!(matches!(&follower.plan(1, 0, ALL).runs[..], [Run::File(_)]));
        assert_eq!(follower.text_of(1), "committed by the others");
    }
}

#[test]
fn records_are_staged_by_a_leader_only() {
    let mut world = World::follower();
    assert_eq!(world.log.stage([append(1, "no")]).unwrap_err(), AppendRefused::NotLeader);
    assert_eq!(world.log.seal_noop(0, SimDisk::alloc).unwrap_err(), AppendRefused::NotLeader);
    world.lead(3);
    world.stage(1, "yes");
    assert!(world.log.is_leading());
    world.log.follow();
    assert_eq!(world.log.stage([append(1, "no")]).unwrap_err(), AppendRefused::NotLeader);
}

#[test]
fn no_op_has_its_index_before_there_is_a_segment_and_staged_records_follow_it() {
    let mut world = World::on(SimDisk::new(1), grouped());
    world.log.lead(Term(5));
    world.stage(1, "behind");
    assert_eq!(world.log.seal_noop(world.now_ms, SimDisk::alloc).unwrap(), BatchIndex(1));
    let [noop] = &world.sealed_batches()[..] else { panic!("one batch") };
    assert_eq!(
        (noop.index, noop.term, noop.prev_term, noop.kind),
        (BatchIndex(1), Term(5), Term(0), BatchKind::NoOp)
    );
    assert_eq!(world.log.last_index(), BatchIndex(1));
    assert!(world.writes().is_empty(), "the first segment is still being made");
    world.complete_one();
    assert_eq!(world.writes(), [1, 2]);
    let [records] = &world.sealed_batches()[..] else { panic!("one batch") };
    assert_eq!((records.index, records.prev_term), (BatchIndex(2), Term(5)));
}

#[test]
fn change_of_members_is_given_back_and_is_no_control_record() {
    let (mut leader, mut follower) = (World::leader(1), World::follower());
    leader.stage(1, "staged before");
    assert_eq!(leader.log.seal_configuration(b"1 2 3", 0, SimDisk::alloc).unwrap(), BatchIndex(2));
    let batches = leader.send();
    assert_eq!(batches.iter().map(|batch| batch.index.0).collect::<Vec<_>>(), [1, 2, 3]);
    follower.receive(&batches);
    follower.settle();
    leader.settle();
    for world in [&mut leader, &mut follower] {
        let committed = world.commit(3);
        assert_eq!((committed[1].kind, committed[1].queues.len()), (BatchKind::Configuration, 0));
        let [change] = &committed[1].control[..] else { panic!("one change") };
        assert_eq!(change.bytes.as_ref(), b"1 2 3");
        assert_eq!(world.log.tail_offset(QueueKey::MEMBERS), QueueOffset(1));
    }
    let mut seen = Seen::default();
    recover(&follower.disk, follower.log.config(), &mut seen).unwrap();
    assert!(seen.0.is_empty());
    let refused = leader.log.seal_configuration(&[1; 40_000], 0, SimDisk::alloc).unwrap_err();
    assert!(matches!(refused, AppendRefused::TooLarge { .. }), "{refused}");
}

#[test]
fn held_records_wait_and_no_ops_do_not() {
    let mut world = World::leader(1);
    world.log.hold_sealing(true);
    world.stage(1, "waits");
    assert_eq!(world.writes(), [1]);
    world.settle();
    world.log.seal_configuration(b"members", 0, SimDisk::alloc).unwrap();
    assert_eq!(world.writes(), [2]);
    world.log.hold_sealing(false);
    assert_eq!(world.writes(), [3]);
}

#[test]
fn records_wait_while_half_the_window_is_not_committed() {
    let mut world = World::new(LogConfig { write_window_bytes: 64 << 10, ..grouped() });
    world.lead(1);
    for _ in 0..4 {
        world.log.stage([append_long(1, LEN)]).unwrap();
        world.settle();
    }
    assert_eq!((world.log.last_index(), world.log.uncommitted_bytes()), (BatchIndex(3), 28 << 10));
    world.log.commit_to(BatchIndex(2));
    world.settle();
    assert_eq!(world.log.last_index(), BatchIndex(4));
}

#[test]
fn commit_hint_is_what_the_group_had_committed() {
    let mut world = World::leader(1);
    world.settle();
    world.log.commit_to(BatchIndex(1));
    world.stage(1, "knows of it");
    world.settle();
    let hints =
        world.sealed_batches().iter().map(|batch| received(batch).commit_hint().0).collect::<Vec<_>>();
    assert_eq!(hints, [0, 1]);
}

#[test]
fn with_asynchronous_durability_what_is_written_is_persisted() {
    let durability = Durability::Async { sync_interval_ms: 1000 };
    let mut leader = World::leader(1);
    let mut follower = World::new(LogConfig { durability, ..grouped() });
    follower.receive(&leader.send());
    follower.settle();
    assert_eq!(follower.state(), (0, 0, 1, 1));
    follower.commit(1);
    assert_eq!(follower.log.settled().0, BatchIndex(0), "it is not durable yet");
    follower.now_ms += 1000;
    follower.settle();
    assert_eq!((follower.state(), follower.log.settled().0), ((1, 1, 1, 1), BatchIndex(1)));
}

#[test]
fn log_is_idle_once_all_is_durable_whatever_the_group_has_committed() {
    let mut world = World::leader(1);
    assert!(!world.log.is_idle());
    world.log.ask_sync();
    world.settle();
    assert!(world.log.is_idle() && world.log.uncommitted_bytes() > 0);
}

#[test]
fn a_disk_that_makes_no_progress_is_told_by_its_oldest_batch() {
    let mut world = World::leader(1);
    assert_eq!(world.log.oldest_unpersisted_since_ms(), None);
    world.submit();
    world.now_ms += 500;
    world.stage(1, "one more");
    world.submit();
    assert_eq!(world.log.oldest_unpersisted_since_ms(), Some(1000));
    (0..2).for_each(|_| world.complete_one());
    world.submit();
    assert_eq!(world.log.oldest_unpersisted_since_ms(), Some(1000), "written, and the sync is on its way");
    world.settle();
    assert_eq!(world.log.oldest_unpersisted_since_ms(), None);
}

// Leaders that are replaced

#[test]
fn tickets_of_sealed_batches_outlive_their_leadership_and_are_committed() {
    let mut world = World::leader(1);
    let sealed = world.stage(1, "sealed").first_ticket;
    world.settle();
    world.sealed_batches();
    world.log.hold_sealing(true);
    let staged = world.stage(1, "staged").first_ticket;
    world.log.follow();
    assert_eq!(world.failed(), [(staged.0, 1, FailureCause::NotLeader)]);
    assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(1), "its offset is given to the next");
    let next = sealed_elsewhere(fields(2, 3, 1, 8192), 1, &["of the next leader"]);
    world.log.append_foreign(next).unwrap();
    let committed = world.commit(3);
    assert_eq!(committed.iter().map(|batch| batch.places.len()).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(committed[1].first_ticket, sealed);
    assert!(world.failed().is_empty());
    assert_eq!(world.text_of(1), "sealedof the next leader");
}

#[test]
fn tickets_of_batches_that_are_cut_off_fail_in_their_order() {
    let mut world = World::leader(1);
    for text in ["a", "b", "c"] {
        world.log.stage([append(1, text), append(2, text)]).unwrap();
        world.submit();
    }
    world.settle();
    world.sealed_batches();
    world.log.follow();
    world.log.truncate_from(BatchIndex(3));
    assert_eq!(world.failed(), [(2, 2, FailureCause::Overwritten), (4, 2, FailureCause::Overwritten)]);
    assert_eq!((world.state(), world.log.last_term()), ((0, 2, 2, 2), Term(1)));
    assert_eq!(world.log.tail_offset(QueueKey(2)), QueueOffset(1));
    assert_eq!(world.log.term_of(BatchIndex(3)), None);
    assert_eq!(world.commit(3).len(), 2);
    assert!(world.failed().is_empty());
    world.lead(4);
    assert_eq!(world.stage(1, "b'").first_queue_offset, QueueOffset(1));
    world.settle();
    world.commit(4);
    assert_eq!((world.text_of(1), world.text_of(2)), ("ab'".to_owned(), "a".to_owned()));
    assert_eq!(world.log.index_entries(), 3);
}

#[test]
fn batches_that_nobody_took_are_cut_off_when_another_leads() {
    let mut world = World::leader(1);
    world.stage(1, "taken");
    world.send();
    world.stage(1, "sealed and not taken");
    world.submit();
    world.log.follow();
    assert_eq!(world.failed(), [(1, 1, FailureCause::NotLeader)]);
    assert_eq!(world.log.last_index(), BatchIndex(2));
    assert!(world.log.take_sealed().is_none());
}

#[test]
#[should_panic(expected = "are committed")]
fn committed_batches_are_never_cut_off() {
    let mut world = World::leader(1);
    world.settle();
    world.commit(1);
    world.sealed_batches();
    world.log.follow();
    world.log.truncate_from(BatchIndex(1));
}

#[test]
#[should_panic(expected = "cut off by its leader")]
fn a_leader_cuts_nothing_off() {
    World::leader(1).log.truncate_from(BatchIndex(1));
}

#[test]
#[should_panic(expected = "leading in term 1")]
fn a_term_is_led_once() {
    let mut world = World::leader(1);
    world.sealed_batches();
    world.log.follow();
    world.log.lead(Term(1));
}

#[test]
fn a_write_that_is_cut_off_is_waited_for_before_its_bytes_are_written_anew() {
    let mut world = World::follower();
    world.log.append_foreign(sealed_elsewhere(fields(1, 1, 0, 0), 0, &["old"])).unwrap();
    world.log.append_foreign(sealed_elsewhere(fields(1, 2, 1, 4096), 1, &["old"])).unwrap();
    assert_eq!(world.writes(), [1, 2]);
    world.log.truncate_from(BatchIndex(1));
    world.log.append_foreign(sealed_elsewhere(fields(2, 1, 0, 0), 0, &["new"])).unwrap();
    world.log.append_foreign(sealed_elsewhere(fields(2, 2, 2, 4096), 1, &["new"])).unwrap();
    assert!(world.writes().is_empty());
    world.complete_one();
    assert_eq!(world.state(), (0, 0, 0, 2), "the write that was cut off counts for nothing");
    assert_eq!(world.writes(), [1], "the other is still on its way");
    world.settle();
    assert_eq!(world.state(), (0, 2, 2, 2));
    world.commit(2);
    assert_eq!(world.text_of(1), "newnew");
    assert_eq!(world.bytes(&world.plan(1, 0, ALL)), b"newnew");
}

#[test]
fn a_batch_is_not_durable_by_the_sync_of_the_one_it_replaced() {
    let mut world = World::follower();
    world.log.append_foreign(sealed_elsewhere(fields(1, 1, 0, 0), 0, &["stays"])).unwrap();
    world.log.append_foreign(sealed_elsewhere(fields(1, 2, 1, 4096), 1, &["old"])).unwrap();
    world.submit();
    (0..2).for_each(|_| world.complete_one());
    let Some(sync @ DiskOp::Sync { .. }) = world.log.poll_op(0, SimDisk::alloc) else {
        panic!("a sync is due")
    };
    world.log.truncate_from(BatchIndex(2));
    world.log.append_foreign(sealed_elsewhere(fields(2, 2, 1, 4096), 1, &["new"])).unwrap();
    assert_eq!(world.writes(), [2]);
    world.complete_one();
    world.disk.submit(sync);
    world.complete_one();
    assert_eq!(world.state(), (0, 1, 1, 2));
    world.settle();
    assert_eq!(world.state(), (0, 2, 2, 2));
}

#[test]
fn a_durable_batch_may_be_cut_off_while_it_is_not_committed() {
    let mut world = World::follower();
    world.log.append_foreign(sealed_elsewhere(fields(1, 1, 0, 0), 0, &["old", "and more"])).unwrap();
    world.settle();
    world.log.truncate_from(BatchIndex(1));
    assert_eq!(world.state(), (0, 0, 0, 0));
    let marks = world.log.marks();
    assert_eq!((marks.appended, marks.written, marks.durable), (LogOffset(0), LogOffset(0), LogOffset(0)));
    world.log.append_foreign(sealed_elsewhere(fields(2, 1, 0, 0), 0, &["new"])).unwrap();
    world.settle();
    world.commit(1);
    assert_eq!(world.text_of(1), "new");
}

#[test]
fn an_index_that_comes_again_groups_its_own_records() {
    let mut world = World::leader(1);
    world.log.stage([append(1, "a"), append(2, "b"), append(3, "c")]).unwrap();
    world.send();
    world.log.follow();
    world.log.truncate_from(BatchIndex(2));
    world.log.truncate_from(BatchIndex(1));
    world.lead(2);
    world.log.stage([append(3, "x"), append(1, "y")]).unwrap();
    world.settle();
    world.commit(2);
    assert_eq!((world.text_of(1), world.text_of(3)), ("y".to_owned(), "x".to_owned()));
}

// Foreign batches

#[test]
fn foreign_batches_that_do_not_fit_are_refused_by_their_reason() {
    let mut world = World::follower();
    world.log.append_foreign(sealed_elsewhere(fields(3, 1, 0, 0), 0, &["first", "second"])).unwrap();
    world.settle();
    let right = fields(3, 2, 3, 4096);
    type Change = fn(&mut BatchFields);
    let table: [(&str, Change, u64); 8] = [
        ("batch 1, expected 2", |fields| fields.index = BatchIndex(1), 2),
        ("batch 3, expected 2", |fields| fields.index = BatchIndex(3), 2),
        ("follows one of term 2, and the last one here is of term 3", |fields| fields.prev_term = Term(2), 2),
        ("at 0: it must begin at 4096 or at 65536", |fields| fields.base_offset = LogOffset(0), 2),
        ("at 8192: it must begin at 4096 or at 65536", |fields| fields.base_offset = LogOffset(8192), 2),
        ("is of 1999 ms, the one before of 2000 ms", |fields| fields.store_time_ms = 1999, 2),
        ("offset 1 of queue 1, expected 2", |_| {}, 1),
        ("offset 3 of queue 1, expected 2", |_| {}, 3),
    ];
    for (expected, change, first) in table {
        let mut changed = right;
        change(&mut changed);
        let refused = world.log.append_foreign(sealed_elsewhere(changed, first, &["third"])).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}, expected {expected}");
        assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(2));
        assert_eq!(world.log.last_index(), BatchIndex(1));
    }
    let long = "x".repeat(61_500);
    let beyond = world.log.append_foreign(sealed_elsewhere(right, 2, &[&long])).unwrap_err();
    assert!(matches!(beyond, ForeignRefused::BaseOffset { .. }), "it leaves its segment: {beyond}");
    let rolled = BatchFields { base_offset: LogOffset(65536), ..right };
    world.log.append_foreign(sealed_elsewhere(rolled, 2, &[&long])).unwrap();

    world.log.truncate_from(BatchIndex(2));
    world.lead(4);
    let refused = world.log.append_foreign(sealed_elsewhere(right, 2, &["third"])).unwrap_err();
    assert_eq!(refused, ForeignRefused::Leading { term: Term(4) });
}

#[test]
fn bytes_that_are_no_batch_of_the_group_are_refused() {
    let good = sealed_elsewhere(fields(1, 1, 0, 0), 0, &["record"]);
    let bytes = |at: usize| {
        let mut copy = SimDisk::alloc(4096);
        copy.as_mut().copy_from_slice(&(**good.buffer()).as_ref()[..4096]);
        copy.as_mut()[at] ^= 1;
        copy
    };
    for at in [3, 30, 130, 170, 4095] {
        let refused = ForeignBatch::verify(bytes(at), GroupId(7)).unwrap_err();
        assert!(matches!(refused, ForeignError::Batch(_)), "{at}: {refused}");
    }
    let refused =
        ForeignBatch::<AlignedBuffer>::verify(std::rc::Rc::clone(good.buffer()), GroupId(8)).unwrap_err();
    assert_eq!(refused, ForeignError::Group { expected: GroupId(8), found: GroupId(7) });
}

#[test]
fn foreign_batches_wait_within_the_window_and_are_refused_beyond_their_bound() {
    let config = LogConfig {
        write_window_bytes: 32 << 10,
        batch_bytes_target: 16 << 10,
        batch_bytes_max: 16 << 10,
        staged_bytes_max: 64 << 10,
        ..grouped()
    };
    let (mut leader, mut follower) = (World::leader(1), World::new(config));
    leader.settle();
    let mut taken = 0;
    let refused = loop {
        leader.log.stage([append_long(1, LEN)]).unwrap();
        leader.settle();
        leader.log.commit_to(leader.log.last_index());
        let batches = leader.sealed_batches();
        let results: Vec<_> = batches.iter().map(|it| follower.log.append_foreign(received(it))).collect();
        taken += results.iter().filter(|result| result.is_ok()).count() as u64;
        if let Some(Err(refused)) = results.into_iter().find(Result::is_err) {
            break refused;
        }
        follower.submit();
    };
    assert_eq!(refused, ForeignRefused::Busy { waiting_bytes: 60 << 10, limit: 64 << 10 });
    assert_eq!(follower.log.last_index().0, taken);
    let on_their_way = follower.disk.pending();
    assert!(on_their_way <= 4, "{on_their_way} operations for a window of 32 KiB");
    follower.settle();
    assert_eq!(follower.log.durable_index().0, taken);
}

#[test]
fn a_roll_of_the_leader_waits_for_the_followers_segment() {
    let (mut leader, mut follower) = (World::leader(1), World::on(SimDisk::new(2), grouped()));
    for _ in 0..8 {
        leader.log.stage([append_long(1, LEN)]).unwrap();
        leader.settle();
    }
    let batches = leader.sealed_batches();
    assert_eq!(batches.last().unwrap().base_offset, LogOffset(65536 + 3 * 12288 - 12288));
    follower.receive(&batches);
    assert_eq!(follower.log.last_index(), BatchIndex(9));
    assert!(follower.writes().is_empty());
    assert_eq!(follower.commit(9).len(), 9);
    assert!(follower.plan(1, 0, ALL).runs.iter().all(|run| matches!(run, Run::Memory(_))));
    assert!(follower.log.batch_at(BatchIndex(9)).unwrap().is_some());
    follower.complete_one();
    assert_eq!(follower.writes(), [1, 2, 3, 4, 5, 6], "the second segment is not made yet");
    follower.settle();
    assert_eq!(follower.state(), (9, 9, 9, 9));
    assert!(leader.log_bytes()[..98304] == follower.log_bytes()[..98304]);
}

#[test]
fn a_cut_takes_the_log_back_into_an_earlier_segment() {
    let (mut leader, mut follower) = (World::leader(1), World::follower());
    for _ in 0..8 {
        leader.log.stage([append_long(1, LEN)]).unwrap();
        leader.settle();
    }
    let batches = leader.sealed_batches();
    follower.receive(&batches);
    follower.submit();
    follower.log.truncate_from(BatchIndex(4));
    assert_eq!(follower.log.marks().appended, LogOffset(4096 + 2 * 12288));
    let replaced = sealed_elsewhere(
        BatchFields { store_time_ms: 1000, ..fields(2, 4, 1, 4096 + 2 * 12288) },
        2,
        &["of the new leader"],
    );
    follower.log.append_foreign(replaced).unwrap();
    let rolled = sealed_elsewhere(
        BatchFields { store_time_ms: 1000, ..fields(2, 5, 2, 65536) },
        3,
        &["in another place than before"],
    );
    follower.log.append_foreign(rolled).unwrap();
    follower.settle();
    follower.commit(5);
    assert_eq!(follower.state(), (5, 5, 5, 5));
    let text = follower.text_of(1);
    assert!(text.ends_with("xof the new leaderin another place than before") && text.len() == 2 * LEN + 45);
}

#[test]
fn where_a_roll_leaves_room_nothing_stays_that_could_follow() {
    let mut world = World::follower();
    let first = sealed_elsewhere(fields(1, 1, 0, 0), 0, &["stays"]);
    world.log.append_foreign(first.clone()).unwrap();
    world.log.append_foreign(sealed_elsewhere(fields(1, 2, 1, 4096), 1, &["cut off"])).unwrap();
    world.settle();
    // As if another life had cut it off.
    let mut log = CommitLog::open_group(grouped(), recovered_none(), SimDisk::alloc).unwrap();
    std::mem::swap(&mut world.log, &mut log);
    let mut prepared = 0;
    while prepared < 2 {
        if let Some(DiskOp::Prepare { segment, .. }) = world.log.poll_op(0, SimDisk::alloc) {
            world.log.on_prepared(segment.base, Ok(()));
        }
        prepared += 1;
    }
    world.log.append_foreign(first).unwrap();
    world
        .log
        .append_foreign(sealed_elsewhere(fields(2, 2, 1, 65536), 1, &["begins the next segment"]))
        .unwrap();
    assert_eq!(world.writes(), [1], "the other waits until what is in front of it is erased");
    world.settle();
    assert_eq!(world.state(), (0, 2, 2, 2));
    let left = world.disk.read_durable(FileRun { segment: LogOffset(0), position: 4096, len: 4096 });
    assert!(left.iter().all(|byte| *byte == 0));
}

#[test]
fn a_segment_that_cannot_be_made_is_told_and_waited_for() {
    let (mut leader, mut follower) = (World::leader(1), World::on(SimDisk::new(2), grouped()));
    follower.disk.set_full(true);
    follower.receive(&leader.send());
    follower.settle();
    assert_eq!(follower.log.space_state(), SpaceState::Refuse);
    assert_eq!(follower.state(), (0, 0, 0, 1));
    follower.disk.set_full(false);
    follower.now_ms = follower.log.wake_at_ms().expect("a pause has an end");
    follower.settle();
    assert_eq!((follower.state(), follower.log.space_state()), ((0, 1, 1, 1), SpaceState::Normal));
}

#[test]
fn poisoned_log_of_a_group_takes_and_tells_nothing_more() {
    let mut world = World::leader(1);
    world.stage(1, "unknown");
    world.send();
    world.disk.fail_writes(1);
    world.settle();
    assert!(world.log.poisoned().is_some());
    let failed = world.failed();
    assert!(matches!(&failed[..], [(0, 1, FailureCause::Poisoned(_))]), "{failed:?}");
    assert!(matches!(world.log.seal_noop(0, SimDisk::alloc), Err(AppendRefused::Poisoned(_))));
    world.log.follow();
    assert!(world.commit(2).is_empty());
    world.log.truncate_from(BatchIndex(1));
    let batch = sealed_elsewhere(fields(2, 3, 1, 8192), 0, &["more"]);
    assert!(matches!(world.log.append_foreign(batch), Err(ForeignRefused::Poisoned(_))));
    assert!(world.failed().is_empty(), "each ticket ends once");
}

// By index

#[test]
fn batches_are_found_by_index_in_flight_in_memory_in_files_and_by_sealed_indexes() {
    let config = LogConfig {
        segments_ahead: 1,
        ..LogConfig { commit_rule: CommitRule::Group, ..sealed::keeps_everything() }
    };
    let mut world = World::new(LogConfig { batches_in_flight_max: 16, tail_cache_bytes: 12288, ..config });
    world.lead(1);
    world.settle();
    for nth in 0..14 {
        world.log.stage([append(1, &sealed::text(nth))]).unwrap();
        world.settle();
        world.log.commit_to(world.log.last_index());
        world.settle();
    }
    world.sealed_batches();
    world.rest();
    assert!(world.sealed() >= 2);
    world.log.follow();
    world.lead(2);
    world.log.stage([append(1, &sealed::text(14))]).unwrap();
    world.submit();

    let last = world.log.last_index().0;
    assert_eq!(last, 17);
    let (mut kinds, mut bytes) = (Vec::new(), Vec::new());
    for index in 1..=last {
        let place = world.log.batch_at(BatchIndex(index)).unwrap().unwrap();
        assert_eq!((place.index, place.term), (BatchIndex(index), Term(if index < 16 { 1 } else { 2 })));
        let batch = match &place.run {
            Run::Memory(run) => run.as_ref().to_vec(),
            Run::File(run) => world.disk.read(*run),
        };
        let header = *RawBatch(&batch).verify().unwrap().header();
        assert_eq!((header.index(), header.base_offset()), (place.index, place.base_offset));
        kinds.push(matches!(place.run, Run::Memory(_)));
        bytes.push(batch);
    }
    assert!(kinds[14..].iter().all(|in_memory| *in_memory) && !kinds[..13].contains(&true), "{kinds:?}");
    for outside in [0, last + 1] {
        assert!(world.log.batch_at(BatchIndex(outside)).unwrap().is_none());
    }
    for (first, bytes_max, count_max) in
        [(1, u64::MAX, 100), (2, 30_000, 100), (3, 1, 100), (1, u64::MAX, 4), (12, u64::MAX, 5)]
    {
        let list = world.log.batches_from(BatchIndex(first), bytes_max, count_max);
        assert_eq!((list.fault, list.first.0), (None, first));
        let count = list.batches.len();
        assert!(count > 0 && count <= count_max && (list.bytes <= bytes_max || count == 1));
        let got: Vec<u8> = list
            .runs
            .iter()
            .flat_map(|run| match run {
                Run::Memory(run) => run.as_ref().to_vec(),
                Run::File(run) => world.disk.read(*run),
            })
            .collect();
        assert!(got == bytes[first as usize - 1..][..count].concat());
        assert_eq!(list.prev_term, Term(u64::from(first > 1)));
        if bytes_max == u64::MAX {
            assert_eq!(count as u64, count_max.min((last + 1 - first) as usize) as u64);
        }
    }
    let list = world.log.batches_from(BatchIndex(1), u64::MAX, 100);
    assert!(list.runs.len() < 10, "what touches in one file is one run: {}", list.runs.len());
    assert!(world.log.batches_from(BatchIndex(last + 1), 1, 1).batches.is_empty());

    let mut world = world;
    world.disk.evict_indexes(100);
    let list = world.log.batches_from(BatchIndex(2), u64::MAX, 100);
    let Some(IndexFault::Cold { segment, range }) = list.fault else { panic!("{:?}", list.fault) };
    assert!(list.batches.is_empty());
    world.log.sealed_index(segment).unwrap().load(range).unwrap();
    assert!(!world.log.batches_from(BatchIndex(2), u64::MAX, 100).batches.is_empty());
    world.now_ms += 1;
}

#[test]
fn what_lies_in_front_of_the_log_moves_on_with_it() {
    let retention = crate::config::Retention { age_ms: None, bytes: Some(1), may_reclaim: false };
    let config = LogConfig { commit_rule: CommitRule::Group, retention, ..sealed::keeps_everything() };
    let mut world = World::new(LogConfig { batches_in_flight_max: 16, ..config });
    assert_eq!((world.log.first_index(), world.log.before_first()), (BatchIndex(1), LogStart::default()));
    for term in 1..=20 {
        world.lead(term);
        world.log.stage([append(1, &sealed::text(term - 1))]).unwrap();
        world.settle();
        world.log.commit_to(world.log.last_index());
        world.rest();
        world.sealed_batches();
        world.log.follow();
    }
    let start = world.log.before_first();
    assert!(start.index.0 > 10, "{start:?}");
    assert_eq!(start.base_offset, world.log.start());
    assert_eq!(world.log.term_of(start.index), Some(start.term));
    assert_eq!(world.log.term_of(BatchIndex(start.index.0 - 1)), None);
    for index in start.index.0 + 1..=world.log.last_index().0 {
        assert_eq!(world.log.term_of(BatchIndex(index)), Some(Term(index.div_ceil(2))), "{index}");
    }
    assert!(world.log.batch_at(start.index).unwrap().is_none());
    let first = world.log.batch_at(world.log.first_index()).unwrap().unwrap();
    assert_eq!(first.base_offset, start.base_offset);
    assert!(world.log.boundary().is_some());
}

// Openings

#[test]
fn batches_not_known_to_be_committed_are_opened_as_such() {
    let mut before = World::follower();
    let batches = [
        sealed_elsewhere(fields(1, 1, 0, 0), 0, &["committed"]),
        sealed_elsewhere(fields(1, 2, 1, 4096), 1, &["a"]),
        sealed_elsewhere(fields(3, 3, 1, 8192), 2, &["b", "c"]),
    ];
    before.log.append_foreign(batches[0].clone()).unwrap();
    before.settle();
    let mut recovered = recover(&before.disk, &grouped(), &mut ()).unwrap();
    recovered.restored.term_runs = [(1, 1), (3, 3)]
        .map(|(first, term)| crate::TermRun { first: BatchIndex(first), term: Term(term) })
        .into();
    recovered.restored.uncommitted = batches[1..]
        .iter()
        .map(|batch| UncommittedBatch {
            index: batch.index(),
            segment: LogOffset(0),
            position: batch.base_offset().0,
            bytes: (**batch.buffer()).as_ref().to_vec(),
        })
        .collect();
    let log = CommitLog::open_group(grouped(), recovered, SimDisk::alloc).unwrap();
    let mut world = World { disk: before.disk, log, now_ms: 3000 };
    assert_eq!((world.state(), world.log.last_term()), ((1, 3, 3, 3), Term(3)));
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(1));
    assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(4));
    assert_eq!(world.log.term_of(BatchIndex(2)), Some(Term(1)));
    assert!(!world.log.is_leading() && world.log.is_idle() && world.log.is_at_rest());
    world.log.truncate_from(BatchIndex(3));
    assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(2));
    let committed = world.commit(9);
    assert_eq!((committed.len(), committed[0].places.len(), world.log.settled().0), (1, 0, BatchIndex(2)));
    world.lead(4);
    assert_eq!(world.stage(1, "goes on").first_queue_offset, QueueOffset(2));
}

#[test]
fn log_that_is_begun_anew_goes_on_behind_the_checkpoint() {
    let mut world = World::leader(1);
    world.stage(1, "of unknown outcome");
    world.log.stage([append(2, "x")]).unwrap();
    world.send();
    world.log.follow();
    world.log.pause(true);
    assert!(!world.log.is_at_rest());
    while world.disk.pending() > 0 {
        world.complete_one();
    }
    assert!(world.submit() == 0 && world.log.is_at_rest());
    let start = LogStart { index: BatchIndex(100), term: Term(7), base_offset: LogOffset(10 << 16) };
    let done = crate::ResetDone {
        state: crate::GroupState { log_start: start, ..crate::GroupState::new(GroupId(7), NodeId(1)) },
        last_store_time_ms: 5000,
        queue_ends: vec![(QueueKey(1), QueueOffset(40)), (QueueKey::CONTROL, QueueOffset(3))],
        boundary: None,
        snapshot: None,
        derived: Box::new(()),
    };
    for base in world.disk.segment_bases() {
        world.disk.remove_segment(base);
    }
    world.log.reset(&done);
    assert_eq!(world.failed(), [(0, 2, FailureCause::BegunAnew)]);
    assert_eq!((world.log.before_first(), world.log.last_term()), (start, Term(7)));
    assert_eq!(world.state(), (100, 100, 100, 100));
    assert_eq!((world.log.min_offset(QueueKey(1)).0, world.log.max_offset(QueueKey(1)).0), (40, 40));
    let next = sealed_elsewhere(
        BatchFields { store_time_ms: 5000, ..fields(8, 101, 7, 10 << 16) },
        40,
        &["behind the checkpoint"],
    );
    world.log.append_foreign(next).unwrap();
    world.settle();
    assert_eq!(world.commit(101).len(), 1);
    assert_eq!(world.text_of(1), "");
    let plan = world.plan(1, 40, ALL);
    assert_eq!(world.bytes(&plan), b"behind the checkpoint");
    assert_eq!(world.disk.segment_bases()[0], LogOffset(10 << 16));
    world.lead(9);
    assert_eq!(world.stage(1, "a ticket that was never given").first_ticket, Ticket(2));
}
