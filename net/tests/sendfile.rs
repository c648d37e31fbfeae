//! Files to real sockets: what is sent arrives, what is not cached is waited for by its own connection only.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use apogee_net::code::RequestCode;
use apogee_net::command::{RequestHead, append_request};
use apogee_net::frame::{HeaderEncoding, RawFrame};
use apogee_net::header::NoExt;
use apogee_net::io::{
    Chunk, Connection, ConnectionId, Driver, DriverConfig, FileFuture, FileSource, OutboxLimits, Service,
    Signal, Socket, serve,
};
use bytes::{Bytes, BytesMut};
use glommio::LocalExecutorBuilder;

const WITHIN: Duration = Duration::from_secs(10);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Most bytes that one call moves.
const PIECE: u64 = 256 * KIB;

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

async fn eventually(mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < WITHIN, "not met within {WITHIN:?}");
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
}

/// What such a thread read, once it has come to the end of the stream.
async fn read_by(peer: JoinHandle<Vec<u8>>) -> Vec<u8> {
    eventually(|| peer.is_finished()).await;
    peer.join().unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Cache {
    /// All is resident.
    Warm,
    /// A range is resident from its load on.
    Cold,
    /// A range is evicted as soon as it was loaded.
    Thrashing,
}

/// A file of known bytes that says of its ranges what a test wants said.
struct TestFile {
    file: File,
    bytes: Vec<u8>,
    cache: Cache,
    /// A load ends only after this was raised.
    gate: Option<Signal>,
    loaded: RefCell<Vec<Range<u64>>>,
    read: RefCell<Vec<Range<u64>>>,
    /// Loads that have begun and were neither finished nor dropped.
    loading: Cell<usize>,
    fails: bool,
}

impl TestFile {
    fn new(len: u64, cache: Cache) -> TestFile {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + (i >> 8) * 7 + (i >> 16)) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let (gate, loaded, read) = (None, RefCell::default(), RefCell::default());
        TestFile { file, bytes, cache, gate, loaded, read, loading: Cell::new(0), fails: false }
    }

    fn gated(len: u64) -> Rc<TestFile> {
        Rc::new(TestFile { gate: Some(Signal::default()), ..TestFile::new(len, Cache::Cold) })
    }

    fn chunk(self: &Rc<Self>, range: Range<u64>) -> Chunk {
        Chunk::file(self.clone(), range)
    }

    fn slice(&self, range: Range<u64>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn open_gate(&self) {
        self.gate.as_ref().unwrap().raise();
    }
}

struct Loading<'a>(&'a Cell<usize>);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl FileSource for TestFile {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        let loaded = self.loaded.borrow();
        match self.cache {
            Cache::Warm => true,
            Cache::Cold => loaded.iter().any(|whole| whole.start <= range.start && range.end <= whole.end),
            Cache::Thrashing => false,
        }
    }

    fn load(&self, range: Range<u64>) -> FileFuture<'_, ()> {
        self.loading.set(self.loading.get() + 1);
        let loading = Loading(&self.loading);
        Box::pin(async move {
            let _loading = loading;
            if let Some(gate) = &self.gate {
                gate.wait().await;
            }
            if self.fails {
                return Err(std::io::Error::from_raw_os_error(libc::EIO));
            }
            self.loaded.borrow_mut().push(range);
            Ok(())
        })
    }

    fn read(&self, range: Range<u64>) -> FileFuture<'_, Bytes> {
        Box::pin(async move {
            if self.fails {
                return Err(std::io::Error::from_raw_os_error(libc::EIO));
            }
            self.read.borrow_mut().push(range.clone());
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let mut len = 0;
            loop {
                match self.file.read_at(&mut bytes[len..], range.start + len as u64)? {
                    0 => break,
                    more => len += more,
                }
            }
            bytes.truncate(len);
            Ok(bytes.into())
        })
    }
}

#[derive(Default)]
struct Counting {
    frames: Cell<usize>,
    closed: Cell<bool>,
}

impl Service for Counting {
    fn on_frame(&self, _connection: &Rc<Connection>, _frame: RawFrame) {
        self.frames.set(self.frames.get() + 1);
    }

    fn on_closed(&self, _connection: &Rc<Connection>) {
        self.closed.set(true);
    }
}

struct Options {
    sendfile: bool,
    buffer_bytes: Option<i32>,
    limits: OutboxLimits,
}

const ORDINARY: Options = Options { sendfile: true, buffer_bytes: None, limits: OutboxLimits::SERVER };

