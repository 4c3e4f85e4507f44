//! The reason codes of what the gateway answered by itself, as its admin listener counts them. An answer does not
//! carry its code, so this is how many of each came in between.

use std::{collections::BTreeMap, time::Duration};

use crate::client::{Base, Client};

const PAGE: &str = "/metrics";
const SERIES: &str = "tollgate_replies_total{";
const LABEL: &str = "reason=\"";

/// How often each reason was counted.
pub(super) type Counts = BTreeMap<String, u64>;

/// The counters of a running gateway.
#[derive(Debug)]
pub(super) struct Reasons {
    client: Client,
    first: Counts,
    last: Counts,
}

impl Reasons {
    /// Begins to count; `None` if nobody tells.
    pub(super) async fn watch(base: Base, timeout: Duration) -> Option<Self> {
        let mut client = Client::new(base, timeout);
        let first = read(&mut client).await?;
        Some(Self {
            client,
            last: first.clone(),
            first,
        })
    }

    /// What was counted since the last time somebody asked.
    pub(super) async fn new_ones(&mut self) -> Counts {
        let Some(now) = read(&mut self.client).await else {
            return Counts::new();
        };
        let new_ones = difference(&now, &self.last);
        self.last = now;
        new_ones
    }

    /// What was counted from the beginning to the last time somebody asked.
    pub(super) fn all(&self) -> Counts {
        difference(&self.last, &self.first)
    }
}

async fn read(client: &mut Client) -> Option<Counts> {
    let page = client.get(PAGE).await.ok()?;
    page.status
        .is_success()
        .then(|| parse(&String::from_utf8_lossy(&page.body)))
}

fn parse(page: &str) -> Counts {
    let sample = |line: &str| {
        let (labels, value) = line.strip_prefix(SERIES)?.split_once('}')?;
        let (_, rest) = labels.split_once(LABEL)?;
        let (reason, _) = rest.split_once('"')?;
        Some((reason.to_owned(), value.trim().parse().ok()?))
    };
    page.lines().filter_map(sample).collect()
}

fn difference(now: &Counts, before: &Counts) -> Counts {
    now.iter()
        .map(|(reason, count)| {
            let before = before.get(reason).copied().unwrap_or(0);
            (reason.clone(), count.saturating_sub(before))
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_between_is_the_difference() {
        let before = parse("# HELP x\ntollgate_replies_total{reason=\"no_route\"} 2\nother 1\n");
        let now = parse(
            "tollgate_replies_total{reason=\"no_route\"} 2\ntollgate_replies_total{reason=\"rate_limited\"} 5\n",
        );
        assert_eq!(before.get("no_route"), Some(&2));
        assert_eq!(
            difference(&now, &before),
            Counts::from([("rate_limited".to_owned(), 5)])
        );
    }
}
