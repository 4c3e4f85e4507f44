//! From text to a value tree, behind which both YAML parsers live.
//!
//! `serde_yaml` reads the values and `saphyr-parser` says where each of them stands; the two are zipped. Aliases and
//! `<<` merges are resolved here, and what could blow up (depth, size, aliases) is bounded here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, Tag};
use serde::de::{self, Deserialize, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::diagnostics::{Code, Diagnostics, Span};
use super::node::{Entry, Kind, Node, Path};

/// The largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How deeply lists and records may be nested.
const DEPTH_MAX: usize = 64;
/// How many values a document may have once its aliases are expanded; a long string counts as several.
const NODES_MAX: usize = 4_000_000;
/// Below this size a second thread costs more than it saves.
const PARALLEL_FROM_BYTES: usize = 64 * 1024;

/// Where positions of the parsed text lie in the file as it was written.
pub trait Origin: Sync {
    /// The line and column, from 1, in the file of a line and column in the parsed text.
    fn place(&self, line: u32, column: u32) -> (u32, u32);
}

/// The parsed text is the file as written.
pub struct Unchanged;

impl Origin for Unchanged {
    fn place(&self, line: u32, column: u32) -> (u32, u32) {
        (line, column)
    }
}

/// Parses one document. `None`, with a diagnostic, if there is no usable tree.
pub fn parse(text: &str, file: u16, origin: &dyn Origin, diagnostics: &mut Diagnostics) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(problem) = forbidden_character(text) {
        problem.report(file, origin, diagnostics);
        return None;
    }
    match tree(text, file, origin) {
        Ok(mut node) => {
            let mut cleaner = Cleaner { diagnostics };
            cleaner.clean(&mut node, Path::Root(""));
            Some(node)
        }
        Err(problem) => {
            problem.report(file, origin, diagnostics);
            None
        }
    }
}

/// Something that ends the reading of a file.
#[derive(Debug)]
struct Problem {
    code: Code,
    line: u32,
    column: u32,
    message: String,
    hint: Option<&'static str>,
}

impl Problem {
    fn at(mark: Position, code: Code, message: impl Into<String>) -> Self {
        let Position { line, column } = mark;
        Self { code, line, column, message: message.into(), hint: None }
    }

    fn report(self, file: u16, origin: &dyn Origin, diagnostics: &mut Diagnostics) {
        let (line, column) = origin.place(self.line, self.column);
        let diagnostic = diagnostics.error(self.code, Span { file, line, column }, "", self.message);
        if let Some(hint) = self.hint {
            diagnostic.hint(hint);
        }
    }
}

/// A place in the parsed text; line and column from 1.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    line: u32,
    column: u32,
}

impl Position {
    fn of(marker: Marker) -> Self {
        Self {
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
            column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
        }
    }
}

/// YAML forbids control characters, but the parsers tell it without a useful place.
fn forbidden_character(text: &str) -> Option<Problem> {
    let forbidden = |byte: u8| (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0x7f;
    let at = text.bytes().position(forbidden)?;
    let before = text.get(..at)?;
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    let byte = text.as_bytes().get(at)?;
    let mark = Position {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
    };
    Some(Problem::at(mark, Code::YamlSyntax, format!("control character 0x{byte:02x} is not allowed in YAML")))
}

fn tree(text: &str, file: u16, origin: &dyn Origin) -> Result<Node, Problem> {
    let parallel = text.len() >= PARALLEL_FROM_BYTES && !may_be_deep(text);
    let (marks, raw) = if parallel {
        std::thread::scope(|scope| {
            let values = scope.spawn(|| read_values(text));
            let marks = read_marks(text);
            let values = values.join().unwrap_or_else(|_| Err(ValueError::unknown()));
            (marks, values)
        })
    } else {
        // Positions first: their parser gives up at once on what would keep the other one busy.
        match read_marks(text) {
            Err(problem) if problem.code == Code::YamlLimit => return Err(problem),
            marks => (marks, read_values(text)),
        }
    };
    let marks = match (marks, raw.as_ref().err()) {
        (Ok(marks), None) => marks,
        (Ok(_), Some(error)) => return Err(error.to_problem()),
        (Err(problem), Some(error)) if problem.code == Code::YamlSyntax => return Err(syntax_problem(problem, error, text)),
        (Err(problem), _) => return Err(problem),
    };
    let Ok(raw) = raw else { return Err(ValueError::unknown().to_problem()) };
    let mut zip = Zip { marks: &marks, file, origin };
    let (node, _) = zip.node(raw, 0)?;
    Ok(node)
}

/// Whether brackets could be nested so deeply that `serde_yaml`, which takes time quadratic in their depth, gets slow.
fn may_be_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > 4 * DEPTH_MAX
    })
}

