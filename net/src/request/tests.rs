use bytes::BytesMut;
use proptest::prelude::*;

use crate::code::RequestCode;
use crate::command::{RequestHead, append_request};
use crate::flags::{MessageSysFlag, PullSysFlag};
use crate::frame::HeaderEncoding;
use crate::header::{Header, WriteExt};

use super::*;

fn header(text: &str) -> Header<'_> {
    Header::decode(HeaderEncoding::Json, text.as_bytes()).unwrap()
}

/// Writes `ext` as a request in the given encoding and hands what a peer decodes to `check`.
fn over_the_wire(encoding: HeaderEncoding, ext: &dyn WriteExt, check: impl FnOnce(&Header<'_>)) {
    let mut out = BytesMut::new();
    let head = RequestHead { code: RequestCode(1), opaque: 1, oneway: false, ext };
    append_request(&mut out, encoding, &head, b"").unwrap();
    check(&Header::decode(encoding, &out[8..]).unwrap());
}

const SEND: SendMessageRequest<'static> = SendMessageRequest {
    producer_group: "group",
    topic: "TopicTest",
    default_topic: "TBW102",
    default_topic_queues: 4,
    queue_id: 2,
    sys_flag: MessageSysFlag(0),
    born_timestamp: 1_700_000_000_000,
    flag: 0,
    properties: "TAGS\u{1}TagA\u{2}",
    reconsume_times: 0,
    unit_mode: false,
    max_reconsume_times: None,
    batch: false,
    broker_name: None,
};

#[test]
fn a_send_reads_the_same_from_letters_and_from_names() {
    let letters = header(
        r#"{"code":310,"extFields":{"a":"group","b":"TopicTest","c":"TBW102","d":"4","e":"2","f":"0","g":"1700000000000","h":"0","i":"TAGS\u0001TagA\u0002","j":"0","k":"false","m":"false","ns":"x"}}"#,
    );
    assert_eq!(SendMessageRequest::decode(&letters.ext), Ok(SEND));
    let names = header(
        r#"{"code":10,"extFields":{"bornTimestamp":"1700000000000","queueId":"2","topic":"TopicTest","defaultTopic":"TBW102","properties":"TAGS\u0001TagA\u0002","defaultTopicQueueNums":"4","producerGroup":"group","sysFlag":"0","flag":"0"}}"#,
    );
    assert_eq!(SendMessageRequest::decode(&names.ext), Ok(SEND));
}

#[test]
fn sends_are_written_in_letters() {
    over_the_wire(HeaderEncoding::Json, &SEND, |header| {
        let names: String = header.ext.iter().map(|(name, _)| name).collect();
        assert_eq!(names, "abcdefghijkm");
        assert_eq!(SendMessageRequest::decode(&header.ext), Ok(SEND));
    });
}

#[test]
fn a_send_reply_is_read_as_java_wrote_it() {
    let header = header(
        r#"{"code":0,"extFields":{"queueId":"1","transactionId":"7F000001000118B4AAC2000000000000","msgId":"7F00000100002A9F0000000000000000","TRACE_ON":"true","MSG_REGION":"DefaultRegion","queueOffset":"0"},"flag":1,"language":"JAVA","opaque":9,"serializeTypeCurrentRPC":"JSON","version":479}"#,
    );
    let reply = SendMessageReply::decode(&header.ext).unwrap();
    assert_eq!(
        reply,
        SendMessageReply {
            msg_id: "7F00000100002A9F0000000000000000".into(),
            queue_id: 1,
            queue_offset: 0,
            transaction_id: Some("7F000001000118B4AAC2000000000000".into()),
            batch_uniq_id: None,
            recall_handle: None,
            region: Some("DefaultRegion".into()),
            trace_on: Some(true),
        }
    );
}

