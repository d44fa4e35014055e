//! One cluster as a client sees it: settings, the metadata view, and the connections that are not tied to a topic.
//!
//! Producers and consumers hold it too, so it lives until the last of them is done, also when the client was freed
//! before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::{ListRequest, ListResponse, Metadata, ObjectApiListRequest};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Semaphore, watch};

use crate::config::ClientOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{ClusterView, Spu};
use crate::transport::{Connection, Pool, Settings};
use crate::watch::{Watches, run};

/// The oldest platform whose protocol is spoken here.
const MINIMUM_PLATFORM: semver::Version = semver::Version::new(0, 9, 0);

/// Look-ups of topics that may be under way at once, each with a connection of its own.
const CONCURRENT_REFRESHES: usize = 4;

/// Shared by everything that talks to one cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) endpoint: String,
    pub(crate) platform: semver::Version,
    pub(crate) settings: Settings,
    pub(crate) close_timeout: Duration,
    pub(crate) admin: Pool,
    pub(crate) view: Arc<ClusterView>,
    /// Connections for produce requests, by address and by whether they wait for replication: a request that waits must
    /// not hold up one that does not.
    produce: Mutex<HashMap<(String, bool), Connection>>,
    /// When an SPU goes away every partition asks for news: not all of them at once.
    refreshes: Semaphore,
    /// Dropped with the cluster, which ends the watch.
    in_use: watch::Sender<()>,
}

impl Cluster {
    /// Connects, checks the platform and starts to watch.
    pub(crate) async fn connect(options: ClientOptions) -> Result<Arc<Self>> {
        let endpoint = options.resolve_endpoint()?;
        let settings = Settings {
            client_id: options.client_id.clone(),
            connect_timeout: options.connect_timeout(),
            request_timeout: options.request_timeout(),
            max_frame: options.max_frame_bytes,
        };
        let connection = Connection::open(&endpoint, &settings).await?;
        let platform = connection.platform_version().clone();
        if platform < MINIMUM_PLATFORM {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("{endpoint} runs platform {platform}: {MINIMUM_PLATFORM} or newer is needed"),
            ));
        }
        let watches = Watches::start(connection)?;
        let cluster = Arc::new(Cluster {
            admin: Pool::new(endpoint.clone(), settings.clone()),
            endpoint,
            platform,
            settings,
            close_timeout: options.close_timeout(),
            view: Arc::default(),
            produce: Mutex::default(),
            refreshes: Semaphore::new(CONCURRENT_REFRESHES),
            in_use: watch::Sender::new(()),
        });
        tokio::spawn(run(Arc::downgrade(&cluster), watches, Arc::clone(&cluster.view)));
        Ok(cluster)
    }

    /// Completes once the cluster is dropped.
    pub(crate) fn unused(&self) -> impl Future<Output = ()> + use<> {
        let mut in_use = self.in_use.subscribe();
        async move { while in_use.changed().await.is_ok() {} }
    }

    /// Lists objects of one kind; `filters` are substrings of names.
    pub(crate) async fn list<S>(&self, filters: &[String], system: bool) -> Result<Vec<Metadata<S>>>
    where
        S: AdminSpec,
        S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
    {
        let response = self
            .admin
            .call(true, |version| {
                let names: Vec<_> = filters.iter().cloned().map(Into::into).collect();
                ObjectApiListRequest::try_encode_from(
                    ListRequest::<S>::new(names, true).system(system),
                    version,
                )
                .map_err(|error| Error::invalid(format!("the list request cannot be encoded: {error}")))
            })
            .await?;
        let objects: Option<ListResponse<S>> = response
            .downcast()
            .map_err(|error| Error::new(ErrorKind::Protocol, format!("a list cannot be decoded: {error}")))?;
        objects.map(ListResponse::inner).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "a list holds objects of another kind than asked for")
        })
    }

    /// The partitions of a topic once all of them have a leader. Asks the server before it says that there is no such
    /// topic, and waits up to the request time-out for one that is being set up.
    pub(crate) async fn partition_count(&self, topic: &str) -> Result<u32> {
        check_topic_name(topic)?;
        let mut changes = self.view.changes();
        if let Some(count) = self.view.partition_count(topic) {
            return Ok(count);
        }
        let waiting = async {
            loop {
                self.refresh_topic(topic).await?;
                if let Some(count) = self.view.partition_count(topic) {
                    return Ok(count);
                }
                // The topic is there, its partitions are not yet: the watch tells, or asking again does.
                let _ = tokio::time::timeout(Duration::from_millis(250), changes.changed()).await;
            }
        };
        match tokio::time::timeout(self.settings.request_timeout, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "topic {topic:?} has no leader for each of its partitions after {} ms",
                    self.settings.request_timeout.as_millis()
                ),
            )),
        }
    }

    /// Asks the server about one topic; [`ErrorKind::TopicNotFound`] if it knows none.
    pub(crate) async fn refresh_topic(&self, topic: &str) -> Result<()> {
        // The semaphore is never closed.
        let _turn = self.refreshes.acquire().await;
        let asked = self.view.revision();
        let filters = [topic.to_owned()];
        let topics = self.list::<TopicSpec>(&filters, false).await?;
        let found = match topics.into_iter().find(|object| object.name == topic) {
            Some(found) => Some(found),
            None => {
                self.list::<TopicSpec>(&filters, true).await?.into_iter().find(|object| object.name == topic)
            }
        };
        let Some(found) = found else {
            if !self.view.forget_topic(asked, topic) {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::TopicNotFound,
                format!("there is no topic {topic:?} on {}: create it first", self.endpoint),
            ));
        };
        let system = found.spec.is_system();
        let partitions = self.list::<PartitionSpec>(&filters, system).await?;
        let spus = self.list::<SpuSpec>(&[], false).await?;
        self.view.merge_topic(asked, &found, &partitions, &spus);
        Ok(())
    }

    /// Opens a connection to an SPU; the error names it.
    pub(crate) async fn connect_spu(&self, spu: &Spu) -> Result<Connection> {
        Connection::open(&spu.address, &self.settings).await.map_err(|error| {
            let message = format!("SPU {} at its advertised address: {}", spu.id, error.message());
            Error::new(error.kind(), message).with_detail("spu", spu.id)
        })
    }
}

