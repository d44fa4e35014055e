//! Topics: validation in the real server's order, creation, more partitions, deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluvio_controlplane_metadata::partition::{HomePartitionConfig, PartitionSpec, PartitionStatus};
use fluvio_controlplane_metadata::smartmodule::SmartModulePackageKey;
use fluvio_controlplane_metadata::topic::{
    AddMirror, AddPartition, MirrorConfig, PartitionMap, ReplicaSpec, TopicReplicaParam, TopicResolution,
    TopicSpec, TopicStatus, UpdateTopicAction,
};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_sc_schema::mirror::MirrorType;
use fluvio_sc_schema::objects::{CreateRequest, Metadata, ObjectApiUpdateRequest, UpdateRequest};
use fluvio_sc_schema::shared::validate_resource_name;
use fluvio_sc_schema::{Status, TryEncodableFrom};
use fluvio_types::{PartitionId, SpuId};

use super::{kept_or_not, not_stored, refused, unknown_kind};
use crate::assignment::assign;
use crate::cluster::{Cluster, Objects, Replica};
use crate::log::StorageError;
use crate::smart::start_deduplication;

/// More partitions than any test needs; a request for billions would only exhaust the memory.
const MAX_PARTITIONS: PartitionId = 10_000;

pub(super) async fn create(cluster: &Cluster, request: CreateRequest<TopicSpec>) -> Status {
    let (common, spec) = request.parts();
    let name = common.name;
    if let Some(deduplication) = spec.get_deduplication().filter(|_| !common.dry_run) {
        let valid = validate(&cluster.objects.lock(), &name, &spec);
        if let Err(status) = valid {
            return status;
        }
        // On the real server the partitions of such a topic never come up, and the client learns nothing but that.
        if let Err(error) = start_deduplication(cluster, deduplication).await {
            return refused(&name, ErrorCode::TopicNotProvisioned, error.to_string());
        }
    }
    let mut objects = cluster.objects.lock();
    match validate(&objects, &name, &spec) {
        Err(status) => status,
        Ok(()) if common.dry_run => Status::new_ok(name),
        Ok(()) => {
            let (partitions, is_mirror) =
                (spec.partitions() as usize, matches!(spec.replicas(), ReplicaSpec::Mirror(_)));
            let Ok(online) = cluster.put_topic_locked(&mut objects, name.clone(), spec) else {
                return not_stored(&name);
            };
            if online < partitions && !is_mirror {
                // The real server says so after it has waited for 90 s.
                let message = format!("only {online} out of {partitions} provisioned");
                return refused(&name, ErrorCode::TopicNotProvisioned, message);
            }
            Status::new_ok(name)
        }
    }
}

pub(super) fn update(cluster: &Cluster, request: &ObjectApiUpdateRequest) -> anyhow::Result<Status> {
    let Some(request): Option<UpdateRequest<TopicSpec>> = request.downcast()? else {
        return Ok(unknown_kind("update error"));
    };
    let action = request.action.clone();
    let name = request.key();
    Ok(match action {
        UpdateTopicAction::AddPartition(AddPartition { count }) => add_partitions(cluster, name, count),
        UpdateTopicAction::AddMirror(AddMirror { remote_cluster, .. }) => {
            add_mirror(cluster, name, remote_cluster)
        }
    })
}

/// Blocks.
pub(super) fn delete(cluster: &Cluster, name: String, force: bool) -> Status {
    let mut objects = cluster.objects.lock();
    let Some(topic) = objects.topics.get(&name) else {
        return refused(&name, ErrorCode::TopicNotFound, "not found");
    };
    if matches!(topic.spec.replicas(), ReplicaSpec::Mirror(MirrorConfig::Remote(_))) {
        let message = "cannot delete mirrored topic from remote";
        return refused(&name, ErrorCode::MirrorDeleteFromRemote, message);
    }
    if topic.spec.is_system() && !force {
        let code = ErrorCode::SystemSpecDeletionAttempt { kind: "topic".to_owned(), name: name.clone() };
        return Status::new(name, code, None);
    }
    let partitions: Vec<String> = topic
        .status
        .replica_map
        .keys()
        .map(|partition| ReplicaKey::new(name.as_str(), *partition).to_string())
        .collect();
    if cluster.forget_topic(&name).is_err() {
        return not_stored(&name);
    }
    objects.topics.remove([name.as_str()]);
    objects.partitions.remove(partitions.iter().map(String::as_str));
    cluster.remove_replicas(&name);
    cluster.discard_logs(&name);
    Status::new_ok(name)
}

