//! Keeps the directory up to date: one connection to the SC with three watches.
//!
//! It runs until the client is closed or nobody uses the cluster any more, reconnects with back-off after a loss and starts
//! over with everything. A silent SC is noticed because it is asked for a sign of life when nothing came for a while. A
//! panic while an update is taken in counts as a loss of the connection.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::{ObjectApiWatchRequest, ObjectApiWatchResponse, WatchRequest, WatchResponse};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use futures_util::FutureExt;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Directory;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Backoff, Connection, Settings, StreamFrames};

/// Updates that may wait undelivered: they are applied as fast as they come.
const WAITING_UPDATES: usize = 1024;

/// Between attempts. Of a topic that was made anew often only the watch can tell, so what it misses must not be long, and one
/// attempt a second of a client hammers nobody.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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

    /// Takes updates in until the connection is lost.
    async fn follow(&mut self, directory: &Arc<Directory>, silence: Duration) -> Error {
        let (mut topics, mut partitions, mut spus) = (First(true), First(true), First(true));
        loop {
            let update = tokio::select! {
                frame = self.topics.next() => decode::<TopicSpec>(frame).map(|update| {
                    let in_doubt = directory.state.lock().update_topics(update, topics.take());
                    directory.clear_up(in_doubt);
                }),
                frame = self.partitions.next() => decode::<PartitionSpec>(frame)
                    .map(|update| directory.state.lock().update_partitions(update, partitions.take())),
                frame = self.spus.next() => decode::<SpuSpec>(frame)
                    .map(|update| directory.state.lock().update_spus(update, spus.take())),
                () = tokio::time::sleep(silence) => self.connection.ping().await,
            };
            if let Err(error) = update {
                return error;
            }
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

/// Runs until `over` completes.
pub(crate) async fn run(
    directory: Arc<Directory>,
    settings: Settings,
    watches: Watches,
    over: impl Future<Output = ()>,
) {
    tokio::select! {
        () = over => {}
        () = follow_for_ever(&directory, settings, watches) => {}
    }
    directory.events.end();
}

impl Directory {
    /// Publishes what happened to the watch, with one fact more unless `key` is empty.
    fn tell(&self, event: &str, key: &str, value: Value) {
        let mut document = Map::new();
        document.insert("event".to_owned(), event.into());
        document.insert("endpoint".to_owned(), self.endpoint.as_str().into());
        if !key.is_empty() {
            document.insert(key.to_owned(), value);
        }
        self.events.publish(document);
    }
}

async fn follow_for_ever(directory: &Arc<Directory>, settings: Settings, mut watches: Watches) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    loop {
        let since = Instant::now();
        directory.tell("connected", "", Value::Null);
        let followed = AssertUnwindSafe(watches.follow(directory, settings.request_timeout));
        let error = followed.catch_unwind().await.unwrap_or_else(|_| Error::panic("the metadata watch"));
        tracing::warn!(%error, "metadata watch lost, reconnecting");
        directory.tell("lost", "error", error.message().into());
        watches.connection.fail(error);
        backoff.lasted(since.elapsed());
        let mut attempt = 0u32;
        watches = loop {
            tokio::time::sleep(backoff.next_delay()).await;
            attempt = attempt.saturating_add(1);
            directory.tell("reconnecting", "attempt", attempt.into());
            match Connection::open(&directory.endpoint, &settings).await.and_then(Watches::start) {
                Ok(watches) => break watches,
                Err(error) => tracing::debug!(%error, "metadata watch cannot reconnect yet"),
            }
        };
    }
}
