//! From the text of an expression to its typed form. Kong's own parser says what the language is;
//! here is what it does not do: bounds, types, places of mistakes, regexes over bytes.

use std::borrow::Cow;
use std::vec::IntoIter;

use atc_router::ast::{
    BinaryOperator as Operator, Expression as Parsed, LhsTransformations, LogicalExpression,
    Predicate as ParsedPredicate, Value,
};
use atc_router::parser::{self, Rule};
use ipnet::IpNet;
use pest::error::InputLocation;

use super::field::{AddressField, Field, NumberField, TextField};
use super::{AddressTest, Comparison, Expression, Mistake, Node, NumberTest, Predicate, TextTest};
use crate::entity::pattern::Pattern;

/// How deep parentheses may nest: Kong's parser recurses at each.
const DEPTH_MAX: usize = 32;

/// Reads an expression of acceptable length.
pub(super) fn parse(source: &str) -> Result<Expression, Mistake> {
    let scan = Scan::of(source)?;
    let parsed = parser::parse(&scan.text).map_err(|error| {
        let offset = match error.location {
            InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
        };
        let error = error.renamed_rules(|rule| called(*rule).to_owned());
        Mistake {
            message: in_one_line(&error.variant.message()),
            offset: Some(offset),
        }
    })?;
    let mut reader = Reader {
        places: scan.fields.into_iter(),
        patterns: Vec::new(),
    };
    let root = reader.node(&parsed)?;
    Ok(Expression {
        root,
        patterns: reader.patterns,
    })
}

/// The parser's message; of a mistake in a regex, which is drawn over several lines, what it is.
fn in_one_line(message: &str) -> String {
    match message.rsplit_once("error: ") {
        Some((_, regex)) => format!("regex: {regex}"),
        None => message.replace('\n', " "),
    }
}

/// What people call a rule of the grammar.
fn called(rule: Rule) -> &'static str {
    match rule {
        Rule::and_op => "`&&`",
        Rule::or_op => "`||`",
        Rule::EOI => "the end",
        Rule::binary_operator => "an operator",
        Rule::lhs | Rule::ident | Rule::transform_func => "a field",
        Rule::rhs
        | Rule::str_literal
        | Rule::rawstr_literal
        | Rule::int_literal
        | Rule::ipv4_literal
        | Rule::ipv6_literal
        | Rule::ipv4_cidr_literal
        | Rule::ipv6_cidr_literal => "a value",
        Rule::str_char | Rule::str_esc | Rule::str_inner | Rule::rawstr_char => {
            "the rest of a text in quotes"
        }
        Rule::hex_digits | Rule::oct_digits | Rule::dec_digits | Rule::digits => "digits",
        _ => "a comparison such as `http.path ^= \"/a\"`",
    }
}

/// A look at the words of an expression before it is parsed.
struct Scan<'s> {
    /// The same text with one blank between `not` and `in`: Kong's parser panics at any other space.
    text: Cow<'s, str>,
    /// Where the fields stand, in order.
    fields: Vec<usize>,
}

