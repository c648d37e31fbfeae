//! GET_BROKER_RUNTIME_INFO (28), GET_BROKER_HA_STATUS (907), RESET_MASTER_FLUSH_OFFSET (908).
//!
//! Names and forms are those of `AdminBrokerProcessor#prepareRuntimeInfo`, `StoreStatsService#getRuntimeInfo` and
//! `DefaultMessageStore#getRuntimeInfo`; what is RocketMQ's alone (thread pools, page cache) is told as the nearest
//! thing that a shard has.

use std::collections::BTreeMap;

use apogee_net::body::{KvTable, to_fastjson};
use apogee_net::request::{ResetMasterFlushOffsetRequest, TypedHeader};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::parked::PULLS_PARKED_MAX;
use crate::shard::state::Shard;
use crate::shard::stats::{BrokerMeasure, Rate};

/// What clients are told of our version: the ordinal that headers carry is V5_3_3's.
const VERSION: &str = "V5_3_3";

pub(super) fn runtime_info<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let mut info = RuntimeInfo::default();
    shard.tell_stats(&mut info, now_ms);
    shard.tell_log(&mut info);
    shard.tell_waiting(&mut info, now_ms);
    shard.tell_timers(&mut info);
    shard.tell_group(&mut info, now_ms);
    shard.tell_stages(&mut info, asks_for_histograms(request));
    Ok(Reply::success().with_body(to_fastjson(&KvTable { table: info.0 })).into())
}

/// Ours alone: the histograms that percentiles are taken from are for programs, and would fill a screen of people.
/// RocketMQ leaves a field alone that it does not know.
fn asks_for_histograms(request: &Request<'_>) -> bool {
    request.header.ext.get("apogeeHistograms").is_some_and(|asked| asked == "true")
}

pub(super) fn ha_status<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, now_ms: i64) -> Handled {
    Ok(Reply::success().with_body(to_fastjson(&shard.ha_runtime_info(now_ms))).into())
}

/// Means something on slaves only.
pub(super) fn reset_master_flush_offset<B: Buffer + 'static>(
    _: &mut Shard<B>,
    request: &Request<'_>,
    _: i64,
) -> Handled {
    ResetMasterFlushOffsetRequest::decode(&request.header.ext)?;
    Ok(Reply::success().into())
}

#[derive(Default)]
struct RuntimeInfo(BTreeMap<String, String>);

impl RuntimeInfo {
    fn put(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }
}

