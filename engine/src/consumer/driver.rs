//! The one task of a consumer: it gives its sessions what comes, does what they say, and decodes what they hand out.
//!
//! Invariants: everything of a partition goes through one queue, in order, its end included; what an answer takes up in memory
//! is charged before it is decoded, and while there is no room for that the queue waits, and nothing else does;
//! acknowledgements go out before anything is decoded, so that the server prepares the next answers meanwhile.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::ConsumerOptions;
use super::buffer::Buffer;
use super::spu::SpuLink;
use crate::budget::{Budget, Charge};
use crate::cluster::Cluster;
use crate::directory::{Spu, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Connection, Inbox, Incoming, Links};
use crate::session::{Fetch, Position, Time};

/// The least and the most that one answer of a stream may hold. The least has room for a batch of the usual size, which
/// would be cut otherwise and fetched again by itself; what is read at a time is the budget's business.
const MIN_ANSWER: usize = 256 * 1024;
const MAX_ANSWER: usize = 1024 * 1024;

/// So many answers should find room at a time.
const ANSWERS: usize = 8;

/// What an answer holds besides records: names, offsets, lengths.
const ANSWER_OVERHEAD: usize = 64 * 1024;

/// Answers that are taken in before the acknowledgements go out.
const AT_A_TIME: usize = 64;

/// After so long without anything free memory goes back to the system.
pub(super) const REST: Duration = Duration::from_millis(250);

/// How often the directory is asked about partitions without a leader.
pub(super) const LEADERLESS: Duration = Duration::from_secs(1);

/// Which link: the number of an SPU's place here, used again only after 65 535 others.
pub(super) type LinkId = u16;

/// The link whose requests have this tag.
pub(super) fn link_of(tag: u64) -> LinkId {
    tag as LinkId
}

pub(super) struct Partition {
    pub(super) fetch: Fetch,
    /// The link that it is fetched over.
    pub(super) link: Option<LinkId>,
    /// Nothing of it is handed out any more.
    pub(super) told: bool,
}

/// What a task of the driver has done.
pub(super) enum Done {
    Opened { link: LinkId, outcome: Result<Connection> },
    Lost { link: LinkId, epoch: u64, error: Error },
    LookedUp,
}

/// The records of an answer, on their way.
pub(super) struct Records {
    pub(super) bytes: Bytes,
    pub(super) high_watermark: i64,
    pub(super) charge: Option<Charge>,
}

/// What is to be handed out, in order.
pub(super) enum Handed {
    Records { partition: u32, generation: u32, from: i64, records: Records },
    End { partition: u32, error: Error },
    Deleted(Error),
}

/// What the driver works with.
pub(super) struct Parts {
    pub(super) topic: Topic,
    /// Lives as long as it is used.
    pub(super) cluster: Arc<Cluster>,
    pub(super) options: ConsumerOptions,
    pub(super) budget: Arc<Budget>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) links: Arc<Links>,
}

pub(super) struct Driver {
    pub(super) parts: Parts,
    /// Partitions there were when it was opened; those that come later are followed too, unless some were chosen.
    known: u32,
    began: Instant,
    pub(super) partitions: HashMap<u32, Partition>,
    pub(super) links: HashMap<LinkId, SpuLink>,
    last_link: LinkId,
    pub(super) inbox: Inbox,
    answers: mpsc::UnboundedReceiver<Incoming>,
    /// Counts the requests.
    pub(super) requests: u64,
    pub(super) handed: VecDeque<Handed>,
    pub(super) tasks: JoinSet<Done>,
    looking_up: bool,
    /// What was not sent yet: partition, stream, what the server calls it, offset.
    pub(super) acknowledgements: BTreeMap<LinkId, Vec<(u32, u64, u32, i64)>>,
    /// Headers that were not asked for yet: partition, request, offset.
    pub(super) headers: BTreeMap<LinkId, Vec<(u32, u64, i64)>>,
    /// When sessions have something to do by themselves.
    pub(super) deadlines: BTreeMap<u32, Time>,
    /// When free memory goes back; `None` when it has.
    pub(super) rest: Option<Time>,
    /// When to ask about partitions without a leader, if there are any.
    pub(super) leaderless: Option<Time>,
    pub(super) over: bool,
}

