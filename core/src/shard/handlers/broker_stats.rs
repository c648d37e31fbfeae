//! VIEW_BROKER_STATS_DATA (315): what one figure came to in the last minute, hour and day.

use apogee_net::body::{BrokerStatsData, BrokerStatsItem, to_fastjson};
use apogee_net::code::ResponseCode;
use apogee_net::request::{TypedHeader, ViewBrokerStatsDataRequest};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::stats::{BrokerMeasure, Figures, GroupMeasure, Period};

pub(super) fn view<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = ViewBrokerStatsDataRequest::decode(&request.header.ext)?;
    let (name, key) = (wanted.stats_name, wanted.stats_key);
    let item = Unit::of(name).and_then(|unit| {
        let figures = |period| shard.figures(name, key, period).map(|figures| unit.item(figures));
        Some(BrokerStatsData {
            stats_minute: figures(Period::Minute)?,
            stats_hour: figures(Period::Hour)?,
            stats_day: figures(Period::Day)?,
        })
    });
    let item = item.ok_or_else(|| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("The stats <{name}> <{key}> not exist"))
    })?;
    Ok(Reply::success().with_body(to_fastjson(&item)).into())
}

impl<B: Buffer + 'static> Shard<B> {
    /// By RocketMQ's names (`Stats`, `BrokerStatsManager`). What it counts per queue is not counted here.
    fn figures(&self, name: &str, key: &str, period: Period) -> Option<Figures> {
        let meters = &self.stats.meters;
        let of_group = |measure| {
            let (topic, group) = key.split_once('@')?;
            meters.group_figures(group, self.topics.get(topic)?.number(), measure, period)
        };
        let of_broker =
            |measure| (*key == *self.config.cluster).then(|| meters.broker_figures(measure, period));
        match name {
            "TOPIC_PUT_NUMS" | "TOPIC_PUT_SIZE" => {
                meters.topic_figures(self.topics.get(key)?.number(), period)
            }
            "GROUP_GET_NUMS" | "GROUP_GET_SIZE" => of_group(GroupMeasure::Got),
            "SNDBCK_PUT_NUMS" => of_group(GroupMeasure::SentBack),
            "BROKER_PUT_NUMS" => of_broker(BrokerMeasure::Put),
            "BROKER_GET_NUMS" => of_broker(BrokerMeasure::Get),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Messages,
    Bytes,
}

impl Unit {
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('_')?.1 {
            "NUMS" => Some(Unit::Messages),
            "SIZE" => Some(Unit::Bytes),
            _ => None,
        }
    }

    /// The average is per message.
    fn item(self, figures: Figures) -> BrokerStatsItem {
        let Figures { totals, messages_per_second, bytes_per_second } = figures;
        let (sum, tps) = match self {
            Unit::Messages => (totals.messages, messages_per_second),
            Unit::Bytes => (totals.bytes, bytes_per_second),
        };
        let avgpt = if totals.messages == 0 { 0.0 } else { sum as f64 / totals.messages as f64 };
        BrokerStatsItem { avgpt, sum: i64::try_from(sum).unwrap_or(i64::MAX), tps }
    }
}
