use std::collections::BTreeMap;

use apogee_net::body::DataVersion;

use crate::shard::control::ControlError;
use crate::shard::control::codec::{Fields, put_signed, put_text, put_unsigned};

/// Settings were changed by request. Fields: counter, state version and time of the version, a count, then name and
/// value of each setting that differs from the file, in ascending order of the names.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingsRecord {
    pub version: DataVersion,
    /// All that differs from the configuration file, not only what this change did.
    pub changed: BTreeMap<String, String>,
}

impl SettingsRecord {
    pub(in crate::shard) fn encode(&self, out: &mut Vec<u8>) {
        let DataVersion { counter, state_version, timestamp } = self.version;
        put_signed(out, counter);
        put_signed(out, state_version);
        put_signed(out, timestamp);
        put_unsigned(out, self.changed.len() as u64);
        for (name, value) in &self.changed {
            put_text(out, name);
            put_text(out, value);
        }
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        let version = DataVersion {
            counter: fields.signed("version counter")?,
            state_version: fields.signed("state version")?,
            timestamp: fields.signed("version timestamp")?,
        };
        let mut changed = BTreeMap::new();
        for _ in 0..fields.unsigned("setting count")? {
            let name = fields.text("setting name")?;
            if changed.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
                return Err(fields.bad("setting name", "names not in ascending order"));
            }
            changed.insert(name.to_owned(), fields.text("setting value")?.to_owned());
        }
        Ok(SettingsRecord { version, changed })
    }
}
