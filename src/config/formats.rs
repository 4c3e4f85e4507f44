//! Rules for strings that a JSON Schema names by `format`: one table, one Rust function each.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use uuid::Uuid;

use crate::client::Base;
use crate::entity;

/// A named rule for a string.
#[derive(Debug)]
pub struct Format {
    /// The value of JSON Schema's `format`.
    pub name: &'static str,
    /// The error is a sentence for the operator that shows the value.
    pub validate: fn(&str) -> Result<(), String>,
}

/// Every format that is checked; others are left to JSON Schema tools.
pub const FORMATS: &[Format] = &[
    Format {
        name: "uuid",
        validate: uuid,
    },
    Format {
        name: "entity-name",
        validate: entity_name,
    },
    Format {
        name: "consumer-name",
        validate: consumer_name,
    },
    Format {
        name: "tag",
        validate: tag,
    },
    Format {
        name: "route-path",
        validate: entity::path::validate,
    },
    Format {
        name: "route-host",
        validate: route_host,
    },
    Format {
        name: "route-sni",
        validate: entity::host::validate_server_name,
    },
    Format {
        name: "route-expression",
        validate: entity::expression::validate,
    },
    Format {
        name: "sni",
        validate: sni,
    },
    Format {
        name: "route-header",
        validate: route_header,
    },
    Format {
        name: "route-header-value",
        validate: route_header_value,
    },
    Format {
        name: "method",
        validate: method,
    },
    Format {
        name: "header-name",
        validate: header_name,
    },
    Format {
        name: "cookie-name",
        validate: cookie_name,
    },
    Format {
        name: "cookie-path",
        validate: cookie_path,
    },
    Format {
        name: "header-value",
        validate: header_value,
    },
    Format {
        name: "service-host",
        validate: service_host,
    },
    Format {
        name: "service-path",
        validate: service_path,
    },
    Format {
        name: "upstream-name",
        validate: upstream_name,
    },
    Format {
        name: "host-header",
        validate: host_header,
    },
    Format {
        name: "target",
        validate: target,
    },
    Format {
        name: "url",
        validate: url,
    },
    Format {
        name: "consul-address",
        validate: consul_address,
    },
    Format {
        name: "redirect-uri",
        validate: redirect_uri,
    },
    Format {
        name: "vault-prefix",
        validate: vault_prefix,
    },
    Format {
        name: "cidr",
        validate: cidr,
    },
    Format {
        name: "ip",
        validate: ip,
    },
    Format {
        name: "regex",
        validate: regex,
    },
];

/// The items of a list that is written as one string with commas.
pub fn comma_items(value: &str) -> impl Iterator<Item = &str> + Clone {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// The rule of one of these formats by its name.
pub fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// A UUID with its hyphens.
pub fn uuid(value: &str) -> Result<(), String> {
    match Uuid::try_parse(value) {
        Ok(_) if value.len() == 36 => Ok(()),
        _ => Err(format!(
            "`{value}` is not a UUID (such as `4e13f54a-bbf1-47a8-8777-255fed7116f2`)"
        )),
    }
}

/// Kong's rule for names: letters, digits, `. - _ ~` and whatever is not ASCII.
pub fn entity_name(value: &str) -> Result<(), String> {
    let allowed = |character: char| {
        character.is_ascii_alphanumeric()
            || matches!(character, '.' | '-' | '_' | '~')
            || is_text(character)
    };
    match value.chars().find(|&character| !allowed(character)) {
        None => Ok(()),
        Some(character) => Err(format!(
            "invalid name `{value}`: {} is not allowed, only letters, digits, `.`, `-`, `_` and `~` are",
            called(character)
        )),
    }
}

/// The name goes into a header, so it must not carry control characters.
pub fn consumer_name(value: &str) -> Result<(), String> {
    match value.chars().find(|character| character.is_control()) {
        None => Ok(()),
        Some(_) => Err(format!(
            "`{}` contains a control character",
            value.escape_default()
        )),
    }
}

/// Kong's rule for tags.
pub fn tag(value: &str) -> Result<(), String> {
    let forbidden = |character: char| matches!(character, ',' | '/') || character.is_control();
    match value.chars().find(|&character| forbidden(character)) {
        None => Ok(()),
        Some(character) => Err(format!(
            "invalid tag `{value}`: {} is not allowed",
            called(character)
        )),
    }
}

/// An HTTP method as Kong takes it, in capital letters.
pub fn method(value: &str) -> Result<(), String> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    let capital = value.to_ascii_uppercase();
    if !value.is_empty() && capital.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(format!(
            "a method is written in capital letters: `{capital}`, found `{value}`"
        ));
    }
    Err(format!(
        "`{value}` is not a method: it takes capital letters only"
    ))
}

