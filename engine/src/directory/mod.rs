//! What the cluster looks like: topics with their incarnations, partitions and their leaders, SPUs by id.
//!
//! One watch connection (`watch.rs`) keeps it up to date; what it does not tell in time is asked for with list requests
//! (`look_up.rs`), once for everybody who wants to know the same. Whatever was learnt last counts (`state.rs`).
//!
//! A topic has an incarnation: deleted and created again it is another topic, whatever its name. Who uses a topic holds a
//! [`Topic`], which is that of one incarnation; it hears of every change of it, of nothing else, and of its end once.
//! One empty answer to a list request ends nothing.

mod look_up;
#[cfg(test)]
mod look_up_tests;
mod state;
#[cfg(test)]
mod state_tests;
mod topic;
mod watch;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::link::Pool;
use crate::subscription::Feed;
use look_up::LookUps;
pub(crate) use state::Spu;
use state::State;
pub(crate) use topic::Topic;
pub(crate) use watch::{Watches, run};

/// The directory of one cluster.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `host:port` of the SC, for messages.
    endpoint: String,
    /// What happens to the watch.
    pub(crate) events: Feed,
    /// For list requests.
    pool: Pool,
    state: Mutex<State>,
    look_ups: Mutex<LookUps>,
    /// Of many topics that are looked up at once, only some are asked for at a time.
    turns: Semaphore,
}

/// List requests that may be under way at once, each on a connection of its own.
const CONCURRENT_LOOK_UPS: usize = 4;

impl Directory {
    pub(crate) fn new(endpoint: String, pool: Pool) -> Arc<Self> {
        Arc::new(Directory {
            endpoint,
            events: Feed::default(),
            pool,
            state: Mutex::default(),
            look_ups: Mutex::default(),
            turns: Semaphore::new(CONCURRENT_LOOK_UPS),
        })
    }

    /// The topic as it is known now, if each of its partitions has a leader.
    pub(crate) fn topic(self: &Arc<Self>, name: &str) -> Option<Topic> {
        let incarnation = self.state.lock().hold(name)?;
        Some(Topic::new(incarnation, Arc::clone(self)))
    }

    /// The number of the last news, to be taken before a request that [`Directory::forget`] follows.
    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().revision()
    }

    /// A topic was deleted by a request that was made at the revision `asked`.
    pub(crate) fn forget(&self, asked: u64, topic: &str) {
        self.state.lock().forget(asked, topic);
    }

    /// Completes once an update of the watch, or an answer, has changed anything.
    #[cfg(test)]
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.state.lock().changes()
    }

    /// Where an SPU can be reached.
    #[cfg(test)]
    pub(crate) fn spu(&self, id: i32) -> Option<Spu> {
        self.state.lock().spu(id)
    }
}
