//! How what is resolved and discovered is, as metrics. Who asks for it is elsewhere.

use super::{
    families,
    page::{Page, signed_number},
};

/// How names and registries are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoveryHealth {
    pub names: Vec<NameHealth>,
    /// By upstream: whether the last question for its instances was answered.
    pub upstreams: Vec<(String, bool)>,
    /// Absent if no routes are taken from a registry.
    pub catalog: Option<CatalogHealth>,
}

/// How a host name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameHealth {
    pub name: String,
    /// Whether the last look-up gave addresses.
    pub is_resolved: bool,
    /// Unix seconds.
    pub last_success: Option<i64>,
    /// How many look-ups ended how.
    pub lookups: Vec<(&'static str, u64)>,
}

/// How the catalog is that routes are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogHealth {
    pub is_up: bool,
    /// Services that have routes.
    pub routed: usize,
    /// Services that ask for routes and have none.
    pub skipped: usize,
}

/// Writes all of it.
pub(super) fn write(page: &mut Page, health: &DiscoveryHealth) {
    let flag = |is_so: bool| if is_so { 1.0 } else { 0.0 };
    let mut family = page.family(&families::DNS_NAME_RESOLVED);
    for name in &health.names {
        family.gauge(&[&name.name], flag(name.is_resolved));
    }
    family.end();
    let mut family = page.family(&families::DNS_LOOKUPS);
    for name in &health.names {
        for (result, count) in &name.lookups {
            family.count(&[&name.name, result], *count);
        }
    }
    family.end();
    let mut family = page.family(&families::DNS_LAST_SUCCESS);
    for name in &health.names {
        if let Some(at) = name.last_success {
            family.gauge(&[&name.name], signed_number(at));
        }
    }
    family.end();
    let mut family = page.family(&families::DISCOVERY_UP);
    for (upstream, is_up) in &health.upstreams {
        family.gauge(&[upstream], flag(*is_up));
    }
    family.end();
    if let Some(catalog) = &health.catalog {
        page.family(&families::DISCOVERY_CATALOG_UP)
            .gauge(&[], flag(catalog.is_up))
            .end();
        let number = |count: usize| signed_number(i64::try_from(count).unwrap_or(i64::MAX));
        page.family(&families::DISCOVERY_SERVICES)
            .gauge(&["routed"], number(catalog.routed))
            .gauge(&["skipped"], number(catalog.skipped))
            .end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exports::Namespace;

    #[test]
    fn names_upstreams_and_the_catalog_have_series_of_their_own() {
        let mut page = Page::new(Namespace::Tollgate, 0);
        let health = DiscoveryHealth {
            names: vec![NameHealth {
                name: "a.test".to_owned(),
                is_resolved: false,
                last_success: Some(7),
                lookups: vec![("found", 3), ("failed", 1)],
            }],
            upstreams: vec![("users".to_owned(), true)],
            catalog: Some(CatalogHealth {
                is_up: true,
                routed: 2,
                skipped: 1,
            }),
        };
        write(&mut page, &health);
        let text = page.into_text();
        for line in [
            "tollgate_dns_name_resolved{name=\"a.test\"} 0",
            "tollgate_dns_lookups_total{name=\"a.test\",result=\"found\"} 3",
            "tollgate_dns_last_success_timestamp_seconds{name=\"a.test\"} 7",
            "tollgate_discovery_up{upstream=\"users\"} 1",
            "tollgate_discovery_catalog_up 1",
            "tollgate_discovery_services{state=\"skipped\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