/// A host of a route, maybe with a wildcard or a port.
pub fn route_host(value: &str) -> Result<(), String> {
    if value.contains("://") {
        return Err(format!("`{value}` is a URL; a host has no scheme"));
    }
    entity::host::validate(value)
}

/// A name that a client asks for in a TLS handshake, maybe with a wildcard as its first or last label, or `*`.
pub fn sni(value: &str) -> Result<(), String> {
    if value == "*" {
        return Ok(());
    }
    let pattern = entity::host::HostPattern::parse(value)?;
    if pattern.port.is_some() {
        return Err(format!(
            "`{value}` has a port, which clients do not ask for"
        ));
    }
    match ip_address(value) {
        Some(_) => Err(format!(
            "`{value}` is an address; clients ask for names only, and get the default certificate otherwise"
        )),
        None => Ok(()),
    }
}

/// The name of a header that a route matches on.
pub fn route_header(value: &str) -> Result<(), String> {
    if value.eq_ignore_ascii_case("host") {
        return Err("a route cannot match on the header `host`; use `hosts`".to_owned());
    }
    header_name(value)
}

/// What a header value that is a regex begins with.
pub const HEADER_REGEX_MARK: &str = "~*";

/// A value of a header that a route matches on: a text, or a regex behind `~*`.
pub fn route_header_value(value: &str) -> Result<(), String> {
    match value.strip_prefix(HEADER_REGEX_MARK) {
        Some(pattern) => {
            regex(pattern).map_err(|complaint| format!("regex `{pattern}`: {complaint}"))
        }
        None => header_value(value),
    }
}

/// A token of RFC 9110.
pub fn header_name(value: &str) -> Result<(), String> {
    let symbol = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    if !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || symbol(byte))
    {
        Ok(())
    } else {
        Err(format!("`{value}` is not a header name"))
    }
}

/// A token, as RFC 6265 has it for the name of a cookie.
pub fn cookie_name(value: &str) -> Result<(), String> {
    header_name(value).map_err(|_| format!("`{value}` is not the name of a cookie"))
}

/// A path that stands in a `Set-Cookie` as it is.
pub fn cookie_path(value: &str) -> Result<(), String> {
    let is_plain = value
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b';');
    if value.starts_with('/') && is_plain {
        Ok(())
    } else {
        Err(format!(
            "`{}` is not the path of a cookie: it begins with `/` and has no `;`",
            value.escape_default()
        ))
    }
}

/// Anything but control characters.
pub fn header_value(value: &str) -> Result<(), String> {
    if value
        .chars()
        .any(|character| character.is_control() && character != '\t')
    {
        Err(format!(
            "`{}` cannot be a header's value: it contains a control character",
            value.escape_default()
        ))
    } else {
        Ok(())
    }
}

/// A host name or an IP address, without scheme and port.
pub fn service_host(value: &str) -> Result<(), String> {
    if ip_address(value).is_some() {
        return Ok(());
    }
    if value.contains("://") {
        return Err(format!(
            "`{value}` is a URL; a host has no scheme, use `url` instead"
        ));
    }
    if value.contains('/') {
        return Err(format!(
            "`{value}` is not a host name; a path belongs into `path`"
        ));
    }
    if let Some((_, port)) = value.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("`{value}` has a port; give the port in `port`"));
    }
    host_name(value)
}

/// Kong's rule for the name of an upstream: a host name, no IP address, no port.
pub fn upstream_name(value: &str) -> Result<(), String> {
    if ip_address(value).is_some() {
        return Err(format!("Invalid name ('{value}'); no ip addresses allowed"));
    }
    if let Some((_, port)) = value.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("Invalid name ('{value}'); no port allowed"));
    }
    host_name(value)
}

