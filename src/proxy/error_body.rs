//! Error bodies: one message in the form that the client accepts, escaped for that form.

use std::fmt::Write as _;

use bytes::Bytes;
use http::HeaderValue;

use crate::{
    entity::{error_template::ErrorTemplates, reason::Reason},
    plugin::Body,
    snapshot::ErrorType,
};

/// The form of a body without a usable `Accept`: JSON for what routing and plugins decide, the
/// configured type for errors of parsing and proxying, as in Kong.
pub(super) fn default_form(reason: Reason, configured: ErrorType) -> ErrorType {
    match reason {
        Reason::BadRequest
        | Reason::HeaderTooLarge
        | Reason::UriTooLong
        | Reason::RequestTimeout
        | Reason::ExpectationFailed
        | Reason::NotImplemented
        | Reason::BodyTooLarge
        | Reason::UpstreamConnect
        | Reason::UpstreamTimeout
        | Reason::UpstreamReset
        | Reason::UpstreamInvalid => configured,
        _ => ErrorType::Json,
    }
}

/// The form with the highest q in `accept` (RFC 9110 §12.5.1), the first among equals.
pub(super) fn form(accept: Option<&HeaderValue>, default: ErrorType) -> ErrorType {
    let Some(accept) = accept.and_then(|accept| accept.to_str().ok()) else {
        return default;
    };
    let mut best: Option<(f32, ErrorType)> = None;
    for entry in accept.split(',') {
        let mut parts = entry.split(';');
        let media_type = parts.next().unwrap_or_default().trim();
        if media_type.is_empty() {
            continue;
        }
        let quality = parts
            .find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| value.trim().parse().unwrap_or(0.0))
            })
            .unwrap_or(1.0);
        if quality > 0.0 && best.is_none_or(|(highest, _)| quality > highest) {
            best = Some((quality, of_media_type(media_type)));
        }
    }
    best.map_or(default, |(_, form)| form)
}

fn of_media_type(media_type: &str) -> ErrorType {
    let media_type = media_type.to_ascii_lowercase();
    match media_type.as_str() {
        "text/html" => ErrorType::Html,
        "application/xml" => ErrorType::Xml,
        text if text.starts_with("text/") => ErrorType::Plain,
        _ => ErrorType::Json,
    }
}

/// The `Content-Type` of a form.
pub(super) fn content_type(form: ErrorType) -> HeaderValue {
    HeaderValue::from_static(match form {
        ErrorType::Plain => "text/plain; charset=utf-8",
        ErrorType::Html => "text/html; charset=utf-8",
        ErrorType::Json => "application/json; charset=utf-8",
        ErrorType::Xml => "application/xml; charset=utf-8",
    })
}

/// The body of a form: the operator's, where there is a template, else our own.
pub(super) fn format(
    form: ErrorType,
    templates: &ErrorTemplates,
    message: &str,
    request_id: &str,
) -> Bytes {
    let template = match form {
        ErrorType::Plain => &templates.plain,
        ErrorType::Html => &templates.html,
        ErrorType::Json => &templates.json,
        ErrorType::Xml => &templates.xml,
    };
    if let Some(template) = template {
        return Bytes::from(template.fill(&escaped_for(form, message), request_id));
    }
    Bytes::from(match form {
        ErrorType::Json => format!(
            "{{\n  \"message\":{},\n  \"request_id\":\"{request_id}\"\n}}",
            serde_json::Value::from(message)
        ),
        ErrorType::Plain => format!("{message}\nrequest_id: {request_id}\n"),
        ErrorType::Html => {
            let message = escape(message);
            format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <title>Error</title>\n  \
                 </head>\n  <body>\n    <h1>Error</h1>\n    <p>{message}.</p>\n    \
                 <p>request_id: {request_id}</p>\n  </body>\n</html>\n"
            )
        }
        ErrorType::Xml => {
            let message = escape(message);
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  \
                 <requestid>{request_id}</requestid>\n</error>"
            )
        }
    })
}

