//! CHECK_CLIENT_CONFIG (46): may a consumer filter like this? Asked at its start for filters that are not tags.

use apogee_net::body::{CheckClientRequestBody, parse};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::filter::parse_expression;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted: CheckClientRequestBody = parse(request.body)?;
    // Tags are never wrong, as for RocketMQ; what makes no sense lets everything pass.
    if let Some(subscription) = wanted.subscription_data.filter(|asked| !asked.is_tag_expression()) {
        let filter = parse_expression(Some(&subscription.sub_string), Some(&subscription.expression_type))?;
        filter.check_allowed(shard.config.enable_property_filter)?;
    }
    Ok(Reply::success().into())
}
