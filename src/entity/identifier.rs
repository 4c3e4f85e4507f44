//! Identifiers of entities. Those that were given none get one that is the same on every node and after every
//! reload. The derivation is Kong's, so that ids in logs and dashboards stay the same after a migration.

use http::HeaderValue;
use uuid::{Uuid, uuid};

/// The namespace that Kong's declarative configuration derives ids in.
const DECLARATIVE: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id of the entity that `key` identifies within the list `list` (`services`, `routes` …).
pub fn derive(list: &str, key: &str) -> Uuid {
    let namespace = Uuid::new_v5(&DECLARATIVE, list.as_bytes());
    Uuid::new_v5(&namespace, key.as_bytes())
}

/// An id as a header sends it.
pub fn uuid_header(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_the_list_and_the_key_alone() {
        assert_eq!(derive("services", "a"), derive("services", "a"));
        assert_ne!(derive("services", "a"), derive("routes", "a"));
        assert_ne!(derive("services", "a"), derive("services", "b"));
        assert_eq!(derive("services", "a").get_version_num(), 5);
    }
}