fn validate(objects: &Objects, name: &str, spec: &TopicSpec) -> Result<(), Status> {
    if let Err(error) = validate_resource_name(name) {
        let message = format!("Invalid topic name: '{name}'. {error}");
        return Err(refused(name, ErrorCode::TopicInvalidName, message));
    }
    if objects.topics.get(name).is_some() {
        let message = format!("Topic '{name}' already exists");
        return Err(refused(name, ErrorCode::TopicAlreadyExists, message));
    }
    if let Some(error) = spec.validate_config() {
        return Err(refused(name, ErrorCode::TopicInvalidConfiguration, error));
    }
    if let Some(deduplication) = spec.get_deduplication() {
        check_deduplication(objects, deduplication.filter.transform.uses.as_str())?;
    }
    match spec.replicas() {
        ReplicaSpec::Computed(parameters) => validate_computed(parameters),
        ReplicaSpec::Assigned(maps) => maps
            .validate()
            .map_err(|error| error.to_string())
            .and_then(|()| validate_assigned(objects, maps.maps())),
        ReplicaSpec::Mirror(_) => Ok(()),
    }
    .map_err(|error| refused(name, ErrorCode::TopicError, error))
}

fn validate_computed(parameters: &TopicReplicaParam) -> Result<(), String> {
    ReplicaSpec::valid_partition(&parameters.partitions)
        .and_then(|()| ReplicaSpec::valid_replication_factor(&parameters.replication_factor))
        .map_err(|error| error.to_string())?;
    if parameters.partitions > MAX_PARTITIONS {
        return Err(too_many_partitions(parameters.partitions.into()));
    }
    Ok(())
}

fn validate_assigned(objects: &Objects, maps: &[PartitionMap]) -> Result<(), String> {
    for id in maps.iter().flat_map(|map| &map.replicas) {
        if !objects.spus.iter().any(|spu| spu.spec.id == *id) {
            return Err(format!("invalid spu id: {id}"));
        }
    }
    if maps.len() > MAX_PARTITIONS as usize {
        return Err(too_many_partitions(maps.len() as u64));
    }
    Ok(())
}

fn too_many_partitions(partitions: u64) -> String {
    format!("{partitions} partitions: the development server has at most {MAX_PARTITIONS} a topic")
}

/// Deduplication needs a SmartModule that is loaded under just this name.
fn check_deduplication(objects: &Objects, module: &str) -> Result<(), Status> {
    let key = SmartModulePackageKey::from_qualified_name(module).map_err(|error| {
        let message = error.to_string();
        refused(module, ErrorCode::DeduplicationSmartModuleNameInvalid(message.clone()), message)
    })?;
    if objects.smart_modules.get(&key.store_id()).is_some() {
        return Ok(());
    }
    let code = ErrorCode::DeduplicationSmartModuleNotLoaded;
    let message = format!("{code}\nHint: try `fluvio hub sm download {module}` and repeat this operation");
    Err(refused(module, code, message))
}

fn add_partitions(cluster: &Cluster, name: String, count: PartitionId) -> Status {
    let mut objects = cluster.objects.lock();
    let Some(topic) = objects.topics.get(&name) else {
        return refused(&name, ErrorCode::TopicNotFound, "not found");
    };
    if topic.spec.is_system() {
        return system_topic(name);
    }
    let mut spec = topic.spec.clone();
    let ReplicaSpec::Computed(parameters) = spec.replicas() else {
        return refused(&name, ErrorCode::TopicInvalidReplicaType, "invalid replica type");
    };
    let mut parameters = parameters.clone();
    let partitions = u64::from(parameters.partitions) + u64::from(count);
    if partitions > u64::from(MAX_PARTITIONS) {
        return refused(&name, ErrorCode::TopicError, too_many_partitions(partitions));
    }
    parameters.partitions = partitions as PartitionId;
    spec.set_replicas(ReplicaSpec::Computed(parameters));
    kept_or_not(cluster.put_topic_locked(&mut objects, name.clone(), spec).map(|_| ()), name)
}

fn system_topic(name: String) -> Status {
    let code = ErrorCode::SystemSpecUpdatingAttempt { kind: "topic".to_owned(), name: name.clone() };
    Status::new(name, code, None)
}

