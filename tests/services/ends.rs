//! Ends of connections pass through as what they are.

use std::io;
use std::time::Duration;

use longhaul::channel::Address;
use longhaul::service::ForwardConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use crate::common::{Net, client, connect_unix, id, is_reset, open_service, pattern, reset, soon, target, until};

/// A client and the target's end of its connection, after one byte in each direction.
async fn connected() -> (Net, TcpStream, TcpStream) {
    let (listener, address) = target().await;
    let net = Net::new([open_service("service", address)]).await;
    let mut client = client(&*net.forward("service").await).await;
    client.write_all(b"?").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    assert_eq!(soon(server.read_u8()).await.unwrap(), b'?');
    server.write_all(b"!").await.unwrap();
    assert_eq!(soon(client.read_u8()).await.unwrap(), b'!');
    (net, client, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_finished_still_gets_its_answer() {
    let (net, mut client, mut server) = connected().await;
    client.shutdown().await.unwrap();
    assert_eq!(soon(server.read(&mut [0; 8])).await.unwrap(), 0);
    let answer = pattern(1 << 20, 1);
    let (written, mut read) = (server.write_all(&answer), vec![0; answer.len()]);
    let (written, received) = soon(async { tokio::join!(written, client.read_exact(&mut read)) }).await;
    written.unwrap();
    received.unwrap();
    assert!(read == answer);
    drop(server);
    soon(net.b.services().ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_has_finished_still_gets_the_rest() {
    let (net, mut client, mut server) = connected().await;
    server.shutdown().await.unwrap();
    assert_eq!(soon(client.read(&mut [0; 8])).await.unwrap(), 0);
    let rest = pattern(1 << 20, 2);
    let (written, mut read) = (client.write_all(&rest), vec![0; rest.len()]);
    let (written, received) = soon(async { tokio::join!(written, server.read_exact(&mut read)) }).await;
    written.unwrap();
    received.unwrap();
    assert!(read == rest);
    client.shutdown().await.unwrap();
    assert_eq!(soon(server.read(&mut [0; 8])).await.unwrap(), 0);
    soon(net.b.services().ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_client_is_a_reset_at_the_target() {
    let (net, client, mut server) = connected().await;
    reset(client);
    assert!(is_reset(&mut server).await);
    soon(net.b.services().ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_target_is_a_reset_at_the_client() {
    let (net, mut client, server) = connected().await;
    reset(server);
    assert!(is_reset(&mut client).await);
    soon(net.a.forwards()[0].ended()).await;
}

/// Writes until nothing on the way takes more: how many bytes. A machine that stands still may make it stop earlier,
/// which makes a test easier to pass, not harder.
async fn fill(stream: &mut TcpStream) -> usize {
    let mut count = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), stream.write(&[7; 1 << 16])).await {
        count += written.unwrap();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_client_is_noticed_while_the_target_reads_nothing() {
    let (net, mut client, server) = connected().await;
    fill(&mut client).await;
    reset(client);
    soon(net.a.forwards()[0].ended()).await;
    soon(net.b.services().ended()).await;
    until(|| server.take_error().unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_target_is_noticed_while_the_client_reads_nothing() {
    let (net, client, mut server) = connected().await;
    fill(&mut server).await;
    reset(server);
    soon(net.b.services().ended()).await;
    soon(net.a.forwards()[0].ended()).await;
    until(|| client.take_error().unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_finish_while_the_target_reads_nothing() {
    let (net, mut client, mut server) = connected().await;
    let sent = fill(&mut client).await;
    client.shutdown().await.unwrap();
    // The other direction goes on meanwhile.
    server.write_all(b"wait").await.unwrap();
    soon(client.read_exact(&mut [0; 4])).await.unwrap();
    let mut received = Vec::new();
    soon(server.read_to_end(&mut received)).await.unwrap();
    assert!(received == vec![7; sent], "{} of {sent} bytes", received.len());
    drop(server);
    assert_eq!(soon(client.read(&mut [0; 8])).await.unwrap(), 0);
    soon(net.b.services().ended()).await;
    soon(net.a.forwards()[0].ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_ends_a_target_that_goes_on_sending() {
    let (net, client, mut server) = connected().await;
    drop(client);
    let block = [0; 1 << 16];
    let error = soon(async {
        loop {
            if let Err(error) = server.write_all(&block).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
    soon(net.b.services().ended()).await;
    soon(net.a.forwards()[0].ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_of_a_unix_target_is_not_lost() {
    let net = Net::new([]).await;
    let (path, front) = (net.path("target.sock"), net.path("forward.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    net.b.services().replace([open_service("early", Address::Unix { path })]);
    net.a.forward(ForwardConfig::new(Address::Unix { path: front.clone() }, id("b"), "early")).await.unwrap();
    let mut client = connect_unix(&front).await;
    client.write_all(b"the beginning of a long request").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let mut beginning = [0; 31];
    soon(server.read_exact(&mut beginning)).await.unwrap();
    server.write_all(b"413 too long").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"413 too long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_resets_its_connections() {
    let (net, mut client, mut server) = connected().await;
    let session = net.a.peers().newest(&id("b")).unwrap();
    session.close(longhaul::base::CloseCode::NO_ERROR, "");
    assert!(is_reset(&mut client).await);
    assert!(is_reset(&mut server).await);
}
