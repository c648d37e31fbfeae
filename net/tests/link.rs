//! Links over loopback: parts arrive whole where they were allocated, malformed bytes end their link only, a peer that
//! does not read costs a bounded amount.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_net::io::{
    Chunk, ConnectionId, Driver, DriverConfig, Link, LinkEnd, LinkFrame, LinkService, Listener, Socket,
};
use apogee_net::link::{LinkError, LinkLimits, encode};
use bytes::{Bytes, BytesMut};
use glommio::LocalExecutorBuilder;
use glommio::io::DmaBuffer;

const WITHIN: Duration = Duration::from_secs(10);

const LIMITS: LinkLimits = LinkLimits { head_bytes_max: 1 << 20, parts_bytes_max: 32 << 20 };

const OUT_BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
struct Sink {
    frames: RefCell<Vec<LinkFrame<DmaBuffer>>>,
    turns: Cell<usize>,
    hold_after: Cell<Option<usize>>,
}

impl LinkService for Sink {
    type Part = DmaBuffer;

    const PART_HEAD_BYTES: usize = 4;

    fn part_len(&self, head: &[u8]) -> Result<usize, LinkError> {
        let head = head.try_into().map_err(|_| LinkError::Part("cut short".into()))?;
        Ok(u32::from_le_bytes(head) as usize)
    }

    fn alloc(&self, len: usize) -> DmaBuffer {
        glommio::allocate_dma_buffer(len)
    }

    fn on_frame(&self, link: &Rc<Link>, frame: LinkFrame<DmaBuffer>) {
        self.frames.borrow_mut().push(frame);
        if self.hold_after.get() == Some(self.frames.borrow().len()) {
            link.hold();
        }
    }

    fn on_turn_end(&self) {
        self.turns.set(self.turns.get() + 1);
    }
}

/// One end of a link, served by a task.
struct End {
    link: Rc<Link>,
    sink: Rc<Sink>,
    over: glommio::task::JoinHandle<LinkEnd>,
}

impl End {
    fn serve(socket: Socket) -> End {
        let link = Link::new(ConnectionId(0), socket, LIMITS, OUT_BYTES_MAX);
        let sink = Rc::new(Sink::default());
        let (served, to) = (link.clone(), sink.clone());
        let over = glommio::spawn_local(async move { served.serve(&*to).await }).detach();
        End { link, sink, over }
    }

    async fn end(self) -> String {
        self.over.await.unwrap().to_string()
    }
}

fn on_executor<F: Future<Output = ()>>(test: impl FnOnce(Listener) -> F + Send + 'static) {
    LocalExecutorBuilder::default()
        .spawn(move || async move {
            Driver::start(DriverConfig::default());
            test(Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()).await;
        })
        .unwrap()
        .join()
        .unwrap();
}

async fn pair(listener: &Listener) -> (End, End) {
    let dialled = Socket::connect(listener.local()).await.unwrap();
    (End::serve(dialled), End::serve(listener.accept().await))
}

async fn eventually(mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < WITHIN, "not met within {WITHIN:?}");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

fn bytes(len: usize, seed: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251 + seed) as u8).collect::<Vec<_>>().into()
}

/// Begins with its length.
fn part(len: usize, seed: usize) -> Bytes {
    let mut part = bytes(len, seed).to_vec();
    part[..4].copy_from_slice(&(len as u32).to_le_bytes());
    part.into()
}

#[test]
fn parts_of_all_sizes_arrive_whole_and_aligned() {
    on_executor(|listener| async move {
        let (here, there) = pair(&listener).await;
        let frames: [&[usize]; 7] = [
            &[],
            &[4096],
            &[16 << 20],
            &[4096; 40],
            &[8192, 1 << 20, 4096, 3 << 20],
            &[4, 4095, 4097, 17],
            &[],
        ];
        for round in 0..3 {
            for (number, lengths) in frames.iter().enumerate() {
                let head = bytes(1 + number * 2000, round);
                let parts: Vec<_> = lengths.iter().map(|&len| part(len, number + round)).collect();
                // One piece may hold several parts, and a part be of several pieces.
                let joined = Bytes::from(parts.concat());
                let cut = joined.len() / 3;
                let pieces = [Chunk::Bytes(joined.slice(..cut)), Chunk::Bytes(joined.slice(cut..))];
                here.link.send(&head, &pieces);
                eventually(|| there.sink.frames.borrow().len() == 1).await;
                let frame = there.sink.frames.borrow_mut().pop().unwrap();
                assert_eq!(frame.head, head);
                assert_eq!(frame.parts.len(), parts.len());
                for (found, sent) in frame.parts.iter().zip(&parts) {
                    assert_eq!(found.as_bytes().as_ptr() as usize % 512, 0, "not aligned");
                    assert!(found.as_bytes() == &sent[..], "other bytes");
                }
            }
        }
        here.link.close("done");
        assert_eq!(here.end().await, "done");
        assert!(there.end().await.contains("the peer closed"));
    });
}

