//! What is known of the cluster: topics, partitions and their leaders, SPUs and their addresses.
//!
//! The watch (see `watch.rs`) replaces and updates it; a topic that is missing is looked up with a list request before
//! anyone is told that it does not exist, so a topic can be used as soon as its creation was acknowledged. Whatever was
//! learnt last counts: an answer to a list request replaces what was known before the request was made, and gives way to
//! what the watch has told since.

use std::collections::hash_map::Entry;
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

/// Something known, and the revision of the view with which it came.
#[derive(Debug)]
struct Known<T> {
    value: T,
    since: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the changes.
    revision: u64,
    /// topic -> number of partitions
    topics: HashMap<String, Known<u32>>,
    /// topic -> partition -> id of the leader
    leaders: HashMap<String, BTreeMap<u32, Known<i32>>>,
    spus: HashMap<i32, Known<Spu>>,
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
        let count = state.topics.get(topic)?.value;
        let led = state.leaders.get(topic).map_or(0, BTreeMap::len);
        (count > 0 && led >= count as usize).then_some(count)
    }

    /// Where the leader of a partition can be reached; `None` while that is not known.
    pub(crate) fn leader(&self, topic: &str, partition: u32) -> Option<Spu> {
        let state = self.state.read();
        let leader = state.leaders.get(topic)?.get(&partition)?.value;
        state.spus.get(&leader).map(|spu| spu.value.clone())
    }

    /// Where an SPU can be reached.
    #[cfg(test)]
    pub(crate) fn spu(&self, id: i32) -> Option<Spu> {
        self.state.read().spus.get(&id).map(|spu| spu.value.clone())
    }

    /// The number of the last change, to be taken before a list request is made.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// Receives a new number after every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes in what list requests told about one topic; they were made at the revision `asked`.
    pub(crate) fn merge_topic(
        &self,
        asked: u64,
        topic: &Object<TopicSpec>,
        partitions: &[Object<PartitionSpec>],
        spus: &[Object<SpuSpec>],
    ) {
        {
            let mut state = self.state.write();
            let since = state.begin();
            let total = Known { value: partition_total(topic), since };
            learn(state.topics.entry(topic.name.clone()), total, asked);
            for partition in partitions {
                if let Some((name, index)) = replica_of(&partition.name)
                    && name == topic.name
                {
                    let leader = Known { value: partition.spec.leader, since };
                    let leaders = state.leaders.entry(name.to_owned()).or_default();
                    if leaders.get(&index).is_none_or(|known| known.since <= asked) {
                        leaders.insert(index, leader);
                    }
                }
            }
            for spu in spus {
                learn(state.spus.entry(spu.spec.id), Known { value: spu_of(&spu.spec), since }, asked);
            }
        }
        self.notify();
    }

    /// Forgets a topic that the server did not know when it was asked at the revision `asked`. Returns whether it is
    /// unknown now: the watch may have told about it since.
    pub(crate) fn forget_topic(&self, asked: u64, topic: &str) -> bool {
        {
            let mut state = self.state.write();
            if state.topics.get(topic).is_some_and(|known| known.since > asked) {
                return false;
            }
            state.begin();
            state.topics.remove(topic);
            state.leaders.remove(topic);
        }
        self.notify();
        true
    }

    pub(crate) fn update_topics(&self, update: MetadataUpdate<TopicSpec>, first: bool) {
        self.update(update, first, |state, since, change| match change {
            Change::Reset => state.topics.clear(),
            Change::Set(topic) => {
                let total = Known { value: partition_total(&topic), since };
                state.topics.insert(topic.name, total);
            }
            Change::Delete(topic) => {
                state.topics.remove(&topic.name);
            }
        });
    }

    pub(crate) fn update_partitions(&self, update: MetadataUpdate<PartitionSpec>, first: bool) {
        self.update(update, first, |state, since, change| match change {
            Change::Reset => state.leaders.clear(),
            Change::Set(partition) => {
                if let Some((topic, index)) = replica_of(&partition.name) {
                    let leaders = state.leaders.entry(topic.to_owned()).or_default();
                    leaders.insert(index, Known { value: partition.spec.leader, since });
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
        self.update(update, first, |state, since, change| match change {
            Change::Reset => state.spus.clear(),
            Change::Set(spu) => {
                state.spus.insert(spu.spec.id, Known { value: spu_of(&spu.spec), since });
            }
            Change::Delete(spu) => {
                state.spus.remove(&spu.spec.id);
            }
        });
    }

    fn update<S>(&self, update: MetadataUpdate<S>, first: bool, apply: impl Fn(&mut State, u64, Change<S>))
    where
        S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
        S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
    {
        {
            let mut state = self.state.write();
            let since = state.begin();
            // The first answer of a watch holds everything, later ones hold changes, or everything again.
            if first || !update.all.is_empty() {
                apply(&mut state, since, Change::Reset);
            }
            for object in update.all {
                apply(&mut state, since, Change::Set(object));
            }
            for change in update.changes {
                let change = match change.header {
                    MsgType::DELETE => Change::Delete(change.content),
                    _ => Change::Set(change.content),
                };
                apply(&mut state, since, change);
            }
        }
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }
}

impl State {
    /// Begins a change and gives its revision.
    fn begin(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }
}

/// Replaces what was known at the revision `asked`.
fn learn<K, V>(entry: Entry<'_, K, Known<V>>, new: Known<V>, asked: u64) {
    match entry {
        Entry::Vacant(entry) => {
            entry.insert(new);
        }
        Entry::Occupied(mut entry) if entry.get().since <= asked => {
            entry.insert(new);
        }
        Entry::Occupied(_) => {}
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

#[cfg(test)]
mod tests {
    use fluvio_controlplane_metadata::message::Message;
    use fluvio_controlplane_metadata::topic::TopicSpec;

    use super::*;

    fn topic(partitions: u32) -> Object<TopicSpec> {
        let spec = TopicSpec::new_computed(partitions, 1, None);
        Object { name: "t".to_owned(), spec, status: Default::default() }
    }

    fn partition(leader: i32) -> Object<PartitionSpec> {
        let spec = PartitionSpec::new(leader, vec![leader]);
        Object { name: "t-0".to_owned(), spec, status: Default::default() }
    }

    fn spu(id: i32) -> Object<SpuSpec> {
        let spec = SpuSpec { id, ..SpuSpec::default() };
        Object { name: format!("spu-{id}"), spec, status: Default::default() }
    }

    fn told<S>(content: Object<S>) -> MetadataUpdate<S>
    where
        S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
        S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
    {
        let change = Message { header: MsgType::UPDATE, content };
        MetadataUpdate { epoch: 1, changes: vec![change], all: Vec::new() }
    }

    /// A view in which SPU 1 leads the only partition.
    fn view() -> ClusterView {
        let view = ClusterView::default();
        view.update_topics(told(topic(1)), false);
        view.update_partitions(told(partition(1)), false);
        for id in 1..=3 {
            view.update_spus(told(spu(id)), false);
        }
        view
    }

    #[test]
    fn a_list_replaces_what_was_known_before() {
        let view = view();
        view.merge_topic(view.revision(), &topic(2), &[partition(2)], &[]);
        assert_eq!(view.leader("t", 0).unwrap().id, 2);
        // The second partition has no leader yet.
        assert_eq!(view.partition_count("t"), None);
        assert!(view.forget_topic(view.revision(), "t"));
        assert_eq!(view.leader("t", 0), None);
    }

    #[test]
    fn a_list_gives_way_to_what_the_watch_has_told_since() {
        let view = view();
        let asked = view.revision();
        view.update_partitions(told(partition(3)), false);
        view.update_topics(told(topic(1)), false);
        view.merge_topic(asked, &topic(2), &[partition(2)], &[]);
        assert_eq!(view.leader("t", 0).unwrap().id, 3);
        assert_eq!(view.partition_count("t"), Some(1));
        // Created while the list was on its way.
        assert!(!view.forget_topic(asked, "t"));
        assert_eq!(view.partition_count("t"), Some(1));
    }
}
