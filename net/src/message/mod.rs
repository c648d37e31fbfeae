//! Messages: what producers send, the log keeps and consumers get.
//!
//! [`MessageRecord`] writes and [`StoredMessage`] reads the one layout that is both stored and transferred
//! (`layout.rs` draws it). Properties, ids, batches and tags are texts and bytes inside it, read where they lie.

mod batch;
mod ids;
mod layout;
mod names;
mod properties;
mod recall_handle;
mod receipt;
mod record;
mod stored;
mod tags;
#[cfg(test)]
mod tests;
mod unique_key;

pub use batch::{BatchError, BatchMessage, BatchMessages, append_batch_message, batch_message_len};
pub use ids::{HexId, OffsetMessageId, OffsetMessageIdError};
pub use names::{
    DLQ_PREFIX, GROUP_BYTES_MAX, NameError, RETRY_PREFIX, RETRY_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX,
    check_group, check_topic,
};
pub use properties::{PROPERTIES_BYTES_MAX, Properties, PropertyEdit, append_property, property};
pub use recall_handle::{BadRecallHandle, RecallHandle};
pub use receipt::{ORDER_REVIVE_QUEUE_ID, ReceiptHandle, ReceiptHandleError, RetryKind};
pub use record::{MessageRecord, Place, RecordError};
pub use stored::{MessageError, StoredMessage, StoredMessages};
pub use tags::{TAGS_MAX, TagExpression, TagExpressionError, tag_hash};
pub use unique_key::UniqueKeys;
