//! What is wrong with a configuration: collected, sorted by place, told to people or to programs.
//! It does not find mistakes; every other file of `config` and `compile` adds to it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;

/// A place in a file: the index of the file and a line and column, both counted from 1, in characters. Both are 0 for
/// what has no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index into the files that the [`Diagnostics`] know.
    pub file: u16,
    pub line: u32,
    pub column: u32,
}

impl Span {
    /// Something as a whole that is called like a file, but has no lines.
    pub const fn whole(file: u16) -> Self {
        Self {
            file,
            line: 0,
            column: 0,
        }
    }

    /// The very beginning of a file.
    pub const fn start_of(file: u16) -> Self {
        Self {
            file,
            line: 1,
            column: 1,
        }
    }
}

/// The line and column, both from 1, of what follows `before`.
pub(super) fn place_after(before: &str) -> (u32, u32) {
    let line = before.matches('\n').count() + 1;
    let of_line = before.rsplit('\n').next().unwrap_or_default();
    let column = of_line.chars().count() + 1;
    let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (small(line), small(column))
}

macro_rules! codes {
    ($($variant:ident = $text:literal: $explanation:literal;)*) => {
        /// The stable name of a kind of mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $explanation] $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it is printed, such as `config::unknown_field`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// One line for the documentation.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }
        }
    };
}

codes! {
    UnreadableFile = "config::unreadable_file": "A file or folder cannot be read.";
    YamlSyntax = "config::yaml_syntax": "The file is not YAML; the place is where the parser stopped.";
    YamlLimit = "config::yaml_limit": "The file is too large, too deeply nested, or its aliases expand to too much.";
    YamlTag = "config::yaml_tag": "A YAML tag such as `!foo` has no meaning here.";
    YamlKey = "config::yaml_key": "A key of a record is not a string.";
    DuplicateKey = "config::duplicate_key": "A key is given twice in one record.";
    EmptyDocument = "config::empty_document": "The file has no content; that is never taken for \"no services\".";
    Environment = "config::environment": "An environment variable that the file refers to is missing or does not fit.";
    FormatVersion = "config::format_version": "`_format_version` is missing or unknown.";
    UnknownField = "config::unknown_field": "A record has a key that nothing reads.";
    MissingField = "config::missing_field": "A required field is missing or null.";
    WrongType = "config::wrong_type": "A value is of the wrong type; nothing is converted.";
    OutOfRange = "config::out_of_range": "A number, or the length of a string or list, is outside its limits.";
    NotAllowed = "config::not_allowed": "A value is not one of those that the field takes.";
    InvalidValue = "config::invalid_value": "A value has the right type but breaks the rule of its field.";
    InvalidCombination = "config::invalid_combination": "Two or more fields do not go together.";
    UnsupportedField = "config::unsupported_field": "A field of Kong's that this version does not implement.";
    UnsupportedValue = "config::unsupported_value": "A value of Kong's that this version does not implement.";
    UnsupportedEntity = "config::unsupported_entity": "An entity of Kong's that this version does not implement.";
    MisplacedField = "config::misplaced_field": "A field is right, but not in this file.";
    UnknownReference = "config::unknown_reference": "A reference names an entity that does not exist.";
    Duplicate = "config::duplicate": "Two entities share what must be unique.";
    Ignored = "config::ignored": "Something is accepted but has no effect (warning).";
    Deprecated = "config::deprecated": "Something is accepted but should be written differently (warning).";
    ShadowedRoute = "config::shadowed_route": "No request can reach a route, for another one takes all that it matches and goes first (warning).";
    Unresolvable = "config::unresolvable": "A host is no name that DNS can have, and not the name of an upstream (warning).";
    SharedAddress = "config::shared_address": "Two listeners are to listen on one address.";
    GeneratedKey = "config::generated_key": "A credential without a key got a random one that nobody knows (warning).";
    CannotListen = "config::cannot_listen": "An address that a reload adds cannot be listened on.";
    GeneratedCertificate = "config::generated_certificate": "A listener with TLS has no certificate, so a self-signed one is made that no client trusts (warning).";
    Expiry = "config::expiry": "A certificate has expired, will within two weeks, or is not valid yet (a warning, unless it would replace one that is live).";
    UnknownPlugin = "plugin::unknown": "A plugin's name is not known, or `gateway.plugins` does not allow it.";
    UnsupportedPlugin = "plugin::unsupported": "A plugin of Kong's that this version does not have.";
    PluginScope = "plugin::scope": "A plugin cannot be put on this kind of entity.";
    PluginConfig = "plugin::config": "A plugin refuses its configuration.";
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether a mistake keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    pub span: Span,
    /// The dotted path, such as `services[0].retries`; empty for a whole file.
    pub path: String,
    /// What is wrong: one line, lowercase, no final period.
    pub message: String,
    /// The offending value as it was written; never that of a secret field.
    pub value: Option<String>,
    /// A way out, such as ``did you mean `retries`?``.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Adds the offending value, for programs; the message should already show it to people.
    pub fn value(&mut self, value: impl Into<String>) -> &mut Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a way out.
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds ``did you mean `…`?`` if there is something to propose.
    pub fn did_you_mean(&mut self, nearest: Option<&str>) -> &mut Self {
        if let Some(nearest) = nearest {
            self.hint = Some(format!("did you mean `{nearest}`?"));
        }
        self
    }
}

