//! The name of a queue in a cluster.

use super::fastjson::{BodyError, MapKey, Reader, ToFastjson, Writer, body, read_object_key};

body! {
    /// `MessageQueue`. Also the key of maps, where fastjson writes the object itself as the key.
    #[derive(Eq, Hash, PartialOrd, Ord)]
    pub struct MessageQueue {
        "brokerName" => broker_name: String,
        "queueId" => queue_id: i32,
        "topic" => topic: String,
    }
}

impl MapKey for MessageQueue {
    fn read_key(reader: &mut Reader<'_>) -> Result<Self, BodyError> {
        read_object_key(reader)
    }

    fn write_key(&self, writer: &mut Writer) {
        self.write(writer);
    }
}
