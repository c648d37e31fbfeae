//! Consumer groups by request: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200), UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST
//! (225), DELETE_SUBSCRIPTIONGROUP (207), GET_SUBSCRIPTIONGROUP_CONFIG (352), GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).

use std::ops::Bound;

use apogee_net::body::{
    BodyInPieces, DataVersion, SubscriptionGroupConfig, SubscriptionGroupList, parse, to_fastjson,
};
use apogee_net::code::ResponseCode;
use apogee_net::message::check_group;
use apogee_net::request::{
    DeleteSubscriptionGroupRequest, GetAllSubscriptionGroupReply, GetAllSubscriptionGroupRequest,
    GetSubscriptionGroupConfigRequest, TypedHeader,
};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::groups::GroupError;
use crate::shard::long_answer::{Progress, STEP_UNITS, done, more};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// A configuration is written or logged in the time of this many units of a long answer.
const UNITS_PER_GROUP: usize = 4;

/// Most groups of a page, for who asks for pages (`splitMetadataSize`).
const PAGE_GROUPS_MAX: usize = 2000;

impl<B: Buffer + 'static> Shard<B> {
    /// The configuration of a group somebody consumes as; made with the defaults if that is allowed.
    pub(in crate::shard) fn ensure_group(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Result<&SubscriptionGroupConfig, Refusal> {
        if self.groups.get(group).is_none() {
            if !self.is_working() {
                return Err(Refusal::group_unknown(group).for_leader());
            }
            self.check_changes_flow()?;
            if let Some(record) = self.groups.ensure(group, now_ms)? {
                self.journal(record, Then::Nothing, now_ms);
            }
        }
        self.groups.get(group).ok_or_else(|| Refusal::group_unknown(group))
    }
}

/// No body, or null, changes nothing.
pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    if request.body.is_empty() || request.body.as_ref() == b"null" {
        return Ok(Reply::success().into());
    }
    let wanted: SubscriptionGroupConfig = parse(request.body)?;
    shard.check_changes_flow()?;
    let change = shard.groups.update(wanted, now_ms)?;
    Ok(shard.answer_change(change, Then::Succeed(request.reply_to()), now_ms))
}

/// Changes nothing if one of the names is none, and the groups in front of one that is refused for another reason.
pub(super) fn update_list<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let SubscriptionGroupList { group_config_list } = parse(request.body)?;
    for config in &group_config_list {
        let group = &config.group_name;
        check_group(group).map_err(|problem| GroupError::Name { group: group.clone(), problem })?;
    }
    let to = request.reply_to();
    let mut left = group_config_list.into_iter();
    let mut last_change = None;
    let step = move |shard: &mut Shard<B>, now_ms: i64| {
        if shard.check_changes_flow().is_err() {
            return Ok(Progress::More);
        }
        for config in left.by_ref().take(STEP_UNITS / UNITS_PER_GROUP) {
            let change = shard.groups.update(config, now_ms)?;
            // The answer follows the last change that is logged.
            if let Some(before) = change.and_then(|change| last_change.replace(change)) {
                shard.journal(before, Then::Nothing, now_ms);
            }
        }
        match last_change.take() {
            last if left.len() > 0 => {
                last.into_iter().for_each(|change| shard.journal(change, Then::Nothing, now_ms));
                Ok(Progress::More)
            }
            Some(change) => {
                shard.journal(change, Then::Succeed(to), now_ms);
                Ok(Progress::Elsewhere)
            }
            None => Ok(Progress::Done(Reply::success())),
        }
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

pub(super) fn delete<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = DeleteSubscriptionGroupRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let change = shard.groups.delete(wanted.group_name, wanted.clean_offset, now_ms);
    shard.stats.meters.on_group_deleted(wanted.group_name);
    change.iter().for_each(|record| shard.forget(record));
    Ok(shard.answer_change(change, Then::Succeed(request.reply_to()), now_ms))
}

/// Makes the group if it may be made by consuming as it.
pub(super) fn get<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, now_ms: i64) -> Handled {
    let wanted = GetSubscriptionGroupConfigRequest::decode(&request.header.ext)?;
    let config = shard.ensure_group(wanted.group, now_ms).map_err(|refusal| Refusal {
        is_for_leader: refusal.is_for_leader,
        ..Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, "No group in this broker")
    })?;
    Ok(Reply::success().with_body(to_fastjson(config)).into())
}

/// All groups, or a page of them for who asks for one.
pub(super) fn get_all<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetAllSubscriptionGroupRequest::decode(&request.header.ext)?;
    let GetAllSubscriptionGroupRequest { group_seq, data_version, max_group_num } = wanted;
    let version = shard.groups.version();
    let known = data_version.and_then(|json| parse::<DataVersion>(json.as_bytes()).ok());
    let is_paged = group_seq.is_some() || data_version.is_some() || max_group_num.is_some();
    let first = match known {
        Some(known) if known == version => group_seq.map_or(0, |seq| seq.max(0) as usize),
        Some(_) | None => 0,
    };
    let mut left = match is_paged {
        true => max_group_num.map_or(PAGE_GROUPS_MAX, |max| PAGE_GROUPS_MAX.min(max.max(0) as usize)),
        false => usize::MAX,
    };
    let mut last = match first.checked_sub(1) {
        Some(before) => match shard.groups.range(Bound::Unbounded).nth(before) {
            Some(config) => Some(config.group_name.clone()),
            None => {
                left = 0;
                None
            }
        },
        None => None,
    };

    let mut body = BodyInPieces::default();
    body.open(r#"{"dataVersion":"#);
    body.value(&version);
    body.open(r#","forbiddenTable":"#);
    body.value(&shard.forbidden.shown());
    body.open(r#","subscriptionGroupTable":{"#);
    let step = move |shard: &mut Shard<B>, _: i64| {
        let mut written = 0;
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut at = None;
        for config in shard.groups.range(from).take(left.min(STEP_UNITS / UNITS_PER_GROUP)) {
            body.entry(&config.group_name, config);
            at = Some(config.group_name.clone());
            written += 1;
        }
        left -= written;
        if written == STEP_UNITS / UNITS_PER_GROUP && left > 0 {
            last = at;
            return more(&body);
        }
        body.open("}}");
        let total_group_num = shard.groups.len() as i32;
        Ok(match done(std::mem::take(&mut body))? {
            Progress::Done(reply) => {
                Progress::Done(reply.with_ext(GetAllSubscriptionGroupReply { total_group_num }))
            }
            progress => progress,
        })
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}
