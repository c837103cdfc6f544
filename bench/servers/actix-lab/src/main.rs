//! The idiom of actix-web: a broadcaster that holds a sender for each client, and `actix_web_lab::sse` over its
//! receiver, as the examples of actix-web have it; here with channels. `bench-actix-lab PORT`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, Responder, rt, web};
use actix_web_lab::sse;
use futures_util::future::join_all;
use tokio::sync::mpsc;

#[derive(Default)]
struct Broadcaster {
    clients: Mutex<HashMap<String, Vec<mpsc::Sender<sse::Event>>>>,
}

impl Broadcaster {
    fn clients(&self, channel: &str) -> Vec<mpsc::Sender<sse::Event>> {
        self.clients.lock().expect("nobody panics").get(channel).cloned().unwrap_or_default()
    }

    async fn join(&self, channel: String) -> impl Responder + use<> {
        let (sender, receiver) = mpsc::channel(10);
        let _ = sender.send(sse::Data::new("connected").into()).await;
        self.clients.lock().expect("nobody panics").entry(channel).or_default().push(sender);
        sse::Sse::from_infallible_receiver(receiver)
    }

    async fn broadcast(&self, channel: &str, data: &str) {
        let clients = self.clients(channel);
        let _ = join_all(clients.iter().map(|client| client.send(sse::Data::new(data).into()))).await;
    }

    /// Those that are gone are found by a ping.
    async fn remove_stale(&self) {
        let names: Vec<String> = self.clients.lock().expect("nobody panics").keys().cloned().collect();
        for name in names {
            let mut alive = Vec::new();
            for client in self.clients(&name) {
                if client.send(sse::Event::Comment("ping".into())).await.is_ok() {
                    alive.push(client);
                }
            }
            self.clients.lock().expect("nobody panics").insert(name, alive);
        }
    }
}

async fn subscribe(broadcaster: web::Data<Broadcaster>, channel: web::Path<String>) -> impl Responder {
    broadcaster.join(channel.into_inner()).await
}

async fn publish(
    broadcaster: web::Data<Broadcaster>,
    channel: web::Path<String>,
    body: String,
) -> HttpResponse {
    broadcaster.broadcast(&channel, &body).await;
    HttpResponse::Accepted().finish()
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("PORT");
    rlimit::increase_nofile_limit(u64::MAX)?;
    let broadcaster = web::Data::new(Broadcaster::default());
    let pinged = broadcaster.clone();
    rt::spawn(async move {
        let mut interval = rt::time::interval(Duration::from_secs(10));
        loop {
            interval.tick().await;
            pinged.remove_stale().await;
        }
    });
    HttpServer::new(move || {
        App::new()
            .app_data(broadcaster.clone())
            .route("/sse/{channel}", web::get().to(subscribe))
            .route("/pub/{channel}", web::post().to(publish))
    })
    .tcp_nodelay(true)
    .backlog(4096)
    .bind((Ipv4Addr::LOCALHOST, port))?
    .run()
    .await
}
