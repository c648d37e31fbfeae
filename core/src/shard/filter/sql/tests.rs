use apogee_net::message::append_property;
use proptest::prelude::*;

use super::*;

/// Whether `expression` takes a message with these properties.
#[track_caller]
fn takes(expression: &str, properties: &[(&str, &str)]) -> bool {
    let expression = SqlExpression::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    matches(&expression, properties)
}

fn matches(expression: &SqlExpression, properties: &[(&str, &str)]) -> bool {
    let mut bytes = Vec::new();
    for (name, value) in properties {
        append_property(&mut bytes, name, value);
    }
    expression.matches(apogee_net::message::Properties(&bytes))
}

#[track_caller]
fn refused(expression: &str, reason: &str) {
    match SqlExpression::parse(expression) {
        Ok(_) => panic!("{expression} is no expression"),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("Invalid MessageSelector. "), "{error}");
            assert!(error.contains(reason), "{expression}: {error}");
        }
    }
}

#[test]
fn numbers_are_compared() {
    for (expression, of_3, of_5) in [
        ("a > 3", false, true),
        ("a >= 3", true, true),
        ("a < 5", true, false),
        ("a <= 5", true, true),
        ("a = 5", false, true),
        ("a <> 5", true, false),
        ("5 = a", false, true),
        ("4 < a", false, true),
        ("a > -1", true, true),
        ("a > +4", false, true),
        ("a > 3.5", false, true),
        ("a = 5.0", false, true),
        ("a > 3e0", false, true),
        ("a > .5e1", false, false),
        ("a < 9999999999", true, true),
        ("a = 5L", false, true),
        ("a BETWEEN 4 AND 6", false, true),
        ("a NOT BETWEEN 4 AND 6", true, false),
        ("a BETWEEN 3 AND 3", true, false),
        ("a NOT BETWEEN 6 AND 4", true, true),
        ("- -5 = a", false, true),
    ] {
        assert_eq!(takes(expression, &[("a", "3")]), of_3, "{expression} of 3");
        assert_eq!(takes(expression, &[("a", "5")]), of_5, "{expression} of 5");
        assert!(!takes(expression, &[("b", "5")]), "{expression} of nothing");
    }
}

/// `Integer#valueOf` throws, and with it the whole evaluation.
#[test]
fn text_that_is_no_number_of_the_constants_type_matches_nothing() {
    for text in ["3.5", "x", " 4", "99999999999"] {
        assert!(!takes("a > 3", &[("a", text)]), "{text}");
        assert!(!takes("NOT (a > 3)", &[("a", text)]), "{text}");
        assert!(!takes("a <> 3", &[("a", text)]), "{text}");
        assert!(!takes("a > 3 OR b = 'x'", &[("a", text), ("b", "x")]), "{text}");
        assert!(takes("b = 'x' OR a > 3", &[("a", text), ("b", "x")]), "decided before {text}");
    }
    assert!(takes("a > 3.0", &[("a", "3.5")]));
    assert!(takes("a > 9999999998", &[("a", "9999999999")]));
}

#[test]
fn properties_are_ordered_as_doubles_and_equal_as_texts() {
    assert!(takes("a > b", &[("a", "10"), ("b", "9.5")]));
    assert!(!takes("a > b", &[("a", "10"), ("b", "x")]));
    assert!(!takes("a = b", &[("a", "10"), ("b", "10.0")]));
    assert!(takes("a = b", &[("a", "x"), ("b", "x")]));
    assert!(takes("a = b", &[]), "null equals null");
    assert!(!takes("a = b", &[("a", "x")]));
    assert!(takes("a <> b", &[("a", "x")]), "what is there is not equal to what is not");
    assert!(!takes("a <> b", &[("b", "x")]), "but the other way it is unknown");
}

#[test]
fn texts_are_compared() {
    assert!(takes("a = 'it''s'", &[("a", "it's")]));
    assert!(takes("a <> 'x'", &[("a", "y")]));
    assert!(!takes("a <> 'x'", &[]), "unknown");
    assert!(takes("a IN ('x', 'y')", &[("a", "y")]));
    assert!(!takes("a IN ('x', 'y')", &[("a", "z")]));
    assert!(takes("a NOT IN ('x', 'y')", &[("a", "z")]));
    assert!(!takes("a NOT IN ('x', 'y')", &[]));
    assert!(takes("(a) IN ('é')", &[("a", "é")]));
    assert!(takes("'5' = 5", &[]));
    refused("a > 'x'", "cannot be compared");
    refused("'x' < a", "cannot be compared");
}

