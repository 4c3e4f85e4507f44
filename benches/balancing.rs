//! The choice of a member by each algorithm, at 2, 32 and 1,000 members, alone and with all threads
//! at once.

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use divan::Bencher;
use tollgate::{
    state::{clock::Clock, load::Moment},
    upstream::{
        Algorithm, Balancer, Key, Outline, Target, TargetHost,
        algorithm::{Cookie, Hashing, Input},
        target::Called,
    },
};
use uuid::Uuid;

const SIZES: [u16; 3] = [2, 32, 1_000];

fn main() {
    divan::main();
}

fn target(number: u16) -> Target {
    let [high, low] = number.to_be_bytes();
    let address = IpAddr::from([10, 0, high, low]);
    Target {
        host: TargetHost::Address(address),
        port: 8000,
        weight: 100,
        label: format!("{address}:8000").into(),
        called: Called::new(&address.to_string(), 8000),
        srv_host: false,
        health: None,
        loads: Arc::default(),
        pools: Arc::default(),
        slots: None,
        until: None,
    }
}

fn balancer(algorithm: Algorithm, members: u16) -> Balancer {
    Balancer::new(Outline {
        id: Uuid::nil(),
        name: "pool".into(),
        host_header: None,
        targets: (0..members).map(target).collect(),
        algorithm,
        slow_start: Duration::ZERO,
        turns: Arc::default(),
        checks: None,
        news: Arc::default(),
        clock: Clock::system(),
    })
}

fn measure(bencher: Bencher<'_, '_>, balancer: &Balancer, key: impl Fn(u64) -> Key + Sync) {
    bencher.bench(|| {
        // A counter that the threads share would be measured as well.
        let key = key(fastrand::u64(..));
        black_box(balancer.pick(black_box(key), |_| true))
    });
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn round_robin(bencher: Bencher<'_, '_>, members: u16) {
    let balancer = balancer(Algorithm::RoundRobin, members);
    measure(bencher, &balancer, |_| Key::Nothing);
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn least_connections(bencher: Bencher<'_, '_>, members: u16) {
    let balancer = balancer(Algorithm::LeastConnections, members);
    measure(bencher, &balancer, |_| Key::Nothing);
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn latency(bencher: Bencher<'_, '_>, members: u16) {
    let balancer = balancer(Algorithm::Latency, members);
    let now = Moment::of_unix_milliseconds(Clock::system().unix_milliseconds());
    for (member, took) in balancer.members().iter().zip(1..) {
        member.load.observe(Duration::from_micros(took), now);
    }
    measure(bencher, &balancer, |_| Key::Nothing);
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn consistent_hashing(bencher: Bencher<'_, '_>, members: u16) {
    let hashing = Hashing {
        on: Some(Input::Ip),
        fallback: None,
        slots: 65_536,
    };
    let algorithm = Algorithm::ConsistentHashing(Box::new(hashing));
    let balancer = balancer(algorithm, members);
    // With the hash of the key, as a request has it.
    measure(bencher, &balancer, |number| {
        Key::of_value(&number.to_be_bytes())
    });
}

#[divan::bench(args = SIZES, threads = [1, 2])]
fn sticky_sessions(bencher: Bencher<'_, '_>, members: u16) {
    let cookie = Cookie {
        name: "sid".into(),
        path: "/".into(),
    };
    let balancer = balancer(Algorithm::StickySessions(cookie), members);
    let sessions: Vec<u64> = balancer.members().iter().map(|it| it.session).collect();
    measure(bencher, &balancer, |number| {
        let place = usize::try_from(number % sessions.len() as u64).unwrap_or(0);
        Key::Session(sessions[place])
    });
}

/// What the follower does when an address comes or goes.
#[divan::bench(args = SIZES)]
fn build_a_ring(bencher: Bencher<'_, '_>, members: u16) {
    bencher.bench(|| {
        let hashing = Hashing {
            on: Some(Input::Ip),
            fallback: None,
            slots: 10_000,
        };
        balancer(Algorithm::ConsistentHashing(Box::new(hashing)), members)
    });
}
