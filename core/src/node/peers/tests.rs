//! Shards of several nodes in one thread, over loopback.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use apogee_net::io::{Chunk, Driver, DriverConfig, LinkFrame, Listener};
use apogee_storage::driver::DmaBuffer;
use apogee_storage::format::{BLOCK_LEN, BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry};
use apogee_storage::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};
use bytes::Bytes;
use glommio::{LocalExecutorBuilder, TaskQueueHandle};

use super::hello::tests::about;
use super::*;

const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Up(u64),
    Down(u64),
    /// From whom, the head, the parts.
    Frame(u64, Bytes, Vec<Vec<u8>>),
}

struct Events(RefCell<Vec<Event>>, PeerHello);

impl PeerEvents for Events {
    fn hello(&self) -> PeerHello {
        self.1.clone()
    }

    fn on_up(&self, hello: PeerHello) {
        self.0.borrow_mut().push(Event::Up(hello.node.0));
    }

    fn on_down(&self, node: NodeId) {
        self.0.borrow_mut().push(Event::Down(node.0));
    }

    fn on_frame(&self, node: NodeId, frame: LinkFrame<DmaBuffer>) {
        let parts = frame.parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        self.0.borrow_mut().push(Event::Frame(node.0, frame.head, parts));
    }

    fn on_turn_end(&self) {}
}

struct TestNode {
    peers: Rc<Peers>,
    events: Rc<Events>,
    address: SocketAddr,
    tasks: Vec<glommio::Task<()>>,
}

impl TestNode {
    fn start(about: About) -> TestNode {
        TestNode::listen(about, "127.0.0.1:0".parse().unwrap())
    }

    fn listen(about: About, address: SocketAddr) -> TestNode {
        let events = Rc::new(Events(RefCell::default(), about.peer.clone()));
        let weak: Weak<dyn PeerEvents> = Rc::downgrade(&(events.clone() as Rc<dyn PeerEvents>));
        let (node, group) = (about.peer.node, (about.group, about.values));
        let peers = Peers::new(node, about.peer.shard, group, weak, TaskQueueHandle::default());
        let listener = Listener::bind(address).unwrap();
        let address = listener.local();
        let tasks = vec![
            glommio::spawn_local(peers.clone().accept(listener)),
            glommio::spawn_local(peers.clone().watch()),
        ];
        TestNode { peers, events, address, tasks }
    }

    fn knows(&self, others: &[(u64, &TestNode)]) {
        self.knows_at(&others.iter().map(|(node, other)| (*node, other.address)).collect::<Vec<_>>());
    }

    fn knows_at(&self, others: &[(u64, SocketAddr)]) {
        let members: BTreeMap<_, _> =
            others.iter().map(|(node, address)| (NodeId(*node), *address)).collect();
        self.peers.set_members(&members);
    }

    fn take(&self) -> Vec<Event> {
        self.events.0.take()
    }

    async fn has(&self, count: usize) -> Vec<Event> {
        eventually(|| self.events.0.borrow().len() >= count).await;
        self.take()
    }

    async fn stop(self) {
        for task in self.tasks {
            task.cancel().await;
        }
        self.peers.stop();
    }
}

async fn eventually(mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < WITHIN, "not met within {WITHIN:?}");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

fn on_executor<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    LocalExecutorBuilder::default()
        .spawn(move || async move {
            Driver::start(DriverConfig::default());
            test().await;
        })
        .unwrap()
        .join()
        .unwrap();
}

async fn pair() -> (TestNode, TestNode) {
    let (one, two) = (TestNode::start(about(1)), TestNode::start(about(2)));
    one.knows(&[(2, &two)]);
    two.knows(&[(1, &one)]);
    assert_eq!(one.has(1).await, [Event::Up(2)]);
    assert_eq!(two.has(1).await, [Event::Up(1)]);
    (one, two)
}

/// A whole batch of about `len` bytes.
fn batch(len: usize) -> Bytes {
    let mut layout = BatchLayout::default();
    let size = (len - BLOCK_LEN) as u32;
    layout.add(size, 0);
    let fields = BatchFields {
        kind: BatchKind::Records,
        group: GroupId(9),
        leader: NodeId(1),
        term: Term(1),
        index: BatchIndex(1),
        prev_term: Term(0),
        base_offset: LogOffset(0),
        commit_hint: BatchIndex(0),
        store_time_ms: 0,
    };
    let mut bytes = vec![0; layout.batch_len()];
    let mut writer = BatchWriter::new(&mut bytes, layout, fields);
    let entry =
        NewEntry { queue: QueueKey(1), queue_offset: QueueOffset(0), tag_hash: 0, key_hashes: &[], size };
    writer.push(entry, |_, out| {
        out.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + at / 251) as u8)
    });
    writer.finish();
    bytes.into()
}

