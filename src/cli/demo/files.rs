//! The service of the demo: a file server, and the client that fetches from it and compares every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Longest request line or header that the server reads.
const LINE_BYTES_MAX: u64 = 4096;

/// Serves generated files over HTTP/1.1, one request a connection.
pub(super) struct FileServer {
    address: SocketAddr,
    files: Arc<Vec<Arc<Vec<u8>>>>,
}

impl FileServer {
    /// Starts serving `/file-0` and so on.
    pub(super) async fn start(count: usize, size: usize) -> anyhow::Result<Self> {
        let files = Arc::new((0..count).map(|index| Arc::new(content(size, index as u64))).collect::<Vec<_>>());
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for the file server")?;
        let address = listener.local_addr()?;
        let served = Arc::clone(&files);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let files = Arc::clone(&served);
                tokio::spawn(async move {
                    // A client that goes away is its own business.
                    let _ = serve(stream, &files).await;
                });
            }
        });
        Ok(Self { address, files })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn content(&self, index: usize) -> Arc<Vec<u8>> {
        Arc::clone(&self.files[index])
    }
}

async fn serve(stream: TcpStream, files: &[Arc<Vec<u8>>]) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = read_line(&mut stream).await?;
    while !read_line(&mut stream).await?.is_empty() {}
    let file = request
        .strip_prefix("GET /file-")
        .and_then(|rest| rest.split(' ').next())
        .and_then(|index| index.parse::<usize>().ok())
        .and_then(|index| files.get(index));
    let (status, body): (_, &[u8]) = match file {
        Some(file) => ("200 OK", file),
        None => ("404 Not Found", b"no such file\n"),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Bytes that arrived, over all clients.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicUsize>);

impl Progress {
    pub(super) fn received(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Fetches a file and compares it with what it has to be.
pub(super) async fn fetch(
    address: SocketAddr,
    index: usize,
    expected: Arc<Vec<u8>>,
    progress: Progress,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(format!("GET /file-{index} HTTP/1.1\r\nHost: demo\r\n\r\n").as_bytes()).await?;
    let status = read_line(&mut stream).await?;
    ensure!(status.starts_with("HTTP/1.1 200"), "the server answered {status:?}");
    while !read_line(&mut stream).await?.is_empty() {}
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        let count = stream.read(&mut buffer).await.with_context(|| format!("file {index} broke at byte {at}"))?;
        if count == 0 {
            break;
        }
        if expected.get(at..at + count) != Some(&buffer[..count]) {
            bail!("file {index} differs after byte {at}");
        }
        at += count;
        progress.0.fetch_add(count, Ordering::Relaxed);
    }
    ensure!(at == expected.len(), "file {index} ended at byte {at} of {}", expected.len());
    Ok(())
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    (&mut *stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    ensure!(line.ends_with('\n'), "the connection ended in the middle of a line");
    Ok(line.trim_end().to_owned())
}

/// Bytes without a period, different for each file.
fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(size);
    content
}
