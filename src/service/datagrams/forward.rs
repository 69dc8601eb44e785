//! A forward of datagrams: one socket, and a flow for each client address.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::DatagramLoss;
use super::clients::{Client, ClientSocket};
use super::idle::Idle;
use super::service::to_peer;
use crate::base::limits;
use crate::channel::ListenError;
use crate::node::{DatagramFlow, DatagramSender, ReadError};
use crate::service::connections::ConnectionGuard;
use crate::service::endpoint::UdpAddress;
use crate::service::forward::{ForwardConfig, Shared};
use crate::service::refusal::Refusal;
use crate::service::throttle::Way;
use crate::wire::ServiceRequest;

/// A forward that gets datagrams.
pub(in crate::service) struct DatagramForward {
    socket: Arc<ClientSocket>,
    forward: Arc<Shared>,
    flows: Arc<Flows>,
}

/// The flows of a forward, by client.
#[derive(Debug)]
struct Flows {
    by_client: Mutex<HashMap<Client, Arc<Flow>>>,
}

/// The flow of a client.
#[derive(Debug)]
struct Flow {
    state: Mutex<State>,
    idle: Idle,
}

/// ```text
/// Opening ──stream──► Open ──┐
///    └──────refused──────────┴──► Over
/// ```
#[derive(Debug)]
enum State {
    /// What came meanwhile, and when.
    Opening(VecDeque<(Instant, Bytes)>),
    Open(DatagramSender),
    /// What comes is dropped until the client may try again.
    Over,
}

/// How a flow ended.
enum End {
    /// By itself, or with its session: the client's next datagram begins a new one.
    Over,
    /// The peer refused it: the next one is not asked for at once.
    Refused,
}

impl DatagramForward {
    /// Binds the address: the forward, and where it listens.
    pub(in crate::service) async fn bind(
        address: &UdpAddress,
        forward: Arc<Shared>,
    ) -> Result<(Self, UdpAddress), ListenError> {
        let failed = |source| ListenError::Bind { address: address.to_string(), source };
        let socket = ClientSocket::bind(address).await.map_err(failed)?;
        let local = socket.local_address().map_err(failed)?;
        let flows = Arc::new(Flows { by_client: Mutex::default() });
        let bound = UdpAddress { host: local.ip().to_string(), port: local.port() };
        Ok((Self { socket: Arc::new(socket), forward, flows }, bound))
    }

    /// Takes the datagrams of clients. When this is dropped the flows end.
    pub(in crate::service) async fn listen(self) {
        // Dropped with this task: the flows' tasks see it.
        let (_listening, stopped) = watch::channel(());
        let counters = Arc::clone(&self.forward.counters);
        loop {
            let ready = self.socket.readable().await.map_err(|_| DatagramLoss::Socket);
            let outcome = ready.and_then(|()| self.socket.receive(|from, data| self.on_datagram(from, data, &stopped)));
            outcome.unwrap_or_else(|loss| counters.on_lost(loss));
            // The socket may have more for as long as it lives; the others want to run, too.
            tokio::task::yield_now().await;
        }
    }

    fn on_datagram(&self, from: Client, data: &[u8], stopped: &watch::Receiver<()>) {
        let mut flows = self.flows.lock();
        if let Some(flow) = flows.get(&from) {
            flow.idle.on_used();
            if flow.offer(data, &self.forward) {
                return;
            }
            // The flow has just ended with its session; the client should not have to know.
            flows.remove(&from);
        }
        let config = self.forward.config();
        let max = config.datagrams.flow_count_max;
        let Some(guard) = self.forward.connections.begin(max) else {
            self.forward.counters.on_lost(DatagramLoss::TooManyFlows);
            self.forward.on_refused(Refusal::TooManyConnections);
            return;
        };
        let held = VecDeque::from([(Instant::now(), Bytes::copy_from_slice(data))]);
        let idle = Idle::new(config.datagrams.idle_timeout);
        let flow = Arc::new(Flow { state: Mutex::new(State::Opening(held)), idle });
        flows.insert(from, Arc::clone(&flow));
        let carrying = Carrying {
            socket: Arc::clone(&self.socket),
            forward: Arc::clone(&self.forward),
            flows: Arc::clone(&self.flows),
            flow,
            client: from,
            config,
        };
        tokio::spawn(carrying.run(stopped.clone(), guard));
    }
}

