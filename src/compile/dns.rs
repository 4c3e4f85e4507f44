//! The `dns_…` settings in the form that look-ups need them.

use crate::{
    config::model::{Gateway, dns::DnsRecords},
    state::dns::{Ask, Settings},
};

/// How names are asked for with these settings.
pub fn settings(gateway: &Gateway) -> Settings {
    let mut order = Vec::new();
    for records in gateway.dns_order.iter() {
        let ask = match records {
            DnsRecords::Srv => Ask::Srv,
            DnsRecords::A => Ask::A,
            DnsRecords::Aaaa => Ask::Aaaa,
            DnsRecords::Last | DnsRecords::Cname => continue,
        };
        if !order.contains(&ask) {
            order.push(ask);
        }
    }
    Settings {
        servers: gateway.dns_resolver.iter().map(|server| server.0).collect(),
        hosts_file: gateway.dns_hostsfile.0.clone().into(),
        order,
        last_first: gateway.dns_order.contains(&DnsRecords::Last),
        valid_ttl: gateway.dns_valid_ttl.map(|seconds| seconds.0),
        not_found_ttl: gateway.dns_not_found_ttl.0,
        error_ttl: gateway.dns_error_ttl.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::settings::List;

    #[test]
    fn the_defaults_of_both_layers_are_the_same() {
        assert_eq!(settings(&Gateway::default()), Settings::default());
    }

    #[test]
    fn each_kind_of_records_is_asked_for_once() {
        let gateway = Gateway {
            dns_order: List(vec![DnsRecords::A, DnsRecords::Cname, DnsRecords::A]),
            ..Gateway::default()
        };
        let settings = settings(&gateway);
        assert_eq!(settings.order, [Ask::A]);
        assert!(!settings.last_first);
    }
}
