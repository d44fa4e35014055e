//! What is known, and how news change it: no I/O, no tasks.
//!
//! Invariants: everything known carries the revision with which it came; an answer to a list request replaces what was
//! known before the request was made, and gives way to what the watch has told since. Only those incarnations are told
//! of a change whose partitions, leaders or addresses changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

use fluvio_controlplane_metadata::message::MsgType;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::{ReplicaSpec, TopicSpec};
use fluvio_sc_schema::objects::{Metadata as Object, MetadataUpdate};

use super::topic::Incarnation;

/// An SPU to talk to. Its id and its name tell it from others, not its address: SPUs behind one proxy share that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spu {
    /// Its id.
    pub(crate) id: i32,
    /// The name of its object, which TLS asks for.
    pub(crate) name: Arc<str>,
    /// `host:port` of its public endpoint.
    pub(crate) address: Arc<str>,
}

/// Something known, and the revision with which it came.
#[derive(Debug)]
struct Known<T> {
    value: T,
    since: u64,
}

#[derive(Debug)]
struct Entry {
    /// Number of partitions.
    count: Known<u32>,
    /// How many of them were asked for when it was created.
    asked_for: u32,
    keeps_all: bool,
    /// Whether a list request told of it, and the watch has not yet: then what the watch tells of its end may be about an
    /// earlier topic of the same name.
    only_listed: bool,
    /// The incarnation, as long as somebody holds it.
    held: Weak<Incarnation>,
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Counts the news.
    revision: u64,
    topics: HashMap<String, Entry>,
    /// topic -> partition -> id of the leader
    leaders: HashMap<String, BTreeMap<u32, Known<i32>>>,
    spus: HashMap<i32, Known<Spu>>,
    #[cfg(test)]
    changed: tokio::sync::watch::Sender<u64>,
}

/// Topics that are held and may be over: somebody has to ask.
pub(super) type InDoubt = Vec<String>;

const DELETED: &str = "was deleted";
const CREATED_AGAIN: &str = "was deleted and created again with fewer partitions";

impl State {
    /// The number of the last news, to be taken before a list request is made.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The incarnation of a topic, if it is known and each partition has a leader.
    pub(super) fn hold(&mut self, name: &str) -> Option<Arc<Incarnation>> {
        let count = self.topics.get(name)?.count.value;
        let led = self.leaders.get(name).map_or(0, |leaders| leaders.range(..count).count());
        if count == 0 || led < count as usize {
            return None;
        }
        let resolved = self.resolved(name, count);
        let entry = self.topics.get_mut(name)?;
        if let Some(held) = entry.held.upgrade() {
            return Some(held);
        }
        let incarnation = Incarnation::new(name, entry.keeps_all, resolved);
        entry.held = Arc::downgrade(&incarnation);
        Some(incarnation)
    }

    /// The topic is known not to be there any more.
    pub(super) fn end(&mut self, incarnation: &Arc<Incarnation>, why: &str) {
        self.begin();
        let name = incarnation.name();
        if self.topics.get(name).is_some_and(|entry| entry.held.as_ptr() == Arc::as_ptr(incarnation)) {
            self.topics.remove(name);
        }
        incarnation.end(why);
    }

