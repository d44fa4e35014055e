//! What is known of the cluster: topics, partitions and their leaders, SPUs and their addresses.
//!
//! The watch (see `watch.rs`) replaces and updates it; a topic that is missing is looked up with a list request before
//! anyone is told that it does not exist, so a topic can be used as soon as its creation was acknowledged.

use std::collections::{BTreeMap, HashMap};

use fluvio_controlplane_metadata::message::MsgType;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::{Metadata as Object, MetadataUpdate};
use parking_lot::RwLock;
use tokio::sync::watch;

/// An SPU to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spu {
    /// Its id.
    pub(crate) id: i32,
    /// `host:port` of its public endpoint.
    pub(crate) address: String,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<String, u32>,
    /// topic -> partition -> id of the leader
    leaders: HashMap<String, BTreeMap<u32, i32>>,
    spus: HashMap<i32, Spu>,
}

/// The shared view of the cluster.
#[derive(Debug)]
pub(crate) struct ClusterView {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

impl Default for ClusterView {
    fn default() -> Self {
        ClusterView { state: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl ClusterView {
    /// Partitions of a topic, if it is known and all of them have a leader.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<u32> {
        let state = self.state.read();
        let count = *state.topics.get(topic)?;
        let led = state.leaders.get(topic).map_or(0, BTreeMap::len);
        (count > 0 && led >= count as usize).then_some(count)
    }

    /// Where the leader of a partition can be reached; `None` while that is not known.
    pub(crate) fn leader(&self, topic: &str, partition: u32) -> Option<Spu> {
        let state = self.state.read();
        let leader = state.leaders.get(topic)?.get(&partition)?;
        state.spus.get(leader).cloned()
    }

    /// Receives a new number after every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes in what a list request told about one topic, unless the watch was faster.
    pub(crate) fn merge_topic(
        &self,
        topic: &Object<TopicSpec>,
        partitions: &[Object<PartitionSpec>],
        spus: &[Object<SpuSpec>],
    ) {
        {
            let mut state = self.state.write();
            state.topics.entry(topic.name.clone()).or_insert_with(|| partition_total(topic));
            for partition in partitions {
                if let Some((name, index)) = replica_of(&partition.name)
                    && name == topic.name
                {
                    let leaders = state.leaders.entry(name.to_owned()).or_default();
                    leaders.entry(index).or_insert(partition.spec.leader);
                }
            }
            for spu in spus {
                state.spus.entry(spu.spec.id).or_insert_with(|| spu_of(&spu.spec));
            }
        }
        self.notify();
    }

    /// Forgets a topic that the server no longer knows.
    pub(crate) fn forget_topic(&self, topic: &str) {
        {
            let mut state = self.state.write();
            state.topics.remove(topic);
            state.leaders.remove(topic);
        }
        self.notify();
    }

    pub(crate) fn update_topics(&self, update: MetadataUpdate<TopicSpec>, first: bool) {
        self.update(update, first, |state, change| match change {
            Change::Reset => state.topics.clear(),
            Change::Set(topic) => {
                state.topics.insert(topic.name.clone(), partition_total(&topic));
            }
            Change::Delete(topic) => {
                state.topics.remove(&topic.name);
            }
        });
    }

    pub(crate) fn update_partitions(&self, update: MetadataUpdate<PartitionSpec>, first: bool) {
        self.update(update, first, |state, change| match change {
            Change::Reset => state.leaders.clear(),
            Change::Set(partition) => {
                if let Some((topic, index)) = replica_of(&partition.name) {
                    let leaders = state.leaders.entry(topic.to_owned()).or_default();
                    leaders.insert(index, partition.spec.leader);
                }
            }
            Change::Delete(partition) => {
                if let Some((topic, index)) = replica_of(&partition.name)
                    && let Some(leaders) = state.leaders.get_mut(topic)
                {
                    leaders.remove(&index);
                }
            }
        });
    }

    pub(crate) fn update_spus(&self, update: MetadataUpdate<SpuSpec>, first: bool) {
        self.update(update, first, |state, change| match change {
            Change::Reset => state.spus.clear(),
            Change::Set(spu) => {
                state.spus.insert(spu.spec.id, spu_of(&spu.spec));
            }
            Change::Delete(spu) => {
                state.spus.remove(&spu.spec.id);
            }
        });
    }

    fn update<S>(&self, update: MetadataUpdate<S>, first: bool, apply: impl Fn(&mut State, Change<S>))
    where
        S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
        S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
    {
        {
            let mut state = self.state.write();
            // The first answer of a watch holds everything, later ones hold changes, or everything again.
            if first || !update.all.is_empty() {
                apply(&mut state, Change::Reset);
            }
            for object in update.all {
                apply(&mut state, Change::Set(object));
            }
            for change in update.changes {
                let change = match change.header {
                    MsgType::DELETE => Change::Delete(change.content),
                    _ => Change::Set(change.content),
                };
                apply(&mut state, change);
            }
        }
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }
}

enum Change<S>
where
    S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
    S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder,
{
    Reset,
    Set(Object<S>),
    Delete(Object<S>),
}

fn partition_total(topic: &Object<TopicSpec>) -> u32 {
    // The spec of a computed topic says what was asked for, the status what is there.
    let provisioned = u32::try_from(topic.status.replica_map_cnt()).unwrap_or(0);
    topic.spec.partitions().max(provisioned)
}

fn spu_of(spec: &SpuSpec) -> Spu {
    Spu { id: spec.id, address: spec.public_endpoint.addr() }
}

/// Partition keys are `{topic}-{index}`.
fn replica_of(key: &str) -> Option<(&str, u32)> {
    let (topic, index) = key.rsplit_once('-')?;
    Some((topic, index.parse().ok()?))
}
