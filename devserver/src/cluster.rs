//! The state that all connections share: the objects of the cluster and the logs of its partitions.
//!
//! Invariant: a partition that a client can see has a log, so the log appears before its metadata and goes after it.
//! Lock order: `objects` before `replicas`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use anyhow::{Context, anyhow};
use fluvio_controlplane_metadata::partition::{
    PartitionResolution, PartitionSpec, PartitionStatus, ReplicaStatus,
};
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{
    Endpoint, IngressAddr, IngressPort, SpuSpec, SpuStatus, SpuStatusResolution, SpuType,
};
use fluvio_controlplane_metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, SegmentBasedPolicy, TopicSpec, TopicStorageConfig,
};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_sc_schema::mirror::MirrorSpec;
use fluvio_sc_schema::objects::Metadata;
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_types::defaults::{CONSUMER_STORAGE_TOPIC, SPU_LOG_SEGMENT_MAX_BYTES, STORAGE_MAX_REQUEST_SIZE};
use fluvio_types::{PartitionId, SpuId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::counters::Counts;
use crate::durability::restored;
use crate::faults::Faults;
use crate::log::{PartitionLog, Retention, StorageError};
use crate::metadata::Store;
use crate::sc::groups;
use crate::smart::Deduplicator;
use crate::store::DataDir;

/// The first streaming processing unit; the others follow it.
pub(crate) const FIRST_SPU: SpuId = 5001;

/// What all connections share.
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) faults: Arc<Faults>,
    pub(crate) counts: Counts,
    /// The endpoints of the SPUs for which a fault announces another one.
    pub(crate) true_endpoints: Mutex<BTreeMap<SpuId, IngressPort>>,
    pub(crate) objects: Mutex<Objects>,
    /// By topic, then by partition.
    pub(crate) replicas: RwLock<HashMap<String, Vec<Arc<Replica>>>>,
    pub(crate) consumer_offsets: Mutex<BTreeMap<ConsumerKey, StoredOffset>>,
    changed: Arc<ChangedReplicas>,
    /// What goes on beside the connections: streams, and writes to the disk.
    pub(crate) tasks: TaskTracker,
    /// Where all of this is kept, if it is to outlive the process.
    pub(crate) data: Option<DataDir>,
}

/// The partitions whose logs have changed since their metadata was published.
type ChangedReplicas = Mutex<Vec<Arc<Replica>>>;

/// The objects of the cluster, by kind.
pub(crate) struct Objects {
    pub(crate) topics: Store<TopicSpec>,
    pub(crate) partitions: Store<PartitionSpec>,
    pub(crate) spus: Store<SpuSpec>,
    pub(crate) spu_groups: Store<SpuGroupSpec>,
    pub(crate) smart_modules: Store<SmartModuleSpec>,
    pub(crate) table_formats: Store<TableFormatSpec>,
    pub(crate) mirrors: Store<MirrorSpec>,
}

/// Whose offset is stored: partition and consumer id.
pub(crate) type ConsumerKey = (ReplicaKey, String);

/// An offset that a consumer has stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredOffset {
    pub(crate) offset: i64,
    /// Seconds since 1970.
    pub(crate) modified: u64,
}

/// One partition on its leader.
///
/// The log is the one of all its replicas: the SPUs of this server share it, so a follower never lags behind.
pub(crate) struct Replica {
    pub(crate) key: ReplicaKey,
    /// The SPU that serves it.
    pub(crate) leader: watch::Sender<SpuId>,
    pub(crate) log: PartitionLog,
    pub(crate) compression: CompressionAlgorithm,
    /// The largest batch that is accepted.
    pub(crate) max_batch_bytes: usize,
    /// Why clients may not write to it: it mirrors a partition of another cluster.
    pub(crate) read_only: Option<ErrorCode>,
    /// It is among the changed ones already.
    noted: AtomicBool,
    changed: Weak<ChangedReplicas>,
    pub(crate) deduplicator: Option<Deduplicator>,
}

