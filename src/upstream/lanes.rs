//! Copies of the members of a roster for some threads each. Whoever picks a member holds it and counts that in
//! the member's memory: threads that share one would wait for each other's cache lines at every pick.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use super::Member;

/// The lanes beside the first, which has the members themselves. Threads take them in turn.
const FURTHER: usize = 7;
/// Of more members there are no copies: two threads seldom pick the same at once.
const MEMBERS_MAX: usize = 32;

thread_local! {
    /// The lane of this thread, from 0.
    static LANE: usize = {
        static ENTERED: AtomicUsize = AtomicUsize::new(0);
        ENTERED.fetch_add(1, Ordering::Relaxed) % (FURTHER + 1)
    };
}

/// The copies, each made when its lane first asks. What they keep of an address is one for all.
#[derive(Debug, Default)]
pub(super) struct Lanes([OnceLock<Box<[Arc<Member>]>>; FURTHER]);

impl Lanes {
    /// What this thread is to pick from instead of `members`: the same in the same places.
    pub(super) fn own<'a>(&'a self, members: &'a [Arc<Member>]) -> &'a [Arc<Member>] {
        if members.len() > MEMBERS_MAX {
            return members;
        }
        let lane = LANE.with(|lane| lane.checked_sub(1));
        lane.and_then(|lane| self.0.get(lane))
            .map_or(members, |copies| {
                copies.get_or_init(|| {
                    let copy = |member: &Arc<Member>| Arc::new(Member::clone(member));
                    members.iter().map(copy).collect()
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::upstream::{roster::Roster, target::tests::at};

    #[test]
    fn every_lane_has_the_same_members_and_counts_their_load_together() {
        let members = Roster::gathered(&[at(1, 1), at(2, 1)]);
        let lanes = Lanes::default();
        let begin = || {
            let own = lanes.own(&members);
            assert!(
                own.iter()
                    .zip(&members)
                    .all(|(own, it)| own.address == it.address)
            );
            own[1].load.begin();
            Arc::as_ptr(&own[1]).addr()
        };
        let mut addresses: Vec<usize> = thread::scope(|scope| {
            let threads: Vec<_> = (0..=FURTHER).map(|_| scope.spawn(begin)).collect();
            let threads = threads.into_iter();
            threads.map(|it| it.join().expect("no panic")).collect()
        });
        addresses.sort_unstable();
        addresses.dedup();
        assert!(addresses.len() > 1, "{addresses:?}");
        assert_eq!(members[1].load.under_way(), 8);
    }

    #[test]
    fn many_members_are_not_copied() {
        let targets: Vec<_> = (0..=32).map(|last| at(last, 1)).collect();
        let members = Roster::gathered(&targets);
        let lanes = Lanes::default();
        let is_shared = || std::ptr::eq(lanes.own(&members), members.as_slice());
        let all = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(is_shared)).collect();
            threads.into_iter().all(|it| it.join().expect("no panic"))
        });
        assert!(all);
    }
}
