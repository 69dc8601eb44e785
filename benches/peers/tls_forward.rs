//! A peer for `benches/compare`: forwards each TCP connection over a TLS connection of its own, by tokio-rustls, with the
//! same certificates, suites and key exchange as a Longhaul node. It is what a link costs without sessions.
//!
//! `tls_forward client|server LISTEN TARGET NAME DIR`, with `NAME.crt`, `NAME.key` and `ca.crt` in `DIR`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use longhaul::crypto::identity::{ALPN_TLS, Identity, TlsSettings, TrustAnchors, default_provider, server_name};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [side, listen, target, name, folder] = &arguments[..] else {
        return Err("expected client|server LISTEN TARGET NAME DIR".into());
    };
    let target: SocketAddr = target.parse()?;
    let tls = settings(Path::new(folder), name)?;
    let listener = TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    let connector = TlsConnector::from(tls.client_config(None, ALPN_TLS)?);
    let acceptor = TlsAcceptor::from(tls.server_config(ALPN_TLS)?);
    let is_client = side == "client";
    loop {
        let (near, _) = listener.accept().await?;
        let (connector, acceptor) = (connector.clone(), acceptor.clone());
        tokio::spawn(async move {
            // A connection that failed is seen by whoever measures.
            let _ = forward(is_client, near, target, connector, acceptor).await;
        });
    }
}

async fn forward(
    is_client: bool,
    mut near: TcpStream,
    target: SocketAddr,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    if is_client {
        let far = TcpStream::connect(target).await?;
        far.set_nodelay(true)?;
        let mut far = connector.connect(server_name(), far).await?;
        copy_bidirectional(&mut near, &mut far).await?;
    } else {
        let mut near = acceptor.accept(near).await?;
        let mut far = TcpStream::connect(target).await?;
        far.set_nodelay(true)?;
        copy_bidirectional(&mut near, &mut far).await?;
    }
    Ok(())
}

fn settings(folder: &Path, name: &str) -> Result<TlsSettings, Box<dyn Error>> {
    let read = |file: String| std::fs::read(folder.join(file));
    let provider = default_provider();
    let identity = Identity::from_pem(&read(format!("{name}.crt"))?, &read(format!("{name}.key"))?, &provider)?;
    let anchors = TrustAnchors::from_pem(&read("ca.crt".to_owned())?)?;
    Ok(TlsSettings::new(identity, anchors, provider, Arc::new(rustls::time_provider::DefaultTimeProvider))?)
}
