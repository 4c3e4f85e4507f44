//! Compares a value tree with a shape and reports every difference; it never stops at the first one.

use super::diagnostics::{Code, Diagnostic, Diagnostics, Span};
use super::formats::comma_items;
use super::node::{Entry, Kind, Node, Path, shorten};
use super::schema::{Field, IntegerRange, List, NumberRange, Record, Shape, ShapeKind, Text};
use super::suggest::nearest;

/// Keys that every entity may carry and nobody reads.
pub const IGNORED_KEYS: &[&str] = &["_comment", "_ignore"];

/// Reports every way in which `node` differs from `shape`. `true` if there is none.
pub fn check(node: &Node, shape: &Shape, path: Path<'_>, diagnostics: &mut Diagnostics) -> bool {
    let mut checker = Checker {
        diagnostics,
        errors: 0,
        hide: false,
    };
    checker.value(node, shape, path);
    checker.errors == 0
}

/// Like [`check`] for an entity, which may also carry [`IGNORED_KEYS`]; gives the fields that are wrong.
///
/// `None` if the value is no record at all.
pub fn check_entity(
    node: &Node,
    shape: &Shape,
    path: Path<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<String>> {
    let mut checker = Checker {
        diagnostics,
        errors: 0,
        hide: false,
    };
    if let (ShapeKind::Record(record), Kind::Mapping(entries)) = (&shape.kind, &node.kind) {
        return Some(checker.record(node.span, entries, record, path, IGNORED_KEYS));
    }
    // What stands in the place of a credential may well be its key.
    checker.hide = shape.has_secret_field();
    checker.wrong_type(node, shape, path);
    None
}

struct Checker<'a> {
    diagnostics: &'a mut Diagnostics,
    errors: usize,
    /// Inside a secret field.
    hide: bool,
}

