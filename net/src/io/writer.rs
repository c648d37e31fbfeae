//! From a connection's out-queue to its socket.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::chunk::Chunk;
use super::connection::{Connection, ConnectionEnd};
use super::driver::pause;
use super::file::FileChunk;

/// Slices of one vectored send.
const SLICES_PER_SEND: usize = 64;

/// How long a connection sends before other tasks get their turn. A peer that takes bytes as fast as they come never has
/// the socket say that it is full; and each turn costs some 15 µs.
const TURN: Duration = Duration::from_micros(300);

impl Connection {
    /// Sends what is queued, in order, until the connection ends.
    ///
    /// Bytes of a file that are not in the page cache are waited for here and nowhere else: the connection is read from
    /// meanwhile, and all others go on.
    pub(super) async fn write_chunks(&self) -> Result<Infallible, ConnectionEnd> {
        let mut sending: VecDeque<Chunk> = VecDeque::new();
        let mut turn_began = Instant::now();
        loop {
            if let Some(reason) = self.closed.get() {
                return Err(ConnectionEnd::Closed(reason));
            }
            if sending.is_empty() {
                self.outbox.borrow_mut().take_into(&mut sending);
            }
            let sent = match sending.front() {
                None => {
                    self.transport.flush().await?;
                    self.unsent.wait().await;
                    turn_began = Instant::now();
                    continue;
                }
                Some(Chunk::File(file)) if self.transport.supports_sendfile() => self.send_file(file).await?,
                Some(Chunk::File(file)) => {
                    let piece = self.read_piece(file).await?;
                    replace_front(&mut sending, piece);
                    continue;
                }
                Some(_) => self.send_memory(&sending).await?,
            };
            let now = Instant::now();
            self.last_active.set(now);
            self.outbox.borrow_mut().bytes -= sent;
            self.drained.raise();
            take_front(&mut sending, sent);
            if now.duration_since(turn_began) >= TURN {
                pause().await;
                turn_began = Instant::now();
            }
        }
    }

    /// Sends of the chunks in memory at the front. If a file follows them, the kernel is told to wait for its bytes
    /// rather than to send a short packet.
    async fn send_memory(&self, sending: &VecDeque<Chunk>) -> Result<usize, ConnectionEnd> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(sending) {
            let Some(bytes) = chunk.in_memory() else { break };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let file_follows =
            self.transport.supports_sendfile() && matches!(sending.get(count), Some(Chunk::File(_)));
        Ok(self.transport.send_vectored(&slices[..count], file_follows).await?)
    }

    /// Sends some of a file's next piece, once the page cache has all of it.
    async fn send_file(&self, file: &FileChunk) -> Result<usize, ConnectionEnd> {
        let piece = file.next_piece();
        let socket = self.transport.socket();
        loop {
            socket.writable().await;
            // Asked after each wait, for a slow peer's pages may be gone when it takes the next bytes.
            if !file.source().is_resident(piece.clone()) {
                // Replies before this one do not wait for the disk.
                socket.push();
                file.source().load(piece.clone()).await.map_err(ConnectionEnd::File)?;
            }
            match socket.try_send_file(file.source().fd(), piece.clone())? {
                Some(0) => {
                    return Err(ConnectionEnd::FileTooShort { at: piece.start, missing: file.len() });
                }
                Some(sent) => return Ok(sent),
                None => {}
            }
        }
    }

    /// A file's next piece in memory.
    async fn read_piece(&self, file: &FileChunk) -> Result<Chunk, ConnectionEnd> {
        let piece = file.next_piece();
        let bytes = file.source().read(piece.clone()).await.map_err(ConnectionEnd::File)?;
        assert!(bytes.len() as u64 <= piece.end - piece.start, "{} bytes read of {piece:?}", bytes.len());
        if bytes.is_empty() {
            return Err(ConnectionEnd::FileTooShort { at: piece.start, missing: file.len() });
        }
        Ok(Chunk::Bytes(bytes))
    }
}

/// Puts `piece` in the place of as many bytes at the front.
fn replace_front(sending: &mut VecDeque<Chunk>, piece: Chunk) {
    take_front(sending, piece.len());
    sending.push_front(piece);
}

/// Drops the first `sent` bytes.
fn take_front(sending: &mut VecDeque<Chunk>, mut sent: usize) {
    while sent > 0 {
        let front = sending.front_mut().expect("not more was sent than was queued");
        if sent < front.len() {
            front.advance(sent);
            return;
        }
        sent -= front.len();
        sending.pop_front();
    }
}
