//! The one task of a producer that sends: it gathers the batches that are ready, one request per SPU at a time, and gives
//! every batch its fate.
//!
//! Invariants: a batch is in exactly one place (a partition's queue, or `sent`); of one partition at most `in_flight`
//! batches are unanswered; a batch that fails in a way that may pass goes back to the front of its queue and waits for
//! its retry; whatever happens, the task resolves all batches before it ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::produce::ProduceResponse;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::Core;
use super::options::Isolation;
use super::partition::{Batch, Partition};
use super::request::{Request, codes_of, produce};
use crate::error::{Error, ErrorKind, Result};

/// How long a partition without a leader waits before the server is asked again.
const LEADERLESS_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the producer has ended and everything it accepted has its fate.
pub(super) async fn run(core: Arc<Core>) {
    let mut dispatcher = Dispatcher {
        core,
        lanes: HashMap::new(),
        paused: Vec::new(),
        sent: HashMap::new(),
        work: FuturesUnordered::new(),
        next_request: 0,
        refreshing: false,
    };
    dispatcher.run().await;
}

/// Batches on their way to one SPU.
#[derive(Default)]
struct Lane {
    /// Partitions with something to send, in turn.
    queue: VecDeque<Arc<Partition>>,
    unanswered: usize,
}

/// A partition that may not be sent to before a point in time, unless its batch is full.
struct Paused {
    partition: Arc<Partition>,
    until: Instant,
    lingers: bool,
}

enum Event {
    Answered(u64, Result<ProduceResponse>),
    Refreshed(Result<()>),
}

struct Dispatcher {
    core: Arc<Core>,
    lanes: HashMap<i32, Lane>,
    paused: Vec<Paused>,
    sent: HashMap<u64, Request>,
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    next_request: u64,
    refreshing: bool,
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let error = self.core.given_up.get().cloned().unwrap_or_else(|| Error::closed("producer"));
        self.core.refuse();
        for request in std::mem::take(&mut self.sent).into_values() {
            for (partition, batch) in request.batches {
                self.core.resolve(&partition, batch, Err(error.clone()));
            }
        }
        let partitions = self.core.partitions.read().clone();
        for partition in partitions {
            self.core.fail_queued(&partition, &error);
        }
        self.core.ended.send_replace(true);
    }
}

impl Dispatcher {
    async fn run(&mut self) {
        let core = Arc::clone(&self.core);
        let mut changes = core.cluster.view.changes();
        // Partitions may have been added since they were counted.
        changes.mark_changed();
        loop {
            if core.given_up.get().is_some() {
                return;
            }
            // Not locked while handlers are called: they may send.
            let dirty = std::mem::take(&mut *core.dirty.lock());
            for partition in dirty {
                self.route(partition);
            }
            self.resume_paused();
            self.dispatch();
            // Nothing is accepted any more once `ending` is set.
            if core.ending.load(Ordering::Acquire) && self.is_done() {
                return;
            }
            let timer = self.paused.iter().map(|paused| paused.until).min();
            tokio::select! {
                () = core.wake.notified() => {}
                Some(event) = self.work.next(), if !self.work.is_empty() => match event {
                    Event::Answered(id, outcome) => self.answered(id, outcome),
                    Event::Refreshed(outcome) => self.refreshed(outcome),
                },
                () = sleep_until(timer), if timer.is_some() => {}
                Ok(()) = changes.changed() => self.reroute(),
            }
        }
    }

    /// Whether everything has its fate. A pause may still run then: nobody waits for it.
    fn is_done(&self) -> bool {
        self.sent.is_empty()
            && self.core.partitions.read().iter().all(|partition| partition.queue.lock().is_empty())
    }

    /// Puts a partition into the lane of its leader, or has it wait for one.
    fn route(&mut self, partition: Arc<Partition>) {
        match self.core.cluster.view.leader(&self.core.topic, partition.index) {
            Some(spu) => self.lanes.entry(spu.id).or_default().queue.push_back(partition),
            None => {
                partition.set_reachable(false);
                self.expire(&partition, Instant::now());
                {
                    let mut queue = partition.queue.lock();
                    if queue.is_empty() {
                        partition.gave_up(&mut queue);
                        return;
                    }
                }
                self.pause(partition, Instant::now() + LEADERLESS_PAUSE, false);
                self.refresh();
            }
        }
    }

