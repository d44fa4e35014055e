//! How the state of the cluster outlives its process, and how what it need not keep goes.
//!
//! Without a data directory there is nothing to restore, and everything is kept as well as it can be at once.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::AdminSpec;
use fluvio_sc_schema::objects::Metadata;
use fluvio_spu_schema::server::consumer_offset::ConsumerOffset;

use crate::cluster::{Cluster, ConsumerKey, FIRST_SPU, Objects, StoredOffset};
use crate::config::Fsync;
use crate::log::StorageError;
use crate::metadata::Store;
use crate::store::{Change, DataDir};

/// The objects of one kind that are known from the last time.
pub(crate) fn restored<S>(data: Option<&DataDir>) -> anyhow::Result<Store<S>>
where
    S: AdminSpec + Clone,
    S::Status: Encoder + Decoder + Clone,
{
    let objects = data.map_or(Ok(Vec::new()), DataDir::objects)?;
    Ok(Store::new(objects, data.map(|data| data.journal.clone())))
}

impl Cluster {
    /// Opens the logs of a topic that is known from the last time.
    pub(crate) fn restore_topic(
        &self,
        objects: &mut Objects,
        mut topic: Metadata<TopicSpec>,
    ) -> anyhow::Result<()> {
        for replicas in topic.status.replica_map.values_mut() {
            // This time there may be fewer SPUs.
            replicas.retain(|id| objects.spus.iter().any(|known| known.spec.id == *id));
            if replicas.is_empty() {
                replicas.push(FIRST_SPU);
            }
        }
        let replicas = self.new_replicas(&topic)?;
        self.serve_topic(objects, topic, replicas);
        Ok(())
    }

    pub(crate) fn restore_consumer_offsets(&self) -> anyhow::Result<()> {
        let stored = self.data.as_ref().map_or(Ok(Vec::new()), DataDir::consumer_offsets)?;
        let stored = stored.into_iter().map(|stored| {
            let offset = StoredOffset { offset: stored.offset, modified: stored.modified_time };
            ((stored.replica_id, stored.consumer_id), offset)
        });
        self.consumer_offsets.lock().extend(stored);
        Ok(())
    }

    /// Stores the offset of a consumer, or forgets it. Nothing has changed after an error.
    pub(crate) fn store_consumer_offset(
        &self,
        key: ConsumerKey,
        stored: Option<StoredOffset>,
    ) -> Result<(), StorageError> {
        let mut offsets = self.consumer_offsets.lock();
        if let Some(data) = &self.data {
            let (replica, consumer) = &key;
            data.journal.record(vec![match &stored {
                Some(StoredOffset { offset, modified }) => {
                    Change::put_offset(&ConsumerOffset::new(consumer, replica.clone(), *offset, *modified))
                }
                None => Change::remove_offset(replica, consumer),
            }])?;
        }
        match stored {
            Some(stored) => offsets.insert(key, stored),
            None => offsets.remove(&key),
        };
        Ok(())
    }

    /// Returns once every change so far is as safe as it has to be before it is acknowledged.
    pub(crate) async fn acknowledgeable(&self) -> Result<(), StorageError> {
        match &self.data {
            Some(data) => data.journal.acknowledgeable().await,
            None => Ok(()),
        }
    }

    /// Makes sure that a topic, its logs and the offsets that consumers have stored for it are not found after a restart.
    /// Nothing has changed after an error. Blocks.
    pub(crate) fn forget_topic(&self, topic: &str) -> Result<(), StorageError> {
        let Some(data) = &self.data else {
            return Ok(());
        };
        let failed = |step: &str, error: io::Error| {
            tracing::error!(topic, "the deletion of a topic failed: cannot {step} its logs: {error}");
            StorageError
        };
        // No new segment may appear under the old name.
        let leave_files = |leave| {
            let replicas = self.replicas.read().get(topic).cloned();
            replicas.into_iter().flatten().for_each(|replica| replica.log.leave_files(leave));
        };
        leave_files(true);
        let take_back = || -> Result<(), StorageError> {
            data.take_back(topic).map_err(|error| failed("take back", error))?;
            leave_files(false);
            Ok(())
        };
        if let Err(error) = data.set_aside(topic) {
            take_back()?;
            return Err(failed("rename", error));
        }
        let mut changes = vec![Change::remove::<TopicSpec>(topic)];
        let offsets = self.consumer_offsets.lock();
        let stored = offsets.keys().filter(|(key, _)| key.topic == topic);
        changes.extend(stored.map(|(key, consumer)| Change::remove_offset(key, consumer)));
        if let Err(StorageError) = data.journal.record(changes) {
            take_back()?;
            return Err(StorageError);
        }
        Ok(())
    }

    /// Removes the logs of a topic that was forgotten, before another one may have its name. Blocks.
    pub(crate) fn discard_logs(&self, topic: &str) {
        // The topic is gone, whether its files are or not.
        if let Some(data) = &self.data
            && let Err(error) = data.discard(topic)
        {
            tracing::error!(topic, "cannot remove the logs of a deleted topic: {error}");
        }
    }

    /// Removes what the retention of the topics does not keep. Blocks.
    pub(crate) fn clean(&self) {
        let now = SystemTime::now();
        for replica in self.replicas() {
            if replica.log.clean(now) {
                replica.note_change();
            }
        }
    }

    /// Waits until nothing is written any more, and leaves everything on the disk. For a server whose connections are
    /// closed.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.tasks.close();
        self.tasks.wait().await;
        if self.config.fsync != Fsync::Never {
            self.sync().await;
        }
    }

    /// Brings everything that was written to the disk.
    pub(crate) async fn sync(self: &Arc<Self>) {
        let Some(data) = &self.data else {
            return;
        };
        // The reason for a failure is logged where it happens; the next time comes soon.
        let _ = data.journal.sync().await;
        let replicas = self.replicas();
        let logs = self.tasks.spawn_blocking(move || {
            for replica in replicas {
                if let Err(error) = replica.log.sync() {
                    tracing::error!(partition = %replica.key, "cannot sync the log: {error}");
                }
            }
        });
        if let Err(error) = logs.await {
            tracing::error!("syncing the logs ended early: {error}");
        }
    }
}