/// A served connection and its peer.
fn connect(options: Options) -> (Rc<Connection>, Rc<Counting>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if let Some(bytes) = options.buffer_bytes {
        set_buffer(&peer, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, bytes);
    }
    peer.connect(&listener.local_addr().unwrap().into()).unwrap();
    let accepted = socket2::Socket::from(listener.accept().unwrap().0);
    if let Some(bytes) = options.buffer_bytes {
        set_buffer(&accepted, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, bytes);
    }
    let mut socket = Socket::new(accepted).unwrap();
    assert!(socket.supports_sendfile());
    if !options.sendfile {
        socket = socket.without_sendfile();
    }
    let connection = Connection::new(ConnectionId(1), socket, options.limits);
    let service = Rc::new(Counting::default());
    glommio::spawn_local(serve(connection.clone(), service.clone())).detach();
    (connection, service, peer.into())
}

/// Sets a socket's buffer, beyond what the system allows users if we may.
fn set_buffer(socket: &socket2::Socket, ordinary: i32, forced: i32, bytes: i32) {
    let set = |option| {
        let (value, len) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
        // SAFETY: the value lives through the call, and its length is what is passed.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len) == 0 }
    };
    assert!(set(forced) || set(ordinary));
}

fn send(connection: &Connection, head: &[u8], body: impl IntoIterator<Item = Chunk>) {
    let encode = |out: &mut BytesMut| {
        out.extend_from_slice(head);
        Ok(())
    };
    connection.send(encode, body).unwrap();
}

fn request() -> BytesMut {
    let mut wire = BytesMut::new();
    let head = RequestHead { code: RequestCode(1), opaque: 1, oneway: true, ext: &NoExt };
    append_request(&mut wire, HeaderEncoding::Json, &head, b"body").unwrap();
    wire
}

/// Reads `len` bytes, then closes; fewer if the stream ends before.
fn read_len(mut peer: TcpStream, len: usize) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = vec![0; len];
        let mut read = 0;
        while read < len {
            match peer.read(&mut bytes[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
        }
        bytes.truncate(read);
        bytes
    })
}

fn assert_same(found: &[u8], expected: &[u8]) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!((found.len(), differs), (expected.len(), None), "lengths, and the first byte that differs");
}

/// Frames of heads, memory and files in all orders, as they go through `options` from `file`.
async fn interleaved(
    file: &Rc<TestFile>,
    options: Options,
    read: impl FnOnce(TcpStream, usize) -> JoinHandle<Vec<u8>>,
) {
    let (connection, _service, peer) = connect(options);
    let mut expected = Vec::new();
    let mut queue = |head: &[u8], chunks: Vec<Chunk>| {
        expected.extend_from_slice(head);
        for chunk in &chunks {
            match chunk {
                Chunk::File(part) => expected.extend_from_slice(file.slice(part.range())),
                memory => expected.extend_from_slice(memory.in_memory().unwrap()),
            }
        }
        send(&connection, head, chunks);
    };
    let memory = |len: usize| Chunk::from(Bytes::from(vec![len as u8; len]));
    queue(b"one", vec![file.chunk(0..1)]);
    queue(b"", vec![file.chunk(1..PIECE), memory(1), file.chunk(5..5), file.chunk(7..7 + PIECE)]);
    queue(b"only a head", vec![]);
    queue(b"three", vec![memory(5000), file.chunk(PIECE - 1..3 * PIECE + 1), memory(7), memory(9)]);
    // More slices than one send takes, with a file behind the last.
    queue(b"four", (0..100).map(|i| memory(i + 1)).chain([file.chunk(100..4200)]).collect());
    for i in 0..80 {
        let range = i * 2003 % file.bytes.len() as u64;
        queue(&[i as u8; 40], vec![file.chunk(range..(range + i * 1447).min(file.bytes.len() as u64))]);
    }
    queue(b"last", vec![file.chunk(0..file.bytes.len() as u64)]);
    let found = read_by(read(peer, expected.len())).await;
    assert_same(&found, &expected);
}

#[test]
fn memory_and_files_arrive_in_order() {
    on_executor(|| async {
        let file = Rc::new(TestFile::new(MIB, Cache::Warm));
        interleaved(&file, ORDINARY, read_len).await;
        assert!(file.loaded.borrow().is_empty() && file.read.borrow().is_empty());
    });
}

