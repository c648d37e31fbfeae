use std::net::SocketAddr;

use bytes::BytesMut;
use proptest::prelude::*;

use crate::flags::MessageSysFlag;

use super::*;

/// `hello` to `TopicTest`, as RocketMQ's own encoder writes it (with the CRC that a broker adds).
const STORED: &[u8] = &[
    0x00, 0x00, 0x00, 0x73, 0xda, 0xa3, 0x20, 0xa7, 0x36, 0x10, 0xa6, 0x86, 0x00, 0x00, 0x00, 0x01, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x2c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 0x0a, 0x00, 0x00,
    0x01, 0x00, 0x00, 0xd9, 0x03, 0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x7b, 0x7f, 0x00, 0x00, 0x01,
    0x00, 0x00, 0x2a, 0x9f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x09, 0x54, 0x6f, 0x70, 0x69, 0x63, 0x54, 0x65, 0x73,
    0x74, 0x00, 0x0a, 0x54, 0x41, 0x47, 0x53, 0x01, 0x54, 0x61, 0x67, 0x41, 0x02,
];

const PLACE: Place = Place { queue_offset: 2, physical_offset: 300, store_timestamp: 1_700_000_000_123 };

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn hello() -> MessageRecord<'static> {
    MessageRecord {
        topic: "TopicTest",
        queue_id: 1,
        flag: 0,
        sys_flag: MessageSysFlag(0),
        born_timestamp: 1_700_000_000_000,
        born_host: addr("10.0.0.1:55555"),
        store_host: addr("127.0.0.1:10911"),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"hello",
        properties: PropertyEdit::unchanged(b"TAGS\x01TagA\x02"),
    }
}

fn encoded(record: &MessageRecord<'_>) -> Vec<u8> {
    let mut out = vec![0xee; record.encoded_len().unwrap()];
    record.encode(PLACE, &mut out);
    out
}

