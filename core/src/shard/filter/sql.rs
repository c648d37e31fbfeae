//! SQL92 expressions over the properties of a message (`ExpressionType.SQL92`).
//!
//! Language and meaning are those of RocketMQ's `SelectorParser.jj` and its `expression` classes, oddities included:
//! a filter that moves from one broker to the other must let the same messages pass. The grammar, keywords in any
//! case:
//!
//! ```text
//! or         = and { OR and }
//! and        = equality { AND equality }
//! equality   = comparison { "=" comparison | "<>" comparison | IS [NOT] NULL }
//! comparison = unary { (">" | ">=" | "<" | "<=") unary
//!                    | [NOT] BETWEEN unary AND unary | [NOT] IN "(" text { "," text } ")"
//!                    | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) text
//!                    | [NOT] LIKE text [ESCAPE text] }
//! unary      = ("+" | "-" | NOT) unary | primary
//! primary    = text | integer | float | TRUE | FALSE | NULL | property | "(" or ")"
//! ```
//!
//! `NOT` binds tighter than any comparison, so `NOT a = 1` compares `NOT a` with 1: with parentheses it is what was
//! meant. No general SQL parser reads this language, with its precedence and its three words of its own; so it has its
//! own here, which is shorter than a translation would be.
//!
//! A property is text. Compared with a number it is read as one of the constant's type, and ordered with another
//! property as a double (`ComparisonExpression#__compare`): `a > 3` is no match for `a` = `3.5`, `a > 3.0` is. Text
//! that is no such number ends the evaluation, and the message does not match, whatever the rest of the expression says.

mod evaluate;
mod expression;
mod java;
mod lexer;
mod like;
mod parser;
#[cfg(test)]
mod tests;

pub use expression::SqlExpression;
pub use lexer::SqlError;

/// Longest text of an expression. RocketMQ has no limit; clients repeat expressions in every heartbeat, and C++ ones in
/// every pull.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;

/// Parentheses, signs and comparisons inside one another: parsing, evaluating and dropping an expression go as deep.
const DEPTH_MAX: u32 = 64;

/// Different properties that one expression names.
const PROPERTIES_MAX: usize = 64;
