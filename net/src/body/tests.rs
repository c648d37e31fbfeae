//! RocketMQ's own output for each body, hostile input, and round trips over arbitrary content.

use std::fmt::Debug;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::fastjson::{DEPTH_MAX, ELEMENTS_MAX};
use super::*;

/// One body as RocketMQ 5.3 (fastjson 1.2.83) writes it, and how to put it through our types.
struct Golden {
    body: &'static str,
    rewrite: fn(&[u8]) -> Result<Bytes, BodyError>,
}

fn golden<T: FromFastjson + ToFastjson>(body: &'static str) -> Golden {
    Golden { body, rewrite: |body| Ok(to_fastjson(&parse::<T>(body)?)) }
}

const SUBSCRIPTION: &str = r#"{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}"#;

fn goldens() -> Vec<Golden> {
    vec![
        golden::<TopicRouteData>(ROUTE_FOR_OLD_CLIENTS),
        golden::<ClusterInfo>(
            r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#,
        ),
        golden::<GetBrokerMemberGroupResponseBody>(
            r#"{"brokerMemberGroup":{"brokerAddrs":{0:"127.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#,
        ),
        golden::<TopicConfig>(
            r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}"#,
        ),
        golden::<CreateTopicListRequestBody>(
            r#"{"topicConfigList":[{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}]}"#,
        ),
        golden::<DataVersion>(r#"{"counter":3,"stateVersion":0,"timestamp":1700000000000}"#),
        golden::<TopicConfigSerializeWrapper>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"TopicTest":{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}}}"#,
        ),
        golden::<TopicConfigAndMappingSerializeWrapper>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"TopicTest":{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}"#,
        ),
        golden::<RegisterBrokerBody>(REGISTRATION),
        golden::<TimerMetrics>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"timingCount":{"TopicTest":{"count":7,"timeStamp":1700000000000}}}"#,
        ),
        golden::<HeartbeatData>(HEARTBEAT),
        golden::<LockBatchRequestBody>(
            r#"{"clientId":"10.0.0.1@1#2","consumerGroup":"CG","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}],"onlyThisBroker":false}"#,
        ),
        golden::<LockBatchResponseBody>(
            r#"{"lockOKMQSet":[{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}]}"#,
        ),
        golden::<GetConsumerListByGroupResponseBody>(r#"{"consumerIdList":["10.0.0.1@1#2"]}"#),
        golden::<CheckClientRequestBody>(
            r#"{"clientId":"c","group":"CG","subscriptionData":{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}}"#,
        ),
        golden::<SubscriptionData>(SUBSCRIPTION),
        golden::<QueryAssignmentRequestBody>(
            r#"{"clientId":"10.0.0.1@1#2","consumerGroup":"CG","messageModel":"CLUSTERING","strategyName":"AVG","topic":"TopicTest"}"#,
        ),
        golden::<QueryAssignmentResponseBody>(
            r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"},"mode":"PULL"}]}"#,
        ),
        golden::<QueryAssignmentResponseBody>("{}"),
        golden::<SetMessageRequestModeRequestBody>(
            r#"{"consumerGroup":"CG","mode":"POP","popShareQueueNum":8,"topic":"TopicTest"}"#,
        ),
        golden::<MessageRequestModeSerializeWrapper>(
            r#"{"messageRequestModeMap":{"TopicTest":{"CG":{"consumerGroup":"CG","mode":"POP","popShareQueueNum":8,"topic":"TopicTest"}}}}"#,
        ),
        golden::<BatchAckMessageRequestBody>(
            r#"{"acks":[{"b":"BQ==","c":"CG","it":60000,"pt":1700000000000,"q":0,"r":"0","rq":3,"so":100,"t":"TopicTest"}],"brokerName":"broker-a"}"#,
        ),
        golden::<SubscriptionGroupConfig>(
            r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"CG","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#,
        ),
        golden::<SubscriptionGroupWrapper>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"forbiddenTable":{},"subscriptionGroupTable":{"CG":{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"CG","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}}}"#,
        ),
        golden::<TopicStatsTable>(
            r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:{"lastUpdateTimestamp":1700000000000,"maxOffset":5,"minOffset":0}},"topicPutTps":0.0}"#,
        ),
        golden::<ConsumeStats>(
            r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:{"brokerOffset":5,"consumerOffset":3,"lastTimestamp":1700000000000,"pullOffset":4}}}"#,
        ),
        golden::<ConsumeStatsList>(
            r#"{"brokerAddr":"127.0.0.1:10911","consumeStatsList":[{"CG":[{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:{"brokerOffset":5,"consumerOffset":3,"lastTimestamp":1700000000000,"pullOffset":4}}}]}],"totalDiff":2,"totalInflightDiff":0}"#,
        ),
        golden::<ResetOffsetBody>(
            r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:100}}"#,
        ),
        golden::<ResetOffsetBodyForC>(
            r#"{"offsetTable":[{"brokerName":"broker-a","offset":100,"queueId":0,"topic":"TopicTest"}]}"#,
        ),
        golden::<GetConsumerStatusBody>(
            r#"{"consumerTable":{},"messageQueueTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:5}}"#,
        ),
        golden::<QueryConsumeTimeSpanBody>(
            r#"{"consumeTimeSpanSet":[{"consumeTimeStamp":0,"consumeTimeStampStr":"1970-01-01#00:00:00:000","delayTime":0,"maxTimeStamp":0,"maxTimeStampStr":"1970-01-01#00:00:00:000","messageQueue":{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"},"minTimeStamp":0,"minTimeStampStr":"1970-01-01#00:00:00:000"}]}"#,
        ),
        golden::<ConsumerOffsetSerializeWrapper>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"offsetTable":{"TopicTest@CG":{0:100}}}"#,
        ),
        golden::<DelayOffsetSerializeWrapper>(
            r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"offsetTable":{1:10,2:20}}"#,
        ),
        golden::<QueryCorrectionOffsetBody>(r#"{"correctionOffsets":{0:5}}"#),
        golden::<GroupForbidden>(r#"{"group":"CG","readable":false,"topic":"TopicTest"}"#),
        golden::<ConsumerConnection>(
            r#"{"connectionSet":[{"clientAddr":"10.0.0.1:55555","clientId":"10.0.0.1@1#2","language":"JAVA","version":479}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"TopicTest":{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}}}"#,
        ),
        golden::<ProducerConnection>(
            r#"{"connectionSet":[{"clientAddr":"10.0.0.1:55555","clientId":"10.0.0.1@1#2","language":"JAVA","version":479}]}"#,
        ),
        golden::<ProducerTableInfo>(
            r#"{"data":{"PG":[{"clientId":"cid","language":"JAVA","lastUpdateTimestamp":1700000000000,"remoteIP":"10.0.0.1:5","version":479}]}}"#,
        ),
        golden::<TopicList>(r#"{"topicList":["TopicTest"]}"#),
        golden::<GroupList>(r#"{"groupList":["CG"]}"#),
        golden::<KvTable>(r#"{"table":{"k":"v"}}"#),
    ]
}

const ROUTE_FOR_OLD_CLIENTS: &str = r#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
const ROUTE_IN_STANDARD_JSON: &str = r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911","1":"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
const REGISTRATION: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"TopicTest":{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;
const HEARTBEAT: &str = r#"{"clientID":"10.0.0.1@12345#678","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"CG","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"PG"}],"withoutSub":false}"#;

#[test]
fn every_golden_body_is_read_and_written_back_to_the_byte() {
    for Golden { body, rewrite } in goldens() {
        let written = rewrite(body.as_bytes()).unwrap_or_else(|error| panic!("{error} in {body}"));
        assert_eq!(std::str::from_utf8(&written).unwrap(), body);
    }
}

#[test]
fn every_proper_prefix_of_a_body_is_refused() {
    for Golden { body, rewrite } in goldens() {
        for end in 0..body.len() {
            assert!(rewrite(&body.as_bytes()[..end]).is_err(), "{}", &body[..end]);
        }
    }
}

#[test]
fn blanks_between_tokens_change_nothing() {
    for Golden { body, rewrite } in goldens() {
        let mut spaced = String::new();
        let mut in_string = false;
        for character in body.chars() {
            in_string ^= character == '"';
            match character {
                '{' | '}' | '[' | ']' | ',' | ':' if !in_string => {
                    spaced.extend([' ', character, '\n', '\t'])
                }
                _ => spaced.push(character),
            }
        }
        assert_eq!(rewrite(spaced.as_bytes()).unwrap(), body.as_bytes());
    }
}

#[test]
fn replacing_any_byte_never_panics() {
    for Golden { body, rewrite } in goldens() {
        let mut mutant = body.as_bytes().to_vec();
        for at in 0..mutant.len() {
            for byte in *b"{]:,\"\\-Z\xff" {
                let original = std::mem::replace(&mut mutant[at], byte);
                let _ = rewrite(&mutant);
                mutant[at] = original;
            }
        }
    }
}

#[test]
fn route_for_new_clients_has_quoted_numeric_keys() {
    let route: TopicRouteData = parse(ROUTE_FOR_OLD_CLIENTS.as_bytes()).unwrap();
    assert_eq!(to_standard_json(&route), ROUTE_IN_STANDARD_JSON);
    serde_json::from_slice::<serde_json::Value>(&to_standard_json(&route)).expect("standard JSON");
    assert_eq!(parse::<TopicRouteData>(ROUTE_IN_STANDARD_JSON.as_bytes()).unwrap(), route);
}

#[test]
fn go_s_misspelt_queue_flag_is_understood() {
    let queue: QueueData =
        parse(br#"{"brokerName":"a","readQueueNums":4,"writeQueueNums":4,"perm":6,"topicSynFlag":2}"#)
            .unwrap();
    assert_eq!(queue.topic_sys_flag, 2);
}

#[test]
fn heartbeats_of_cpp_clients_read_like_java_s() {
    let heartbeat: HeartbeatData = parse(
        br#"{"clientID":"c","consumerDataSet":[{"consumeFromWhere":4,"consumeType":1,"groupName":"g","messageModel":1,"subscriptionDataSet":[{"codeSet":[0],"subString":"TagA","subVersion":"1700000000000","tagsSet":["TagA"],"topic":"T"}]}]}"#,
    )
    .unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
    assert_eq!(consumer.consume_type, ConsumeType::Passively);
    assert_eq!(consumer.message_model, MessageModel::Clustering);
    assert_eq!(consumer.subscription_data_set, [SubscriptionData::of_tags("T", "TagA", 1_700_000_000_000)]);
    assert_eq!(consumer.subscription_data_set[0].code_set, [2598919], "not the client's atoi(tag)");
    assert!(heartbeat.producer_data_set.is_empty());
}

#[test]
fn heartbeats_of_go_clients_read_like_java_s() {
    let heartbeat: HeartbeatData = parse(
        r#"{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY","messageModel":"BROADCASTING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{"classFilterMode":false,"topic":"T","subString":"é漢😀","tagsSet":["é漢😀"],"codeSet":["-5"],"subVersion":1700000000000000000,"expressionType":"TAG"}],"unitMode":false},{"groupName":"h","subscriptionDataSet":null}]}"#
            .as_bytes(),
    )
    .unwrap();
    let subscription = &heartbeat.consumer_data_set[0].subscription_data_set[0];
    assert_eq!(subscription.code_set, [36054652], "over UTF-16 units, not Go's bytes");
    assert_eq!(subscription.sub_version, 1_700_000_000_000_000_000);
    assert_eq!(heartbeat.consumer_data_set[0].message_model, MessageModel::Broadcasting);
    assert!(heartbeat.consumer_data_set[1].subscription_data_set.is_empty());
}

#[test]
fn tags_are_computed_from_the_expression_when_they_are_not_sent() {
    let subscription: SubscriptionData = parse(br#"{"topic":"T","subString":" TagA ||TagB|| "}"#).unwrap();
    assert_eq!(subscription.tags_set, ["TagA", "TagB"]);
    assert_eq!(subscription.code_set, [2598919, 2598920]);
    let everything: SubscriptionData = parse(br#"{"topic":"T","subString":"*","codeSet":[42]}"#).unwrap();
    assert!(everything.tags_set.is_empty() && everything.code_set.is_empty());
    let sql: SubscriptionData =
        parse(br#"{"topic":"T","subString":"a > 1","expressionType":"SQL92","codeSet":[7]}"#).unwrap();
    assert!(!sql.is_tag_expression() && sql.tags_set.is_empty() && sql.code_set.is_empty());
}

#[test]
fn missing_and_null_members_keep_the_java_class_s_default() {
    let defaults = SubscriptionGroupConfig::default();
    assert_eq!(parse::<SubscriptionGroupConfig>(b"{}").unwrap(), defaults);
    let nulls = br#"{"consumeEnable":null,"retryMaxTimes":"","groupRetryPolicy":null,"attributes":null}"#;
    assert_eq!(parse::<SubscriptionGroupConfig>(nulls).unwrap(), defaults);
    assert_eq!(defaults.retry_max_times, 16);
    assert_eq!(parse::<TopicConfig>(br#"{"topicFilterType":"NO_SUCH"}"#).unwrap(), TopicConfig::default());
}

#[test]
fn values_are_read_as_leniently_as_fastjson_does() {
    let config: SubscriptionGroupConfig = parse(
        br#"{"groupName":7,"CONSUMEENABLE":"false","consumeFromMinEnable":0,"retryMaxTimes":"3","brokerId":2.0,
             "unknown":{"a":[1,{"b":null}],{"c":1}:[]},'retryQueueNums':8,groupSysFlag:1}"#,
    )
    .unwrap();
    assert_eq!(config.group_name, "7");
    assert!(!config.consume_enable && !config.consume_from_min_enable);
    assert_eq!(
        (config.retry_max_times, config.broker_id, config.retry_queue_nums, config.group_sys_flag),
        (3, 2, 8, 1)
    );
}

#[test]
fn object_keys_are_read_plain_in_any_order_or_wrapped_in_a_string() {
    let expected = MessageQueue { topic: "T".into(), broker_name: "a".into(), queue_id: 3 };
    for text in [
        r#"{"offsetTable":{{"topic":"T","queueId":3,"brokerName":"a"}:{"maxOffset":5}}}"#,
        r#"{"offsetTable":{ {"topic":"T", "brokerName":"a","queueId":"3"} : {"maxOffset":5} }}"#,
        r#"{"offsetTable":{"{\"brokerName\":\"a\",\"queueId\":3,\"topic\":\"T\"}":{"maxOffset":5}}}"#,
    ] {
        let stats: TopicStatsTable =
            parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {text}"));
        assert_eq!(stats.offset_table[&expected].max_offset, 5);
    }
}

#[test]
fn strings_survive_every_escape() {
    let list: TopicList =
        parse(br#"{"topicList":["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","\ud83dx\udc00"]}"#).unwrap();
    assert_eq!(list.topic_list, ["\"\\/\u{8}\u{c}\n\r\té😀", "\u{fffd}x\u{fffd}"]);
    let control = TopicList { topic_list: vec!["\u{1}\u{1f}\"".into()], ..TopicList::default() };
    assert_eq!(to_fastjson(&control), r#"{"topicList":["\u0001\u001f\""]}"#);
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"unknown":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let deepest = DEPTH_MAX as usize - 1;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("{1:", "}")] {
        parse::<TopicList>(nested(open, close, deepest).as_bytes()).expect("as deep as allowed");
        let error = parse::<TopicList>(nested(open, close, deepest + 1).as_bytes()).unwrap_err();
        assert_eq!(error.problem, BodyProblem::TooDeep);
    }
    for endless in ["[", "{", "{\"a\":", "{{", "[{", "{[", "{\"unknown\":["] {
        let text = format!("{{\"unknown\":{}", endless.repeat(100_000));
        assert_eq!(parse::<TopicList>(text.as_bytes()).unwrap_err().problem, BodyProblem::TooDeep);
    }
}

#[test]
fn a_body_of_too_many_elements_is_refused() {
    let nulls = |count: u32| format!(r#"{{"topicConfigList":[{}{{}}]}}"#, "null,".repeat(count as usize - 1));
    parse::<CreateTopicListRequestBody>(nulls(ELEMENTS_MAX).as_bytes()).expect("as many as allowed");
    let error = parse::<CreateTopicListRequestBody>(nulls(ELEMENTS_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!(error.problem, BodyProblem::TooManyElements);
    assert_eq!(error.member, Some("topicConfigList"));
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for number in
        ["99999999999", "1e400", "-1e999999999", "1.5", "1e", "--1", "\"x\"", "true", &"9".repeat(100_000)]
    {
        let text = format!(r#"{{"perm":{number}}}"#);
        let error = parse::<TopicConfig>(text.as_bytes()).unwrap_err();
        assert_eq!(
            (error.member, error.problem),
            (Some("perm"), BodyProblem::Expected("a 32-bit integer")),
            "{number:.20}"
        );
    }
    let error = parse::<DataVersion>(br#"{"counter":9223372036854775808}"#).unwrap_err();
    assert_eq!(error.to_string(), r#"body member "counter" at byte 11: expected a 64-bit integer"#);
}

#[test]
fn a_body_is_one_value_and_nothing_else() {
    for text in ["", "null", "{} {}", "{}x", "[]", "7", "\"{}\"", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}"]
    {
        assert!(parse::<TopicList>(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(parse::<TopicList>(b"{\"a\":\"\xff\"}").unwrap_err().problem, BodyProblem::NotUtf8);
}

/// B.8 of the protocol reference: inflated, one topic without attributes.
fn inflated_registration() -> Vec<u8> {
    let mut inflated = Vec::new();
    let mut push = |part: &[u8]| {
        inflated.extend((part.len() as i32).to_be_bytes());
        inflated.extend(part);
    };
    push(br#"{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#);
    inflated.extend(1i32.to_be_bytes());
    let mut push = |part: &[u8]| {
        inflated.extend((part.len() as i32).to_be_bytes());
        inflated.extend(part);
    };
    push(b"TopicTest 4 4 6 SINGLE_TAG {}");
    push(b"[]");
    inflated.extend(0i32.to_be_bytes());
    inflated
}

fn deflate(inflated: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(inflated).unwrap();
    encoder.finish().unwrap()
}

fn inflate(deflated: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut inflated = Vec::new();
    flate2::read::ZlibDecoder::new(deflated).read_to_end(&mut inflated).unwrap();
    inflated
}

#[test]
fn compressed_registration_has_java_s_layout() {
    let inflated = inflated_registration();
    let registration = RegisterBrokerBody::decode(&deflate(&inflated), true, 479).unwrap();
    let topics = &registration.topic_config_serialize_wrapper;
    assert_eq!(
        topics.data_version,
        DataVersion { counter: 0, state_version: 0, timestamp: 1_700_000_000_000 }
    );
    let expected = TopicConfig {
        topic_name: "TopicTest".into(),
        read_queue_nums: 4,
        write_queue_nums: 4,
        ..TopicConfig::default()
    };
    assert_eq!(topics.topic_config_table["TopicTest"], expected);
    assert_eq!(inflate(&registration.encode_compressed(479)), inflated);
    assert_eq!(inflate(&registration.encode_compressed(412)), inflated[..inflated.len() - 4]);
}

#[test]
fn compressed_registration_is_recognised_although_its_header_denies_it() {
    let deflated = deflate(&inflated_registration());
    let registration = RegisterBrokerBody::decode(&deflated, false, 479).unwrap();
    assert_eq!(registration.topic_config_serialize_wrapper.topic_config_table.len(), 1);
}

#[test]
fn truncated_compressed_registration_is_refused() {
    let inflated = inflated_registration();
    let without_mappings = inflated.len() - 4;
    for end in (0..inflated.len()).filter(|end| *end != without_mappings) {
        assert!(RegisterBrokerBody::decode(&deflate(&inflated[..end]), true, 479).is_err(), "cut at {end}");
    }
    let deflated = deflate(&inflated);
    for end in 0..deflated.len() - 4 {
        assert!(RegisterBrokerBody::decode(&deflated[..end], true, 479).is_err(), "stream cut at {end}");
    }
}

#[test]
fn false_lengths_in_a_compressed_registration_are_refused() {
    for length in [-1, i32::MIN] {
        let error = RegisterBrokerBody::decode(&deflate(&length.to_be_bytes()), true, 479).unwrap_err();
        assert!(matches!(error, RegisterBodyError::NegativeLength(_)));
    }
    let mut many_topics = b"\0\0\0\x02{}".to_vec();
    many_topics.extend(i32::MAX.to_be_bytes());
    let error = RegisterBrokerBody::decode(&deflate(&many_topics), true, 479).unwrap_err();
    assert!(matches!(error, RegisterBodyError::TooMany { .. }));
    for text in ["", "T", "T 4 4 6", "T x 4 6 SINGLE_TAG", "T 4 4 6 NO_SUCH", "T 4 4 6 SINGLE_TAG {"] {
        assert_eq!(TopicConfig::from_text(text), None, "{text}");
    }
}

#[test]
fn registration_before_3_0_11_is_the_topics_alone() {
    let body = br#"{"dataVersion":{"counter":3,"timestamp":5},"topicConfigTable":{"T":{"topicName":"T"}}}"#;
    let registration = RegisterBrokerBody::decode(body, false, 36).unwrap();
    assert_eq!(registration.topic_config_serialize_wrapper.topic_config_table.len(), 1);
    assert_eq!(registration.topic_config_serialize_wrapper.data_version.counter, 3);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[A-Za-z0-9_%-]{1,20}"]
}

fn any_queue() -> impl Strategy<Value = MessageQueue> {
    (any_text(), any_text(), any::<i32>()).prop_map(|(topic, broker_name, queue_id)| MessageQueue {
        broker_name,
        queue_id,
        topic,
    })
}

fn any_data_version() -> impl Strategy<Value = DataVersion> {
    any::<(i64, i64, i64)>().prop_map(|(counter, state_version, timestamp)| DataVersion {
        counter,
        state_version,
        timestamp,
    })
}

prop_compose! {
    fn any_topic_config()(
        topic_name in any_text(),
        attributes in btree_map(any_text(), any_text(), 0..3),
        (order, perm, read_queue_nums, write_queue_nums, topic_sys_flag) in any::<(bool, i32, i32, i32, i32)>(),
        filter in prop::sample::select(TopicFilterType::ALL),
    ) -> TopicConfig {
        TopicConfig {
            attributes, order, perm, read_queue_nums, write_queue_nums, topic_sys_flag, topic_name,
            topic_filter_type: filter,
        }
    }
}

prop_compose! {
    fn any_mapping_info()(
        (bname, topic, scope) in (any_text(), any_text(), prop::option::of(any_text())),
        curr_id_map in btree_map(any::<i32>(), any::<i32>(), 0..3),
        (dirty, epoch, total_queues) in any::<(bool, i64, i32)>(),
    ) -> TopicQueueMappingInfo {
        TopicQueueMappingInfo { bname, curr_id_map, dirty, epoch, scope, topic, total_queues }
    }
}

prop_compose! {
    fn any_route()(
        brokers in vec((btree_map(any::<i64>(), any_text(), 0..3), any_text(), any_text(), any::<bool>(), prop::option::of(any_text())), 0..3),
        filter_server_table in btree_map(any_text(), vec(any_text(), 0..2), 0..2),
        order_topic_conf in prop::option::of(any_text()),
        queues in vec((any_text(), any::<(i32, i32, i32, i32)>()), 0..3),
        topic_queue_mapping_by_broker in prop::option::of(btree_map(any_text(), any_mapping_info(), 0..2)),
    ) -> TopicRouteData {
        let broker_datas = brokers.into_iter().map(|(broker_addrs, broker_name, cluster, enable_acting_master, zone_name)| {
            BrokerData { broker_addrs, broker_name, cluster, enable_acting_master, zone_name }
        });
        let queue_datas = queues.into_iter().map(|(broker_name, (perm, read_queue_nums, topic_sys_flag, write_queue_nums))| {
            QueueData { broker_name, perm, read_queue_nums, topic_sys_flag, write_queue_nums }
        });
        TopicRouteData {
            broker_datas: broker_datas.collect(),
            filter_server_table,
            order_topic_conf,
            queue_datas: queue_datas.collect(),
            topic_queue_mapping_by_broker,
        }
    }
}

prop_compose! {
    fn any_subscription()(
        (topic, sub_string, sub_version) in (any_text(), any_text(), any::<i64>()),
        sql in any::<bool>(),
    ) -> SubscriptionData {
        if sql {
            SubscriptionData { topic, sub_string, sub_version, expression_type: "SQL92".into(), ..Default::default() }
        } else {
            SubscriptionData::of_tags(&topic, &sub_string, sub_version)
        }
    }
}

prop_compose! {
    fn any_heartbeat()(
        client_id in any_text(),
        (heartbeat_fingerprint, without_sub) in any::<(i32, bool)>(),
        consumers in vec((
            any_text(),
            prop::sample::select(ConsumeType::ALL),
            prop::sample::select(MessageModel::ALL),
            prop::sample::select(ConsumeFromWhere::ALL),
            vec(any_subscription(), 0..3),
            any::<bool>(),
        ), 0..3),
        producers in vec(any_text(), 0..3),
    ) -> HeartbeatData {
        let consumers = consumers.into_iter().map(|consumer| {
            let (group_name, consume_type, message_model, consume_from_where, subscription_data_set, unit_mode) = consumer;
            ConsumerData { consume_from_where, consume_type, group_name, message_model, subscription_data_set, unit_mode }
        });
        HeartbeatData {
            client_id,
            consumer_data_set: consumers.collect(),
            heartbeat_fingerprint,
            producer_data_set: producers.into_iter().map(|group_name| ProducerData { group_name }).collect(),
            without_sub,
        }
    }
}

fn survives<T: FromFastjson + ToFastjson + PartialEq + Debug>(body: &T) {
    assert_eq!(&parse::<T>(&to_fastjson(body)).unwrap(), body);
    assert_eq!(&parse::<T>(&to_standard_json(body)).unwrap(), body);
}

proptest! {
    #[test]
    fn any_route_survives_both_forms(route in any_route()) {
        survives(&route);
        serde_json::from_slice::<serde_json::Value>(&to_standard_json(&route)).expect("standard JSON");
    }

    #[test]
    fn any_heartbeat_survives(heartbeat in any_heartbeat()) {
        survives(&heartbeat);
    }

    #[test]
    fn any_statistics_survive(
        offsets in btree_map(any_queue(), any::<(i64, i64, i64)>(), 0..5),
        topic_put_tps in -1e15..1e15f64,
    ) {
        let offset_table = offsets.into_iter().map(|(queue, (last_update_timestamp, max_offset, min_offset))| {
            (queue, TopicOffset { last_update_timestamp, max_offset, min_offset })
        });
        survives(&TopicStatsTable { offset_table: offset_table.collect(), topic_put_tps });
    }

    #[test]
    fn any_registration_survives_both_forms(
        data_version in any_data_version(),
        topics in vec(any_topic_config(), 0..4),
        mappings in vec(any_mapping_info(), 0..2),
        filter_server_list in vec(any_text(), 0..2),
    ) {
        let topic_config_table = topics.into_iter().map(|topic| (topic.topic_name.clone(), topic)).collect();
        let topic_queue_mapping_info_map = mappings.into_iter().map(|mapping| (mapping.topic.clone(), mapping)).collect();
        let mut registration = RegisterBrokerBody {
            filter_server_list,
            topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
                data_version,
                topic_config_table,
                topic_queue_mapping_info_map,
                ..Default::default()
            },
        };
        survives(&registration);
        // The one-line form has neither these two members nor names with blanks in them.
        let topics = &mut registration.topic_config_serialize_wrapper.topic_config_table;
        topics.retain(|name, _| !name.contains(' '));
        for topic in topics.values_mut() {
            (topic.order, topic.topic_sys_flag) = (false, 0);
        }
        let decoded = RegisterBrokerBody::decode(&registration.encode_compressed(479), true, 479).unwrap();
        prop_assert_eq!(decoded, registration);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"'\\\\a-f0-9 .-]{0,100}") {
        for Golden { rewrite, .. } in goldens() {
            let _ = rewrite(&bytes);
            let _ = rewrite(text.as_bytes());
        }
        let _ = RegisterBrokerBody::decode(&bytes, true, 479);
        let _ = RegisterBrokerBody::decode(&deflate(&bytes), true, 479);
    }
}
