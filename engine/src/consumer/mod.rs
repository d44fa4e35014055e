//! The consumer: a session per partition, one task that drives them, one budget of bytes, batches taken one by one.
//!
//! What holds: every record from the start offset on is handed out once, in the order of its partition; only complete
//! batches are acknowledged to the server, so a cut answer or a lost connection loses nothing; a topic that is deleted ends
//! the consumer as a whole, once, and nothing of a new topic of its name is handed out; memory is bounded by the budget, and
//! whoever takes slowly slows down nobody else. Waiting consumes nothing, so a wait can be dropped at any moment.

mod actions;
mod answers;
mod buffer;
mod driver;
mod log_end;
mod options;
mod requests;
mod spu;
mod start;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::task::AbortHandle;
use wire::view::RecordColumns;

pub use options::{ConsumerOptions, Start};

use crate::budget::Budget;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::link::{Links, Settings};
use buffer::Buffer;
use driver::{Driver, Parts};

/// What [`Consumer::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// Records of one partition.
    Batch(Batch),
    /// Nothing yet: [`Consumer::ready`] waits.
    Empty,
    /// Every partition has ended with an error that was reported before.
    End,
}

/// Records of one partition, as they came in one answer.
#[derive(Debug)]
pub struct Batch {
    partition: u32,
    high_watermark: i64,
    data: Bytes,
    columns: RecordColumns,
}

impl Batch {
    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The partition's high watermark when the server answered.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The bytes that the columns index into.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The records.
    pub fn columns(&self) -> &RecordColumns {
        &self.columns
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no record; a batch that was taken has one at least.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }
}

/// A consumer of one topic. Dropping it closes it.
#[derive(Debug)]
pub struct Consumer {
    core: Arc<Core>,
}

/// What the handle and the driver share.
#[derive(Debug)]
struct Core {
    topic: String,
    buffer: Arc<Buffer>,
    links: Arc<Links>,
    driver: AbortHandle,
}

impl Consumer {
    pub(crate) async fn open(cluster: Arc<Cluster>, topic: &str, options: ConsumerOptions) -> Result<Self> {
        options.check()?;
        let followed = cluster.topic(topic).await?;
        let count = followed.partition_count();
        let partitions = options.select(topic, count)?;
        let budget = Budget::new(options.prefetch_bytes);
        let settings = Settings { budget: Some(Arc::clone(&budget)), ..cluster.settings.clone() };
        let (links, buffer) = (Arc::new(Links::new(settings)), Arc::new(Buffer::new()));
        let parts = Parts {
            topic: followed,
            options,
            budget,
            buffer: Arc::clone(&buffer),
            links: Arc::clone(&links),
            cluster,
        };
        let positions = start::resolve(&parts, &partitions).await?;
        let driver = tokio::spawn(Driver::new(parts, count, positions).run()).abort_handle();
        Ok(Consumer { core: Arc::new(Core { topic: topic.to_owned(), buffer, links, driver }) })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.core.topic
    }

    /// Completes when [`Consumer::take`] would not say [`Taken::Empty`]. Consumes nothing; any number of tasks may wait.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let core = Arc::clone(&self.core);
        async move { core.buffer.wait().await }
    }

    /// The next batch, without waiting. Partitions take turns. An error of a partition is returned once, after the
    /// records that came before it; the other partitions go on. After [`Consumer::close`] it is always
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn take(&self) -> Result<Taken> {
        self.core.buffer.take()
    }

    /// Ends all fetching, closes the connections and drops what was not taken. Repeating it is harmless.
    pub async fn close(&self) {
        self.core.close();
    }

    pub(crate) fn downgrade(&self) -> WeakConsumer {
        WeakConsumer { core: Arc::downgrade(&self.core) }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.core.close();
    }
}

/// A reference that keeps no consumer alive; what the client closes.
#[derive(Debug, Clone)]
pub(crate) struct WeakConsumer {
    core: Weak<Core>,
}

impl WeakConsumer {
    pub(crate) fn is_alive(&self) -> bool {
        self.core.strong_count() > 0
    }

    pub(crate) fn close(&self) {
        if let Some(core) = self.core.upgrade() {
            core.close();
        }
    }
}

impl Core {
    fn close(&self) {
        self.driver.abort();
        self.links.close();
        self.buffer.close();
    }
}