#[test]
fn texts_are_searched() {
    for (expression, expected) in [
        ("a LIKE '%bc%'", true),
        ("a like 'a_c_'", true),
        ("a LIKE 'bc%'", false),
        ("a NOT LIKE 'bc%'", true),
        ("a LIKE 'a!bcd' ESCAPE '!'", true),
        ("missing LIKE '%'", false),
        ("missing NOT LIKE 'x'", false),
        ("NOT (missing LIKE 'x')", false),
        ("5 LIKE '5'", false),
        ("LIKE IS NULL AND ESCAPE IS NULL", true),
        ("a CONTAINS 'bc'", true),
        ("a CONTAINS 'x'", false),
        ("a NOT CONTAINS 'x'", true),
        ("a NOT CONTAINS 'bc'", false),
        ("a STARTSWITH 'ab'", true),
        ("a STARTSWITH 'b'", false),
        ("a NOT STARTSWITH 'b'", true),
        ("a ENDSWITH 'cd'", true),
        ("a ENDSWITH 'c'", false),
        ("a not endswith 'c'", true),
        ("'abcd' CONTAINS 'b'", true),
        ("5 CONTAINS '5'", false),
        ("a CONTAINS ''", false),
        ("a NOT CONTAINS ''", false),
        ("missing CONTAINS 'x'", false),
        ("missing NOT CONTAINS 'x'", false),
        ("NOT (missing CONTAINS 'x')", true),
    ] {
        assert_eq!(takes(expression, &[("a", "abcd")]), expected, "{expression}");
    }
}

#[test]
fn unknown_is_neither_true_nor_false() {
    for (expression, expected) in [
        ("a IS NULL", true),
        ("a IS NOT NULL", false),
        ("b IS NULL", false),
        ("b IS NOT NULL", true),
        ("a > 1 OR b = '1'", true),
        ("b = '1' OR a > 1", true),
        ("a > 1 OR b = '2'", false),
        ("NOT (a > 1 OR b = '2')", false),
        ("NOT (a > 1 AND b = '2')", true),
        ("NOT (a > 1 AND b = '1')", false),
        ("(a > 1 AND b = '1') IS NULL", true),
        ("NULL", false),
        ("NOT NULL", false),
        ("NULL OR TRUE", true),
        ("TRUE", true),
        ("FALSE", false),
        ("NOT FALSE", true),
    ] {
        assert_eq!(takes(expression, &[("b", "1")]), expected, "{expression}");
    }
}

#[test]
fn a_text_is_no_truth_but_equals_one() {
    assert!(!takes("a", &[("a", "true")]));
    assert!(takes("NOT a", &[("a", "true")]));
    assert!(!takes("NOT a", &[]));
    assert!(takes("a = TRUE", &[("a", "True")]));
    assert!(takes("a = FALSE", &[("a", "whatever")]));
    assert!(!takes("TRUE = a", &[("a", "true")]), "Java casts the wrong one");
    assert!(takes("(a > 1) = TRUE", &[("a", "2")]));
    assert!(takes("(a > 1) = (b > 1)", &[("a", "2"), ("b", "2")]));
    assert!(!takes("1 = TRUE", &[]));
    refused("TRUE = 1", "TRUE and FALSE cannot be compared");
}

/// `unaryExpr` takes NOT before any comparison is made.
#[test]
fn not_binds_tighter_than_comparisons_and_and_tighter_than_or() {
    assert!(!takes("NOT a = 1", &[("a", "2")]));
    assert!(takes("NOT (a = 1)", &[("a", "2")]));
    assert!(takes("TRUE OR TRUE AND FALSE", &[]));
    assert!(!takes("(TRUE OR TRUE) AND FALSE", &[]));
    assert!(takes("a BETWEEN 1 AND 3 AND b = '1'", &[("a", "2"), ("b", "1")]));
}

