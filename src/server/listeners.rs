//! The sockets of the process, for clients and for operators: opened before anything is served, and
//! followed by every reload. One that a new configuration adds must be bound before that
//! configuration goes live; one that it leaves out accepts no more, and its connections finish.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinHandle};
use tracing::{info, warn};

use super::inherited::Inherited;
use crate::{
    admin,
    config::{
        Code, Config, Diagnostics, Gateway as Settings,
        model::{keepalive::Keepalive, listen::Listen},
    },
    explain::{Listening, StreamListener},
    proxy::{
        connection::Edge,
        drain::Drain,
        listener::{self, Address, BindError, Dialect, Orders, Probes, Retired, Terms},
    },
    snapshot::live::Live,
    stream::StreamEdge,
};

/// For whom a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Clients,
    /// Clients of stream routes.
    Streams,
    Operators,
}

impl Audience {
    const ALL: [Self; 3] = [Self::Clients, Self::Streams, Self::Operators];

    /// The setting that lists the addresses.
    const fn setting(self) -> &'static str {
        match self {
            Self::Clients => "listen",
            Self::Streams => "stream_listen",
            Self::Operators => "admin",
        }
    }

    fn addresses(self, settings: &Settings) -> Vec<&Listen> {
        match self {
            Self::Clients => settings.listen.addresses().collect(),
            Self::Streams => settings.stream_listen.addresses().collect(),
            Self::Operators => settings.admin.addresses().collect(),
        }
    }
}

/// A socket that is bound and that nobody accepts from yet.
#[derive(Debug)]
pub(super) struct Bound {
    audience: Audience,
    listen: Listen,
    socket: std::net::TcpListener,
}

/// A socket for this address: the one that was handed over, else a new one.
fn bind(audience: Audience, listen: &Listen, inherited: &Inherited) -> Result<Bound, BindError> {
    let keepalive = listen.so_keepalive.map_or(Probes::AsTheSystem, probes);
    let socket = match inherited.find(listen.address) {
        Some(found) => found
            .and_then(|socket| {
                listener::set_keepalive(&SockRef::from(&socket), &keepalive)?;
                Ok(socket)
            })
            .map_err(|cause| BindError {
                address: listen.address,
                cause,
            }),
        None => listener::bind(&Address {
            socket: listen.address,
            reuse_port: listen.reuseport,
            ipv6_only: listen.ipv6only.unwrap_or(true),
            backlog: listen
                .backlog
                .and_then(|backlog| i32::try_from(backlog).ok()),
            keepalive,
        }),
    }?;
    Ok(Bound {
        audience,
        listen: listen.clone(),
        socket,
    })
}

fn probes(written: Keepalive) -> Probes {
    let Keepalive::On {
        idle,
        interval,
        count,
    } = written
    else {
        return Probes::Off;
    };
    let mut times = TcpKeepalive::new();
    if let Some(idle) = idle {
        times = times.with_time(idle);
    }
    if let Some(interval) = interval {
        times = times.with_interval(interval);
    }
    if let Some(count) = count {
        times = times.with_retries(count);
    }
    Probes::On(times)
}

/// The listeners that run.
#[derive(Debug)]
pub(super) struct Listeners {
    inherited: Inherited,
    serving: OnceLock<Serving>,
    sockets: Mutex<Sockets>,
}

/// What listens.
#[derive(Debug, Default)]
struct Sockets {
    open: Vec<Open>,
    /// Nothing is opened any more.
    is_closing: bool,
}

/// What serves the connections of all listeners.
#[derive(Debug)]
pub(super) struct Serving {
    /// Where the listeners run.
    pub(super) runtime: Handle,
    pub(super) edge: Arc<Edge>,
    pub(super) streams: Arc<StreamEdge>,
    pub(super) live: Arc<Live>,
    pub(super) drain: Arc<Drain>,
    pub(super) pages: Router,
}

/// One listener that runs.
#[derive(Debug)]
struct Open {
    audience: Audience,
    /// As it was bound, with the terms of the live configuration.
    listen: Listen,
    terms: watch::Sender<Terms>,
    stop: watch::Sender<bool>,
    retired: Retired,
    task: JoinHandle<()>,
}

