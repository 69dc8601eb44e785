//! Where an enrolment point is: the host and port that both sorts of questions go to.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};

/// A connection to the first address of the host that takes one.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let candidates: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    TcpStream::connect(&candidates[..]).await
}

/// As people write it.
pub(super) fn text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
