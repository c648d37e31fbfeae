//! Bodies that are too long to be written in one go.
//!
//! A reply about ten thousand groups takes longer to write than a thread that serves connections may stay away from
//! them. Such a body is made element by element, with other work in between; what is finished lies in pieces of
//! about [`PIECE_BYTES`], so that growing never copies what is there already.

use bytes::Bytes;

use super::fastjson::{MapKey, ToFastjson, Writer};

/// Length at which a piece is closed.
pub const PIECE_BYTES: usize = 64 * 1024;

/// A body being written.
///
/// ```text
///     open(r#"{"offsetTable":{"#)     entry(…) entry(…)     open(r#"},"totalDiff":5}"#)
/// ```
pub struct BodyInPieces {
    writer: Writer,
    finished: Vec<Bytes>,
    finished_bytes: usize,
    /// Nothing stands in the list or object that was opened last.
    is_first: bool,
}

impl Default for BodyInPieces {
    fn default() -> Self {
        Self { writer: Writer::new(), finished: Vec::new(), finished_bytes: 0, is_first: true }
    }
}

impl BodyInPieces {
    /// Writes `text` as it is: what stands between the elements. No comma follows it.
    pub fn open(&mut self, text: &str) {
        self.writer.raw(text);
        self.is_first = true;
        self.close_piece();
    }

    /// Writes the value of a member whose name `open` has written.
    pub fn value<T: ToFastjson + ?Sized>(&mut self, value: &T) {
        value.write(&mut self.writer);
        self.close_piece();
    }

    /// Writes an element of a list.
    pub fn element<T: ToFastjson + ?Sized>(&mut self, element: &T) {
        self.comma();
        self.value(element);
    }

    /// Writes an entry of a map.
    pub fn entry<K: MapKey, V: ToFastjson + ?Sized>(&mut self, key: &K, value: &V) {
        self.comma();
        key.write_key(&mut self.writer);
        self.writer.raw(":");
        self.value(value);
    }

    /// Begins an element of a list whose rest follows.
    pub fn begin(&mut self, text: &str) {
        self.comma();
        self.open(text);
    }

    /// Begins an entry of a map whose value follows.
    pub fn begin_entry<K: MapKey>(&mut self, key: &K, text: &str) {
        self.comma();
        key.write_key(&mut self.writer);
        self.writer.raw(":");
        self.open(text);
    }

    /// Ends what `begin` began: more may follow behind a comma.
    pub fn end(&mut self, text: &str) {
        self.open(text);
        self.is_first = false;
    }

    pub fn len(&self) -> usize {
        self.finished_bytes + self.writer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body, in order.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        let last = self.writer.take();
        if !last.is_empty() {
            self.finished.push(last);
        }
        self.finished
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.writer.raw(",");
        }
    }

    fn close_piece(&mut self) {
        if self.writer.len() >= PIECE_BYTES {
            let piece = self.writer.take();
            self.finished_bytes += piece.len();
            self.finished.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MessageQueue, TopicOffset, TopicStatsTable, to_fastjson};
    use super::*;

    fn joined(body: BodyInPieces) -> Vec<u8> {
        body.into_pieces().concat()
    }

    #[test]
    fn pieces_are_the_body_that_is_written_at_once() {
        let mut whole = TopicStatsTable::default();
        let mut body = BodyInPieces::default();
        body.open(r#"{"offsetTable":{"#);
        for queue_id in 0..3000 {
            let queue = MessageQueue { topic: "TopicTest".into(), broker_name: "broker-a".into(), queue_id };
            let offset = TopicOffset { max_offset: queue_id.into(), ..TopicOffset::default() };
            body.entry(&queue, &offset);
            whole.offset_table.insert(queue, offset);
        }
        body.open(r#"},"topicPutTps":"#);
        body.value(&0.0);
        body.open("}");
        let expected = to_fastjson(&whole);
        assert_eq!(body.len(), expected.len());
        assert!(expected.len() > 2 * PIECE_BYTES);
        assert_eq!(joined(body), expected);
    }

    #[test]
    fn commas_stand_between_elements_and_nowhere_else() {
        let mut body = BodyInPieces::default();
        body.open("[");
        for group in ["f", "g"] {
            body.begin("{");
            body.entry(&group.to_owned(), &vec![1_i32, 2]);
            body.begin_entry(&7_i32, "[");
            body.element(&1_i32);
            body.end("]");
            body.entry(&8_i32, &2_i32);
            body.end("}");
        }
        body.open("]");
        assert_eq!(joined(body), br#"[{"f":[1,2],7:[1],8:2},{"g":[1,2],7:[1],8:2}]"#);
        assert!(BodyInPieces::default().into_pieces().is_empty());
    }
}
