use std::io::{self, BufRead, IoSlice, Write};

use bytes::{Buf, BytesMut};
use rustls::Connection;

/// First bytes of the TLS records that may come first.
const RECORD_ALERT: u8 = 0x15;
const RECORD_HANDSHAKE: u8 = 0x16;

/// One side of one TLS connection: ciphertext in, plaintext out and the reverse. Touches no socket, waits for nothing.
///
/// What arrived goes through `decrypt`, which is called again as long as there is some of it, with all plaintext taken in
/// between; what it has to send is had by `write_to`, at any time while `wants_write`.
pub(crate) struct TlsSession {
    connection: Connection,
    peer_has_closed: bool,
}

impl TlsSession {
    pub(super) fn new(connection: Connection) -> TlsSession {
        TlsSession { connection, peer_has_closed: false }
    }

    /// Whether a connection with this first byte can be TLS. A plaintext frame begins with 0: its length is no more than
    /// 16 MiB.
    pub(crate) fn may_begin_with(byte: u8) -> bool {
        matches!(byte, RECORD_ALERT | RECORD_HANDSHAKE)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// The peer said that nothing follows.
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Takes ciphertext from the front of `received`, some kilobytes of it at a time.
    ///
    /// After an error there is most often still an alert to be written, which tells the peer.
    pub(crate) fn decrypt(&mut self, received: &mut BytesMut) -> Result<(), rustls::Error> {
        let mut front = &received[..];
        let offered = front.len();
        let taken = self.connection.read_tls(&mut front);
        let taken = taken.map_err(|error| rustls::Error::General(error.to_string()))?;
        assert!(taken <= offered, "{taken} of {offered} bytes taken");
        received.advance(taken);
        self.peer_has_closed |= self.connection.process_new_packets()?.peer_has_closed();
        Ok(())
    }

    /// Moves plaintext into the spare capacity of `buffer`; says how many bytes.
    pub(crate) fn take_plaintext(&mut self, buffer: &mut BytesMut) -> usize {
        let before = buffer.len();
        let mut reader = self.connection.reader();
        loop {
            let spare = buffer.capacity() - buffer.len();
            // An error means that there is none now, or never will be again.
            let Ok(chunk) = reader.fill_buf() else { break };
            let len = chunk.len().min(spare);
            if len == 0 {
                break;
            }
            buffer.extend_from_slice(&chunk[..len]);
            reader.consume(len);
        }
        buffer.len() - before
    }

    /// Encrypts a prefix of `slices`, some tens of kilobytes at most, and says how many bytes it has.
    pub(crate) fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> usize {
        self.connection.writer().write_vectored(slices).expect("writing to memory")
    }

    /// Writes ciphertext to `out` until there is none or `out` would block.
    pub(crate) fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(out)?;
        }
        Ok(())
    }

    /// Has the peer be told that nothing follows.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}
