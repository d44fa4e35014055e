//! Administration of topics: create, delete, list.
//!
//! Cancelling a create or delete leaves its outcome unknown: the request may have reached the server.

use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::topic::{
    CleanupPolicy, CompressionAlgorithm, PartitionMap, PartitionMaps, SegmentBasedPolicy, TopicSpec,
    TopicStorageConfig,
};
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, DeleteRequest, ListRequest, ListResponse, Metadata,
    ObjectApiCreateRequest, ObjectApiDeleteRequest, ObjectApiListRequest,
};
use fluvio_sc_schema::{AdminSpec, Status, TryEncodableFrom};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, check_string, check_topic_name};
use crate::config::parse_json;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Pool;

/// Administration of one cluster. Cheap to clone, usable from any task.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(crate) cluster: Arc<Cluster>,
}

/// A topic to create. As JSON: `{"name": "orders", "partitions": 3}`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    /// Up to 63 characters of `a-z`, `0-9` and `-`, neither first nor last a dash.
    pub name: String,
    /// Partitions that the cluster assigns to SPUs.
    #[serde(default = "one")]
    pub partitions: u32,
    /// Replicas of each partition.
    #[serde(default = "one")]
    pub replication: u32,
    /// Whether racks are ignored in the assignment.
    #[serde(default)]
    pub ignore_rack: bool,
    /// Age at which segments are removed, in milliseconds; whole seconds, at least 10 s.
    pub retention_ms: Option<u64>,
    /// Size of a segment, at least 1024 bytes.
    pub segment_size_bytes: Option<u32>,
    /// Size of a partition, at least 2048 bytes and one segment.
    pub max_partition_size_bytes: Option<u64>,
    /// What producers may send: `any` (the default), `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: Option<String>,
    /// SPU ids per partition, instead of `partitions` and `replication`; the first of each is its leader.
    pub assignment: Option<Vec<Vec<i32>>>,
    /// Only check, create nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// How long the server may take, in milliseconds. The answer is awaited for that and the request time-out.
    pub timeout_ms: Option<u32>,
}

fn one() -> u32 {
    1
}

impl CreateTopic {
    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self> {
        let topic: Self = parse_json("topic", text)?;
        topic.spec()?;
        Ok(topic)
    }

    fn spec(&self) -> Result<TopicSpec> {
        check_topic_name(&self.name)?;
        let mut spec = match &self.assignment {
            Some(assignment) => TopicSpec::new_assigned(PartitionMaps::from(
                assignment
                    .iter()
                    .enumerate()
                    .map(|(id, replicas)| PartitionMap {
                        id: id as u32,
                        replicas: replicas.clone(),
                        ..Default::default()
                    })
                    .collect::<Vec<_>>(),
            )),
            None => TopicSpec::new_computed(self.partitions, self.replication, Some(self.ignore_rack)),
        };
        if let Some(retention) = self.retention_ms {
            let seconds = u32::try_from(retention / 1000).ok().filter(|_| retention.is_multiple_of(1000));
            let Some(time_in_seconds) = seconds else {
                let most = u32::MAX;
                return Err(Error::invalid(format!(
                    "retention_ms is {retention}: the platform keeps whole seconds, {most} at most"
                )));
            };
            spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds }));
        }
        if self.segment_size_bytes.is_some() || self.max_partition_size_bytes.is_some() {
            spec.set_storage(TopicStorageConfig {
                segment_size: self.segment_size_bytes,
                max_partition_size: self.max_partition_size_bytes,
            });
        }
        if let Some(compression) = &self.compression {
            let known = compression.parse::<CompressionAlgorithm>().map_err(|_| {
                Error::invalid(format!(
                    "compression is {compression:?}: any, none, gzip, snappy, lz4 and zstd are known"
                ))
            })?;
            spec.set_compression_type(known);
        }
        Ok(spec)
    }
}

/// What to list. As JSON: `{"filter": ["ord"], "system": false}`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListTopics {
    /// Substrings of names; all topics if empty.
    pub filter: Vec<String>,
    /// The platform's own topics instead of the users'.
    pub system: bool,
}

