//! `concurrency-limit`: how many at once, who waits, and that no place is ever lost.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use std::thread;
use std::time::Duration;

use crate::harness::http2::Http2Client;
use crate::harness::{
    Client, Gate, Gateway, Origin, Reply, Request, Response, Stopwatch, Tls, one_service_and, text,
    wait_until,
};

fn plugin(config: &str) -> String {
    format!("plugins:\n- {{ name: concurrency-limit, config: {{ {config} }} }}")
}

fn limited(origin: &Origin, config: &str) -> Gateway {
    Gateway::start(&one_service_and(origin, &plugin(config)))
}

/// Whether a metric counts so many.
fn is(value: f64, count: u32) -> bool {
    (value - f64::from(count)).abs() < 0.5
}

fn with_state(gateway: &Gateway, state: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_concurrency_requests{{state=\"{state}\"}}"
    ))
}

#[track_caller]
fn wait_for_state(gateway: &Gateway, state: &str, count: u32) {
    wait_until(&format!("{count} requests {state}"), || {
        is(with_state(gateway, state), count)
    });
}

fn refused_for(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!(
        "tollgate_concurrency_refused_total{{reason=\"{reason}\"}}"
    ))
}

/// A client that has sent its request and not read the answer.
#[track_caller]
fn asking(gateway: &Gateway, target: &str) -> Client {
    let mut client = gateway.connect();
    client
        .write(Request::get(target).bytes())
        .expect("a request goes out");
    client
}

fn answered(mut client: Client) -> Response {
    client.read_response().expect("an answer")
}

/// An origin that holds every answer back.
fn held_back() -> (Origin, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    (Origin::start(move |_| Reply::ok("done").after(&held)), gate)
}

/// S64
#[test]
fn what_exceeds_the_limit_waits_in_order_and_what_exceeds_the_queue_is_refused() {
    let (origin, gate) = held_back();
    let gateway = limited(&origin, "limit: 1, queue: 3, queue_timeout: 60000");
    let mut clients = vec![asking(&gateway, "/0")];
    origin.wait_until("the first request", |requests| requests.len() == 1);
    for number in 1..=3 {
        clients.push(asking(&gateway, &format!("/{number}")));
        wait_for_state(&gateway, "waiting", number);
    }

    let refused = gateway.get("/refused");
    assert_eq!(
        (refused.status, refused.message().as_str()),
        (503, "Too many concurrent requests")
    );
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(origin.count(), 1);
    gate.open();

    for client in clients {
        assert_eq!(answered(client).status, 200);
    }
    let order: Vec<String> = origin
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3"]);
    assert!(is(refused_for(&gateway, "queue_full"), 1));
    let replies = gateway.metric("tollgate_replies_total{reason=\"concurrency_limited\"}");
    assert!(is(replies, 1));
    wait_for_state(&gateway, "running", 0);
}

