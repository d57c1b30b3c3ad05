//! A healthy chat over websockets: rooms with a broadcast channel each, and two tasks for each connection, of which the one
//! that ends first aborts the other. Prints its address, and serves until it is ended.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::any;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, broadcast};

type Rooms = Arc<Mutex<HashMap<String, broadcast::Sender<String>>>>;

#[delouse::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let app = Router::new().route("/chat/{room}", any(joins)).with_state(Rooms::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("serving on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}

async fn joins(upgrade: WebSocketUpgrade, Path(room): Path<String>, State(rooms): State<Rooms>) -> Response {
    upgrade.on_upgrade(move |socket| chats(socket, room, rooms))
}

async fn chats(socket: WebSocket, room: String, rooms: Rooms) {
    let room = rooms.lock().await.entry(room).or_insert_with(|| broadcast::channel(16).0).clone();
    let mut messages = room.subscribe();
    let (mut to_client, mut from_client) = socket.split();
    let mut writes = tokio::spawn(async move {
        loop {
            match messages.recv().await {
                Ok(message) => {
                    if to_client.send(Message::text(message)).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    let mut reads = tokio::spawn(async move {
        while let Some(Ok(Message::Text(text))) = from_client.next().await {
            let _without_receivers = room.send(text.to_string());
        }
    });
    tokio::select! {
        _ = &mut writes => reads.abort(),
        _ = &mut reads => writes.abort(),
    }
}