// ---- values: serde_yaml ---------------------------------------------------------------------------------------------

/// A value without places, as `serde_yaml` gives it, duplicate keys and all.
#[derive(Debug, PartialEq)]
enum Raw {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Raw>),
    Mapping(Vec<(Raw, Raw)>),
}

/// Why `serde_yaml` gave up.
#[derive(Debug)]
struct ValueError {
    position: Option<Position>,
    message: String,
}

impl ValueError {
    fn unknown() -> Self {
        Self { position: None, message: "the YAML parser failed".to_owned() }
    }

    fn new(error: &serde_yaml::Error) -> Self {
        let position = error.location().map(|location| Position {
            line: u32::try_from(location.line()).unwrap_or(u32::MAX),
            column: u32::try_from(location.column()).unwrap_or(u32::MAX),
        });
        let mut message = error.to_string();
        if let Some(location) = error.location() {
            message = message.replacen(&format!(" at line {} column {}", location.line(), location.column()), "", 1);
        }
        Self { position, message }
    }

    fn to_problem(&self) -> Problem {
        let limit = self.message.contains("limit exceeded") || self.message.contains(TOO_MANY_NODES);
        let start = Position { line: 1, column: 1 };
        let (code, message) = if limit {
            (Code::YamlLimit, "aliases expand to too many values, or to themselves".to_owned())
        } else {
            (Code::YamlSyntax, format!("invalid YAML: {}", self.message))
        };
        Problem::at(self.position.unwrap_or(start), code, message)
    }
}

const TOO_MANY_NODES: &str = "too many values";

fn read_values(text: &str) -> Result<Raw, ValueError> {
    struct Document(Raw);
    impl<'de> Deserialize<'de> for Document {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let mut left = NODES_MAX;
            RawReader { left: &mut left }.deserialize(deserializer).map(Self)
        }
    }
    Document::deserialize(serde_yaml::Deserializer::from_str(text))
        .map(|document| document.0)
        .map_err(|error| ValueError::new(&error))
}

struct RawReader<'a> {
    left: &'a mut usize,
}

impl RawReader<'_> {
    /// Takes what a value costs from what is left, so that aliases cannot multiply without end.
    fn pay<E: de::Error>(&mut self, cost: usize) -> Result<(), E> {
        *self.left = self.left.checked_sub(cost).ok_or_else(|| E::custom(TOO_MANY_NODES))?;
        Ok(())
    }

    fn inner(&mut self) -> RawReader<'_> {
        RawReader { left: self.left }
    }
}

impl<'de> DeserializeSeed<'de> for RawReader<'_> {
    type Value = Raw;

    fn deserialize<D: de::Deserializer<'de>>(mut self, deserializer: D) -> Result<Raw, D::Error> {
        self.pay(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RawReader<'_> {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "no field takes such a number; it is only shown in a message")]
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Float(value as f64), Raw::Integer))
    }

    #[expect(clippy::cast_precision_loss, reason = "no field takes such a number; it is only shown in a message")]
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Float(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "no field takes such a number; it is only shown in a message")]
    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<Raw, E> {
        self.pay(value.len() / 64)?;
        Ok(Raw::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some(key) = access.next_key_seed(self.inner())? {
            entries.push((key, access.next_value_seed(self.inner())?));
        }
        Ok(Raw::Mapping(entries))
    }

    /// A value with a tag of its own; the tag is refused later, where its place is known.
    fn visit_enum<A: EnumAccess<'de>>(mut self, access: A) -> Result<Raw, A::Error> {
        let (_, variant): (de::IgnoredAny, _) = access.variant()?;
        variant.newtype_variant_seed(self.inner())
    }
}

// ---- places: saphyr-parser ------------------------------------------------------------------------------------------

/// One node of the document in the order of the text; the nodes inside a list or record follow it.
#[derive(Debug)]
struct Mark<'a> {
    position: Position,
    shape: MarkShape<'a>,
}

#[derive(Debug)]
enum MarkShape<'a> {
    Scalar(Cow<'a, str>),
    Sequence,
    Mapping,
    /// The index of the mark that carries the anchor.
    Alias(usize),
}