/// S64
#[test]
fn whoever_waits_too_long_is_refused_as_configured() {
    let (origin, gate) = held_back();
    let gateway = limited(
        &origin,
        "limit: 1, queue: 5, queue_timeout: 300, error_code: 429, error_message: later",
    );
    let inside = asking(&gateway, "/");
    origin.wait_until("the first request", |requests| requests.len() == 1);

    let watch = Stopwatch::start();
    let refused = gateway.get("/");

    assert!(watch.elapsed() >= Duration::from_millis(300));
    assert_eq!((refused.status, refused.message().as_str()), (429, "later"));
    assert!(is(refused_for(&gateway, "queue_timeout"), 1));
    gate.open();
    assert_eq!(answered(inside).status, 200);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_client_that_leaves_the_queue_makes_room_there_whatever_of_its_body_is_unread() {
    let (origin, gate) = held_back();
    let gateway = limited(&origin, "limit: 1, queue: 1, queue_timeout: 60000");
    let inside = asking(&gateway, "/");
    origin.wait_until("the first request", |requests| requests.len() == 1);
    let pipelined = [Request::get("/a").bytes(), Request::get("/b").bytes()].concat();
    for bytes in [
        Request::get("/").bytes(),
        Request::post("/", "x".repeat(100_000)).bytes(),
        pipelined,
    ] {
        let mut waiting = gateway.connect();
        waiting.write(bytes).expect("a request goes out");
        wait_for_state(&gateway, "waiting", 1);

        drop(waiting);

        wait_for_state(&gateway, "waiting", 0);
    }
    assert!(is(refused_for(&gateway, "client_closed"), 3));
    let next = asking(&gateway, "/next");
    wait_for_state(&gateway, "waiting", 1);
    gate.open();
    assert_eq!(answered(inside).status, 200);
    assert_eq!(answered(next).status, 200);
    // Nothing of those who left went upstream.
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_client_that_leaves_while_its_request_is_under_way_gives_its_place_back() {
    let (origin, gate) = held_back();
    let gateway = limited(&origin, "limit: 1");
    let inside = asking(&gateway, "/");
    origin.wait_until("the first request", |requests| requests.len() == 1);
    assert_eq!(gateway.get("/").status, 503);

    drop(inside);

    wait_for_state(&gateway, "running", 0);
    gate.open();
    assert_eq!(gateway.get("/").status, 200);
}

/// Some hundreds of clients leave at every stage: while they wait, while the upstream works, while the answer
/// arrives, and in the middle of their own body.
#[test]
fn no_place_is_lost_however_many_clients_leave_at_whatever_moment() {
    let origin = Origin::start(|request| {
        Stopwatch::pace(Duration::from_millis(5));
        Reply::ok("x".repeat(if request.target == "/large" {
            1 << 20
        } else {
            10
        }))
    });
    let gateway = limited(
        &origin,
        "limit: 4, limit_by: global, queue: 20, queue_timeout: 200",
    );

    thread::scope(|scope| {
        for thread in 0..10_u64 {
            let gateway = &gateway;
            scope.spawn(move || {
                for round in 0..50_u64 {
                    let mut client = gateway.connect();
                    let request = match (thread + round) % 4 {
                        0 => Request::get("/large").bytes(),
                        1 => {
                            let mut bytes = Request::post("/", "x".repeat(5000)).bytes();
                            bytes.truncate(2000);
                            bytes
                        }
                        _ => Request::get("/").bytes(),
                    };
                    // A connection that the gateway closed already is one more way to end.
                    let _ = client.write(request);
                    Stopwatch::pace(Duration::from_millis((thread * 7 + round * 3) % 20));
                }
            });
        }
    });

    wait_for_state(&gateway, "running", 0);
    wait_for_state(&gateway, "waiting", 0);
    let statuses = gateway.concurrently(4, |client| client.send(&Request::get("/")).status);
    assert_eq!(statuses, [200; 4]);
    assert!(gateway.metric("tollgate_panics_total") < 0.5);
}

#[test]
fn streams_that_are_reset_and_connections_that_break_give_their_places_back() {
    let (origin, gate) = held_back();
    let yaml = one_service_and(
        &origin,
        &plugin("limit: 2, limit_by: global, queue: 50, queue_timeout: 60000"),
    );
    let gateway = Gateway::start_with_http2("", &yaml);
    for round in 0..5 {
        let client = Http2Client::connect(gateway.port());
        let mut calls: Vec<_> = (0..12)
            .map(|number| {
                let with_body = number % 3 == 0;
                let method = if with_body { "POST" } else { "GET" };
                client.begin(client.request(method, "/"), !with_body)
            })
            .collect();
        wait_for_state(&gateway, "running", 2);
        wait_for_state(&gateway, "waiting", 10);
        if round % 2 == 0 {
            for call in &mut calls {
                call.reset();
            }
        }
        drop(calls);
        drop(client);
        wait_for_state(&gateway, "running", 0);
        wait_for_state(&gateway, "waiting", 0);
    }
    gate.open();
    assert_eq!(gateway.get("/").status, 200);
}

/// S62
#[test]
fn a_websocket_holds_its_place_until_it_closes() {
    let origin = Origin::start(|_| Reply::websocket());
    let gateway = limited(&origin, "limit: 1");
    let (mut socket, _) = gateway.websocket("/", &[]).expect("an open socket");
    assert_eq!(text(&mut socket, "hello"), "hello");
    assert_eq!(gateway.websocket("/", &[]).expect_err("it is refused"), 503);

    drop(socket);

    wait_for_state(&gateway, "running", 0);
    let (mut socket, _) = gateway.websocket("/", &[]).expect("an open socket");
    assert_eq!(text(&mut socket, "again"), "again");
}

#[test]
fn clients_have_places_of_their_own_and_a_refused_one_does_not_hold_up_another() {
    let (origin, gate) = held_back();
    let gateway = limited(&origin, "limit: 1, limit_by: header, header_name: X-Tenant");
    let of = |tenant: &str| Request::get("/").header("X-Tenant", tenant);
    let mut ann = gateway.connect();
    ann.write(of("ann").bytes()).expect("a request goes out");
    origin.wait_until("the first request", |requests| requests.len() == 1);
    assert_eq!(gateway.send(&of("ann")).status, 503);
    let mut ben = gateway.connect();
    ben.write(of("ben").bytes()).expect("a request goes out");
    origin.wait_until("the other tenant's request", |requests| requests.len() == 2);
    gate.open();
    for client in [ann, ben] {
        assert_eq!(answered(client).status, 200);
    }
}

#[test]
fn a_reload_keeps_who_is_under_way_and_who_waits_and_takes_the_new_limit() {
    let (origin, gate) = held_back();
    let with = |config: &str| one_service_and(&origin, &plugin(config));
    let gateway = limited(&origin, "limit: 1, queue: 2, queue_timeout: 60000");
    let first = asking(&gateway, "/");
    origin.wait_until("the first request", |requests| requests.len() == 1);
    let second = asking(&gateway, "/");
    wait_for_state(&gateway, "waiting", 1);

    gateway.reload(&with("limit: 1, queue: 1, queue_timeout: 60000"));
    assert_eq!(gateway.get("/").status, 503);

    gateway.reload(&with("limit: 3, queue: 1, queue_timeout: 60000"));
    let third = asking(&gateway, "/");
    origin.wait_until("all three requests", |requests| requests.len() == 3);
    gate.open();
    for client in [first, second, third] {
        assert_eq!(answered(client).status, 200);
    }
    wait_for_state(&gateway, "running", 0);
}

#[test]
fn a_request_that_a_later_plugin_answers_gives_its_place_back_at_once() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::start(&one_service_and(
        &origin,
        "
        plugins:
        - name: concurrency-limit
          config: { limit: 1 }
        - name: request-termination
          config: { status_code: 204 }
        ",
    ));
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.send(&Request::get("/")).status, 204);
    }
    wait_for_state(&gateway, "running", 0);
}