#[test]
fn blanks_comments_and_case_do_not_matter() {
    assert!(takes("\ta\n>\r3 -- or so\n and/* not */b Is Not NULL", &[("a", "4"), ("b", "x")]));
    assert!(takes("$a_1>3and _b='x'", &[("$a_1", "4"), ("_b", "x")]));
    assert!(!takes("A > 3", &[("a", "4")]), "names have a case");
    assert!(takes("a > --3\n -5", &[("a", "4")]));
    assert!(takes("a > --3", &[("a", "4")]), "a comment ends with its line");
}

#[test]
fn the_last_of_several_values_counts() {
    assert!(takes("a = 'y'", &[("a", "x"), ("b", "1"), ("a", "y")]));
    assert!(!takes("a = 'x'", &[("a", "x"), ("a", "y")]));
}

#[test]
fn what_is_no_expression_is_refused_with_a_reason() {
    for (expression, reason) in [
        ("", "ends too early"),
        ("a >", "ends too early"),
        ("(a > 1", "ends too early"),
        ("a > 1)", "\")\" was not expected"),
        ("a LIKE b", "\"b\" was not expected"),
        ("a LIKE 'x' ESCAPE 'yz'", "ESCAPE wants one character"),
        ("a UNLIKE 'x%'", "\"UNLIKE\" was not expected"),
        ("a > 1 b", "\"b\" was not expected"),
        ("a != 1", "'!' has no meaning at character 3"),
        ("a > 1; DROP", "';' has no meaning"),
        ("a == 1", "\"=\" was not expected"),
        ("a + 1 > 2", "\"+\" was not expected"),
        ("a = 'x", "a text without its closing quote begins at character 5"),
        ("a = \"x\"", "has no meaning"),
        ("a = NULL", "NULL cannot be compared"),
        ("a IS 1", "was not expected"),
        ("a IN ()", "was not expected"),
        ("a IN (1)", "was not expected"),
        ("1 IN ('x')", "IN is asked of a property only"),
        ("a NOT 1", "was not expected"),
        ("a BETWEEN 3 AND 1", "must be less than or equal"),
        ("a BETWEEN NULL AND 1", "cannot be compared"),
        ("a BETWEEN 'x' AND 'y'", "cannot be compared"),
        ("a > 1 > 2", "cannot be compared"),
        ("5", "where something true or false is wanted"),
        ("'x'", "where something true or false is wanted"),
        ("-a", "where something true or false is wanted"),
        ("a AND 5", "where something true or false is wanted"),
        ("a > 9223372036854775808", "does not fit 64 bits"),
        ("a > 0.0", "out of the range"),
        ("a > 1e999", "out of the range"),
        ("a > 01", "1 was not expected"),
        ("é > 1", "has no meaning"),
    ] {
        refused(expression, reason);
    }
}

