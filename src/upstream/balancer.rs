//! Picks a target for each try of a request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::HeaderValue;
use smallvec::SmallVec;

use super::{Target, wheel::Wheel};

/// The targets of an upstream, or the one host of a service, with their turns.
///
/// The position lives in the state, so a reload goes on where the old configuration stopped, also
/// with new weights. One position serves all threads: the counts are exact whatever `threads` is.
#[derive(Debug)]
pub struct Balancer {
    /// The upstream's name, or the service's host.
    pub name: String,
    /// `host_header` of the upstream.
    pub host_header: Option<HeaderValue>,
    targets: Box<[Target]>,
    wheel: Wheel,
    position: Arc<AtomicU64>,
}

/// The targets that a request has tried in vain, by their places.
pub type Tried = SmallVec<[usize; 4]>;

impl Balancer {
    /// A balancer that goes on from `position`.
    pub fn new(
        name: String,
        host_header: Option<HeaderValue>,
        targets: Vec<Target>,
        position: Arc<AtomicU64>,
    ) -> Self {
        let weights: Vec<u16> = targets.iter().map(|target| target.weight).collect();
        Self {
            name,
            host_header,
            wheel: Wheel::new(&weights),
            targets: targets.into_boxed_slice(),
            position,
        }
    }

    /// The name of the way in which targets are picked, in Kong's words.
    pub fn algorithm(&self) -> &'static str {
        "round-robin"
    }

    /// The targets, also those without weight.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The next target; passes over those in `tried` while another is left. `None` if no target
    /// has a positive weight.
    pub fn pick(&self, tried: &Tried) -> Option<(usize, &Target)> {
        let first = self.turn()?;
        let mut picked = first;
        if tried.contains(&first) && self.has_untried(tried) {
            // One cycle holds a turn of every target that has a weight.
            for _ in 0..self.wheel.turns() {
                picked = self.turn()?;
                if !tried.contains(&picked) {
                    break;
                }
            }
        }
        self.targets.get(picked).map(|target| (picked, target))
    }

    fn turn(&self) -> Option<usize> {
        self.wheel
            .target(self.position.fetch_add(1, Ordering::Relaxed))
    }

    fn has_untried(&self, tried: &Tried) -> bool {
        self.targets
            .iter()
            .enumerate()
            .any(|(place, target)| target.weight > 0 && !tried.contains(&place))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use smallvec::smallvec;

    use super::*;
    use crate::upstream::TargetHost;

    fn target(weight: u16) -> Target {
        Target {
            host: TargetHost::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: 80,
            weight,
            label: "127.0.0.1:80".into(),
            host_headers: [
                HeaderValue::from_static("127.0.0.1"),
                HeaderValue::from_static("127.0.0.1:80"),
            ],
            slots: None,
            server_name: "127.0.0.1".into(),
        }
    }

    fn balancer(weights: &[u16], position: &Arc<AtomicU64>) -> Balancer {
        Balancer::new(
            "pool".into(),
            None,
            weights.iter().map(|weight| target(*weight)).collect(),
            Arc::clone(position),
        )
    }

    fn picks(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| balancer.pick(&Tried::new()).map(|(place, _)| place))
            .collect()
    }

    #[test]
    fn a_new_snapshot_goes_on_where_the_old_one_stopped() {
        let position = Arc::new(AtomicU64::new(0));
        assert_eq!(picks(&balancer(&[1, 1], &position), 3), [0, 1, 0]);
        assert_eq!(picks(&balancer(&[1, 1], &position), 2), [1, 0]);
    }

    #[test]
    fn a_retry_takes_an_untried_target_while_there_is_one() {
        let balancer = balancer(&[3, 1, 0], &Arc::default());
        for _ in 0..8 {
            assert_eq!(
                balancer.pick(&smallvec![0]).map(|(place, _)| place),
                Some(1)
            );
        }
        assert!(balancer.pick(&smallvec![0, 1]).is_some());
    }

    #[test]
    fn threads_together_keep_the_exact_proportion() {
        let balancer = Arc::new(balancer(&[3, 1], &Arc::default()));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let balancer = Arc::clone(&balancer);
                std::thread::spawn(move || picks(&balancer, 1000))
            })
            .collect();
        let mut counts = [0; 2];
        for thread in threads {
            for place in thread.join().expect("no panic") {
                counts[place] += 1;
            }
        }
        assert_eq!(counts, [3000, 1000]);
    }

    #[test]
    fn without_weight_there_is_no_target() {
        assert!(
            balancer(&[0, 0], &Arc::default())
                .pick(&Tried::new())
                .is_none()
        );
    }
}
