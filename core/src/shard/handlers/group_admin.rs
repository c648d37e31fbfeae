//! Consumer groups by request: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200), DELETE_SUBSCRIPTIONGROUP (207),
//! GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).

use apogee_net::body::{SubscriptionGroupConfig, SubscriptionGroupWrapper, parse, to_fastjson};
use apogee_net::request::{DeleteSubscriptionGroupRequest, TypedHeader};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

impl<B: Buffer + 'static> Shard<B> {
    /// The configuration of a group somebody consumes as; made with the defaults if that is allowed.
    pub(in crate::shard) fn ensure_group(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Result<&SubscriptionGroupConfig, Refusal> {
        if self.groups.get(group).is_none() {
            self.check_changes_flow()?;
            if let Some(record) = self.groups.ensure(group, now_ms)? {
                self.journal(record, Then::Nothing, now_ms);
            }
        }
        self.groups.get(group).ok_or_else(|| Refusal::group_unknown(group))
    }
}

pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted: SubscriptionGroupConfig = parse(request.body)?;
    shard.check_changes_flow()?;
    let change = shard.groups.update(wanted, now_ms)?;
    Ok(shard.answer_change(change, Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn delete<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = DeleteSubscriptionGroupRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let change = shard.groups.delete(wanted.group_name, wanted.clean_offset, now_ms);
    change.iter().for_each(|record| shard.offsets.apply(record));
    Ok(shard.answer_change(change, Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn get_all<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let body = SubscriptionGroupWrapper {
        data_version: shard.groups.version(),
        subscription_group_table: shard
            .groups
            .iter()
            .map(|group| (group.group_name.clone(), group.clone()))
            .collect(),
        ..Default::default()
    };
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}
