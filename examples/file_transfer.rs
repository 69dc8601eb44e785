//! Sends a file over four channels and compares digests. `cargo run --release --example file_transfer [FILE]`; without
//! a file it makes one of 64 MiB.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod common;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bytes::BytesMut;
use longhaul::base::CloseCode;
use longhaul::channel::ListenOptions;
use longhaul::node::{LinkConfig, Node, Session};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of each read and each chunk: a few packets, so that several channels have something to do.
const CHUNK_BYTES: usize = 256 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("longhaul-file-transfer-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = transfer(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn transfer(folder: &Path) -> Result<(), Box<dyn Error>> {
    let source = match std::env::args_os().nth(1) {
        Some(path) => path.into(),
        None => make_file(folder)?,
    };
    let authority = common::authority()?;
    let receiver = Node::builder(common::settings(&authority, "receiver")?)
        .listen("tcp://127.0.0.1:0".parse()?, ListenOptions::default())
        .build()
        .await?;
    let address = receiver.local_addresses()[0].clone();
    let target = folder.join("received");
    tokio::spawn(async move {
        while let Some(session) = receiver.accept().await {
            // An error ends the session, which the sender notices.
            let _ = receive(&session, &target).await;
        }
    });

    let sender = Node::builder(common::settings(&authority, "sender")?).build().await?;
    let link = sender.link(LinkConfig::new("spiffe://example/node/receiver".parse()?, [address]));
    let session = link.session().await?;
    let start = Instant::now();
    let size = send(&session, &source).await?;
    let seconds = start.elapsed().as_secs_f64();

    let lanes = session.stats().lanes;
    println!("{size} bytes in {seconds:.2} s over {} channels, and the digests are equal:", lanes.len());
    for lane in lanes {
        println!("  lane {} carried {} bytes", lane.id, lane.bytes_sent);
    }
    sender.close(CloseCode::NO_ERROR, "done").await;
    Ok(())
}

/// Sends a file on a stream of its own, and compares the receiver's digest: the size.
async fn send(session: &Session, path: &Path) -> Result<u64, Box<dyn Error>> {
    let mut file = File::open(path).await?;
    let (mut send, mut recv) = session.open_bi().await?;
    let (mut digest, mut size) = (Context::new(&SHA256), 0);
    loop {
        // A buffer of its own for each chunk: the session keeps it until the peer has acknowledged it, and copies it
        // only into packets.
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut chunk).await? == 0 {
            break;
        }
        digest.update(&chunk);
        size += chunk.len() as u64;
        // Waits while the peer reads slower than this side sends.
        send.write_chunk(chunk.freeze()).await?;
    }
    send.finish()?;
    // `finish` returns at once, and `finished` would only tell that the peer's session has everything. That the
    // application has it too, only the application can say.
    let received = recv.read_to_end(SHA256_OUTPUT_LEN).await?;
    if received == digest.finish().as_ref() { Ok(size) } else { Err("the received file differs".into()) }
}

/// Writes the next stream into a file, and answers with its digest.
async fn receive(session: &Session, path: &Path) -> Result<(), Box<dyn Error>> {
    let (mut send, mut recv) = session.accept_bi().await?;
    let mut file = File::create(path).await?;
    let mut digest = Context::new(&SHA256);
    // `None` is the end that the sender meant; a sender that went away is an error instead.
    while let Some(chunk) = recv.read_chunk(CHUNK_BYTES).await? {
        digest.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    send.write_all(digest.finish().as_ref()).await?;
    send.finish()?;
    // Dropping the last handle closes the session, and with it the answer that is still on its way.
    session.closed().await;
    Ok(())
}

fn make_file(folder: &Path) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let path = folder.join("sent");
    let content: Vec<u8> =
        (0..16 * 1024 * 1024_u32).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    std::fs::write(&path, content)?;
    Ok(path)
}
