//! What becomes of a connection to `stream_listen`, as text.

use super::text::Page;
use crate::{config::diagnostics::one_line, explain::StreamExplanation};

/// The text, with a line end.
pub(super) fn write(explanation: &StreamExplanation, color: bool) -> String {
    let mut page = Page::new(color);
    let connection = &explanation.connection;
    page.block("connection", &one_line(&connection.url));
    let name = match (&connection.server_name, connection.tls) {
        (Some(name), _) => format!(", server name {name}"),
        (None, true) => ", no server name".to_owned(),
        (None, false) => String::new(),
    };
    page.line(&one_line(&format!(
        "from {} to {}{name}",
        connection.source, connection.destination
    )));
    if let Some(listener) = &connection.listener {
        let ssl = if connection.tls { ", with ssl" } else { "" };
        page.line(&format!("taken by {listener} of stream_listen{ssl}"));
    }
    match &explanation.route {
        None => page.block("route", "none"),
        Some(route) => {
            let line = page.labelled(&route.label, &route.place);
            page.block("route", &line);
            page.line(match route.protocol.as_str() {
                "tls" => "as tls: its TLS ends here",
                "tls_passthrough" => "as tls_passthrough: its TLS goes on to the upstream",
                _ => "as tcp",
            });
            for matched in &route.matched {
                page.line(&format!("- {}", one_line(&matched.sentence)));
            }
            page.line(&format!("- {}", one_line(&route.first_because)));
        }
    }
    if let Some(service) = &explanation.service {
        page.service(service);
    }
    page.near_misses(&explanation.near_misses, explanation.near_misses_omitted);
    for note in &explanation.notes {
        page.block("note", &one_line(note));
    }
    page.into_text()
}
