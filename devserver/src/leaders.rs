//! Which SPU leads which partition, and what happens when an SPU goes away or returns.
//!
//! Metadata and [`crate::cluster::Replica::leader`] change together under the lock of the objects: who is told about a new
//! leader finds it serving. All replicas share one log, so any of them can take over without loss.

use fluvio_controlplane_metadata::partition::{PartitionResolution, PartitionSpec};
use fluvio_controlplane_metadata::spu::{SpuStatus, SpuStatusResolution};
use fluvio_protocol::record::ReplicaKey;
use fluvio_sc_schema::objects::Metadata;
use fluvio_types::{PartitionId, SpuId};

use crate::cluster::{Cluster, Objects, Replica};

/// Why a leader cannot be moved, or an SPU stopped or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaderError {
    /// No SPU has this id.
    #[error("there is no SPU {0}")]
    UnknownSpu(SpuId),
    /// The SPU cannot lead while it is away.
    #[error("SPU {0} is offline: start it first")]
    Offline(SpuId),
    /// There is no such partition.
    #[error("there is no partition {1} of topic {0:?}")]
    UnknownPartition(String, PartitionId),
    /// The SPU cannot listen on its address again.
    #[error("SPU {0} cannot listen: {1}")]
    Listen(SpuId, std::io::Error),
}

impl Cluster {
    /// Makes `spu` the leader of a partition. Streams of the former leader end with NotLeaderForPartition.
    pub(crate) fn move_leader(
        &self,
        topic: &str,
        partition: PartitionId,
        spu: SpuId,
    ) -> Result<(), LeaderError> {
        let mut objects = self.objects.lock();
        let known = objects.spus.iter().find(|known| known.spec.id == spu);
        if !known.ok_or(LeaderError::UnknownSpu(spu))?.status.is_online() {
            return Err(LeaderError::Offline(spu));
        }
        let replica = self
            .replica(topic, partition)
            .ok_or_else(|| LeaderError::UnknownPartition(topic.to_owned(), partition))?;
        let changed = lead(&mut objects, &replica, spu);
        objects.partitions.put(changed.into_iter().collect());
        Ok(())
    }

    /// Notes that an SPU has gone or is back, and finds leaders among the replicas that are left.
    pub(crate) fn set_spu_online(&self, spu: SpuId, online: bool) -> Result<(), LeaderError> {
        let mut objects = self.objects.lock();
        let known = objects.spus.iter().find(|known| known.spec.id == spu);
        let known = known.ok_or(LeaderError::UnknownSpu(spu))?.clone();
        let resolution = if online { SpuStatusResolution::Online } else { SpuStatusResolution::Offline };
        objects.spus.put(vec![Metadata { status: SpuStatus { resolution }, ..known }]);
        let mut changed = Vec::new();
        for replica in self.replicas() {
            let leader = *replica.leader.borrow();
            let led = is_online(&objects, leader);
            if led && leader != spu {
                continue;
            }
            let Some(partition) = objects.partitions.get(&replica.key.to_string()).cloned() else {
                continue;
            };
            let mut candidates = partition.spec.replicas.iter().copied();
            match candidates.find(|id| if led { *id == leader } else { is_online(&objects, *id) }) {
                Some(successor) => changed.extend(lead(&mut objects, &replica, successor)),
                None => {
                    let mut partition = partition;
                    partition.status.resolution = PartitionResolution::LeaderOffline;
                    changed.push(partition);
                }
            }
        }
        objects.partitions.put(changed);
        Ok(())
    }
}

fn is_online(objects: &Objects, spu: SpuId) -> bool {
    objects.spus.iter().any(|known| known.spec.id == spu && known.status.is_online())
}

/// Makes `spu` the leader and gives the partition's new metadata; the topic's map of replicas follows.
fn lead(objects: &mut Objects, replica: &Replica, spu: SpuId) -> Option<Metadata<PartitionSpec>> {
    let ReplicaKey { topic, partition } = &replica.key;
    let mut known = objects.partitions.get(&replica.key.to_string())?.clone();
    let former = replica.leader.send_replace(spu);
    let replicas = &mut known.spec.replicas;
    if !replicas.contains(&spu) {
        // It takes the place of the former leader.
        replicas.iter_mut().filter(|id| **id == former).for_each(|id| *id = spu);
    }
    known.spec.leader = spu;
    known.status = replica.status(&known.spec.replicas);
    let topic = objects.topics.get(topic).cloned();
    if let Some(mut topic) = topic.filter(|topic| topic.status.replica_map.contains_key(partition)) {
        topic.status.replica_map.insert(*partition, known.spec.replicas.clone());
        objects.topics.put(vec![topic]);
    }
    Some(known)
}
