//! Rounds of direct I/O by io_uring, as the log does them. The only unsafe code of this folder: the kernel reads and writes
//! blocks that [`Ring`] owns, and a round ends only when it has let go of them all.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::slice;

use io_uring::{IoUring, opcode, types};

/// Direct I/O wants no more anywhere.
const ALIGN: usize = 4096;

/// Memory aligned for direct I/O.
#[derive(Debug)]
pub(super) struct Block {
    at: *mut u8,
    layout: Layout,
}

impl Block {
    /// `len` bytes that no disk can compress to nothing.
    pub(super) fn new(len: usize) -> Block {
        let layout = Layout::from_size_align(len, ALIGN).expect("sizes are those of the plan");
        assert!(len > 0, "a block has bytes");
        // SAFETY: the layout has a size.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() {
            handle_alloc_error(layout);
        }
        let block = Block { at, layout };
        // SAFETY: freshly allocated, `len` zeroed bytes, nobody else knows of them.
        let bytes = unsafe { slice::from_raw_parts_mut(block.at, len) };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in bytes.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 11).to_le_bytes();
            word.copy_from_slice(&random[..word.len()]);
        }
        block
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length and initialised; the kernel writes to it only during `Ring::round`, which
        // borrows the ring that owns the block.
        unsafe { slice::from_raw_parts(self.at, self.layout.size()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, once.
        unsafe { dealloc(self.at, self.layout) }
    }
}

/// What a round does with its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Write { then_sync: bool },
    Read,
}

/// A ring and the blocks of one round.
pub(super) struct Ring {
    ring: IoUring,
    blocks: Vec<Block>,
}

impl Ring {
    pub(super) fn new(depth: u32, bytes: u32) -> io::Result<Ring> {
        let ring = IoUring::new(depth.next_power_of_two().max(2))?;
        let blocks = (0..depth).map(|_| Block::new(bytes as usize)).collect();
        Ok(Ring { ring, blocks })
    }

    /// One write or read per block, from `at` on, all at once; returns when all of it, and the sync behind it, is done.
    pub(super) fn round(&mut self, file: &File, at: u64, direction: Direction) -> io::Result<()> {
        let fd = types::Fd(file.as_raw_fd());
        let mut offset = at;
        for (nth, block) in self.blocks.iter().enumerate() {
            let len = block.layout.size() as u32;
            let entry = match direction {
                Direction::Write { .. } => opcode::Write::new(fd, block.at, len).offset(offset).build(),
                Direction::Read => opcode::Read::new(fd, block.at, len).offset(offset).build(),
            };
            // SAFETY: the block lives as long as the ring, and this call ends only once every operation was answered.
            unsafe { self.ring.submission().push(&entry.user_data(nth as u64)) }
                .expect("the ring has room for a round");
            offset += u64::from(len);
        }
        self.wait(self.blocks.len())?;
        if direction == (Direction::Write { then_sync: true }) {
            let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            // SAFETY: a sync touches no memory of ours.
            unsafe { self.ring.submission().push(&entry) }.expect("the ring is empty");
            self.wait(1)?;
        }
        Ok(())
    }

    /// Submits and takes `count` answers; the first error, once all have come.
    fn wait(&mut self, count: usize) -> io::Result<()> {
        let mut result = Ok(());
        let mut left = count;
        while left > 0 {
            match self.ring.submit_and_wait(left) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Whether the kernel still uses the blocks nobody knows: they must not be freed.
                Err(error) => panic!("io_uring broke down in the middle of a round: {error}"),
            }
            for answer in self.ring.completion() {
                left -= 1;
                if answer.result() < 0 {
                    result = Err(io::Error::from_raw_os_error(-answer.result()));
                }
            }
        }
        result
    }
}
