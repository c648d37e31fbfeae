use smallvec::SmallVec;

/// Most tags of one subscription expression.
pub const TAGS_MAX: usize = 1024;

/// Java's `String#hashCode` over UTF-16 units, which brokers keep in the index and compare
/// (`MessageExtBrokerInner#tagsString2tagsCode`). Zero for no tag.
pub fn tag_hash(tag: &str) -> i32 {
    tag.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(unit.into()))
}

/// Which messages of a topic a consumer wants, by tag (`FilterAPI#buildSubscriptionData`).
///
/// Decides on hashes alone: it may let a message pass that is not wanted, never the reverse. Clients compare the tags
/// themselves again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagExpression {
    /// `*`, or nothing.
    All,
    /// `A || B`: hashes of the tags, sorted.
    AnyOf(SmallVec<[i32; 8]>),
}

/// Answered with SUBSCRIPTION_PARSE_FAILED (23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagExpressionError {
    #[error("subscription expression has no tag")]
    NoTag,
    #[error("subscription expression has more than {max} tags")]
    TooManyTags { max: usize },
}

impl TagExpression {
    /// Splits at `||`, trims, drops empty pieces.
    pub fn parse(expression: &str) -> Result<Self, TagExpressionError> {
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let mut hashes = SmallVec::new();
        for tag in expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()) {
            if hashes.len() == TAGS_MAX {
                return Err(TagExpressionError::TooManyTags { max: TAGS_MAX });
            }
            hashes.push(tag_hash(tag));
        }
        if hashes.is_empty() {
            return Err(TagExpressionError::NoTag);
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self::AnyOf(hashes))
    }

    /// Whether a message may match whose tag has this hash; see [`tag_hash`].
    pub fn matches_hash(&self, hash: i32) -> bool {
        match self {
            Self::All => true,
            Self::AnyOf(hashes) => hashes.binary_search(&hash).is_ok(),
        }
    }
}