impl ListTopics {
    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Self = parse_json("list options", text)?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        self.filter.iter().try_for_each(|filter| check_string("a string in filter", filter))
    }
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Partitions asked for.
    pub partitions: u32,
    /// Replicas of each, where the cluster assigns them.
    pub replication: Option<u32>,
    /// Which compression producers may use.
    pub compression: String,
    /// Age at which segments are removed, in milliseconds; `None` is the cluster's default.
    pub retention_ms: Option<u64>,
    /// Size of a segment in bytes; `None` is the cluster's default.
    pub segment_size_bytes: Option<u32>,
    /// Size of a partition in bytes; `None` is the cluster's default.
    pub max_partition_size_bytes: Option<u64>,
    /// Whether it is one of the platform's own.
    pub system: bool,
    /// `provisioned` once it can be used.
    pub status: String,
    /// Why the status is what it is, where the cluster says so.
    pub reason: String,
}

impl Admin {
    /// Creates a topic and waits until the cluster has set it up. The outcome of a cancelled create is unknown.
    pub async fn create_topic(&self, topic: CreateTopic) -> Result<()> {
        let spec = topic.spec()?;
        // The server answers within its own limit, and its answer needs its time too.
        let patience = topic
            .timeout_ms
            .map(|limit| Duration::from_millis(u64::from(limit)) + self.cluster.settings.request_timeout);
        let status = self
            .cluster
            .calls
            .call(false, patience, |version| {
                let common = CommonCreateRequest {
                    name: topic.name.clone(),
                    dry_run: topic.dry_run,
                    timeout: topic.timeout_ms,
                };
                ObjectApiCreateRequest::try_encode_from(CreateRequest::new(common, spec.clone()), version)
                    .map_err(|error| {
                        Error::invalid(format!("topic {:?} cannot be encoded: {error}", topic.name))
                    })
            })
            .await
            .map_err(|error| error.with_topic(&topic.name))?;
        outcome(&status, &topic.name)
    }

    /// Deletes a topic and its records. The outcome of a cancelled delete is unknown.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        check_topic_name(name)?;
        let asked = self.cluster.directory.revision();
        let status = self
            .cluster
            .calls
            .call(false, None, |version| {
                ObjectApiDeleteRequest::try_encode_from(
                    DeleteRequest::<TopicSpec>::new(name.to_owned()),
                    version,
                )
                .map_err(|error| Error::invalid(format!("topic {name:?} cannot be encoded: {error}")))
            })
            .await
            .map_err(|error| error.with_topic(name))?;
        outcome(&status, name)?;
        // This client knows it before the watch tells.
        self.cluster.directory.forget(asked, name);
        Ok(())
    }

    /// Lists topics, in the order of their names.
    pub async fn list_topics(&self, options: ListTopics) -> Result<Vec<TopicInfo>> {
        options.check()?;
        let topics = list::<TopicSpec>(&self.cluster.calls, &options.filter, options.system).await?;
        let mut infos: Vec<TopicInfo> = topics
            .into_iter()
            .map(|topic| {
                let storage = topic.spec.get_storage();
                TopicInfo {
                    partitions: topic.spec.partitions(),
                    replication: topic.spec.replication_factor(),
                    compression: topic.spec.get_compression_type().to_string(),
                    retention_ms: topic
                        .spec
                        .get_clean_policy()
                        .map(|policy| u64::from(policy.retention_secs()) * 1000),
                    segment_size_bytes: storage.and_then(|storage| storage.segment_size),
                    max_partition_size_bytes: storage.and_then(|storage| storage.max_partition_size),
                    system: topic.spec.is_system(),
                    status: topic.status.resolution().resolution_label().to_owned(),
                    reason: topic.status.reason_str().clone(),
                    name: topic.name,
                }
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }
}

/// Lists objects of one kind; `filters` are substrings of names.
pub(crate) async fn list<S>(pool: &Pool, filters: &[String], system: bool) -> Result<Vec<Metadata<S>>>
where
    S: AdminSpec,
    S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
{
    let response = pool
        .call(true, None, |version| {
            let names: Vec<_> = filters.iter().cloned().map(Into::into).collect();
            ObjectApiListRequest::try_encode_from(ListRequest::<S>::new(names, true).system(system), version)
                .map_err(|error| Error::invalid(format!("the list request cannot be encoded: {error}")))
        })
        .await?;
    let objects: Option<ListResponse<S>> = response
        .downcast()
        .map_err(|error| Error::new(ErrorKind::Protocol, format!("a list cannot be decoded: {error}")))?;
    objects
        .map(ListResponse::inner)
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "a list holds objects of another kind than asked for"))
}

fn outcome(status: &Status, name: &str) -> Result<()> {
    if status.is_error() {
        let what = format!("topic {name:?}");
        let error = Error::from_code(&status.error_code, &what, status.error_message.as_deref());
        Err(error.with_topic(name))
    } else {
        Ok(())
    }
}
