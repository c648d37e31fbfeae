use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::code::{RequestCode, ResponseCode};
use crate::command::{ReplyHead, RequestHead, append_reply, append_request, encode_reply};
use crate::frame::{HeaderEncoding, RawFrame, split_frame};

use super::{EXT_FIELDS_MAX, Header, HeaderError, Language, NoExt, WriteExt};

/// A request for the route of `TopicTest`, written by RocketMQ's own classes.
const ROUTE_JSON: &str = concat!(
    r#"{"code":105,"extFields":{"topic":"TopicTest"},"flag":0,"language":"JAVA","opaque":7,"#,
    r#""serializeTypeCurrentRPC":"JSON","version":479}"#
);
const ROUTE_BINARY_FRAME: &[u8] = b"\x00\x00\x00\x2d\x01\x00\x00\x29\
    \x00\x69\x00\x01\xdf\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\
    \x00\x05topic\x00\x00\x00\x09TopicTest";

const BOTH: [HeaderEncoding; 2] = [HeaderEncoding::Json, HeaderEncoding::RocketMq];

fn request(encoding: HeaderEncoding, code: i32, opaque: i32, ext: &dyn WriteExt) -> Bytes {
    let mut out = BytesMut::new();
    let head = RequestHead { code: RequestCode(code), opaque, oneway: false, ext };
    append_request(&mut out, encoding, &head, b"").unwrap();
    out.freeze()
}

fn reply(encoding: HeaderEncoding, head: &ReplyHead<'_>, body: &[u8]) -> RawFrame {
    let mut out = BytesMut::new();
    append_reply(&mut out, encoding, head, body).unwrap();
    let frame = split_frame(&mut out).unwrap().expect("a whole frame");
    assert!(out.is_empty());
    frame
}

fn json(text: &str) -> Header<'_> {
    Header::decode(HeaderEncoding::Json, text.as_bytes()).unwrap()
}

fn fields<'a>(header: &'a Header<'_>) -> Vec<(&'a str, &'a str)> {
    header.ext.iter().collect()
}

#[test]
fn requests_are_written_as_java_writes_them() {
    let ext = [("topic", "TopicTest")];
    let frame = request(HeaderEncoding::Json, 105, 7, &ext);
    assert_eq!(frame.len(), 139);
    assert_eq!(frame[..8], [0, 0, 0, 0x87, 0, 0, 0, 0x83]);
    assert_eq!(frame[8..], *ROUTE_JSON.as_bytes());
    assert_eq!(request(HeaderEncoding::RocketMq, 105, 7, &ext), ROUTE_BINARY_FRAME);
}

#[test]
fn both_encodings_decode_to_the_same_header() {
    for header in
        [json(ROUTE_JSON), Header::decode(HeaderEncoding::RocketMq, &ROUTE_BINARY_FRAME[8..]).unwrap()]
    {
        assert_eq!((header.code, header.opaque, header.flag, header.version), (105, 7, 0, 479));
        assert_eq!(header.language, Language::Java);
        assert_eq!(header.remark, None);
        assert_eq!(fields(&header), [("topic", "TopicTest")]);
        assert_eq!(header.ext.get("topic"), Some("TopicTest"));
        assert_eq!(header.ext.get("Topic"), None);
    }
}

#[test]
fn replies_always_have_ext_fields() {
    let head = ReplyHead {
        code: ResponseCode::TOPIC_NOT_EXIST,
        opaque: 7,
        remark: Some("No topic route info"),
        ext: &NoExt,
    };
    assert_eq!(
        reply(HeaderEncoding::Json, &head, b"").header,
        concat!(
            r#"{"code":17,"extFields":{},"flag":1,"language":"JAVA","opaque":7,"remark":"No topic route info","#,
            r#""serializeTypeCurrentRPC":"JSON","version":479}"#
        )
    );
}

#[test]
fn replies_of_java_are_read() {
    let text = r#"{"code":17,"flag":1,"language":"JAVA","opaque":7,"remark":"No topic route info","serializeTypeCurrentRPC":"JSON","version":479}"#;
    let header = json(text);
    assert!(header.is_reply() && !header.is_oneway());
    assert_eq!((header.code, header.remark.as_deref()), (17, Some("No topic route info")));
    assert!(header.ext.is_empty());

    let text = r#"{"code":0,"extFields":{"queueId":"1","transactionId":"7F000001000118B4AAC2000000000000","msgId":"7F00000100002A9F0000000000000000","TRACE_ON":"true","MSG_REGION":"DefaultRegion","queueOffset":"0"},"flag":1,"language":"JAVA","opaque":9,"serializeTypeCurrentRPC":"JSON","version":479}"#;
    let header = json(text);
    assert_eq!(header.ext.len(), 6);
    assert_eq!(header.ext.get("msgId"), Some("7F00000100002A9F0000000000000000"));
}

