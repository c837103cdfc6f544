//! Spans for OpenTelemetry, as a collector has them: the way of a publish under the name of its request.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::http;
use support::hub::Hub;
use support::sse::SseClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector: takes what is posted, and hands on the spans of it.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let (found, spans) = mpsc::unbounded_channel();
    actix_web::rt::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let found = found.clone();
            actix_web::rt::spawn(async move {
                let mut bytes = Vec::new();
                while socket.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                        continue;
                    };
                    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
                    let Some(body) = bytes.get(end + 4..end + 4 + length) else { continue };
                    let request = ExportTraceServiceRequest::decode(body).expect("a request");
                    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                    for span in scopes.flat_map(|scope| scope.spans) {
                        let _ = found.send(span);
                    }
                    bytes.drain(..end + 4 + length);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    socket.write_all(answer).await.expect("written");
                }
            });
        }
    });
    (addr, spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request_id(span: &Span) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let attribute = span.attributes.iter().find(|attribute| attribute.key == "request_id")?;
    match attribute.value.as_ref()?.value.as_ref()? {
        StringValue(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

/// A publish goes on with its caller's trace; its commit, and each thread's delivery, are parts of it. What was not sent yet is
/// when the hub goes.
#[actix_web::test]
async fn the_way_of_a_publish_is_a_trace() {
    let (collector, mut spans) = collector().await;
    let endpoint = format!("http://{collector}");
    let mut hub = Hub::start(&["--otlp-endpoint", &endpoint, "--drain", "5s"]);
    let mut client = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
    client.welcome().await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("content-type", "application/json"), ("x-request-id", "r-1"), ("traceparent", &parent)];
    let answer = http::request(hub.addr, "POST", "/publish", &headers, r#"{"channel":"a","data":"x"}"#).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(client.data().await, "x");
    // Earlier than any batch would leave by itself.
    let told = Instant::now();
    hub.terminate();
    let mut all = Vec::new();
    while all.len() < 3 {
        let span = tokio::time::timeout(Duration::from_secs(4), spans.recv()).await;
        all.push(span.unwrap_or_else(|_| panic!("only {all:?}")).expect("a span"));
    }
    let named = |name: &str| all.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [publish] = named("publish")[..] else { panic!("{all:?}") };
    assert_eq!((hex(&publish.trace_id).as_str(), hex(&publish.parent_span_id).as_str()), (TRACE, CALLER));
    assert_eq!(request_id(publish).as_deref(), Some("r-1"));
    for part in ["commit", "deliver"] {
        let [span] = named(part)[..] else { panic!("{part}: {all:?}") };
        assert_eq!((&span.trace_id, &span.parent_span_id), (&publish.trace_id, &publish.span_id), "{part}");
        assert!(publish.start_time_unix_nano <= span.start_time_unix_nano, "{part}");
    }
    let status = loop {
        if let Some(status) = hub.child.try_wait().expect("a child") {
            break status;
        }
        assert!(told.elapsed() < Duration::from_secs(5), "still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status.code(), Some(0));
}

/// A collector that is not there, or does not answer, costs nobody anything, and the hub goes in its time.
#[actix_web::test]
async fn a_collector_that_does_not_answer_is_no_matter() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().map(|addr| (addr, silent)).expect("bound");
    for collector in [silent.0.to_string(), "127.0.0.1:1".into()] {
        let endpoint = format!("http://{collector}");
        let mut hub = Hub::start(&["--otlp-endpoint", &endpoint, "--drain", "3s"]);
        let mut client = SseClient::open(hub.addr, "/events?channel=a", &[]).await;
        client.welcome().await;
        // More than an exporter holds.
        let batch = format!("[{}]", [r#"{"channel":"a"}"#; 10].join(","));
        for _ in 0..300 {
            assert_eq!(hub.publish(&batch).await.status(), 200);
        }
        for _ in 0..3000 {
            assert_eq!(client.data().await, "null");
        }
        let told = Instant::now();
        hub.terminate();
        let status = loop {
            if let Some(status) = hub.child.try_wait().expect("a child") {
                break status;
            }
            assert!(told.elapsed() < Duration::from_secs(3), "still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(status.code(), Some(0));
    }
}

/// What cannot be a collector is refused at the start.
#[test]
fn an_endpoint_that_is_none_is_said() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "memory", "--otlp-endpoint", "https://collector"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--otlp-endpoint must begin with http://"), "{said}");
}