#[test]
fn small_frames_are_delivered_many_to_a_turn_and_signs_of_life_not_at_all() {
    on_executor(|listener| async move {
        let (here, there) = pair(&listener).await;
        for number in 0..1000u32 {
            here.link.send(&number.to_le_bytes(), &[]);
            here.link.say_alive(Instant::now(), Duration::ZERO);
        }
        eventually(|| there.sink.frames.borrow().len() == 1000).await;
        for (number, frame) in (0u32..).zip(there.sink.frames.borrow().iter()) {
            assert_eq!(&frame.head[..], &number.to_le_bytes());
        }
        assert!(there.sink.turns.get() <= 100, "{} turns", there.sink.turns.get());
        assert!(there.link.silent_for(Instant::now()) < WITHIN);
    });
}

#[test]
fn a_held_link_leaves_what_follows_in_the_socket() {
    on_executor(|listener| async move {
        let (here, there) = pair(&listener).await;
        there.sink.hold_after.set(Some(1));
        for number in 0..10u8 {
            here.link.send(&[number], &[]);
        }
        eventually(|| there.sink.frames.borrow().len() == 1).await;
        glommio::timer::sleep(Duration::from_millis(20)).await;
        assert_eq!(there.sink.frames.borrow().len(), 1);
        there.link.go_on();
        eventually(|| there.sink.frames.borrow().len() == 10).await;
    });
}

#[test]
fn a_peer_that_does_not_read_is_dropped_at_the_bound() {
    on_executor(|listener| async move {
        let silent = TcpStream::connect(listener.local()).unwrap();
        let here = End::serve(listener.accept().await);
        let part = [Chunk::Bytes(part(1 << 20, 0))];
        let mut sent = 0;
        while !here.link.is_closed() {
            here.link.send(b"append", &part);
            sent += 1;
            assert!(here.link.waiting_bytes() <= OUT_BYTES_MAX + (2 << 20));
            assert!(sent < 200, "still not dropped");
            glommio::timer::sleep(Duration::from_micros(100)).await;
        }
        let link = here.link.clone();
        assert!(here.end().await.contains("does not read"));
        assert_eq!(link.waiting_bytes(), 0, "nothing is kept for it");
        drop(silent);
    });
}

#[test]
fn malformed_bytes_end_their_link_only() {
    on_executor(|listener| async move {
        let (here, there) = pair(&listener).await;
        let frame = |head: &[u8], parts_bytes, parts: &[u8]| {
            let mut wire = BytesMut::new();
            encode(&mut wire, head, parts_bytes);
            wire.extend_from_slice(parts);
            wire
        };
        let mut damaged = frame(b"vote for me", 0, b"");
        *damaged.last_mut().unwrap() ^= 1;
        let too_long = frame(b"", (32 << 20) + 1, b"");
        let beyond = frame(b"", 100, &101u32.to_le_bytes());
        let cut_short = frame(b"", 3, b"123");
        let endless = frame(b"", 100, &0u32.to_le_bytes());
        let cases: [(&[u8], &str); 7] = [
            (b"GET / HTTP/1.1\r\n", "magic number"),
            (&damaged, "checksum"),
            (&too_long, "expected at most"),
            (&beyond, "part of 101 bytes where 100 are left"),
            (&cut_short, "unreadable part"),
            (&endless, "part of 0 bytes"),
            (b"", "the peer closed"),
        ];
        for (malformed, found) in cases {
            let mut stream = TcpStream::connect(listener.local()).unwrap();
            let end = End::serve(listener.accept().await);
            stream.write_all(malformed).unwrap();
            if malformed.is_empty() {
                drop(stream);
            } else {
                stream.set_read_timeout(Some(WITHIN)).unwrap();
                eventually(|| end.link.is_closed()).await;
                let mut nothing = Vec::new();
                // Closed or reset, as the kernel has it.
                let _ = stream.read_to_end(&mut nothing);
                assert_eq!(nothing, b"");
            }
            let said = end.end().await;
            assert!(said.contains(found), "{said}");
        }
        here.link.send(b"still here", &[]);
        eventually(|| there.sink.frames.borrow().len() == 1).await;
    });
}

#[test]
fn a_frame_may_arrive_byte_by_byte() {
    on_executor(|listener| async move {
        let mut wire = BytesMut::new();
        let parts = Bytes::from([part(3000, 9), part(5000, 8)].concat());
        encode(&mut wire, &bytes(5000, 1), 8000);
        wire.extend_from_slice(&parts);
        let address: SocketAddr = listener.local();
        let writer = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in wire.chunks(7) {
                stream.write_all(piece).unwrap();
            }
            stream.write_all(&wire).unwrap();
            stream
        });
        let end = End::serve(listener.accept().await);
        eventually(|| end.sink.frames.borrow().len() == 2).await;
        for frame in end.sink.frames.borrow().iter() {
            assert_eq!(frame.head, bytes(5000, 1));
            assert_eq!([frame.parts[0].as_bytes(), frame.parts[1].as_bytes()].concat(), parts);
        }
        drop(writer.join().unwrap());
    });
}
