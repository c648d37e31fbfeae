//! What a consumer wants of a topic, compiled once for every pull.
//!
//! Decides by the hash of a message's tag, which the log keeps beside each message. It may let a message pass that
//! was not asked for, never the reverse: clients compare the tags themselves again.

use apogee_net::body::SubscriptionData;
use apogee_net::message::{TAGS_MAX, TagExpression, TagExpressionError};

/// `ExpressionType.TAG`; what requests without a type mean.
const TAG: &str = "TAG";

/// Why a pull's own expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Answered with SUBSCRIPTION_PARSE_FAILED (23).
    #[error(transparent)]
    Tags(#[from] TagExpressionError),
    /// Answered with SYSTEM_ERROR (1), as by a broker without `enablePropertyFilter`.
    #[error("The broker does not support consumer to filter message by {expression_type}")]
    NotTags { expression_type: String },
}

/// The filter that a pull or a check brings along.
pub fn parse_expression(
    expression: Option<&str>,
    expression_type: Option<&str>,
) -> Result<TagExpression, FilterError> {
    match expression_type {
        None | Some("" | TAG) => Ok(TagExpression::parse(expression.unwrap_or_default())?),
        Some(other) => Err(FilterError::NotTags { expression_type: other.to_owned() }),
    }
}

/// One topic in the subscription of a consumer group, as a heartbeat declared it.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscription {
    data: SubscriptionData,
    /// `None` if the expression is no list of tags.
    tags: Option<TagExpression>,
}

impl Subscription {
    pub fn new(data: SubscriptionData) -> Self {
        Self { tags: data.is_tag_expression().then(|| tags_of(&data)), data }
    }

    /// As it came; what tools are shown.
    pub fn data(&self) -> &SubscriptionData {
        &self.data
    }

    pub fn filter(&self) -> Result<&TagExpression, FilterError> {
        let not_tags = || FilterError::NotTags { expression_type: self.data.expression_type.clone() };
        self.tags.as_ref().ok_or_else(not_tags)
    }

    /// Whether both let the same messages pass, whatever their versions.
    pub fn wants_the_same_as(&self, other: &Subscription) -> bool {
        match (&self.tags, &other.tags) {
            (Some(tags), Some(others)) => tags == others,
            (None, None) => {
                self.data.expression_type == other.data.expression_type
                    && self.data.sub_string == other.data.sub_string
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// The codes are those that reading the heartbeat computed, not those in it: Go and C++ compute them otherwise than
/// brokers do. A heartbeat cannot be refused for its filter, so what makes no sense lets everything pass.
fn tags_of(data: &SubscriptionData) -> TagExpression {
    let wants_all = data.class_filter_mode || matches!(data.sub_string.as_str(), "" | "*");
    if wants_all || data.code_set.is_empty() || data.code_set.len() > TAGS_MAX {
        return TagExpression::All;
    }
    let mut hashes = data.code_set.clone();
    hashes.sort_unstable();
    hashes.dedup();
    TagExpression::AnyOf(hashes.into())
}

#[cfg(test)]
mod tests {
    use apogee_net::body;

    use super::*;

    const TAG_A: i32 = 2_598_919;
    const TAG_B: i32 = 2_598_920;

    fn from_heartbeat(json: &str) -> Subscription {
        Subscription::new(body::parse(json.as_bytes()).unwrap())
    }

    fn wants(subscription: &Subscription, hash: i32) -> bool {
        subscription.filter().unwrap().matches_hash(hash)
    }

    #[test]
    fn all_clients_tags_mean_the_same() {
        let java = r#"{"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1,"tagsSet":["TagA","TagB"],"topic":"T"}"#;
        let go = r#"{"codeSet":["2598919","2598920"],"subString":"TagA || TagB","subVersion":1,"tagsSet":["TagA","TagB"],"topic":"T"}"#;
        let cpp = r#"{"codeSet":[0,0],"subString":"TagA || TagB","subVersion":"1","tagsSet":["TagB","TagA"],"topic":"T"}"#;
        let expression_only = r#"{"subString":" TagB||TagA|| ","topic":"T"}"#;
        for json in [java, go, cpp, expression_only] {
            let subscription = from_heartbeat(json);
            assert!(wants(&subscription, TAG_A) && wants(&subscription, TAG_B), "{json}");
            assert!(!wants(&subscription, 0) && !wants(&subscription, TAG_A + 2), "{json}");
        }
    }

    #[test]
    fn everything_passes_what_names_no_tag() {
        let cases = [
            r#"{"subString":"*","topic":"T"}"#,
            r#"{"subString":"","topic":"T"}"#,
            r#"{"topic":"T"}"#,
            r#"{"subString":" || ","topic":"T"}"#,
            r#"{"classFilterMode":true,"subString":"a.b.Filter","topic":"T"}"#,
        ];
        for json in cases {
            assert_eq!(from_heartbeat(json).filter(), Ok(&TagExpression::All), "{json}");
        }
        let tags: Vec<String> = (0..=TAGS_MAX).map(|tag| tag.to_string()).collect();
        let data = SubscriptionData::of_tags("T", &tags.join("||"), 1);
        assert_eq!(Subscription::new(data).filter(), Ok(&TagExpression::All));
    }

    #[test]
    fn other_languages_than_tags_are_kept_and_refused_at_the_pull() {
        let subscription = from_heartbeat(r#"{"expressionType":"SQL92","subString":"a > 1","topic":"T"}"#);
        let error = subscription.filter().unwrap_err();
        assert_eq!(error, FilterError::NotTags { expression_type: "SQL92".into() });
        assert_eq!(error.to_string(), "The broker does not support consumer to filter message by SQL92");
        assert_eq!(subscription.data().sub_string, "a > 1");
    }

    #[test]
    fn expression_of_a_pull_is_parsed_or_refused() {
        assert_eq!(parse_expression(None, None), Ok(TagExpression::All));
        assert_eq!(parse_expression(Some("*"), Some("TAG")), Ok(TagExpression::All));
        let tag_a = parse_expression(Some("TagA"), Some("")).unwrap();
        assert!(tag_a.matches_hash(TAG_A) && !tag_a.matches_hash(TAG_B));
        assert_eq!(parse_expression(Some(" || "), None), Err(FilterError::Tags(TagExpressionError::NoTag)));
        assert_eq!(
            parse_expression(Some("a > 1"), Some("SQL92")),
            Err(FilterError::NotTags { expression_type: "SQL92".into() })
        );
    }

    #[test]
    fn versions_do_not_change_what_is_wanted() {
        let subscription = |sub, version| Subscription::new(SubscriptionData::of_tags("T", sub, version));
        assert!(subscription("A || B", 1).wants_the_same_as(&subscription("B||A", 2)));
        assert!(!subscription("A || B", 1).wants_the_same_as(&subscription("A", 1)));
        let sql = |sub: &str| from_heartbeat(&format!(r#"{{"expressionType":"SQL92","subString":"{sub}"}}"#));
        assert!(sql("a > 1").wants_the_same_as(&sql("a > 1")));
        assert!(!sql("a > 1").wants_the_same_as(&sql("a > 2")));
        assert!(!sql("A").wants_the_same_as(&subscription("A", 1)));
    }
}
