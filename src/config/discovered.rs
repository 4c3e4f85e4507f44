//! Services that a registry names, as documents of entities: each becomes a service and a route of its name and an
//! upstream, and goes through the same checks as what is written in files.

use std::collections::BTreeMap;

use super::diagnostics::Span;
use super::formats::comma_items;
use super::model::Document;
use super::model::discovery::ConsulRoutes;
use super::model::settings::FilePath;
use super::node::{Entry, Kind, Node};
use super::suggest::nearest;

/// What stands behind the name of such an upstream, so that no host of a file is one by accident.
const UPSTREAM_SUFFIX: &str = ".from-consul";
const TAGS: [&str; 6] = [
    "enable",
    "paths",
    "hosts",
    "methods",
    "strip_path",
    "protocol",
];
const PROTOCOLS: [&str; 4] = ["http", "https", "grpc", "grpcs"];

/// The services that ask for routes, each with its tags without their prefix.
pub type Services = BTreeMap<String, Vec<String>>;

/// How diagnostics and explanations call the place of such a service.
pub(super) fn called(service: &str) -> String {
    format!("Consul service {service}")
}

/// The entities of `service`.
///
/// # Errors
/// A sentence about the tag that does not parse.
pub(super) fn document(
    service: &str,
    tags: &[String],
    consul: &ConsulRoutes,
    file: u16,
) -> Result<Document, String> {
    let wanted = Wanted::read(tags, &consul.tag_prefix)?;
    let tree = Tree { file };
    let upstream = format!("{service}{UPSTREAM_SUFFIX}");
    let mut route = vec![
        ("name", tree.text(service)),
        ("paths", tree.texts(&wanted.paths)),
        ("hosts", tree.texts(&wanted.hosts)),
        ("methods", tree.texts(&wanted.methods)),
    ];
    let protocol = wanted.protocol.unwrap_or("http");
    if protocol.starts_with("grpc") {
        route.push(("protocols", tree.texts(&["grpc", "grpcs"])));
    }
    if let Some(strip_path) = wanted.strip_path {
        route.push(("strip_path", tree.node(Kind::Bool(strip_path))));
    }
    let mut token = tree.text(consul.token.expose());
    token.secret = true;
    let path = |file: &Option<FilePath>| match file {
        Some(file) => tree.text(&file.0),
        None => tree.node(Kind::Null),
    };
    let discovery = vec![
        ("type", tree.text("consul")),
        ("address", tree.text(&consul.address)),
        ("tls_verify", tree.node(Kind::Bool(consul.tls_verify))),
        ("tls_server_name", tree.text(&consul.tls_server_name)),
        ("ca_file", path(&consul.ca_file)),
        ("cert_file", path(&consul.cert_file)),
        ("key_file", path(&consul.key_file)),
        ("service", tree.text(service)),
        ("datacenter", tree.text(&consul.datacenter)),
        ("token", token),
        ("wait", tree.node(Kind::Integer(i64::from(consul.wait)))),
    ];
    let services = vec![
        ("name", tree.text(service)),
        ("host", tree.text(&upstream)),
        ("protocol", tree.text(protocol)),
        ("routes", tree.list(vec![tree.record(route)])),
    ];
    let upstreams = vec![
        ("name", tree.text(&upstream)),
        ("discovery", tree.record(discovery)),
    ];
    Ok(Document {
        file,
        name: called(service),
        root: tree.record(vec![
            ("_format_version", tree.text("3.0")),
            ("services", tree.list(vec![tree.record(services)])),
            ("upstreams", tree.list(vec![tree.record(upstreams)])),
        ]),
    })
}

/// What the tags of a service say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    paths: Vec<String>,
    hosts: Vec<String>,
    methods: Vec<String>,
    strip_path: Option<bool>,
    protocol: Option<&'static str>,
}

