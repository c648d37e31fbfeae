//! Real sockets on a real executor: frames through a server and back through a client.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use apogee_net::client::{CallError, ConnectError, ConnectOptions, RemotingClient};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, RequestHead, append_request, encode_reply};
use apogee_net::frame::{HeaderEncoding, RawFrame};
use apogee_net::header::{Header, NoExt};
use apogee_net::io::{
    Chunk, Connection, ConnectionId, Driver, DriverConfig, Listener, Server, ServerLimits, Service,
};
use bytes::Bytes;
use glommio::LocalExecutorBuilder;

const WITHIN: Duration = Duration::from_secs(5);

fn options() -> ConnectOptions {
    ConnectOptions::within(WITHIN)
}

/// Answers every request with its own body; code 13 is never answered.
#[derive(Default)]
struct Echo {
    closed: RefCell<Vec<ConnectionId>>,
}

const SILENT: RequestCode = RequestCode(13);

impl Service for Echo {
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame) {
        let header = Header::decode(frame.encoding, &frame.header).unwrap();
        if RequestCode(header.code) == SILENT {
            return;
        }
        let head =
            ReplyHead { code: ResponseCode::SUCCESS, opaque: header.opaque, remark: None, ext: &NoExt };
        let body_len = frame.body.len();
        connection
            .send(|out| encode_reply(out, frame.encoding, &head, body_len), [Chunk::from(frame.body.clone())])
            .unwrap();
    }

    fn on_closed(&self, connection: &Rc<Connection>) {
        self.closed.borrow_mut().push(connection.id());
    }
}

fn with_echo_server<F: Future<Output = ()>>(
    spin: Duration,
    test: impl FnOnce(SocketAddr, Rc<Server>, Rc<Echo>) -> F + Send + 'static,
) {
    LocalExecutorBuilder::default()
        .spawn(move || async move {
            Driver::start(DriverConfig { spin });
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local();
            let server = Server::new(ServerLimits::default());
            let echo = Rc::new(Echo::default());
            let accepting = glommio::spawn_local(server.clone().accept(listener, echo.clone()));
            test(address, server, echo).await;
            accepting.cancel().await;
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

fn body(len: usize, seed: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + seed) as u8).collect::<Vec<_>>().into()
}

async fn echoes_all_sizes(address: SocketAddr) {
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        let client =
            RemotingClient::connect(address, &ConnectOptions { encoding, ..options() }).await.unwrap();
        for len in [0, 1, 4095, 65_536, 1 << 20, 8 << 20] {
            let sent = body(len, len);
            let reply =
                client.call(RequestCode(1), &NoExt, [Chunk::from(sent.clone())], WITHIN).await.unwrap();
            assert_eq!(reply.code(), ResponseCode::SUCCESS);
            assert_eq!(*reply.body(), sent);
        }
    }
}

#[test]
fn bodies_of_all_sizes_come_back() {
    with_echo_server(Duration::ZERO, |address, _, _| echoes_all_sizes(address));
}

#[test]
fn a_spinning_driver_serves_as_well() {
    with_echo_server(Duration::from_micros(200), |address, _, _| echoes_all_sizes(address));
}

#[test]
fn thousands_of_pipelined_requests_are_all_answered() {
    with_echo_server(Duration::ZERO, |address, _, _| async move {
        let client = RemotingClient::connect(address, &options()).await.unwrap();
        let calls: Vec<_> = (0..5000)
            .map(|i| client.call(RequestCode(1), &NoExt, [Chunk::from(body(700, i))], WITHIN))
            .collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(*call.await.unwrap().body(), body(700, i));
        }
    });
}

#[test]
fn a_missing_reply_is_a_timeout_and_a_lost_connection_ends_all_calls() {
    with_echo_server(Duration::ZERO, |address, server, _| async move {
        let client = RemotingClient::connect(address, &options()).await.unwrap();
        let short = Duration::from_millis(60);
        assert_eq!(client.call(SILENT, &NoExt, [], short).await.unwrap_err(), CallError::Timeout(short));
        let waiting = client.call(SILENT, &NoExt, [], WITHIN);
        eventually(|| server.connection_count() == 1).await;
        server.connection(ConnectionId(1)).unwrap().close("test");
        assert_eq!(waiting.await.unwrap_err(), CallError::Closed);
        assert_eq!(client.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap_err(), CallError::Closed);
    });
}