impl<B: Buffer + 'static> Shard<B> {
    fn tell_stats(&self, info: &mut RuntimeInfo, now_ms: i64) {
        let stats = &self.stats;
        let put = stats.meters.broker_totals(BrokerMeasure::Put);
        info.put("brokerVersionDesc", VERSION);
        info.put("brokerActive", true);
        info.put("bootTimestamp", stats.started_ms());
        info.put("startAcceptSendRequestTimeStamp", stats.started_ms());
        info.put("runtime", runtime(now_ms - stats.started_ms()));
        for (name, rate) in [
            ("putTps", Rate::Put),
            ("getFoundTps", Rate::Found),
            ("getMissTps", Rate::Missed),
            ("getTotalTps", Rate::Get),
            ("getTransferredTps", Rate::Transferred),
        ] {
            info.put(name, stats.rates.text(rate));
        }
        info.put("apogeeProfileDrift", stats.profile_drift.get());
        info.put("putMessageTimesTotal", put.messages);
        info.put("putMessageSizeTotal", put.bytes);
        info.put("putMessageAverageSize", format!("{:?}", put.bytes as f64 / put.messages.max(1) as f64));
        info.put("putMessageFailedTimes", stats.puts_failed());
        info.put("putMessageEntireTimeMax", stats.put_latency.max_ms());
        info.put("putMessageDistributeTime", stats.put_latency.distribution());
        info.put("putLatency99", format!("{:.2}", stats.put_latency.percentile_ms(0.99)));
        info.put("putLatency999", format!("{:.2}", stats.put_latency.percentile_ms(0.999)));
        // Looking into the index takes no time that a clock of milliseconds shows; the disk's is not the store's here.
        info.put("getMessageEntireTimeMax", 0);
        for (name, days) in [("msgPutTotal", &stats.puts_of_days), ("msgGetTotal", &stats.gets_of_days)] {
            info.put(&format!("{name}YesterdayMorning"), days.yesterday_morning());
            info.put(&format!("{name}TodayMorning"), days.this_morning());
            info.put(&format!("{name}TodayNow"), days.total());
        }
    }

    fn tell_log(&self, info: &mut RuntimeInfo) {
        let marks = self.log.marks();
        info.put("commitLogMinOffset", self.log.start().0);
        info.put("commitLogMaxOffset", marks.committed.0);
        // A batch enters the index when it is committed: what is on its way is behind.
        info.put("dispatchBehindBytes", marks.appended.0 - marks.committed.0);
        info.put("dispatchMaxBuffer", 0);
        info.put("remainHowManyDataToFlush", human_bytes(marks.appended.0 - marks.durable.0));
        info.put("remainTransientStoreBufferNumbs", i32::MAX);
        info.put("pageCacheLockTimeMills", 0);
        info.put("earliestMessageTimeStamp", self.log.oldest_time_ms().unwrap_or(-1));
        if let Some(space) = self.log.space() {
            let used = 1.0 - space.free_bytes as f64 / space.total_bytes.max(1) as f64;
            info.put("commitLogDiskRatio", format!("{used:?}"));
            info.put("consumeQueueDiskRatio", format!("{used:?}"));
            let (total, free) = (human_bytes(space.total_bytes), human_bytes(space.free_bytes));
            info.put("commitLogDirCapacity", format!("Total : {total}, Free : {free}."));
        }
    }

    /// Nothing is copied between a log of timers and a wheel, so nothing is behind.
    fn tell_timers(&self, info: &mut RuntimeInfo) {
        info.put("timerCongestNum", self.timers.pending());
        for (name, none) in [
            ("timerReadBehind", "0"),
            ("timerOffsetBehind", "0"),
            ("timerEnqueueTps", "0.0"),
            ("timerDequeueTps", "0.0"),
        ] {
            info.put(name, none);
        }
    }

    /// Ours alone: as what the node is in its group, and why.
    fn tell_group(&self, info: &mut RuntimeInfo, now_ms: i64) {
        let Some(status) = self.group_status(now_ms) else { return };
        info.put("apogeeGroup.brokerRole", self.role_name());
        info.put("apogeeGroup.node", status.node);
        info.put("apogeeGroup.leader", status.leader.map_or("none".to_owned(), |leader| leader.to_string()));
        info.put("apogeeGroup.term", status.term);
        info.put("apogeeGroup.why", status.why);
        info.put("apogeeGroup.committedIndex", status.committed_index);
        info.put("apogeeGroup.lastIndex", status.last_index);
        info.put("apogeeGroup.requestsHeld", self.requests_held());
        for peer in status.peers {
            let lag = peer.lag_batches.map_or("unknown".to_owned(), |lag| format!("{lag} batches behind"));
            let is_connected = if peer.connected { "connected" } else { "not connected" };
            let text = format!("{}, {is_connected}, {lag}; {}", peer.member, peer.why);
            info.put(&format!("apogeeGroup.peer.{}", peer.node), text);
        }
    }

    /// Ours alone, and therefore under names of our own.
    fn tell_stages(&self, info: &mut RuntimeInfo, with_histograms: bool) {
        for (name, text) in self.stages.texts() {
            info.put(&format!("apogeeStage.{name}"), text);
        }
        for (nth, slow) in self.stages.slowest().into_iter().enumerate() {
            info.put(&format!("apogeeSlow.{nth}"), slow);
        }
        if with_histograms {
            for (name, histogram) in self.stages.encoded() {
                info.put(&format!("apogeeHistogram.{name}"), histogram);
            }
        }
    }

    /// No request waits for a thread. What waits are sends for the disk, and pulls for messages.
    fn tell_waiting(&self, info: &mut RuntimeInfo, now_ms: i64) {
        let head_ms = self.waiters.oldest_ms().map_or(0, |staged_ms| (now_ms - staged_ms).max(0));
        let unlimited = i32::MAX as usize;
        for (name, size, capacity, head_ms) in [
            ("sendThreadPoolQueue", self.waiters.len(), unlimited, head_ms),
            ("pullThreadPoolQueue", self.parked.len(), PULLS_PARKED_MAX, 0),
            ("litePullThreadPoolQueue", 0, PULLS_PARKED_MAX, 0),
            ("queryThreadPoolQueue", 0, unlimited, 0),
            ("ackThreadPoolQueue", 0, unlimited, 0),
        ] {
            info.put(&format!("{name}Size"), size);
            info.put(&format!("{name}Capacity"), capacity);
            info.put(&format!("{name}HeadWaitTimeMills"), head_ms);
        }
        info.put("EndTransactionQueueSize", 0);
        info.put("EndTransactionThreadPoolQueueCapacity", unlimited);
    }
}

/// `StoreStatsService#getFormatRuntime`.
fn runtime(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    format!("[ {days} days, {} hours, {} minutes, {} seconds ]", hours % 24, minutes % 60, seconds % 60)
}

/// `MixAll#humanReadableByteCount` with units of 1024.
fn human_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10) as usize;
    let letter = ["", "K", "M", "G", "T", "P", "E"][exponent];
    format!("{:.1} {letter}iB", bytes as f64 / 1024f64.powi(exponent as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_as_rocketmq_writes_them() {
        assert_eq!(runtime(93_784_999), "[ 1 days, 2 hours, 3 minutes, 4 seconds ]");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(100 << 30), "100.0 GiB");
        assert_eq!(human_bytes(u64::MAX), "16.0 EiB");
    }
}
