//! The top level of a document: the format's version, what is ignored, what is not supported.

use super::diagnostics::{Code, Diagnostics};
use super::model::EntityKind;
use super::node::{Entry, Kind, Node};
use super::suggest::nearest;

/// The versions of Kong's declarative format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormatVersion {
    /// 1.1 and 2.1: a path that is no plain text is a regex.
    BeforeTilde,
    /// 3.0: a path is a regex if it begins with `~`.
    Three,
}

const ENTERPRISE: &str = "it is an enterprise entity; leave the list out";
const HELD: &str =
    "it is what a gateway hands out or keeps while it runs, no configuration; leave the list out";

/// Kong's entities that this version does not have, on the top level or nested, and what to say about each.
pub(super) const UNSUPPORTED_ENTITIES: &[(&str, &str)] = &[
    ("oauth2_tokens", HELD),
    ("oauth2_authorization_codes", HELD),
    ("sessions", HELD),
    ("session_metadatas", HELD),
    ("acme_storage", HELD),
    ("mtls_auth_credentials", ENTERPRISE),
    (
        "filter_chains",
        "there are no WebAssembly filters; leave the list out",
    ),
    ("rbac_roles", ENTERPRISE),
    ("rbac_users", ENTERPRISE),
    ("rbac_role_endpoints", ENTERPRISE),
    ("rbac_role_entities", ENTERPRISE),
    (
        "partials",
        "they are an enterprise entity; write what each of them holds into the `config` of the plugins that use it",
    ),
    (
        "plugins_partials",
        "it ties plugins to enterprise `partials`; write what those hold into each plugin's `config`",
    ),
    ("custom_entities", ENTERPRISE),
    ("cloned_plugins", ENTERPRISE),
    ("custom_plugins", ENTERPRISE),
    ("ai_models", ENTERPRISE),
    ("service_packages", ENTERPRISE),
    ("degraphql_routes", ENTERPRISE),
    ("licenses", ENTERPRISE),
    ("event_hooks", ENTERPRISE),
    ("files", ENTERPRISE),
];

/// Entities of Kong's own bookkeeping, which mean nothing to a data plane.
pub(super) const BOOKKEEPING: &[&str] = &[
    "parameters",
    "workspaces",
    "clustering_data_planes",
    "ratelimiting_metrics",
    "response_ratelimiting_metrics",
];

/// What to say about a list of entities that this version does not have.
pub(super) fn unsupported_entity(name: &str) -> Option<&'static str> {
    let listed = UNSUPPORTED_ENTITIES
        .iter()
        .find(|(listed, _)| *listed == name)
        .map(|(_, hint)| *hint);
    listed.or_else(|| name.starts_with("graphql_").then_some(ENTERPRISE))
}

/// Reports a list of entities that this version does not have, unless it is empty.
pub(super) fn refuse_entity(
    entry: &Entry,
    hint: &str,
    path: String,
    diagnostics: &mut Diagnostics,
) {
    let empty = match &entry.value.kind {
        Kind::Null => true,
        Kind::Sequence(items) => items.is_empty(),
        Kind::Mapping(entries) => entries.is_empty(),
        _ => false,
    };
    if !empty {
        let message = format!(
            "the entity `{}` is not supported in this version",
            entry.key
        );
        diagnostics
            .error(Code::UnsupportedEntity, entry.key_span, path, message)
            .hint(hint);
    }
}

/// Checks the top level of a document. `fragment`: it comes from the conf.d folder.
pub(super) fn check(root: &Node, fragment: bool, diagnostics: &mut Diagnostics) {
    if !matches!(root.kind, Kind::Mapping(_)) {
        let message = format!(
            "expected a record at the top level, found {}",
            root.described()
        );
        diagnostics
            .error(Code::WrongType, root.span, "", message)
            .hint("a declarative document begins with `_format_version: \"3.0\"`");
        return;
    }
    for entry in root.entries() {
        check_entry(entry, fragment, diagnostics);
    }
}

