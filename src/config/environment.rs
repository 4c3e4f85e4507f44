//! Values from the environment in the text of a file: `${{ env "DECK_X" }}`. Those of whole strings are in `vaults`.

use std::collections::BTreeSet;

use super::diagnostics::{Code, Diagnostics, Span};
use super::yaml::Origin;

/// Gives the value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text in which `${{ … }}` was replaced, and the way back to the places in the file.
#[derive(Debug)]
pub struct Substituted {
    pub text: String,
    edits: Vec<Edit>,
    /// Character index of each line's beginning, in the result and in the file. Empty without edits.
    new_lines: Vec<usize>,
    old_lines: Vec<usize>,
    /// Lines of the file with a replacement that failed: what else is wrong there is its consequence.
    pub failed_lines: BTreeSet<u32>,
}

/// One replacement, in character indexes.
#[derive(Debug, Clone, Copy)]
struct Edit {
    new_start: usize,
    new_end: usize,
    old_start: usize,
    old_end: usize,
}

impl Origin for Substituted {
    fn place(&self, line: u32, column: u32) -> (u32, u32) {
        if self.edits.is_empty() {
            return (line, column);
        }
        let line_start = self
            .new_lines
            .get(line.saturating_sub(1) as usize)
            .copied()
            .unwrap_or(0);
        let new = line_start + column.saturating_sub(1) as usize;
        let before = self.edits.partition_point(|edit| edit.new_start <= new);
        let old = match before.checked_sub(1).and_then(|last| self.edits.get(last)) {
            None => new,
            Some(edit) if new < edit.new_end => edit.old_start,
            Some(edit) => edit.old_end + (new - edit.new_end),
        };
        place_in(&self.old_lines, old)
    }
}

fn place_in(lines: &[usize], index: usize) -> (u32, u32) {
    let line = lines.partition_point(|&start| start <= index).max(1);
    let column = index - lines.get(line - 1).copied().unwrap_or(0) + 1;
    (
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
    )
}

fn line_starts(text: &str) -> Vec<usize> {
    let breaks = text
        .chars()
        .enumerate()
        .filter(|&(_, character)| character == '\n')
        .map(|(index, _)| index + 1);
    std::iter::once(0).chain(breaks).collect()
}

const OPEN: &str = "${{";
const CLOSE: &str = "}}";
/// Stands where a value could not be had, so that the rest of the file can still be checked.
const PLACEHOLDER: &str = "0";

/// Replaces every `${{ env "DECK_X" }}` of a file. What cannot be replaced is a diagnostic at its place.
pub fn substitute(
    text: String,
    file: u16,
    environment: Environment<'_>,
    diagnostics: &mut Diagnostics,
) -> Substituted {
    if !text.contains(OPEN) {
        let (edits, new_lines, old_lines) = (Vec::new(), Vec::new(), Vec::new());
        return Substituted {
            text,
            edits,
            new_lines,
            old_lines,
            failed_lines: BTreeSet::new(),
        };
    }
    let old_lines = line_starts(&text);
    let mut result = String::with_capacity(text.len());
    let mut edits = Vec::new();
    let mut failed_lines = BTreeSet::new();
    let (mut old, mut new) = (0, 0);
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(OPEN) {
        let skipped = before.chars().count();
        (old, new) = (old + skipped, new + skipped);
        result.push_str(before);
        let (line, column) = place_in(&old_lines, old);
        let span = Span { file, line, column };
        let (expression, remaining) = match after.split_once(CLOSE) {
            Some((expression, remaining)) if !expression.contains('\n') => {
                (Ok(expression), remaining)
            }
            _ => (
                Err("`${{` is not closed by `}}` in its line".to_owned()),
                after,
            ),
        };
        let consumed = rest.len() - remaining.len();
        let consumed = rest.get(..consumed).map_or(0, |part| part.chars().count()) - skipped;
        let value = expression
            .and_then(|expression| evaluate(expression, environment))
            .unwrap_or_else(|message| {
                failed_lines.insert(line);
                diagnostics.error(Code::Environment, span, "", message);
                PLACEHOLDER.to_owned()
            });
        let length = value.chars().count();
        edits.push(Edit {
            new_start: new,
            new_end: new + length,
            old_start: old,
            old_end: old + consumed,
        });
        (old, new) = (old + consumed, new + length);
        result.push_str(&value);
        rest = remaining;
    }
    result.push_str(rest);
    Substituted {
        new_lines: line_starts(&result),
        text: result,
        edits,
        old_lines,
        failed_lines,
    }
}

