//! Names of topics and groups (`TopicValidator#validateTopic`, `Validators#checkGroup`).

/// Longest topic name that users may choose.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Longest name of a topic that is derived from a group: retry and dead letters.
pub const RETRY_TOPIC_BYTES_MAX: usize = 255;
/// Longest consumer or producer group.
pub const GROUP_BYTES_MAX: usize = 120;

/// Topic of messages to be consumed again: this, then the group.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Topic of messages given up: this, then the group.
pub const DLQ_PREFIX: &str = "%DLQ%";

/// Why a name is refused. Answered with INVALID_PARAMETER (29).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the specified {what} is blank")]
    Blank { what: &'static str },
    #[error("the specified {what} is {found} bytes long, allowed are {max}")]
    TooLong { what: &'static str, found: usize, max: usize },
    #[error("the specified {what} contains {found:?}, allowing only ^[%|a-zA-Z0-9_-]+$")]
    IllegalCharacter { what: &'static str, found: char },
}

/// Whether a topic may have this name. Reserved names are the broker's business.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let is_derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    check("topic", topic, if is_derived { RETRY_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX })
}

/// Whether a producer or consumer group may have this name.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, GROUP_BYTES_MAX)
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { what });
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, found: name.len(), max });
    }
    match name.chars().find(|char| !is_allowed(*char)) {
        Some(found) => Err(NameError::IllegalCharacter { what, found }),
        None => Ok(()),
    }
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '%' | '|' | '_' | '-')
}