impl Wanted {
    /// Instances may differ in their tags while they are replaced: lists are those of all of them.
    fn read(tags: &[String], prefix: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for tag in tags {
            let (key, value) = tag
                .split_once('=')
                .ok_or_else(|| format!("the tag `{prefix}{tag}` is not `{prefix}KEY=VALUE`"))?;
            match key {
                "enable" => {}
                "paths" => add(&mut wanted.paths, value),
                "hosts" => add(&mut wanted.hosts, value),
                "methods" => add(&mut wanted.methods, value),
                "strip_path" => {
                    let strip_path = value.parse().map_err(|_| {
                        format!("the tag `{prefix}{tag}` must be `true` or `false`")
                    })?;
                    set(&mut wanted.strip_path, strip_path, prefix, key)?;
                }
                "protocol" => {
                    let known = PROTOCOLS.into_iter().find(|known| *known == value);
                    let protocol = known.ok_or_else(|| {
                        let known = PROTOCOLS.join(", ");
                        format!("the tag `{prefix}{tag}` must be one of {known}")
                    })?;
                    set(&mut wanted.protocol, protocol, prefix, key)?;
                }
                _ => {
                    let way_out = nearest(key, TAGS).map_or_else(
                        || format!("there are {}", TAGS.join(", ")),
                        |near| format!("did you mean `{prefix}{near}`?"),
                    );
                    return Err(format!("unknown tag `{prefix}{key}` ({way_out})"));
                }
            }
        }
        Ok(wanted)
    }
}

fn add(list: &mut Vec<String>, value: &str) {
    for item in comma_items(value) {
        if !list.iter().any(|known| known == item) {
            list.push(item.to_owned());
        }
    }
}

fn set<T: PartialEq>(
    slot: &mut Option<T>,
    value: T,
    prefix: &str,
    key: &str,
) -> Result<(), String> {
    match slot {
        Some(known) if *known != value => Err(format!(
            "the tag `{prefix}{key}` has two values: all instances must say the same"
        )),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// Makes values whose place is a whole file.
struct Tree {
    file: u16,
}

impl Tree {
    fn node(&self, kind: Kind) -> Node {
        Node::new(Span::whole(self.file), kind)
    }

    fn text(&self, text: &str) -> Node {
        self.node(Kind::String(text.to_owned()))
    }

    /// `null` for none.
    fn texts<T: AsRef<str>>(&self, texts: &[T]) -> Node {
        if texts.is_empty() {
            return self.node(Kind::Null);
        }
        self.list(texts.iter().map(|text| self.text(text.as_ref())).collect())
    }

    fn list(&self, items: Vec<Node>) -> Node {
        self.node(Kind::Sequence(items))
    }

    fn record(&self, fields: Vec<(&str, Node)>) -> Node {
        let entry = |(key, value): (&str, Node)| Entry {
            key: key.to_owned(),
            key_span: Span::whole(self.file),
            value,
        };
        self.node(Kind::Mapping(fields.into_iter().map(entry).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tags: &[&str]) -> Result<Wanted, String> {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Wanted::read(&tags, "tollgate.")
    }

    #[test]
    fn tags_are_comma_lists_and_those_of_all_instances_count() {
        let wanted = read(&[
            "enable=true",
            "paths=/a, /b",
            "paths=/b,/c",
            "hosts=a.test",
            "methods=GET",
            "strip_path=false",
            "strip_path=false",
            "protocol=grpc",
        ])
        .unwrap();
        assert_eq!(wanted.paths, ["/a", "/b", "/c"]);
        assert_eq!(wanted.hosts, ["a.test"]);
        assert_eq!(wanted.strip_path, Some(false));
        assert_eq!(wanted.protocol, Some("grpc"));
    }

    #[test]
    fn a_tag_that_does_not_parse_is_an_error_that_names_it() {
        for (tag, expected) in [
            (
                "path=/a",
                "unknown tag `tollgate.path` (did you mean `tollgate.paths`?)",
            ),
            ("paths", "`tollgate.paths` is not `tollgate.KEY=VALUE`"),
            ("strip_path=yes", "must be `true` or `false`"),
            ("protocol=tcp", "must be one of http, https, grpc, grpcs"),
        ] {
            let error = read(&["enable=true", tag]).unwrap_err();
            assert!(error.contains(expected), "{tag}: {error}");
        }
        let error = read(&["protocol=http", "protocol=https"]).unwrap_err();
        assert!(error.contains("two values"), "{error}");
    }

    #[test]
    fn a_token_is_hidden_in_the_document() {
        let consul = ConsulRoutes {
            token: "hunter2".to_owned().into(),
            ..ConsulRoutes::default()
        };
        let document = document("users", &[], &consul, 0).unwrap();
        let token = document.root.at("upstreams[0].discovery.token").unwrap();
        assert!(token.secret && !token.shown().contains("hunter2"));
    }
}