fn read_marks(text: &str) -> Result<Vec<Mark<'_>>, Problem> {
    let mut marks = Vec::with_capacity(text.len() / 8);
    let mut anchors = HashMap::new();
    let mut depth = 0_usize;
    let mut documents = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_problem(&error))?;
        let position = Position::of(span.start);
        let (shape, anchor, tag) = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    let message = "a second YAML document begins here; a file holds one";
                    return Err(Problem::at(position, Code::YamlSyntax, message));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::Alias(id) => (MarkShape::Alias(anchors.get(&id).copied().unwrap_or(0)), 0, None),
            Event::Scalar(text, _, anchor, tag) => (MarkShape::Scalar(text), anchor, tag),
            Event::SequenceStart(anchor, tag) => (MarkShape::Sequence, anchor, tag),
            Event::MappingStart(anchor, tag) => (MarkShape::Mapping, anchor, tag),
        };
        if let Some(tag) = tag.as_deref().filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(tag_problem(position, tag));
        }
        if matches!(shape, MarkShape::Sequence | MarkShape::Mapping) {
            depth += 1;
            if depth > DEPTH_MAX {
                let message = format!("nested more than {DEPTH_MAX} levels deep");
                return Err(Problem::at(position, Code::YamlLimit, message));
            }
        }
        if anchor != 0 {
            anchors.insert(anchor, marks.len());
        }
        marks.push(Mark { position, shape });
    }
    if marks.is_empty() {
        let start = Position { line: 1, column: 1 };
        let mut problem = Problem::at(start, Code::EmptyDocument, "the file has no content");
        problem.hint = Some("a declarative document begins with `_format_version: \"3.0\"`");
        return Err(problem);
    }
    Ok(marks)
}

fn tag_problem(position: Position, tag: &Tag) -> Problem {
    let mut problem =
        Problem::at(position, Code::YamlTag, format!("the YAML tag `{}{}` has no meaning here", tag.handle, tag.suffix));
    problem.hint = Some("remove the tag, or put the value in quotes if the `!` belongs to it");
    problem
}

fn scan_problem(error: &saphyr_parser::ScanError) -> Problem {
    let position = Position::of(*error.marker());
    if error.info().contains("recursion limit") {
        return Problem::at(position, Code::YamlLimit, format!("nested more than {DEPTH_MAX} levels deep"));
    }
    Problem::at(position, Code::YamlSyntax, format!("invalid YAML: {}", error.info()))
}

/// Both parsers gave up: `serde_yaml` explains better (it says what it was in the middle of), and a few causes deserve
/// words of our own.
fn syntax_problem(scan: Problem, value: &ValueError, text: &str) -> Problem {
    let mut problem = match value.position {
        Some(_) => value.to_problem(),
        None => scan,
    };
    let line = text.lines().nth(problem.line.saturating_sub(1) as usize).unwrap_or_default();
    let mut before = line.chars().take(problem.column.saturating_sub(1) as usize);
    let here = line.chars().nth(problem.column.saturating_sub(1) as usize);
    if here == Some('\t') && before.all(char::is_whitespace) {
        "invalid YAML: a tab cannot indent a line".clone_into(&mut problem.message);
        problem.hint = Some("use spaces");
    } else if let Some(character @ ('@' | '`' | '%')) = here {
        problem.message = format!("invalid YAML: a value cannot begin with `{character}`");
        problem.hint = Some("put the value in quotes");
    } else if problem.message.contains("mapping values are not allowed") {
        "invalid YAML: a `: ` is not allowed here".clone_into(&mut problem.message);
        problem.hint = Some("check the indentation, or put a value that contains `: ` in quotes");
    } else if problem.message.contains("did not find expected key") {
        "invalid YAML: expected a key here".clone_into(&mut problem.message);
        problem.hint = Some("check that the line is indented like its neighbours");
    } else if problem.message.contains("unknown anchor") {
        "invalid YAML: this alias refers to an anchor that is not defined above it".clone_into(&mut problem.message);
        problem.hint = Some("put the value in quotes if the `*` belongs to it");
    }
    problem
}

// ---- both together --------------------------------------------------------------------------------------------------

struct Zip<'a> {
    marks: &'a [Mark<'a>],
    file: u16,
    origin: &'a dyn Origin,
}