impl Flows {
    fn lock(&self) -> MutexGuard<'_, HashMap<Client, Arc<Flow>>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    /// Takes a client's datagram, to be carried or dropped. Returns whether the flow is there still.
    fn offer(&self, data: &[u8], forward: &Shared) -> bool {
        match &mut *self.lock() {
            State::Open(sender) => {
                let passes = forward.throttle.pass(Way::ToPeer, data.len(), || forward.config().datagrams.age_max);
                if !passes {
                    forward.counters.on_lost(DatagramLoss::Limited);
                }
                !passes || to_peer(sender, data, &forward.counters)
            }
            State::Over => {
                forward.counters.on_lost(DatagramLoss::FlowOver);
                true
            }
            State::Opening(held) => {
                held.push_back((Instant::now(), Bytes::copy_from_slice(data)));
                let cost = |held: &VecDeque<(Instant, Bytes)>| {
                    held.iter().map(|(_, data)| data.len() + limits::DATAGRAM_OVERHEAD_BYTES).sum::<usize>()
                };
                while cost(held) > limits::DATAGRAM_EARLY_BYTES_MAX {
                    held.pop_front();
                    forward.counters.on_lost(DatagramLoss::NotOpen);
                }
                true
            }
        }
    }

    /// The stream is there: what waited goes, unless it is too old.
    fn open(&self, sender: &DatagramSender, age_max: Duration, forward: &Shared) {
        let mut state = self.lock();
        let State::Opening(held) = std::mem::replace(&mut *state, State::Open(sender.clone())) else { return };
        for (since, data) in held {
            if !forward.throttle.pass(Way::ToPeer, data.len(), || age_max) {
                forward.counters.on_lost(DatagramLoss::Limited);
            } else if since.elapsed() < age_max {
                to_peer(sender, &data, &forward.counters);
            } else {
                forward.counters.on_lost(DatagramLoss::NotOpen);
            }
        }
    }

    fn close(&self, forward: &Shared) {
        if let State::Opening(held) = std::mem::replace(&mut *self.lock(), State::Over) {
            held.iter().for_each(|_| forward.counters.on_lost(DatagramLoss::NotOpen));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of a flow.
struct Carrying {
    socket: Arc<ClientSocket>,
    forward: Arc<Shared>,
    flows: Arc<Flows>,
    flow: Arc<Flow>,
    client: Client,
    /// What held when it began.
    config: Arc<ForwardConfig>,
}

impl Carrying {
    async fn run(self, mut stopped: watch::Receiver<()>, _guard: ConnectionGuard) {
        let end = tokio::select! {
            end = self.carry() => end,
            // The sender is never used, only dropped.
            _ = stopped.changed() => End::Over,
        };
        self.flow.close(&self.forward);
        if matches!(end, End::Refused) {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        let mut flows = self.flows.lock();
        if flows.get(&self.client).is_some_and(|flow| Arc::ptr_eq(flow, &self.flow)) {
            flows.remove(&self.client);
        }
    }

    async fn carry(&self) -> End {
        let forward = &*self.forward;
        // Boxed: what is needed to get here is given back before datagrams are carried.
        let mut flow = match Box::pin(self.open()).await {
            Ok(flow) => flow,
            Err(refusal) => {
                forward.on_refused(refusal);
                return End::Over;
            }
        };
        forward.counters.on_connection();
        self.flow.open(&flow.sender(), self.config.datagrams.age_max, forward);
        let passed = self.flow.idle.passed();
        tokio::pin!(passed);
        loop {
            tokio::select! {
                received = flow.recv() => match received {
                    Ok(Some(data)) => {
                        self.flow.idle.on_used();
                        if !forward.throttle.pass(Way::FromPeer, data.len(), || self.config.datagrams.age_max) {
                            forward.counters.on_lost(DatagramLoss::Limited);
                            continue;
                        }
                        match self.socket.send(&data, self.client).await {
                            Ok(()) => forward.counters.on_datagram_from_peer(data.len()),
                            Err(loss) => forward.counters.on_lost(loss),
                        }
                    }
                    Ok(None) => return End::Over,
                    Err(ReadError::Reset(code)) => {
                        if let Some(refusal) = Refusal::from_code(code) {
                            forward.on_refused(refusal);
                        }
                        return End::Refused;
                    }
                    Err(error) => {
                        tracing::debug!(service = self.config.service, client = %self.client.address, %error, "flow broke off");
                        return End::Over;
                    }
                },
                () = &mut passed => {
                    flow.finish();
                    return End::Over;
                }
            }
        }
    }

    /// Asks the peer's service for a flow.
    async fn open(&self) -> Result<DatagramFlow, Refusal> {
        let config = &self.config;
        let opening = self.forward.peers.open_connected(&config.peer, config.priority);
        let (mut send, recv) =
            tokio::time::timeout(config.session_timeout, opening).await.map_err(|_| Refusal::NoSession)?;
        let request = ServiceRequest {
            service: config.service.clone(),
            source: self.client.address.to_string(),
            destination: String::new(),
            datagrams: true,
            trace: None,
        };
        send.write_chunk(request.encode().into()).await.map_err(|_| Refusal::NoSession)?;
        let mut flow = DatagramFlow::new(send, recv);
        flow.set_age_max(config.datagrams.age_max);
        Ok(flow)
    }
}

/// A client whose flow was refused asks again with its next datagram: not more often than this.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