#[test]
fn errors_name_header_field_and_value() {
    let missing = header(r#"{"extFields":{"topic":"T"}}"#);
    assert_eq!(
        GetMinOffsetRequest::decode(&missing.ext).unwrap_err().to_string(),
        "GetMinOffsetRequest: field queueId is missing"
    );
    let wrong = header(r#"{"extFields":{"topic":"T","queueId":"3000000000"}}"#);
    assert_eq!(
        GetMinOffsetRequest::decode(&wrong.ext).unwrap_err().to_string(),
        r#"GetMinOffsetRequest: field queueId is "3000000000", expected a 32-bit integer"#
    );
    let long = format!(r#"{{"extFields":{{"topic":"T","queueId":"{}"}}}}"#, "x".repeat(1000));
    let error = GetMinOffsetRequest::decode(&header(&long).ext).unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
}

#[test]
fn absent_fields_take_javas_defaults() {
    let header = header(r#"{"extFields":{"topic":"T","queueId":"1","consumerGroup":"g","timestamp":"5"}}"#);
    assert!(QueryConsumerOffsetRequest::decode(&header.ext).unwrap().set_zero_if_not_found);
    assert!(GetMaxOffsetRequest::decode(&header.ext).unwrap().committed);
    assert_eq!(SearchOffsetRequest::decode(&header.ext).unwrap().boundary, Boundary::Lower);
    assert!(!GetRouteInfoRequest::decode(&header.ext).unwrap().accept_standard_json_only);
}

#[test]
fn booleans_and_boundaries_are_read_in_any_case() {
    let header = header(
        r#"{"extFields":{"topic":"T","queueId":"1","timestamp":"5","boundaryType":"upper","committed":"TRUE"}}"#,
    );
    assert_eq!(SearchOffsetRequest::decode(&header.ext).unwrap().boundary, Boundary::Upper);
    assert!(GetMaxOffsetRequest::decode(&header.ext).unwrap().committed);
}

#[test]
fn a_pull_of_a_push_consumer_is_read() {
    let header = header(
        r#"{"code":11,"extFields":{"queueId":"3","maxMsgNums":"32","sysFlag":"3","suspendTimeoutMillis":"15000","commitOffset":"100","topic":"T","queueOffset":"132","expressionType":"TAG","subVersion":"1700000000000","consumerGroup":"g","maxMsgBytes":"2147483647","bname":"b"}}"#,
    );
    let pull = PullMessageRequest::decode(&header.ext).unwrap();
    assert_eq!((pull.queue_offset, pull.commit_offset, pull.messages_max), (132, 100, 32));
    assert_eq!(pull.sys_flag, PullSysFlag::COMMIT_OFFSET.with(PullSysFlag::SUSPEND));
    assert_eq!((pull.subscription, pull.expression_type), (None, Some("TAG")));
}

#[test]
fn an_end_of_a_transaction_is_read_as_java_wrote_it() {
    let header = header(
        r#"{"code":37,"extFields":{"bname":"b","commitLogOffset":"8421","commitOrRollback":"8","fromTransactionCheck":"false","msgId":"7F000001000118B4AAC2000000000000","producerGroup":"PG","topic":"T","tranStateTableOffset":"3","transactionId":"7F000001000118B4AAC2000000000000"},"flag":2,"remark":"why"}"#,
    );
    let end = EndTransactionRequest::decode(&header.ext).unwrap();
    assert_eq!((end.producer_group, end.commit_or_rollback, end.from_check), ("PG", 8, false));
    assert_eq!((end.tran_state_table_offset, end.commit_log_offset), (3, 8421));
}

#[test]
fn a_check_carries_the_fields_clients_echo() {
    let check = CheckTransactionStateRequest {
        topic: "RMQ_SYS_TRANS_HALF_TOPIC".into(),
        tran_state_table_offset: 3,
        commit_log_offset: 8421,
        msg_id: Some("KEY".into()),
        transaction_id: Some("KEY".into()),
        offset_msg_id: Some("7F00000100002A9F00000000000020E5".into()),
        broker_name: Some("b".into()),
    };
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        over_the_wire(encoding, &check, |header| {
            let names: Vec<_> = header.ext.iter().map(|(name, _)| name).collect();
            assert_eq!(
                names,
                [
                    "topic",
                    "tranStateTableOffset",
                    "commitLogOffset",
                    "msgId",
                    "transactionId",
                    "offsetMsgId",
                    "bname"
                ]
            );
            assert_eq!(CheckTransactionStateRequest::decode(&header.ext).as_ref(), Ok(&check));
        });
    }
}

#[test]
fn a_pushed_reply_has_all_that_java_requires() {
    let push = PushReplyRequest {
        producer_group: "PG".into(),
        topic: "C_REPLY_TOPIC".into(),
        default_topic: "TBW102".into(),
        default_topic_queues: 4,
        queue_id: 0,
        sys_flag: MessageSysFlag(1),
        born_timestamp: 5,
        flag: 0,
        properties: Some("CORRELATION_ID\u{1}c\u{2}".into()),
        reconsume_times: Some(0),
        unit_mode: false,
        born_host: "10.0.0.1:5555".into(),
        store_host: "127.0.0.1:10911".into(),
        store_timestamp: 6,
    };
    over_the_wire(HeaderEncoding::Json, &push, |header| {
        for required in ["bornHost", "storeHost", "storeTimestamp", "defaultTopicQueueNums", "sysFlag"] {
            assert!(header.ext.get(required).is_some(), "{required}");
        }
        assert_eq!(PushReplyRequest::decode(&header.ext).as_ref(), Ok(&push));
    });
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        texts in proptest::array::uniform4(".{1,20}"),
        optional in proptest::option::of(".{1,20}"),
        ints in any::<[i32; 6]>(),
        longs in any::<[i64; 4]>(),
        bools in any::<[bool; 2]>(),
    ) {
        let send = SendMessageRequest {
            producer_group: &texts[0],
            topic: &texts[1],
            default_topic: &texts[2],
            default_topic_queues: ints[0],
            queue_id: ints[1],
            sys_flag: MessageSysFlag(ints[2]),
            born_timestamp: longs[0],
            flag: ints[3],
            properties: &texts[3],
            reconsume_times: ints[4],
            unit_mode: bools[0],
            max_reconsume_times: bools[1].then_some(ints[5]),
            batch: bools[1],
            broker_name: optional.as_deref(),
        };
        let pulled = PullMessageReply {
            suggest_which_broker_id: longs[0],
            next_begin_offset: longs[1],
            min_offset: longs[2],
            max_offset: longs[3],
            topic_sys_flag: Some(ints[0]),
            group_sys_flag: None,
            forbidden_type: bools[0].then_some(ints[1]),
        };
        for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
            over_the_wire(encoding, &send, |header| assert_eq!(SendMessageRequest::decode(&header.ext).as_ref(), Ok(&send)));
            over_the_wire(encoding, &pulled, |header| assert_eq!(PullMessageReply::decode(&header.ext).as_ref(), Ok(&pulled)));
        }
    }
}