#[test]
fn frames_go_both_ways_on_both_connections_in_order() {
    on_executor(|| async {
        let (one, two) = pair().await;
        let large = batch(16 << 20);
        for (from, to, name) in [(&one, &two, 1), (&two, &one, 2)] {
            let node = NodeId(3 - name);
            for number in 0..100u8 {
                from.peers.send(node, LinkKind::Control, &[number], &[]);
            }
            from.peers.send(node, LinkKind::Appends, b"append", &[Chunk::Bytes(large.clone())]);
            let events = to.has(101).await;
            let control: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Frame(from, head, parts) if parts.is_empty() => Some((*from, head[0])),
                    _ => None,
                })
                .collect();
            assert_eq!(control, (0..100).map(|number| (name, number)).collect::<Vec<_>>());
            assert!(events.contains(&Event::Frame(name, "append".into(), vec![large.to_vec()])));
        }
        assert_eq!(one.peers.client_address(NodeId(2)), Some("127.0.0.1:2".parse().unwrap()));
    });
}

#[test]
fn after_a_restart_there_is_a_new_session_and_nothing_of_the_old_one() {
    on_executor(|| async {
        // The one that calls, and the one that is called, goes away.
        for restarted in [1, 2] {
            let (one, two) = pair().await;
            let (stays, goes) = if restarted == 2 { (one, two) } else { (two, one) };
            let (stayer, other) = (3 - restarted, NodeId(3 - restarted));
            // Fills the socket: most of it will not have left when its sender goes.
            for _ in 0..3 {
                goes.peers.send(other, LinkKind::Appends, b"old", &[Chunk::Bytes(batch(16 << 20))]);
            }
            let address = goes.address;
            goes.stop().await;
            eventually(|| stays.peers.connected().is_empty()).await;
            let before = stays.take();
            assert_eq!(before.last(), Some(&Event::Down(restarted)));
            let back = TestNode::listen(about(restarted), address);
            back.knows(&[(stayer, &stays)]);
            back.has(1).await;
            back.peers.send(other, LinkKind::Appends, b"new", &[]);
            let after = stays.has(2).await;
            assert_eq!(after, [Event::Up(restarted), Event::Frame(restarted, "new".into(), vec![])]);
        }
    });
}

#[test]
fn a_node_that_starts_is_called_at_once() {
    on_executor(|| async {
        let one = TestNode::start(about(1));
        let two = TestNode::start(about(2));
        let address = two.address;
        two.stop().await;
        one.knows_at(&[(2, address)]);
        // Long enough for the pauses between calls to have grown.
        glommio::timer::sleep(Duration::from_millis(1500)).await;
        let two = TestNode::listen(about(2), address);
        let started = Instant::now();
        two.knows(&[(1, &one)]);
        two.has(1).await;
        assert!(started.elapsed() < RETRY_MAX / 2, "{:?}", started.elapsed());
    });
}

#[test]
fn whoever_is_knocked_at_by_a_stranger_calls_it_once() {
    on_executor(|| async {
        let mut four = about(4);
        let address = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().local();
        four.peer.client_address = format!("127.0.0.1:{}", address.port() - PEER_PORT_DISTANCE);
        let four = TestNode::listen(four, address);
        // Not there yet, and has never heard of the other.
        let one = TestNode::start(about(1));
        let address = one.address;
        one.stop().await;
        four.knows_at(&[(1, address)]);
        glommio::timer::sleep(RETRY_MAX).await;
        // It waits to be added and the other adds it; or the other is outside of the group.
        for joining in [true, false] {
            let mut one = about(1);
            one.peer.joining = joining;
            let one = TestNode::listen(one, address);
            assert_eq!(four.has(1).await, [Event::Up(1)], "joining: {joining}");
            one.stop().await;
            assert_eq!(four.has(1).await, [Event::Down(1)]);
            // Called once, for it is no member.
            glommio::timer::sleep(2 * RETRY_MAX).await;
            assert_eq!(four.take(), []);
        }
    });
}

#[test]
fn a_session_outlives_the_membership_and_is_not_begun_anew() {
    on_executor(|| async {
        let (one, two) = pair().await;
        one.knows(&[]);
        one.peers.send(NodeId(2), LinkKind::Control, b"farewell", &[]);
        assert_eq!(two.has(1).await, [Event::Frame(1, "farewell".into(), vec![])]);
        let address = two.address;
        two.stop().await;
        assert_eq!(one.has(1).await, [Event::Down(2)]);
        let two = TestNode::listen(about(2), address);
        glommio::timer::sleep(2 * RETRY_MAX).await;
        assert_eq!(two.take(), []);
        one.knows(&[(2, &two)]);
        assert_eq!(one.has(1).await, [Event::Up(2)]);
    });
}

