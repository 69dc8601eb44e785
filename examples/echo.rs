//! Two nodes in one process: one echoes what the other one sends on a stream.
//!
//! Run with `cargo run --example echo`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod common;

use std::error::Error;

use longhaul::base::CloseCode;
use longhaul::channel::ListenOptions;
use longhaul::node::{LinkConfig, Node, Session};
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Every node proves with a certificate who it is. `common` makes those of the examples, and shows what a node is
    // built from.
    let authority = common::authority()?;

    // Port 0: the system chooses, and `local_addresses` tells.
    let server = Node::builder(common::settings(&authority, "server")?)
        .listen("tcp://127.0.0.1:0".parse()?, ListenOptions::default())
        .build()
        .await?;
    let address = server.local_addresses()[0].clone();
    tokio::spawn(async move {
        while let Some(session) = server.accept().await {
            tokio::spawn(echo(session));
        }
    });

    let client = Node::builder(common::settings(&authority, "client")?).build().await?;
    // The link names who has to answer, not only where: another node at that address is refused. It keeps four channels
    // up until it is dropped.
    let link = client.link(LinkConfig::new("spiffe://example/node/server".parse()?, [address]));
    let session = link.session().await?;
    println!("connected to {}", session.peer().node_id);

    let (mut send, mut recv) = session.open_bi().await?;
    send.write_all(b"hello over there").await?;
    // Without the end, the other side would wait for more; dropping `send` instead would reset the stream.
    send.finish()?;
    let answer = recv.read_to_end(1024).await?;
    println!("the answer is {:?}", String::from_utf8_lossy(&answer));

    client.close(CloseCode::NO_ERROR, "done").await;
    if answer == b"hello over there" { Ok(()) } else { Err("the echo differs".into()) }
}

/// Sends back what comes on each stream.
async fn echo(session: Session) {
    while let Ok((mut send, mut recv)) = session.accept_bi().await {
        tokio::spawn(async move {
            // Chunks go from one half to the other without being copied.
            while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024).await {
                if send.write_chunk(chunk).await.is_err() {
                    return;
                }
            }
            let _ = send.finish();
        });
    }
}
