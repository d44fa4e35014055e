//! The client: the way to producers, consumers and administration of one cluster.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::config::ClientOptions;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{Error, Result};
use crate::producer::{Producer, ProducerOptions};
use crate::subscription::Subscription;

/// A client of one cluster. Clones share everything; usable from any task and thread.
///
/// Dropping it ends nothing that was made with it: producers and consumers live on until they are closed or dropped.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster: Arc<Cluster>,
    closed: watch::Sender<bool>,
    children: Mutex<Children>,
}

/// What `close` has to close too.
#[derive(Debug, Default)]
struct Children {
    producers: Vec<crate::producer::WeakProducer>,
    consumers: Vec<crate::consumer::WeakConsumer>,
}

impl Client {
    /// Connects within the connect time-out, and checks that the peer is a Fluvio cluster of platform 0.9.0 or newer.
    /// Dropping the future abandons the attempt.
    pub async fn connect(options: ClientOptions) -> Result<Client> {
        let cluster = Cluster::connect(options).await?;
        Ok(Client {
            inner: Arc::new(Inner { cluster, closed: watch::Sender::new(false), children: Mutex::default() }),
        })
    }

    /// `host:port` of the cluster.
    pub fn endpoint(&self) -> &str {
        &self.inner.cluster.endpoint
    }

    /// The platform version that the cluster announced when the client connected.
    pub fn platform_version(&self) -> &semver::Version {
        &self.inner.cluster.platform
    }

    /// Administration. Works until the client is closed.
    pub fn admin(&self) -> Admin {
        Admin { cluster: Arc::clone(&self.inner.cluster) }
    }

    /// What happens to the connection to the cluster: documents with `event` and `endpoint`. It starts with how things are,
    /// and ends when the client is closed. Events: `connected`; `lost` (with `error`: why); `reconnecting` (with
    /// `attempt`, from 1).
    pub fn connection_events(&self) -> Subscription {
        self.inner.cluster.directory.events.subscribe()
    }

    /// A producer for one topic. If the client is closed meanwhile, there is none.
    pub async fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer> {
        let opening = Producer::open(Arc::clone(&self.inner.cluster), topic, options);
        let producer = self.while_open(opening).await?;
        let mut children = self.inner.children.lock();
        // Closed meanwhile: nobody would close this one. Dropping it ends it.
        self.check_open()?;
        children.producers.retain(crate::producer::WeakProducer::is_alive);
        children.producers.push(producer.downgrade());
        Ok(producer)
    }

    /// A consumer of one topic. If the client is closed meanwhile, there is none.
    pub async fn consumer(&self, topic: &str, options: ConsumerOptions) -> Result<Consumer> {
        let opening = Consumer::open(Arc::clone(&self.inner.cluster), topic, options);
        let consumer = self.while_open(opening).await?;
        let mut children = self.inner.children.lock();
        self.check_open()?;
        children.consumers.retain(crate::consumer::WeakConsumer::is_alive);
        children.consumers.push(consumer.downgrade());
        Ok(consumer)
    }

    /// Closes the producers (what they accepted is sent first, within the close time-out), the consumers and every
    /// connection. What is being opened ends at once, administration when this does. Repeating it is harmless.
    /// Deliveries that fail are reported to whoever sent the records.
    pub async fn close(&self) {
        self.inner.closed.send_replace(true);
        // They stay listed: if this future is dropped, the next call goes on with them.
        let (consumers, producers) = {
            let children = self.inner.children.lock();
            (children.consumers.clone(), children.producers.clone())
        };
        for consumer in consumers {
            consumer.close();
        }
        futures_util::future::join_all(producers.into_iter().map(|producer| async move {
            // The records' senders are told; here the client only has to wait for the end.
            let _ = producer.close().await;
        }))
        .await;
        self.inner.cluster.close();
    }

    fn check_open(&self) -> Result<()> {
        if *self.inner.closed.borrow() { Err(Error::closed("client")) } else { Ok(()) }
    }

    /// What `opening` gives, unless the client is closed before: then it is dropped, and its connections with it.
    async fn while_open<T>(&self, opening: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Error::closed("client")),
            opened = opening => opened,
        }
    }
}
