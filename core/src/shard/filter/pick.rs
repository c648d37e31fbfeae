//! Picks the wanted ones of messages that lie back to back, where they lie.

use std::ops::{ControlFlow, Range};

use apogee_net::message::{MessageError, StoredMessage};
use apogee_storage::QueueOffset;

use super::sql::SqlExpression;

/// Work of one pull, some 20 ns each: a message, a node of the expression, 32 bytes of properties. A shard's thread
/// does nothing else meanwhile, so a pull that has used it up ends, and its client asks again behind it.
const WORK_MAX: u64 = 16_384;

/// Where picking stops; all hold at once.
#[derive(Clone, Copy, Debug)]
pub struct PickLimits {
    pub messages_max: u32,
    /// The first wanted message is given even if it alone is more.
    pub bytes_max: u64,
}

/// One pass over messages of one queue, in order, in any number of pieces.
#[derive(Debug)]
pub struct Picking<'a> {
    filter: &'a SqlExpression,
    limits: PickLimits,
    work_left: u64,
    messages: u32,
    bytes: u64,
    next_offset: QueueOffset,
}

impl<'a> Picking<'a> {
    pub fn new(filter: &'a SqlExpression, from: QueueOffset, limits: PickLimits) -> Self {
        Self { filter, limits, work_left: WORK_MAX, messages: 0, bytes: 0, next_offset: from }
    }

    /// Calls `wanted` with the place of each wanted message in `bytes`, adjacent ones together. Breaks when a limit is
    /// reached.
    pub fn pick(
        &mut self,
        bytes: &[u8],
        mut wanted: impl FnMut(Range<usize>),
    ) -> Result<ControlFlow<()>, MessageError> {
        let mut at = 0;
        let mut open: Option<Range<usize>> = None;
        let mut flow = ControlFlow::Continue(());
        while at < bytes.len() {
            if self.work_left == 0 || self.messages >= self.limits.messages_max {
                flow = ControlFlow::Break(());
                break;
            }
            let message = StoredMessage::decode(&bytes[at..])?;
            let len = message.total_len;
            let cost = 1 + u64::from(self.filter.nodes()) + message.properties.0.len() as u64 / 32;
            self.work_left = self.work_left.saturating_sub(cost);
            if self.filter.matches(message.properties) {
                if self.messages > 0 && self.bytes + len as u64 > self.limits.bytes_max {
                    flow = ControlFlow::Break(());
                    break;
                }
                (self.messages, self.bytes) = (self.messages + 1, self.bytes + len as u64);
                match &mut open {
                    Some(range) if range.end == at => range.end += len,
                    _ => {
                        if let Some(range) = open.replace(at..at + len) {
                            wanted(range);
                        }
                    }
                }
            }
            at += len;
            self.next_offset = QueueOffset(message.queue_offset as u64 + 1);
        }
        if let Some(range) = open {
            wanted(range);
        }
        Ok(flow)
    }

    /// Behind the last message that was looked at and either given or not wanted.
    pub fn next_offset(&self) -> QueueOffset {
        self.next_offset
    }
}
