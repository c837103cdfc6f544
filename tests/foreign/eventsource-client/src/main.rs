//! Follows a stream with the crate `eventsource-client` and prints each event as a line of JSON. Ends when it is killed.

use std::error::Error;
use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, ReconnectOptions, SSE};
use futures_util::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("name the stream")?;
    // By itself it waits up to a minute, which is long for a test.
    let reconnect = ReconnectOptions::reconnect(true).delay_max(Duration::from_secs(5)).build();
    let transport = HyperTransport::builder().disable_proxy().build_http()?;
    let client = ClientBuilder::for_url(&url)?.reconnect(reconnect).build_with_transport(transport);
    let mut events = client.stream();
    while let Some(event) = events.next().await {
        match event {
            Ok(SSE::Event(event)) => println!("{}", json!({"event": event.event_type, "data": event.data})),
            Ok(SSE::Connected(_) | SSE::Comment(_)) => {}
            // It comes back by itself.
            Err(error) => eprintln!("eventsource-client: {error}"),
        }
    }
    Err("it has given up".into())
}
