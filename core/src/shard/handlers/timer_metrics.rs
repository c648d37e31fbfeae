//! GET_ALL_DELAY_OFFSET (45), GET_TIMER_CHECK_POINT (60), GET_TIMER_METRICS (61): how many messages wait, and how far
//! their delivery has come.

use apogee_net::body::{
    DelayOffsetSerializeWrapper, TimerCheckpoint, TimerMetric, TimerMetrics, to_fastjson,
};
use apogee_storage::Buffer;
use bytes::Bytes;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::state::Shard;
use crate::shard::timers::{DelayLevel, TimerId};

/// There is no timer log to have a place in. Timers are taken in with their messages, so that of the topic is its end.
pub(super) fn check_point<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    _request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let next = shard.timers.table.next(TimerId::MIN);
    let taken_in = shard.log.max_offset(shard.timers.wheel()).0 as i64;
    let checkpoint = TimerCheckpoint {
        last_read_time_ms: next.map_or(now_ms, |next| next.due_ms.min(now_ms)),
        last_timer_log_flush_pos: 0,
        last_timer_queue_offset: taken_in,
        master_timer_queue_offset: taken_in,
        data_version: shard.timers.version(),
    };
    Ok(Reply::success().with_body(Bytes::copy_from_slice(&checkpoint.encode())).into())
}

/// Of topics that are gone nothing is said (`TimerMetrics#cleanMetrics`).
pub(super) fn metrics<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    _request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let of_topic = |(number, count)| {
        let name = &shard.topics.by_number(number)?.config().topic_name;
        let time_stamp = shard.timers.changed_at_ms(number);
        Some((name.clone(), TimerMetric { count: i64::try_from(count).unwrap_or(i64::MAX), time_stamp }))
    };
    let metrics = TimerMetrics {
        data_version: shard.timers.version(),
        timing_count: shard.timers.table.counts().filter_map(of_topic).collect(),
    };
    Ok(Reply::success().with_body(to_fastjson(&metrics)).into())
}

/// Of each delay level that had messages, how many were delivered.
pub(super) fn delay_offsets<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    _request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let of_level = |level: DelayLevel| {
        let next = shard.timers.table.level_next(level).0 as i64;
        (next > 0).then(|| (level.number().into(), next))
    };
    let offsets = DelayOffsetSerializeWrapper {
        data_version: shard.timers.version(),
        offset_table: DelayLevel::all().filter_map(of_level).collect(),
    };
    Ok(Reply::success().with_body(to_fastjson(&offsets)).into())
}
