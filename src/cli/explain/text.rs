//! An explanation as text: one block for each question that somebody might have, most interesting
//! first.

use std::{borrow::Cow, fmt::Write as _};

use clap::builder::styling::{AnsiColor, Style};

use crate::{
    config::diagnostics::one_line,
    explain::{Answer, Change, Explanation, IdlePlugin, NearMiss, Plugin, Route, Sent, Service},
};

/// The width of the column with the names of the blocks.
const MARGIN: usize = 11;

/// How the parts of a text look.
#[derive(Debug, Default)]
struct Styles {
    heading: Style,
    name: Style,
    faint: Style,
    added: Style,
    removed: Style,
    changed: Style,
}

impl Styles {
    fn colored() -> Self {
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        Self {
            heading: Style::new().bold(),
            name: color(AnsiColor::Cyan),
            faint: Style::new().dimmed(),
            added: color(AnsiColor::Green),
            removed: color(AnsiColor::Red),
            changed: color(AnsiColor::Yellow),
        }
    }
}

/// The text, with a line end.
pub(super) fn write(explanation: &Explanation, color: bool) -> String {
    let mut page = Page::new(color);
    page.request(explanation);
    page.route(explanation.route.as_ref());
    if let Some(answer) = &explanation.answer {
        page.answer(answer);
    }
    page.plugins(explanation);
    if let Some(service) = &explanation.service {
        page.service(service);
    }
    if let Some(sent) = &explanation.sent {
        page.sent(sent, explanation.answer.is_some());
    }
    page.near_misses(&explanation.near_misses, explanation.near_misses_omitted);
    for note in &explanation.notes {
        page.block("note", &one_line(note));
    }
    page.text
}

/// What has been written so far.
pub(super) struct Page {
    text: String,
    styles: Styles,
}

impl Page {
    /// Nothing yet.
    pub(super) fn new(color: bool) -> Self {
        Self {
            text: String::new(),
            styles: if color {
                Styles::colored()
            } else {
                Styles::default()
            },
        }
    }

    /// What has been written.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Begins a block with its first line.
    pub(super) fn block(&mut self, heading: &str, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let style = self.styles.heading;
        let padding = MARGIN.saturating_sub(heading.len());
        let _ = writeln!(self.text, "{style}{heading}{style:#}{:padding$}{line}", "");
    }

