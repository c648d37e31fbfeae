//! A compiled expression: a small typed tree.

use apogee_net::message::Properties;
use memchr::memmem::Finder;

use super::evaluate::Values;
use super::lexer::SqlError;
use super::like::LikePattern;
use super::parser;

/// An expression, ready to be asked of any number of messages.
#[derive(Debug)]
pub struct SqlExpression {
    text: Box<str>,
    pub(super) root: Node,
    /// Names of the properties that the tree knows by number.
    pub(super) properties: Box<[Box<str>]>,
    nodes: u32,
}

/// Which of the expression's properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u8);

/// Constants and results. Java's types: what a comparison means depends on them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a [u8]),
}

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
    Property(Slot),
    /// Of what is no number: null.
    Negate(Box<Node>),
    Not(Box<Node>),
    /// A property where a truth is wanted. Text is none, so this is false, or null.
    Truth(Slot),
    /// Also `IS NULL`.
    Equal(Box<Node>, Box<Node>),
    Ordered(Order, Box<Node>, Box<Node>),
    In {
        property: Slot,
        /// Sorted.
        list: Box<[Box<[u8]>]>,
        not: bool,
    },
    Search {
        operand: Box<Node>,
        search: Search,
        not: bool,
    },
    /// Unknown of a property that is not there.
    Like {
        operand: Box<Node>,
        pattern: Box<LikePattern>,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is looked for in a text. Nothing is found by an empty one, and `NOT` finds nothing by it either.
#[derive(Debug)]
pub(super) enum Search {
    Contains(Box<Finder<'static>>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
}

impl SqlExpression {
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        let parsed = parser::parse(text)?;
        Ok(Self {
            text: text.into(),
            root: parsed.root,
            properties: parsed.properties.into(),
            nodes: parsed.nodes,
        })
    }

    /// As it was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Operators and operands: what one evaluation takes, at most, in steps of some nanoseconds.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Whether a message with these properties is wanted: neither when the expression is false of it, nor when it is
    /// unknown, nor when it makes no sense.
    pub fn matches(&self, properties: Properties<'_>) -> bool {
        let values = Values::of(&self.properties, properties);
        matches!(self.root.evaluate(&values), Ok(Value::Bool(true)))
    }
}

/// Both are the same text; others may mean the same.
impl PartialEq for SqlExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SqlExpression {}
