//! A local port that leads to a server behind another node, in a few lines over the library: what `longhaul run` does
//! for a `[[forward]]` and a `[[service]]`, without names, permissions and limits.
//!
//! Run with `cargo run --example port_forward`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod common;

use std::error::Error;
use std::net::SocketAddr;

use longhaul::base::{CloseCode, StreamCode};
use longhaul::channel::ListenOptions;
use longhaul::node::{LinkConfig, Node, RecvStream, SendStream, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = common::authority()?;
    let target = start_target().await?;

    // The far side: each stream becomes a connection to the target.
    let far = Node::builder(common::settings(&authority, "far")?)
        .listen("tcp://127.0.0.1:0".parse()?, ListenOptions::default())
        .build()
        .await?;
    let address = far.local_addresses()[0].clone();
    tokio::spawn(async move {
        while let Some(session) = far.accept().await {
            tokio::spawn(serve(session, target));
        }
    });

    // The near side: each connection becomes a stream.
    let near = Node::builder(common::settings(&authority, "near")?).build().await?;
    let link = near.link(LinkConfig::new("spiffe://example/node/far".parse()?, [address]));
    let session = link.session().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let local = listener.local_addr()?;
    tokio::spawn(forward(listener, session));

    println!("{local} leads to {target}");
    let mut application = TcpStream::connect(local).await?;
    application.write_all(b"what does this say in capitals?").await?;
    // The application has sent everything, and still wants the answer: ends have to pass each direction by itself.
    application.shutdown().await?;
    let mut answer = String::new();
    application.read_to_string(&mut answer).await?;
    println!("the target answered {answer:?}");

    near.close(CloseCode::NO_ERROR, "done").await;
    if answer == "WHAT DOES THIS SAY IN CAPITALS?" { Ok(()) } else { Err("the answer differs".into()) }
}

async fn forward(listener: TcpListener, session: Session) {
    while let Ok((connection, _)) = listener.accept().await {
        let session = session.clone();
        tokio::spawn(async move {
            if let Ok((send, recv)) = session.open_bi().await {
                join(connection, send, recv).await;
            }
        });
    }
}

async fn serve(session: Session, target: SocketAddr) {
    while let Ok((mut send, mut recv)) = session.accept_bi().await {
        tokio::spawn(async move {
            match TcpStream::connect(target).await {
                Ok(connection) => join(connection, send, recv).await,
                Err(_) => {
                    // The other side learns why, and can reset its application's connection.
                    send.reset(StreamCode::TARGET_REFUSED);
                    recv.stop(StreamCode::TARGET_REFUSED);
                }
            }
        });
    }
}

/// Copies both ways until both have ended.
async fn join(connection: TcpStream, mut send: SendStream, mut recv: RecvStream) {
    let (mut read, mut write) = connection.into_split();
    let out = async {
        copy(&mut read, &mut send).await?;
        // `shutdown` of a stream is its end. An error before it drops `send`, which resets the stream.
        send.shutdown().await
    };
    let back = async {
        copy(&mut recv, &mut write).await?;
        write.shutdown().await
    };
    // Each direction ends by itself: one that failed has told its own end.
    let _ = tokio::join!(out, back);
}

/// A server that knows nothing of all this: it answers with capitals once it has read everything.
async fn start_target() -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = String::new();
                if connection.read_to_string(&mut text).await.is_ok() {
                    let _ = connection.write_all(text.to_uppercase().as_bytes()).await;
                }
            });
        }
    });
    Ok(address)
}
