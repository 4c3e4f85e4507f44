//! The health of the addresses behind upstreams: kept across reloads, read by every request. Who
//! judges, and by which limits, is said by the caller.

mod address;

use super::addresses::{PerAddress, PerTarget};

pub use address::{
    AddressHealth, Cause, Change, Counters, Damping, FALLS_MAX, Finding, Limits, Tally, Witness,
};

/// The health of each address of a target.
pub type TargetHealth = PerAddress<AddressHealth>;

/// The health of all targets that some snapshot watches.
pub type TargetsHealth = PerTarget<AddressHealth>;
