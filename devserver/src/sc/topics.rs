//! Topics: validation in the real server's order, creation, more partitions, deletion.

use std::collections::BTreeMap;

use fluvio_controlplane_metadata::partition::{PartitionSpec, PartitionStatus};
use fluvio_controlplane_metadata::smartmodule::SmartModulePackageKey;
use fluvio_controlplane_metadata::topic::{
    AddPartition, MirrorConfig, PartitionMap, ReplicaSpec, TopicReplicaParam, TopicResolution, TopicSpec,
    TopicStatus, UpdateTopicAction,
};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_sc_schema::objects::{CreateRequest, Metadata, ObjectApiUpdateRequest, UpdateRequest};
use fluvio_sc_schema::shared::validate_resource_name;
use fluvio_sc_schema::{Status, TryEncodableFrom};
use fluvio_types::PartitionId;

use super::refused;
use crate::cluster::{Cluster, FIRST_SPU, Objects};

/// More partitions than any test needs; a request for billions would only exhaust the memory.
const MAX_PARTITIONS: PartitionId = 10_000;

pub(super) fn create(cluster: &Cluster, request: CreateRequest<TopicSpec>) -> Status {
    let (common, spec) = request.parts();
    let name = common.name;
    let mut objects = cluster.objects.lock();
    match validate(&objects, &name, &spec) {
        Err(status) => status,
        Ok(()) if common.dry_run => Status::new_ok(name),
        Ok(()) => cluster.put_topic_locked(&mut objects, name, spec),
    }
}

pub(super) fn update(cluster: &Cluster, request: &ObjectApiUpdateRequest) -> anyhow::Result<Status> {
    let Some(request): Option<UpdateRequest<TopicSpec>> = request.downcast()? else {
        anyhow::bail!("an update of objects that cannot be updated");
    };
    let action = request.action.clone();
    let name = request.key();
    Ok(match action {
        UpdateTopicAction::AddPartition(AddPartition { count }) => add_partitions(cluster, name, count),
        UpdateTopicAction::AddMirror(_) => {
            refused(&name, ErrorCode::MirrorNotFound, "mirrors have no topics here")
        }
    })
}

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
    objects.topics.remove([name.as_str()]);
    objects.partitions.remove(partitions.iter().map(String::as_str));
    cluster.remove_replicas(&name);
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
        return Err(no_deduplication(deduplication.filter.transform.uses.as_str()));
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

/// Deduplication needs a SmartModule that is loaded, and this server loads none.
fn no_deduplication(module: &str) -> Status {
    if let Err(error) = SmartModulePackageKey::from_qualified_name(module) {
        let message = error.to_string();
        let code = ErrorCode::DeduplicationSmartModuleNameInvalid(message.clone());
        return refused(module, code, message);
    }
    let code = ErrorCode::DeduplicationSmartModuleNotLoaded;
    let message = format!("{code}\nHint: try `fluvio hub sm download {module}` and repeat this operation");
    refused(module, code, message)
}

fn add_partitions(cluster: &Cluster, name: String, count: PartitionId) -> Status {
    let mut objects = cluster.objects.lock();
    let Some(topic) = objects.topics.get(&name) else {
        return refused(&name, ErrorCode::TopicNotFound, "not found");
    };
    if topic.spec.is_system() {
        let code = ErrorCode::SystemSpecUpdatingAttempt { kind: "topic".to_owned(), name: name.clone() };
        return Status::new(name, code, None);
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
    cluster.put_topic_locked(&mut objects, name, spec)
}

impl Cluster {
    /// Creates a topic that needs no validation.
    pub(crate) fn put_topic(&self, name: String, spec: TopicSpec) -> Status {
        let mut objects = self.objects.lock();
        self.put_topic_locked(&mut objects, name, spec)
    }

    /// Stores a topic and makes the partitions that it lacks: logs, then partitions, then the topic, so that whoever sees
    /// one sees what belongs to it.
    fn put_topic_locked(&self, objects: &mut Objects, name: String, spec: TopicSpec) -> Status {
        let Some(replica_map) = assign(objects, &name, &spec) else {
            // The real server would wait for SPUs for 90 s; none will ever come here.
            let message = format!("only 0 out of {} provisioned", spec.partitions());
            let status = TopicStatus::new(TopicResolution::InsufficientResources, Vec::new(), "");
            objects.topics.put(vec![Metadata { name: name.clone(), spec, status }]);
            return refused(&name, ErrorCode::TopicNotProvisioned, message);
        };
        let leaders = replica_map.values().map(|replicas| replicas.first().copied().unwrap_or(FIRST_SPU));
        self.add_replicas(&name, &spec, leaders);
        let mut partitions = Vec::new();
        for (partition, replicas) in &replica_map {
            let key = ReplicaKey::new(name.as_str(), *partition);
            let status = match self.replica(&name, *partition) {
                Some(replica) => replica.status(replicas),
                None => PartitionStatus::default(),
            };
            if objects.partitions.get(&key.to_string()).is_none() {
                partitions.push(Metadata {
                    name: key.to_string(),
                    spec: PartitionSpec::from_replicas(replicas.clone(), &spec, None),
                    status,
                });
            }
        }
        objects.partitions.put(partitions);
        let status =
            TopicStatus { resolution: TopicResolution::Provisioned, replica_map, ..TopicStatus::default() };
        objects.topics.put(vec![Metadata { name: name.clone(), spec, status }]);
        Status::new_ok(name)
    }
}

/// Which SPUs hold each partition; `None` if there are not enough. Partitions that exist stay where they are.
fn assign(objects: &Objects, name: &str, spec: &TopicSpec) -> Option<BTreeMap<PartitionId, Vec<i32>>> {
    let known = objects.topics.get(name);
    match spec.replicas() {
        ReplicaSpec::Computed(parameters) => {
            let online: Vec<_> =
                objects.spus.iter().filter(|spu| spu.status.is_online()).map(|spu| spu.spec.id).collect();
            let replicas = parameters.replication_factor as usize;
            if online.is_empty() || online.len() < replicas {
                return None;
            }
            // Leaders go round the SPUs, and each one's followers are those behind it.
            let on = |partition| {
                let first = partition as usize;
                (0..replicas.max(1)).map(|next| online[(first + next) % online.len()]).collect()
            };
            let known = known.into_iter().flat_map(|topic| topic.status.replica_map.clone());
            let mut map: BTreeMap<_, _> = known.collect();
            for partition in 0..parameters.partitions {
                map.entry(partition).or_insert_with(|| on(partition));
            }
            Some(map)
        }
        ReplicaSpec::Assigned(maps) => {
            Some(maps.maps().iter().map(|map| (map.id, map.replicas.clone())).collect())
        }
        ReplicaSpec::Mirror(_) => Some(BTreeMap::new()),
    }
}
