//! Start and end of a server: its listeners, their connections and the clock of its status updates.
//!
//! The controller and each SPU have a listener of their own.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::spu::SpuType;
use fluvio_types::{PartitionId, SpuId};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::announced_host;
use crate::cluster::{Cluster, FIRST_SPU, spu};
use crate::config::Config;
use crate::connection::serve;
use crate::faults::{ClearError, ConnectionFaults, Fault, FaultError, FaultId, InjectedFault};
use crate::leaders::LeaderError;
use crate::plane::Plane;
use crate::sc::Controller;
use crate::spu::Unit;
use crate::tls::Tls;

/// How often watchers learn how far the partitions have grown, as on the real server.
const STATUS_INTERVAL: Duration = Duration::from_millis(400);
/// Pause after a failed accept, so that a lack of file descriptors does not burn a core.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A running development server. Dropping it stops it; [`Server::shutdown`] waits for the end.
pub struct Server {
    endpoint: SocketAddr,
    shared: Arc<Shared>,
}

/// What the tasks of a server share.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    stopped: CancellationToken,
    pub(crate) listening: Mutex<BTreeMap<Plane, Listening>>,
    tasks: TaskTracker,
    /// Where SPUs listen.
    pub(crate) ip: IpAddr,
    /// What they announce.
    pub(crate) host: String,
}

/// A listener and the connections that it has accepted.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// Ends the listener and its connections.
    pub(crate) stopped: CancellationToken,
    /// Ends every connection that is open now; replaced by each [`Server::close_connections`].
    connections: CancellationToken,
    /// Ends when the address is free again.
    pub(crate) accepting: JoinHandle<()>,
}

