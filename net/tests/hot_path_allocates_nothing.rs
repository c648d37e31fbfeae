//! The codec's part of a send: decode the request, encode the record, encode the reply. Once its buffers are there,
//! none of it touches the heap. Counted per thread, so that the test harness does not disturb.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, RequestHead, append_request, encode_reply};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, NoExt};
use apogee_net::message::{
    MessageRecord, OffsetMessageId, Place, PropertyEdit, StoredMessages, UniqueKeys, property, tag_hash,
};
use apogee_net::request::{SendMessageReply, SendMessageRequest, TypedHeader};
use bytes::BytesMut;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator unchanged; the counter is a plain thread-local without a
// destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// The header of a Java 5.3 producer's send; its property string is full of escapes.
const SEND: &str = r#"{"code":310,"extFields":{"a":"please_rename_unique_group_name","b":"TopicTest","c":"TBW102","d":"4","e":"2","f":"0","g":"1700000000000","h":"0","i":"UNIQ_KEY\u00017F000001000118B4AAC2000000000000\u0002WAIT\u0001true\u0002TAGS\u0001TagA\u0002KEYS\u0001order-1 order-2\u0002","j":"0","k":"false","m":"false","n":"broker-a-0","nsd":"false","oway":"false","lo":"false"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#;

#[test]
fn a_send_is_decoded_stored_and_answered_without_the_heap() {
    let mut received = BytesMut::new();
    received.extend_from_slice(&(4 + SEND.len() as u32 + 5).to_be_bytes());
    received.extend_from_slice(&(SEND.len() as u32).to_be_bytes());
    received.extend_from_slice(SEND.as_bytes());
    received.extend_from_slice(b"hello");
    let peer = "10.0.0.1:55555".parse().unwrap();
    let broker = "127.0.0.1:10911".parse().unwrap();
    let mut log = vec![0u8; 4096];
    let mut out = BytesMut::with_capacity(4096);
    // The first freeze of a buffer makes it shared; a connection's buffer has been for long.
    let frame = split_frame(&mut received).unwrap().unwrap();

    let count = allocations(|| {
        let header = Header::decode(frame.encoding, &frame.header).unwrap();
        assert_eq!(header.code, RequestCode::SEND_MESSAGE_V2.0);
        let send = SendMessageRequest::decode(&header.ext).unwrap();
        assert!(send.properties.contains("KEYS\u{1}order-1 order-2\u{2}"));
        let record = MessageRecord {
            topic: send.topic,
            queue_id: send.queue_id,
            flag: send.flag,
            sys_flag: send.sys_flag,
            born_timestamp: send.born_timestamp,
            born_host: peer,
            store_host: broker,
            reconsume_times: send.reconsume_times,
            prepared_transaction_offset: 0,
            body: &frame.body,
            properties: PropertyEdit {
                received: send.properties.as_bytes(),
                set: &[(property::REGION, "DefaultRegion"), (property::TRACE_ON, "true")],
                remove: &[property::POP_CHECK_POINT],
            },
        };
        let len = record.encoded_len().unwrap();
        record.encode(Place { queue_offset: 5, physical_offset: 4096, store_timestamp: 1 }, &mut log[..len]);

        let message = StoredMessages::new(&log[..len]).next().unwrap().unwrap();
        assert_eq!(tag_hash(message.properties.get(property::TAGS).unwrap()), 2_598_919);
        let id = OffsetMessageId { host: broker, physical_offset: 4096 }.to_hex();
        let reply = SendMessageReply {
            msg_id: id.as_str().into(),
            queue_id: send.queue_id,
            queue_offset: 5,
            transaction_id: message.properties.get(property::UNIQUE_KEY).map(Into::into),
            batch_uniq_id: None,
            recall_handle: None,
            region: Some("DefaultRegion".into()),
            trace_on: Some(true),
        };
        let head =
            ReplyHead { code: ResponseCode::SUCCESS, opaque: header.opaque, remark: None, ext: &reply };
        encode_reply(&mut out, frame.encoding, &head, 0).unwrap();
    });
    assert_eq!(count, 0);
    assert!(String::from_utf8_lossy(&out).contains(r#""queueOffset":"5""#));
}

#[test]
fn a_client_makes_its_request_without_the_heap() {
    let mut keys = UniqueKeys::new("127.0.0.1".parse().unwrap(), 1, 2);
    let mut out = BytesMut::with_capacity(4096);
    let count = allocations(|| {
        let key = keys.next(1_700_000_000_000);
        assert_eq!(key.len(), 32);
        let head = RequestHead { code: RequestCode::HEART_BEAT, opaque: 1, oneway: false, ext: &NoExt };
        append_request(&mut out, HeaderEncoding::RocketMq, &head, key.as_bytes()).unwrap();
    });
    assert_eq!(count, 0);
    // The counter counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7u8)))), 1);
}