#[test]
fn strangers_are_forgotten_and_make_room_for_others() {
    on_executor(|| async {
        let last = TestNode::start(about(1000));
        for node in 1..=STRANGERS_MAX as u64 {
            knock(
                last.address,
                Hello { kind: LinkKind::Knock, session: 0, about: about(node), to: NodeId(1000) },
            )
            .await;
        }
        let known = || last.peers.peers.borrow().len();
        assert_eq!(known(), STRANGERS_MAX);
        let one_more = TestNode::start(about(100));
        one_more.knows(&[(1000, &last)]);
        glommio::timer::sleep(Duration::from_millis(300)).await;
        assert_eq!((known(), last.take()), (STRANGERS_MAX, vec![]), "there is no room");
        // Not at once: some of them may be about to call.
        last.peers.forget_strangers(Instant::now() + STRANGER_KEPT / 2);
        assert_eq!(known(), STRANGERS_MAX);
        last.peers.forget_strangers(Instant::now() + STRANGER_KEPT);
        assert_eq!(last.has(1).await, [Event::Up(100)]);
        // Neither one with which there is a session, nor a member that is away.
        last.knows_at(&[(7, "127.0.0.1:9".parse().unwrap())]);
        last.peers.forget_strangers(Instant::now() + 2 * STRANGER_KEPT);
        assert_eq!(last.peers.peers.borrow().keys().copied().collect::<Vec<_>>(), [7, 100].map(NodeId));
        one_more.stop().await;
        assert_eq!(last.has(1).await, [Event::Down(100)]);
        last.peers.forget_strangers(Instant::now() + 4 * STRANGER_KEPT);
        assert_eq!(known(), 1);
    });
}

#[test]
fn nodes_that_do_not_belong_together_refuse_each_other() {
    on_executor(|| async {
        type Change = fn(&mut About);
        let changes: [Change; 4] = [
            |about| about.peer.cluster = "another".into(),
            |about| about.peer.shard += 1,
            |about| about.peer.segment_bytes *= 2,
            |about| about.peer.node = NodeId(9),
        ];
        for change in changes {
            let mut other = about(2);
            change(&mut other);
            let (one, two) = (TestNode::start(about(1)), TestNode::start(other));
            one.knows(&[(2, &two)]);
            eventually(|| {
                let peers = one.peers.peers.borrow();
                peers[&NodeId(2)].told.borrow().contains("refused by the other side")
            })
            .await;
            glommio::timer::sleep(Duration::from_millis(100)).await;
            assert_eq!(one.take(), []);
            assert_eq!(two.take(), []);
            assert!(two.peers.refused.borrow().contains("expected"));
            one.stop().await;
        }
    });
}

#[test]
fn malformed_bytes_cost_their_connection_only() {
    on_executor(|| async {
        let (one, two) = pair().await;
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64]] {
            let mut stream = TcpStream::connect(two.address).unwrap();
            stream.write_all(nonsense).unwrap();
            glommio::timer::sleep(Duration::from_millis(50)).await;
            stream.set_nonblocking(true).unwrap();
            assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "an answer to nonsense");
        }
        one.peers.send(NodeId(2), LinkKind::Control, b"still here", &[]);
        assert_eq!(two.has(1).await, [Event::Frame(1, "still here".into(), vec![])]);
    });
}

#[test]
fn a_peer_that_does_not_read_costs_the_bound_and_its_session() {
    on_executor(|| async {
        let (one, two) = pair().await;
        let links = two.peers.peers.borrow()[&NodeId(1)].links();
        // As if its thread were held up.
        links.iter().for_each(|link| link.hold());
        let part = [Chunk::Bytes(batch(1 << 20))];
        for _ in 0..256 {
            one.peers.send(NodeId(2), LinkKind::Appends, b"append", &part);
            let waiting: usize =
                one.peers.peers.borrow()[&NodeId(2)].links().iter().map(|link| link.waiting_bytes()).sum();
            assert!(waiting <= OUT_BYTES_MAX + (2 << 20), "{waiting}");
        }
        // It goes on with a new session.
        assert_eq!(one.has(2).await, [Event::Down(2), Event::Up(2)]);
    });
}

#[test]
fn a_link_on_which_only_one_direction_works_is_given_up() {
    on_executor(|| async {
        let (one, two) = pair().await;
        // Node 2 says nothing any more, as if its packets were lost; it still hears.
        let watching = two.tasks;
        for task in watching {
            task.cancel().await;
        }
        let started = Instant::now();
        eventually(|| one.take().contains(&Event::Down(2))).await;
        assert!(started.elapsed() >= SILENCE_MAX - ALIVE_EVERY);
        eventually(|| two.events.0.borrow().contains(&Event::Down(1))).await;
    });
}

#[test]
fn a_thread_that_was_held_up_does_not_take_that_for_silence() {
    on_executor(|| async {
        let (one, two) = pair().await;
        one.peers.send(NodeId(2), LinkKind::Control, b"before", &[]);
        two.has(1).await;
        // Both say something, then nobody is let run for long.
        one.peers.send(NodeId(2), LinkKind::Control, b"in the socket", &[]);
        two.peers.send(NodeId(1), LinkKind::Control, b"in the socket", &[]);
        for peers in [&one, &two] {
            for link in peers.peers.peers.borrow().values().flat_map(|peer| peer.links()) {
                link.say_alive(Instant::now(), Duration::ZERO);
            }
        }
        glommio::timer::sleep(Duration::from_millis(1)).await;
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(SILENCE_MAX + ALIVE_EVERY);
        glommio::timer::sleep(ALIVE_EVERY * 2).await;
        assert_eq!(one.peers.connected(), [NodeId(2)]);
        assert!(!one.take().contains(&Event::Down(2)));
    });
}
