//! The grammar of `SelectorParser.jj`, one method per rule, and the checks of `ComparisonExpression`.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::evaluate::compare;
use super::expression::{Node, Order, Search, Slot, Value};
use super::lexer::{Keyword, Lexer, SqlError, Token};
use super::like::LikePattern;
use super::{DEPTH_MAX, PROPERTIES_MAX};

pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) properties: Vec<Box<str>>,
    pub(super) nodes: u32,
}

/// The whole text is the expression. (RocketMQ stops where the expression ends and ignores what follows: there,
/// `a LIKE 'x'` is `a`, which is never true.)
pub(super) fn parse(text: &str) -> Result<Parsed, SqlError> {
    let mut lexer = Lexer::new(text)?;
    let next = lexer.next()?;
    let mut parser = Parser { lexer, next, properties: Vec::new(), nodes: 0, depth: 0 };
    let whole = parser.or()?;
    let root = whole.into_truth()?;
    if parser.next != Token::End {
        return Err(parser.unexpected());
    }
    Ok(Parsed { root, properties: parser.properties, nodes: parser.nodes })
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// Looked at, not yet taken.
    next: Token<'a>,
    properties: Vec<Box<str>>,
    nodes: u32,
    /// Of the recursion.
    depth: u32,
}

/// A piece of the tree.
struct Operand {
    node: Node,
    /// Longest way down from here. Chains such as `a = b = c` become deep without recursion.
    height: u32,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Operand, SqlError> {
        let first = self.and()?;
        self.chain(first, Keyword::Or, Parser::and, Node::Or)
    }

    fn and(&mut self) -> Result<Operand, SqlError> {
        let first = self.equality()?;
        self.chain(first, Keyword::And, Parser::equality, Node::And)
    }