/// All that is wrong with a configuration, across its files.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    files: Vec<String>,
    list: Vec<Diagnostic>,
}

/// One mistake as a program reads it.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    severity: Severity,
    code: &'static str,
    path: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Diagnostics {
    /// Makes a file known under the name that diagnostics show, and gives its index for spans.
    pub fn add_file(&mut self, name: impl Into<String>) -> u16 {
        self.files.push(name.into());
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The names of all files, by their indexes.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// The name of a file by its index.
    pub fn file(&self, index: u16) -> &str {
        self.files
            .get(usize::from(index))
            .map_or("?", String::as_str)
    }

    /// Records a mistake that makes the configuration unusable.
    pub fn error(
        &mut self,
        code: Code,
        span: Span,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.record(Severity::Error, code, span, path.into(), message.into())
    }

    /// Records something that the operator should know, but that does no harm.
    pub fn warning(
        &mut self,
        code: Code,
        span: Span,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.record(Severity::Warning, code, span, path.into(), message.into())
    }

    fn record(
        &mut self,
        severity: Severity,
        code: Code,
        span: Span,
        path: String,
        message: String,
    ) -> &mut Diagnostic {
        self.list.push(Diagnostic {
            severity,
            code,
            span,
            path,
            message,
            value: None,
            hint: None,
        });
        self.list.last_mut().expect("one was just pushed")
    }

    /// The same mistakes with `subject` before each message.
    #[must_use]
    pub fn about(mut self, subject: &str) -> Self {
        for diagnostic in &mut self.list {
            diagnostic.message.insert_str(0, subject);
        }
        self
    }

    /// Takes over everything that another list recorded about the same files.
    pub fn absorb(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Forgets what stands on lines where a value from the environment is missing, but for that mistake itself.
    pub(super) fn drop_consequences(&mut self, failed: &BTreeSet<(u16, u32)>) {
        self.list.retain(|diagnostic| {
            let place = (diagnostic.span.file, diagnostic.span.line);
            diagnostic.code == Code::Environment || !failed.contains(&place)
        });
    }

    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.list
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether a mistake of this kind was found.
    pub fn has(&self, code: Code) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.code == code)
    }

    /// How many mistakes make the configuration unusable.
    pub fn error_count(&self) -> usize {
        self.list
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .count()
    }

    /// How many remarks there are beside the errors.
    pub fn warning_count(&self) -> usize {
        self.list.len() - self.error_count()
    }

    /// Whether there is nothing to say at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Everything that was recorded, in the order of files, lines and columns.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut sorted: Vec<&Diagnostic> = self.list.iter().collect();
        sorted.sort_by_key(|diagnostic| diagnostic.span);
        sorted
    }

    /// `FILE:LINE:COLUMN` of a place, `FILE` of what has no lines.
    pub fn place(&self, span: Span) -> String {
        if span.line == 0 {
            return self.file(span.file).to_owned();
        }
        format!("{}:{}:{}", self.file(span.file), span.line, span.column)
    }

    /// One line for people: `FILE:LINE:COL: error[code]: path: message (hint)`.
    pub fn line(&self, diagnostic: &Diagnostic) -> String {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut line = format!(
            "{}: {severity}[{}]: ",
            self.place(diagnostic.span),
            diagnostic.code
        );
        if !diagnostic.path.is_empty() {
            let _ = write!(line, "{}: ", one_line(&diagnostic.path));
        }
        line.push_str(&one_line(&diagnostic.message));
        if let Some(hint) = &diagnostic.hint {
            let _ = write!(line, " ({})", one_line(hint));
        }
        line
    }

    /// Everything for people: one line each, with a line end.
    pub fn to_text(&self) -> String {
        self.sorted()
            .into_iter()
            .fold(String::new(), |mut text, diagnostic| {
                text.push_str(&self.line(diagnostic));
                text.push('\n');
                text
            })
    }

    /// Everything for programs: a JSON array of objects with the members
    /// `file line column severity code path message` and, where known, `value hint`.
    pub fn to_json(&self) -> String {
        let reports: Vec<Report<'_>> = self
            .sorted()
            .into_iter()
            .map(|diagnostic| self.report(diagnostic))
            .collect();
        serde_json::to_string_pretty(&reports).unwrap_or_else(|_| "[]".to_owned())
    }

    fn report<'a>(&'a self, diagnostic: &'a Diagnostic) -> Report<'a> {
        Report {
            file: self.file(diagnostic.span.file),
            line: diagnostic.span.line,
            column: diagnostic.span.column,
            severity: diagnostic.severity,
            code: diagnostic.code.as_str(),
            path: &diagnostic.path,
            message: &diagnostic.message,
            value: diagnostic.value.as_deref(),
            hint: diagnostic.hint.as_deref(),
        }
    }
}

