//! GET_BROKER_CONFIG (26), UPDATE_BROKER_CONFIG (25).

use std::collections::BTreeMap;

use apogee_net::body::to_fastjson;
use apogee_net::code::ResponseCode;
use apogee_net::request::GetBrokerConfigReply;
use apogee_storage::Buffer;

use super::Handled;
use crate::properties;
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::refusal::Refusal;
use crate::shard::settings::{SettingsError, Update};
use crate::shard::state::Shard;

pub(super) fn get<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let mut text = String::new();
    for (name, value) in shard.properties() {
        text.push_str(&name);
        text.push('=');
        text.push_str(&value);
        text.push('\n');
    }
    let version = to_fastjson(&shard.settings_changed.version());
    let version = String::from_utf8_lossy(&version).into_owned().into();
    Ok(Reply::success().with_ext(GetBrokerConfigReply { version }).with_body(text).into())
}

/// Answered when the change is durable; one of the permission when the NameServers know it, too.
pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = properties::parse(request.body).map_err(|error| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("string2Properties error: {error}"))
    })?;
    shard.check_changes_flow()?;
    let fixed = shard.fixed_properties();
    let Update { settings, unknown } = shard.settings.updated(&wanted, |name| fixed.get(name).cloned())?;
    let broker = shard.config.broker_name.as_str();
    for name in unknown {
        tracing::warn!(broker, peer = %request.peer, name, "unknown setting ignored");
    }
    let change = shard.settings_changed.update(&shard.config.settings, &settings, now_ms);
    if change.is_some() {
        tracing::info!(broker, peer = %request.peer, ?settings, "settings changed by request");
    }
    let perm_changes = settings.broker_perm != shard.settings.broker_perm;
    shard.settings = settings;
    shard.enforce_settings();
    let then = match perm_changes {
        true => {
            shard.topics.touch(now_ms);
            Then::Register(request.reply_to())
        }
        false => Then::Succeed(request.reply_to()),
    };
    Ok(shard.answer_change(change, then, now_ms))
}

impl<B: Buffer + 'static> Shard<B> {
    /// The whole configuration, by name.
    fn properties(&self) -> BTreeMap<String, String> {
        let mut properties = self.fixed_properties();
        properties.extend(self.settings.properties().map(|(name, value)| (name.to_owned(), value)));
        properties
    }

    /// What cannot be changed while the broker runs.
    fn fixed_properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::clone(&self.config.properties);
        let (ip, port) = (self.config.address.ip(), self.config.address.port());
        for (name, value) in [
            ("brokerClusterName", self.config.cluster.to_string()),
            ("brokerName", self.config.broker_name.clone()),
            ("brokerId", self.rank().broker_id.to_string()),
            ("brokerRole", self.role_name().into()),
            ("brokerIP1", ip.to_string()),
            ("listenPort", port.to_string()),
            ("maxMessageSize", self.config.message_bytes_max.to_string()),
        ] {
            properties.insert(name.to_owned(), value);
        }
        properties
    }
}

impl From<SettingsError> for Refusal {
    fn from(error: SettingsError) -> Self {
        let code = match error {
            SettingsError::BlackList => ResponseCode::NO_PERMISSION,
            SettingsError::Invalid { .. } | SettingsError::Fixed(_) => ResponseCode::SYSTEM_ERROR,
        };
        Refusal::new(code, error.to_string())
    }
}