#[test]
fn length_depth_and_properties_have_their_limits() {
    let nested = |depth: usize| format!("{}a > 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(takes(&nested(DEPTH_MAX as usize - 1), &[("a", "2")]));
    refused(&nested(DEPTH_MAX as usize), "nested more than 64 deep");
    refused(&format!("{}TRUE", "NOT ".repeat(64)), "nested more than 64 deep");
    refused(&format!("a{}", " IS NULL".repeat(64)), "nested more than 64 deep");
    let many = |count: usize| (0..count).map(|nth| format!("p{nth} = 'x'")).collect::<Vec<_>>().join(" OR ");
    assert!(takes(&many(PROPERTIES_MAX), &[("p63", "x")]));
    refused(&many(PROPERTIES_MAX + 1), "more than 64 properties");
    let long = |len: usize| format!("a='{}'", "x".repeat(len - 4));
    assert!(SqlExpression::parse(&long(EXPRESSION_BYTES_MAX)).is_ok());
    refused(&long(EXPRESSION_BYTES_MAX + 1), "the expression has 16385 bytes");
    let chain = vec!["a=1"; EXPRESSION_BYTES_MAX / 6].join("OR ");
    assert!(takes(&chain, &[("a", "1")]), "a long chain is not deep");
}

/// What the tests' own evaluator knows: a slow and literal reading of `ComparisonExpression` and its kin.
mod model {
    #[derive(Clone, Debug)]
    pub(super) enum Truth {
        Constant(Option<bool>),
        Ordered(&'static str, String, Number),
        EqualNumber(bool, String, Number),
        EqualText(bool, String, String),
        Between(bool, String, i32, i32),
        In(bool, String, Vec<String>),
        IsNull(bool, String),
        Search(&'static str, bool, String, String),
        Not(Box<Truth>),
        And(Box<Truth>, Box<Truth>),
        Or(Box<Truth>, Box<Truth>),
    }

    #[derive(Clone, Copy, Debug)]
    pub(super) enum Number {
        Int(i32),
        Double(f64),
    }

    impl Truth {
        pub(super) fn text(&self) -> String {
            let not = |not: &bool| if *not { "NOT " } else { "" };
            match self {
                Truth::Constant(None) => "NULL".into(),
                Truth::Constant(Some(truth)) => truth.to_string(),
                Truth::Ordered(order, name, number) => format!("{name} {order} {}", number.text()),
                Truth::EqualNumber(differs, name, number) => {
                    format!("{name} {} {}", if *differs { "<>" } else { "=" }, number.text())
                }
                Truth::EqualText(differs, name, text) => {
                    format!("{name} {} {}", if *differs { "<>" } else { "=" }, quoted(text))
                }
                Truth::Between(is_not, name, low, high) => {
                    format!("{name} {}BETWEEN {low} AND {high}", not(is_not))
                }
                Truth::In(is_not, name, list) => {
                    let list: Vec<_> = list.iter().map(|text| quoted(text)).collect();
                    format!("{name} {}IN ({})", not(is_not), list.join(","))
                }
                Truth::IsNull(is_not, name) => format!("{name} IS {}NULL", not(is_not)),
                Truth::Search(word, is_not, name, text) => {
                    format!("{name} {}{word} {}", not(is_not), quoted(text))
                }
                Truth::Not(truth) => format!("NOT ({})", truth.text()),
                Truth::And(left, right) => format!("({}) AND ({})", left.text(), right.text()),
                Truth::Or(left, right) => format!("({}) OR ({})", left.text(), right.text()),
            }
        }

        /// `Err` is Java's exception.
        pub(super) fn evaluate(&self, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<bool>, ()> {
            Ok(match self {
                Truth::Constant(truth) => *truth,
                Truth::Ordered(order, name, number) => match get(name) {
                    None => None,
                    Some(text) => {
                        let (left, right) = number.beside(&text)?;
                        Some(match *order {
                            "<" => left < right,
                            "<=" => left <= right,
                            ">" => left > right,
                            _ => left >= right,
                        })
                    }
                },
                Truth::EqualNumber(differs, name, number) => match get(name) {
                    None => None,
                    Some(text) => {
                        let (left, right) = number.beside(&text)?;
                        Some((left == right) != *differs)
                    }
                },
                Truth::EqualText(differs, name, text) => get(name).map(|found| (found == *text) != *differs),
                Truth::Between(is_not, name, low, high) => match get(name) {
                    None => None,
                    Some(text) => {
                        let number: i32 = text.parse().map_err(|_| ())?;
                        Some((*low <= number && number <= *high) != *is_not)
                    }
                },
                Truth::In(is_not, name, list) => get(name).map(|found| list.contains(&found) != *is_not),
                Truth::IsNull(is_not, name) => Some(get(name).is_none() != *is_not),
                Truth::Search(word, is_not, name, text) => Some(match get(name) {
                    Some(found) if !text.is_empty() => {
                        let is_there = match *word {
                            "CONTAINS" => found.contains(text.as_str()),
                            "STARTSWITH" => found.starts_with(text.as_str()),
                            _ => found.ends_with(text.as_str()),
                        };
                        is_there != *is_not
                    }
                    _ => false,
                }),
                Truth::Not(truth) => truth.evaluate(get)?.map(|truth| !truth),
                Truth::And(left, right) => match left.evaluate(get)? {
                    Some(false) => Some(false),
                    left => match right.evaluate(get)? {
                        Some(false) => Some(false),
                        right => left.and(right),
                    },
                },
                Truth::Or(left, right) => match left.evaluate(get)? {
                    Some(true) => Some(true),
                    left => match right.evaluate(get)? {
                        Some(true) => Some(true),
                        right => left.and(right),
                    },
                },
            })
        }
    }

    impl Number {
        fn text(self) -> String {
            match self {
                Number::Int(number) => number.to_string(),
                Number::Double(number) => format!("{number:?}"),
            }
        }

        /// The property's text as a number of this one's type, and this one.
        fn beside(self, text: &str) -> Result<(f64, f64), ()> {
            match self {
                Number::Int(number) => Ok((text.parse::<i32>().map_err(|_| ())?.into(), number.into())),
                Number::Double(number) => Ok((text.parse().map_err(|_| ())?, number)),
            }
        }
    }

    fn quoted(text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }
}

use model::{Number, Truth};

fn any_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "_c$1"]).prop_map(str::to_owned)
}

fn any_text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "x", "it's", "-3", "3", "2.5", "12", "tea", "at", "--", "/*"])
        .prop_map(str::to_owned)
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        (-4..14_i32).prop_map(Number::Int),
        prop::sample::select(vec![2.5, 12.0, -3.0, 0.5]).prop_map(Number::Double)
    ]
}