impl Open {
    fn is_at(&self, audience: Audience, address: SocketAddr) -> bool {
        self.audience == audience && self.listen.address == address
    }
}

impl Listeners {
    /// No listener yet. Sockets of `inherited` are used where their addresses are configured.
    pub(super) fn new(inherited: Inherited) -> Self {
        Self {
            inherited,
            serving: OnceLock::new(),
            sockets: Mutex::default(),
        }
    }

    /// Binds everything that the first configuration asks for.
    ///
    /// # Errors
    /// At the first address that cannot be listened on; then none is.
    pub(super) fn bind_all(&self, settings: &Settings) -> Result<Vec<Bound>, BindError> {
        let bound: Vec<Bound> = Audience::ALL
            .into_iter()
            .flat_map(|audience| {
                audience
                    .addresses(settings)
                    .into_iter()
                    .map(move |listen| bind(audience, listen, &self.inherited))
            })
            .collect::<Result<_, _>>()?;
        for address in self.inherited.addresses() {
            if !bound.iter().any(|bound| bound.listen.address == address) {
                warn!(
                    %address,
                    "a socket that was handed over is at no address of listen, stream_listen or admin: whoever connects to it waits in vain"
                );
            }
        }
        Ok(bound)
    }

    /// Begins to accept from `bound`, and from everything that [`Self::adopt`] adds, for `serving`.
    pub(super) fn start(&self, serving: Serving, bound: Vec<Bound>) {
        // There is one start.
        let _ = self.serving.set(serving);
        let mut sockets = self.lock();
        for bound in bound {
            self.open(bound, &mut sockets.open);
        }
    }

    /// Binds the addresses that `config` adds, none once the first were closed. What cannot be bound is
    /// an error at its place.
    pub(super) fn prepare(&self, config: &Config, diagnostics: &mut Diagnostics) -> Vec<Bound> {
        let sockets = self.lock();
        let mut bound = Vec::new();
        if sockets.is_closing {
            return bound;
        }
        let open = &sockets.open;
        for audience in Audience::ALL {
            let setting = audience.setting();
            for (index, listen) in audience.addresses(&config.gateway).into_iter().enumerate() {
                if open.iter().any(|open| open.is_at(audience, listen.address)) {
                    continue;
                }
                match bind(audience, listen, &self.inherited) {
                    Ok(new) => bound.push(new),
                    Err(error) => {
                        let path = format!("{setting}[{index}]");
                        let message = format!("{error}: {}", error.cause);
                        let mistake = diagnostics.error(
                            Code::CannotListen,
                            config.setting_at(&path),
                            format!("gateway.{path}"),
                            message,
                        );
                        let port = listen.address.port();
                        if let Some(holder) =
                            open.iter().find(|open| open.listen.address.port() == port)
                        {
                            mistake.hint(format!(
                                "{} still listens on this port: take it out in one change, and add this in the next",
                                holder.listen.address
                            ));
                        }
                    }
                }
            }
        }
        bound
    }

    /// Takes over what a configuration says that has just gone live: closes what it left out, and
    /// accepts from `bound`, which [`Self::prepare`] made for it. Once the first were closed, all stay as
    /// they are.
    pub(super) fn adopt(&self, settings: &Settings, bound: Vec<Bound>) {
        let mut sockets = self.lock();
        if sockets.is_closing {
            return;
        }
        let open = &mut sockets.open;
        for audience in Audience::ALL {
            let wanted = audience.addresses(settings);
            open.retain_mut(|open| {
                if open.audience != audience {
                    return true;
                }
                let found = wanted
                    .iter()
                    .find(|listen| listen.address == open.listen.address);
                match found {
                    Some(listen) => open.keep(listen),
                    None => open.retire(),
                }
                found.is_some()
            });
        }
        for bound in bound {
            self.open(bound, open);
        }
    }

