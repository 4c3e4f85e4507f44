//! From text to a value tree, behind which both YAML parsers live.
//!
//! `serde_yaml` reads the values and `saphyr-parser` says where each of them stands; the two are zipped. Aliases and
//! `<<` merges are resolved here, and what could blow up (depth, size, aliases) is bounded here.

mod clean;
mod places;
mod values;

use saphyr_parser::Marker;

use self::clean::Cleaner;
use self::places::{Mark, MarkShape, read_marks};
use self::values::{Raw, ValueError, read_values};
use super::diagnostics::{Code, Diagnostics, Span, place_after};
use super::node::{Entry, Kind, Node, Path};

/// The largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How deeply lists and records may be nested.
const DEPTH_MAX: usize = 64;
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
pub fn parse(
    text: &str,
    file: u16,
    origin: &dyn Origin,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
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
        Self {
            code,
            line,
            column,
            message: message.into(),
            hint: None,
        }
    }

    fn report(self, file: u16, origin: &dyn Origin, diagnostics: &mut Diagnostics) {
        let (line, column) = origin.place(self.line, self.column);
        let diagnostic =
            diagnostics.error(self.code, Span { file, line, column }, "", self.message);
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
    let forbidden =
        |byte: u8| (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0x7f;
    let at = text.bytes().position(forbidden)?;
    let before = text.get(..at)?;
    let (line, column) = place_after(before);
    let byte = text.as_bytes().get(at)?;
    let mark = Position { line, column };
    Some(Problem::at(
        mark,
        Code::YamlSyntax,
        format!("control character 0x{byte:02x} is not allowed in YAML"),
    ))
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
        (Err(problem), Some(error)) if problem.code == Code::YamlSyntax => {
            return Err(syntax_problem(problem, error, text));
        }
        (Err(problem), _) => return Err(problem),
    };
    let Ok(raw) = raw else {
        return Err(ValueError::unknown().to_problem());
    };
    let mut zip = Zip {
        marks: &marks,
        file,
        origin,
    };
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

/// Both parsers gave up: `serde_yaml` explains better (it says what it was in the middle of), and a few causes deserve
/// words of our own.
fn syntax_problem(scan: Problem, value: &ValueError, text: &str) -> Problem {
    let mut problem = match value.position {
        Some(_) => value.to_problem(),
        None => scan,
    };
    let line = text
        .lines()
        .nth(problem.line.saturating_sub(1) as usize)
        .unwrap_or_default();
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
        "invalid YAML: this alias refers to an anchor that is not defined above it"
            .clone_into(&mut problem.message);
        problem.hint = Some("put the value in quotes if the `*` belongs to it");
    }
    problem
}

struct Zip<'a> {
    marks: &'a [Mark<'a>],
    file: u16,
    origin: &'a dyn Origin,
}