    /// The metadata changed: leaders may have moved, partitions may have been added.
    fn reroute(&mut self) {
        if let Some(count) = self.core.cluster.view.partition_count(&self.core.topic) {
            let known = self.core.partitions.read().len() as u32;
            if count > known {
                let mut partitions = self.core.partitions.write();
                partitions.extend((known..count).map(|index| Arc::new(Partition::new(index))));
            }
        }
        let queued: Vec<_> =
            self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.queue)).collect();
        for partition in queued {
            self.route(partition);
        }
    }

    fn pause(&mut self, partition: Arc<Partition>, until: Instant, lingers: bool) {
        self.paused.push(Paused { partition, until, lingers });
    }

    fn resume_paused(&mut self) {
        let now = Instant::now();
        let (due, still) = std::mem::take(&mut self.paused).into_iter().partition(|paused: &Paused| {
            let full = || paused.partition.queue.lock().lingers_until(Duration::ZERO).is_none();
            paused.until <= now || (paused.lingers && full())
        });
        self.paused = still;
        let due: Vec<Paused> = due;
        for paused in due {
            self.route(paused.partition);
        }
    }

    /// Sends a request to every SPU that has batches and is free.
    fn dispatch(&mut self) {
        let spus: Vec<i32> = self.lanes.keys().copied().collect();
        for spu in spus {
            while self.lanes.get(&spu).is_some_and(|lane| lane.unanswered < self.core.options.in_flight) {
                let batches = self.gather(spu);
                if batches.is_empty() {
                    break;
                }
                self.send(spu, batches);
            }
        }
    }

    /// One batch of each partition whose turn it is, as many as fit into a request.
    fn gather(&mut self, spu: i32) -> Vec<(Arc<Partition>, Batch)> {
        let core = Arc::clone(&self.core);
        let options = &core.options;
        let now = Instant::now();
        let Some(lane) = self.lanes.get_mut(&spu) else { return Vec::new() };
        let mut batches = Vec::new();
        // Behind those whose batch did not fit this time, so that everyone's turn comes.
        let mut served = Vec::new();
        let mut size = 0;
        for partition in std::mem::take(&mut lane.queue) {
            self.expire(&partition, now);
            let mut queue = partition.queue.lock();
            let Some(len) = queue.front_len() else {
                partition.gave_up(&mut queue);
                continue;
            };
            let lane = self.lanes.entry(spu).or_default();
            if let Some(retry_at) = queue.retry_at.filter(|retry_at| *retry_at > now) {
                drop(queue);
                self.pause(partition, retry_at, false);
            } else if let Some(until) = queue.lingers_until(options.linger()).filter(|until| *until > now) {
                queue.wake_when_sealed = true;
                drop(queue);
                self.pause(partition, until, true);
            } else if queue.in_flight >= options.in_flight
                || (!batches.is_empty() && size + len > options.max_request_bytes)
            {
                drop(queue);
                lane.queue.push_back(partition);
            } else if let Some(waiting) = queue.pop() {
                queue.in_flight += 1;
                queue.retry_at = None;
                if queue.is_empty() {
                    queue.known = false;
                } else {
                    served.push(Arc::clone(&partition));
                }
                drop(queue);
                size += len;
                batches.push((partition, waiting.sealed()));
            }
        }
        self.lanes.entry(spu).or_default().queue.extend(served);
        batches
    }

    /// Fails the batches whose time is over.
    fn expire(&self, partition: &Partition, now: Instant) {
        let limit = self.core.options.delivery_timeout();
        loop {
            let batch = {
                let mut queue = partition.queue.lock();
                match queue.oldest() {
                    Some(opened) if opened + limit <= now => queue.pop(),
                    _ => return,
                }
            };
            let Some(batch) = batch else { return };
            let batch = batch.sealed();
            let cause = batch.last_error.as_ref().map_or("it was never sent", |error| error.message());
            let message = format!(
                "no acknowledgement for partition {} of topic {:?} within the delivery time-out of {} ms: {cause}",
                partition.index,
                self.core.topic,
                limit.as_millis()
            );
            self.core.resolve(partition, batch, Err(Error::new(ErrorKind::Timeout, message)));
        }
    }

    fn send(&mut self, spu: i32, batches: Vec<(Arc<Partition>, Batch)>) {
        let id = self.next_request;
        self.next_request += 1;
        let core = &self.core;
        let leader =
            batches.first().and_then(|(partition, _)| core.cluster.view.leader(&core.topic, partition.index));
        let entries =
            batches.iter().map(|(partition, batch)| (partition.index, batch.bytes.clone())).collect();
        let request = produce(
            Arc::clone(&core.cluster),
            leader,
            core.topic.clone(),
            entries,
            core.options.isolation == Isolation::ReadCommitted,
        );
        self.work.push(Box::pin(async move { Event::Answered(id, request.await) }));
        self.lanes.entry(spu).or_default().unanswered += 1;
        self.sent.insert(id, Request { spu, batches });
    }

    fn answered(&mut self, id: u64, outcome: Result<ProduceResponse>) {
        let Some(request) = self.sent.remove(&id) else { return };
        if let Some(lane) = self.lanes.get_mut(&request.spu) {
            lane.unanswered -= 1;
        }
        let codes = outcome.and_then(|response| codes_of(response, &request, &self.core.topic));
        match codes {
            Ok(codes) => {
                for ((partition, batch), (code, base_offset)) in request.batches.into_iter().zip(codes) {
                    self.settle(partition, batch, &code, base_offset);
                }
            }
            Err(error) => {
                for (partition, batch) in request.batches {
                    self.failed(partition, batch, &error);
                }
                self.refresh();
            }
        }
    }

    fn settle(&mut self, partition: Arc<Partition>, batch: Batch, code: &ErrorCode, base_offset: i64) {
        let what = || format!("partition {} of topic {:?}", partition.index, self.core.topic);
        if code.is_ok() {
            if base_offset.checked_add(i64::from(batch.records)).is_none_or(|_| base_offset < 0) {
                let message = format!("{}: the server says that it wrote to offset {base_offset}", what());
                self.failed(partition, batch, &Error::new(ErrorKind::Protocol, message));
                return;
            }
            partition.set_reachable(true);
            partition.queue.lock().in_flight -= 1;
            self.core.resolve(&partition, batch, Ok(base_offset));
            return;
        }
        let error = Error::from_code(code, &what(), None);
        if error.is_retriable() {
            self.refresh();
        }
        self.failed(partition, batch, &error);
    }

    /// A batch was not acknowledged: tries again later if that can help, else tells its senders.
    fn failed(&mut self, partition: Arc<Partition>, mut batch: Batch, error: &Error) {
        // The server answers so after it has written the batch: another try would write it twice for certain.
        let written = error.kind() == ErrorKind::Timeout && error.code() != 0;
        if !error.is_retriable() || written {
            partition.queue.lock().in_flight -= 1;
            self.core.resolve(&partition, batch, Err(error.clone()));
            return;
        }
        tracing::debug!(topic = self.core.topic, partition = partition.index, %error, "produce failed, trying again");
        partition.set_reachable(false);
        let options = &self.core.options;
        let doubled = options.retry_initial().saturating_mul(1 << batch.attempts.min(16));
        batch.attempts += 1;
        batch.last_error = Some(error.clone());
        let now = Instant::now();
        let deadline = batch.opened + options.delivery_timeout();
        let retry_at = (now + doubled.min(options.retry_max())).min(deadline.max(now));
        let known = {
            let mut queue = partition.queue.lock();
            queue.in_flight -= 1;
            queue.put_back(batch);
            queue.retry_at = Some(retry_at);
            std::mem::replace(&mut queue.known, true)
        };
        if !known {
            self.pause(partition, retry_at, false);
        }
    }

    /// Asks the server about the topic, once at a time.
    fn refresh(&mut self) {
        if std::mem::replace(&mut self.refreshing, true) {
            return;
        }
        let core = Arc::clone(&self.core);
        self.work
            .push(Box::pin(async move { Event::Refreshed(core.cluster.refresh_topic(&core.topic).await) }));
    }

    fn refreshed(&mut self, outcome: Result<()>) {
        self.refreshing = false;
        match outcome {
            Err(error) if error.kind() == ErrorKind::TopicNotFound => {
                let message = format!("topic {:?} was deleted", self.core.topic);
                let error = Error::new(ErrorKind::TopicDeleted, message);
                let partitions = self.core.partitions.read().clone();
                for partition in partitions {
                    self.core.fail_queued(&partition, &error);
                }
            }
            Err(error) => {
                tracing::debug!(topic = self.core.topic, %error, "metadata cannot be refreshed yet")
            }
            Ok(()) => self.reroute(),
        }
    }
}

async fn sleep_until(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}