impl<'s> Scan<'s> {
    fn of(source: &'s str) -> Result<Self, Mistake> {
        let bytes = source.as_bytes();
        let mut scan = Self {
            text: Cow::Borrowed(source),
            fields: Vec::new(),
        };
        let (mut at, mut depth) = (0, 0_usize);
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => at = after_quotes(bytes, at),
                b'(' => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(Mistake {
                            message: format!("it is nested deeper than {DEPTH_MAX} parentheses"),
                            offset: Some(at),
                        });
                    }
                    at += 1;
                }
                b')' => {
                    depth = depth.saturating_sub(1);
                    at += 1;
                }
                _ if is_of_word(byte) => at = scan.word(source, at)?,
                _ => at += 1,
            }
        }
        Ok(scan)
    }

    /// Looks at the word that begins here, and gives the place behind it.
    fn word(&mut self, source: &str, start: usize) -> Result<usize, Mistake> {
        let bytes = source.as_bytes();
        let rest = bytes.get(start..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| is_of_word(**byte)).count();
        let (word, behind) = rest.split_at(len);
        let end = start + len;
        if word.last() == Some(&b'r') && behind.starts_with(b"#\"") {
            let text = behind.get(2..).unwrap_or_default();
            let close = text.windows(2).position(|pair| pair == b"\"#");
            return Ok(end + 2 + close.map_or(text.len(), |close| close + 2));
        }
        if word.starts_with(b"notin") {
            return Err(Mistake {
                message: "`notin` is no operator; write `not in`".to_owned(),
                offset: Some(start),
            });
        }
        let is_name = word.first().is_some_and(u8::is_ascii_alphabetic) && !word.contains(&b':');
        let is_operator = word == b"contains"
            || word == b"in"
            || (word.starts_with(b"in") && word.get(2).is_some_and(u8::is_ascii_digit));
        if word == b"not" {
            let space = behind.iter().take_while(|byte| is_space(**byte)).count();
            let is_not_in = behind
                .get(space..)
                .is_some_and(|behind| behind.starts_with(b"in"));
            if is_not_in && space > 0 && behind.get(..space) != Some(b" ") {
                self.join(source, end, space);
            }
        } else if is_name && !is_operator {
            let next = behind.iter().find(|byte| !is_space(**byte));
            if next != Some(&b'(') {
                self.fields.push(start);
            }
        }
        Ok(end)
    }

    /// Puts one blank for the `space` bytes after a `not`, and the other bytes behind the `in`, so
    /// that all else keeps its place.
    fn join(&mut self, source: &str, not_end: usize, space: usize) {
        let mut bytes = std::mem::take(&mut self.text).into_owned().into_bytes();
        debug_assert_eq!(bytes.len(), source.len(), "only spaces move");
        let blanks = vec![b' '; space];
        if let Some(spaces) = bytes.get_mut(not_end..not_end + space + 2) {
            let (front, back) = (b" in", blanks.split_at(1).1);
            for (slot, byte) in spaces.iter_mut().zip(front.iter().chain(back)) {
                *slot = *byte;
            }
        }
        self.text = String::from_utf8(bytes).map_or_else(|_| source.to_owned().into(), Cow::Owned);
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn after_quotes(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// Turns what Kong's parser gives into the typed form.
struct Reader {
    /// Where the fields stand that are still to come: predicates come in the order of the text.
    places: IntoIter<usize>,
    patterns: Vec<Pattern>,
}

impl Reader {
    fn node(&mut self, parsed: &Parsed) -> Result<Node, Mistake> {
        match parsed {
            Parsed::Predicate(predicate) => self.predicate(predicate).map(Node::Is),
            Parsed::Logical(logical) => Ok(match &**logical {
                LogicalExpression::Not(inner) => Node::Not(Box::new(self.node(inner)?)),
                LogicalExpression::And(..) => Node::All(self.parts(parsed, and_of)?),
                LogicalExpression::Or(..) => Node::Any(self.parts(parsed, or_of)?),
            }),
        }
    }

    /// The parts of a chain of one operator. Kong's parser nests `a && b && c` to the left as deep as
    /// the chain is long, so this is a loop.
    fn parts(
        &mut self,
        parsed: &Parsed,
        split: fn(&Parsed) -> Option<(&Parsed, &Parsed)>,
    ) -> Result<Box<[Node]>, Mistake> {
        let mut parts = Vec::new();
        let mut rest = parsed;
        while let Some((left, right)) = split(rest) {
            parts.push(right);
            rest = left;
        }
        parts.push(rest);
        parts
            .into_iter()
            .rev()
            .map(|part| self.node(part))
            .collect()
    }

    fn predicate(&mut self, parsed: &ParsedPredicate) -> Result<Predicate, Mistake> {
        let offset = self.places.next();
        let mistake = |message: String| Mistake { message, offset };
        let name = parsed.lhs.var_name.as_str();
        let field = Field::named(name).map_err(mistake)?;
        let has = |function| parsed.lhs.transformations.contains(&function);
        let (lower, any) = (has(LhsTransformations::Lower), has(LhsTransformations::Any));
        let noun = field.noun();
        let comparison = match field {
            Field::Text(field) => {
                let wanted = match &parsed.rhs {
                    Value::String(text) => text.as_str(),
                    Value::Regex(regex) => regex.as_str(),
                    other => return Err(mistake(wrong_type(name, noun, other))),
                };
                let test = self
                    .text_test(name, &field, &parsed.op, wanted)
                    .map_err(mistake)?;
                Comparison::Text { field, lower, test }
            }
            Field::Number(_) | Field::Address(_) if lower => {
                return Err(mistake(format!(
                    "`lower` is for texts, and `{name}` is {noun}"
                )));
            }
            Field::Number(field) => number(name, field, parsed).map_err(mistake)?,
            Field::Address(field) => address(name, field, parsed).map_err(mistake)?,
        };
        Ok(Predicate { comparison, any })
    }

    fn text_test(
        &mut self,
        name: &str,
        field: &TextField,
        operator: &Operator,
        text: &str,
    ) -> Result<TextTest, String> {
        // Names of hosts know no case, and requests give them in lower case.
        let is_host = matches!(field, TextField::Host | TextField::ServerName);
        let whole = || -> Box<str> {
            if is_host {
                let bare = text.strip_suffix('.').unwrap_or(text);
                bare.to_ascii_lowercase().into()
            } else {
                text.into()
            }
        };
        let part = || -> Box<str> {
            if is_host {
                text.to_ascii_lowercase().into()
            } else {
                text.into()
            }
        };
        Ok(match operator {
            Operator::Equals => TextTest::Equals(whole()),
            Operator::NotEquals => TextTest::Differs(whole()),
            Operator::Postfix => TextTest::Suffix(whole()),
            Operator::Prefix => TextTest::Prefix(part()),
            Operator::Contains => TextTest::Contains(part()),
            Operator::Regex => {
                let pattern = Pattern::anywhere(text, is_host)
                    .map_err(|problem| format!("regex `{text}`: {problem}"))?;
                self.patterns.push(pattern);
                TextTest::Matches(self.patterns.len() - 1, text.into())
            }
            other => return Err(not_for(other, name, "a text")),
        })
    }
}

fn and_of(parsed: &Parsed) -> Option<(&Parsed, &Parsed)> {
    match parsed {
        Parsed::Logical(logical) => match &**logical {
            LogicalExpression::And(left, right) => Some((left, right)),
            _ => None,
        },
        Parsed::Predicate(_) => None,
    }
}

fn or_of(parsed: &Parsed) -> Option<(&Parsed, &Parsed)> {
    match parsed {
        Parsed::Logical(logical) => match &**logical {
            LogicalExpression::Or(left, right) => Some((left, right)),
            _ => None,
        },
        Parsed::Predicate(_) => None,
    }
}

fn number(name: &str, field: NumberField, parsed: &ParsedPredicate) -> Result<Comparison, String> {
    let Value::Int(number) = parsed.rhs else {
        return Err(wrong_type(name, "a number", &parsed.rhs));
    };
    let test = match &parsed.op {
        Operator::Equals => NumberTest::Equals(number),
        Operator::NotEquals => NumberTest::Differs(number),
        Operator::Greater => NumberTest::Greater(number),
        Operator::GreaterOrEqual => NumberTest::GreaterOrEqual(number),
        Operator::Less => NumberTest::Less(number),
        Operator::LessOrEqual => NumberTest::LessOrEqual(number),
        other => return Err(not_for(other, name, "a number")),
    };
    Ok(Comparison::Number { field, test })
}

fn address(
    name: &str,
    field: AddressField,
    parsed: &ParsedPredicate,
) -> Result<Comparison, String> {
    let test = match (&parsed.op, &parsed.rhs) {
        (Operator::Equals, Value::IpAddr(address)) => AddressTest::Equals(*address),
        (Operator::NotEquals, Value::IpAddr(address)) => AddressTest::Differs(*address),
        (operator @ (Operator::In | Operator::NotIn), Value::IpCidr(network)) => {
            let network = IpNet::new(network.first_address(), network.network_length())
                .map_err(|_| format!("`{network}` is not a network"))?;
            if *operator == Operator::In {
                AddressTest::In(network)
            } else {
                AddressTest::NotIn(network)
            }
        }
        (Operator::In | Operator::NotIn, Value::IpAddr(_)) => {
            return Err(
                "`in` takes a network such as `10.0.0.0/8`; for one address write `==`".to_owned(),
            );
        }
        (Operator::Equals | Operator::NotEquals, Value::IpCidr(_)) => {
            return Err("an address is in a network or not; write `in` or `not in`".to_owned());
        }
        (other, Value::IpAddr(_) | Value::IpCidr(_)) => {
            return Err(not_for(other, name, "an address"));
        }
        (_, other) => return Err(wrong_type(name, "an address", other)),
    };
    Ok(Comparison::Address { field, test })
}

fn wrong_type(name: &str, noun: &str, value: &Value) -> String {
    let shown = match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Regex(regex) => format!("\"{regex}\""),
        Value::Int(number) => number.to_string(),
        Value::IpAddr(address) => address.to_string(),
        Value::IpCidr(network) => network.to_string(),
    };
    format!("`{name}` is {noun}, and `{shown}` is not")
}

fn not_for(operator: &Operator, name: &str, noun: &str) -> String {
    let (operator, what) = match operator {
        Operator::Greater => (">", "compares numbers"),
        Operator::GreaterOrEqual => (">=", "compares numbers"),
        Operator::Less => ("<", "compares numbers"),
        Operator::LessOrEqual => ("<=", "compares numbers"),
        Operator::In => ("in", "compares addresses"),
        Operator::NotIn => ("not in", "compares addresses"),
        Operator::Prefix => ("^=", "compares texts"),
        Operator::Postfix => ("=^", "compares texts"),
        Operator::Contains => ("contains", "compares texts"),
        Operator::Regex => ("~", "compares texts"),
        Operator::Equals => ("==", "compares"),
        Operator::NotEquals => ("!=", "compares"),
    };
    format!("`{operator}` {what}, and `{name}` is {noun}")
}