#[test]
fn cold_files_are_loaded_in_pieces_before_they_are_sent() {
    on_executor(|| async {
        for cache in [Cache::Cold, Cache::Thrashing] {
            let file = Rc::new(TestFile::new(MIB, cache));
            interleaved(&file, ORDINARY, read_len).await;
            let loaded = file.loaded.borrow();
            assert!(loaded.iter().all(|range| range.end - range.start <= PIECE), "{loaded:?}");
            assert!(loaded.len() >= 8);
        }
    });
}

#[test]
fn without_sendfile_bytes_are_read_in_pieces() {
    on_executor(|| async {
        let file = Rc::new(TestFile::new(MIB, Cache::Cold));
        interleaved(&file, Options { sendfile: false, ..ORDINARY }, read_len).await;
        let read = file.read.borrow();
        assert!(read.iter().all(|range| range.end - range.start <= PIECE), "{read:?}");
        assert!(read.len() >= 80 && file.loaded.borrow().is_empty());
    });
}

#[expect(clippy::disallowed_methods, reason = "the peer is a thread of its own")]
fn read_slowly(mut peer: TcpStream, len: usize) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::with_capacity(len);
        let mut buffer = [0; 30_000];
        while bytes.len() < len {
            let read = peer.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..read]);
            std::thread::sleep(Duration::from_micros(500));
        }
        bytes
    })
}

#[test]
fn a_slow_peer_with_small_buffers_gets_the_same_bytes() {
    on_executor(|| async {
        for cache in [Cache::Warm, Cache::Thrashing] {
            let file = Rc::new(TestFile::new(MIB, cache));
            interleaved(&file, Options { buffer_bytes: Some(8192), ..ORDINARY }, read_slowly).await;
        }
    });
}

#[test]
fn only_its_own_writer_waits_for_a_cold_file() {
    on_executor(|| async {
        let file = TestFile::gated(PIECE);
        let (waiting, service, mut peer) = connect(ORDINARY);
        send(&waiting, b"", [file.chunk(0..PIECE)]);
        eventually(|| file.loading.get() == 1).await;
        // It is read from as before.
        peer.write_all(&request()).unwrap();
        eventually(|| service.frames.get() == 1).await;
        // Others send, from memory and from a file.
        let warm = Rc::new(TestFile::new(MIB, Cache::Warm));
        interleaved(&warm, ORDINARY, read_len).await;
        assert_eq!(file.loading.get(), 1);
        file.open_gate();
        assert_same(&read_by(read_len(peer, PIECE as usize)).await, &file.bytes);
    });
}

/// What the kernel was told to keep for the bytes that follow goes when they turn out to be on disk.
#[test]
fn replies_do_not_wait_for_the_cold_file_behind_them() {
    on_executor(|| async {
        let mut fastest = WITHIN;
        // Kept back it would take 200 ms. A busy machine may be as slow once, not every time.
        for _ in 0..5 {
            let file = TestFile::gated(PIECE);
            let (connection, _service, peer) = connect(ORDINARY);
            send(&connection, b"reply", []);
            send(&connection, b"head", [file.chunk(0..PIECE)]);
            let begun = Instant::now();
            assert_eq!(read_by(read_len(peer, 9)).await, b"replyhead");
            fastest = fastest.min(begun.elapsed());
            assert_eq!(file.loaded.borrow().len(), 0);
        }
        assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    });
}

#[test]
fn a_file_shorter_than_promised_ends_its_connection() {
    on_executor(|| async {
        for sendfile in [true, false] {
            let file = Rc::new(TestFile::new(MIB, Cache::Warm));
            file.file.set_len(700_000).unwrap();
            let (connection, service, peer) = connect(Options { sendfile, ..ORDINARY });
            send(&connection, b"head", [file.chunk(0..MIB)]);
            send(&connection, b"never sent", []);
            let found = read_by(read_len(peer, 2 << 20)).await;
            assert_same(&found[4..], file.slice(0..700_000));
            eventually(|| service.closed.get()).await;
            assert!(connection.is_closed());
        }
    });
}

#[test]
fn a_file_that_cannot_be_read_ends_its_connection() {
    on_executor(|| async {
        for sendfile in [true, false] {
            let file = Rc::new(TestFile { fails: true, ..TestFile::new(PIECE, Cache::Cold) });
            let (connection, service, peer) = connect(Options { sendfile, ..ORDINARY });
            send(&connection, b"head", [file.chunk(0..PIECE)]);
            assert_eq!(read_by(read_len(peer, 100)).await, b"head");
            eventually(|| service.closed.get()).await;
            assert!(connection.is_closed());
            assert_eq!(Rc::strong_count(&file), 1);
        }
    });
}

