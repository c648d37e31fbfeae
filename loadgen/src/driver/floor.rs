//! The floor: what a round trip of the same size costs on this machine without any broker.
//!
//! A thread echoes raw bytes over loopback TCP with blocking sockets, nothing else. What a broker takes beyond these
//! figures is its own; what lies in them no broker can save.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::SockRef;

use super::runtime::pin_thread;
use crate::figures::{count, micros};
use crate::latency::{Latency, Summary};

/// Bytes under way at once: what the socket buffers hold for sure, so that both sides can never wait for each other.
pub const WINDOW_BYTES_MAX: usize = 128 * 1024;
const SOCKET_BUFFER_BYTES: usize = 2 * WINDOW_BYTES_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloorSettings {
    pub size_bytes: usize,
    /// Round trips under way at once.
    pub depth: usize,
    pub duration: Duration,
    pub warmup: Duration,
    pub server_cpu: Option<usize>,
    pub client_cpu: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    #[error(
        "--size {size_bytes} and --depth {depth}: both at least 1, together at most {WINDOW_BYTES_MAX} bytes under way"
    )]
    Window { size_bytes: usize, depth: usize },
    #[error("cannot pin to CPU {cpu}: {error}")]
    Pin { cpu: usize, error: io::Error },
    #[error("loopback TCP: {0}")]
    Io(#[from] io::Error),
}

/// The result; members are named like those of a run's report.
#[derive(Clone, Debug, Serialize)]
pub struct FloorReport {
    pub version: &'static str,
    pub size: usize,
    pub depth: usize,
    pub round_trips_per_s: f64,
    pub round_trip: Summary,
}

/// Measures for as long as the settings say.
pub fn measure(settings: &FloorSettings) -> Result<FloorReport, FloorError> {
    let &FloorSettings { size_bytes, depth, .. } = settings;
    let window = size_bytes.checked_mul(depth).filter(|bytes| (1..=WINDOW_BYTES_MAX).contains(bytes));
    window.ok_or(FloorError::Window { size_bytes, depth })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            pin(settings.server_cpu)?;
            let (stream, _) = listener.accept()?;
            echo(&prepare(stream)?)
        });
        // Connects before anything here can fail, so that the server's accept always returns.
        let stream = prepare(TcpStream::connect(address)?)?;
        let measured = pin(settings.client_cpu).and_then(|()| Ok(round_trips(&stream, settings)?));
        drop(stream);
        server.join().expect("the echo does not panic")?;
        measured
    })
}

fn pin(cpu: Option<usize>) -> Result<(), FloorError> {
    cpu.map_or(Ok(()), |cpu| pin_thread(cpu).map_err(|error| FloorError::Pin { cpu, error }))
}

fn prepare(stream: TcpStream) -> Result<TcpStream, FloorError> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    Ok(stream)
}

fn echo(mut stream: &TcpStream) -> Result<(), FloorError> {
    let mut buffer = vec![0; WINDOW_BYTES_MAX];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len])?,
        }
    }
}

fn round_trips(mut stream: &TcpStream, settings: &FloorSettings) -> io::Result<FloorReport> {
    let message = vec![0xA5; settings.size_bytes];
    let mut buffer = vec![0; WINDOW_BYTES_MAX];
    let mut sent_at = VecDeque::with_capacity(settings.depth);
    let mut latency = Latency::new();
    let mut partial_bytes = 0;
    let measured_from = Instant::now() + settings.warmup;
    let end = measured_from + settings.duration;
    loop {
        let now = Instant::now();
        while now < end && sent_at.len() < settings.depth {
            sent_at.push_back(Instant::now());
            stream.write_all(&message)?;
        }
        if sent_at.is_empty() {
            break;
        }
        partial_bytes += stream.read(&mut buffer)?;
        let now = Instant::now();
        while partial_bytes >= settings.size_bytes {
            partial_bytes -= settings.size_bytes;
            let sent = sent_at.pop_front().expect("not more comes back than was sent");
            if sent >= measured_from {
                latency.record(now - sent);
            }
        }
    }
    Ok(FloorReport {
        version: env!("CARGO_PKG_VERSION"),
        size: settings.size_bytes,
        depth: settings.depth,
        round_trips_per_s: (latency.count() as f64 / settings.duration.as_secs_f64()).round(),
        round_trip: latency.summary(),
    })
}

impl FloorReport {
    /// The report as people read it.
    pub fn text(&self) -> String {
        let trip = &self.round_trip;
        let values =
            [trip.p50_us, trip.p90_us, trip.p99_us, trip.p999_us, trip.p9999_us, trip.max_us].map(micros);
        let [p50, p90, p99, p999, p9999, max] = values;
        format!(
            "raw TCP echo on loopback, {} B each way, {} under way: {} round trips/s\n\
             round trip, µs   p50 {p50}   p90 {p90}   p99 {p99}   p99.9 {p999}   p99.99 {p9999}   max {max}   ({} samples)\n",
            count(self.size as u64),
            self.depth,
            count(self.round_trips_per_s as u64),
            count(trip.count),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(size_bytes: usize, depth: usize) -> FloorSettings {
        let (duration, warmup) = (Duration::from_millis(300), Duration::from_millis(10));
        FloorSettings { size_bytes, depth, duration, warmup, server_cpu: None, client_cpu: None }
    }

    #[test]
    fn every_round_trip_after_the_warm_up_is_counted() {
        for (size_bytes, depth) in [(1024, 1), (1000, 16), (WINDOW_BYTES_MAX, 1)] {
            let report = measure(&settings(size_bytes, depth)).unwrap();
            assert!(report.round_trip.count > 0, "{size_bytes} x {depth}");
            assert!(report.round_trip.max_us.unwrap() > 1.0);
        }
    }

    #[test]
    fn a_window_that_could_block_both_sides_is_refused() {
        for (size_bytes, depth) in [(0, 1), (1, 0), (1024, 129), (usize::MAX, 2)] {
            assert!(matches!(measure(&settings(size_bytes, depth)), Err(FloorError::Window { .. })));
        }
    }
}
