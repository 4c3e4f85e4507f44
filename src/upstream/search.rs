//! The search for a target over the tries of one request or stream: what was tried in vain is passed
//! over while something else is left.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::OwnedSemaphorePermit;

use super::{Balancer, Failed, Target, Tried};

/// What was tried so far.
#[derive(Debug, Default)]
pub struct Search {
    tried: Tried,
    failed: Failed,
    /// Of the failed ones, those whose certificate was not accepted: they are not asked again.
    unverified: Failed,
}

/// Where the next try goes.
#[derive(Debug)]
pub struct Found<'b> {
    /// The place of the target.
    pub place: usize,
    pub target: &'b Target,
    pub address: IpAddr,
    /// The place among the connections of the target, where those are limited.
    pub slot: Option<OwnedSemaphorePermit>,
}

/// Why there is no next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// No target is available.
    Target,
    /// The target takes no more connections.
    Slot,
    /// No address is known for a name.
    Address,
    /// All that is left has a certificate that was not accepted.
    Verified,
}

impl Search {
    /// Finds the next target and address. Waits up to `patience` for a place at a target and for the
    /// first answer of the resolver.
    ///
    /// # Errors
    /// When there is none.
    pub async fn next<'b>(
        &mut self,
        balancer: &'b Balancer,
        patience: Duration,
    ) -> Result<Found<'b>, Absent> {
        // Each round rules out one target that cannot be used, so the loop ends.
        loop {
            let (place, target) = balancer.pick(&self.tried).ok_or(Absent::Target)?;
            let (has_slot, slot) = slot(target, patience).await;
            // After the wait for a place, as the target may have become unhealthy meanwhile.
            let address = if has_slot {
                let failed = &self.failed;
                let untried = |address| !failed.contains(&(place, address));
                target.address(patience, untried).await
            } else {
                None
            };
            if let Some(address) = address {
                if self.unverified.contains(&(place, address)) {
                    return Err(Absent::Verified);
                }
                return Ok(Found {
                    place,
                    target,
                    address,
                    slot,
                });
            }
            if self.tried.contains(&place) {
                return Err(if has_slot && target.is_available() {
                    Absent::Address
                } else {
                    Absent::Slot
                });
            }
            self.tried.push(place);
        }
    }

    /// Notes that an address is of no use, and its target if no other is left there.
    pub fn rule_out(&mut self, balancer: &Balancer, (place, address): (usize, IpAddr)) {
        let tried = (place, address);
        if !self.failed.contains(&tried) {
            self.failed.push(tried);
        }
        let failed = &self.failed;
        let has_another = balancer.targets().get(place).is_some_and(|target| {
            target.has_address(|address| !failed.contains(&(place, address)))
        });
        if !has_another && !self.tried.contains(&place) {
            self.tried.push(place);
        }
    }

    /// Whether a request may go to an address that was not tried in vain.
    pub fn has_untried(&self, balancer: &Balancer) -> bool {
        let mut targets = balancer.targets().iter().enumerate();
        targets.any(|(place, target)| {
            target.weight > 0
                && target.has_address(|address| !self.failed.contains(&(place, address)))
        })
    }

    /// Notes that the certificate at an address was not accepted: it is not asked again. Whether
    /// anything else is left.
    pub fn distrust(&mut self, balancer: &Balancer, (place, address): (usize, IpAddr)) -> bool {
        self.rule_out(balancer, (place, address));
        self.unverified.push((place, address));
        let unverified = &self.unverified;
        let mut targets = balancer.targets().iter().enumerate();
        targets.any(|(place, target)| {
            target.weight > 0
                && target.has_address(|address| !unverified.contains(&(place, address)))
        })
    }
}

/// Waits up to `patience` for a place among the connections of `target`. Whether it may be used,
/// and the place, where places are limited.
async fn slot(target: &Target, patience: Duration) -> (bool, Option<OwnedSemaphorePermit>) {
    let Some(slots) = &target.slots else {
        return (true, None);
    };
    match tokio::time::timeout(patience, Arc::clone(slots).acquire_owned()).await {
        Ok(Ok(slot)) => (true, Some(slot)),
        Ok(Err(_)) | Err(_) => (false, None),
    }
}
