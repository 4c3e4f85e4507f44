//! How a line of the log looks: `<RFC 3339 time> <LEVEL> <message> <name>=<value> …`.

use std::fmt::{self, Debug, Write};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The longest text of one event; more is cut off, so that the queue of lines stays small.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Formats an event as one line, whatever its fields contain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        SystemTime.format_time(&mut line)?;
        line.write_char(' ')?;
        write_level(&mut line, *event.metadata().level())?;
        let text = parts.text();
        line.write_str(&text)?;
        line.write_char('\n')
    }
}

fn write_level(line: &mut Writer<'_>, level: Level) -> fmt::Result {
    let (name, colour) = match level {
        Level::ERROR => ("ERROR", "31"),
        Level::WARN => ("WARN ", "33"),
        Level::INFO => ("INFO ", "32"),
        Level::DEBUG => ("DEBUG", "34"),
        Level::TRACE => ("TRACE", "35"),
    };
    if line.has_ansi_escapes() {
        write!(line, "\u{1b}[{colour}m{name}\u{1b}[0m ")
    } else {
        write!(line, "{name} ")
    }
}

/// The message and the fields of an event.
#[derive(Debug, Default)]
struct Parts {
    message: String,
    fields: String,
}

impl Parts {
    fn text(self) -> String {
        let mut text = self.message;
        text.push_str(&self.fields);
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        text
    }

    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            escape_into(&mut self.message, value);
            return;
        }
        self.fields.push(' ');
        self.fields.push_str(field.name());
        self.fields.push('=');
        let plain =
            !value.is_empty() && !value.contains([' ', '"', '=']) && !value.contains(breaks_a_line);
        if plain || is_quoted(value) {
            escape_into(&mut self.fields, value);
        } else {
            // What `Debug` makes of a text is quoted and on one line.
            let _ = write!(self.fields, "{value:?}");
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Whether a value was quoted by its own `Debug`.
fn is_quoted(value: &str) -> bool {
    value.len() > 1 && value.starts_with('"') && value.ends_with('"')
}

/// Characters that would end a line, drive a terminal, or turn the direction of what follows.
fn breaks_a_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_into(text: &mut String, value: &str) {
    for character in value.chars() {
        if breaks_a_line(character) {
            text.extend(character.escape_debug());
        } else {
            text.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        escape_into(&mut text, value);
        text
    }

    #[test]
    fn a_client_cannot_forge_a_line_or_drive_a_terminal() {
        assert_eq!(escaped("a\r\nb"), r"a\r\nb");
        assert_eq!(escaped("\u{1b}[31m"), r"\u{1b}[31m");
        assert_eq!(escaped("a\u{202e}b"), r"a\u{202e}b");
        assert_eq!(escaped("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn a_line_has_an_end() {
        let parts = Parts {
            message: "ä".repeat(TEXT_BYTES_MAX),
            fields: String::new(),
        };
        let text = parts.text();
        assert!(text.len() <= TEXT_BYTES_MAX + '…'.len_utf8());
        assert!(text.ends_with('…'));
    }
}
