//! Each plugin as seen from outside; one file per plugin, named like its source.

mod circuit_breaker;
mod concurrency_limit;
mod consumer_groups;
mod correlation_id;
mod key_auth;
mod limiters;
mod ordering;
mod prometheus;
mod proxy_mirror;
mod rate_limiting;
mod request_termination;
mod scoping;
mod traffic_split;
