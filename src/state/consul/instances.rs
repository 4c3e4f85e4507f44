//! Reads the answer to `/v1/health/service/…`.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use crate::state::feed::Record;

/// The most instances of one service.
const INSTANCES_MAX: usize = 10_000;
/// The weight of an instance that has none.
const WEIGHT: u16 = 100;

/// What an answer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Instances {
    pub records: Vec<Record>,
    /// How many cannot be used: they have no IP address or no port.
    pub unusable: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Option<Node>,
    service: Instance,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    address: Option<String>,
    port: Option<i64>,
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: Option<i64>,
}

/// The instances in `body`.
///
/// # Errors
/// When it is no list of instances, or none of them can be used.
pub(super) fn read(body: &[u8]) -> Result<Instances, String> {
    let entries: Vec<Entry> = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no list of instances: {error}"))?;
    let all = entries.len();
    // An address that is registered twice is one place.
    let mut places: BTreeMap<(IpAddr, u16), u16> = BTreeMap::new();
    let mut unusable = all.saturating_sub(INSTANCES_MAX);
    for entry in entries.into_iter().take(INSTANCES_MAX) {
        match place(&entry) {
            Some((address, port, weight)) => {
                let known = places.entry((address, port)).or_insert(weight);
                *known = weight.max(*known);
            }
            None => unusable += 1,
        }
    }
    if places.is_empty() && all > 0 {
        return Err(format!(
            "none of {all} instances has an IP address and a port"
        ));
    }
    let records = places.into_iter().map(|((address, port), weight)| Record {
        address,
        port: Some(port),
        weight: Some(weight),
        name: None,
    });
    Ok(Instances {
        records: records.collect(),
        unusable,
    })
}

fn place(entry: &Entry) -> Option<(IpAddr, u16, u16)> {
    let own = entry.service.address.as_deref();
    let of_node = || entry.node.as_ref()?.address.as_deref();
    let address = own.filter(|address| !address.is_empty()).or_else(of_node)?;
    let address: IpAddr = address.parse().ok()?;
    let port = u16::try_from(entry.service.port?).ok()?;
    let written = entry.service.weights.as_ref();
    let weight = written.and_then(|weights| weights.passing);
    let weight = weight.map_or(WEIGHT, |weight| {
        u16::try_from(weight.max(0)).unwrap_or(u16::MAX)
    });
    (port > 0 && !address.is_unspecified()).then_some((address, port, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(body: &str) -> (Vec<String>, usize) {
        let found = read(body.as_bytes()).expect("a list");
        let shown = |record: &Record| {
            let (port, weight) = (record.port.unwrap_or(0), record.weight.unwrap_or(0));
            format!("{}:{port} {weight}", record.address)
        };
        (found.records.iter().map(shown).collect(), found.unusable)
    }

    #[test]
    fn the_address_of_the_node_stands_in_for_that_of_the_service() {
        let body = r#"[
            {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 7, "Warning": 1}}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"Address": "", "Port": 81}, "Checks": [{}]},
            {"Service": {"Address": "::1", "Port": 82, "Weights": {"Passing": -3}}},
            {"Service": {"Address": "10.0.0.3", "Port": 83, "Weights": {"Passing": 99999999}}}
        ]"#;
        assert_eq!(
            places(body).0,
            [
                "10.0.0.1:80 7",
                "10.0.0.2:81 100",
                "10.0.0.3:83 65535",
                "::1:82 0"
            ]
        );
    }

    #[test]
    fn what_cannot_be_reached_is_left_out_and_counted() {
        let body = r#"[
            {"Service": {"Address": "db.internal", "Port": 80}},
            {"Service": {"Address": "10.0.0.1", "Port": 0}},
            {"Service": {"Address": "0.0.0.0", "Port": 80}},
            {"Service": {"Port": 80}},
            {"Service": {"Address": "10.0.0.1", "Port": 80}},
            {"Service": {"Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 200}}}
        ]"#;
        assert_eq!(places(body), (vec!["10.0.0.1:80 200".to_owned()], 4));
        assert_eq!(places("[]"), (Vec::new(), 0));
    }

    #[test]
    fn what_is_no_list_of_instances_is_an_error() {
        for body in [
            "",
            "{}",
            "null",
            "[1]",
            "[{}]",
            "<html>",
            "[{\"Service\": {\"Address\": 5}}]",
            "[{\"Service\": {\"Address\": \"10.0.0.1\", \"Port\": \"80\"}}]",
            "[{\"Service\": {\"Address\": \"x\", \"Port\": 80}}]",
            "[{\"Service\": {\"Address\": \"10.0.0.1\", \"Port\": 80}}",
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
