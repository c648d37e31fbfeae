use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures;

/// What is sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Messages {
    /// Bytes of a body.
    pub size: Sizes,
    pub kind: Kind,
}

/// What the broker is asked to do with a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Store it and deliver it.
    #[default]
    Normal,
}

/// Sizes of bodies: one number in a file, or a table that says how they are distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sizes {
    Fixed(usize),
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes::Fixed(1024)
    }
}

impl Sizes {
    pub fn smallest(&self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
        }
    }

    pub fn largest(&self) -> usize {
        match self {
            Sizes::Fixed(size) => *size,
        }
    }

    /// Bytes of a body on average.
    pub fn mean(&self) -> f64 {
        match self {
            Sizes::Fixed(size) => *size as f64,
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(size) => write!(f, "{} B each", figures::count(*size as u64)),
        }
    }
}
