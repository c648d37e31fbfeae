/// Declares the configuration once: fields, defaults, and RocketMQ's names (`NamesrvConfig`) for requests 318 and 319.
macro_rules! properties {
    (
        $(#[$attribute:meta])*
        pub struct $config:ident {
            $( $(#[$field_attribute:meta])* $name:literal => $field:ident: $type:ty = $default:expr, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $config {
            $( $(#[$field_attribute])* pub $field: $type, )*
        }

        impl Default for $config {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $config {
            /// All properties, one `name=value` per line.
            pub fn to_properties(&self) -> String {
                let mut text = String::new();
                $( text.push_str(&format!("{}={}\n", $name, self.$field)); )*
                text
            }

            fn set(&mut self, name: &str, value: &str) -> Result<(), UpdateConfigError> {
                match name {
                    $( $name => self.$field = value.parse().map_err(|_| UpdateConfigError::Invalid {
                        name: name.to_owned(),
                        value: value.to_owned(),
                        expected: stringify!($type),
                    })?, )*
                    _ => return Err(UpdateConfigError::UnknownKey { name: name.to_owned() }),
                }
                Ok(())
            }
        }
    };
}

properties! {
    /// How a NameServer behaves. Can be changed while it runs (UPDATE_NAMESRV_CONFIG); such changes last until it
    /// stops.
    pub struct NameServerConfig {
        /// Routes carry the order configuration of their topic, kept in the KV namespace `ORDER_TOPIC_CONFIG`.
        "orderMessageEnable" => order_message_enable: bool = false,
        /// Replies to registrations carry all of that namespace; Java brokers set the `order` flag of their topics by
        /// it.
        "returnOrderTopicConfigToBroker" => return_order_topic_config_to_broker: bool = true,
        /// The lists of some topics (224, 311 to 313) are answered.
        "enableTopicList" => enable_topic_list: bool = true,
        /// The list of all topics (206) is answered.
        "enableAllTopicList" => enable_all_topic_list: bool = true,
        /// In routes, the smallest id of a broker without a master stands in for it.
        "supportActingMaster" => support_acting_master: bool = false,
        /// Routes are refused until `wait_seconds_for_service` after the start, so that clients do not see the
        /// brokers one by one.
        "needWaitForService" => need_wait_for_service: bool = false,
        "waitSecondsForService" => wait_seconds_for_service: u32 = 45,
    }
}

/// Properties that may not be changed by a request (`NamesrvConfig.configBlackList`).
const BLACK_LIST: [&str; 3] = ["configBlackList", "configStorePath", "kvConfigPath"];

/// Why UPDATE_NAMESRV_CONFIG changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateConfigError {
    #[error("the properties are not UTF-8")]
    NotUtf8,
    #[error("Can not update config in black list.")]
    BlackList { name: String },
    #[error("expected name=value, found {line:?}")]
    NoValue { line: String },
    #[error("there is no property {name:?} that can be changed")]
    UnknownKey { name: String },
    #[error("{name} = {value:?}: expected {expected}")]
    Invalid { name: String, value: String, expected: &'static str },
}

impl NameServerConfig {
    /// Changes what a text of Java properties names: all of it or, if anything is wrong, nothing.
    pub fn update(&mut self, properties: &[u8]) -> Result<(), UpdateConfigError> {
        let text = std::str::from_utf8(properties).map_err(|_| UpdateConfigError::NotUtf8)?;
        let mut updated = self.clone();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (name, value) = line
                .split_once(['=', ':'])
                .ok_or_else(|| UpdateConfigError::NoValue { line: line.chars().take(100).collect() })?;
            let (name, value) = (name.trim(), value.trim());
            if BLACK_LIST.contains(&name) {
                return Err(UpdateConfigError::BlackList { name: name.to_owned() });
            }
            updated.set(name, value)?;
        }
        *self = updated;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_properties_are_read_back() {
        let config = NameServerConfig {
            order_message_enable: true,
            wait_seconds_for_service: 7,
            ..NameServerConfig::default()
        };
        let mut other = NameServerConfig::default();
        other.update(config.to_properties().as_bytes()).unwrap();
        assert_eq!(other, config);
    }

    #[test]
    fn comments_and_blanks_are_passed_over() {
        let mut config = NameServerConfig::default();
        config
            .update(b"# one\n\n ! two\r\n  supportActingMaster : true \r\nenableTopicList = false")
            .unwrap();
        assert!(config.support_acting_master && !config.enable_topic_list);
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_changed() {
        for (line, expected) in [
            ("noSuchKey=1", UpdateConfigError::UnknownKey { name: "noSuchKey".into() }),
            ("kvConfigPath=/x", UpdateConfigError::BlackList { name: "kvConfigPath".into() }),
            ("orderMessageEnable", UpdateConfigError::NoValue { line: "orderMessageEnable".into() }),
            (
                "waitSecondsForService=-1",
                UpdateConfigError::Invalid {
                    name: "waitSecondsForService".into(),
                    value: "-1".into(),
                    expected: "u32",
                },
            ),
        ] {
            let mut config = NameServerConfig::default();
            assert_eq!(config.update(format!("enableTopicList=false\n{line}").as_bytes()), Err(expected));
            assert_eq!(config, NameServerConfig::default());
        }
        assert_eq!(NameServerConfig::default().update(b"\xff"), Err(UpdateConfigError::NotUtf8));
    }
}
