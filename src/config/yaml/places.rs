//! Where each value of a document stands, by the events of `saphyr-parser`.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Tag};

use super::super::diagnostics::Code;
use super::{DEPTH_MAX, Position, Problem};

/// One node of the document in the order of the text; the nodes inside a list or record follow it.
#[derive(Debug)]
pub(super) struct Mark<'a> {
    pub(super) position: Position,
    pub(super) shape: MarkShape<'a>,
}

#[derive(Debug)]
pub(super) enum MarkShape<'a> {
    Scalar(Cow<'a, str>),
    Sequence,
    Mapping,
    /// The index of the mark that carries the anchor.
    Alias(usize),
}

pub(super) fn read_marks(text: &str) -> Result<Vec<Mark<'_>>, Problem> {
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
            Event::Alias(id) => (
                MarkShape::Alias(anchors.get(&id).copied().unwrap_or(0)),
                0,
                None,
            ),
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
    let mut problem = Problem::at(
        position,
        Code::YamlTag,
        format!(
            "the YAML tag `{}{}` has no meaning here",
            tag.handle, tag.suffix
        ),
    );
    problem.hint = Some("remove the tag, or put the value in quotes if the `!` belongs to it");
    problem
}

fn scan_problem(error: &saphyr_parser::ScanError) -> Problem {
    let position = Position::of(*error.marker());
    if error.info().contains("recursion limit") {
        return Problem::at(
            position,
            Code::YamlLimit,
            format!("nested more than {DEPTH_MAX} levels deep"),
        );
    }
    Problem::at(
        position,
        Code::YamlSyntax,
        format!("invalid YAML: {}", error.info()),
    )
}