/// Tells whoever waits if the driver ends in another way than it should.
struct Guard(Arc<Buffer>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Error::panic("the task of a consumer"));
        }
    }
}

impl Driver {
    pub(super) fn new(parts: Parts, known: u32, positions: Vec<(u32, Position)>) -> Self {
        let (inbox, answers) = mpsc::unbounded_channel();
        let mut driver = Driver {
            parts,
            known,
            began: Instant::now(),
            partitions: HashMap::new(),
            links: HashMap::new(),
            last_link: 0,
            inbox,
            answers,
            requests: 0,
            handed: VecDeque::new(),
            tasks: JoinSet::new(),
            looking_up: false,
            acknowledgements: BTreeMap::new(),
            headers: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            rest: None,
            leaderless: None,
            over: false,
        };
        let count = positions.len();
        for (partition, position) in positions {
            driver.add(partition, position, count);
        }
        driver
    }

    /// Runs until the topic is over and everything has been handed out.
    pub(super) async fn run(mut self) {
        let guard = Guard(Arc::clone(&self.parts.buffer));
        let mut changes = self.parts.topic.changes();
        let mut answers = Vec::with_capacity(AT_A_TIME);
        self.follow_topic();
        self.send();
        // The topic may be over already.
        self.hand_out();
        while !(self.over && self.handed.is_empty()) {
            let deadline = self.began + self.deadline();
            tokio::select! {
                count = self.answers.recv_many(&mut answers, AT_A_TIME) => {
                    debug_assert!(count > 0, "the driver has a sender");
                    for incoming in answers.drain(..) {
                        self.take_in(incoming);
                    }
                }
                Some(done) = self.tasks.join_next() => self.done(done),
                Ok(()) = changes.changed(), if !self.over => self.follow_topic(),
                () = self.parts.budget.returned(), if !self.handed.is_empty() => {}
                () = tokio::time::sleep_until(deadline) => self.tick(),
            }
            self.send();
            self.hand_out();
        }
        self.parts.links.close();
        drop(guard);
    }

    pub(super) fn now(&self) -> Time {
        self.began.elapsed()
    }

    pub(super) fn patience(&self) -> Duration {
        self.parts.cluster.settings.request_timeout
    }

    fn add(&mut self, partition: u32, position: Position, count: usize) {
        let answer = self.parts.options.prefetch_bytes / count.max(ANSWERS);
        let most = self.parts.cluster.settings.max_frame - ANSWER_OVERHEAD;
        let topic = self.parts.topic.name().into();
        let fetch = Fetch::new(topic, partition, position, answer.clamp(MIN_ANSWER, MAX_ANSWER), most);
        self.parts.buffer.add(partition);
        self.partitions.insert(partition, Partition { fetch, link: None, told: false });
    }

    /// The topic has changed: its leaders, the number of its partitions, or it is over.
    fn follow_topic(&mut self) {
        if let Some(error) = self.parts.topic.deleted() {
            return self.delete(error);
        }
        if self.parts.options.partitions.is_none() {
            let count = self.parts.topic.partition_count();
            for partition in self.known..count {
                self.add(partition, Position::Relative(0), count as usize);
            }
            self.known = self.known.max(count);
        }
        let partitions: Vec<u32> = self.partitions.keys().copied().collect();
        self.leaderless = None;
        for index in partitions {
            match self.parts.topic.leader(index) {
                Some(leader) => self.lead(index, &leader),
                None => self.leaderless = Some(self.now() + LEADERLESS),
            }
        }
        let idle: Vec<LinkId> =
            self.links.iter().filter(|(_, spu)| spu.partitions.is_empty()).map(|(id, _)| *id).collect();
        for id in idle {
            self.drop_link(id);
        }
        self.open_links();
    }

