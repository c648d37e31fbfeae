//! Ports for servers that tests start.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Below the range from which the kernel takes ports for outgoing connections: a port from that range may be taken
/// between finding it and listening on it, and who connects to it before the server listens may meet himself.
const BASE_PORTS: Range<u16> = 20_000..30_000;

/// Whether nobody listens on any of these ports now.
pub(crate) fn are_free(mut ports: Range<u16>) -> bool {
    ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// First of `count` ports in a row that are free now and were not given before: suites may start at the same time.
pub(crate) fn free_ports(count: u16) -> u16 {
    static GIVEN: Mutex<u32> = Mutex::new(0);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let span = u32::from(BASE_PORTS.end - BASE_PORTS.start - count);
    let start = std::process::id().wrapping_mul(7919).wrapping_add(*given);
    let (after, first) = (0..span)
        .map(|i| (*given + i + u32::from(count), BASE_PORTS.start + (start.wrapping_add(i) % span) as u16))
        .find(|&(_, first)| are_free(first..first + count))
        .expect("free ports");
    *given = after;
    first
}
