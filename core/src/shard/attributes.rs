//! Attributes of topics and groups: which there are, and requests that change them.
//!
//! A request writes `+name=value` to add or change and `-name` to remove; what is stored has no sign
//! (RocketMQ's `AttributeParser#parseToMap`, `AttributeUtil#alterCurrentAttributes`).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Attributes by name. In a request each name begins with its sign, and the value after `-` means nothing.
pub type Attributes = BTreeMap<String, String>;

/// What is allowed for one attribute.
#[derive(Debug)]
pub struct AttributeRule {
    pub name: &'static str,
    /// Whether it can be changed after its topic or group was made.
    pub is_changeable: bool,
    pub values: AttributeValues,
}

#[derive(Debug)]
pub enum AttributeValues {
    OneOf(&'static [&'static str]),
    Number(RangeInclusive<i64>),
}

/// Longest number: leading zeros are allowed, but not without end.
const NUMBER_BYTES_MAX: usize = 20;

/// `TopicAttributes.ALL`.
pub const TOPIC_ATTRIBUTES: &[AttributeRule] = &[
    AttributeRule {
        name: "queue.type",
        is_changeable: false,
        values: AttributeValues::OneOf(&["SimpleCQ", "BatchCQ"]),
    },
    AttributeRule {
        name: "cleanup.policy",
        is_changeable: false,
        values: AttributeValues::OneOf(&["DELETE", "COMPACTION"]),
    },
    // MIXED is missing: RocketMQ refuses it unless `enableMixedMessageType`, which is off by default.
    AttributeRule {
        name: "message.type",
        is_changeable: true,
        values: AttributeValues::OneOf(&["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION"]),
    },
    AttributeRule {
        name: "reserve.time",
        is_changeable: true,
        values: AttributeValues::Number(-1..=i64::MAX),
    },
];

/// `SubscriptionGroupAttributes.ALL`.
pub const GROUP_ATTRIBUTES: &[AttributeRule] = &[AttributeRule {
    name: "priority.factor",
    is_changeable: true,
    values: AttributeValues::Number(0..=100),
}];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    #[error("attribute {0:?} begins neither with + nor with -")]
    NoSign(String),
    #[error("attribute {0:?} occurs twice")]
    Twice(String),
    #[error("there is no attribute {0:?}")]
    Unknown(String),
    #[error("attribute {0:?} cannot be removed, it is not set")]
    NotSet(String),
    #[error("attribute {0:?} cannot be changed any more")]
    NotChangeable(&'static str),
    /// Answered with INVALID_PARAMETER (29).
    #[error("MIXED message type is not supported.")]
    MixedType,
    #[error("attribute {name:?} cannot be {value:?}")]
    BadValue { name: &'static str, value: String },
}

/// Reads `+name=value,-name` (the field `attributes` of UPDATE_AND_CREATE_TOPIC). Names keep their signs.
pub fn parse_changes(text: &str) -> Result<Attributes, AttributeError> {
    let mut changes = Attributes::new();
    for change in text.split(',').filter(|change| !change.is_empty()) {
        let (signed, value) = change.split_once('=').unwrap_or((change, ""));
        if changes.insert(signed.to_owned(), value.to_owned()).is_some() {
            return Err(AttributeError::Twice(signed.to_owned()));
        }
    }
    Ok(changes)
}

/// The attributes that `current` becomes through `changes`; `None` for `current` means that its topic or group is
/// being made.
pub fn change(
    rules: &'static [AttributeRule],
    current: Option<&Attributes>,
    changes: &Attributes,
) -> Result<Attributes, AttributeError> {
    let mut changed = current.cloned().unwrap_or_default();
    for (signed, value) in changes {
        let (adds, name) = match (signed.strip_prefix('+'), signed.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (None, Some(name)) => (false, name),
            (None, None) => return Err(AttributeError::NoSign(signed.clone())),
        };
        if adds && changes.contains_key(&format!("-{name}")) {
            return Err(AttributeError::Twice(name.to_owned()));
        }
        let rule = rules.iter().find(|rule| rule.name == name);
        let rule = rule.ok_or_else(|| AttributeError::Unknown(name.to_owned()))?;
        if !rule.is_changeable && current.is_some() {
            return Err(AttributeError::NotChangeable(rule.name));
        }
        if adds {
            if name == "message.type" && value == "MIXED" {
                return Err(AttributeError::MixedType);
            }
            rule.check(value)?;
            changed.insert(name.to_owned(), value.clone());
        } else if changed.remove(name).is_none() {
            return Err(AttributeError::NotSet(name.to_owned()));
        }
    }
    Ok(changed)
}

impl AttributeRule {
    fn check(&self, value: &str) -> Result<(), AttributeError> {
        let is_allowed = match &self.values {
            AttributeValues::OneOf(values) => values.contains(&value),
            AttributeValues::Number(range) => {
                value.len() <= NUMBER_BYTES_MAX && value.parse().is_ok_and(|number| range.contains(&number))
            }
        };
        match is_allowed {
            true => Ok(()),
            false => Err(AttributeError::BadValue { name: self.name, value: value.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(text: &str) -> Attributes {
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn changed(current: &str, changes: &str) -> Result<Attributes, AttributeError> {
        change(TOPIC_ATTRIBUTES, Some(&attributes(current)), &parse_changes(changes)?)
    }

    fn created(changes: &str) -> Result<Attributes, AttributeError> {
        change(TOPIC_ATTRIBUTES, None, &parse_changes(changes)?)
    }

    #[test]
    fn changes_are_made() {
        let cases = [
            ("", "", ""),
            ("", "+message.type=FIFO", "message.type=FIFO"),
            ("message.type=FIFO", "+message.type=NORMAL", "message.type=NORMAL"),
            ("message.type=FIFO,reserve.time=5", "-message.type", "reserve.time=5"),
            ("message.type=FIFO", "-message.type,+reserve.time=-1", "reserve.time=-1"),
        ];
        for (current, changes, expected) in cases {
            assert_eq!(changed(current, changes), Ok(attributes(expected)), "{current:?} {changes:?}");
        }
        assert_eq!(created("+queue.type=SimpleCQ"), Ok(attributes("queue.type=SimpleCQ")));
    }

    #[test]
    fn wrong_changes_are_refused_by_name() {
        use AttributeError::*;
        let cases = [
            ("message.type=FIFO", NoSign("message.type".into())),
            ("+message.type=FIFO,+message.type=FIFO", Twice("+message.type".into())),
            ("+message.type=FIFO,-message.type", Twice("message.type".into())),
            ("+colour=red", Unknown("colour".into())),
            ("-message.type", NotSet("message.type".into())),
            ("+queue.type=SimpleCQ", NotChangeable("queue.type")),
            ("+message.type=fifo", BadValue { name: "message.type", value: "fifo".into() }),
            ("+message.type", BadValue { name: "message.type", value: "".into() }),
            ("+reserve.time=-2", BadValue { name: "reserve.time", value: "-2".into() }),
            (
                "+reserve.time=000000000000000000001",
                BadValue { name: "reserve.time", value: "000000000000000000001".into() },
            ),
            ("+reserve.time=soon", BadValue { name: "reserve.time", value: "soon".into() }),
        ];
        for (changes, error) in cases {
            assert_eq!(changed("", changes), Err(error), "{changes:?}");
        }
    }

    #[test]
    fn nothing_can_be_removed_while_creating() {
        assert_eq!(created("-message.type"), Err(AttributeError::NotSet("message.type".into())));
    }
}