#[test]
fn a_client_with_tls_is_missed_as_well() {
    let (origin, gate) = held_back();
    let gateway = Gateway::start_with_tls(&one_service_and(
        &origin,
        &plugin("limit: 1, queue: 1, queue_timeout: 60000"),
    ));
    let inside = asking(&gateway, "/");
    origin.wait_until("the first request", |requests| requests.len() == 1);
    let mut waiting = gateway
        .secure(&Tls::to("gateway.test"))
        .expect("a handshake");
    waiting
        .write(Request::get("/").bytes())
        .expect("a request goes out");
    wait_for_state(&gateway, "waiting", 1);

    drop(waiting);

    wait_for_state(&gateway, "waiting", 0);
    gate.open();
    assert_eq!(answered(inside).status, 200);
}

/// How many an origin of the overload test serves at once, for how many clients, and for how long each.
const AT_ONCE: u32 = 8;
const CLIENTS: usize = 40;
const SERVICE_TIME: Duration = Duration::from_millis(200);

/// What that origin did.
#[derive(Default)]
struct Served {
    now: AtomicU32,
    most: AtomicU32,
    answers: AtomicU32,
    /// Milliseconds that answers took, as the machine was.
    busy: AtomicU32,
}

/// S64: with five times as many clients as an origin serves at once, it is busy nearly all the time, and never
/// with more than it can take.
#[test]
fn under_five_times_the_load_the_upstream_goes_on_at_its_capacity() {
    let served = Arc::new(Served::default());
    let counts = Arc::clone(&served);
    let origin = Origin::start(move |_| {
        let watch = Stopwatch::start();
        let now = counts.now.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(now, Ordering::SeqCst);
        Stopwatch::pace(SERVICE_TIME);
        counts.now.fetch_sub(1, Ordering::SeqCst);
        let took = u32::try_from(watch.elapsed().as_millis()).unwrap_or(u32::MAX);
        counts.answers.fetch_add(1, Ordering::SeqCst);
        counts.busy.fetch_add(took, Ordering::SeqCst);
        Reply::ok("done")
    });
    let gateway = limited(
        &origin,
        "limit: 8, limit_by: global, queue: 16, queue_timeout: 1000",
    );
    let outcomes = Mutex::new((0_u32, 0_u32));
    let watch = Stopwatch::start();
    let duration = Duration::from_secs(4);

    gateway.concurrently(CLIENTS, |client| {
        while watch.elapsed() < duration {
            let status = client.send(&Request::get("/")).status;
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            match status {
                200 => outcomes.0 += 1,
                503 => outcomes.1 += 1,
                other => assert_eq!(other, 200, "only 200 and 503 are expected"),
            }
            drop(outcomes);
            if status == 503 {
                // Clients come as often as an answer takes: five times the capacity in all.
                Stopwatch::pace(SERVICE_TIME);
            }
        }
    });

    let elapsed = watch.elapsed().as_secs_f64();
    let (good, refused) = *outcomes.lock().expect("no client failed");
    let answers = served.answers.load(Ordering::SeqCst);
    // What the machine makes of the service time is not the gateway's doing.
    let service_time = f64::from(served.busy.load(Ordering::SeqCst)) / 1e3 / f64::from(answers);
    let capacity = f64::from(AT_ONCE) / service_time;
    let goodput = f64::from(good) / elapsed;
    assert!(
        goodput > 0.9 * capacity,
        "{goodput:.1} answers a second of {capacity:.1}; {refused} refused"
    );
    assert_eq!(served.most.load(Ordering::SeqCst), AT_ONCE);
    assert!(refused > 0, "nobody was refused, so there was no overload");
    wait_for_state(&gateway, "running", 0);
}