    /// A further line of a block.
    pub(super) fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:MARGIN$}{line}", "");
    }

    /// What something is called, and where it is written.
    pub(super) fn labelled(&self, label: &str, place: &str) -> String {
        format!("{}  {}", self.named(label), self.faint(place))
    }

    fn named(&self, name: &str) -> String {
        let style = self.styles.name;
        format!("{style}{}{style:#}", one_line(name))
    }

    fn faint(&self, text: &str) -> String {
        let style = self.styles.faint;
        format!("{style}{}{style:#}", one_line(text))
    }

    fn request(&mut self, explanation: &Explanation) {
        let request = &explanation.request;
        self.block(
            "request",
            &one_line(&format!("{} {}", request.method, request.url)),
        );
        if request.path.is_empty() {
            return;
        }
        let host = if request.host.is_empty() {
            "no host"
        } else {
            &request.host
        };
        self.line(&one_line(&format!(
            "{}, {host}, port {}, path {}",
            request.scheme, request.port, request.path
        )));
        let trusted = if request.trusted { ", trusted" } else { "" };
        let consumer = match &request.consumer {
            Some(consumer) => format!("consumer {consumer}"),
            None => "no consumer".to_owned(),
        };
        self.line(&one_line(&format!(
            "from {}{trusted}, {consumer}",
            request.client_ip
        )));
    }

    fn route(&mut self, route: Option<&Route>) {
        let Some(route) = route else {
            self.block("route", "none");
            return;
        };
        let line = self.labelled(&route.label, &route.place);
        self.block("route", &line);
        for matched in &route.matched {
            self.line(&format!("- {}", one_line(&matched.sentence)));
        }
        self.line(&format!("- {}", one_line(&route.first_because)));
    }

    fn answer(&mut self, answer: &Answer) {
        let message = if answer.message.is_empty() {
            String::new()
        } else {
            format!(": {}", answer.message)
        };
        let line = one_line(&format!("{} {}{message}", answer.status, answer.reason)).into_owned();
        self.block("answer", &line);
        self.line(&one_line(&format!(
            "by {}; it does not go upstream",
            answer.by
        )));
        for (name, value) in &answer.headers {
            self.line(&one_line(&format!("{name}: {value}")));
        }
    }

    fn plugins(&mut self, explanation: &Explanation) {
        if explanation.plugins.is_empty() {
            self.block("plugins", "none");
        } else {
            self.block("plugins", "in this order");
            let rows: Vec<Row<'_>> = explanation.plugins.iter().map(Row::of).collect();
            self.rows(&rows);
        }
        if explanation.idle_plugins.is_empty() {
            return;
        }
        self.block(
            "not run",
            "written for this request's route, service or everybody",
        );
        let rows: Vec<Row<'_>> = explanation.idle_plugins.iter().map(Row::of_idle).collect();
        self.rows(&rows);
        if explanation.idle_plugins_omitted > 0 {
            self.line(&format!("and {} more", explanation.idle_plugins_omitted));
        }
    }

    fn rows(&mut self, rows: &[Row<'_>]) {
        let width = |column: for<'r> fn(&'r Row<'r>) -> &'r str| {
            let widths = rows.iter().map(|row| column(row).chars().count());
            widths.max().unwrap_or(0)
        };
        let (name, scope) = (width(|row| row.name), width(|row| row.scope));
        for row in rows {
            let padding = name - row.name.chars().count();
            let line = format!(
                "{:>6}  {}{:padding$}  {:scope$}  {}",
                row.priority,
                self.named(row.name),
                "",
                one_line(row.scope),
                self.faint(row.place)
            );
            self.line(&line);
            for remark in &row.remarks {
                self.line(&format!("{:8}{}", "", one_line(remark)));
            }
        }
    }

    pub(super) fn service(&mut self, service: &Service) {
        let line = self.labelled(&service.label, &service.place);
        self.block("service", &line);
        let path = match (&service.path, service.protocol.as_str()) {
            (Some(path), _) => format!("path {path}, "),
            (None, "tcp" | "tls") => String::new(),
            (None, _) => "path /, ".to_owned(),
        };
        self.line(&one_line(&format!(
            "{}, {path}{} retries",
            service.protocol, service.retries
        )));
        self.line(&format!(
            "timeouts: connect {} ms, write {} ms, read {} ms",
            service.connect_timeout_ms, service.write_timeout_ms, service.read_timeout_ms
        ));
        let upstream = &service.upstream;
        let line = match &upstream.place {
            Some(place) => format!(
                "{}  {}  {}",
                self.named(&upstream.name),
                self.faint(place),
                upstream.algorithm
            ),
            None => format!("{}, the service's host", self.named(&upstream.name)),
        };
        self.block("upstream", &line);
        if upstream.targets.len() > 1 || upstream.algorithm != "round-robin" {
            self.line(&one_line(&format!("choice: {}", upstream.choice)));
        }
        if upstream.targets.is_empty() {
            self.line("it has no targets");
        }
        let width = upstream
            .targets
            .iter()
            .map(|target| target.target.chars().count());
        let width = width.max().unwrap_or(0);
        for target in &upstream.targets {
            let addresses: Vec<String> = target
                .addresses
                .iter()
                .map(|known| match known.address.as_str() {
                    "" => format!("no address, {}", known.health),
                    address => {
                        let mut text = format!("{address} {}", known.health);
                        if known.requests > 0 {
                            let _ = write!(text, ", {} under way", known.requests);
                        }
                        if let Some(latency) = known.latency_ms {
                            let _ = write!(text, ", {latency} ms");
                        }
                        text
                    }
                })
                .collect();
            self.line(
                one_line(&format!(
                    "{:width$}  weight {:<5}  {}",
                    target.target,
                    target.weight,
                    addresses.join(", ")
                ))
                .trim_end(),
            );
        }
        if upstream.targets_omitted > 0 {
            self.line(&format!("and {} more", upstream.targets_omitted));
        }
    }

    fn sent(&mut self, sent: &Sent, is_answered: bool) {
        let heading = if is_answered { "not sent" } else { "sent" };
        self.block(heading, &one_line(&format!("{} {}", sent.method, sent.url)));
        let changed: Vec<&str> = sent
            .changes
            .iter()
            .map(|change| change.name.as_str())
            .collect();
        for (name, value) in &sent.headers {
            if !changed.contains(&name.as_str()) {
                self.line(&one_line(&format!("  {name}: {value}")));
            }
        }
        for change in &sent.changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: &Change) {
        let (sign, style, rest) = match (&change.from, &change.to) {
            (None, Some(to)) => ('+', self.styles.added, to.clone()),
            (Some(from), None) => ('-', self.styles.removed, from.clone()),
            (Some(from), Some(to)) => ('~', self.styles.changed, format!("{to}  (was {from})")),
            (None, None) => return,
        };
        let line = one_line(&format!("{}: {rest}", change.name)).into_owned();
        self.line(&format!("{style}{sign}{style:#} {line}"));
    }

    pub(super) fn near_misses(&mut self, all: &[NearMiss], omitted: usize) {
        let Some((first, rest)) = all.split_first() else {
            return;
        };
        let line = self.labelled(&first.label, &first.place);
        self.block("not taken", &line);
        self.reasons(first);
        for near_miss in rest {
            let line = self.labelled(&near_miss.label, &near_miss.place);
            self.line(&line);
            self.reasons(near_miss);
        }
        if omitted > 0 {
            self.line(&format!("and {omitted} less similar; `--all` lists them"));
        }
    }

    fn reasons(&mut self, near_miss: &NearMiss) {
        for reason in &near_miss.reasons {
            self.line(&format!("- {}", one_line(reason)));
        }
    }
}

/// A plugin as a line of a table, and remarks below it.
struct Row<'e> {
    priority: i32,
    name: &'e str,
    scope: &'e str,
    place: &'e str,
    remarks: Vec<Cow<'e, str>>,
}

impl<'e> Row<'e> {
    fn of(plugin: &'e Plugin) -> Self {
        let mut remarks = Vec::new();
        if !plugin.detail.is_empty() {
            remarks.push(Cow::Borrowed(plugin.detail.as_str()));
        }
        for other in &plugin.consumers {
            remarks.push(Cow::Owned(format!(
                "for consumer {} in its place: {}  {}",
                other.consumer, other.scope, other.place
            )));
        }
        if plugin.consumers_omitted > 0 {
            remarks.push(Cow::Owned(format!(
                "and for {} more consumers",
                plugin.consumers_omitted
            )));
        }
        Self {
            priority: plugin.priority,
            name: &plugin.name,
            scope: &plugin.scope,
            place: &plugin.place,
            remarks,
        }
    }

    fn of_idle(plugin: &'e IdlePlugin) -> Self {
        Self {
            priority: plugin.priority,
            name: &plugin.name,
            scope: &plugin.scope,
            place: &plugin.place,
            remarks: vec![Cow::Borrowed(&plugin.reason)],
        }
    }
}
