//! The consumer: one fetch loop per partition, one bounded buffer, batches taken one by one.
//!
//! What holds: every record from the start offset on is handed out once, in the order of its partition; only complete
//! batches are acknowledged to the server, so a cut answer or a lost connection loses nothing; memory is bounded, and
//! whoever takes slowly slows down nobody else. Waiting consumes nothing, so a wait can be dropped at any moment.

mod buffer;
mod connections;
mod fetch;
mod options;
mod start;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use wire::view::RecordColumns;

pub use options::{ConsumerOptions, Start};

use crate::cluster::Cluster;
use crate::error::Result;
use buffer::Buffer;
use connections::Connections;

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

/// What the handle and the fetch loops share.
#[derive(Debug)]
struct Core {
    cluster: Arc<Cluster>,
    topic: String,
    options: ConsumerOptions,
    buffer: Buffer,
    connections: Connections,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    closed: bool,
    running: Vec<AbortHandle>,
}

impl Consumer {
    pub(crate) async fn open(cluster: Arc<Cluster>, topic: &str, options: ConsumerOptions) -> Result<Self> {
        options.check()?;
        let count = cluster.partition_count(topic).await?;
        let partitions = options.select(topic, count)?;
        let core = Arc::new(Core {
            buffer: Buffer::new(options.prefetch_bytes),
            cluster,
            topic: topic.to_owned(),
            options,
            connections: Connections::default(),
            tasks: Mutex::default(),
        });
        // Closes what was begun if this future is dropped or fails.
        let consumer = Consumer { core: Arc::clone(&core) };
        let positions = start::resolve(&core, &partitions).await?;
        for (partition, position) in positions {
            core.follow(partition, position);
        }
        if core.options.partitions.is_none() {
            let weak = Arc::downgrade(&core);
            core.spawn(follow_new_partitions(weak, count, core.cluster.view.changes()));
        }
        Ok(consumer)
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
    /// Starts to fetch a partition.
    fn follow(self: &Arc<Self>, partition: u32, position: i64) {
        self.buffer.add(partition);
        self.spawn(fetch::run(Arc::clone(self), partition, position));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        if !tasks.closed {
            tasks.running.retain(|task| !task.is_finished());
            tasks.running.push(tokio::spawn(task).abort_handle());
        }
    }

    fn close(&self) {
        let running = {
            let mut tasks = self.tasks.lock();
            tasks.closed = true;
            std::mem::take(&mut tasks.running)
        };
        for task in running {
            task.abort();
        }
        self.connections.clear();
        self.buffer.close();
    }
}

/// Partitions that are added to the topic are read from their first record.
async fn follow_new_partitions(
    core: Weak<Core>,
    mut known: u32,
    mut changes: tokio::sync::watch::Receiver<u64>,
) {
    // They may have been added since they were counted.
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        let Some(core) = core.upgrade() else { return };
        let count = core.cluster.view.partition_count(&core.topic).unwrap_or(known);
        for partition in known..count {
            core.follow(partition, 0);
        }
        known = known.max(count);
    }
}
