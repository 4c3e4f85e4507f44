//! Each plugin as seen from outside; one file per plugin, named like its source.

mod correlation_id;
mod key_auth;
mod prometheus;
mod rate_limiting;
mod request_termination;
mod scoping;