#[test]
fn a_malformed_frame_closes_its_own_connection_only() {
    with_echo_server(Duration::ZERO, |address, server, echo| async move {
        let client = RemotingClient::connect(address, &options()).await.unwrap();
        let mut hostile = TcpStream::connect(address).unwrap();
        eventually(|| server.connection_count() == 2).await;
        hostile.write_all(&[0x16, 0x03, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
        eventually(|| server.connection_count() == 1).await;
        assert_eq!(*echo.closed.borrow(), [ConnectionId(2)]);
        assert_eq!(hostile.read(&mut [0; 8]).unwrap(), 0);
        client.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
    });
}

#[test]
fn a_peer_that_takes_nothing_can_still_be_closed() {
    with_echo_server(Duration::ZERO, |address, server, echo| async move {
        let client = RemotingClient::connect(address, &options()).await.unwrap();
        let stalled = TcpStream::connect(address).unwrap();
        eventually(|| server.connection_count() == 2).await;
        let connection = server.connection(ConnectionId(2)).unwrap();
        // More than any socket buffer takes, so that the writer waits for the peer.
        let head = ReplyHead { code: ResponseCode::SUCCESS, opaque: 1, remark: None, ext: &NoExt };
        let chunk = body(8 << 20, 1);
        for _ in 0..4 {
            let queued = connection.send(
                |out| encode_reply(out, HeaderEncoding::Json, &head, chunk.len()),
                [Chunk::from(chunk.clone())],
            );
            queued.unwrap();
        }
        glommio::timer::sleep(Duration::from_millis(50)).await;
        assert!(connection.is_congested());
        connection.close("test");
        eventually(|| echo.closed.borrow().contains(&ConnectionId(2))).await;
        client.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
        drop(stalled);
    });
}

/// One connection that always has more to send, and a timer that must go off all the same.
#[test]
fn a_flooding_peer_does_not_keep_the_executor_from_its_timers() {
    with_echo_server(Duration::ZERO, |address, _, _| async move {
        let flood = std::thread::spawn(move || {
            let mut wire = bytes::BytesMut::new();
            let head = RequestHead { code: SILENT, opaque: 1, oneway: true, ext: &NoExt };
            for _ in 0..500 {
                append_request(&mut wire, HeaderEncoding::Json, &head, &[7; 1000]).unwrap();
            }
            let mut socket = TcpStream::connect(address).unwrap();
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(500) {
                socket.write_all(&wire).unwrap();
            }
        });
        let mut ticks = Vec::new();
        while !flood.is_finished() {
            let asleep = Instant::now();
            glommio::timer::sleep(Duration::from_millis(1)).await;
            ticks.push(asleep.elapsed());
        }
        flood.join().unwrap();
        ticks.sort();
        // Starved, it goes by the preemption timer: 100 ms. Half of them may be late on a busy machine.
        let median = ticks[ticks.len() / 2];
        assert!(
            median < Duration::from_millis(50),
            "a sleep of 1 ms took {median:?} ({} of them)",
            ticks.len()
        );
    });
}

#[test]
fn a_connection_beyond_the_limit_is_refused() {
    LocalExecutorBuilder::default()
        .spawn(|| async {
            Driver::start(DriverConfig::default());
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local();
            let server = Server::new(ServerLimits { connections_max: 1, ..ServerLimits::default() });
            let accepting = glommio::spawn_local(server.clone().accept(listener, Rc::new(Echo::default())));
            let first = RemotingClient::connect(address, &options()).await.unwrap();
            first.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
            let second = RemotingClient::connect(address, &options()).await.unwrap();
            assert_eq!(second.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap_err(), CallError::Closed);
            first.call(RequestCode(1), &NoExt, [], WITHIN).await.unwrap();
            accepting.cancel().await;
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn nobody_listening_is_an_error_at_once() {
    LocalExecutorBuilder::default()
        .spawn(|| async {
            Driver::start(DriverConfig::default());
            // Bound and dropped: a port that was free a moment ago.
            let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let error = RemotingClient::connect(address, &options()).await.unwrap_err();
            assert!(
                matches!(&error, ConnectError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused),
                "{error}"
            );
        })
        .unwrap()
        .join()
        .unwrap();
}
