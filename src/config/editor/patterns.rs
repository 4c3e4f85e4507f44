//! What a regex can say of the formats, for editors. Each takes everything that its format takes;
//! `check` says the rest. Only what JavaScript's regexes and ours have in common is used.

/// What editors and pages say of a format.
pub(super) struct Pattern {
    /// The format's name.
    format: &'static str,
    pub(super) regex: &'static str,
    /// What people call such a value.
    pub(super) noun: &'static str,
}

const fn pattern(format: &'static str, regex: &'static str, noun: &'static str) -> Pattern {
    Pattern {
        format,
        regex,
        noun,
    }
}

const PATTERNS: &[Pattern] = &[
    pattern(
        "uuid",
        "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
        "UUID",
    ),
    pattern(
        "entity-name",
        r"^([0-9A-Za-z._~-]|[^\x00-\x7F])*$",
        "name of letters, digits, `.`, `-`, `_` and `~`",
    ),
    pattern("tag", "^[^,/]*$", "text without `,` and `/`"),
    pattern("route-path", "^~?/", "path, or a regex behind `~`"),
    pattern(
        "route-host",
        r"^[^/\s]+$",
        "host name, maybe with `*` or a port",
    ),
    pattern("route-sni", r"^[^/:\s]+$", "host name, maybe with `*`"),
    pattern(
        "route-header",
        "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        "header name",
    ),
    pattern("method", "^[A-Z]+$", "method in capital letters"),
    pattern(
        "header-name",
        "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        "header name",
    ),
    pattern(
        "service-host",
        r"^([0-9A-Za-z._-]+|\[?[0-9A-Fa-f:.]+\]?)$",
        "host name or IP address",
    ),
    pattern(
        "cookie-name",
        "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        "name of a cookie",
    ),
    pattern("cookie-path", "^/[ -:<-~]*$", "path"),
    pattern("service-path", "^/", "path"),
    pattern("upstream-name", "^[0-9A-Za-z._-]+$", "host name"),
    pattern("host-header", r"^[^/\s]+$", "host, maybe with a port"),
    pattern("target", r"^[^/\s]+$", "host, maybe with a port"),
    pattern("url", "^[Hh][Tt][Tt][Pp][Ss]?://", "http or https URL"),
    pattern(
        "cidr",
        "^[0-9A-Fa-f.:]+(/[0-9]+)?$",
        "IP address or network",
    ),
    pattern("ip", "^[0-9A-Fa-f.:]+$", "IP address"),
    pattern(
        "redirect-uri",
        "^[A-Za-z][A-Za-z0-9+.-]*:[^#]*$",
        "absolute URI without a fragment",
    ),
    pattern(
        "vault-prefix",
        "^[a-z][a-z0-9-]*[a-z0-9]$",
        "name of `a-z`, `0-9` and `-`",
    ),
    pattern("size", r"^\s*\+?[0-9]+[KMGkmg]?\s*$", "size"),
    pattern(
        "seconds",
        r"^\s*\+?[0-9.]+([Ee][+-]?[0-9]+)?([Mm]?[Ss]|[MmHhDd])?\s*$",
        "time",
    ),
    pattern("threads", "^auto$", "number, or `auto`"),
    pattern("listen", r"^\s*(off|\S+:[0-9]+(\s.*)?)\s*$", "address"),
    pattern(
        "stream-listen",
        r"^\s*(off|\S+:[0-9]+(\s.*)?)\s*$",
        "address",
    ),
    pattern(
        "trusted-network",
        "^[0-9A-Fa-f.:]+(/[0-9]+)?$",
        "IP address or network",
    ),
    pattern(
        "real-ip-header",
        "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        "header name",
    ),
    pattern(
        "header-buffers",
        r"^\s*\+?[0-9]+\s+\+?[0-9]+[KMGkmg]?\s*$",
        "number and size",
    ),
    pattern(
        "port-map",
        r"^\s*\+?[0-9]+\s*:\s*\+?[0-9]+\s*$",
        "`outer:inner`",
    ),
    pattern("consul-address", "^https?://", "http or https URL"),
    pattern(
        "dns-server",
        r"^\[?[0-9A-Fa-f.:]+\]?(:[0-9]+)?$",
        "IP address, maybe with a port",
    ),
];

/// The pattern of a format, if a regex says enough of it.
pub(super) fn pattern_of(format: &str) -> Option<&'static Pattern> {
    PATTERNS.iter().find(|pattern| pattern.format == format)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::config::{formats, model::settings};

    /// Texts of all kinds; each format takes some of them.
    const SAMPLES: &[&str] = &[
        "4e13f54a-bbf1-47a8-8777-255fed7116f2",
        "a",
        "a.b-c_d~1",
        "café",
        "日本",
        "a b",
        "x:y",
        "a:80",
        "a.b.",
        "*.example.com",
        "example.*",
        "example.com:8443",
        "127.0.0.1",
        "127.0.0.1:80",
        "::1",
        "[::1]",
        "[::1]:80",
        "10.0.0.0/8",
        "fd00::/8",
        "/",
        "/a/b",
        "/a%2Fb;c=d",
        "~/a/(\\d+)",
        "GET",
        "X-Real-IP",
        "x!#$%&'*+.^_`|~",
        "http://a/b?c",
        "HTTPS://a",
        "http://127.0.0.1:8500",
        "0",
        "10m",
        " 8K ",
        "+5",
        "75s",
        "500MS",
        "1.5",
        "1e3",
        "1e-3h",
        ".5d",
        "auto",
        "off",
        "0.0.0.0:8000",
        " [::]:8000  reuseport backlog=5 ",
        "4 8k",
        " 4   8192 ",
        "80:8000",
        "80 : 8000",
    ];

    #[test]
    fn a_pattern_takes_whatever_its_format_takes() {
        for pattern in PATTERNS {
            let name = pattern.format;
            let format = formats::find(name).or_else(|| settings::find_format(name));
            let format = format.unwrap_or_else(|| panic!("no format is called {name}"));
            let regex = Regex::new(pattern.regex).unwrap();
            let accepted = SAMPLES
                .iter()
                .filter(|sample| (format.validate)(sample).is_ok());
            let mut some = false;
            for sample in accepted {
                some = true;
                assert!(regex.is_match(sample), "{name}: {sample}");
            }
            assert!(some, "no sample for {name}");
        }
    }
}
