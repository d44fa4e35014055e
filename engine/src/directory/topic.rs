//! One incarnation of one topic, as whoever uses it sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Directory, Spu};
use crate::error::{Error, ErrorKind, Result};

/// What the directory and the holders of one incarnation share.
///
/// Invariants: the number of partitions never shrinks, that would be another incarnation; `ended` is set once, and nothing
/// changes afterwards; `changed` counts every change.
#[derive(Debug)]
pub(super) struct Incarnation {
    name: String,
    keeps_all: bool,
    leaders: RwLock<Vec<Option<Spu>>>,
    ended: OnceLock<Error>,
    /// How often the cluster was out of sight.
    doubts: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Incarnation {
    pub(super) fn new(name: &str, keeps_all: bool, leaders: Vec<Option<Spu>>) -> Arc<Self> {
        Arc::new(Incarnation {
            name: name.to_owned(),
            keeps_all,
            doubts: AtomicU64::new(0),
            leaders: RwLock::new(leaders),
            ended: OnceLock::new(),
            changed: watch::Sender::new(0),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The leaders of its partitions are these now.
    pub(super) fn update(&self, leaders: Vec<Option<Spu>>) {
        if self.ended.get().is_some() || *self.leaders.read() == leaders {
            return;
        }
        *self.leaders.write() = leaders;
        self.notify();
    }

    /// The cluster was out of sight: another topic may have taken the name.
    pub(super) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
        self.notify();
    }

    /// It is over.
    pub(super) fn end(&self, why: &str) {
        let error = Error::new(ErrorKind::TopicDeleted, format!("topic {:?} {why}", self.name));
        if self.ended.set(error.with_topic(&self.name)).is_ok() {
            self.notify();
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn leaders(&self) -> Vec<Option<Spu>> {
        self.leaders.read().clone()
    }

    pub(super) fn ended(&self) -> Option<Error> {
        self.ended.get().cloned()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn notify(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }
}

/// One incarnation of a topic. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    incarnation: Arc<Incarnation>,
    directory: Arc<Directory>,
}

impl Topic {
    pub(super) fn new(incarnation: Arc<Incarnation>, directory: Arc<Directory>) -> Self {
        Topic { incarnation, directory }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.incarnation.name()
    }

    /// Its partitions, as far as they are known. Never fewer than before.
    pub(crate) fn partition_count(&self) -> u32 {
        self.incarnation.leaders.read().len() as u32
    }

    /// Where the leader of a partition can be reached; `None` while that is not known.
    pub(crate) fn leader(&self, partition: u32) -> Option<Spu> {
        self.incarnation.leaders.read().get(partition as usize)?.clone()
    }

    /// Whether its logs hold all that was acknowledged, for ever. Not where what one replica wrote may be cut off for
    /// another, nor where duplicates are acknowledged and dropped.
    pub(crate) fn keeps_all(&self) -> bool {
        self.incarnation.keeps_all()
    }

    /// How often the cluster was out of sight: another topic may have taken the name each time.
    pub(crate) fn doubts(&self) -> u64 {
        self.incarnation.doubts()
    }

    /// [`ErrorKind::TopicDeleted`] once this incarnation is over.
    pub(crate) fn deleted(&self) -> Option<Error> {
        self.incarnation.ended()
    }

    /// Whoever calls this has proof that this incarnation is over; all who hold it learn of it. `why` goes on after the
    /// name of the topic: "was deleted".
    pub(crate) fn declare_deleted(&self, why: &str) {
        self.directory.end(&self.incarnation, why);
    }

    /// Receives a new number after every change of this topic, its end included, and of nothing else.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.incarnation.changes()
    }

    /// Asks the server about this topic, together with everybody who does so now, at most about once a second. The answer
    /// is in the topic when this completes. [`ErrorKind::TopicDeleted`] if the topic is over. Dropping the future does
    /// not end the look-up.
    pub(crate) fn look_up(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let topic = self.clone();
        let asked = topic.deleted().is_none().then(|| topic.directory.look_up(topic.name(), false));
        async move {
            let outcome = match asked {
                Some(asked) => asked.await,
                None => Ok(()),
            };
            topic.deleted().map_or(outcome, Err)
        }
    }
}