impl Zip<'_> {
    fn span(&self, position: Position) -> Span {
        let (line, column) = self.origin.place(position.line, position.column);
        Span {
            file: self.file,
            line,
            column,
        }
    }

    /// Joins a value with the mark at `at`; also gives the index of the mark after it.
    fn node(&mut self, raw: Raw, at: usize) -> Result<(Node, usize), Problem> {
        let marks = self.marks;
        let mark = marks
            .get(at)
            .ok_or_else(|| disagreement(Position::default()))?;
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

    fn mapping(
        &mut self,
        pairs: Vec<(Raw, Raw)>,
        span: Span,
        first: usize,
    ) -> Result<(Node, usize), Problem> {
        let mut next = first;
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let position = self
                .marks
                .get(next)
                .map_or_else(Position::default, |mark| mark.position);
            let key_span = self.span(position);
            let (key, after) = self.node(key, next)?;
            let Kind::String(key) = key.kind else {
                return Err(key_problem(position, &key));
            };
            let (value, after) = self.node(value, after)?;
            entries.push(Entry {
                key,
                key_span,
                value,
            });
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
        Raw::Integer(value) => {
            text.parse::<i64>().is_ok_and(|parsed| parsed == *value) || text.parse::<i64>().is_err()
        }
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
    let mut problem = Problem::at(
        position,
        Code::YamlSyntax,
        "this YAML can be read in more than one way",
    );
    problem.hint =
        Some("write it more plainly: put strings in quotes, and use each anchor's name once");
    problem
}

fn key_problem(position: Position, key: &Node) -> Problem {
    let mut problem = Problem::at(
        position,
        Code::YamlKey,
        format!("a key must be a string, found {}", key.described()),
    );
    problem.hint = Some(match key.kind {
        Kind::Mapping(_) | Kind::Sequence(_) => "put a value with `{` or `[` in it in quotes",
        _ => "put the key in quotes",
    });
    problem
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

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
        assert_eq!(
            (node.span_at("b[1].c").line, node.span_at("b[1].c").column),
            (4, 9)
        );
        assert_eq!(node.entry("b").unwrap().value.items().len(), 2);
        assert_eq!(
            node.at("b[1].ü").unwrap().span,
            Span {
                file: 0,
                line: 4,
                column: 18
            }
        );
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
        let z: Vec<_> = node
            .at("z")
            .unwrap()
            .entries()
            .iter()
            .map(|e| (e.key.as_str(), e.value.text()))
            .collect();
        assert_eq!(
            z,
            [
                ("a", "9".to_owned()),
                ("b", "2".to_owned()),
                ("c", "4".to_owned())
            ]
        );
    }

    #[test]
    fn a_redefined_anchor_is_never_read_wrongly() {
        for text in [
            "a: &x 1\nb: &x 2\nc: &y 3\nd: *x\n",
            "a: &x q\nb: &x r\nc: &y s\nd: *x\n",
        ] {
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
            (
                "a:\n\tb: 1\n",
                "f:2:1: error[config::yaml_syntax]: invalid YAML: a tab cannot indent a line (use spaces)",
            ),
            (
                "a: b: c\n",
                "f:1:5: error[config::yaml_syntax]: invalid YAML: a `: ` is not allowed here",
            ),
            (
                "a: [1, 2\nb: 3\n",
                "f:2:2: error[config::yaml_syntax]: invalid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4",
            ),
            (
                "a: @x\n",
                "f:1:4: error[config::yaml_syntax]: invalid YAML: a value cannot begin with `@`",
            ),
            (
                "a: *nope\n",
                "f:1:4: error[config::yaml_syntax]: invalid YAML: this alias refers to an anchor that is not defined",
            ),
            (
                "a:\n  - b\n - c\n",
                "f:3:2: error[config::yaml_syntax]: invalid YAML: expected a key here",
            ),
            (
                "a: x\u{7}\n",
                "f:1:5: error[config::yaml_syntax]: control character 0x07",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "f:2:1: error[config::yaml_syntax]: a second YAML document begins here",
            ),
            (
                "a: !foo 1\n",
                "f:1:9: error[config::yaml_tag]: the YAML tag `!foo` has no meaning here",
            ),
            (
                "1: a\n",
                "f:1:1: error[config::yaml_key]: a key must be a string, found the integer `1`",
            ),
            ("a: {{ x }}\n", "f:1:5: error[config::yaml_key]"),
            (
                "",
                "f:1:1: error[config::empty_document]: the file has no content",
            ),
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
            let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![before; 9].join(", "));
        }
        assert!(
            bad(&bomb).contains("aliases expand to too many values"),
            "{}",
            bad(&bomb)
        );
        assert!(bad("a: &x [*x]\n").contains("config::yaml_limit"));
    }

    #[test]
    fn big_files_are_read_by_both_parsers_at_once_with_the_same_result() {
        let mut text = String::from("services:\n");
        for index in 0..5000 {
            let _ = write!(text, "- name: s{index}\n  url: http://h/{index}\n");
        }
        let node = good(&text);
        assert_eq!(
            node.at("services[4999].name").unwrap().span,
            Span {
                file: 0,
                line: 10000,
                column: 9
            }
        );
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_key() {
        assert_eq!(good("\u{feff}a: 1\n").at("a").unwrap().span.column, 4);
    }
}
