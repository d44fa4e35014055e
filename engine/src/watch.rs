//! Keeps the view of the cluster up to date: one connection to the SC with three watches.
//!
//! It lives as long as anyone uses the cluster, reconnects with backoff after a loss and starts over with everything. A
//! silent SC is noticed because it is asked for a sign of life when nothing came for a while.

use std::sync::{Arc, Weak};
use std::time::Duration;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::{ObjectApiWatchRequest, ObjectApiWatchResponse, WatchRequest, WatchResponse};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};

use crate::cluster::{Backoff, Cluster};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::ClusterView;
use crate::transport::{Connection, StreamFrames};

/// Updates that may wait undelivered: they are applied as fast as they come.
const WAITING_UPDATES: usize = 1024;

/// The three watches on one connection.
#[derive(Debug)]
pub(crate) struct Watches {
    connection: Connection,
    topics: StreamFrames,
    partitions: StreamFrames,
    spus: StreamFrames,
}

impl Watches {
    /// Asks for the watches.
    pub(crate) fn start(connection: Connection) -> Result<Self> {
        Ok(Watches {
            topics: open::<TopicSpec>(&connection)?,
            partitions: open::<PartitionSpec>(&connection)?,
            spus: open::<SpuSpec>(&connection)?,
            connection,
        })
    }

    /// Applies updates until the connection is lost. `backoff` starts anew once something came.
    async fn follow(&mut self, view: &ClusterView, silence: Duration, backoff: &mut Backoff) -> Error {
        let (mut topics, mut partitions, mut spus) = (First(true), First(true), First(true));
        loop {
            let update = tokio::select! {
                frame = self.topics.next() => {
                    decode::<TopicSpec>(frame).map(|update| view.update_topics(update, topics.take()))
                }
                frame = self.partitions.next() => {
                    decode::<PartitionSpec>(frame).map(|update| view.update_partitions(update, partitions.take()))
                }
                frame = self.spus.next() => {
                    decode::<SpuSpec>(frame).map(|update| view.update_spus(update, spus.take()))
                }
                () = tokio::time::sleep(silence) => self.connection.ping().await,
            };
            if let Err(error) = update {
                return error;
            }
            *backoff = Backoff::reconnect();
        }
    }
}

/// True for the first update of a watch.
struct First(bool);

impl First {
    fn take(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

fn open<S: AdminSpec>(connection: &Connection) -> Result<StreamFrames> {
    let version = connection.version::<ObjectApiWatchRequest>()?;
    let request = ObjectApiWatchRequest::try_encode_from(WatchRequest::<S>::summary(), version)
        .map_err(|error| Error::new(ErrorKind::Protocol, format!("the watch cannot be encoded: {error}")))?;
    connection.stream(request, WAITING_UPDATES)
}

fn decode<S>(frame: Result<ObjectApiWatchResponse>) -> Result<fluvio_sc_schema::objects::MetadataUpdate<S>>
where
    S: AdminSpec,
    S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder,
{
    let response: Option<WatchResponse<S>> = frame?.downcast().map_err(|error| {
        Error::new(ErrorKind::Protocol, format!("a watch update cannot be decoded: {error}"))
    })?;
    response
        .map(WatchResponse::inner)
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "a watch update is of another kind than the watch"))
}

/// Runs until nobody uses the cluster any more.
pub(crate) async fn run(cluster: Weak<Cluster>, mut watches: Watches, view: Arc<ClusterView>) {
    let mut backoff = Backoff::reconnect();
    loop {
        let (silence, closing) = match cluster.upgrade() {
            Some(cluster) => (cluster.settings.request_timeout, cluster.unused()),
            None => return,
        };
        tokio::select! {
            error = watches.follow(&view, silence, &mut backoff) => tracing::warn!(%error, "metadata watch lost, reconnecting"),
            () = closing => return,
        }
        watches = loop {
            let closing = match cluster.upgrade() {
                Some(cluster) => cluster.unused(),
                None => return,
            };
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = closing => return,
            }
            let Some(cluster) = cluster.upgrade() else { return };
            let connected = Connection::open(&cluster.endpoint, &cluster.settings).await;
            match connected.and_then(Watches::start) {
                Ok(watches) => break watches,
                Err(error) => tracing::debug!(%error, "metadata watch cannot reconnect yet"),
            }
        };
    }
}
