//! Asking the server about one topic, once for everybody who wants to know.
//!
//! Invariants: of one topic at most one look-up is under way; it runs in a task of its own, so a reader that loses
//! patience ends nothing; one begins at most once a second, unless somebody who opens a topic has to know now. A
//! topic that is known is over once two answers in a row leave it out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::Metadata as Object;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Directory;
use super::topic::Incarnation;
use crate::admin::list;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Backoff;

/// Between the beginnings of two look-ups of one topic, half of it at least; it grows while look-ups follow each other.
const PACE: Duration = Duration::from_secs(2);
const SLOWEST_PACE: Duration = Duration::from_secs(5);

/// After so long without a look-up of a topic the next begins at once.
const CALM: Duration = Duration::from_secs(10);

/// Between the two answers that say that a known topic is over.
const SECOND_ANSWER: Duration = Duration::from_millis(500);

type Answer = Shared<BoxFuture<'static, Result<()>>>;

/// The look-ups under way, and when those before them began.
#[derive(Debug, Default)]
pub(super) struct LookUps {
    closed: bool,
    by_topic: HashMap<String, LookUp>,
}

#[derive(Debug, Default)]
struct LookUp {
    running: Option<(Answer, AbortHandle)>,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Pace {
    last: Instant,
    next: Backoff,
}

impl LookUp {
    /// When the next may begin, if it is not urgent.
    fn begin(&mut self, urgent: bool) -> Option<Instant> {
        let now = Instant::now();
        let pace = match self.pace.take() {
            Some(pace) if now - pace.last < CALM => pace,
            _ => {
                self.pace = Some(Pace { last: now, next: Backoff::new(PACE, SLOWEST_PACE) });
                return None;
            }
        };
        let Pace { last, mut next } = pace;
        let at = if urgent { now } else { (last + next.next_delay()).max(now) };
        self.pace = Some(Pace { last: at, next });
        (at > now).then_some(at)
    }

    fn is_over(&self) -> bool {
        self.running.is_none() && self.pace.as_ref().is_none_or(|pace| pace.last.elapsed() > CALM)
    }
}

/// Takes a look-up out of the table when its task ends, however it ends.
struct Running {
    directory: Arc<Directory>,
    topic: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(look_up) = self.directory.look_ups.lock().by_topic.get_mut(&self.topic) {
            look_up.running = None;
        }
    }
}

impl Directory {
    /// Joins the look-up of this topic, or begins one: at once if it is `urgent`, else when its time has come.
    /// [`ErrorKind::TopicNotFound`] if the server knows no such topic.
    pub(super) fn look_up(
        self: &Arc<Self>,
        topic: &str,
        urgent: bool,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let mut look_ups = self.look_ups.lock();
        if look_ups.closed {
            return futures_util::future::ready(Err(Error::closed("client"))).boxed().shared();
        }
        look_ups.by_topic.retain(|name, look_up| name == topic || !look_up.is_over());
        let look_up = look_ups.by_topic.entry(topic.to_owned()).or_default();
        if let Some((running, _)) = &look_up.running {
            return running.clone();
        }
        let at = look_up.begin(urgent);
        let (directory, topic) = (Arc::clone(self), topic.to_owned());
        let task = tokio::spawn(async move {
            // Not before: a runtime that ends drops a task where it is spawned, with the table locked.
            let running = Running { directory, topic };
            if let Some(at) = at {
                tokio::time::sleep_until(at).await;
            }
            running.directory.ask_twice(&running.topic).await
        });
        let abort = task.abort_handle();
        let answer = task.map(|ended| match ended {
            Ok(answer) => answer,
            Err(failed) if failed.is_panic() => Err(Error::panic("a look-up")),
            Err(_) => Err(Error::closed("client")),
        });
        let answer = answer.boxed().shared();
        look_up.running = Some((answer.clone(), abort));
        answer
    }

    /// Ends what is looked up, and looks up nothing any more: whoever waits learns that the client is closed.
    pub(crate) fn close(&self) {
        let under_way: Vec<AbortHandle> = {
            let mut look_ups = self.look_ups.lock();
            look_ups.closed = true;
            let running = look_ups.by_topic.values().filter_map(|look_up| look_up.running.as_ref());
            running.map(|(_, task)| task.clone()).collect()
        };
        for task in under_way {
            task.abort();
        }
    }

    /// Looks up what the watch has left in doubt.
    pub(super) fn clear_up(self: &Arc<Self>, in_doubt: super::state::InDoubt) {
        for topic in in_doubt {
            drop(self.look_up(&topic, true));
        }
    }

    /// Whoever calls this has proof that an incarnation is over.
    pub(super) fn end(&self, incarnation: &Arc<Incarnation>, why: &str) {
        self.state.lock().end(incarnation, why);
    }

    async fn ask_twice(&self, topic: &str) -> Result<()> {
        let asked = self.state.lock().revision();
        let mut found = self.ask(topic).await?;
        if found.is_none() && self.state.lock().is_known(topic) {
            tokio::time::sleep(SECOND_ANSWER).await;
            found = self.ask(topic).await?;
        }
        let Some(found) = found else {
            if !self.state.lock().forget(asked, topic) {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::TopicNotFound,
                format!("there is no topic {topic:?} on {}: create it first", self.endpoint),
            )
            .with_topic(topic));
        };
        let _turn = self.turns.acquire().await;
        let partitions =
            list::<PartitionSpec>(&self.pool, &[topic.to_owned()], found.spec.is_system()).await?;
        let spus = list::<SpuSpec>(&self.pool, &[], false).await?;
        self.state.lock().learn(asked, &found, &partitions, &spus);
        Ok(())
    }

    async fn ask(&self, topic: &str) -> Result<Option<Object<TopicSpec>>> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let filters = [topic.to_owned()];
        for system in [false, true] {
            let topics = list::<TopicSpec>(&self.pool, &filters, system).await?;
            if let Some(found) = topics.into_iter().find(|object| object.name == topic) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The topic once each of its partitions has a leader. Asks the server before it says that there is none, and waits
    /// for one that is being set up; the caller sets a limit.
    pub(crate) async fn open(self: &Arc<Self>, name: &str) -> Result<super::Topic> {
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        loop {
            if let Some(topic) = self.topic(name) {
                return Ok(topic);
            }
            self.look_up(name, true).await?;
            if let Some(topic) = self.topic(name) {
                return Ok(topic);
            }
            // It is there, its partitions are not yet.
            tokio::time::sleep(pause.next_delay()).await;
        }
    }
}