fn any_truth() -> impl Strategy<Value = Truth> {
    let order = prop::sample::select(vec!["<", "<=", ">", ">="]);
    let search = prop::sample::select(vec!["CONTAINS", "STARTSWITH", "ENDSWITH"]);
    let leaf =
        prop_oneof![
            any::<Option<bool>>().prop_map(Truth::Constant),
            (order, any_name(), any_number())
                .prop_map(|(order, name, number)| Truth::Ordered(order, name, number)),
            (any::<bool>(), any_name(), any_number())
                .prop_map(|(differs, name, number)| Truth::EqualNumber(differs, name, number)),
            (any::<bool>(), any_name(), any_text())
                .prop_map(|(differs, name, text)| Truth::EqualText(differs, name, text)),
            (any::<bool>(), any_name(), -4..14_i32, 0..5_i32)
                .prop_map(|(not, name, low, more)| Truth::Between(not, name, low, low + more)),
            (any::<bool>(), any_name(), prop::collection::vec(any_text(), 1..7))
                .prop_map(|(not, name, list)| Truth::In(not, name, list)),
            (any::<bool>(), any_name()).prop_map(|(not, name)| Truth::IsNull(not, name)),
            (search, any::<bool>(), any_name(), any_text())
                .prop_map(|(word, not, name, text)| Truth::Search(word, not, name, text)),
        ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|truth| Truth::Not(Box::new(truth))),
            (inner.clone(), inner.clone())
                .prop_map(|(left, right)| Truth::And(Box::new(left), Box::new(right))),
            (inner.clone(), inner).prop_map(|(left, right)| Truth::Or(Box::new(left), Box::new(right))),
        ]
    })
}

/// Pieces of expressions in any order: most are none.
fn any_pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b1",
        "5",
        "0",
        "1.5",
        ".5e3",
        "9999999999L",
        "'x'",
        "''",
        "'",
        "(",
        ")",
        ",",
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "+",
        "-",
        "--",
        "/*",
        "*/",
        "NOT",
        "AND",
        "OR",
        "BETWEEN",
        "IN",
        "IS",
        "NULL",
        "TRUE",
        "FALSE",
        "CONTAINS",
        "STARTSWITH",
        "ENDSWITH",
        "LIKE",
        "é",
        "\n",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn expressions_mean_what_the_model_says(
        truth in any_truth(),
        values in prop::array::uniform3(prop::option::of(any_text())),
    ) {
        let names = ["a", "b", "_c$1"];
        // An empty value is none: property strings cannot hold it.
        let properties: Vec<(&str, &str)> = names
            .into_iter()
            .zip(&values)
            .filter_map(|(name, value)| Some((name, value.as_deref().filter(|value| !value.is_empty())?)))
            .collect();
        let get = |name: &str| {
            properties.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let text = truth.text();
        let expression = SqlExpression::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(matches(&expression, &properties), truth.evaluate(&get) == Ok(Some(true)), "{}", text);
    }

    #[test]
    fn any_text_is_an_expression_or_an_error(text in prop_oneof![any::<String>(), any_pieces()]) {
        if let Ok(expression) = SqlExpression::parse(&text) {
            prop_assert!(expression.nodes() > 0);
            matches(&expression, &[("a", "5"), ("b1", "x")]);
            matches(&expression, &[]);
        }
    }
}
