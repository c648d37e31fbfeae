//! Messages go through bytes unchanged, and nothing else passes for one.

use apogee_storage::{
    AlignedBuffer, BatchIndex, Checkpoint, CheckpointSnapshot, ConfState, GroupId, LogOffset, LogStart,
    Member, NodeId, OpId, QueueKey, QueueOffset, Term,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::checkpoint;
use super::codec::{
    BATCHES_BYTES_MAX, BODY_BYTES_MAX, CodecError, FRAME_HEADER_LEN, FrameHeader, decode, encode_with,
};
use super::membership::{Configuration, Step};
use super::message::{
    AppendAnswer, AppendHead, Heartbeat, HeartbeatAnswer, Members, PeerHello, PeerMessage, ResetAnswer,
    ResetHead, ResetPart, VoteAnswer, VoteRequest,
};

type Message = PeerMessage<AlignedBuffer>;

fn index() -> impl Strategy<Value = BatchIndex> {
    any::<u64>().prop_map(BatchIndex)
}

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
    vec((1..1000u64).prop_map(NodeId), 0..8)
}

fn conf() -> impl Strategy<Value = ConfState> {
    (index(), nodes(), nodes(), nodes(), nodes(), any::<bool>()).prop_map(
        |(index, voters, outgoing, learners, learners_next, auto_leave)| ConfState {
            index,
            voters,
            outgoing,
            learners,
            learners_next,
            auto_leave,
        },
    )
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let member = (1..1000u64, vec(any::<u8>(), 0..64));
    vec(member.prop_map(|(node, address)| Member { node: NodeId(node), address }), 0..8)
}

fn message() -> impl Strategy<Value = Message> {
    let head = (term(), index(), term(), index(), index(), any::<i64>());
    let append = head.prop_map(|(term, prev_index, prev_term, commit, last_index, clock_ms)| {
        let head = AppendHead { term, prev_index, prev_term, commit, last_index, clock_ms };
        PeerMessage::Append { head, batches: Vec::new() }
    });
    let answer = (term(), index(), any::<Option<(u64, u64)>>(), index(), any::<Option<i64>>());
    let answer = answer.prop_map(|(term, index, refused, commit, echo_ms)| {
        let refused = refused.map(|(index, term)| (BatchIndex(index), Term(term)));
        PeerMessage::AppendAnswer(AppendAnswer { term, index, refused, commit, echo_ms })
    });
    let beat = (term(), index(), index(), any::<i64>()).prop_map(|(term, commit, last_index, clock_ms)| {
        PeerMessage::Heartbeat(Heartbeat { term, commit, last_index, clock_ms })
    });
    let beat_answer = (term(), index(), any::<Option<i64>>(), any::<bool>());
    let beat_answer = beat_answer.prop_map(|(term, commit, echo_ms, unfit)| {
        PeerMessage::HeartbeatAnswer(HeartbeatAnswer { term, commit, echo_ms, unfit })
    });
    let vote = (term(), any::<bool>(), any::<bool>(), index(), term(), index(), term());
    let vote = vote.prop_map(|(term, pre, transfer, last_index, last_term, commit, commit_term)| {
        let vote = VoteRequest { term, pre, transfer, last_index, last_term, commit, commit_term };
        PeerMessage::VoteRequest(vote)
    });
    let voted = (term(), any::<bool>(), any::<bool>(), index(), term());
    let voted = voted.prop_map(|(term, pre, granted, commit, commit_term)| {
        PeerMessage::VoteAnswer(VoteAnswer { term, pre, granted, commit, commit_term })
    });
    let reset = (term(), any::<u64>(), any::<u64>(), any::<i64>()).prop_map(|(term, id, bytes, clock_ms)| {
        PeerMessage::Reset(ResetHead { term, id: OpId(id), bytes, clock_ms })
    });
    let part = (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..300))
        .prop_map(|(id, at, bytes)| PeerMessage::ResetPart(ResetPart { id: OpId(id), at, bytes }));
    let part_answer = (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(id, bytes, failed)| {
        PeerMessage::ResetAnswer(ResetAnswer { id: OpId(id), bytes, failed })
    });
    let told = (term(), any::<u64>(), conf(), members()).prop_map(|(term, leader, conf, members)| {
        let leader = Some(NodeId(leader)).filter(|leader| leader.0 != 0);
        PeerMessage::Members(Box::new(Members { term, leader, conf, members }))
    });
    prop_oneof![
        append,
        answer,
        beat,
        beat_answer,
        vote,
        voted,
        term().prop_map(|term| PeerMessage::TimeoutNow { term }),
        reset,
        part,
        part_answer,
        told,
    ]
}

fn frame_of(message: &Message, batch_bytes: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_with(message, batch_bytes, &mut frame);
    frame
}

fn read(frame: &[u8]) -> Result<Message, CodecError> {
    let (head, rest) =
        frame.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(CodecError::Short { field: "header" })?;
    let header = FrameHeader::decode(head)?;
    let body = rest.get(..header.body_len as usize).ok_or(CodecError::Short { field: "body" })?;
    decode(header, body)
}