/// Gives a topic at home one more partition, for the records of one more remote cluster.
fn add_mirror(cluster: &Cluster, name: String, remote_cluster: String) -> Status {
    let mut objects = cluster.objects.lock();
    let Some(topic) = objects.topics.get(&name) else {
        return refused(&name, ErrorCode::TopicNotFound, "not found");
    };
    match objects.mirrors.get(&remote_cluster).map(|mirror| &mirror.spec.mirror_type) {
        None => return refused(&name, ErrorCode::MirrorNotFound, "not found"),
        Some(MirrorType::Remote(_)) => {}
        Some(MirrorType::Home(_)) => {
            let message = "remote cluster is not a remote mirror";
            return refused(&name, ErrorCode::MirrorInvalidType, message);
        }
    }
    let mut spec = topic.spec.clone();
    let ReplicaSpec::Mirror(mirror) = spec.replicas() else {
        return refused(&name, ErrorCode::TopicError, "invalid replica type");
    };
    for PartitionMap { id, mirror, .. } in mirror.as_partition_maps().maps() {
        let home = mirror.as_ref().and_then(|mirror| mirror.home());
        if home.is_some_and(|home| home.remote_cluster == remote_cluster) {
            let message = format!("remote \"{remote_cluster}\" is already assigned to partition: \"{id}\"");
            return refused(&name, ErrorCode::MirrorAlreadyExists, message);
        }
    }
    if spec.is_system() {
        return system_topic(name);
    }
    let MirrorConfig::Home(home) = mirror else {
        return refused(&name, ErrorCode::TopicInvalidReplicaType, "invalid replica type");
    };
    let (mut home, source) = (home.clone(), home.source);
    home.add_partition(HomePartitionConfig {
        remote_cluster,
        remote_replica: ReplicaKey::new(name.as_str(), 0_u32).to_string(),
        source,
    });
    spec.set_replicas(ReplicaSpec::Mirror(MirrorConfig::Home(home)));
    kept_or_not(cluster.put_topic_locked(&mut objects, name.clone(), spec).map(|_| ()), name)
}

impl Cluster {
    /// Creates a topic that needs no validation.
    pub(crate) fn put_topic(&self, name: String, spec: TopicSpec) -> Result<(), StorageError> {
        self.put_topic_locked(&mut self.objects.lock(), name, spec).map(|_| ())
    }

    /// Gives their partitions to the topics that could not get them for want of SPUs.
    pub(crate) fn provision_waiting_topics(&self, objects: &mut Objects) {
        let waiting = objects.topics.iter().filter(|topic| topic.status.resolution.no_resource());
        for topic in waiting.cloned().collect::<Vec<_>>() {
            // One that cannot be stored goes on waiting; the server's log says why.
            let _ = self.put_topic_locked(objects, topic.name, topic.spec);
        }
    }

    /// Stores a topic and makes the partitions that it lacks: logs, then partitions, then the topic, so that whoever sees
    /// one sees what belongs to it. Returns how many of its partitions are online. Nothing has changed after an error.
    fn put_topic_locked(
        &self,
        objects: &mut Objects,
        name: String,
        spec: TopicSpec,
    ) -> Result<usize, StorageError> {
        let known = objects.topics.get(&name).map(|topic| topic.status.clone()).unwrap_or_default();
        let Some(replica_map) = assign(objects, &spec, &known.replica_map) else {
            let resolution = TopicResolution::InsufficientResources;
            let status = TopicStatus { resolution, reason: String::new(), ..known };
            objects.topics.put_durably(vec![Metadata { name, spec, status }])?;
            return Ok(0);
        };
        let mirror_map: BTreeMap<_, _> = match spec.get_partition_mirror_map() {
            Some(maps) => maps.maps().iter().filter_map(|map| Some((map.id, map.mirror.clone()?))).collect(),
            None => BTreeMap::new(),
        };
        let resolution = TopicResolution::Provisioned;
        let status = TopicStatus { resolution, replica_map, mirror_map, ..TopicStatus::default() };
        let topic = Metadata { name, spec, status };
        let replicas = self.new_replicas(&topic).map_err(|error| {
            tracing::error!(topic = topic.name, "cannot open the logs of the topic: {error:#}");
            StorageError
        })?;
        objects.topics.record(std::slice::from_ref(&topic))?;
        Ok(self.serve_topic(objects, topic, replicas))
    }

    /// Serves a topic with those of its replicas that are new, and tells the watchers. Returns how many of its partitions
    /// are online.
    pub(crate) fn serve_topic(
        &self,
        objects: &mut Objects,
        topic: Metadata<TopicSpec>,
        replicas: Vec<Arc<Replica>>,
    ) -> usize {
        let Metadata { name, spec, status } = &topic;
        self.add_replicas(name, replicas);
        let online = online_spus(objects);
        let mut partitions = Vec::new();
        let mut online_partitions = 0;
        for (partition, replicas) in &status.replica_map {
            let key = ReplicaKey::new(name.as_str(), *partition);
            if let Some(known) = objects.partitions.get(&key.to_string()) {
                online_partitions += usize::from(known.status.is_online());
                continue;
            }
            let replica = self.replica(name, *partition);
            let replica = replica.filter(|_| replicas.first().is_some_and(|leader| online.contains(leader)));
            online_partitions += usize::from(replica.is_some());
            partitions.push(Metadata {
                name: key.to_string(),
                spec: PartitionSpec::from_replicas(replicas.clone(), spec, status.mirror_map.get(partition)),
                status: replica.map_or_else(PartitionStatus::default, |replica| replica.status(replicas)),
            });
        }
        objects.partitions.put(partitions);
        objects.topics.put(vec![topic]);
        online_partitions
    }
}

fn online_spus(objects: &Objects) -> BTreeSet<SpuId> {
    objects.spus.iter().filter(|spu| spu.status.is_online()).map(|spu| spu.spec.id).collect()
}
