//! Which SPU leads which partition, and what happens when an SPU goes away or returns.
//!
//! Metadata and [`crate::cluster::Replica::leader`] change together under the lock of the objects: who is told about a new
//! leader finds it serving. All replicas share one log, so any of them can take over without loss.

use std::collections::BTreeMap;

use fluvio_controlplane_metadata::partition::{PartitionResolution, PartitionSpec};
use fluvio_controlplane_metadata::spu::{SpuStatus, SpuStatusResolution};
use fluvio_controlplane_metadata::topic::TopicSpec;
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
        let mut elections = Elections::default();
        elections.lead(&objects, &replica, spu);
        elections.publish(&mut objects);
        Ok(())
    }

    /// Notes that an SPU has gone or is back, and finds leaders among the replicas that are left. Topics that have waited
    /// for more SPUs get their partitions.
    pub(crate) fn set_spu_online(&self, spu: SpuId, online: bool) -> Result<(), LeaderError> {
        let mut objects = self.objects.lock();
        let known = objects.spus.iter().find(|known| known.spec.id == spu);
        let known = known.ok_or(LeaderError::UnknownSpu(spu))?.clone();
        let resolution = if online { SpuStatusResolution::Online } else { SpuStatusResolution::Offline };
        objects.spus.put(vec![Metadata { status: SpuStatus { resolution }, ..known }]);
        let mut elections = Elections::default();
        for replica in self.replicas() {
            let leader = *replica.leader.borrow();
            let led = is_online(&objects, leader);
            if led && leader != spu {
                continue;
            }
            let Some(partition) = objects.partitions.get(&replica.key.to_string()) else {
                continue;
            };
            let mut candidates = partition.spec.replicas.iter().copied();
            match candidates.find(|id| if led { *id == leader } else { is_online(&objects, *id) }) {
                Some(successor) => elections.lead(&objects, &replica, successor),
                None => {
                    let mut partition = partition.clone();
                    partition.status.resolution = PartitionResolution::LeaderOffline;
                    elections.partitions.push(partition);
                }
            }
        }
        elections.publish(&mut objects);
        if online {
            self.provision_waiting_topics(&mut objects);
        }
        Ok(())
    }
}

fn is_online(objects: &Objects, spu: SpuId) -> bool {
    objects.spus.iter().any(|known| known.spec.id == spu && known.status.is_online())
}

/// New leaders that are about to be published, all in one update per kind: an SPU may lead thousands of partitions.
#[derive(Default)]
struct Elections {
    partitions: Vec<Metadata<PartitionSpec>>,
    /// Their topics, whose maps of replicas have changed.
    topics: BTreeMap<String, Metadata<TopicSpec>>,
}

impl Elections {
    /// Makes `spu` the leader, which serves from then on.
    fn lead(&mut self, objects: &Objects, replica: &Replica, spu: SpuId) {
        let ReplicaKey { topic, partition } = &replica.key;
        let Some(mut known) = objects.partitions.get(&replica.key.to_string()).cloned() else {
            return;
        };
        let former = replica.leader.send_replace(spu);
        let replicas = &mut known.spec.replicas;
        if !replicas.contains(&spu) {
            // It takes the place of the former leader.
            replicas.iter_mut().filter(|id| **id == former).for_each(|id| *id = spu);
            self.map(objects, topic, *partition, replicas);
        }
        known.spec.leader = spu;
        known.status = replica.status(&known.spec.replicas);
        self.partitions.push(known);
    }

    /// Notes where a partition is now.
    fn map(&mut self, objects: &Objects, topic: &str, partition: PartitionId, replicas: &[SpuId]) {
        if !self.topics.contains_key(topic) {
            self.topics.extend(objects.topics.get(topic).map(|known| (topic.to_owned(), known.clone())));
        }
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.status.replica_map.insert(partition, replicas.to_vec());
        }
    }

    fn publish(self, objects: &mut Objects) {
        objects.partitions.put(self.partitions);
        objects.topics.put(self.topics.into_values().collect());
    }
}