/// The message as it may stand in a document of this form; in JSON inside the quotes of a string.
fn escaped_for(form: ErrorType, message: &str) -> String {
    match form {
        ErrorType::Plain => message.to_owned(),
        ErrorType::Html | ErrorType::Xml => escape(message),
        ErrorType::Json => {
            let quoted = serde_json::Value::from(message).to_string();
            let inner = quoted
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'));
            inner.unwrap_or_default().to_owned()
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The gRPC status of an HTTP status, and the message percent-encoded for `grpc-message`.
pub(super) fn grpc_status(status: u16, body: &Body) -> (u16, HeaderValue) {
    let code = match status {
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 12,
        413 => 11,
        429 => 8,
        500 => 13,
        502 | 503 => 14,
        504 => 4,
        _ => 2,
    };
    let mut message = String::new();
    if let Body::Message(text) = body {
        for byte in text.bytes() {
            if (b' '..=b'~').contains(&byte) && byte != b'%' {
                message.push(char::from(byte));
            } else {
                write!(message, "%{byte:02X}").expect("a String takes all that is written to it");
            }
        }
    }
    let message = HeaderValue::try_from(message).expect("percent-encoded text is visible ASCII");
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::error_template::ErrorTemplate;

    fn text(body: Bytes) -> String {
        String::from_utf8(body.into()).expect("text")
    }

    fn accepted(accept: &'static str) -> ErrorType {
        form(Some(&HeaderValue::from_static(accept)), ErrorType::Plain)
    }

    #[test]
    fn the_highest_quality_wins_and_the_first_among_equals() {
        assert_eq!(accepted("text/html;q=0.5, application/xml"), ErrorType::Xml);
        assert_eq!(accepted("text/html, application/json"), ErrorType::Html);
        assert_eq!(
            accepted("text/html;q=0.1, text/plain;q=0.2"),
            ErrorType::Plain
        );
        assert_eq!(accepted("*/*"), ErrorType::Json);
        assert_eq!(accepted("image/png"), ErrorType::Json);
        assert_eq!(accepted("text/*"), ErrorType::Plain);
        assert_eq!(accepted("text/html;q=0"), ErrorType::Plain);
        assert_eq!(form(None, ErrorType::Xml), ErrorType::Xml);
    }

    #[test]
    fn bodies_are_escaped_for_their_form() {
        let body = |form| text(format(form, &ErrorTemplates::default(), "a \"<b>\"", "id"));
        assert_eq!(
            body(ErrorType::Json),
            "{\n  \"message\":\"a \\\"<b>\\\"\",\n  \"request_id\":\"id\"\n}"
        );
        assert_eq!(body(ErrorType::Plain), "a \"<b>\"\nrequest_id: id\n");
        assert!(body(ErrorType::Html).contains("<p>a &quot;&lt;b&gt;&quot;.</p>"));
        assert!(body(ErrorType::Xml).contains("<message>a &quot;&lt;b&gt;&quot;</message>"));
    }

    #[test]
    fn a_template_takes_the_place_of_the_body_of_its_form() {
        let template = ErrorTemplate::parse("[%s|%s]").expect("a template");
        let templates = ErrorTemplates {
            html: Some(template.clone()),
            json: Some(template),
            ..ErrorTemplates::default()
        };
        let body = |form| text(format(form, &templates, "a \"<b>\"", "id"));
        assert_eq!(body(ErrorType::Html), "[a &quot;&lt;b&gt;&quot;|id]");
        assert_eq!(body(ErrorType::Json), "[a \\\"<b>\\\"|id]");
        assert_eq!(body(ErrorType::Plain), "a \"<b>\"\nrequest_id: id\n");
    }

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        let (code, message) = grpc_status(429, &Body::Message("50% é".into()));
        assert_eq!(code, 8);
        assert_eq!(message, "50%25 %C3%A9");
    }
}