    /// This SPU leads this partition.
    fn lead(&mut self, index: u32, leader: &Spu) {
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let present = partition.link.and_then(|id| self.links.get(&id));
        if partition.fetch.is_over() || present.is_some_and(|present| present.spu() == leader) {
            return;
        }
        let mut out = Vec::new();
        partition.fetch.moved(&mut out);
        self.perform(index, &mut out, None);
        let id = self.link_to(leader);
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        if let Some(former) = partition.link.replace(id).and_then(|id| self.links.get_mut(&id)) {
            former.partitions.remove(&index);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.partitions.insert(index);
        if link.connection.is_some() {
            partition.fetch.linked(&mut out);
            self.perform(index, &mut out, None);
        }
    }

    /// The link to an SPU, a new one if there is none or its name or address has changed.
    fn link_to(&mut self, spu: &Spu) -> LinkId {
        if let Some((id, _)) = self.links.iter().find(|(_, link)| link.spu() == spu) {
            return *id;
        }
        loop {
            self.last_link = self.last_link.wrapping_add(1);
            if !self.links.contains_key(&self.last_link) {
                self.links.insert(self.last_link, SpuLink::new(self.parts.links.to(spu)));
                return self.last_link;
            }
        }
    }

    /// Closes a link for good.
    pub(super) fn drop_link(&mut self, id: LinkId) {
        self.acknowledgements.remove(&id);
        self.headers.remove(&id);
        if let Some(link) = self.links.remove(&id) {
            for index in &link.partitions {
                if let Some(partition) = self.partitions.get_mut(index) {
                    partition.fetch.unlinked();
                    partition.link = None;
                }
            }
            if let Some(connection) = &link.connection {
                connection.fail(Error::new(ErrorKind::Connection, "it is no longer needed"));
            }
        }
    }

    fn open_links(&mut self) {
        for (id, link) in &mut self.links {
            if link.connection.is_none() && !std::mem::replace(&mut link.opening, true) {
                let (id, link) = (*id, link.link.clone());
                self.tasks.spawn(async move { Done::Opened { link: id, outcome: link.connection().await } });
            }
        }
    }

    /// The topic is over, and with it everything that is asked for.
    fn delete(&mut self, error: Error) {
        if !std::mem::replace(&mut self.over, true) {
            let links: Vec<LinkId> = self.links.keys().copied().collect();
            for id in links {
                self.drop_link(id);
            }
            self.deadlines.clear();
            self.handed.push_back(Handed::Deleted(error));
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::LookedUp) => self.looking_up = false,
            Ok(Done::Opened { link, outcome: Ok(connection) }) => self.connected(link, connection),
            Ok(Done::Opened { link, outcome: Err(error) }) => self.lost(link, &error),
            Ok(Done::Lost { link, epoch, error }) => {
                if self.links.get(&link).is_some_and(|link| link.epoch == epoch) {
                    self.lost(link, &error);
                }
            }
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    fn connected(&mut self, id: LinkId, connection: Connection) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.connected(connection.clone());
        let epoch = link.epoch;
        let partitions: Vec<u32> = link.partitions.iter().copied().collect();
        self.tasks.spawn(async move { Done::Lost { link: id, epoch, error: connection.lost().await } });
        let mut out = Vec::new();
        for index in partitions {
            if let Some(partition) = self.partitions.get_mut(&index) {
                partition.fetch.linked(&mut out);
            }
            self.perform(index, &mut out, None);
        }
    }

    fn lost(&mut self, id: LinkId, error: &Error) {
        tracing::debug!(topic = self.parts.topic.name(), %error, "no connection, trying again");
        self.acknowledgements.remove(&id);
        self.headers.remove(&id);
        let Some(link) = self.links.get_mut(&id) else { return };
        let fatal = link.lost(error);
        let partitions: Vec<u32> = link.partitions.iter().copied().collect();
        let mut out = Vec::new();
        for index in partitions {
            if let Some(partition) = self.partitions.get_mut(&index) {
                partition.fetch.unlinked();
                if let Some(error) = &fatal {
                    partition.fetch.end(error.clone(), &mut out);
                }
            }
            self.perform(index, &mut out, None);
        }
        if !self.over {
            // Its partitions may have moved.
            self.look_up();
            self.open_links();
        }
    }

    pub(super) fn look_up(&mut self) {
        if !std::mem::replace(&mut self.looking_up, true) {
            let asked = self.parts.topic.look_up();
            self.tasks.spawn(async move {
                // What it found is in the topic.
                if let Err(error) = asked.await {
                    tracing::debug!(%error, "the topic cannot be looked up");
                }
                Done::LookedUp
            });
        }
    }
}
