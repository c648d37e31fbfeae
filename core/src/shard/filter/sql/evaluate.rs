//! What an expression comes to for one message, in three values: true, false, null (unknown).

use std::cmp::Ordering;

use apogee_net::message::Properties;
use smallvec::SmallVec;

use super::expression::{Node, Order, Search, Slot, Value};
use super::java;

/// Text is no number, or was compared with a truth: Java throws, and the message does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Senseless;

/// The message's values of the properties that an expression names, by their slots.
pub(super) struct Values<'a>(SmallVec<[Option<&'a [u8]>; 8]>);

impl<'a> Values<'a> {
    /// One walk over the properties; of several with one name, the last counts.
    pub(super) fn of(names: &[Box<str>], properties: Properties<'a>) -> Self {
        let mut values = SmallVec::from_elem(None, names.len());
        for (name, value) in properties.iter() {
            if let Some(slot) = names.iter().position(|wanted| wanted.as_bytes() == name) {
                values[slot] = Some(value);
            }
        }
        Values(values)
    }

    fn get(&self, slot: Slot) -> Option<&'a [u8]> {
        self.0[usize::from(slot.0)]
    }
}

impl Node {
    pub(super) fn evaluate<'a>(&'a self, values: &Values<'a>) -> Result<Value<'a>, Senseless> {
        Ok(match self {
            Node::Null => Value::Null,
            Node::Bool(truth) => Value::Bool(*truth),
            Node::Int(number) => Value::Int(*number),
            Node::Long(number) => Value::Long(*number),
            Node::Double(number) => Value::Double(*number),
            Node::Text(text) => Value::Text(text.as_bytes()),
            Node::Property(slot) => values.get(*slot).map_or(Value::Null, Value::Text),
            Node::Truth(slot) => values.get(*slot).map_or(Value::Null, |_| Value::Bool(false)),
            Node::Negate(operand) => negate(operand.evaluate(values)?),
            Node::Not(operand) => match operand.evaluate(values)? {
                Value::Bool(truth) => Value::Bool(!truth),
                _ => Value::Null,
            },
            Node::Equal(left, right) => match (left.evaluate(values)?, right.evaluate(values)?) {
                (Value::Null, Value::Null) => Value::Bool(true),
                (Value::Null, _) => Value::Null,
                (_, Value::Null) => Value::Bool(false),
                (left, right) => Value::Bool(compare(left, right)?.is_eq()),
            },
            Node::Ordered(order, left, right) => {
                let left = left.evaluate(values)?;
                if left == Value::Null {
                    return Ok(Value::Null);
                }
                match (left, right.evaluate(values)?) {
                    (_, Value::Null) => Value::Null,
                    (Value::Text(left), Value::Text(right)) => {
                        let left = java::double(left).ok_or(Senseless)?;
                        let right = java::double(right).ok_or(Senseless)?;
                        Value::Bool(order.holds(java::compare(left, right)))
                    }
                    (left, right) => Value::Bool(order.holds(compare(left, right)?)),
                }
            }
            Node::In { property, list, not } => match values.get(*property) {
                None => Value::Null,
                Some(text) => {
                    let is_in = list.binary_search_by(|wanted| (**wanted).cmp(text)).is_ok();
                    Value::Bool(is_in != *not)
                }
            },
            Node::Search { operand, search, not } => match operand.evaluate(values)? {
                Value::Text(text) => Value::Bool(search.finds(text).is_some_and(|found| found != *not)),
                _ => Value::Bool(false),
            },
            Node::Like { operand, pattern } => match operand.evaluate(values)? {
                Value::Null => Value::Null,
                Value::Text(text) => Value::Bool(pattern.matches(text)),
                _ => Value::Bool(false),
            },
            Node::And(operands) => all_are(operands, true, values)?,
            Node::Or(operands) => all_are(operands, false, values)?,
        })
    }
}

/// `truth` if all operands are it, its opposite as soon as one is that, null otherwise: AND of true, OR of false.
fn all_are<'a>(operands: &'a [Node], truth: bool, values: &Values<'a>) -> Result<Value<'a>, Senseless> {
    let mut result = Value::Bool(truth);
    for operand in operands {
        match operand.evaluate(values)? {
            Value::Bool(found) if found == truth => {}
            Value::Bool(found) => return Ok(Value::Bool(found)),
            _ => result = Value::Null,
        }
    }
    Ok(result)
}

fn negate(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Int(number) => Value::Int(number.wrapping_neg()),
        Value::Long(number) => Value::Long(number.wrapping_neg()),
        Value::Double(number) => Value::Double(-number),
        Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
    }
}

/// `ComparisonExpression#__compare` of two values that are there. What cannot be compared counts as less.
pub(super) fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Senseless> {
    use Value::{Bool, Double, Int, Long, Null, Text};
    fn integer<T: std::str::FromStr>(text: &[u8]) -> Result<T, Senseless> {
        java::integer(text).ok_or(Senseless)
    }
    fn double(text: &[u8]) -> Result<f64, Senseless> {
        java::double(text).ok_or(Senseless)
    }
    Ok(match (left, right) {
        (Text(left), Text(right)) => left.cmp(right),
        (Bool(left), Bool(right)) => left.cmp(&right),
        (Int(left), Int(right)) => left.cmp(&right),
        (Long(left), Long(right)) => left.cmp(&right),
        (Double(left), Double(right)) => java::compare(left, right),

        (Text(left), Bool(right)) => java::boolean(left).cmp(&right),
        (Text(left), Int(right)) => integer::<i32>(left)?.cmp(&right),
        (Text(left), Long(right)) => integer::<i64>(left)?.cmp(&right),
        (Text(left), Double(right)) => java::compare(double(left)?, right),
        // Java casts the wrong one of the two.
        (Bool(_), Text(_)) => return Err(Senseless),
        (Int(left), Text(right)) => left.cmp(&integer::<i32>(right)?),
        (Long(left), Text(right)) => left.cmp(&integer::<i64>(right)?),
        (Double(left), Text(right)) => java::compare(left, double(right)?),

        (Int(left), Long(right)) => i64::from(left).cmp(&right),
        (Long(left), Int(right)) => left.cmp(&i64::from(right)),
        (Int(left), Double(right)) => java::compare(left.into(), right),
        (Double(left), Int(right)) => java::compare(left, right.into()),
        (Long(left), Double(right)) => java::compare(left as f64, right),
        (Double(left), Long(right)) => java::compare(left, right as f64),

        (Bool(_), Int(_) | Long(_) | Double(_)) | (Int(_) | Long(_) | Double(_), Bool(_)) => Ordering::Less,
        (Null, _) | (_, Null) => unreachable!("null is not compared"),
    })
}

impl Order {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        }
    }
}

impl Search {
    /// `None` if nothing is looked for.
    fn finds(&self, text: &[u8]) -> Option<bool> {
        match self {
            Search::Contains(finder) => (!finder.needle().is_empty()).then(|| finder.find(text).is_some()),
            Search::StartsWith(prefix) => (!prefix.is_empty()).then(|| text.starts_with(prefix)),
            Search::EndsWith(suffix) => (!suffix.is_empty()).then(|| text.ends_with(suffix)),
        }
    }
}