/// Labels of letters, digits, `-` and `_`, separated by dots; a trailing dot is fine. As in Kong they may be longer than
/// DNS can have them: the name may be that of an upstream.
fn host_name(value: &str) -> Result<(), String> {
    let name = value.strip_suffix('.').unwrap_or(value);
    let label = |label: &str| {
        !label.is_empty()
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.split('.').all(label) {
        Ok(())
    } else {
        Err(format!("`{value}` is not a host name"))
    }
}

/// A host with an optional port, as a `Host` header carries it.
pub fn host_header(value: &str) -> Result<(), String> {
    let (host, port) = split_port(value);
    match port {
        Some(port) if port.parse::<u16>().is_err() => {
            Err(format!("`{value}` has a bad port `{port}`"))
        }
        _ if ip_address(host).is_some() => Ok(()),
        _ => host_name(host).map_err(|_| format!("`{value}` is not a host with an optional port")),
    }
}

/// `host[:port]`, an IPv6 address in brackets if it has a port.
pub fn target(value: &str) -> Result<(), String> {
    let (host, port) = split_port(value);
    if let Some(port) = port
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return Err(format!("invalid target `{value}`: `{port}` is not a port"));
    }
    if value.contains("://") || value.contains('/') {
        return Err(format!(
            "invalid target `{value}`: a target is `host:port`, without scheme and path"
        ));
    }
    if ip_address(host).is_some() || host_name(host).is_ok() {
        return Ok(());
    }
    Err(format!(
        "invalid target `{value}`: `{host}` is neither a host name nor an IP address"
    ))
}

/// The host and the text after its port's colon; an IPv6 address without brackets has no port.
pub fn split_port(value: &str) -> (&str, Option<&str>) {
    if value.parse::<Ipv6Addr>().is_ok() {
        return (value, None);
    }
    match value.rsplit_once(':') {
        Some((host, port)) if !value.ends_with(']') => (host, Some(port)),
        _ => (value, None),
    }
}

/// An IP address, an IPv6 one with or without brackets.
pub fn ip_address(value: &str) -> Option<IpAddr> {
    let bare = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => value.parse().ok(),
    }
}

/// A service's path: RFC 3986 path characters, valid `%XX`, no `//`.
pub fn service_path(value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err(format!("`{value}` should begin with `/`"));
    }
    if value.contains("//") {
        return Err(format!("`{value}` must not have empty segments (`//`)"));
    }
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let valid = (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit()));
            if !valid {
                return Err(format!(
                    "`{value}` has a `%` that two hex digits do not follow"
                ));
            }
        } else if !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)) {
            let character = value
                .chars()
                .find(|c| !c.is_ascii() || *c == char::from(byte))
                .unwrap_or('?');
            return Err(format!(
                "`{value}` has {}, which must be written as %XX in a path",
                called(character)
            ));
        }
    }
    Ok(())
}

/// An absolute URL with the scheme http or https.
pub fn url(value: &str) -> Result<(), String> {
    match url::Url::parse(value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        _ => Err(format!(
            "`{value}` is not a URL that begins with http:// or https://"
        )),
    }
}

fn consul_address(value: &str) -> Result<(), String> {
    Base::with_tls(value).map(drop)
}

/// An absolute URI with a host and without a fragment.
pub fn redirect_uri(value: &str) -> Result<(), String> {
    match url::Url::parse(value) {
        Ok(uri) if uri.fragment().is_some() => Err(format!("fragment not allowed in '{value}'")),
        Ok(uri) if uri.has_host() => Ok(()),
        _ => Err(format!(
            "cannot parse '{value}': write an absolute URI with a host"
        )),
    }
}

/// The kinds of vaults that Kong has, which are no names for others.
const VAULT_KINDS: [&str; 7] = ["env", "aws", "azure", "conjur", "gcp", "hcv", "konnect"];

/// Kong's rule for the name by which references call a vault.
pub fn vault_prefix(value: &str) -> Result<(), String> {
    if VAULT_KINDS.contains(&value) {
        return Err(format!(
            "`{value}` is a kind of vault; choose another prefix"
        ));
    }
    let lower = |byte: u8| byte.is_ascii_lowercase();
    let end = |byte: u8| lower(byte) || byte.is_ascii_digit();
    match value.as_bytes() {
        [first, middle @ .., last]
            if lower(*first)
                && end(*last)
                && middle.iter().all(|byte| end(*byte) || *byte == b'-') =>
        {
            Ok(())
        }
        _ => Err(format!(
            "`{value}` is not a vault's prefix: it begins with a-z, goes on with a-z, 0-9 and `-`, and ends with a-z or 0-9"
        )),
    }
}