impl Zip<'_> {
    fn span(&self, position: Position) -> Span {
        let (line, column) = self.origin.place(position.line, position.column);
        Span { file: self.file, line, column }
    }

    /// Joins a value with the mark at `at`; also gives the index of the mark after it.
    fn node(&mut self, raw: Raw, at: usize) -> Result<(Node, usize), Problem> {
        let marks = self.marks;
        let mark = marks.get(at).ok_or_else(|| disagreement(Position::default()))?;
        let span = self.span(mark.position);
        match (raw, &mark.shape) {
            (raw, MarkShape::Alias(target)) => {
                // An alias only ever points backwards, so this ends.
                let target = *target;
                if target >= at {
                    return Err(disagreement(mark.position));
                }
                let (node, _) = self.node(raw, target)?;
                Ok((node, at + 1))
            }
            (Raw::Sequence(items), MarkShape::Sequence) => {
                let mut next = at + 1;
                let mut nodes = Vec::with_capacity(items.len());
                for item in items {
                    let (node, after) = self.node(item, next)?;
                    nodes.push(node);
                    next = after;
                }
                Ok((Node::new(span, Kind::Sequence(nodes)), next))
            }
            (Raw::Mapping(pairs), MarkShape::Mapping) => self.mapping(pairs, span, at + 1),
            (raw, MarkShape::Scalar(text)) => {
                let kind = scalar(raw, text).ok_or_else(|| disagreement(mark.position))?;
                Ok((Node::new(span, kind), at + 1))
            }
            _ => Err(disagreement(mark.position)),
        }
    }

    fn mapping(&mut self, pairs: Vec<(Raw, Raw)>, span: Span, first: usize) -> Result<(Node, usize), Problem> {
        let mut next = first;
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let position = self.marks.get(next).map_or_else(Position::default, |mark| mark.position);
            let key_span = self.span(position);
            let (key, after) = self.node(key, next)?;
            let Kind::String(key) = key.kind else {
                return Err(key_problem(position, &key));
            };
            let (value, after) = self.node(value, after)?;
            entries.push(Entry { key, key_span, value });
            next = after;
        }
        Ok((Node::new(span, Kind::Mapping(entries)), next))
    }
}

/// A scalar on which both parsers agree.
fn scalar(raw: Raw, text: &str) -> Option<Kind> {
    let agreed = match &raw {
        Raw::Null => matches!(text, "" | "~" | "null" | "Null" | "NULL"),
        Raw::Bool(value) => text.eq_ignore_ascii_case(if *value { "true" } else { "false" }),
        // Other notations (`0x1F`, `1_000`) are left to the parser that knows them.
        Raw::Integer(value) => text.parse::<i64>().is_ok_and(|parsed| parsed == *value) || text.parse::<i64>().is_err(),
        Raw::Float(_) => true,
        Raw::String(value) => value == text,
        Raw::Sequence(_) | Raw::Mapping(_) => false,
    };
    agreed.then_some(match raw {
        Raw::Bool(value) => Kind::Bool(value),
        Raw::Integer(value) => Kind::Integer(value),
        Raw::Float(value) => Kind::Float(value),
        Raw::String(value) => Kind::String(value),
        Raw::Null | Raw::Sequence(_) | Raw::Mapping(_) => Kind::Null,
    })
}

fn disagreement(position: Position) -> Problem {
    let mut problem = Problem::at(position, Code::YamlSyntax, "this YAML can be read in more than one way");
    problem.hint = Some("write it more plainly: put strings in quotes, and use each anchor's name once");
    problem
}

fn key_problem(position: Position, key: &Node) -> Problem {
    let mut problem =
        Problem::at(position, Code::YamlKey, format!("a key must be a string, found {}", key.described()));
    problem.hint = Some(match key.kind {
        Kind::Mapping(_) | Kind::Sequence(_) => "put a value with `{` or `[` in it in quotes",
        _ => "put the key in quotes",
    });
    problem
}

// ---- duplicates and merges ------------------------------------------------------------------------------------------

/// Removes duplicate keys, with a diagnostic each, and puts `<<` merges in their place.
struct Cleaner<'a> {
    diagnostics: &'a mut Diagnostics,
}