impl Checker<'_> {
    fn error(
        &mut self,
        code: Code,
        span: Span,
        path: Path<'_>,
        message: String,
    ) -> &mut Diagnostic {
        self.errors += 1;
        self.diagnostics
            .error(code, span, path.to_string(), message)
    }

    /// An error about a value, which is added unless it is secret.
    fn value_error(
        &mut self,
        code: Code,
        node: &Node,
        path: Path<'_>,
        message: String,
    ) -> &mut Diagnostic {
        let shown = (!self.hides(node))
            .then(|| node.text())
            .filter(|text| !text.is_empty());
        let diagnostic = self.error(code, node.span, path, message);
        diagnostic.value = shown;
        diagnostic
    }

    const fn hides(&self, node: &Node) -> bool {
        self.hide || node.secret
    }

    fn described(&self, node: &Node) -> String {
        if self.hides(node) {
            node.described_hidden()
        } else {
            node.described()
        }
    }

    fn value(&mut self, node: &Node, shape: &Shape, path: Path<'_>) {
        let outside = self.hide;
        self.hide |= shape.secret;
        if !(shape.nullable && node.is_null()) {
            self.typed(node, shape, path);
        }
        self.hide = outside;
    }

    fn typed(&mut self, node: &Node, shape: &Shape, path: Path<'_>) {
        match (&shape.kind, &node.kind) {
            (ShapeKind::Any, _) | (ShapeKind::Boolean, Kind::Bool(_)) => {}
            (ShapeKind::Text(text), Kind::String(value)) => self.text(node, value, text, path),
            (ShapeKind::Integer(range), Kind::Integer(value)) => {
                self.integer(node, *value, range, path);
            }
            #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
            (ShapeKind::Number(range), Kind::Integer(value)) => {
                self.number(node, *value as f64, range, path);
            }
            (ShapeKind::Number(range), Kind::Float(value)) => {
                self.number(node, *value, range, path);
            }
            (ShapeKind::List(list), Kind::Sequence(items)) => self.list(node, items, list, path),
            (ShapeKind::List(list), Kind::String(value)) if list.comma => {
                self.comma_list(node, value, list, path);
            }
            (ShapeKind::Map(map), Kind::Mapping(entries)) => {
                for entry in entries {
                    self.key(entry, &map.keys, path.key(&entry.key));
                    self.value(&entry.value, &map.values, path.key(&entry.key));
                }
            }
            (ShapeKind::Record(record), Kind::Mapping(entries)) => {
                self.record(node.span, entries, record, path, &[]);
            }
            (ShapeKind::Union(shapes), _) => self.union(node, shape, shapes, path),
            _ => self.wrong_type(node, shape, path),
        }
    }

    fn record(
        &mut self,
        span: Span,
        entries: &[Entry],
        record: &Record,
        path: Path<'_>,
        ignored: &[&str],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for entry in entries {
            let before = self.errors;
            let inner = path.key(&entry.key);
            match record.field(&entry.key) {
                Some(field) => self.field(entry, field, inner),
                None if ignored.contains(&entry.key.as_str()) => {}
                None => self.unknown_field(entry, record, inner),
            }
            if self.errors > before {
                wrong.push(entry.key.clone());
            }
        }
        for field in record.fields.iter().filter(|field| field.required) {
            if !entries.iter().any(|entry| entry.key == field.name) {
                let message = format!("required field `{}` is missing", field.name);
                self.error(Code::MissingField, span, path.key(&field.name), message);
                wrong.push(field.name.clone());
            }
        }
        wrong
    }

    fn field(&mut self, entry: &Entry, field: &Field, path: Path<'_>) {
        if !entry.value.is_null() {
            self.value(&entry.value, &field.shape, path);
        } else if field.required || field.not_null {
            let message = format!("required field `{}` must not be null", field.name);
            self.error(Code::MissingField, entry.key_span, path, message);
        }
    }

    /// A key of a record with free keys.
    fn key(&mut self, entry: &Entry, keys: &Text, path: Path<'_>) {
        if let Some(format) = keys.format
            && let Err(complaint) = (format.validate)(&entry.key)
        {
            self.error(Code::InvalidValue, entry.key_span, path, complaint);
        }
    }

    fn unknown_field(&mut self, entry: &Entry, record: &Record, path: Path<'_>) {
        if let Some((name, reason)) = record.refused.iter().find(|(name, _)| *name == entry.key) {
            if !is_inert(&entry.value) {
                let message = format!("`{name}` is not supported in this version");
                self.error(Code::UnsupportedField, entry.key_span, path, message)
                    .hint(reason.as_str());
            }
            return;
        }
        let known = || record.fields.iter().map(|field| field.name.as_str());
        let near = nearest(&entry.key, known());
        let message = format!("unknown field `{}`", shorten(&entry.key));
        let diagnostic = self.error(Code::UnknownField, entry.key_span, path, message);
        match near {
            Some(_) => drop(diagnostic.did_you_mean(near)),
            None if (1..=8).contains(&record.fields.len()) => {
                let names: Vec<&str> = known().collect();
                diagnostic.hint(format!("known here: {}", names.join(", ")));
            }
            None => {}
        }
    }

    fn wrong_type(&mut self, node: &Node, shape: &Shape, path: Path<'_>) {
        let message = format!(
            "expected {}, found {}",
            shape.expected(),
            self.described(node)
        );
        let hint = conversion_hint(node, shape, self.hides(node));
        let diagnostic = self.value_error(Code::WrongType, node, path, message);
        if let Some(hint) = hint {
            diagnostic.hint(hint);
        }
    }

    fn text(&mut self, node: &Node, value: &str, text: &Text, path: Path<'_>) {
        if !text.allowed.is_empty() {
            return self.choice(node, value, text, path);
        }
        let length = value.chars().count() as u64;
        if length < text.length_min {
            let message = if value.is_empty() {
                "must not be empty".to_owned()
            } else {
                format!(
                    "must have at least {} characters, found {length}",
                    text.length_min
                )
            };
            self.value_error(Code::OutOfRange, node, path, message);
        } else if let Some(max) = text.length_max.filter(|&max| length > max) {
            let message = format!("must have at most {max} characters, found {length}");
            self.value_error(Code::OutOfRange, node, path, message);
        } else if let Some(pattern) = text
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(value))
        {
            let message = format!("{} does not match `{pattern}`", self.shown(node));
            self.value_error(Code::InvalidValue, node, path, message);
        } else if let Some(format) = text.format
            && let Err(complaint) = (format.validate)(value)
        {
            let message = if self.hides(node) {
                format!("the secret value is not a {}", format.name)
            } else {
                complaint
            };
            self.value_error(Code::InvalidValue, node, path, message);
        }
    }

    fn choice(&mut self, node: &Node, value: &str, text: &Text, path: Path<'_>) {
        if text.allowed.iter().any(|allowed| allowed == value) {
            return;
        }
        if let Some((name, reason)) = text.refused.iter().find(|(name, _)| name == value) {
            let message = format!("`{name}` is not supported in this version");
            self.value_error(Code::UnsupportedValue, node, path, message)
                .hint(reason.as_str());
            return;
        }
        let near = if self.hides(node) {
            None
        } else {
            nearest(value, text.allowed.iter().map(String::as_str))
        };
        let message = format!(
            "expected one of: {}; found {}",
            text.allowed.join(", "),
            self.shown(node)
        );
        let diagnostic = self
            .value_error(Code::NotAllowed, node, path, message)
            .did_you_mean(near);
        if let (None, Some(hint)) = (near, &text.hint) {
            diagnostic.hint(hint.as_str());
        }
    }

    fn integer(&mut self, node: &Node, value: i64, range: &IntegerRange, path: Path<'_>) {
        if !range.allowed.is_empty() {
            if !range.allowed.contains(&value) {
                let allowed: Vec<String> = range.allowed.iter().map(i64::to_string).collect();
                let message = format!(
                    "expected one of: {}; found {}",
                    allowed.join(", "),
                    self.shown(node)
                );
                self.value_error(Code::NotAllowed, node, path, message);
            }
        } else if value < range.min || value > range.max {
            let message = if range.max == i64::MAX {
                format!("must be at least {}, found {}", range.min, self.shown(node))
            } else {
                format!(
                    "must be between {} and {}, found {}",
                    range.min,
                    range.max,
                    self.shown(node)
                )
            };
            self.value_error(Code::OutOfRange, node, path, message);
        }
    }

    fn number(&mut self, node: &Node, value: f64, range: &NumberRange, path: Path<'_>) {
        let below = range
            .min
            .is_some_and(|min| value < min || (range.above_min && value <= min));
        let above = range.max.is_some_and(|max| value > max);
        if !below && !above && value.is_finite() {
            return;
        }
        let limits = match (range.min, range.max) {
            (Some(min), Some(max)) => format!("between {min} and {max}"),
            (Some(min), None) if range.above_min => format!("greater than {min}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => "a finite number".to_owned(),
        };
        let message = format!("must be {limits}, found {}", self.shown(node));
        self.value_error(Code::OutOfRange, node, path, message);
    }

    fn list(&mut self, node: &Node, items: &[Node], list: &List, path: Path<'_>) {
        self.item_count(node, items.len(), list, path);
        for (index, item) in items.iter().enumerate() {
            self.value(item, &list.items, path.index(index));
        }
    }

    fn comma_list(&mut self, node: &Node, value: &str, list: &List, path: Path<'_>) {
        let items = comma_items(value);
        self.item_count(node, items.clone().count(), list, path);
        for item in items {
            let part = Node {
                secret: node.secret,
                ..Node::new(node.span, Kind::String(item.to_owned()))
            };
            self.value(&part, &list.items, path);
        }
    }

    fn item_count(&mut self, node: &Node, count: usize, list: &List, path: Path<'_>) {
        let count = count as u64;
        if count < list.min {
            let message = if count == 0 {
                "must not be empty".to_owned()
            } else {
                format!("must have at least {} items, found {count}", list.min)
            };
            self.error(Code::OutOfRange, node.span, path, message);
        } else if let Some(max) = list.max.filter(|&max| count > max) {
            self.error(
                Code::OutOfRange,
                node.span,
                path,
                format!("must have at most {max} items, found {count}"),
            );
        }
    }

    /// Of the shapes that fit the value's type, the one with the fewest mistakes is what was meant.
    fn union(&mut self, node: &Node, whole: &Shape, shapes: &[Shape], path: Path<'_>) {
        let fitting = shapes.iter().filter(|shape| fits(node, shape));
        let best = fitting
            .map(|shape| {
                let mut diagnostics = Diagnostics::default();
                let mut checker = Checker {
                    diagnostics: &mut diagnostics,
                    errors: 0,
                    hide: self.hide,
                };
                checker.value(node, shape, path);
                (checker.errors, diagnostics)
            })
            .min_by_key(|(errors, _)| *errors);
        match best {
            Some((errors, diagnostics)) => {
                self.errors += errors;
                self.diagnostics.absorb(diagnostics);
            }
            None => self.wrong_type(node, whole, path),
        }
    }

    fn shown(&self, node: &Node) -> String {
        if self.hides(node) {
            "a secret value".to_owned()
        } else {
            node.shown()
        }
    }
}

