//! The SPUs of a server, which may come and go while it runs: stopped and started on purpose, or with an SPU group.
//!
//! An SPU that goes away takes its listener and connections with it and returns on the same address, which clients may still
//! know. Its listener is gone before the metadata says so, and there before they say that it is back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fluvio_controlplane_metadata::spu::SpuType;
use fluvio_types::SpuId;
use tokio::net::{TcpListener, TcpSocket};

use crate::cluster::spu;
use crate::leaders::LeaderError;
use crate::plane::Plane;
use crate::server::Shared;

/// More SPUs than any test needs; each has a listener.
pub(crate) const MAX_SPUS: usize = 1000;
/// Connections of an SPU that may wait to be accepted, as many as [`TcpListener::bind`] allows.
const BACKLOG: u32 = 1024;

/// An SPU of an SPU group that has its port and does not serve yet.
pub(crate) struct BoundSpu {
    id: SpuId,
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl Shared {
    /// Whether the SPU takes connections.
    pub(crate) fn is_running(&self, spu: SpuId) -> bool {
        let listening = self.listening.lock();
        listening.get(&Plane::Unit(spu)).is_some_and(|unit| !unit.stopped.is_cancelled())
    }

    /// Takes an SPU away; other replicas take over what it has led. Nothing happens if it is away already.
    pub(crate) async fn stop(&self, spu: SpuId) -> Result<(), LeaderError> {
        let (stopped, accepting) = {
            let mut listening = self.listening.lock();
            let unit = listening.get_mut(&Plane::Unit(spu)).ok_or(LeaderError::UnknownSpu(spu))?;
            (unit.stopped.clone(), std::mem::replace(&mut unit.accepting, tokio::spawn(async {})))
        };
        stopped.cancel();
        if let Err(error) = accepting.await {
            tracing::error!(spu, %error, "the listener has panicked");
        }
        self.cluster.set_spu_online(spu, false)
    }

    /// Brings an SPU back that was taken away, on the same address. Nothing happens if it is there.
    pub(crate) async fn start(self: &Arc<Self>, spu: SpuId) -> Result<(), LeaderError> {
        let address = {
            let listening = self.listening.lock();
            let unit = listening.get(&Plane::Unit(spu)).ok_or(LeaderError::UnknownSpu(spu))?;
            if !unit.stopped.is_cancelled() {
                return Ok(());
            }
            unit.address
        };
        let listener = TcpListener::bind(address).await.map_err(|error| LeaderError::Listen(spu, error))?;
        self.listen(Plane::Unit(spu), address, listener);
        self.cluster.set_spu_online(spu, true)
    }

    /// Binds the SPUs of an SPU group, given as ids and names, to the next free ports: all of them or none.
    pub(crate) fn bind_managed(
        &self,
        members: impl IntoIterator<Item = (SpuId, String)>,
    ) -> Result<Vec<BoundSpu>, LeaderError> {
        let last = {
            let listening = self.listening.lock();
            let units = listening.iter().filter(|(plane, _)| **plane != Plane::Controller);
            units.map(|(_, unit)| unit.address.port()).max()
        };
        let first =
            self.cluster.config.spu_port.map(|first| last.map_or(first.into(), |last| usize::from(last) + 1));
        let bound = members.into_iter().enumerate().map(|(index, (id, name))| {
            let port = first.map_or(Ok(0), |first| u16::try_from(first + index));
            let port = port.map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable));
            let bound = port.and_then(|port| {
                let listener = listener(SocketAddr::new(self.ip, port))?;
                Ok(BoundSpu { id, name, address: listener.local_addr()?, listener })
            });
            bound.map_err(|error| LeaderError::Listen(id, error))
        });
        bound.collect()
    }

    /// Starts an SPU of an SPU group.
    pub(crate) fn start_managed(self: &Arc<Self>, bound: BoundSpu) -> Result<(), LeaderError> {
        let BoundSpu { id, name, address, listener } = bound;
        self.listen(Plane::Unit(id), address, listener);
        let object = spu(name, id, SpuType::Managed, self.host.clone(), address.port());
        self.cluster.objects.lock().spus.put(vec![object]);
        // An SPU with this id may have been somewhere else before.
        self.cluster.true_endpoints.lock().remove(&id);
        self.cluster.advertise();
        self.cluster.set_spu_online(id, true)
    }

    /// Takes an SPU away for good.
    pub(crate) async fn remove(&self, id: SpuId) {
        // That somebody has unregistered it already is no error.
        if let Err(error) = self.stop(id).await {
            tracing::debug!(id, "removing an SPU: {error}");
        }
        self.listening.lock().remove(&Plane::Unit(id));
        let mut objects = self.cluster.objects.lock();
        let name = objects.spus.iter().find(|spu| spu.spec.id == id).map(|spu| spu.name.clone());
        objects.spus.remove(name.as_deref());
    }
}

/// Listens on `address`, as [`TcpListener::bind`] does, without waiting: for who holds a lock.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
