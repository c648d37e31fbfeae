//! Runs of a cached file to a fast peer over loopback: a connection beside bare loops of system calls.
//!
//!     cargo bench -p apogee-net --bench sendfile -- [--dir DIR] [--rounds 25] [--mib 128]
//!
//! Run by `cargo test` it does a small round, so that it cannot rot. The peer asks with real request frames, keeps a few
//! of them unanswered as a catch-up consumer does, and has the kernel drop the bytes, so that the sender is measured and
//! not the peer. All ways of a run length take turns, so that what disturbs the machine disturbs them all. Printed per
//! way: the medians of throughput and of the sending thread's CPU time, the ratio of both to the bare sendfile loop, and
//! the spread of the rounds. Not measured: files that are not cached, many connections, the way to the run's index.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
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

const RUNS: [u64; 4] = [32 << 10, 64 << 10, 256 << 10, 1 << 20];
/// What stands in front of each run: as long as the head of a pull's reply.
const HEAD: [u8; 128] = [b'h'; 128];
/// Requests the peer keeps unanswered.
const WINDOW: u64 = 4;
/// The number of `cachestat`, the same on x86-64 and aarch64; libc does not name it yet.
const SYS_CACHESTAT: libc::c_long = 451;
/// What the bare copying loop reads at once.
const COPY_BYTES: usize = 256 << 10;

struct Options {
    dir: PathBuf,
    rounds: usize,
    bytes: u64,
}

fn options() -> Options {
    let mut options =
        Options { dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")), rounds: 25, bytes: 128 << 20 };
    let mut args = std::env::args().skip(1);
    let mut measured = false;
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--bench" => measured = true,
            "--dir" => options.dir = value().into(),
            "--rounds" => options.rounds = value().parse().expect("--rounds takes a number"),
            "--mib" => options.bytes = value().parse::<u64>().expect("--mib takes a number") << 20,
            other => panic!("unknown argument {other}; known are --dir, --rounds, --mib"),
        }
    }
    if !measured {
        (options.rounds, options.bytes) = (1, 8 << 20);
    }
    options
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    BareSendfile,
    Connection,
    BareCopy,
    ConnectionCopy,
}

impl Way {
    const ALL: [Way; 4] = [Way::BareSendfile, Way::Connection, Way::BareCopy, Way::ConnectionCopy];

    fn name(self) -> &'static str {
        match self {
            Way::BareSendfile => "bare loop, sendfile",
            Way::Connection => "connection, sendfile",
            Way::BareCopy => "bare loop, pread and write",
            Way::ConnectionCopy => "connection, pread and write",
        }
    }
}

/// One round of one way.
#[derive(Clone, Copy)]
struct Round {
    took: Duration,
    cpu: Duration,
}

/// A cached file.
struct CachedFile {
    file: File,
    bytes: u64,
}

impl CachedFile {
    fn new(options: &Options) -> CachedFile {
        let file = tempfile::tempfile_in(&options.dir).expect("a file to send");
        let bytes = options.bytes.min(256 << 20);
        let piece: Vec<u8> = (0..1 << 20).map(|i: u32| ((i * 31) >> 3) as u8).collect();
        for position in (0..bytes).step_by(piece.len()) {
            file.write_all_at(&piece, position).expect("room for the file");
        }
        CachedFile { file, bytes }
    }

    fn run(&self, nth: u64, len: u64) -> Range<u64> {
        let position = nth * len % self.bytes;
        position..position + len
    }
}

/// The file as connections hold it.
struct Source(Arc<CachedFile>);

impl FileSource for Source {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    /// Asks as the storage does. A kernel without the call (before 6.5) is taken at its word.
    fn is_resident(&self, range: Range<u64>) -> bool {
        let len = range.end - range.start;
        let (asked, mut pages) = ([range.start, len], [0u64; 5]);
        // SAFETY: both arrays have the layout and the length that the call expects, and outlive it.
        let answer = unsafe {
            let file = self.0.file.as_raw_fd();
            libc::syscall(SYS_CACHESTAT, file, asked.as_ptr(), pages.as_mut_ptr(), 0)
        };
        answer != 0 || pages[0] * 4096 >= len
    }

    fn load(&self, range: Range<u64>) -> FileFuture<'_, ()> {
        let loaded = self.read(range);
        Box::pin(async { loaded.await.map(drop) })
    }

    /// On the executor itself: the file is cached, and a pool's thread would only add to it.
    fn read(&self, range: Range<u64>) -> FileFuture<'_, Bytes> {
        Box::pin(async move {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.0.file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes.into())
        })
    }
}