impl Server {
    /// Binds the listeners and serves from then on, on the caller's tokio runtime.
    pub async fn start(config: Config) -> io::Result<Server> {
        config.check()?;
        let controller = TcpListener::bind(&config.listen).await?;
        let endpoint = controller.local_addr()?;
        let mut units = Vec::new();
        for index in 0..config.spus {
            let port = config.spu_port.map_or(Some(0), |first| first.checked_add(index));
            let port = port.ok_or(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the SPUs need more ports than there are",
            ))?;
            let listener = TcpListener::bind((endpoint.ip(), port)).await?;
            units.push((FIRST_SPU + SpuId::from(index), listener.local_addr()?, listener));
        }
        let host = announced_host(endpoint.ip(), config.advertise.as_deref());
        let addresses = units.iter().map(|(id, address, _)| {
            let name = format!("custom-spu-{id}");
            spu(name, *id, SpuType::Custom, host.clone(), address.port())
        });
        let cluster = Arc::new(Cluster::new(config, addresses));
        let shared = Arc::new(Shared::new(cluster, endpoint.ip(), host));
        for (id, address, listener) in units {
            tracing::info!("SPU {id} listens on {address}");
            shared.listen(Plane::Unit(id), address, listener);
        }
        let security = shared.cluster.config.tls.as_ref().map_or("without TLS", Tls::description);
        tracing::info!("clients connect to {endpoint}, {security}");
        shared.listen(Plane::Controller, endpoint, controller);
        let publishing = publish_status(shared.cluster.clone());
        shared.tasks.spawn(shared.stopped.clone().run_until_cancelled_owned(publishing));
        Ok(Server { endpoint, shared })
    }

    /// The address for clients to connect to, as `host:port`.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// Closes every connection that is open now, abruptly. New ones are accepted as before.
    pub fn close_connections(&self) {
        for listening in self.shared.listening.lock().values_mut() {
            let next = listening.stopped.child_token();
            std::mem::replace(&mut listening.connections, next).cancel();
        }
    }

    /// Takes an SPU away: it stops listening, its connections close, and other replicas take over what it has led.
    /// Nothing happens if it is away already.
    pub async fn stop_spu(&self, spu: SpuId) -> Result<(), LeaderError> {
        self.shared.stop(spu).await
    }

    /// Brings an SPU back that was taken away, on the same address. Nothing happens if it is there.
    pub async fn start_spu(&self, spu: SpuId) -> Result<(), LeaderError> {
        self.shared.start(spu).await
    }

    /// Makes an SPU the leader of a partition. Streams and requests at the former leader get NotLeaderForPartition.
    pub fn move_leader(&self, topic: &str, partition: PartitionId, spu: SpuId) -> Result<(), LeaderError> {
        self.shared.cluster.move_leader(topic, partition, spu)
    }

    /// Makes the high watermarks of a topic's partitions stand still, as if followers had stopped, or lets them catch up.
    pub fn hold_high_watermark(&self, topic: &str, held: bool) {
        for replica in self.shared.cluster.replicas() {
            if replica.key.topic == topic {
                replica.log.hold_high_watermark(held);
                replica.note_change();
            }
        }
    }

    /// Injects a fault, which happens from now on until it is cleared or has happened as often as it says.
    pub fn inject(&self, fault: Fault) -> Result<FaultId, FaultError> {
        self.shared.cluster.inject(fault)
    }

    /// Clears a fault. Nothing happens if it has gone by itself.
    pub fn clear(&self, fault: FaultId) -> Result<(), ClearError> {
        self.shared.cluster.clear_fault(fault)
    }

    /// Clears all faults and tells how many there were.
    pub fn clear_faults(&self) -> usize {
        self.shared.cluster.clear_faults()
    }

    /// The faults that are injected.
    pub fn faults(&self) -> Vec<InjectedFault> {
        self.shared.cluster.faults.list()
    }

    /// Stops listening, closes all connections and waits until nothing is left.
    pub async fn shutdown(self) {
        self.shared.stopped.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

impl Shared {
    /// Nothing listens yet. SPUs will on `ip`, and announce `host`.
    pub(crate) fn new(cluster: Arc<Cluster>, ip: IpAddr, host: String) -> Self {
        Shared {
            cluster,
            stopped: CancellationToken::new(),
            listening: Mutex::default(),
            tasks: TaskTracker::new(),
            ip,
            host,
        }
    }

    pub(crate) fn listen(self: &Arc<Self>, plane: Plane, address: SocketAddr, listener: TcpListener) {
        let stopped = self.stopped.child_token();
        let connections = stopped.child_token();
        let mut listening = self.listening.lock();
        let accepting = accept(listener, plane, self.clone());
        let accepting = self.tasks.spawn({
            let stopped = stopped.clone();
            async move {
                stopped.run_until_cancelled_owned(accepting).await;
            }
        });
        listening.insert(plane, Listening { address, stopped, connections, accepting });
    }

    fn connect(self: &Arc<Self>, socket: TcpStream, plane: Plane) {
        let Some(closed) = self.listening.lock().get(&plane).map(|unit| unit.connections.child_token())
        else {
            return;
        };
        let cluster = self.cluster.clone();
        let max_frame_bytes = cluster.config.max_frame_bytes;
        let tls = cluster.config.tls.clone();
        let faults = ConnectionFaults::new(cluster.faults.clone(), plane);
        match plane {
            Plane::Controller => {
                let shared = self.clone();
                let service = move |outbox, _| Controller::new(cluster, shared, outbox);
                self.tasks.spawn(serve(socket, tls, closed, max_frame_bytes, faults, service));
            }
            Plane::Unit(spu) => {
                let service = move |outbox, closed| Unit::new(cluster, spu, outbox, closed);
                self.tasks.spawn(serve(socket, tls, closed, max_frame_bytes, faults, service));
            }
        }
    }
}

async fn accept(listener: TcpListener, plane: Plane, shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                failing = false;
                shared.connect(socket, plane);
            }
            Err(error) => {
                // Once, and not at every further attempt.
                if !std::mem::replace(&mut failing, true) {
                    warn_of(&error);
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn warn_of(error: &io::Error) {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => tracing::error!(
            %error,
            "no connection can be accepted: out of file descriptors; close some, or raise the limit (ulimit -n)"
        ),
        _ => tracing::warn!(%error, "cannot accept a connection"),
    }
}

async fn publish_status(cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        cluster.publish_log_ends();
    }
}
