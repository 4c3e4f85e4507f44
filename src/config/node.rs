//! The value tree of a document: what was written and where, in the order in which it was written.
//! How it is read from text is `yaml`'s business, how it becomes typed is `read`'s.

use super::diagnostics::Span;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    /// The value came out of a vault: diagnostics must not show it, whatever its field.
    pub secret: bool,
    pub kind: Kind,
}

/// What a value is, by YAML 1.2's core schema: `yes`, `no`, `on` and `off` are strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    /// Also an integer that does not fit into 64 bits.
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key and its value. Keys are unique within their mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    /// A value at a place.
    pub const fn new(span: Span, kind: Kind) -> Self {
        Self {
            span,
            secret: false,
            kind,
        }
    }

    /// A record without any field.
    pub const fn empty_mapping(span: Span) -> Self {
        Self::new(span, Kind::Mapping(Vec::new()))
    }

    /// The value of a key, if this is a mapping that has it. `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key)
            .map(|entry| &entry.value)
            .filter(|value| !value.is_null())
    }

    /// The entry of a key, also if its value is `null`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key for changing it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.kind {
            Kind::Mapping(entries) => entries
                .iter_mut()
                .find(|entry| entry.key == key)
                .map(|entry| &mut entry.value),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The items of a sequence for changing them.
    pub fn items_mut(&mut self) -> &mut [Self] {
        match &mut self.kind {
            Kind::Sequence(items) => items,
            _ => &mut [],
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is `null`, an empty string of YAML included (`key:` with nothing behind it).
    pub const fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The value below a dotted path such as `healthchecks.active.headers` or `paths[0]`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for step in steps(path) {
            node = node.step(step)?;
        }
        Some(node)
    }

    /// The place of a dotted path: the value's, else that of the nearest thing around it that exists.
    pub fn span_at(&self, path: &str) -> Span {
        let mut node = self;
        for step in steps(path) {
            match node.step(step) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.span
    }

    fn step(&self, step: Step<'_>) -> Option<&Self> {
        match step {
            Step::Key(key) => self.entry(key).map(|entry| &entry.value),
            Step::Index(index) => self.items().get(index),
        }
    }

    /// The value as a message shows it: `` `5` ``, `an array`; never the content of a secret.
    pub fn shown(&self) -> String {
        match &self.kind {
            Kind::Sequence(_) => "an array".to_owned(),
            Kind::Mapping(_) => "a record".to_owned(),
            _ if self.secret => "a secret value".to_owned(),
            _ => format!("`{}`", self.text()),
        }
    }

    /// The type and the value as a message shows them: ``the string `5` ``.
    pub fn described(&self) -> String {
        match self.type_name() {
            Some(_) if self.secret => self.described_hidden(),
            Some(name) => format!("the {name} {}", self.shown()),
            None => self.described_hidden(),
        }
    }

    /// The type alone, as a message shows it.
    pub fn described_hidden(&self) -> String {
        match (&self.kind, self.type_name()) {
            (Kind::Null, _) => "null".to_owned(),
            (_, Some(name)) => format!("a secret {name}"),
            (_, None) => self.shown(),
        }
    }

    /// The type alone, for a place where the value may be a secret that ended up in the wrong spot.
    pub fn type_described(&self) -> String {
        match self.type_name() {
            Some("integer") => "an integer".to_owned(),
            Some(name) => format!("a {name}"),
            None => self.described_hidden(),
        }
    }

    const fn type_name(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Null | Kind::Sequence(_) | Kind::Mapping(_) => None,
            Kind::Bool(_) => Some("boolean"),
            Kind::Integer(_) => Some("integer"),
            Kind::Float(_) => Some("number"),
            Kind::String(_) => Some("string"),
        }
    }

    /// The text of a scalar, shortened if it is long; empty for lists and records.
    pub fn text(&self) -> String {
        match &self.kind {
            Kind::Null => "null".to_owned(),
            Kind::Bool(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => value.to_string(),
            Kind::String(text) => shorten(text),
            Kind::Sequence(_) | Kind::Mapping(_) => String::new(),
        }
    }
}

/// Long texts are cut, so that a diagnostic stays readable.
pub fn shorten(text: &str) -> String {
    const MAX: usize = 100;
    if text.chars().count() <= MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX).collect();
    short.push('…');
    short
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(
            |part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
                Some(index) => Step::Index(index),
                None => Step::Key(part),
            },
        )
}

/// A path under construction: cheap to extend while walking, turned into text only for a diagnostic.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The text of a path that is already known, such as that of an entity.
    Root(&'a str),
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl<'a> Path<'a> {
    /// The path of a field.
    #[must_use]
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    /// The path of an item.
    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(text) => formatter.write_str(text),
            Self::Key(Self::Root(""), key) => formatter.write_str(key),
            Self::Key(parent, key) => write!(formatter, "{parent}.{key}"),
            Self::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, kind: Kind) -> Node {
        Node::new(
            Span {
                file: 0,
                line,
                column: 1,
            },
            kind,
        )
    }

    fn sample() -> Node {
        let list = at(3, Kind::Sequence(vec![at(4, Kind::Integer(7))]));
        let inner = at(
            2,
            Kind::Mapping(vec![Entry {
                key: "b".into(),
                key_span: Span::default(),
                value: list,
            }]),
        );
        at(
            1,
            Kind::Mapping(vec![Entry {
                key: "a".into(),
                key_span: Span::default(),
                value: inner,
            }]),
        )
    }

    #[test]
    fn a_dotted_path_finds_a_nested_value() {
        assert_eq!(sample().at("a.b[0]").unwrap().kind, Kind::Integer(7));
        assert!(sample().at("a.c").is_none());
    }

    #[test]
    fn the_place_of_something_missing_is_that_of_the_nearest_thing_around_it() {
        assert_eq!(sample().span_at("a.b[0]").line, 4);
        assert_eq!(sample().span_at("a.b[9]").line, 3);
        assert_eq!(sample().span_at("a.x.y").line, 2);
    }

    #[test]
    fn a_path_reads_as_operators_write_it() {
        let root = Path::Root("");
        let services = root.key("services");
        let service = services.index(0);
        assert_eq!(service.key("url").to_string(), "services[0].url");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut node = at(1, Kind::String("hunter2".into()));
        node.secret = true;
        assert!(!node.shown().contains("hunter2") && !node.described().contains("hunter2"));
    }
}