proptest! {
    #[test]
    fn messages_survive_the_wire(message in message(), batch_bytes in 0..1u64 << 20) {
        let batch_bytes = if matches!(message, PeerMessage::Append { .. }) { batch_bytes } else { 0 };
        let frame = frame_of(&message, batch_bytes);
        let found = read(&frame).unwrap();
        prop_assert_eq!(format!("{found:?}"), format!("{message:?}"));
        prop_assert_eq!(frame_of(&found, batch_bytes), frame);
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_is_refused(message in message(), at in any::<prop::sample::Index>()) {
        let frame = frame_of(&message, 0);
        for len in 0..frame.len() {
            prop_assert!(read(&frame[..len]).is_err(), "{} of {} bytes", len, frame.len());
        }
        let bit = at.index(frame.len() * 8);
        let mut turned = frame.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(read(&turned).is_err(), "bit {bit}");
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = PeerHello::decode(&bytes);
        let _ = Configuration::decode(&bytes);
        let _ = checkpoint::decode(&bytes);
    }

    #[test]
    fn bodies_with_a_good_checksum_are_refused_or_read_without_a_panic(
        kind in 0..14u8, body in vec(any::<u8>(), 0..200)
    ) {
        let mut frame = vec![0; FRAME_HEADER_LEN];
        frame[0] = kind;
        frame[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), &body);
        frame[12..16].copy_from_slice(&crc.to_le_bytes());
        frame.extend_from_slice(&body);
        if let Ok(message) = read(&frame) {
            prop_assert_eq!(frame_of(&message, 0), frame, "one message has one form");
        }
    }

    #[test]
    fn hellos_survive_the_wire(
        numbers in any::<[u64; 7]>(), flags in any::<[bool; 2]>(), names in any::<[u8; 2]>(), cut in any::<prop::sample::Index>()
    ) {
        let [group, node, incarnation, segment_bytes, term, last_index, committed] = numbers;
        let hello = PeerHello {
            cluster: "c".repeat(names[0].into()),
            group: GroupId(group),
            shard: names[0].into(),
            node: NodeId(node.max(1)),
            incarnation,
            format: names[1].into(),
            segment_bytes,
            recovering: flags[0],
            joining: flags[1],
            term: Term(term),
            last_index: BatchIndex(last_index),
            committed: BatchIndex(committed),
            client_address: "ü".repeat(names[1].into()),
        };
        let bytes = hello.encode();
        prop_assert_eq!(&PeerHello::decode(&bytes).unwrap(), &hello);
        prop_assert!(PeerHello::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn changes_of_members_survive_the_log(steps in vec((0..3u8, 1..1000u64, vec(any::<u8>(), 0..40)), 0..5)) {
        let step = |(kind, node, address): (u8, u64, Vec<u8>)| match kind {
            0 => Step::Voter { node: NodeId(node), address },
            1 => Step::Learner { node: NodeId(node), address },
            _ => Step::Gone { node: NodeId(node) },
        };
        let change = Configuration { steps: steps.into_iter().map(step).collect() };
        let bytes = change.encode();
        prop_assert_eq!(&Configuration::decode(&bytes).unwrap(), &change);
        for len in 0..bytes.len() {
            prop_assert!(Configuration::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn checkpoints_survive_the_wire(
        start in any::<[u64; 3]>(), ends in vec(any::<(u64, u64)>(), 0..20), conf in conf(), members in members(),
        snapshot in any::<Option<(u64, Vec<u8>)>>()
    ) {
        let checkpoint = Checkpoint {
            start: LogStart { index: BatchIndex(start[0]), term: Term(start[1]), base_offset: LogOffset(start[2]) },
            last_store_time_ms: -5,
            queue_ends: ends.into_iter().map(|(queue, end)| (QueueKey(queue), QueueOffset(end))).collect(),
            snapshot: snapshot.map(|(at, file)| CheckpointSnapshot { at: LogOffset(at), file }),
        };
        let bytes = checkpoint::encode(&checkpoint, &conf, &members);
        let found = checkpoint::decode(&bytes).unwrap();
        prop_assert_eq!(found, checkpoint::Begin { checkpoint, conf, members });
    }
}

#[test]
fn lengths_meet_their_limits_before_anything_is_allocated() {
    let header = |kind: u8, body_len: u32, batch_bytes: u32| {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&body_len.to_le_bytes());
        bytes[8..12].copy_from_slice(&batch_bytes.to_le_bytes());
        FrameHeader::decode(&bytes)
    };
    assert!(header(1, 48, BATCHES_BYTES_MAX).is_ok());
    assert!(matches!(
        header(1, 48, BATCHES_BYTES_MAX + 1),
        Err(CodecError::TooLarge { field: "batch bytes", .. })
    ));
    assert!(matches!(header(3, 32, 1), Err(CodecError::TooLarge { field: "batch bytes", .. })));
    assert!(matches!(
        header(9, BODY_BYTES_MAX + 1, 0),
        Err(CodecError::TooLarge { field: "body length", .. })
    ));
    assert!(matches!(header(0, 0, 0), Err(CodecError::Kind { found: 0 })));
}

#[test]
fn a_heartbeat_looks_like_this() {
    let beat = Heartbeat { term: Term(5), commit: BatchIndex(9), last_index: BatchIndex(11), clock_ms: -1 };
    let frame = frame_of(&PeerMessage::Heartbeat(beat), 0);
    let mut expected = vec![3, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0];
    let numbers = [5u64, 9, 11, u64::MAX];
    let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&expected), &body);
    expected.extend_from_slice(&crc.to_le_bytes());
    expected.extend_from_slice(&body);
    assert_eq!(frame, expected);
}