/// Whether a value says «not used», so that a field which is not supported does no harm.
fn is_inert(node: &Node) -> bool {
    match &node.kind {
        Kind::Null | Kind::Bool(false) | Kind::Integer(0) => true,
        Kind::Sequence(items) => items.is_empty(),
        // As exports write it: all of its fields, and nothing in any.
        Kind::Mapping(entries) => entries.iter().all(|entry| is_inert(&entry.value)),
        _ => false,
    }
}

fn fits(node: &Node, shape: &Shape) -> bool {
    match (&shape.kind, &node.kind) {
        (ShapeKind::Any, _)
        | (ShapeKind::Boolean, Kind::Bool(_))
        | (ShapeKind::Text(_), Kind::String(_))
        | (ShapeKind::Integer(_), Kind::Integer(_))
        | (ShapeKind::Number(_), Kind::Integer(_) | Kind::Float(_))
        | (ShapeKind::List(_), Kind::Sequence(_))
        | (ShapeKind::Map(_) | ShapeKind::Record(_), Kind::Mapping(_)) => true,
        (ShapeKind::List(list), Kind::String(_)) => list.comma,
        (ShapeKind::Union(shapes), _) => shapes.iter().any(|shape| fits(node, shape)),
        (_, Kind::Null) => shape.nullable,
        _ => false,
    }
}