fn request() -> Bytes {
    let mut wire = BytesMut::new();
    let head = RequestHead { code: RequestCode(11), opaque: 1, oneway: false, ext: &NoExt };
    append_request(&mut wire, HeaderEncoding::Json, &head, &[]).expect("a short request");
    wire.freeze()
}

/// Asks `runs` times and takes the replies, then hangs up. Says how long that took from the moment it was told to go.
fn ask(mut peer: TcpStream, go: Receiver<()>, runs: u64, len: u64) -> JoinHandle<Duration> {
    std::thread::spawn(move || {
        let request = request();
        let reply_len = HEAD.len() as u64 + len;
        let (mut asked, mut received) = (0, 0);
        go.recv().expect("a server that starts");
        let begun = Instant::now();
        while received < runs * reply_len {
            while asked < runs && asked < received / reply_len + WINDOW {
                peer.write_all(&request).expect("a server that reads");
                asked += 1;
            }
            // SAFETY: with MSG_TRUNC the kernel drops the bytes and writes nothing behind the pointer.
            let dropped =
                unsafe { libc::recv(peer.as_raw_fd(), std::ptr::null_mut(), 4 << 20, libc::MSG_TRUNC) };
            received += u64::try_from(dropped).expect("a server that answers");
            assert_ne!(dropped, 0, "the server left after {received} bytes");
        }
        begun.elapsed()
    })
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer.
    let asked = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(asked, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Reads requests as they come and answers each by `send`; ends with the peer.
fn bare(mut socket: TcpStream, mut send: impl FnMut(&mut TcpStream, u64)) {
    socket.set_nodelay(true).expect("a TCP socket");
    let request_len = request().len();
    let mut buffer = [0; 4096];
    let (mut received, mut answered) = (0, 0);
    loop {
        match socket.read(&mut buffer).expect("a peer that asks") {
            0 => return,
            more => received += more,
        }
        while answered < received / request_len {
            send(&mut socket, answered as u64);
            answered += 1;
        }
    }
}

fn send_head(socket: &TcpStream) {
    // SAFETY: the call reads that many bytes of a constant.
    let sent = unsafe { libc::send(socket.as_raw_fd(), HEAD.as_ptr().cast(), HEAD.len(), libc::MSG_MORE) };
    assert_eq!(sent, HEAD.len() as isize);
}

fn bare_sendfile(socket: TcpStream, file: &CachedFile, len: u64) {
    bare(socket, |socket, nth| {
        send_head(socket);
        let run = file.run(nth, len);
        let (mut position, end) = (run.start as libc::off_t, run.end as libc::off_t);
        while position < end {
            // SAFETY: both descriptors are open, and `position` outlives the call.
            let sent = unsafe {
                let (socket, file) = (socket.as_raw_fd(), file.file.as_raw_fd());
                libc::sendfile(socket, file, &mut position, (end - position) as usize)
            };
            assert!(sent > 0, "{}", io::Error::last_os_error());
        }
    });
}

fn bare_copy(socket: TcpStream, file: &CachedFile, len: u64) {
    let mut buffer = vec![0; COPY_BYTES];
    bare(socket, |socket, nth| {
        send_head(socket);
        let mut run = file.run(nth, len);
        while !run.is_empty() {
            let piece = &mut buffer[..COPY_BYTES.min((run.end - run.start) as usize)];
            file.file.read_exact_at(piece, run.start).expect("a file of that length");
            socket.write_all(piece).expect("a peer that takes it");
            run.start += piece.len() as u64;
        }
    });
}

struct Answering {
    file: Rc<Source>,
    len: u64,
    answered: std::cell::Cell<u64>,
    closed: Signal,
}

impl Service for Answering {
    fn on_frame(&self, connection: &Rc<Connection>, _frame: RawFrame) {
        let nth = self.answered.replace(self.answered.get() + 1);
        let encode = |out: &mut BytesMut| {
            out.extend_from_slice(&HEAD);
            Ok(())
        };
        let run = self.file.0.run(nth, self.len);
        connection.send(encode, [Chunk::file(self.file.clone(), run)]).expect("an encoding that cannot fail");
    }

    fn on_closed(&self, _connection: &Rc<Connection>) {
        self.closed.raise();
    }
}

async fn by_connection(socket: TcpStream, file: Arc<CachedFile>, len: u64, sendfile: bool) {
    let mut socket = Socket::new(socket.into()).expect("a TCP socket");
    if !sendfile {
        socket = socket.without_sendfile();
    }
    let connection = Connection::new(ConnectionId(1), socket, OutboxLimits::SERVER);
    let (answered, closed) = (std::cell::Cell::new(0), Signal::default());
    let service = Rc::new(Answering { file: Rc::new(Source(file)), len, answered, closed });
    serve(connection, service.clone()).await;
    service.closed.wait().await;
}

/// Runs on an executor of this thread, with a driver.
fn on_executor<T>(work: impl Future<Output = T>) -> T {
    let executor = glommio::LocalExecutorBuilder::default().io_memory(1 << 20).make().expect("an executor");
    executor.run(async {
        Driver::start(DriverConfig::default());
        work.await
    })
}

fn round(way: Way, file: &Arc<CachedFile>, runs: u64, len: u64) -> Round {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("a connection");
    let (socket, _) = listener.accept().expect("the peer's connection");
    let (ready, go) = mpsc::channel();
    let asking = ask(peer, go, runs, len);
    let file = Arc::clone(file);
    // On a thread of its own, so that none inherits another's executor.
    let serving = std::thread::spawn(move || {
        let begin = || {
            ready.send(()).expect("a peer that waits");
            thread_cpu()
        };
        match way {
            Way::BareSendfile => {
                let before = begin();
                bare_sendfile(socket, &file, len);
                thread_cpu() - before
            }
            Way::BareCopy => {
                let before = begin();
                bare_copy(socket, &file, len);
                thread_cpu() - before
            }
            Way::Connection | Way::ConnectionCopy => on_executor(async {
                let before = begin();
                by_connection(socket, file, len, way == Way::Connection).await;
                thread_cpu() - before
            }),
        }
    });
    let cpu = serving.join().expect("a server that ends with its peer");
    Round { took: asking.join().expect("a peer that got all"), cpu }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the rounds' ratios: what is the same for both of a round cancels out.
fn ratio(values: &[f64], floor: &[f64]) -> f64 {
    median(values.iter().zip(floor).map(|(value, floor)| value / floor).collect())
}

struct Figures {
    gb_per_s: Vec<f64>,
    cpu_ms_per_gb: Vec<f64>,
}

fn main() {
    let options = options();
    if let Err(why) = glommio::LocalExecutorBuilder::default().io_memory(1 << 20).make() {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            panic!("cannot be skipped under CI: {why}");
        }
        return println!("SKIPPED: {why}");
    }
    let file = Arc::new(CachedFile::new(&options));
    println!(
        "cached runs over loopback, {WINDOW} requests unanswered; {} rounds of {} MiB in {}",
        options.rounds,
        options.bytes >> 20,
        options.dir.display()
    );
    println!("{:<38} {:>6} {:>6} {:>14} {:>10} {:>6}", "", "GB/s", "ratio", "rounds", "CPU ms/GB", "ratio");
    for len in RUNS {
        let runs = options.bytes / len;
        let mut figures = Way::ALL.map(|_| Figures { gb_per_s: Vec::new(), cpu_ms_per_gb: Vec::new() });
        for nth in 0..options.rounds {
            // Each begins with another way, so that none always follows the same one.
            for turn in 0..Way::ALL.len() {
                let way = (nth + turn) % Way::ALL.len();
                let measured = round(Way::ALL[way], &file, runs, len);
                let gb = (runs * len) as f64 / 1e9;
                figures[way].gb_per_s.push(gb / measured.took.as_secs_f64());
                figures[way].cpu_ms_per_gb.push(measured.cpu.as_secs_f64() * 1e3 / gb);
            }
        }
        let floor = &figures[0];
        for (way, figures) in Way::ALL.iter().zip(&figures) {
            let [gb_per_s, cpu_ms] =
                [&figures.gb_per_s, &figures.cpu_ms_per_gb].map(|all| median(all.clone()));
            let least = figures.gb_per_s.iter().copied().fold(f64::INFINITY, f64::min);
            let most = figures.gb_per_s.iter().copied().fold(0.0, f64::max);
            println!(
                "{:<38} {gb_per_s:>6.2} {:>6.2} {:>14} {cpu_ms:>10.0} {:>6.2}",
                format!("{:>4} KiB {}", len >> 10, way.name()),
                ratio(&figures.gb_per_s, &floor.gb_per_s),
                format!("{least:.2} .. {most:.2}"),
                ratio(&figures.cpu_ms_per_gb, &floor.cpu_ms_per_gb),
            );
        }
    }
}
