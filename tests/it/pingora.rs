//! What the gateway takes for granted about Pingora, run against Pingora itself: each test puts a
//! tiny proxy between a scripted client and a scripted origin. A failure after an upgrade of
//! Pingora names the assumption that no longer holds; the gateway is not involved.

mod bed;
mod cache_hits;
mod compressed_bodies;
mod connection;
mod connections;
mod replies;
mod request_bodies;
mod whole_body;