fn check_entry(entry: &Entry, fragment: bool, diagnostics: &mut Diagnostics) {
    let key = entry.key.as_str();
    let is_list = |kind: &EntityKind| kind.list() == key;
    match key {
        "_format_version" | "_comment" | "_ignore" => {}
        "_transform" => expect(
            entry,
            "a boolean",
            |kind| matches!(kind, Kind::Bool(_)),
            diagnostics,
        ),
        "_workspace" => expect(
            entry,
            "a string",
            |kind| matches!(kind, Kind::String(_)),
            diagnostics,
        ),
        "_info" | "_plugin_configs" => {
            expect(
                entry,
                "a record",
                |kind| matches!(kind, Kind::Mapping(_)),
                diagnostics,
            );
        }
        "_konnect" => {
            diagnostics.warning(
                Code::Ignored,
                entry.key_span,
                key,
                "`_konnect` has no effect here",
            );
        }
        "gateway" if fragment => {
            diagnostics
                .error(
                    Code::MisplacedField,
                    entry.key_span,
                    key,
                    "`gateway` settings do not belong into a fragment",
                )
                .hint("move them into the main file");
        }
        "gateway" => expect(
            entry,
            "a record",
            |kind| matches!(kind, Kind::Mapping(_)),
            diagnostics,
        ),
        _ if EntityKind::ALL.iter().any(is_list) => {
            expect(
                entry,
                "an array",
                |kind| matches!(kind, Kind::Sequence(_)),
                diagnostics,
            );
        }
        _ if BOOKKEEPING.contains(&key) => {
            let message = format!("`{key}` has no effect here");
            diagnostics.warning(Code::Ignored, entry.key_span, key, message);
        }
        _ => match unsupported_entity(key) {
            Some(hint) => refuse_entity(entry, hint, key.to_owned(), diagnostics),
            None => unknown(entry, diagnostics),
        },
    }
}

fn expect(entry: &Entry, what: &str, right: impl Fn(&Kind) -> bool, diagnostics: &mut Diagnostics) {
    if !entry.value.is_null() && !right(&entry.value.kind) {
        let message = format!("expected {what}, found {}", entry.value.type_described());
        diagnostics.error(
            Code::WrongType,
            entry.value.span,
            entry.key.as_str(),
            message,
        );
    }
}

fn unknown(entry: &Entry, diagnostics: &mut Diagnostics) {
    let others = [
        "_format_version",
        "_transform",
        "_comment",
        "_ignore",
        "_info",
        "_plugin_configs",
        "gateway",
    ];
    let known = EntityKind::ALL.iter().map(|kind| kind.list()).chain(others);
    let message = format!("unknown field `{}`", super::node::shorten(&entry.key));
    diagnostics
        .error(
            Code::UnknownField,
            entry.key_span,
            entry.key.as_str(),
            message,
        )
        .did_you_mean(nearest(&entry.key, known));
}

/// The version of a document; `inherited` is that of the main file for a fragment, which may leave it out.
pub(super) fn version(
    root: &Node,
    inherited: Option<FormatVersion>,
    diagnostics: &mut Diagnostics,
) -> Option<FormatVersion> {
    const PATH: &str = "_format_version";
    let Some(node) = root.get(PATH) else {
        if inherited.is_none() && matches!(root.kind, Kind::Mapping(_)) {
            diagnostics
                .error(
                    Code::FormatVersion,
                    root.span,
                    PATH,
                    "required field `_format_version` is missing",
                )
                .hint("write `_format_version: \"3.0\"`");
        }
        return inherited;
    };
    let text = match &node.kind {
        Kind::String(text) => text.clone(),
        Kind::Float(number) => format!("{number:.1}"),
        _ => node.text(),
    };
    let version = match text.as_str() {
        "1.1" | "2.1" => FormatVersion::BeforeTilde,
        "3.0" => FormatVersion::Three,
        _ => {
            let message = format!(
                "expected \"3.0\", \"2.1\" or \"1.1\", found {}",
                node.described()
            );
            diagnostics
                .error(Code::FormatVersion, node.span, PATH, message)
                .value(node.text());
            return inherited;
        }
    };
    if node.as_str().is_none() {
        diagnostics
            .warning(
                Code::Deprecated,
                node.span,
                PATH,
                "`_format_version` should be a string",
            )
            .hint(format!("write \"{text}\""));
    }
    Some(version)
}
