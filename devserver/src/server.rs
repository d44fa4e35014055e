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
use crate::config::{Config, Fsync};
use crate::connection::serve;
use crate::counters::Counters;
use crate::faults::{ClearError, Fault, FaultError, FaultId, InjectedFault};
use crate::leaders::LeaderError;
use crate::plane::Plane;
use crate::sc::{Controller, groups};
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
    /// Binds the listeners, opens the data directory and serves from then on, on the caller's tokio runtime.
    pub async fn start(config: Config) -> io::Result<Server> {
        config.check()?;
        let controller = TcpListener::bind(&config.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen))
        })?;
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
        let spus = units.iter().map(|(id, address, _)| {
            let name = format!("custom-spu-{id}");
            spu(name, *id, SpuType::Custom, host.clone(), address.port())
        });
        let spus: Vec<_> = spus.collect();
        let (retention_interval, fsync) = (config.retention_interval, config.fsync);
        let cluster = tokio::task::spawn_blocking(|| Cluster::open(config, spus)).await?;
        let cluster = Arc::new(cluster.map_err(|error| io::Error::other(format!("{error:#}")))?);
        let shared = Arc::new(Shared::new(cluster, endpoint.ip(), host));
        for (id, address, listener) in units {
            tracing::info!("SPU {id} listens on {address}");
            shared.listen(Plane::Unit(id), address, listener);
        }
        groups::restart(&shared);
        let security = shared.cluster.config.tls.as_ref().map_or("without TLS", Tls::description);
        tracing::info!("clients connect to {endpoint}, {security}");
        shared.listen(Plane::Controller, endpoint, controller);
        shared.spawn(publish_status(shared.cluster.clone()));
        shared.spawn(clean(shared.cluster.clone(), retention_interval));
        if let Fsync::Interval(interval) = fsync {
            shared.spawn(sync(shared.cluster.clone(), interval));
        }
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

    /// What has been served since the start.
    pub fn counters(&self) -> Counters {
        self.shared.cluster.counts.read()
    }

    /// Removes all records that a topic has now, as its retention would one day: who asks for them gets OffsetEvicted.
    pub async fn evict(&self, topic: &str) -> io::Result<()> {
        let mut replicas = self.shared.cluster.replicas();
        replicas.retain(|replica| replica.key.topic == topic);
        let evict = move || {
            replicas.iter().try_for_each(|replica| {
                let evicted = replica.log.evict();
                // Afterwards: it might be published as unchanged before.
                replica.note_change();
                evicted
            })
        };
        tokio::task::spawn_blocking(evict).await?
    }

    /// Stops listening, closes all connections, brings everything to the disk and waits until nothing is left.
    pub async fn shutdown(self) {
        self.shared.stopped.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.cluster.close().await;
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

    /// Runs until the server stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stopped.clone().run_until_cancelled_owned(task));
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
        match plane {
            Plane::Controller => {
                let shared = self.clone();
                let service = move |outbox, _| Controller::new(cluster, shared, outbox);
                self.tasks.spawn(serve(socket, self.cluster.clone(), plane, closed, service));
            }
            Plane::Unit(spu) => {
                let service = move |outbox, closed| Unit::new(cluster, spu, outbox, closed);
                self.tasks.spawn(serve(socket, self.cluster.clone(), plane, closed, service));
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
    let mut ticks = ticks(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        cluster.publish_log_ends();
    }
}

async fn clean(cluster: Arc<Cluster>, interval: Duration) {
    let mut ticks = ticks(interval);
    loop {
        ticks.tick().await;
        let cleaned = cluster.tasks.spawn_blocking({
            let cluster = cluster.clone();
            move || cluster.clean()
        });
        if let Err(error) = cleaned.await {
            tracing::error!("removing old records ended early: {error}");
        }
    }
}

async fn sync(cluster: Arc<Cluster>, interval: Duration) {
    let mut ticks = ticks(interval);
    loop {
        ticks.tick().await;
        cluster.sync().await;
    }
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use wire::batch::BatchHeader;
    use wire::builder::BatchBuilder;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_eviction_is_published_however_often_that_is_done_meanwhile() {
        let directory = tempfile::tempdir().expect("a directory");
        let config =
            Config { data_dir: Some(directory.path().to_owned()), fsync: Fsync::Never, ..Config::default() };
        let server = Server::start(config).await.expect("start");
        let cluster = server.shared.cluster.clone();
        let replica = cluster.replicas().pop().expect("a partition");
        let publishing = server.shared.tasks.spawn_blocking({
            let (cluster, stopped) = (cluster.clone(), server.shared.stopped.clone());
            move || {
                while !stopped.is_cancelled() {
                    cluster.publish_log_ends();
                }
            }
        });
        for _ in 0..100 {
            let mut batch = BatchBuilder::with_capacity(64);
            batch.push(None, b"x", 0);
            let batch = BytesMut::from(&batch.finish()[..]);
            let header = BatchHeader::parse(&batch).expect("a batch");
            replica.log.append(vec![(batch, header)]).done().await.expect("written");
            server.evict(&replica.key.topic).await.expect("evict");
            cluster.publish_log_ends();
            let known = cluster.objects.lock().partitions.get(&replica.key.to_string()).cloned();
            assert_eq!(known.expect("a partition").status.base_offset, replica.log.start());
        }
        server.shutdown().await;
        publishing.await.expect("published");
    }
}
