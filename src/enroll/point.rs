//! The enrolment point with a port of its own: a listener on which each connection is a [visit](Enrolment).

use std::time::Duration;

use bytes::BytesMut;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::visit::Enrolment;
use crate::base::limits;
use crate::channel::{Accepted, Address, ListenError, ListenOptions, Listener, TlsGreeting};

/// Takes requests until it is dropped.
#[derive(Debug)]
pub struct EnrollPoint {
    local: Address,
    task: JoinHandle<()>,
}

impl EnrollPoint {
    /// Listens at a `tls://` address. Who may connect is bounded as for channels.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(address: &Address, enrolment: Enrolment) -> Result<Self, ListenError> {
        let listener = Listener::bind(address, &ListenOptions::default()).await?;
        let local = listener.local_address().clone();
        let task = tokio::spawn(accept(listener, enrolment));
        Ok(Self { local, task })
    }

    /// Where it listens; with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.local
    }
}

impl Drop for EnrollPoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(mut listener: Listener, enrolment: Enrolment) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                visits.spawn(visit(accepted, enrolment.clone()));
            }
            Some(_) = visits.join_next() => {}
        }
    }
}

/// One connection, from its hello to its answer.
async fn visit(accepted: Accepted, enrolment: Enrolment) {
    const TIMEOUT: Duration = limits::ENROLL_TIMEOUT;
    let Accepted { connection, permit, .. } = accepted;
    let peer = connection.info.peer.clone();
    let outcome = match timeout(TIMEOUT, TlsGreeting::read(connection, BytesMut::new())).await {
        Ok(Ok(greeting)) => enrolment.visit(greeting).await.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no hello within {TIMEOUT:?}")),
    };
    if let Err(error) = outcome {
        tracing::debug!(peer, %error, "enrolment connection ended");
    }
    drop(permit);
}