/// An IP address or a network.
pub fn cidr(value: &str) -> Result<(), String> {
    if value.parse::<IpAddr>().is_ok() || value.parse::<IpNet>().is_ok() {
        Ok(())
    } else {
        Err(format!(
            "`{value}` is neither an IP address nor a network such as 10.0.0.0/8"
        ))
    }
}

/// An IP address.
pub fn ip(value: &str) -> Result<(), String> {
    value
        .parse::<IpAddr>()
        .map(drop)
        .map_err(|_| format!("`{value}` is not an IP address"))
}

/// A regex of the `regex` crate.
pub fn regex(value: &str) -> Result<(), String> {
    entity::pattern::Pattern::for_header_value(value).map(drop)
}

fn is_text(character: char) -> bool {
    !character.is_ascii() && !character.is_control() && !character.is_whitespace()
}

fn called(character: char) -> String {
    match character {
        ' ' => "a blank".to_owned(),
        '\t' => "a tab".to_owned(),
        character if character.is_control() => format!("`{}`", character.escape_default()),
        character => format!("`{character}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, good: &[&str], bad: &[&str]) {
        let format = find(format).unwrap();
        for value in good {
            assert_eq!((format.validate)(value), Ok(()), "{} {value}", format.name);
        }
        for value in bad {
            assert!((format.validate)(value).is_err(), "{} {value}", format.name);
        }
    }

    #[test]
    fn names_follow_kongs_rule() {
        check(
            "entity-name",
            &["a", "a.b-c_d~1", "café", "日本"],
            &["a b", "a/b", "a:b", "a\u{a0}b"],
        );
        check("tag", &["a b", "x:y", "é"], &["a,b", "a/b", "a\nb"]);
        check(
            "uuid",
            &["4e13f54a-bbf1-47a8-8777-255fed7116f2"],
            &["x", "4e13f54abbf147a88777255fed7116f2"],
        );
        check("method", &["GET", "PURGE"], &["get", "", "G T"]);
    }

    #[test]
    fn cookies_have_a_token_for_a_name_and_a_path() {
        check(
            "cookie-name",
            &["sid", "__Host-x"],
            &["a b", "a=b", "a;b", ""],
        );
        check("cookie-path", &["/", "/a b"], &["a", "/;x", "/a\nb", "/é"]);
    }

    #[test]
    fn vaults_and_redirects_follow_kongs_rules() {
        check(
            "vault-prefix",
            &["my-env", "v1", "ab"],
            &["a", "env", "hcv", "My", "1a", "a-", "a_b", "é-e", ""],
        );
        check(
            "redirect-uri",
            &["https://a.test/x?y=1", "app://a.test"],
            &["/a", "a.test", "https://a.test/#x", "mailto:a@b"],
        );
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        check(
            "service-host",
            &[
                "a",
                "a.b",
                "127.0.0.1",
                "::1",
                "[::1]",
                "a_b",
                "a.",
                "-a",
                &"a".repeat(64),
            ],
            &["a:80", "http://a", "a/b", "a b", "a-", "a..b"],
        );
        check(
            "upstream-name",
            &["a.service"],
            &["1.2.3.4", "a:80", "[::1]", "a b"],
        );
        check("host-header", &["a", "a:80", "[::1]:80"], &["a:b", "a b"]);
    }

    #[test]
    fn targets_have_a_host_and_maybe_a_port() {
        check(
            "target",
            &[
                "a",
                "a:80",
                "1.2.3.4",
                "1.2.3.4:80",
                "[::1]",
                "[::1]:80",
                "::1",
            ],
            &[
                "a:0",
                "a:99999",
                "http://a:80",
                "a:b",
                "a b",
                ":80",
                "a:80/x",
            ],
        );
    }

    #[test]
    fn paths_are_uri_paths() {
        check(
            "service-path",
            &["/", "/a/b", "/a%2Fb", "/a;b=c"],
            &["a", "/a//b", "/a b", "/a%2", "/é", "/a?b", "/a#b"],
        );
    }

    #[test]
    fn networks_are_addresses_or_ranges() {
        check(
            "cidr",
            &["1.2.3.4", "10.0.0.0/8", "::1", "fd00::/8"],
            &["1.2.3", "10.0.0.0/33", "x"],
        );
    }
}