impl Cluster {
    /// A cluster of online SPUs with what its data directory holds, and the system topic. Blocks.
    pub(crate) fn open(
        config: Config,
        spus: impl IntoIterator<Item = Metadata<SpuSpec>>,
    ) -> anyhow::Result<Self> {
        let tasks = TaskTracker::new();
        let data_dir = config.data_dir.as_ref();
        let data = data_dir.map(|root| DataDir::open(root, config.fsync, tasks.clone())).transpose()?;
        let objects = Objects {
            topics: restored(data.as_ref())?,
            partitions: Store::new(Vec::new(), None),
            spus: restored(data.as_ref())?,
            spu_groups: restored(data.as_ref())?,
            smart_modules: restored(data.as_ref())?,
            table_formats: restored(data.as_ref())?,
            mirrors: restored(data.as_ref())?,
        };
        let cluster = Cluster {
            config,
            faults: Arc::default(),
            counts: Counts::default(),
            true_endpoints: Mutex::default(),
            objects: Mutex::new(objects),
            replicas: RwLock::default(),
            consumer_offsets: Mutex::default(),
            changed: Arc::default(),
            tasks,
            data,
        };
        let mut objects = cluster.objects.lock();
        for spu in spus.into_iter().chain(groups::members_to_start(&objects)) {
            let id = spu.spec.id;
            let namesake =
                objects.spus.iter().find(|known| known.spec.id == id).map(|known| known.name.clone());
            objects.spus.remove(namesake.as_deref());
            objects.spus.put(vec![spu]);
        }
        let topics: Vec<_> = objects.topics.iter().cloned().collect();
        for topic in topics {
            cluster.restore_topic(&mut objects, topic).context("opening the logs in the data directory")?;
        }
        cluster.provision_waiting_topics(&mut objects);
        drop(objects);
        cluster.restore_consumer_offsets()?;
        if cluster.replica(CONSUMER_STORAGE_TOPIC, 0).is_none() {
            cluster
                .put_topic(CONSUMER_STORAGE_TOPIC.to_owned(), consumer_offset_topic())
                .map_err(|StorageError| anyhow!("cannot create the topic {CONSUMER_STORAGE_TOPIC}"))?;
        }
        Ok(cluster)
    }

    /// A partition, if `spu` is its leader.
    pub(crate) fn replica_led_by(
        &self,
        spu: SpuId,
        topic: &str,
        partition: PartitionId,
    ) -> Option<Arc<Replica>> {
        self.replica(topic, partition).filter(|replica| *replica.leader.borrow() == spu)
    }

    /// A partition, whoever leads it.
    pub(crate) fn replica(&self, topic: &str, partition: PartitionId) -> Option<Arc<Replica>> {
        self.replicas.read().get(topic)?.get(usize::try_from(partition).ok()?).cloned()
    }

    /// Opens the logs of those partitions of `topic` that have none.
    pub(crate) fn new_replicas(&self, topic: &Metadata<TopicSpec>) -> anyhow::Result<Vec<Arc<Replica>>> {
        let known = self.replicas.read().get(&topic.name).map_or(0, Vec::len);
        let missing = topic.status.replica_map.values().enumerate().skip(known);
        missing
            .map(|(partition, replicas)| {
                let key = ReplicaKey::new(topic.name.as_str(), partition as PartitionId);
                let leader = replicas.first().copied().unwrap_or(FIRST_SPU);
                let retention = Retention::from(&topic.spec);
                let log = match &self.data {
                    Some(data) => {
                        let dir = data.partition(&key);
                        let (fsync, journal) = (self.config.fsync, data.journal.clone());
                        PartitionLog::open(dir, retention, fsync, journal, self.tasks.clone())?
                    }
                    None => PartitionLog::in_memory(retention),
                };
                let changed = Arc::downgrade(&self.changed);
                if self.faults.holds_high_watermark(&topic.name, key.partition) {
                    log.hold_high_watermark(true);
                }
                Ok(Arc::new(Replica::new(key, leader, &topic.spec, log, changed)))
            })
            .collect()
    }

    /// Serves partitions of `topic` that are new.
    pub(crate) fn add_replicas(&self, topic: &str, replicas: Vec<Arc<Replica>>) {
        self.replicas.write().entry(topic.to_owned()).or_default().extend(replicas);
    }