fn pairs(properties: &[u8]) -> Vec<(&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    Properties(properties).iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn edited(edit: PropertyEdit<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    edit.write(&mut out);
    assert_eq!(out.len(), edit.encoded_len());
    out
}

mod stored_messages {
    use super::*;

    #[test]
    fn are_written_as_java_writes_them() {
        assert_eq!(encoded(&hello()), STORED);
    }

    #[test]
    fn are_read_as_java_wrote_them() {
        let message = StoredMessage::decode(STORED).unwrap();
        assert_eq!(
            message,
            StoredMessage {
                topic: "TopicTest",
                queue_id: 1,
                flag: 0,
                sys_flag: MessageSysFlag(0),
                queue_offset: 2,
                physical_offset: 300,
                born_timestamp: 1_700_000_000_000,
                born_host: addr("10.0.0.1:55555"),
                store_timestamp: 1_700_000_000_123,
                store_host: addr("127.0.0.1:10911"),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body_crc: 907_060_870,
                body: b"hello",
                properties: Properties(b"TAGS\x01TagA\x02"),
                total_len: 115,
            }
        );
        assert!(message.is_body_intact());
        assert_eq!(message.properties.get("TAGS"), Some("TagA"));
        assert_eq!(message.offset_message_id().to_string(), "7F00000100002A9F000000000000012C");
    }

    #[test]
    fn every_prefix_is_an_error() {
        for len in 0..STORED.len() {
            StoredMessage::decode(&STORED[..len]).unwrap_err();
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_errors() {
        let with = |at: usize, bytes: &[u8]| {
            let mut message = STORED.to_vec();
            message[at..at + bytes.len()].copy_from_slice(bytes);
            // Room enough for a reader that believes what it reads.
            message.extend_from_slice(STORED);
            StoredMessage::decode(&message).unwrap_err()
        };
        assert_eq!(with(0, &[0xff; 4]), MessageError::TotalLength { found: -1, room: 230 });
        assert_eq!(with(0, &[0; 4]), MessageError::FieldLength { field: "head", found: 48, room: 0 });
        assert_eq!(with(0, &[0, 0, 0, 0x74]), MessageError::TrailingBytes { found: 1 });
        assert_eq!(
            with(0, &[0, 0, 0, 0x72]),
            MessageError::FieldLength { field: "properties", found: 10, room: 9 }
        );
        assert_eq!(with(4, &[0; 4]), MessageError::UnknownMagic { found: 0 });
        assert_eq!(with(84, &[0xff; 4]), MessageError::FieldLength { field: "body", found: -1, room: 27 });
        assert_eq!(with(93, &[0x80]), MessageError::FieldLength { field: "topic", found: -128, room: 21 });
        assert_eq!(with(94, &[0xff]), MessageError::TopicNotUtf8);
        assert_eq!(
            with(103, &[0xff, 0xff]),
            MessageError::FieldLength { field: "properties", found: -1, room: 10 }
        );
        assert_eq!(with(52, &[0, 1, 0, 0]), MessageError::Port { field: "born host" });
    }

    #[test]
    fn a_damaged_body_is_noticed() {
        let mut message = STORED.to_vec();
        message[88] ^= 1;
        assert!(!StoredMessage::decode(&message).unwrap().is_body_intact());
    }

    #[test]
    fn empty_bodies_have_no_crc() {
        let bytes = encoded(&MessageRecord { body: b"", ..hello() });
        let message = StoredMessage::decode(&bytes).unwrap();
        assert_eq!((message.body_crc, message.is_body_intact()), (0, true));
    }

    #[test]
    fn ipv6_hosts_take_their_room_and_their_bits() {
        let record = MessageRecord {
            born_host: addr("[2001:db8::7]:1"),
            store_host: addr("[::1]:10911"),
            // Bits that the hosts contradict are corrected.
            sys_flag: MessageSysFlag::COMPRESSED,
            ..hello()
        };
        let bytes = encoded(&record);
        assert_eq!(bytes.len(), STORED.len() + 24);
        let message = StoredMessage::decode(&bytes).unwrap();
        assert_eq!(message.sys_flag, MessageSysFlag(0x31));
        assert_eq!((message.born_host, message.store_host), (record.born_host, record.store_host));

        let back = MessageRecord { born_host: addr("10.0.0.1:55555"), sys_flag: message.sys_flag, ..record };
        let bytes = encoded(&back);
        assert_eq!(StoredMessage::decode(&bytes).unwrap().sys_flag, MessageSysFlag(0x21));
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_listener_is_stored_as_ipv4() {
        let record = MessageRecord { born_host: addr("[::ffff:10.0.0.1]:55555"), ..hello() };
        assert_eq!(encoded(&record), STORED);
    }

    #[test]
    fn only_topics_above_127_bytes_use_the_second_version() {
        for (len, magic) in [(127, 0xa7), (128, 0xab), (255, 0xab)] {
            let topic = "t".repeat(len);
            let bytes = encoded(&MessageRecord { topic: &topic, ..hello() });
            assert_eq!(bytes[7], magic);
            assert_eq!(StoredMessage::decode(&bytes).unwrap().topic, topic);
        }
    }

    #[test]
    fn what_does_not_fit_the_layout_is_refused() {
        let topic = "t".repeat(32_768);
        let record = MessageRecord { topic: &topic, ..hello() };
        assert_eq!(record.encoded_len(), Err(RecordError::Topic { found: 32_768, max: 32_767 }));
        let properties = vec![b'x'; 32_768];
        let record = MessageRecord { properties: PropertyEdit::unchanged(&properties), ..hello() };
        assert_eq!(record.encoded_len(), Err(RecordError::Properties { found: 32_768, max: 32_767 }));
        let body = vec![0; 16 * 1024 * 1024 + 1];
        let record = MessageRecord { body: &body, ..hello() };
        assert!(matches!(record.encoded_len(), Err(RecordError::Body { .. })));
    }

    #[test]
    #[should_panic(expected = "116 bytes for a message of another length")]
    fn room_of_another_length_is_a_bug() {
        hello().encode(PLACE, &mut [0; 116]);
    }

    #[test]
    fn stand_back_to_back() {
        let three = [STORED, STORED, STORED].concat();
        assert_eq!(StoredMessages::new(&three).map(|message| message.unwrap().total_len).sum::<usize>(), 345);
        let mut cut = StoredMessages::new(&three[..300]);
        assert!(cut.next().unwrap().is_ok());
        assert!(cut.next().unwrap().is_ok());
        assert_eq!(cut.next(), Some(Err(MessageError::TotalLength { found: 115, room: 70 })));
        assert_eq!(cut.next(), None);
    }
}

mod property_strings {
    use super::*;

    #[test]
    fn are_read_as_java_reads_them() {
        for (input, expected) in [
            ("A=b", vec![("A", "b")]),
            ("A=b;", vec![("A", "b")]),
            ("A=;B=c", vec![("B", "c")]),
            ("=x;B=cc", vec![("B", "cc")]),
            ("A=b=c;", vec![("A", "b\u{1}c")]),
            ("A=b;A=c", vec![("A", "b"), ("A", "c")]),
            ("", vec![]),
            (";;A;=;", vec![]),
        ] {
            let input = input.replace('=', "\u{1}").replace(';', "\u{2}");
            assert_eq!(pairs(input.as_bytes()), expected);
        }
    }

    #[test]
    fn of_a_repeated_property_the_last_value_counts() {
        let properties = Properties(b"A\x01b\x02B\x01x\x02A\x01c");
        assert_eq!(properties.get("A"), Some("c"));
        assert_eq!(properties.get("a"), None);
    }

    #[test]
    fn a_value_that_is_not_utf8_is_not_there() {
        assert_eq!(Properties(b"A\x01\xff\x02B\x01b\x02").get("A"), None);
        assert_eq!(Properties(b"A\x01\xff\x02B\x01b\x02").get("B"), Some("b"));
    }

    #[test]
    fn the_broker_adds_replaces_and_removes() {
        let edit = PropertyEdit {
            received: b"MSG_REGION\x01old\x02TAGS\x01TagA\x02POP_CK\x010 1 2\x02KEYS\x01k",
            set: &[(property::REGION, "DefaultRegion"), (property::TRACE_ON, "true")],
            remove: &[property::POP_CHECK_POINT],
        };
        assert_eq!(
            edited(edit),
            b"TAGS\x01TagA\x02KEYS\x01k\x02MSG_REGION\x01DefaultRegion\x02TRACE_ON\x01true\x02"
        );
    }

    #[test]
    fn unchanged_strings_are_kept_to_the_byte() {
        assert_eq!(edited(PropertyEdit::unchanged(b"A\x01b")), b"A\x01b");
        let nothing_received = PropertyEdit { received: b"", set: &[("A", "b")], remove: &[] };
        assert_eq!(edited(nothing_received), b"A\x01b\x02");
    }

    #[test]
    fn a_record_carries_its_edited_properties() {
        let set = [(property::REGION, "DefaultRegion"), (property::CLUSTER, "c")];
        let properties = PropertyEdit { received: b"TAGS\x01TagA", set: &set, remove: &[] };
        let bytes = encoded(&MessageRecord { properties, ..hello() });
        let message = StoredMessage::decode(&bytes).unwrap();
        assert_eq!(message.properties.0, b"TAGS\x01TagA\x02MSG_REGION\x01DefaultRegion\x02CLUSTER\x01c\x02");
    }
}

mod ids {
    use super::*;

    #[test]
    fn offset_ids_are_written_as_java_writes_them() {
        let id = OffsetMessageId { host: addr("127.0.0.1:10911"), physical_offset: 0 };
        assert_eq!(id.to_hex().as_str(), "7F00000100002A9F0000000000000000");
        assert_eq!(OffsetMessageId::parse("7f00000100002a9f0000000000000000"), Ok(id));
        let v6 = OffsetMessageId { host: addr("[2001:db8::1]:10911"), physical_offset: -1 };
        assert_eq!(v6.to_string(), "20010DB800000000000000000000000100002A9FFFFFFFFFFFFFFFFF");
        assert_eq!(OffsetMessageId::parse(&v6.to_hex()), Ok(v6));
        let mapped = OffsetMessageId { host: addr("[::ffff:127.0.0.1]:10911"), physical_offset: 0 };
        assert_eq!(mapped.to_hex(), id.to_hex());
    }

    #[test]
    fn malformed_offset_ids_are_errors() {
        assert_eq!(OffsetMessageId::parse("7F"), Err(OffsetMessageIdError::Length { found: 2 }));
        assert_eq!(
            OffsetMessageId::parse("7F00000100002A9F00000000000000+0"),
            Err(OffsetMessageIdError::NotHex)
        );
        assert_eq!(
            OffsetMessageId::parse("7F00000100012A9F0000000000000000"),
            Err(OffsetMessageIdError::Port)
        );
    }
}

mod batches {
    use super::*;

    const HELLO: BatchMessage<'_> =
        BatchMessage { flag: 0, body: b"hello", properties: Properties(b"WAIT\x01true\x02TAGS\x01TagA\x02") };
    const HELLO_BYTES: &[u8; 47] =
        b"\0\0\0\x2f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05hello\0\x14WAIT\x01true\x02TAGS\x01TagA\x02";

    fn body(messages: &[BatchMessage<'_>]) -> BytesMut {
        let mut out = BytesMut::new();
        for message in messages {
            let before = out.len();
            append_batch_message(&mut out, message);
            assert_eq!(out.len() - before, batch_message_len(message));
        }
        out
    }

    #[test]
    fn are_written_as_java_writes_them() {
        assert_eq!(body(&[HELLO]), HELLO_BYTES[..]);
    }

    #[test]
    fn are_read_message_by_message() {
        let second = BatchMessage { flag: 7, body: b"", properties: Properties(b"") };
        let bytes = body(&[HELLO, second]);
        let messages: Result<Vec<_>, _> = BatchMessages::new(&bytes).collect();
        assert_eq!(messages.unwrap(), [HELLO, second]);
        assert_eq!(BatchMessages::new(b"").next(), None);
    }

    #[test]
    fn every_cut_ends_in_one_error() {
        for len in 1..HELLO_BYTES.len() {
            let read: Vec<_> = BatchMessages::new(&HELLO_BYTES[..len]).collect();
            assert!(matches!(read[..], [Err(_)]), "{len}");
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_errors() {
        let with = |at: usize, bytes: &[u8]| {
            let mut batch = HELLO_BYTES.to_vec();
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            batch.extend_from_slice(HELLO_BYTES);
            BatchMessages::new(&batch).next().unwrap().unwrap_err()
        };
        assert_eq!(with(0, &[0, 0, 0, 3]), BatchError::TooShort { found: 3, min: 22 });
        assert_eq!(with(0, &[0xff; 4]), BatchError::FieldLength { field: "message", found: -1, room: 94 });
        assert_eq!(with(0, &[0, 0, 0, 48]), BatchError::TrailingBytes { found: 1 });
        assert_eq!(
            with(16, &[0x7f, 0xff, 0xff, 0xff]),
            BatchError::FieldLength { field: "body", found: i32::MAX, room: 27 }
        );
        assert_eq!(
            with(25, &[0x80, 0]),
            BatchError::FieldLength { field: "properties", found: -32_768, room: 20 }
        );
    }
}

mod tags {
    use super::*;

    #[test]
    fn hash_as_java_strings() {
        for (tag, hash) in
            [("TagA", 2_598_919), ("TagB", 2_598_920), ("*", 42), ("é漢😀", 36_054_652), ("", 0)]
        {
            assert_eq!(tag_hash(tag), hash, "{tag}");
        }
        assert_eq!(tag_hash("polygenelubricants"), i32::MIN);
    }

    #[test]
    fn expressions_select_by_hash() {
        for all in ["", "*"] {
            assert_eq!(TagExpression::parse(all), Ok(TagExpression::All));
        }
        let some = TagExpression::parse(" TagB||TagA || TagA ||").unwrap();
        assert!(some.matches_hash(2_598_919) && some.matches_hash(2_598_920));
        assert!(!some.matches_hash(0) && !some.matches_hash(42));
        assert!(TagExpression::All.matches_hash(0));
    }

    #[test]
    fn expressions_without_a_tag_or_with_too_many_are_errors() {
        assert_eq!(TagExpression::parse(" || "), Err(TagExpressionError::NoTag));
        let most: Vec<_> = (0..TAGS_MAX).map(|i| i.to_string()).collect();
        assert!(TagExpression::parse(&most.join("||")).is_ok());
        let too_many = most.join("||") + "||x";
        assert_eq!(TagExpression::parse(&too_many), Err(TagExpressionError::TooManyTags { max: TAGS_MAX }));
    }
}

mod names {
    use super::*;

    #[test]
    fn allowed_names_pass() {
        for topic in ["T", "%RETRY%group_1-a|b", &"t".repeat(127), &format!("%RETRY%{}", "g".repeat(248))] {
            assert_eq!(check_topic(topic), Ok(()));
        }
        assert_eq!(check_group(&"g".repeat(120)), Ok(()));
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        assert_eq!(check_topic(" "), Err(NameError::Blank { what: "topic" }));
        let long = "t".repeat(128);
        assert_eq!(check_topic(&long), Err(NameError::TooLong { what: "topic", found: 128, max: 127 }));
        let long = format!("%DLQ%{}", "g".repeat(251));
        assert_eq!(check_topic(&long), Err(NameError::TooLong { what: "topic", found: 256, max: 255 }));
        assert_eq!(check_topic("a.b"), Err(NameError::IllegalCharacter { what: "topic", found: '.' }));
        assert_eq!(
            check_topic("é").unwrap_err().to_string(),
            "the specified topic contains 'é', allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        assert!(check_group(&"g".repeat(121)).is_err());
    }
}

fn host() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn records_are_read_as_written(
        topic in "[%|a-zA-Z0-9_-]{1,200}",
        ints in any::<[i32; 4]>(),
        longs in any::<[i64; 5]>(),
        born_host in host(),
        store_host in host(),
        body in proptest::collection::vec(any::<u8>(), 0..300),
        properties in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let host_bits = MessageSysFlag::BORN_HOST_IPV6.with(MessageSysFlag::STORE_HOST_IPV6);
        let sys_flag = MessageSysFlag(ints[2]).without(host_bits);
        let record = MessageRecord {
            topic: &topic,
            queue_id: ints[0],
            flag: ints[1],
            sys_flag,
            born_timestamp: longs[0],
            born_host,
            store_host,
            reconsume_times: ints[3],
            prepared_transaction_offset: longs[1],
            body: &body,
            properties: PropertyEdit::unchanged(&properties),
        };
        let place = Place { queue_offset: longs[2], physical_offset: longs[3], store_timestamp: longs[4] };
        let mut bytes = vec![0; record.encoded_len().unwrap()];
        record.encode(place, &mut bytes);
        let message = StoredMessage::decode(&bytes).unwrap();
        prop_assert_eq!(message.topic, topic.as_str());
        prop_assert_eq!([message.queue_id, message.flag], [ints[0], ints[1]]);
        prop_assert_eq!(message.sys_flag.without(host_bits), sys_flag);
        prop_assert_eq!(message.reconsume_times, ints[3]);
        prop_assert_eq!([message.born_timestamp, message.prepared_transaction_offset], [longs[0], longs[1]]);
        prop_assert_eq!([message.queue_offset, message.physical_offset, message.store_timestamp], [longs[2], longs[3], longs[4]]);
        prop_assert_eq!([message.born_host, message.store_host], [born_host, store_host]);
        prop_assert_eq!((message.body, message.properties.0), (&body[..], &properties[..]));
        prop_assert_eq!(message.total_len, bytes.len());
        prop_assert!(message.is_body_intact());
        for cut in 0..bytes.len() {
            prop_assert!(StoredMessage::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn damaged_messages_never_panic(at in 0..STORED.len(), with in any::<[u8; 4]>(), more in any::<bool>()) {
        let mut bytes = STORED.to_vec();
        let end = (at + 4).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        if more {
            bytes.extend_from_slice(STORED);
        }
        for message in StoredMessages::new(&bytes).flatten() {
            prop_assert!(message.total_len <= bytes.len());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = StoredMessages::new(&bytes).count();
        let _ = BatchMessages::new(&bytes).count();
        let _ = Properties(&bytes).iter().count();
        let text = String::from_utf8_lossy(&bytes);
        let _ = (OffsetMessageId::parse(&text), TagExpression::parse(&text), check_topic(&text), tag_hash(&text));
    }

    #[test]
    fn batches_are_read_as_written(
        messages in proptest::collection::vec(
            (any::<i32>(), proptest::collection::vec(any::<u8>(), 0..50), proptest::collection::vec(any::<u8>(), 0..50)),
            0..10,
        ),
    ) {
        let messages: Vec<_> = messages
            .iter()
            .map(|(flag, body, properties)| BatchMessage { flag: *flag, body, properties: Properties(properties) })
            .collect();
        let mut body = BytesMut::new();
        for message in &messages {
            append_batch_message(&mut body, message);
        }
        let read: Result<Vec<_>, _> = BatchMessages::new(&body).collect();
        prop_assert_eq!(read.unwrap(), messages);
    }

    /// Whatever is received, an edit says how long it is, ends in a separator and sets what it was told to set.
    #[test]
    fn edits_hold_for_any_property_string(
        received in proptest::collection::vec(prop_oneof![Just(1u8), Just(2u8), b'A'..b'D'], 0..60),
    ) {
        let edit = PropertyEdit { received: &received, set: &[("A", "set"), ("E", "new")], remove: &["B"] };
        let bytes = edited(edit);
        prop_assert_eq!(bytes.last(), Some(&2));
        let properties = Properties(&bytes);
        prop_assert_eq!(properties.get("A"), Some("set"));
        prop_assert_eq!(properties.get("E"), Some("new"));
        prop_assert_eq!(properties.get("B"), None);
        prop_assert_eq!(properties.get("C"), Properties(&received).get("C"));
        prop_assert!(bytes.len() <= edit.encoded_len_max());
    }

    /// What an edit shows on the way is what a reader finds in the string that it wrote.
    #[test]
    fn edits_show_what_they_write(
        received in proptest::collection::vec(prop_oneof![Just(1u8), Just(2u8), b'A'..b'D'], 0..60),
        is_changed in any::<bool>(),
    ) {
        let edit = match is_changed {
            true => PropertyEdit { received: &received, set: &[("A", "set"), ("E", "new")], remove: &["B"] },
            false => PropertyEdit::unchanged(&received),
        };
        let (mut bytes, mut shown) = (Vec::new(), Vec::new());
        edit.write_and_show(&mut bytes, |name, value| shown.push((name, value)));
        prop_assert_eq!(bytes.len(), edit.encoded_len());
        prop_assert_eq!(shown, Properties(&bytes).iter().collect::<Vec<_>>());
    }

    #[test]
    fn offset_ids_are_read_as_written(host in host(), physical_offset in any::<i64>()) {
        let id = OffsetMessageId { host, physical_offset };
        prop_assert_eq!(OffsetMessageId::parse(&id.to_hex()), Ok(id));
    }
}
