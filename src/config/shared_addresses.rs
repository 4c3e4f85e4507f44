//! Two listeners on one address: with some flags, or with sockets that were handed over, the system lets both of them
//! have it, and either gets what is meant for the other.

use super::diagnostics::{Code, Diagnostics};
use super::model::gateway::Gateway;
use super::model::listen::Listen;
use super::node::Node;

/// An address of a setting.
struct Listener<'a> {
    setting: &'static str,
    /// `listen[1]`.
    path: String,
    listen: &'a Listen,
}

/// Reports every address that shares connections with one before it. `node` is where the settings are written.
pub(super) fn check(gateway: &Gateway, node: &Node, diagnostics: &mut Diagnostics) {
    let all: Vec<Listener<'_>> = of("listen", gateway.listen.addresses())
        .chain(of("stream_listen", gateway.stream_listen.addresses()))
        .chain(of("admin", gateway.admin.addresses()))
        .collect();
    for (index, second) in all.iter().enumerate() {
        let mut before = all.iter().take(index);
        let Some(first) = before.find(|first| share(first, second)) else {
            continue;
        };
        let (one, other) = (first.listen.address, second.listen.address);
        let message = format!(
            "`{other}` is taken by `{one}` of `gateway.{}`",
            first.setting
        );
        let written = |listener: &Listener<'_>| {
            if node.get(listener.setting).is_some() {
                format!("at {}", diagnostics.place(node.span_at(&listener.path)))
            } else {
                format!("the default of `gateway.{}`", listener.setting)
            }
        };
        let hint = match (written(first), node.get(second.setting)) {
            (first, Some(_)) => format!("the first one is {first}; give them different ports"),
            (first, None) => format!(
                "the first one is {first}, the second is the default of `gateway.{}`: write another one",
                second.setting
            ),
        };
        let span = node.span_at(&second.path);
        diagnostics
            .error(
                Code::SharedAddress,
                span,
                format!("gateway.{}", second.path),
                message,
            )
            .value(other.to_string())
            .hint(hint);
    }
}

fn of<'a>(
    setting: &'static str,
    addresses: impl Iterator<Item = &'a Listen>,
) -> impl Iterator<Item = Listener<'a>> {
    addresses.enumerate().map(move |(index, listen)| Listener {
        setting,
        path: format!("{setting}[{index}]"),
        listen,
    })
}

fn share(first: &Listener<'_>, second: &Listener<'_>) -> bool {
    let (one, other) = (first.listen, second.listen);
    if first.setting == second.setting && one.reuseport && other.reuseport {
        // The system prefers the more exact one, and both serve the same.
        return one.address == other.address;
    }
    overlap(one, other)
}

/// Whether a connection can be meant for both.
fn overlap(one: &Listen, other: &Listen) -> bool {
    let (here, there) = (one.address, other.address);
    // Port 0 stands for one that is free.
    if here.port() != there.port() || here.port() == 0 {
        return false;
    }
    if here.is_ipv4() != there.is_ipv4() {
        return is_both(one) || is_both(other);
    }
    here.ip() == there.ip() || here.ip().is_unspecified() || there.ip().is_unspecified()
}

/// Whether it takes connections of IPv4 and IPv6.
fn is_both(listen: &Listen) -> bool {
    listen.address.is_ipv6()
        && listen.address.ip().is_unspecified()
        && listen.ipv6only == Some(false)
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    fn found(settings: &str) -> String {
        let text = format!("_format_version: \"3.0\"\ngateway:\n{settings}");
        load_text(text, "f", &|_| None).diagnostics.to_text()
    }

    #[test]
    fn one_address_for_two_listeners_is_reported_with_both_places() {
        assert_eq!(
            found("  listen: 0.0.0.0:8000\n  admin: 127.0.0.1:8000\n"),
            "f:4:10: error[config::shared_address]: gateway.admin[0]: `127.0.0.1:8000` is taken by `0.0.0.0:8000` of \
             `gateway.listen` (the first one is at f:3:11; give them different ports)\n"
        );
        assert_eq!(
            found(
                "  listen:\n  - 127.0.0.1:9000 reuseport\n  stream_listen:\n  - 127.0.0.1:9000 reuseport\n"
            ),
            "f:6:5: error[config::shared_address]: gateway.stream_listen[0]: `127.0.0.1:9000` is taken by \
             `127.0.0.1:9000` of `gateway.listen` (the first one is at f:4:5; give them different ports)\n"
        );
    }

    #[test]
    fn a_default_that_is_in_the_way_is_named() {
        assert_eq!(
            found("  listen: 0.0.0.0:8001\n"),
            "f:3:3: error[config::shared_address]: gateway.admin[0]: `127.0.0.1:8001` is taken by `0.0.0.0:8001` of \
             `gateway.listen` (the first one is at f:3:11, the second is the default of `gateway.admin`: write another one)\n"
        );
        let taken = found("  stream_listen: 0.0.0.0:8000\n");
        assert!(
            taken.contains("the first one is the default of `gateway.listen`"),
            "{taken}"
        );
    }

    #[test]
    fn what_the_system_keeps_apart_is_fine() {
        for settings in [
            "  listen: 0.0.0.0:8000, [::]:8000\n",
            "  listen: 127.0.0.1:8000, 127.0.0.2:8000\n",
            "  listen: 0.0.0.0:8000 reuseport, 127.0.0.1:8000 reuseport\n",
            "  listen: 127.0.0.1:0, 127.0.0.1:0\n",
            "  listen: off\n  stream_listen: 0.0.0.0:8000\n",
        ] {
            assert_eq!(found(settings), "", "{settings}");
        }
    }

    #[test]
    fn an_address_for_both_families_takes_those_of_either() {
        for settings in [
            "  listen: '[::]:8000 ipv6only=off'\n  admin: 127.0.0.1:8000\n",
            "  listen: 0.0.0.0:8000, [::]:8000 ipv6only=off\n",
            "  listen: 127.0.0.1:8000 reuseport, 127.0.0.1:8000 reuseport\n",
            "  listen: '[::]:8000'\n  admin: '[::1]:8000'\n",
        ] {
            let found = found(settings);
            assert_eq!(found.matches("shared_address").count(), 1, "{found}");
        }
    }
}
