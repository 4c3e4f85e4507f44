//! Sticky sessions: which member a cookie names. The ids show no addresses, and are the same in every
//! process. They are no secrets: who knows the id of the upstream can find an address by trying.

use std::{net::SocketAddr, sync::Arc};

use uuid::Uuid;

use crate::upstream::Member;

/// The members by the ids in cookies.
#[derive(Debug)]
pub(in crate::upstream) struct Sessions(Box<[(u64, u32)]>);

impl Sessions {
    pub(in crate::upstream) fn new(members: &[Arc<Member>]) -> Self {
        let mut ids: Vec<(u64, u32)> = members
            .iter()
            .zip(0..)
            .map(|(member, place)| (member.session, place))
            .collect();
        ids.sort_unstable();
        Self(ids.into_boxed_slice())
    }

    /// The place of the member that `id` names.
    pub(in crate::upstream) fn find(&self, id: u64) -> Option<usize> {
        let found = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.0.get(found).map(|(_, place)| *place as usize)
    }
}

/// The id of an address of the upstream with this id: a part of a SHA-1.
pub(in crate::upstream) fn id(upstream: Uuid, address: SocketAddr) -> u64 {
    Uuid::new_v5(&upstream, address.to_string().as_bytes())
        .as_u64_pair()
        .0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{roster::Roster, target::tests::at};

    #[test]
    fn an_id_finds_its_member_and_no_other() {
        let targets = [at(1, 1), at(2, 1)];
        let members = Roster::gathered(&targets);
        let sessions = Sessions::new(&members);
        for (place, member) in members.iter().enumerate() {
            assert_eq!(sessions.find(member.session), Some(place));
        }
        assert_eq!(sessions.find(7), None);
    }

    #[test]
    fn upstreams_do_not_share_ids() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let one = id(Uuid::from_u128(1), address);
        assert_eq!(one, id(Uuid::from_u128(1), address));
        assert_ne!(one, id(Uuid::from_u128(2), address));
    }
}