    /// Whether somebody holds the topic of this name.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.topics.contains_key(name)
    }

    /// Takes in what list requests told about one topic; they were made at the revision `asked`.
    pub(super) fn learn(
        &mut self,
        asked: u64,
        topic: &Object<TopicSpec>,
        partitions: &[Object<PartitionSpec>],
        spus: &[Object<SpuSpec>],
    ) {
        let since = self.begin();
        if self.topics.get(&topic.name).is_none_or(|known| known.count.since <= asked) {
            let only_listed = self.topics.get(&topic.name).is_none_or(|known| known.only_listed);
            self.set_topic(topic, since, only_listed);
        }
        let leaders = self.leaders.entry(topic.name.clone()).or_default();
        for partition in partitions {
            if let Some((name, index)) = replica_of(&partition.name)
                && name == topic.name
                && leaders.get(&index).is_none_or(|known| known.since <= asked)
            {
                leaders.insert(index, Known { value: partition.spec.leader, since });
            }
        }
        let mut moved = BTreeSet::new();
        for spu in spus {
            if self.spus.get(&spu.spec.id).is_none_or(|known| known.since <= asked) {
                self.set_spu(spu, since, &mut moved);
            }
        }
        let mut touched = self.led_by(&moved);
        touched.insert(topic.name.clone());
        self.tell(touched);
    }

    /// The server did not know a topic when it was asked, again and again, since the revision `asked`. Returns whether it
    /// is unknown now: the watch may have told about it since.
    pub(super) fn forget(&mut self, asked: u64, name: &str) -> bool {
        self.begin();
        if self.topics.get(name).is_some_and(|known| known.count.since > asked) {
            return false;
        }
        self.remove_topic(name);
        self.leaders.remove(name);
        true
    }

    /// Takes in an update of the watch of topics; `first` is the one that a watch begins with, which holds everything.
    pub(super) fn update_topics(&mut self, update: MetadataUpdate<TopicSpec>, first: bool) -> InDoubt {
        let since = self.begin();
        let mut in_doubt = InDoubt::new();
        // Everything again, or nothing new: an empty update does not say which.
        let empty = update.all.is_empty() && update.changes.is_empty();
        if first || empty || !update.all.is_empty() {
            let there: HashSet<&str> = update.all.iter().map(|topic| topic.name.as_str()).collect();
            let gone: Vec<String> =
                self.topics.keys().filter(|name| !there.contains(name.as_str())).cloned().collect();
            for name in gone {
                self.end_or_doubt(&name, empty, &mut in_doubt);
            }
        }
        let mut touched = BTreeSet::new();
        for topic in &update.all {
            touched.insert(topic.name.clone());
            self.set_topic(topic, since, false);
            let known = self.topics.get(&topic.name).filter(|_| first);
            if let Some(held) = known.and_then(|entry| entry.held.upgrade()) {
                held.doubt();
            }
        }
        for change in &update.changes {
            match change.header {
                MsgType::DELETE => self.end_or_doubt(&change.content.name, false, &mut in_doubt),
                _ => {
                    touched.insert(change.content.name.clone());
                    self.set_topic(&change.content, since, false);
                }
            }
        }
        self.tell(touched);
        in_doubt
    }

    pub(super) fn update_partitions(&mut self, update: MetadataUpdate<PartitionSpec>, first: bool) {
        let since = self.begin();
        let mut touched = BTreeSet::new();
        if first || !update.all.is_empty() {
            touched.extend(std::mem::take(&mut self.leaders).into_keys());
        }
        for partition in &update.all {
            self.set_leader(partition, since, &mut touched);
        }
        for change in &update.changes {
            if matches!(change.header, MsgType::DELETE) {
                if let Some((topic, index)) = replica_of(&change.content.name)
                    && self.leaders.get_mut(topic).is_some_and(|leaders| leaders.remove(&index).is_some())
                {
                    touched.insert(topic.to_owned());
                }
            } else {
                self.set_leader(&change.content, since, &mut touched);
            }
        }
        self.tell(touched);
    }

    pub(super) fn update_spus(&mut self, update: MetadataUpdate<SpuSpec>, first: bool) {
        let since = self.begin();
        let mut moved = BTreeSet::new();
        if first || !update.all.is_empty() {
            moved.extend(std::mem::take(&mut self.spus).into_keys());
        }
        for spu in &update.all {
            self.set_spu(spu, since, &mut moved);
        }
        for change in &update.changes {
            if matches!(change.header, MsgType::DELETE) {
                let id = change.content.spec.id;
                if self.spus.remove(&id).is_some() {
                    moved.insert(id);
                }
            } else {
                self.set_spu(&change.content, since, &mut moved);
            }
        }
        let touched = self.led_by(&moved);
        self.tell(touched);
    }

    #[cfg(test)]
    pub(super) fn spu(&self, id: i32) -> Option<Spu> {
        self.spus.get(&id).map(|spu| spu.value.clone())
    }

    #[cfg(test)]
    pub(super) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins a change and gives its revision.
    fn begin(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn set_topic(&mut self, topic: &Object<TopicSpec>, since: u64, only_listed: bool) {
        let name = &topic.name;
        let asked_for = topic.spec.partitions();
        // The spec says what was asked for, the status what is there; it is empty while a topic is being set up.
        let there = u32::try_from(topic.status.replica_map_cnt()).unwrap_or(0);
        let mut count = asked_for.max(there);
        if let Some(known) = self.topics.get(name) {
            if there == 0 && asked_for == known.asked_for {
                count = count.max(known.count.value);
            }
            if count < known.count.value {
                if let Some(held) = known.held.upgrade() {
                    held.end(CREATED_AGAIN);
                }
                self.topics.remove(name);
                if let Some(leaders) = self.leaders.get_mut(name) {
                    leaders.retain(|index, _| *index < count);
                }
            }
        }
        let count = Known { value: count, since };
        let keeps_all = keeps_all(&topic.spec);
        match self.topics.get_mut(name) {
            Some(entry) => {
                entry.count = count;
                entry.asked_for = asked_for;
                entry.keeps_all = keeps_all;
                entry.only_listed = only_listed;
            }
            None => {
                let entry = Entry { count, asked_for, keeps_all, only_listed, held: Weak::new() };
                self.topics.insert(name.clone(), entry);
            }
        }
    }

    fn set_leader(&mut self, partition: &Object<PartitionSpec>, since: u64, touched: &mut BTreeSet<String>) {
        let Some((topic, index)) = replica_of(&partition.name) else { return };
        if !self.leaders.contains_key(topic) {
            self.leaders.insert(topic.to_owned(), BTreeMap::new());
        }
        let Some(leaders) = self.leaders.get_mut(topic) else { return };
        let leader = partition.spec.leader;
        let before = leaders.insert(index, Known { value: leader, since });
        // The status of a partition comes several times a second and concerns nobody here.
        if before.is_none_or(|before| before.value != leader) {
            touched.insert(topic.to_owned());
        }
    }

    fn set_spu(&mut self, spu: &Object<SpuSpec>, since: u64, moved: &mut BTreeSet<i32>) {
        let value = Spu {
            id: spu.spec.id,
            name: spu.name.as_str().into(),
            address: spu.spec.public_endpoint.addr().into(),
        };
        let before = self.spus.get(&value.id).map(|known| &known.value);
        if before != Some(&value) {
            moved.insert(value.id);
        }
        self.spus.insert(value.id, Known { value, since });
    }

    /// What the watch told, or left out, says that a topic is over. If a list request has told of it since, that may be
    /// about an earlier one of the same name; and a server that knows nothing at all may not know its own topics yet.
    fn end_or_doubt(&mut self, name: &str, empty: bool, in_doubt: &mut InDoubt) {
        let Some(entry) = self.topics.get(name) else { return };
        if (entry.only_listed || empty) && entry.held.strong_count() > 0 {
            in_doubt.push(name.to_owned());
        } else {
            self.remove_topic(name);
        }
    }

    fn remove_topic(&mut self, name: &str) {
        if let Some(held) = self.topics.remove(name).and_then(|entry| entry.held.upgrade()) {
            held.end(DELETED);
        }
    }

    /// The topics with a partition that one of these SPUs leads.
    fn led_by(&self, spus: &BTreeSet<i32>) -> BTreeSet<String> {
        if spus.is_empty() {
            return BTreeSet::new();
        }
        let led = |leaders: &BTreeMap<u32, Known<i32>>| leaders.values().any(|id| spus.contains(&id.value));
        self.leaders.iter().filter(|(_, leaders)| led(leaders)).map(|(name, _)| name.clone()).collect()
    }

    fn resolved(&self, name: &str, count: u32) -> Vec<Option<Spu>> {
        let leaders = self.leaders.get(name);
        let spu = |index| self.spus.get(&leaders?.get(&index)?.value).map(|spu| spu.value.clone());
        (0..count).map(spu).collect()
    }

    /// Brings the incarnations of these topics up to date.
    fn tell(&mut self, touched: BTreeSet<String>) {
        for name in touched {
            let Some(entry) = self.topics.get(&name) else { continue };
            if let Some(held) = entry.held.upgrade() {
                held.update(self.resolved(&name, entry.count.value));
            }
        }
        #[cfg(test)]
        self.changed.send_modify(|number| *number += 1);
    }
}

/// See [`super::Topic::keeps_all`].
fn keeps_all(topic: &TopicSpec) -> bool {
    let has_one_replica = match topic.replicas() {
        ReplicaSpec::Computed(param) => param.replication_factor < 2,
        ReplicaSpec::Assigned(maps) => maps.maps().iter().all(|map| map.replicas.len() < 2),
        ReplicaSpec::Mirror(_) => false,
    };
    has_one_replica && topic.get_deduplication().is_none()
}

/// Partition keys are `{topic}-{index}`.
fn replica_of(key: &str) -> Option<(&str, u32)> {
    let (topic, index) = key.rsplit_once('-')?;
    Some((topic, index.parse().ok()?))
}