impl Cleaner<'_> {
    fn clean(&mut self, node: &mut Node, path: Path<'_>) {
        match &mut node.kind {
            Kind::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.clean(item, path.index(index));
                }
            }
            Kind::Mapping(entries) => {
                self.remove_duplicates(entries, path);
                for entry in entries.iter_mut() {
                    let Entry { key, value, .. } = entry;
                    self.clean(value, path.key(key));
                }
                if entries.iter().any(|entry| entry.key == "<<") {
                    self.merge(entries, path);
                }
            }
            _ => {}
        }
    }

    fn remove_duplicates(&mut self, entries: &mut Vec<Entry>, path: Path<'_>) {
        let mut first: HashMap<&str, u32> = HashMap::new();
        let mut duplicates = Vec::new();
        if entries.len() <= 16 {
            for (index, entry) in entries.iter().enumerate() {
                if let Some(earlier) = entries.iter().take(index).find(|earlier| earlier.key == entry.key) {
                    duplicates.push((index, earlier.key_span.line));
                }
            }
        } else {
            for (index, entry) in entries.iter().enumerate() {
                match first.get(entry.key.as_str()) {
                    Some(line) => duplicates.push((index, *line)),
                    None => drop(first.insert(&entry.key, entry.key_span.line)),
                }
            }
        }
        for (index, line) in duplicates.into_iter().rev() {
            let entry = entries.remove(index);
            let message = format!("the key `{}` is given twice; the first one is in line {line}", entry.key);
            self.diagnostics.error(Code::DuplicateKey, entry.key_span, path.key(&entry.key).to_string(), message);
        }
    }

    /// YAML 1.1's merge key: fields of the merged records that the record itself does not have; the first one wins.
    fn merge(&mut self, entries: &mut Vec<Entry>, path: Path<'_>) {
        let Some(at) = entries.iter().position(|entry| entry.key == "<<") else { return };
        let merge = entries.remove(at);
        let sources = match merge.value.kind {
            Kind::Sequence(items) => items,
            kind => vec![Node { kind, ..merge.value }],
        };
        for source in sources {
            let Kind::Mapping(fields) = source.kind else {
                let message = format!("`<<` merges a record or a list of records, found {}", source.described());
                self.diagnostics.error(Code::WrongType, source.span, path.key("<<").to_string(), message);
                continue;
            };
            for field in fields {
                if !entries.iter().any(|entry| entry.key == field.key) {
                    entries.push(field);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<Node>, String) {
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("f");
        let node = parse(text, file, &Unchanged, &mut diagnostics);
        (node, diagnostics.to_text())
    }

    fn good(text: &str) -> Node {
        let (node, diagnostics) = parsed(text);
        assert_eq!(diagnostics, "", "for {text:?}");
        node.unwrap()
    }

    fn bad(text: &str) -> String {
        let (_, diagnostics) = parsed(text);
        assert!(!diagnostics.is_empty(), "no diagnostic for {text:?}");
        diagnostics
    }

    #[test]
    fn values_have_types_and_places() {
        let node = good("a: 1\nb:\n  - x\n  - {c: true, ü: ~}\nd: 1.5\ne: \"1\"\nf: yes\n");
        assert_eq!(node.at("a").unwrap().kind, Kind::Integer(1));
        assert_eq!((node.span_at("b[1].c").line, node.span_at("b[1].c").column), (4, 9));
        assert_eq!(node.entry("b").unwrap().value.items().len(), 2);
        assert_eq!(node.at("b[1].ü").unwrap().span, Span { file: 0, line: 4, column: 18 });
        assert_eq!(node.at("d").unwrap().kind, Kind::Float(1.5));
        assert_eq!(node.at("e").unwrap().kind, Kind::String("1".into()));
        assert_eq!(node.at("f").unwrap().kind, Kind::String("yes".into()));
    }

    #[test]
    fn json_is_yaml() {
        let node = good("{\"a\": [1, {\"b\": null}], \"c\": \"x\\u0041\"}");
        assert_eq!(node.at("c").unwrap().as_str(), Some("xA"));
    }

    #[test]
    fn block_scalars_and_quotes_agree_in_both_parsers() {
        for text in [
            "a: |\n  x\n  y\n",
            "a: >\n  x\n  y\n\n  z\n",
            "a: |-\n  x\n",
            "a: |+\n  x\n\nb: 1\n",
            "a: 'it''s'\n",
            "a: \"x\\n\\ty\\\n  z\"\n",
            "a: x y\n  z\n",
            "a: !!str 5\nb: !!int \"7\"\n",
            "a: 0x1F\nb: 0o17\nc: -3\nd: +4\ne: 007\nf: 1_000\ng: .inf\nh: 1e3\n",
            "a:\nb: ''\n? c\n: d\n",
            "a: [1, 2,]\nb: {c: 1,}\n",
            "a: http://x/y?z=1#frag\nb: x # comment\n",
        ] {
            good(text);
        }
    }

    #[test]
    fn aliases_repeat_a_value_at_the_place_of_its_anchor() {
        let node = good("a: &x\n  b: 1\nc: *x\nd: 2\n");
        assert_eq!(node.at("c.b").unwrap().span.line, 2);
        assert_eq!(node.at("d").unwrap().span.line, 4);
    }

    #[test]
    fn merges_fill_in_what_is_missing() {
        let node = good("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 9\n");
        let z: Vec<_> = node.at("z").unwrap().entries().iter().map(|e| (e.key.as_str(), e.value.text())).collect();
        assert_eq!(z, [("a", "9".to_owned()), ("b", "2".to_owned()), ("c", "4".to_owned())]);
    }

    #[test]
    fn a_redefined_anchor_is_never_read_wrongly() {
        for text in ["a: &x 1\nb: &x 2\nc: &y 3\nd: *x\n", "a: &x q\nb: &x r\nc: &y s\nd: *x\n"] {
            let (node, diagnostics) = parsed(text);
            let d = node.as_ref().and_then(|node| node.at("d")).map(Node::text);
            assert!(d.is_none_or(|d| d == "2" || d == "r"), "{diagnostics}");
        }
    }

    #[test]
    fn every_duplicate_key_is_reported() {
        let text = bad("a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n");
        assert_eq!(text.matches("duplicate_key").count(), 3, "{text}");
        assert!(text.contains("f:2:11: error[config::duplicate_key]: b.c: the key `c` is given twice; the first one is in line 2"), "{text}");
        assert!(text.contains("f:4:1"), "{text}");
    }

    #[test]
    fn syntax_errors_say_where_the_parser_stopped_and_why() {
        for (text, expected) in [
            ("a:\n\tb: 1\n", "f:2:1: error[config::yaml_syntax]: invalid YAML: a tab cannot indent a line (use spaces)"),
            ("a: b: c\n", "f:1:5: error[config::yaml_syntax]: invalid YAML: a `: ` is not allowed here"),
            ("a: [1, 2\nb: 3\n", "f:2:2: error[config::yaml_syntax]: invalid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4"),
            ("a: @x\n", "f:1:4: error[config::yaml_syntax]: invalid YAML: a value cannot begin with `@`"),
            ("a: *nope\n", "f:1:4: error[config::yaml_syntax]: invalid YAML: this alias refers to an anchor that is not defined"),
            ("a:\n  - b\n - c\n", "f:3:2: error[config::yaml_syntax]: invalid YAML: expected a key here"),
            ("a: x\u{7}\n", "f:1:5: error[config::yaml_syntax]: control character 0x07"),
            ("a: 1\n---\nb: 2\n", "f:2:1: error[config::yaml_syntax]: a second YAML document begins here"),
            ("a: !foo 1\n", "f:1:9: error[config::yaml_tag]: the YAML tag `!foo` has no meaning here"),
            ("1: a\n", "f:1:1: error[config::yaml_key]: a key must be a string, found the integer `1`"),
            ("a: {{ x }}\n", "f:1:5: error[config::yaml_key]"),
            ("", "f:1:1: error[config::empty_document]: the file has no content"),
            ("# only a comment\n", "f:1:1: error[config::empty_document]"),
        ] {
            let found = bad(text);
            assert!(found.starts_with(expected), "for {text:?}:\n{found}");
        }
    }

    #[test]
    fn what_would_blow_up_is_refused() {
        let deep = "[".repeat(20_000);
        assert!(bad(&deep).contains("config::yaml_limit"));
        let records = "{a: ".repeat(40_000);
        assert!(bad(&records).contains("config::yaml_limit"));
        assert!(bad(&"- ".repeat(1000)).contains("nested more than"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
        }
        assert!(bad(&bomb).contains("aliases expand to too many values"), "{}", bad(&bomb));
        assert!(bad("a: &x [*x]\n").contains("config::yaml_limit"));
    }

    #[test]
    fn big_files_are_read_by_both_parsers_at_once_with_the_same_result() {
        let mut text = String::from("services:\n");
        for index in 0..5000 {
            text += &format!("- name: s{index}\n  url: http://h/{index}\n");
        }
        let node = good(&text);
        assert_eq!(node.at("services[4999].name").unwrap().span, Span { file: 0, line: 10000, column: 9 });
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_key() {
        assert_eq!(good("\u{feff}a: 1\n").at("a").unwrap().span.column, 4);
    }
}
