//! Round trips and echoes over TCP: the floor under a broker's latency, on this machine or to a peer.
//!
//! One side echoes whole messages of a fixed size (`--serve`, or a thread of this process); the other sends one at a time and
//! measures, or keeps many under way and counts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Bytes of a message: a small request, a usual one, and a batch.
const SIZES: [u32; 3] = [64, 1024, 65_536];

/// Messages under way when throughput is counted, at most this many bytes of them.
const IN_FLIGHT: u32 = 64;
const IN_FLIGHT_BYTES_MAX: u32 = 256 * 1024;

/// Largest message that the echoing side takes; the first four bytes of a connection say how long its messages are.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// How long to wait for a peer that does not answer.
const PEER_WAIT: Duration = Duration::from_secs(5);

const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What was measured at one size. Latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetRow {
    pub bytes: u32,
    pub round_trips: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Absent where fewer than ten samples lie beyond it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    pub max_us: f64,
    /// With many messages under way on one connection.
    pub echoes_per_s: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot reach {address}: {error}; does `apogee-tune net --serve` run there?")]
    Connect { address: SocketAddr, error: io::Error },
    #[error("the connection to {address} broke: {error}")]
    Broken { address: SocketAddr, error: io::Error },
}

/// Echoes for whoever connects, one thread a connection, until the process ends.
pub fn serve(address: SocketAddr, on_ready: impl FnOnce(SocketAddr)) -> Result<(), NetError> {
    let listen = |error| NetError::Listen { address, error };
    let listener = TcpListener::bind(address).map_err(listen)?;
    on_ready(listener.local_addr().map_err(listen)?);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        // Whoever measured is gone, or sends what nobody measures with: either ends its connection only.
        std::thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len == 0 || len > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("not a measuring peer"));
    }
    let mut message = vec![0; len as usize];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

/// Measures against an echoing peer, or a thread of this process over loopback; `time` per size and figure.
pub fn measure(peer: Option<SocketAddr>, time: Duration) -> Result<Vec<NetRow>, NetError> {
    let address = match peer {
        Some(peer) => peer,
        None => serve_here()?,
    };
    SIZES.into_iter().map(|bytes| measure_size(address, bytes, time)).collect()
}

/// Round trips of one size over loopback; for comparisons.
pub(crate) fn loopback_round_trips(bytes: u32, time: Duration) -> Result<Histogram<u64>, NetError> {
    let address = serve_here()?;
    let broken = |error| NetError::Broken { address, error };
    let mut stream = connect(address, bytes)?;
    round_trips(&mut stream, bytes, time).map_err(broken)
}

fn serve_here() -> Result<SocketAddr, NetError> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = |error| NetError::Listen { address, error };
    let listener = TcpListener::bind(address).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    std::thread::spawn(move || {
        // Ends with the process; connections that fail are the other side's to report.
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    Ok(address)
}

fn connect(address: SocketAddr, bytes: u32) -> Result<TcpStream, NetError> {
    let open = || -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&address, PEER_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PEER_WAIT))?;
        stream.write_all(&bytes.to_be_bytes())?;
        Ok(stream)
    };
    open().map_err(|error| NetError::Connect { address, error })
}

fn measure_size(address: SocketAddr, bytes: u32, time: Duration) -> Result<NetRow, NetError> {
    let broken = |error| NetError::Broken { address, error };
    let mut stream = connect(address, bytes)?;
    let latencies = round_trips(&mut stream, bytes, time).map_err(broken)?;
    let echoes_per_s = echoes(&mut stream, bytes, time).map_err(broken)?;
    let us = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(NetRow {
        bytes,
        round_trips: latencies.len(),
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: (latencies.len() >= 10_000).then(|| us(0.999)),
        max_us: latencies.max() as f64 / 1e3,
        echoes_per_s,
    })
}

fn round_trips(stream: &mut TcpStream, bytes: u32, time: Duration) -> io::Result<Histogram<u64>> {
    let mut latencies = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("bounds that hold");
    let mut message = vec![7; bytes as usize];
    let started = Instant::now();
    let mut is_first = true;
    while started.elapsed() < time || latencies.is_empty() {
        let begun = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        // The first pays for the threads' start.
        if !std::mem::take(&mut is_first) {
            latencies.saturating_record(begun.elapsed().as_nanos() as u64);
        }
    }
    Ok(latencies)
}

fn echoes(stream: &mut TcpStream, bytes: u32, time: Duration) -> io::Result<u64> {
    let in_flight = (IN_FLIGHT_BYTES_MAX / bytes).clamp(1, IN_FLIGHT);
    let mut messages = vec![7; (bytes * in_flight) as usize];
    let started = Instant::now();
    let mut count = 0u64;
    stream.write_all(&messages)?;
    while started.elapsed() < time {
        stream.read_exact(&mut messages)?;
        count += u64::from(in_flight);
        stream.write_all(&messages)?;
    }
    stream.read_exact(&mut messages)?;
    count += u64::from(in_flight);
    Ok((count as f64 / started.elapsed().as_secs_f64()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_measured_at_each_size() {
        let rows = measure(None, Duration::from_millis(20)).unwrap();
        assert_eq!(rows.iter().map(|row| row.bytes).collect::<Vec<_>>(), SIZES);
        for row in rows {
            assert!(row.round_trips > 0 && row.echoes_per_s > 0 && row.p50_us <= row.max_us, "{row:?}");
        }
    }

    #[test]
    fn a_peer_that_does_not_listen_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = measure(Some(address), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--serve"), "{error}");
    }
}