impl Cluster {
    /// The connection for produce requests to `spu`, opened if there is none. All producers share it.
    pub(crate) async fn produce_connection(&self, spu: &Spu, committed: bool) -> Result<Connection> {
        let key = (spu.address.clone(), committed);
        let alive =
            |connections: &HashMap<_, Connection>| connections.get(&key).filter(|c| !c.is_lost()).cloned();
        if let Some(connection) = alive(&self.produce.lock()) {
            return Ok(connection);
        }
        let opened = self.connect_spu(spu).await?;
        let mut connections = self.produce.lock();
        // Another producer may have been faster: one connection is enough.
        if let Some(connection) = alive(&connections) {
            return Ok(connection);
        }
        connections.insert(key, opened.clone());
        Ok(opened)
    }
}

/// The platform accepts an empty name at creation; nothing can be done with such a topic.
pub(crate) fn check_topic_name(topic: &str) -> Result<()> {
    if topic.is_empty() {
        Err(Error::invalid("the topic name is empty: give the name of a topic"))
    } else if topic.len() > i16::MAX as usize {
        Err(Error::invalid(format!("the topic name has {} bytes: 63 is the most there is", topic.len())))
    } else {
        Ok(())
    }
}

/// Growing delays with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Delays that start at `initial` and double up to `max`.
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Backoff { next: initial.min(max), max }
    }

    /// For connections that are re-opened for ever.
    pub(crate) fn reconnect() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// The next delay: between half and all of the current step.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.next.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.max);
        delay
    }
}