#[test]
fn headers_are_read_as_tolerantly_as_java_does() {
    let header = json(r#"{"code":0,"flag":1,"opaque":5}"#);
    assert_eq!((header.code, header.opaque, header.language), (0, 5, Language::Unknown));

    assert_eq!(json(r#"{"language":"KLINGON"}"#).language, Language::Unknown);
    assert_eq!(json(r#"{"language":12}"#).language, Language::Rust);
    assert_eq!(json(r#"{"language":null,"remark":null,"extFields":null,"code":null}"#).code, 0);
    assert_eq!(json(r#"{"code":"34"}"#).code, 34);

    let header = json(concat!(
        r#" { "new":[{"deep":[1,2]},null] , "extFields" : {"int":12,"yes":true,"none":null,"real":1.50,"#,
        r#""\u0061":"b","list":[1]}, "remark":"\"caf\u00e9\"\n" , "code":200050 } "#
    ));
    assert_eq!(header.code, 200_050);
    assert_eq!(
        fields(&header),
        [("int", "12"), ("yes", "true"), ("real", "1.50"), ("a", "b"), ("list", "[1]")]
    );
    assert_eq!(header.remark.as_deref(), Some("\"café\"\n"));
}

#[test]
fn of_a_repeated_field_the_last_value_counts() {
    assert_eq!(json(r#"{"extFields":{"a":"1","b":"2","a":"3"}}"#).ext.get("a"), Some("3"));
}

#[test]
fn escapes_become_what_java_would_store() {
    let text = r#"{"extFields":{"i":"TAGS\u0001a\/\b\f\n\r\t\\\"\u0002","pair":"\ud83d\ude00!","half":"\ud83d","wrong":"\ud83d\u0041\udc00","halves":"\ud83d\ud83d\ude00"}}"#;
    assert_eq!(
        fields(&json(text)),
        [
            ("i", "TAGS\u{1}a/\u{8}\u{c}\n\r\t\\\"\u{2}"),
            ("pair", "😀!"),
            ("half", "?"),
            ("wrong", "?A?"),
            ("halves", "?😀")
        ]
    );
}

#[test]
fn broken_json_headers_are_errors() {
    for text in [
        "",
        "[]",
        "7",
        r#"{"code":105"#,
        r#"{"code":105}x"#,
        r#"{"code":99999999999}"#,
        r#"{"code":"x"}"#,
        r#"{"extFields":[]}"#,
        r#"{"extFields":{"a":"\x"}}"#,
        r#"{"extFields":{"a":"\u00"}}"#,
    ] {
        assert!(Header::decode(HeaderEncoding::Json, text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn fields_are_limited_in_number() {
    for encoding in BOTH {
        let most = vec![("k", "v"); EXT_FIELDS_MAX];
        let frame = request(encoding, 1, 1, &most.as_slice());
        assert_eq!(Header::decode(encoding, &frame[8..]).unwrap().ext.len(), EXT_FIELDS_MAX);
        let too_many = vec![("k", "v"); EXT_FIELDS_MAX + 1];
        let frame = request(encoding, 1, 1, &too_many.as_slice());
        let error = Header::decode(encoding, &frame[8..]).unwrap_err();
        assert!(error.to_string().contains("more than 128 extra fields"), "{error}");
    }
}

#[test]
fn every_prefix_of_a_header_is_an_error() {
    for len in 0..ROUTE_JSON.len() {
        assert!(Header::decode(HeaderEncoding::Json, &ROUTE_JSON.as_bytes()[..len]).is_err(), "{len}");
    }
    let binary = &ROUTE_BINARY_FRAME[8..];
    for len in 0..binary.len() {
        let error = Header::decode(HeaderEncoding::RocketMq, &binary[..len]).unwrap_err();
        assert!(matches!(error, HeaderError::Truncated { .. }), "{len}: {error}");
    }
}

#[test]
fn binary_lengths_are_checked() {
    let mut header = ROUTE_BINARY_FRAME[8..].to_vec();
    header[13..17].copy_from_slice(&(-1i32).to_be_bytes());
    let error = Header::decode(HeaderEncoding::RocketMq, &header).unwrap_err();
    assert_eq!(error.to_string(), "binary header: length of remark is -1, expected zero or more");

    header[13..17].copy_from_slice(&i32::MAX.to_be_bytes());
    let error = Header::decode(HeaderEncoding::RocketMq, &header).unwrap_err();
    assert!(matches!(error, HeaderError::Truncated { field: "remark", found: 0x7fff_ffff, room: 24 }));
}

#[test]
fn pop_codes_survive_the_binary_header() {
    for code in [200_050, 200_053, 200_056, 200_151, 310, 105] {
        let frame = request(HeaderEncoding::RocketMq, code, 1, &NoExt);
        assert_eq!(Header::decode(HeaderEncoding::RocketMq, &frame[8..]).unwrap().code, code);
    }
    let head = ReplyHead { code: ResponseCode(3442), opaque: 1, remark: None, ext: &NoExt };
    let frame = reply(HeaderEncoding::RocketMq, &head, b"");
    assert_eq!(Header::decode(HeaderEncoding::RocketMq, &frame.header).unwrap().code, 3442);
}

#[test]
fn texts_that_are_not_utf8_are_repaired() {
    let bytes = b"{\"code\":310,\"opaque\":3,\"remark\":\"\xff\",\"extFields\":{\"b\":\"T\",\"i\":\"KEYS\\u0001\xc4\xe3\"}}";
    let header = Header::decode(HeaderEncoding::Json, bytes).unwrap();
    assert_eq!((header.code, header.opaque, header.remark.as_deref()), (310, 3, Some("\u{fffd}")));
    assert_eq!(fields(&header), [("b", "T"), ("i", "KEYS\u{1}\u{fffd}\u{fffd}")]);

    let mut frame = ROUTE_BINARY_FRAME.to_vec();
    *frame.last_mut().unwrap() = 0xff;
    let header = Header::decode(HeaderEncoding::RocketMq, &frame[8..]).unwrap();
    assert_eq!(header.ext.get("topic"), Some("TopicTes\u{fffd}"));
}

#[test]
fn a_long_remark_is_cut_between_characters() {
    let remark = format!("x{}", "é".repeat(4096));
    for encoding in BOTH {
        let head =
            ReplyHead { code: ResponseCode::SYSTEM_ERROR, opaque: 1, remark: Some(&remark), ext: &NoExt };
        let frame = reply(encoding, &head, b"");
        let header = Header::decode(encoding, &frame.header).unwrap();
        assert_eq!(header.remark.unwrap().len(), 4095);
    }
}

#[test]
fn a_reply_longer_than_a_frame_is_refused_and_leaves_no_trace() {
    let mut out = BytesMut::from(&b"before"[..]);
    let head = ReplyHead { code: ResponseCode::SUCCESS, opaque: 1, remark: None, ext: &NoExt };
    let error = encode_reply(&mut out, HeaderEncoding::Json, &head, 16 * 1024 * 1024).unwrap_err();
    assert!(error.to_string().ends_with("expected at most 16777216"), "{error}");
    assert_eq!(out, b"before"[..]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for encoding in BOTH {
            let _ = Header::decode(encoding, &bytes);
        }
    }

    /// Random bytes rarely get past the first field; a damaged header does.
    #[test]
    fn damaged_headers_never_panic(
        binary in any::<bool>(),
        fields in proptest::collection::vec((".{0,9}", "[\\\\\"\u{1}-\u{ff}]{0,20}"), 0..6),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let encoding = BOTH[usize::from(binary)];
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut bytes = request(encoding, 310, 1, &pairs.as_slice())[8..].to_vec();
        for (at, byte) in damage {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Ok(header) = Header::decode(encoding, &bytes) {
            prop_assert!(header.ext.iter().count() <= EXT_FIELDS_MAX);
        }
    }

    /// Whatever serde_json reads in full as an object, we read too, with the same texts.
    #[test]
    fn texts_are_read_as_serde_json_reads_them(texts in proptest::collection::vec(".*", 0..8)) {
        let object: serde_json::Map<_, _> =
            texts.iter().enumerate().map(|(i, text)| (format!("k{i}"), text.clone().into())).collect();
        let bytes = serde_json::to_vec(&serde_json::json!({ "extFields": object })).unwrap();
        let header = Header::decode(HeaderEncoding::Json, &bytes).unwrap();
        for (i, text) in texts.iter().enumerate() {
            prop_assert_eq!(header.ext.get(&format!("k{i}")), Some(text.as_str()));
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        code in any::<i16>(),
        opaque in any::<i32>(),
        remark in proptest::option::of(".{1,40}"),
        fields in proptest::collection::vec((".{1,20}", ".{0,60}"), 0..30),
    ) {
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for encoding in BOTH {
            let head = ReplyHead {
                code: ResponseCode(code.into()),
                opaque,
                remark: remark.as_deref(),
                ext: &pairs.as_slice(),
            };
            let frame = reply(encoding, &head, b"body");
            prop_assert_eq!(frame.encoding, encoding);
            prop_assert_eq!(&frame.body[..], b"body");
            let header = Header::decode(encoding, &frame.header).unwrap();
            prop_assert_eq!((header.code, header.opaque), (code.into(), opaque));
            prop_assert_eq!(header.remark.as_deref(), remark.as_deref());
            prop_assert_eq!(self::fields(&header), pairs.clone());
            prop_assert!(header.is_reply());
        }
    }
}