    /// All partitions.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().values().flatten().cloned().collect()
    }

    /// Drops the logs of a topic, its streams and the offsets that consumers have stored for it.
    pub(crate) fn remove_replicas(&self, topic: &str) {
        let removed = self.replicas.write().remove(topic);
        for replica in removed.into_iter().flatten() {
            replica.log.delete();
        }
        self.consumer_offsets.lock().retain(|(key, _), _| key.topic != topic);
    }

    /// Publishes how far the logs have grown since the last time, which costs nothing for those that have not.
    pub(crate) fn publish_log_ends(&self) {
        let mut objects = self.objects.lock();
        let replicas = std::mem::take(&mut *self.changed.lock());
        let mut changed = Vec::new();
        for replica in replicas {
            // Before its ends are read: what comes later is noted again.
            replica.noted.store(false, Ordering::Release);
            let Some(known) = objects.partitions.get(&replica.key.to_string()) else {
                continue;
            };
            let resolution = known.status.resolution.clone();
            let status = PartitionStatus { resolution, ..replica.status(&known.spec.replicas) };
            if status != known.status {
                changed.push(Metadata { status, ..known.clone() });
            }
        }
        objects.partitions.put(changed);
    }
}

impl Replica {
    fn new(
        key: ReplicaKey,
        leader: SpuId,
        spec: &TopicSpec,
        log: PartitionLog,
        changed: Weak<ChangedReplicas>,
    ) -> Self {
        let segment = spec.get_storage().and_then(|storage| storage.segment_size);
        let max_batch_bytes =
            segment.unwrap_or(SPU_LOG_SEGMENT_MAX_BYTES).min(STORAGE_MAX_REQUEST_SIZE) as usize;
        let compression = spec.get_compression_type().clone();
        let leader = watch::Sender::new(leader);
        let mirrors = spec.get_partition_mirror_map();
        let mirror =
            mirrors.as_ref().and_then(|maps| maps.maps().get(key.partition as usize)?.mirror.as_ref());
        let read_only = mirror.and_then(|mirror| mirror.accept_traffic());
        Replica {
            key,
            leader,
            log,
            compression,
            max_batch_bytes,
            read_only,
            deduplicator: spec.get_deduplication().cloned().map(Deduplicator::new),
            noted: AtomicBool::new(false),
            changed,
        }
    }

    /// Has the cluster's metadata follow the log, which has just grown or shrunk, or whose high watermark has moved.
    pub(crate) fn note_change(self: &Arc<Self>) {
        if self.noted.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(changed) = self.changed.upgrade() {
            changed.lock().push(self.clone());
        }
    }

    /// What the cluster's metadata says about this partition, which is on the SPUs `replicas`.
    pub(crate) fn status(&self, replicas: &[SpuId]) -> PartitionStatus {
        let leader = *self.leader.borrow();
        let ends = self.log.ends();
        let on = |spu| ReplicaStatus::new(spu, ends.high_watermark, ends.offset);
        PartitionStatus::new2(
            on(leader),
            replicas.iter().filter(|spu| **spu != leader).map(|spu| on(*spu)).collect(),
            i64::try_from(self.log.bytes()).unwrap_or(i64::MAX),
            PartitionResolution::Online,
            self.log.start(),
        )
    }
}

/// An SPU that is online.
pub(crate) fn spu(name: String, id: SpuId, spu_type: SpuType, host: String, port: u16) -> Metadata<SpuSpec> {
    Metadata {
        name,
        spec: SpuSpec {
            id,
            spu_type,
            public_endpoint: IngressPort {
                port,
                ingress: vec![IngressAddr::from_host(host.clone())],
                ..IngressPort::default()
            },
            private_endpoint: Endpoint { host, ..Endpoint::default() },
            rack: None,
            public_endpoint_local: None,
        },
        status: SpuStatus { resolution: SpuStatusResolution::Online },
    }
}

/// The system topic as the platform makes it.
fn consumer_offset_topic() -> TopicSpec {
    let mut spec = TopicSpec::new_computed(1, 1, None);
    spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds: 7 * 24 * 3600 }));
    spec.set_storage(TopicStorageConfig {
        segment_size: Some(512_000_000),
        max_partition_size: Some(2_048_000_000),
    });
    spec.set_system(true);
    spec
}