/// The value of `env "DECK_X" | function …`.
fn evaluate(expression: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut parts = expression.split('|').map(str::trim);
    let call = parts.next().unwrap_or_default();
    let name = call
        .strip_prefix("env")
        .map(str::trim)
        .and_then(|argument| {
            ['"', '\'', '`']
                .into_iter()
                .find_map(|quote| argument.strip_prefix(quote)?.strip_suffix(quote))
        })
        .ok_or_else(|| {
            format!(
                "`${{{{ {} }}}}` is not understood; write `${{{{ env \"DECK_NAME\" }}}}`",
                expression.trim()
            )
        })?;
    if !name.starts_with("DECK_") {
        return Err(format!(
            "environment variable `{name}` cannot be used: its name must begin with DECK_"
        ));
    }
    let value =
        environment(name).ok_or_else(|| format!("environment variable `{name}` is not set"))?;
    parts.try_fold(value, |value, function| apply(function, &value, name))
}

fn apply(function: &str, value: &str, name: &str) -> Result<String, String> {
    let misfit = |kind: &str| format!("environment variable `{name}` does not hold {kind}");
    match function {
        "toInt" => value
            .trim()
            .parse::<i64>()
            .map(|number| number.to_string())
            .map_err(|_| misfit("an integer")),
        "toFloat" => match value.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number.to_string()),
            _ => Err(misfit("a number")),
        },
        "toBool" => match value.trim() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok("true".to_owned()),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok("false".to_owned()),
            _ => Err(misfit("a boolean")),
        },
        _ => match function
            .strip_prefix("indent ")
            .and_then(|count| count.trim().parse::<usize>().ok())
        {
            Some(count) if count <= 1000 => {
                let blanks = " ".repeat(count);
                Ok(format!(
                    "{blanks}{}",
                    value.replace('\n', &format!("\n{blanks}"))
                ))
            }
            _ => Err(format!(
                "`{function}` is not known; there are toInt, toBool, toFloat and `indent N`"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "DECK_HOST" => "orders.internal",
            "DECK_PORT" => "8080",
            "DECK_LINES" => "a\nb",
            "DECK_WORD" => "wörd",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn run(text: &str) -> (Substituted, String) {
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("f");
        let result = substitute(text.to_owned(), file, &environment, &mut diagnostics);
        (result, diagnostics.to_text())
    }

    #[test]
    fn variables_are_replaced_in_the_text() {
        let (result, diagnostics) = run(
            "url: http://${{ env \"DECK_HOST\" }}:${{env 'DECK_PORT'}}/\nport: ${{ env \"DECK_PORT\" | toInt }}\n",
        );
        assert_eq!(
            result.text,
            "url: http://orders.internal:8080/\nport: 8080\n"
        );
        assert_eq!(diagnostics, "");
    }

    #[test]
    fn places_still_refer_to_the_file_as_written() {
        let (result, _) =
            run("a: ${{ env \"DECK_HOST\" }} # x\nb: ${{ env \"DECK_LINES\" | indent 2 }}\nc: 1\n");
        assert_eq!(result.text, "a: orders.internal # x\nb:   a\n  b\nc: 1\n");
        assert_eq!(result.place(1, 1), (1, 1));
        assert_eq!(result.place(1, 6), (1, 4), "inside a value");
        assert_eq!(result.place(1, 20), (1, 27), "behind a value");
        assert_eq!(result.place(4, 1), (3, 1), "behind a value of two lines");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named_at_its_place() {
        let (result, diagnostics) =
            run("a: 1\nb: ${{ env \"DECK_NOPE\" }}\nc: ${{ env \"HOME\" }}\n");
        assert_eq!(
            diagnostics,
            "f:2:4: error[config::environment]: environment variable `DECK_NOPE` is not set\n\
             f:3:4: error[config::environment]: environment variable `HOME` cannot be used: its name must begin with DECK_\n"
        );
        assert_eq!(result.failed_lines.into_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn values_that_do_not_convert_are_refused_without_being_shown() {
        let (_, diagnostics) = run("a: ${{ env \"DECK_HOST\" | toInt }}\n");
        assert!(diagnostics.contains("`DECK_HOST` does not hold an integer"));
        assert!(!diagnostics.contains("orders"));
        for text in [
            "${{ DECK_HOST }}",
            "${{ env \"DECK_HOST\"",
            "${{ env \"DECK_HOST\" | upper }}",
        ] {
            assert!(run(text).1.contains("config::environment"), "{text}");
        }
    }
}