    /// Evaluating from left to right until it is decided is the same for two at a time and for all at once.
    fn chain(
        &mut self,
        first: Operand,
        keyword: Keyword,
        rule: fn(&mut Self) -> Result<Operand, SqlError>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Operand, SqlError> {
        if self.next != Token::Keyword(keyword) {
            return Ok(first);
        }
        let mut height = first.height;
        let mut operands = vec![first.into_truth()?];
        while self.take(&Token::Keyword(keyword))? {
            let operand = rule(self)?;
            height = height.max(operand.height);
            operands.push(operand.into_truth()?);
        }
        self.made(join(operands), height)
    }

    fn equality(&mut self) -> Result<Operand, SqlError> {
        let mut left = self.comparison()?;
        loop {
            left = match self.next {
                Token::Symbol(symbol @ ("=" | "<>")) => {
                    self.advance()?;
                    let right = self.comparison()?;
                    check_equal(&left.node, &right.node)?;
                    let equal = self.binary(left, right, Node::Equal)?;
                    if symbol == "<>" { self.not(equal)? } else { equal }
                }
                Token::Keyword(Keyword::Is) => {
                    self.advance()?;
                    let is_not = self.take(&Token::Keyword(Keyword::Not))?;
                    if !self.take(&Token::Keyword(Keyword::Null))? {
                        return Err(self.unexpected());
                    }
                    let null = self.made(Node::Null, 0)?;
                    let is_null = self.binary(left, null, Node::Equal)?;
                    if is_not { self.not(is_null)? } else { is_null }
                }
                _ => return Ok(left),
            };
        }
    }

    fn comparison(&mut self) -> Result<Operand, SqlError> {
        let mut left = self.unary()?;
        loop {
            if let Some(order) = order_of(&self.next) {
                self.advance()?;
                let right = self.unary()?;
                left = self.ordered(order, left, right)?;
                continue;
            }
            let not = self.take(&Token::Keyword(Keyword::Not))?;
            let keyword = match self.next {
                Token::Keyword(keyword) => Some(keyword),
                _ => None,
            };
            left = match keyword {
                Some(Keyword::Between) => {
                    self.advance()?;
                    self.between(left, not)?
                }
                Some(Keyword::In) => {
                    self.advance()?;
                    self.in_list(left, not)?
                }
                Some(Keyword::Contains | Keyword::StartsWith | Keyword::EndsWith) => {
                    self.advance()?;
                    let text = self.text()?;
                    let bytes = || text.as_bytes().into();
                    let search = match keyword {
                        Some(Keyword::Contains) => {
                            Search::Contains(Box::new(Finder::new(&*text).into_owned()))
                        }
                        Some(Keyword::StartsWith) => Search::StartsWith(bytes()),
                        _ => Search::EndsWith(bytes()),
                    };
                    let height = left.height;
                    self.made(Node::Search { operand: Box::new(left.node), search, not }, height)?
                }
                _ if self.next_is_word("LIKE") => {
                    self.advance()?;
                    let like = self.like(left)?;
                    if not { self.not(like)? } else { like }
                }
                _ if not => return Err(self.unexpected()),
                _ => return Ok(left),
            };
        }
    }

    fn like(&mut self, operand: Operand) -> Result<Operand, SqlError> {
        let pattern = self.text()?;
        let mut escape = None;
        if self.next_is_word("ESCAPE") {
            self.advance()?;
            let text = self.text()?;
            let mut chars = text.chars();
            let (Some(char), None) = (chars.next(), chars.next()) else {
                return Err(SqlError::new("ESCAPE wants one character"));
            };
            escape = Some(char);
        }
        let pattern = Box::new(LikePattern::parse(&pattern, escape)?);
        self.nodes += pattern.steps();
        let height = operand.height;
        self.made(Node::Like { operand: Box::new(operand.node), pattern }, height)
    }

    /// LIKE and ESCAPE mean something only where no operand can stand: elsewhere they name properties, as they always do
    /// in RocketMQ.
    fn next_is_word(&self, word: &str) -> bool {
        matches!(self.next, Token::Property(name) if name.eq_ignore_ascii_case(word))
    }

    fn between(&mut self, value: Operand, not: bool) -> Result<Operand, SqlError> {
        let low = self.unary()?;
        if !self.take(&Token::Keyword(Keyword::And))? {
            return Err(self.unexpected());
        }
        let high = self.unary()?;
        if !not && let (Some(low), Some(high)) = (number(&low.node), number(&high.node)) {
            let is_reversed = compare(high, low).is_ok_and(|order| order.is_lt());
            if is_reversed {
                let reason = "the left value of BETWEEN must be less than or equal to the right one";
                return Err(SqlError::new(reason));
            }
        }
        // The value is asked twice, so it stands in the tree twice: only a property or a constant can be compared.
        let again = Operand { node: self.copy(&value.node)?, height: value.height };
        let (below, above) = if not {
            (self.ordered(Order::Less, value, low)?, self.ordered(Order::Greater, again, high)?)
        } else {
            (self.ordered(Order::GreaterOrEqual, value, low)?, self.ordered(Order::LessOrEqual, again, high)?)
        };
        let height = below.height.max(above.height);
        let both = vec![below.node, above.node];
        self.made(if not { Node::Or(both) } else { Node::And(both) }, height)
    }

    fn in_list(&mut self, left: Operand, not: bool) -> Result<Operand, SqlError> {
        let Node::Property(property) = left.node else {
            return Err(SqlError::new("IN is asked of a property only"));
        };
        self.expect("(")?;
        let mut list = Vec::new();
        loop {
            list.push(self.text()?.as_bytes().into());
            if !self.take(&Token::Symbol(","))? {
                break;
            }
        }
        self.expect(")")?;
        list.sort_unstable();
        list.dedup();
        self.made(Node::In { property, list: list.into(), not }, 0)
    }

    fn unary(&mut self) -> Result<Operand, SqlError> {
        if self.depth == DEPTH_MAX {
            return Err(SqlError::too_deep());
        }
        self.depth += 1;
        let operand = if self.take(&Token::Symbol("+"))? {
            self.unary()?
        } else if self.take(&Token::Symbol("-"))? {
            let operand = self.unary()?;
            let height = operand.height;
            self.made(Node::Negate(Box::new(operand.node)), height)?
        } else if self.take(&Token::Keyword(Keyword::Not))? {
            let operand = self.unary()?;
            self.not(operand)?
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(operand)
    }

    fn primary(&mut self) -> Result<Operand, SqlError> {
        if self.take(&Token::Symbol("("))? {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let node = match &self.next {
            Token::Text(text) => Node::Text(text.as_ref().into()),
            Token::Integer(digits) => {
                let number: i64 = digits
                    .parse()
                    .map_err(|_| self.lexer.error("a number that does not fit 64 bits ends"))?;
                i32::try_from(number).map_or(Node::Long(number), Node::Int)
            }
            Token::Float(digits) => {
                let number: f64 = digits.parse().map_err(|_| self.unexpected())?;
                // As in Java, whose smallest positive number excludes zero as well.
                if !number.is_finite() || number == 0.0 {
                    return Err(SqlError::new(format!("{digits} is out of the range of positive doubles")));
                }
                Node::Double(number)
            }
            Token::Keyword(Keyword::True) => Node::Bool(true),
            Token::Keyword(Keyword::False) => Node::Bool(false),
            Token::Keyword(Keyword::Null) => Node::Null,
            Token::Property(name) => {
                let name = *name;
                Node::Property(self.slot(name)?)
            }
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        self.made(node, 0)
    }

    fn slot(&mut self, name: &str) -> Result<Slot, SqlError> {
        let known = self.properties.iter().position(|known| **known == *name);
        let nth = known.unwrap_or_else(|| {
            self.properties.push(name.into());
            self.properties.len() - 1
        });
        if nth >= PROPERTIES_MAX {
            return Err(SqlError::too_many_properties());
        }
        Ok(Slot(nth as u8))
    }

    fn text(&mut self) -> Result<Cow<'a, str>, SqlError> {
        match std::mem::replace(&mut self.next, Token::End) {
            Token::Text(text) => {
                self.next = self.lexer.next()?;
                Ok(text)
            }
            other => {
                self.next = other;
                Err(self.unexpected())
            }
        }
    }

    fn ordered(&mut self, order: Order, left: Operand, right: Operand) -> Result<Operand, SqlError> {
        check_ordered(&left.node)?;
        check_ordered(&right.node)?;
        self.binary(left, right, |left, right| Node::Ordered(order, left, right))
    }

    fn binary(
        &mut self,
        left: Operand,
        right: Operand,
        join: impl FnOnce(Box<Node>, Box<Node>) -> Node,
    ) -> Result<Operand, SqlError> {
        let height = left.height.max(right.height);
        self.made(join(Box::new(left.node), Box::new(right.node)), height)
    }

    fn not(&mut self, operand: Operand) -> Result<Operand, SqlError> {
        let height = operand.height;
        let node = Node::Not(Box::new(operand.into_truth()?));
        self.made(node, height)
    }

    /// A copy of what may stand left of BETWEEN, see [`check_ordered`].
    fn copy(&mut self, node: &Node) -> Result<Node, SqlError> {
        self.nodes += 1;
        Ok(match node {
            Node::Int(number) => Node::Int(*number),
            Node::Long(number) => Node::Long(*number),
            Node::Double(number) => Node::Double(*number),
            Node::Property(slot) => Node::Property(*slot),
            Node::Negate(operand) => match self.copy(operand) {
                Ok(operand) => Node::Negate(Box::new(operand)),
                // Of a truth or a text, which have no negative.
                Err(_) => Node::Negate(Box::new(Node::Null)),
            },
            _ => return Err(cannot_be_ordered()),
        })
    }

    /// `node` above operands of this height.
    fn made(&mut self, node: Node, height: u32) -> Result<Operand, SqlError> {
        if height >= DEPTH_MAX {
            return Err(SqlError::too_deep());
        }
        self.nodes += 1;
        Ok(Operand { node, height: height + 1 })
    }

    fn advance(&mut self) -> Result<(), SqlError> {
        self.next = self.lexer.next()?;
        Ok(())
    }

    fn take(&mut self, token: &Token<'_>) -> Result<bool, SqlError> {
        let is_next = self.next == *token;
        if is_next {
            self.advance()?;
        }
        Ok(is_next)
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), SqlError> {
        if self.take(&Token::Symbol(symbol))? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SqlError {
        match &self.next {
            Token::End => SqlError::new("the expression ends too early"),
            Token::Keyword(keyword) => self.lexer.error(&format!("{keyword:?} was not expected, it ends")),
            Token::Property(name) => self.lexer.error(&format!("{name:?} was not expected, it ends")),
            Token::Integer(digits) | Token::Float(digits) => {
                self.lexer.error(&format!("{digits} was not expected, it ends"))
            }
            Token::Text(text) => self.lexer.error(&format!("the text {text:?} was not expected, it ends")),
            Token::Symbol(symbol) => self.lexer.error(&format!("{symbol:?} was not expected, it ends")),
        }
    }
}

impl Operand {
    /// As `SelectorParser#asBooleanExpression`.
    fn into_truth(self) -> Result<Node, SqlError> {
        match self.node {
            Node::Property(slot) => Ok(Node::Truth(slot)),
            Node::Int(_) | Node::Long(_) | Node::Double(_) | Node::Text(_) | Node::Negate(_) => {
                Err(SqlError::new("a number or a text stands where something true or false is wanted"))
            }
            truth => Ok(truth),
        }
    }
}

fn order_of(token: &Token<'_>) -> Option<Order> {
    match token {
        Token::Symbol("<") => Some(Order::Less),
        Token::Symbol("<=") => Some(Order::LessOrEqual),
        Token::Symbol(">") => Some(Order::Greater),
        Token::Symbol(">=") => Some(Order::GreaterOrEqual),
        _ => None,
    }
}

/// As `ComparisonExpression#checkLessThanOperand`: numbers, properties and what has a sign.
fn check_ordered(node: &Node) -> Result<(), SqlError> {
    match node {
        Node::Int(_) | Node::Long(_) | Node::Double(_) | Node::Property(_) | Node::Negate(_) => Ok(()),
        _ => Err(cannot_be_ordered()),
    }
}

fn cannot_be_ordered() -> SqlError {
    SqlError::new("a text, a truth or NULL cannot be compared by <, <=, >, >= or BETWEEN")
}

/// As `ComparisonExpression#checkEqualOperand` and `#checkEqualOperandCompatability`.
fn check_equal(left: &Node, right: &Node) -> Result<(), SqlError> {
    match (left, right) {
        (Node::Null, _) | (_, Node::Null) => {
            Err(SqlError::new("NULL cannot be compared, but by IS [NOT] NULL"))
        }
        (Node::Bool(_), Node::Int(_) | Node::Long(_) | Node::Double(_) | Node::Text(_)) => {
            Err(SqlError::new("TRUE and FALSE cannot be compared with a number or a text"))
        }
        _ => Ok(()),
    }
}

fn number(node: &Node) -> Option<Value<'static>> {
    match node {
        Node::Int(number) => Some(Value::Int(*number)),
        Node::Long(number) => Some(Value::Long(*number)),
        Node::Double(number) => Some(Value::Double(*number)),
        _ => None,
    }
}
