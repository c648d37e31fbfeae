//! What a consumer wants of a topic, compiled once for every pull.
//!
//! Tags are decided by the hash that the log keeps beside each message. That may let a message pass that was not asked
//! for, never the reverse: clients compare the tags themselves again. SQL92 expressions are decided by the properties
//! of the message itself, and nobody asks again.

pub mod pick;
pub mod sql;

use std::rc::Rc;

use apogee_net::body::SubscriptionData;
use apogee_net::message::{Properties, TAGS_MAX, TagExpression, TagExpressionError};

use self::sql::{SqlError, SqlExpression};

/// `ExpressionType.TAG`; what requests without a type mean.
const TAG: &str = "TAG";
const SQL92: &str = "SQL92";

/// Which messages of a topic are wanted. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Tags(TagExpression),
    Sql(Rc<SqlExpression>),
}

impl Filter {
    pub const ALL: Filter = Filter::Tags(TagExpression::All);

    /// Whether a message with this tag hash may be wanted; its properties may have to decide.
    pub fn may_match_hash(&self, tag_hash: i32) -> bool {
        match self {
            Filter::Tags(tags) => tags.matches_hash(tag_hash),
            Filter::Sql(_) => true,
        }
    }

    /// Whether a message is wanted whose tag hash may match.
    pub fn matches_properties(&self, properties: Properties<'_>) -> bool {
        match self {
            Filter::Tags(_) => true,
            Filter::Sql(sql) => sql.matches(properties),
        }
    }

    /// The expression, if the tag's hash does not decide.
    pub fn sql(&self) -> Option<&Rc<SqlExpression>> {
        match self {
            Filter::Tags(_) => None,
            Filter::Sql(sql) => Some(sql),
        }
    }

    /// Refuses what the broker's settings do not allow.
    pub fn check_allowed(&self, enable_property_filter: bool) -> Result<(), FilterError> {
        match self {
            Filter::Sql(_) if !enable_property_filter => Err(FilterError::Disabled),
            Filter::Tags(_) | Filter::Sql(_) => Ok(()),
        }
    }
}

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Answered with SUBSCRIPTION_PARSE_FAILED (23), like the next two.
    #[error(transparent)]
    Tags(#[from] TagExpressionError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("filters of type {expression_type} are not known")]
    UnknownType { expression_type: String },
    /// Answered with SYSTEM_ERROR (1), as by a broker without `enablePropertyFilter`.
    #[error("The broker does not support consumer to filter message by {SQL92}")]
    Disabled,
    /// The one that a heartbeat brought. Answered with FILTER_DATA_NOT_EXIST (27).
    #[error("The broker's consumer filter data is not exist!Your expression may be wrong! {reason}")]
    OfSubscription { reason: Box<FilterError> },
}

/// The filter that a pull or a check brings along.
pub fn parse_expression(
    expression: Option<&str>,
    expression_type: Option<&str>,
) -> Result<Filter, FilterError> {
    let expression = expression.unwrap_or_default();
    match expression_type {
        None | Some("" | TAG) => Ok(Filter::Tags(TagExpression::parse(expression)?)),
        Some(SQL92) => Ok(Filter::Sql(Rc::new(SqlExpression::parse(expression)?))),
        Some(other) => Err(FilterError::UnknownType { expression_type: other.to_owned() }),
    }
}

/// One topic in the subscription of a consumer group, as a heartbeat declared it.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscription {
    data: SubscriptionData,
    filter: Result<Filter, FilterError>,
}

impl Subscription {
    pub fn new(data: SubscriptionData) -> Self {
        let filter = if data.class_filter_mode {
            Ok(Filter::ALL)
        } else if data.is_tag_expression() {
            Ok(Filter::Tags(tags_of(&data)))
        } else {
            parse_expression(Some(&data.sub_string), Some(&data.expression_type))
        };
        Self { filter, data }
    }

    /// As it came; what tools are shown.
    pub fn data(&self) -> &SubscriptionData {
        &self.data
    }

    pub fn filter(&self) -> Result<&Filter, FilterError> {
        self.filter.as_ref().map_err(|error| FilterError::OfSubscription { reason: Box::new(error.clone()) })
    }

    /// Whether both let the same messages pass, whatever their versions.
    pub fn wants_the_same_as(&self, other: &Subscription) -> bool {
        self.filter == other.filter
    }
}

/// The codes are those that reading the heartbeat computed, not those in it: Go and C++ compute them otherwise than
/// brokers do. A heartbeat cannot be refused for its filter, so what makes no sense lets everything pass.
fn tags_of(data: &SubscriptionData) -> TagExpression {
    let wants_all = matches!(data.sub_string.as_str(), "" | "*");
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
        subscription.filter().unwrap().may_match_hash(hash)
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
            assert_eq!(from_heartbeat(json).filter(), Ok(&Filter::ALL), "{json}");
        }
        let tags: Vec<String> = (0..=TAGS_MAX).map(|tag| tag.to_string()).collect();
        let data = SubscriptionData::of_tags("T", &tags.join("||"), 1);
        assert_eq!(Subscription::new(data).filter(), Ok(&Filter::ALL));
    }

    #[test]
    fn an_expression_is_compiled_with_its_subscription() {
        let subscription = from_heartbeat(r#"{"expressionType":"SQL92","subString":"a > 1","topic":"T"}"#);
        let filter = subscription.filter().unwrap();
        assert!(filter.may_match_hash(0) && filter.may_match_hash(TAG_A));
        assert!(filter.matches_properties(Properties(b"a\x012\x02")));
        assert!(!filter.matches_properties(Properties(b"a\x011\x02")));
        assert_eq!(filter.check_allowed(true), Ok(()));
        let error = filter.check_allowed(false).unwrap_err();
        assert_eq!(error.to_string(), "The broker does not support consumer to filter message by SQL92");
        assert_eq!(Filter::ALL.check_allowed(false), Ok(()));
    }

    #[test]
    fn what_does_not_compile_is_kept_and_refused_at_the_pull() {
        for (expression_type, sub_string) in [("SQL92", "a >"), ("SQL92", ""), ("GROOVY", "a > 1")] {
            let json = format!(r#"{{"expressionType":"{expression_type}","subString":"{sub_string}"}}"#);
            let subscription = from_heartbeat(&json);
            let error = subscription.filter().unwrap_err();
            assert!(matches!(error, FilterError::OfSubscription { .. }), "{json}: {error}");
            assert!(error.to_string().contains("Your expression may be wrong!"), "{error}");
            assert_eq!(subscription.data().sub_string, sub_string);
        }
    }

    #[test]
    fn expression_of_a_pull_is_parsed_or_refused() {
        assert_eq!(parse_expression(None, None), Ok(Filter::ALL));
        assert_eq!(parse_expression(Some("*"), Some("TAG")), Ok(Filter::ALL));
        let tag_a = parse_expression(Some("TagA"), Some("")).unwrap();
        assert!(tag_a.may_match_hash(TAG_A) && !tag_a.may_match_hash(TAG_B));
        assert_eq!(parse_expression(Some(" || "), None), Err(FilterError::Tags(TagExpressionError::NoTag)));
        assert!(parse_expression(Some("a > 1"), Some("SQL92")).unwrap().sql().is_some());
        assert!(matches!(parse_expression(Some("a >"), Some("SQL92")), Err(FilterError::Sql(_))));
        assert!(matches!(parse_expression(None, Some("SQL92")), Err(FilterError::Sql(_))));
        assert_eq!(
            parse_expression(Some("a > 1"), Some("SQL 92")),
            Err(FilterError::UnknownType { expression_type: "SQL 92".into() })
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