/// How the value would have to be written to be of the expected type.
fn conversion_hint(node: &Node, shape: &Shape, hidden: bool) -> Option<String> {
    match (&shape.kind, &node.kind) {
        (ShapeKind::Boolean, Kind::String(text)) if !hidden => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => Some(format!("write `true`: in YAML 1.2 `{text}` is a string")),
            "no" | "off" | "n" => Some(format!("write `false`: in YAML 1.2 `{text}` is a string")),
            "true" | "false" => Some("write it without quotes".to_owned()),
            _ => None,
        },
        (ShapeKind::Integer(_) | ShapeKind::Number(_), Kind::String(text))
            if text.parse::<f64>().is_ok() =>
        {
            Some("write it without quotes".to_owned())
        }
        (ShapeKind::Text(_), Kind::Integer(_) | Kind::Float(_) | Kind::Bool(_)) => {
            Some("put it in quotes".to_owned())
        }
        (ShapeKind::List(list), Kind::String(text))
            if !hidden && matches!(list.items.kind, ShapeKind::Text(_)) =>
        {
            Some(format!("write it as a list: [{}]", shorten(text)))
        }
        (ShapeKind::List(_), Kind::Mapping(_)) => Some("begin it with `- `".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::config::schema::shape_of;
    use crate::config::yaml::{self, Unchanged};
    use crate::entity::Secret;

    #[derive(Serialize, Deserialize, JsonSchema, Default)]
    #[serde(rename_all = "lowercase")]
    #[schemars(extend("x-refused-values" = [("cluster", "use redis")]))]
    enum Policy {
        #[default]
        Local,
        Redis,
    }

    #[derive(Deserialize, JsonSchema, Default)]
    #[serde(default, deny_unknown_fields)]
    #[schemars(extend("required" = ["name"], "x-refused" = [("old", "use `name`")]))]
    struct Config {
        name: String,
        #[schemars(range(min = 1, max = 9))]
        limit: u32,
        #[schemars(range(min = 0.5))]
        ratio: f64,
        policy: Policy,
        names: Vec<String>,
        headers: BTreeMap<String, Vec<String>>,
        flag: bool,
        key: Secret<String>,
        #[schemars(extend("x-not-null" = true))]
        fixed: u8,
        nested: Option<Nested>,
    }

    #[derive(Deserialize, JsonSchema, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Nested {
        port: u16,
        #[schemars(extend("format" = "uuid"))]
        id: Option<String>,
    }

    fn report(text: &str) -> String {
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("f");
        let node = yaml::parse(text, file, &Unchanged, &mut diagnostics).unwrap();
        check(
            &node,
            &shape_of::<Config>(),
            Path::Root("config"),
            &mut diagnostics,
        );
        diagnostics.to_text()
    }

    fn expect(text: &str, expected: &str) {
        let found = report(text);
        assert_eq!(found.trim_end(), expected, "for {text:?}");
    }

    #[test]
    fn a_good_value_passes() {
        expect(
            "name: a\nlimit: 3\nratio: 1\npolicy: redis\nnames: [b]\nheaders: {x: [y]}\nflag: true\nkey: k\nnested: {port: 1}\n",
            "",
        );
        expect("name: a\nlimit: null\npolicy: null\nold: []\n", "");
    }

    #[test]
    fn every_mistake_is_reported_in_one_run() {
        let found = report(
            "limit: 10\nratio: 0\npolicy: reddis\nnames: x\nflag: yes\nnesed: {}\nnested: {prot: 1, id: x}\n",
        );
        assert_eq!(found.lines().count(), 9, "{found}");
    }

    #[test]
    fn unknown_fields_are_named_with_the_nearest_known_one() {
        expect(
            "name: a\nlimmit: 1\n",
            "f:2:1: error[config::unknown_field]: config.limmit: unknown field `limmit` (did you mean `limit`?)",
        );
        expect(
            "name: a\nnested:\n  zzz: 1\n",
            "f:3:3: error[config::unknown_field]: config.nested.zzz: unknown field `zzz` (known here: id, port)",
        );
    }

    #[test]
    fn missing_and_null_fields_are_told_apart() {
        expect(
            "limit: 1\n",
            "f:1:1: error[config::missing_field]: config.name: required field `name` is missing",
        );
        expect(
            "name: ~\nfixed: null\n",
            "f:1:1: error[config::missing_field]: config.name: required field `name` must not be null\n\
             f:2:1: error[config::missing_field]: config.fixed: required field `fixed` must not be null",
        );
    }

    #[test]
    fn wrong_types_say_what_was_found_and_how_to_write_it() {
        expect(
            "name: 5\n",
            "f:1:7: error[config::wrong_type]: config.name: expected a string, found the integer `5` (put it in quotes)",
        );
        expect(
            "name: a\nflag: yes\n",
            "f:2:7: error[config::wrong_type]: config.flag: expected a boolean, found the string `yes` (write `true`: in YAML 1.2 `yes` is a string)",
        );
        expect(
            "name: a\nlimit: 1.5\n",
            "f:2:8: error[config::wrong_type]: config.limit: expected an integer, found the number `1.5`",
        );
        expect(
            "name: a\nlimit: \"5\"\n",
            "f:2:8: error[config::wrong_type]: config.limit: expected an integer, found the string `5` (write it without quotes)",
        );
        expect(
            "name: a\nnames: GET\n",
            "f:2:8: error[config::wrong_type]: config.names: expected an array, found the string `GET` (write it as a list: [GET])",
        );
        expect(
            "name: a\nheaders: []\n",
            "f:2:10: error[config::wrong_type]: config.headers: expected a record, found an array",
        );
    }

    #[test]
    fn ranges_and_choices_name_their_limits() {
        expect(
            "name: a\nlimit: 0\nratio: 0.1\n",
            "f:2:8: error[config::out_of_range]: config.limit: must be between 1 and 9, found `0`\n\
             f:3:8: error[config::out_of_range]: config.ratio: must be at least 0.5, found `0.1`",
        );
        expect(
            "name: a\npolicy: reds\n",
            "f:2:9: error[config::not_allowed]: config.policy: expected one of: local, redis; found `reds` (did you mean `redis`?)",
        );
        expect(
            "name: ''\n",
            "f:1:7: error[config::out_of_range]: config.name: must not be empty",
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        expect(
            "name: a\npolicy: cluster\nold: 1\n",
            "f:2:9: error[config::unsupported_value]: config.policy: `cluster` is not supported in this version (use redis)\n\
             f:3:1: error[config::unsupported_field]: config.old: `old` is not supported in this version (use `name`)",
        );
    }

    #[test]
    fn paths_lead_into_lists_and_maps() {
        expect(
            "name: a\nheaders:\n  x-a: [b, 5]\n",
            "f:3:12: error[config::wrong_type]: config.headers.x-a[1]: expected a string, found the integer `5` (put it in quotes)",
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        expect(
            "name: a\nkey: 12345\n",
            "f:2:6: error[config::wrong_type]: config.key: expected a string, found a secret integer (put it in quotes)",
        );
    }

    #[test]
    fn formats_are_checked() {
        let found = report("name: a\nnested: {id: xyz}\n");
        assert!(
            found.starts_with(
                "f:2:14: error[config::invalid_value]: config.nested.id: `xyz` is not a UUID"
            ),
            "{found}"
        );
    }
}
