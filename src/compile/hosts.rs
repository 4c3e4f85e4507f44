//! Warns of hosts that no name server can be asked for: Kong takes them, as they may be names of upstreams.

use super::references::References;
use crate::config::{Code, Config, Diagnostics, Place};

/// What DNS allows between two dots, and in all.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 253;

/// Warns of the hosts of services without an upstream, and of targets.
pub(super) fn check(config: &Config, references: &References, diagnostics: &mut Diagnostics) {
    for (service, upstream) in config.services.iter().zip(&references.service_upstream) {
        if upstream.is_none() {
            let field = if service.place.node().get("url").is_some() {
                "url"
            } else {
                "host"
            };
            warn(&service.fields.host, &service.place, field, diagnostics);
        }
    }
    for target in &config.targets {
        let (host, _) = target.fields.address();
        warn(host, &target.place, "target", diagnostics);
    }
}

fn warn(host: &str, place: &Place, field: &str, diagnostics: &mut Diagnostics) {
    let name = host.strip_suffix('.').unwrap_or(host);
    let problem = if name.split('.').any(|label| label.len() > LABEL_MAX) {
        format!("a label has more than {LABEL_MAX} characters")
    } else if name.len() > NAME_MAX {
        format!("it has more than {NAME_MAX} characters")
    } else {
        return;
    };
    diagnostics
        .warning(
            Code::Unresolvable,
            place.at(field),
            place.path_of(field),
            format!("no name server can be asked for this host: {problem}"),
        )
        .hint("if it is the name of an upstream, add that to `upstreams`");
}