#[test]
fn closing_does_not_wait_for_a_load() {
    #[derive(Clone, Copy, PartialEq)]
    enum Closing {
        ByPeer,
        Here,
        /// With so much waiting for the peer that it is not read from.
        HereCongested,
    }
    on_executor(|| async {
        for closing in [Closing::ByPeer, Closing::Here, Closing::HereCongested] {
            let pause_reading_bytes = if closing == Closing::HereCongested { 1 } else { usize::MAX };
            let limits = OutboxLimits { pause_reading_bytes, ..OutboxLimits::SERVER };
            let file = TestFile::gated(PIECE);
            let (connection, service, mut peer) = connect(Options { limits, ..ORDINARY });
            send(&connection, b"head", [file.chunk(0..PIECE), file.chunk(0..1)]);
            eventually(|| file.loading.get() == 1).await;
            send(&connection, b"behind it", [file.chunk(0..PIECE)]);
            peer.write_all(&request()).unwrap();
            eventually(|| service.frames.get() == 1).await;
            match closing {
                Closing::ByPeer => drop(peer),
                Closing::Here | Closing::HereCongested => connection.close("test"),
            }
            eventually(|| service.closed.get()).await;
            assert_eq!(file.loading.get(), 0, "the load was dropped");
            assert_eq!(Rc::strong_count(&file), 1, "nothing holds the file for a connection that is over");
        }
    });
}

#[test]
fn a_file_is_held_until_its_last_byte_is_with_the_kernel() {
    on_executor(|| async {
        const LEN: usize = MIB as usize;
        let file = Rc::new(TestFile::new(MIB, Cache::Warm));
        let (connection, _service, peer) = connect(Options { buffer_bytes: Some(64 << 10), ..ORDINARY });
        send(&connection, b"", [file.chunk(0..MIB)]);
        // As far as the sockets' buffers go, and no further.
        let mut sent = 0;
        let mut waiting = || {
            let before = std::mem::replace(&mut sent, connection.waiting_bytes());
            sent == before && sent < LEN
        };
        eventually(&mut waiting).await;
        assert_eq!(Rc::strong_count(&file), 2);
        read_by(read_len(peer, LEN)).await;
        assert_eq!(Rc::strong_count(&file), 1);
    });
}

#[test]
fn bytes_of_files_count_against_the_limits_of_the_out_queue() {
    on_executor(|| async {
        let file = Rc::new(TestFile::new(MIB, Cache::Warm));
        let limits = OutboxLimits { pause_reading_bytes: 1 << 19, bytes_max: 3 << 19 };
        let (connection, service, _peer) = connect(Options { limits, ..ORDINARY });
        send(&connection, b"", [file.chunk(0..MIB)]);
        assert!(connection.is_congested() && !connection.is_closed());
        send(&connection, b"", [file.chunk(0..MIB)]);
        assert!(connection.is_closed());
        eventually(|| service.closed.get()).await;
    });
}

/// One connection that could send for ever, and a timer that must go off all the same.
#[test]
fn a_peer_that_takes_all_does_not_keep_the_executor_from_its_timers() {
    on_executor(|| async {
        const LEN: u64 = 8 * MIB;
        let file = Rc::new(TestFile::new(LEN, Cache::Warm));
        let limits = OutboxLimits { bytes_max: usize::MAX, ..OutboxLimits::SERVER };
        let (connection, _service, peer) =
            connect(Options { buffer_bytes: Some(256 << 20), limits, ..ORDINARY });
        for _ in 0..128 {
            send(&connection, b"", [file.chunk(0..LEN)]);
        }
        let reading = std::thread::spawn(move || {
            // MSG_TRUNC: the kernel drops the bytes instead of copying them, so that the peer is the faster one.
            // SAFETY: with that flag nothing is written behind the pointer.
            let receive =
                || unsafe { libc::recv(peer.as_raw_fd(), std::ptr::null_mut(), 8 << 20, libc::MSG_TRUNC) };
            while receive() > 0 {}
        });
        let mut waiting = connection.waiting_bytes();
        let mut most_at_once = 0;
        while waiting > 512 << 20 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
            let before = std::mem::replace(&mut waiting, connection.waiting_bytes());
            most_at_once = most_at_once.max(before - waiting);
        }
        connection.close("test");
        eventually(|| reading.is_finished()).await;
        // Bytes and not time, for time passes on a busy machine too. 1 ms is good for some 5 MiB.
        assert!(most_at_once < 64 << 20, "{most_at_once} bytes were sent while a timer of 1 ms waited");
    });
}