/// Control characters become escapes, so that a value from a file can neither start a line of its own nor act on a
/// terminal.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        let file = diagnostics.add_file("gateway.yaml");
        diagnostics.warning(
            Code::Ignored,
            Span {
                file,
                line: 9,
                column: 1,
            },
            "_konnect",
            "has no effect here",
        );
        diagnostics
            .error(
                Code::UnknownField,
                Span {
                    file,
                    line: 3,
                    column: 5,
                },
                "services[0].retires",
                "unknown field `retires`",
            )
            .value("5")
            .did_you_mean(Some("retries"));
        diagnostics
    }

    #[test]
    fn text_has_one_line_each_in_the_order_of_places() {
        assert_eq!(
            sample().to_text(),
            "gateway.yaml:3:5: error[config::unknown_field]: services[0].retires: unknown field `retires` (did you mean `retries`?)\n\
             gateway.yaml:9:1: warning[config::ignored]: _konnect: has no effect here\n"
        );
    }

    #[test]
    fn json_carries_every_part() {
        let reports: serde_json::Value = serde_json::from_str(&sample().to_json()).unwrap();
        assert_eq!(
            reports[0],
            serde_json::json!({
                "file": "gateway.yaml", "line": 3, "column": 5, "severity": "error", "code": "config::unknown_field",
                "path": "services[0].retires", "message": "unknown field `retires`", "value": "5",
                "hint": "did you mean `retries`?",
            })
        );
        assert_eq!(reports[1]["severity"], "warning");
    }

    #[test]
    fn warnings_are_not_errors() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.warning(Code::Ignored, Span::default(), "", "x");
        assert!(!diagnostics.has_errors());
        assert_eq!(
            (diagnostics.error_count(), diagnostics.warning_count()),
            (0, 1)
        );
    }

    #[test]
    fn a_line_break_in_a_value_cannot_forge_a_line() {
        let mut diagnostics = Diagnostics::default();
        diagnostics.error(Code::InvalidValue, Span::default(), "", "found `a\nb`");
        assert_eq!(diagnostics.to_text().lines().count(), 1);
        assert!(diagnostics.to_text().contains(r"a\nb"));
    }

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        assert_eq!(place_after(""), (1, 1));
        assert_eq!(place_after("a\näb"), (2, 3));
        assert_eq!(place_after("a\r\n"), (2, 1));
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }
}
