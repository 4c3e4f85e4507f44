//! How the request of a probe is addressed: to whom, by which name, with which headers.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use pingora_core::{Result, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;

use crate::{
    entity::Protocol,
    tls::UpstreamTls,
    upstream::{server_name, target::Called},
};

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION")));

/// How a request of a probe is addressed.
#[derive(Debug)]
pub struct Envelope {
    /// Absent = no TLS.
    pub tls: Option<TlsAsk>,
    /// The `Host` for all targets.
    pub host: Option<HeaderValue>,
    /// Headers beside `Host`.
    pub headers: HeaderMap,
}

/// How a probe speaks TLS.
#[derive(Debug)]
pub struct TlsAsk {
    /// Absent = the `Host`.
    pub server_name: Option<String>,
    pub tls: Arc<UpstreamTls>,
}

impl Envelope {
    /// The `Host` for a member that is `called` so.
    pub(super) fn host<'a>(&'a self, called: &'a Called) -> &'a HeaderValue {
        let protocol = match self.tls {
            Some(_) => Protocol::Https,
            None => Protocol::Http,
        };
        self.host
            .as_ref()
            .unwrap_or_else(|| called.host_header(protocol))
    }

    /// Where it is sent, and how that end proves who it is.
    pub(super) fn peer(&self, called: &Called, address: SocketAddr) -> HttpPeer {
        let Some(tls) = &self.tls else {
            return HttpPeer::new(address, false, String::new());
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => server_name(
                self.host(called).to_str().unwrap_or_default(),
                &called.server_name,
                tls.tls.verifies(),
            ),
        };
        let mut peer = HttpPeer::new(address, true, name);
        tls.tls.equip(&mut peer);
        peer
    }

    /// Sets what every probe carries, and over it what is configured.
    pub(super) fn set_headers(&self, request: &mut RequestHeader) -> Result<()> {
        request.insert_header(header::USER_AGENT, USER_AGENT)?;
        for name in self.headers.keys() {
            request.remove_header(name);
            for value in self.headers.get_all(name) {
                request.append_header(name.clone(), value)?;
            }
        }
        Ok(())
    }
}