    /// Where clients come in, in the order in which the listeners were opened.
    pub(super) fn listening(&self) -> Listening {
        let sockets = self.lock();
        let mut listening = Listening::default();
        for open in &sockets.open {
            match open.audience {
                Audience::Clients => {
                    listening.ports.push(open.listen.address.port());
                    listening.has_tls |= open.terms.borrow().dialect.tls;
                }
                Audience::Streams => listening.streams.push(StreamListener {
                    tls: open.terms.borrow().dialect.tls,
                    ..for_streams(&open.listen)
                }),
                Audience::Operators => {}
            }
        }
        listening
    }

    /// Closes the sockets for `audience`, and opens none from now on. The tasks end when what they still
    /// serve has ended.
    pub(super) fn close(&self, audience: Audience) -> Vec<JoinHandle<()>> {
        let mut sockets = self.lock();
        sockets.is_closing = true;
        let all = sockets.open.drain(..);
        let (closing, kept) = all.partition(|open| open.audience == audience);
        sockets.open = kept;
        let stop = |open: Open| {
            open.stop.send_replace(true);
            open.task
        };
        Vec::into_iter(closing).map(stop).collect()
    }

    fn open(&self, bound: Bound, open: &mut Vec<Open>) {
        let Some(serving) = self.serving.get() else {
            return;
        };
        let Bound {
            audience,
            listen,
            socket,
        } = bound;
        let _context = serving.runtime.enter();
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(address = %listen.address, %error, "cannot accept from this socket");
                return;
            }
        };
        let (terms, agreed) = watch::channel(terms(&listen));
        let (stop, stopped) = watch::channel(false);
        let retired = Retired::default();
        let orders = Orders {
            terms: agreed,
            stop: stopped,
            retired: retired.clone(),
        };
        let task = match audience {
            Audience::Clients => tokio::spawn(listener::accept(
                socket,
                Arc::clone(&serving.edge),
                Arc::clone(&serving.live),
                Arc::clone(&serving.drain),
                orders,
            )),
            Audience::Streams => tokio::spawn(listener::accept(
                socket,
                Arc::clone(&serving.streams),
                Arc::clone(&serving.live),
                Arc::clone(&serving.drain),
                orders,
            )),
            Audience::Operators => {
                warn_of_strangers(listen.address);
                tokio::spawn(admin::serve::run(
                    socket,
                    serving.pages.clone(),
                    admin::serve::Limits::default(),
                    orders.stop,
                ))
            }
        };
        info!(
            address = %listen.address,
            setting = audience.setting(),
            tls = listen.ssl,
            "listening"
        );
        open.push(Open {
            audience,
            listen,
            terms,
            stop,
            retired,
            task,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Goes on with what `wanted` says. The socket itself stays as it was made.
    fn keep(&mut self, wanted: &Listen) {
        self.terms.send_replace(terms(wanted));
        let made = |listen: &Listen| {
            (
                listen.reuseport,
                listen.backlog,
                listen.ipv6only,
                listen.so_keepalive,
            )
        };
        if made(&self.listen) != made(wanted) {
            warn!(
                "gateway.{}: the options of the socket {} need a restart to change; everything else is live",
                self.audience.setting(),
                self.listen.address
            );
        }
    }

    fn retire(&self) {
        info!(address = %self.listen.address, setting = self.audience.setting(), "listens no more");
        self.retired.set();
        self.stop.send_replace(true);
    }
}

/// How an explanation sees a listener for streams.
pub(super) fn for_streams(listen: &Listen) -> StreamListener {
    StreamListener {
        address: listen.address,
        tls: listen.ssl,
    }
}

fn terms(listen: &Listen) -> Terms {
    Terms {
        proxy_protocol: listen.proxy_protocol,
        dialect: Dialect {
            tls: listen.ssl,
            http2: listen.http2,
        },
    }
}

fn warn_of_strangers(address: SocketAddr) {
    if !address.ip().is_loopback() {
        warn!(
            %address,
            "the admin listener is not on loopback: whoever reaches it sees metrics, status and how requests are routed"
        );
    }
}
