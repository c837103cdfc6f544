//! Clients that hop between nodes while everything they depend on is killed: what was acknowledged comes to each exactly
//! once, and in the same order to all.
//!
//! The nodes are hubs with their indexes in files. The normal form is small; `FANFARE_HOPS=full cargo test --release --test
//! cluster_hops -- --nocapture` is the full one: 200 clients, 2,000 publishes a second, three rounds of killing.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use support::fleet::Fleet;
use support::hopper::{Hopper, Insistent, Order};
use support::nats::{NatsCluster, NatsServer};
use tokio::time::sleep;

const PUBLISHERS: u32 = 64;

struct Form {
    clients: usize,
    /// Publishes a second.
    rate: u32,
    rounds: usize,
    /// How long all is well between two kills.
    calm: Duration,
    /// How long a client stays on a node.
    stay: Duration,
}

fn form() -> Form {
    let is_full = std::env::var("FANFARE_HOPS").is_ok_and(|form| form == "full");
    let (clients, rate, rounds) = if is_full { (200, 2000, 3) } else { (20, 200, 1) };
    let (calm, stay) = if is_full { (5000, 3000) } else { (1000, 500) };
    Form { clients, rate, rounds, calm: Duration::from_millis(calm), stay: Duration::from_millis(stay) }
}

/// Has clients hop and publishers publish while `trouble` is made, and holds each client to all that was acknowledged.
async fn hop<const N: usize>(mut fleet: Fleet<N>, trouble: impl AsyncFn(&mut Fleet<N>, &Form, usize)) {
    let form = form();
    let (order, wanted) = (Rc::new(RefCell::new(Order::default())), Rc::new(Cell::new(None)));
    let addrs = fleet.addrs;
    let mut hoppers: Vec<_> =
        (0..form.clients).map(|_| Hopper::new(&addrs, "channel=c/**", form.stay, order.clone())).collect();
    join_all(hoppers.iter_mut().map(Hopper::arrive)).await;

    let travelling = join_all(hoppers.into_iter().map(|hopper| {
        let wanted = wanted.clone();
        actix_web::rt::spawn(hopper.travel(move || wanted.get()))
    }));
    let is_over = Rc::new(Cell::new(false));
    let (began, next) = (Instant::now(), Rc::new(Cell::new(0_u32)));
    let publishing = join_all((0..PUBLISHERS).map(|number| {
        let (is_over, next, mut publisher) = (is_over.clone(), next.clone(), Insistent::new(&addrs));
        let every = Duration::from_secs(1) * PUBLISHERS / form.rate;
        actix_web::rt::spawn(async move {
            // What was missed in an outage is made up for.
            let mut ticks = tokio::time::interval(every);
            while !is_over.get() {
                ticks.tick().await;
                let event = next.replace(next.get() + 1);
                publisher.publish(&format!("c/{}", number % 3), event).await;
            }
            publisher
        })
    }));
    let troubling = async {
        for round in 0..form.rounds {
            sleep(form.calm).await;
            trouble(&mut fleet, &form, round).await;
        }
        sleep(form.calm).await;
        is_over.set(true);
    };
    let ((), publishers) = join(troubling, publishing).await;
    let took = began.elapsed();
    // All that was begun was acknowledged in the end.
    let count = next.get() as usize;
    wanted.set(Some(count));
    let travels: Vec<_> =
        travelling.await.into_iter().map(|client| client.expect("everything, once, in order")).collect();
    let took_all = began.elapsed();

    let order = order.borrow();
    let unique: HashSet<_> = order.numbers.iter().collect();
    assert_eq!((order.numbers.len(), unique.len()), (count, count), "everything that was acknowledged, once");
    let publishers: Vec<_> = publishers.into_iter().map(|publisher| publisher.expect("no panic")).collect();
    let failures: usize = publishers.iter().map(|publisher| publisher.failures).sum();
    assert!(failures > 0, "the kills were in the middle");
    println!(
        "{} clients, {count} events in {took:.1?} ({:.0} a second, kills and all), {failures} attempts repeated, longest \
         publish {:.1?}; {} hops, {} connections lost, {} turned away, longest silence {:.1?}; all had all after {:.1?}",
        form.clients,
        count as f64 / took.as_secs_f64(),
        publishers.iter().map(|publisher| publisher.longest).max().expect("some"),
        travels.iter().map(|travels| travels.hops).sum::<usize>(),
        travels.iter().map(|travels| travels.cuts).sum::<usize>(),
        travels.iter().map(|travels| travels.turned_away).sum::<usize>(),
        travels.iter().map(|travels| travels.longest_silence).max().expect("some"),
        took_all,
    );
}

/// The server of the order is killed and comes back, and then a node is and does.
#[actix_web::test]
async fn a_killed_server_and_killed_nodes_lose_and_double_nothing() {
    let server = Rc::new(RefCell::new(NatsServer::start()));
    let url = server.borrow().url();
    let fleet = Fleet::<3>::start("one", &url, &[]).await;
    hop(fleet, async |fleet, form, round| {
        server.borrow_mut().kill();
        sleep(Duration::from_millis(1500)).await;
        server.borrow_mut().restart();
        for number in 0..3 {
            fleet.until_ready(number).await;
        }
        sleep(form.calm).await;
        fleet.kill(round);
        sleep(Duration::from_millis(500)).await;
        fleet.restart(round).await;
    })
    .await;
}

/// Of three servers with three copies the one that leads is killed; the others go on with what was acknowledged.
#[actix_web::test]
async fn a_killed_leader_of_three_servers_loses_and_doubles_nothing() {
    let cluster = NatsCluster::start();
    cluster.until_ready().await;
    let url = cluster.url();
    let fleet = Fleet::<3>::start("three", &url, &["--nats-replicas", "3"]).await;
    let cluster = Rc::new(RefCell::new(cluster));
    hop(fleet, async |fleet, form, _| {
        let leader = NatsCluster::leader(&url, "fanfare").await;
        cluster.borrow_mut().servers[leader].kill();
        sleep(form.calm.max(Duration::from_secs(3))).await;
        for number in 0..3 {
            fleet.until_ready(number).await;
        }
        cluster.borrow_mut().servers[leader].restart();
    })
    .await;
}
