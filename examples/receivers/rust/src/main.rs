//! Receives webhooks signed by Standard Webhooks. Rust 1.88 or newer, with axum.

mod inbox;
mod verify;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{to_bytes, Body, HttpBody};
use axum::extract::State;
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::Router;
use serde_json::{json, Value};

use inbox::{Event, Inbox, MAX_WAITING};
use verify::{keys_of, verify, Key};

const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
const READ_TIME: Duration = Duration::from_secs(10);

struct App {
    keys: Vec<Key>,
    inbox: Inbox,
}

/// Your work goes here.
async fn handle(id: &str, _event: Value) -> Result<(), String> {
    eprintln!("processed {id}");
    Ok(())
}

/// What a verified body holds: one event with the message's id, or a batch with theirs.
fn events_of(id: String, body: &[u8]) -> Option<Vec<Event>> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(members) => members
            .into_iter()
            .map(|member| Some((member.get("id")?.as_str()?.to_owned(), member)))
            .collect(),
        event => Some(vec![(id, event)]),
    }
}

async fn receive(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    // What is announced as too large is refused before it is read.
    let announced = body.size_hint().lower();
    if announced > MAX_BODY_BYTES as u64 {
        return (StatusCode::PAYLOAD_TOO_LARGE, "body too large").into_response();
    }
    let body = match tokio::time::timeout(READ_TIME, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, "body too large").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "body too slow").into_response(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let id = match verify(&app.keys, &headers, &body, now) {
        Ok(id) => id,
        Err(reason) => {
            eprintln!("refused: {reason}");
            return (StatusCode::UNAUTHORIZED, "invalid signature").into_response();
        }
    };
    let Some(events) = events_of(id, &body) else {
        let text = "not a JSON event, nor an array of events with ids";
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    for event in events {
        if !app.inbox.take(event) {
            let retry_after = [(header::RETRY_AFTER, "5")];
            return (StatusCode::SERVICE_UNAVAILABLE, retry_after, "busy").into_response();
        }
    }
    StatusCode::ACCEPTED.into_response()
}

async fn processed(State(app): State<Arc<App>>) -> String {
    json!({ "processed": app.inbox.processed() }).to_string()
}

async fn serve(keys: Vec<Key>, port: String) -> std::io::Result<()> {
    let (sender, waiting) = tokio::sync::mpsc::channel(MAX_WAITING);
    let app = Arc::new(App { keys, inbox: Inbox::new(sender) });
    let worker = app.clone();
    tokio::spawn(async move { worker.inbox.work(waiting, handle).await });
    let router = Router::new()
        .route("/webhooks", post(receive))
        .route("/processed", get(processed))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).await
}

fn main() -> std::io::Result<()> {
    let secrets = std::env::var("WEBHOOK_SECRET").unwrap_or_default();
    let keys = keys_of(&secrets).unwrap_or_else(|reason| {
        eprintln!("WEBHOOK_SECRET: {reason}, as the sender gave it to you");
        std::process::exit(1);
    });
    let port = std::env::var("PORT").unwrap_or_else(|_| "8000".to_owned());
    tokio::runtime::Runtime::new()?.block_on(serve(keys, port))
}
