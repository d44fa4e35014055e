//! Which SPUs hold the partitions of a topic.
//!
//! As the real scheduler does it: a partition is led by the online SPU that leads the fewest, and followed by those that
//! follow the fewest, the lowest id first. A partition that has its SPUs keeps them.

use std::collections::HashMap;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::topic::{ReplicaSpec, TopicSpec};
use fluvio_sc_schema::objects::Metadata;
use fluvio_types::{ReplicaMap, SpuId};

use crate::cluster::Objects;

/// The SPUs of each partition, the leader first; `None` if there are not enough of them online.
pub(crate) fn assign(objects: &Objects, spec: &TopicSpec, known: &ReplicaMap) -> Option<ReplicaMap> {
    let (partitions, factor) = match spec.replicas() {
        ReplicaSpec::Computed(parameters) => (parameters.partitions, parameters.replication_factor as usize),
        ReplicaSpec::Mirror(mirror) => (mirror.partition_count(), 1),
        ReplicaSpec::Assigned(maps) => {
            return Some(maps.maps().iter().map(|map| (map.id, map.replicas.clone())).collect());
        }
    };
    let online = objects.spus.iter().filter(|spu| spu.status.is_online());
    let mut online: Vec<SpuId> = online.map(|spu| spu.spec.id).collect();
    online.sort_unstable();
    let mut load = Load::of(objects.partitions.iter());
    let mut map = ReplicaMap::new();
    for partition in 0..partitions {
        let replicas = match known.get(&partition) {
            Some(replicas) if replicas.len() == factor => replicas.clone(),
            _ => load.choose(&online, factor)?,
        };
        map.insert(partition, replicas);
    }
    (!map.is_empty()).then_some(map)
}

/// How many partitions each SPU leads and follows.
#[derive(Default)]
struct Load {
    led: HashMap<SpuId, usize>,
    followed: HashMap<SpuId, usize>,
}

impl Load {
    fn of<'a>(partitions: impl Iterator<Item = &'a Metadata<PartitionSpec>>) -> Self {
        let mut load = Load::default();
        for partition in partitions {
            let leader = partition.spec.leader;
            *load.led.entry(leader).or_default() += 1;
            for follower in partition.spec.replicas.iter().filter(|spu| **spu != leader) {
                *load.followed.entry(*follower).or_default() += 1;
            }
        }
        load
    }

    fn choose(&mut self, online: &[SpuId], factor: usize) -> Option<Vec<SpuId>> {
        // Not with room for `factor` SPUs: that is whatever a client has asked for.
        let mut chosen = Vec::new();
        for position in 0..factor {
            let counts = if position == 0 { &mut self.led } else { &mut self.followed };
            let candidates = online.iter().copied().filter(|spu| !chosen.contains(spu));
            let spu = candidates.min_by_key(|spu| counts.get(spu).copied().unwrap_or_default())?;
            *counts.entry(spu).or_default() += 1;
            chosen.push(spu);
        }
        Some(chosen)
    }
}
