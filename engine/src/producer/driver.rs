//! The one task of a producer that talks to servers: it carries out what the machine (`session/produce`) says, and tells it
//! what came of it.
//!
//! Invariants: no lock is held while a handler is called; however the task ends, what was accepted gets its fate, the
//! connections that this producer opened are closed, and whoever waits for the end learns of it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fluvio_spu_schema::produce::ProduceResponse;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::core::Core;
use super::partition::Batch;
use super::request::{at, check, codes_of, produce};
use super::share::Share;
use super::view::View;
use crate::directory::Spu;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::link::{Connection, Link};
use crate::session::produce::{Action, Attempt, Failure, Session, Terms};

/// Runs until the producer has ended and everything it accepted has its fate.
pub(super) async fn run(core: Arc<Core>) {
    let mut driver = Driver {
        session: Session::new(terms(&core)),
        view: View {
            core: Arc::clone(&core),
            partitions: Vec::new(),
            leaders: Vec::new(),
            turns: HashMap::new(),
        },
        spus: HashMap::new(),
        shares: HashMap::new(),
        connections: HashMap::new(),
        work: FuturesUnordered::new(),
        looking_up: false,
        doubts: core.topic.doubts(),
        core,
    };
    if AssertUnwindSafe(driver.run()).catch_unwind().await.is_err() {
        let _ = driver.core.given_up.set(Error::panic("the task of a producer"));
    }
    // What follows is in the destructor: it runs too if the runtime drops the task.
}

fn terms(core: &Core) -> Terms {
    let options = &core.options;
    Terms {
        topic: core.topic.name().to_owned(),
        in_flight: options.in_flight,
        max_request_bytes: options.max_request_size_bytes,
        linger: options.linger(),
        delivery_timeout: options.delivery_timeout(),
        retry_initial: options.retry_initial(),
        retry_max: options.retry_max(),
        request_timeout: core.cluster.settings.request_timeout,
        committed: core.committed(),
        keeps_all: core.topic.keeps_all(),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

enum Event {
    Connected(Attempt, Link, Result<Connection>),
    Lost(Attempt, Error),
    Checked(Attempt, Result<std::result::Result<Vec<u32>, String>>),
    Answered(Attempt, u64, Result<ProduceResponse>),
    LookedUp,
}

struct Driver {
    core: Arc<Core>,
    session: Session<Batch>,
    view: View,
    /// The leaders of the topic, by id.
    spus: HashMap<i32, Spu>,
    /// What each of them, or who led before, takes of the buffer.
    shares: HashMap<i32, Arc<Share>>,
    /// The connections that are in use, and where they lead.
    connections: HashMap<Attempt, (Link, Connection)>,
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    looking_up: bool,
    /// What the topic said last of how often it was out of sight.
    doubts: u64,
}

impl Driver {
    async fn run(&mut self) {
        let core = Arc::clone(&self.core);
        let mut changes = core.topic.changes();
        self.changed();
        loop {
            self.drive();
            if core.given_up.get().is_some() || (core.ending.load(Ordering::Acquire) && self.is_done()) {
                return;
            }
            let timer = self.session.timer();
            tokio::select! {
                () = core.wake.notified() => {}
                Some(event) = self.work.next(), if !self.work.is_empty() => self.happened(event),
                () = sleep_until(timer), if timer.is_some() => {}
                Ok(()) = changes.changed() => self.changed(),
            }
        }
    }

    /// Takes in what was announced, and does everything that can be done now.
    fn drive(&mut self) {
        let core = Arc::clone(&self.core);
        let hurried = core.pressed.load(Ordering::Relaxed) > 0 || core.ending.load(Ordering::Acquire);
        self.session.hurry(hurried, now(), &mut self.view);
        loop {
            // Not locked while handlers are called: they may send.
            let dirty = std::mem::take(&mut *core.dirty.lock());
            if dirty.iter().any(|index| *index as usize >= self.view.partitions.len()) {
                self.changed();
            }
            for index in dirty {
                self.session.announced(index, now(), &mut self.view);
            }
            for (partition, waiters, error) in std::mem::take(&mut *core.refused.lock()) {
                waiters.resolve(partition, Err(error));
            }
            if core.look_up.swap(false, Ordering::Relaxed) {
                self.look_up();
            }
            self.session.proceed(now(), &mut self.view);
            let mut idle = true;
            while let Some(action) = self.session.action() {
                idle = false;
                self.carry_out(action);
            }
            if idle {
                return;
            }
        }
    }

    /// Whether everything has its fate.
    fn is_done(&self) -> bool {
        self.session.is_idle()
            && self.view.partitions.iter().all(|partition| partition.queue.lock().is_empty())
    }

    /// Something of the topic changed: its end, its partitions, their leaders or where they are.
    fn changed(&mut self) {
        let topic = self.core.topic.clone();
        self.core.grow();
        self.view.partitions = self.core.partitions.read().clone();
        self.session.grow(self.view.partitions.len());
        if let Some(error) = topic.deleted() {
            let error = error.with_outcome(Outcome::NotSent);
            if self.core.over.set(error.clone()).is_ok() {
                self.core.close_room();
                self.session.end(error, &mut self.view);
            }
            return;
        }
        let doubts = topic.doubts();
        if std::mem::replace(&mut self.doubts, doubts) != doubts {
            self.session.doubt();
        }
        self.spus.clear();
        self.view.leaders.clear();
        for partition in &self.view.partitions {
            let leader = topic.leader(partition.index);
            let id = leader.as_ref().map(|spu| spu.id);
            self.view.leaders.push(id);
            let Some(spu) = leader else {
                partition.set_leaderless();
                continue;
            };
            partition.set_share(self.shares.entry(spu.id).or_default());
            self.spus.insert(spu.id, spu);
        }
        let leading = self.shares.iter().filter(|(id, _)| self.spus.contains_key(id));
        self.core.shares.set(leading.map(|(_, share)| Arc::clone(share)).collect());
        for (attempt, (link, _)) in &self.connections {
            if self.spus.get(&attempt.spu).is_some_and(|now| now != link.spu()) {
                self.session.relocated(*attempt);
            }
        }
        self.session.moved(now(), &mut self.view);
    }

    fn carry_out(&mut self, action: Action<Batch>) {
        match action {
            Action::Connect(attempt) => self.connect(attempt),
            Action::Check(attempt, ends) => self.check(attempt, ends),
            Action::Send(attempt, request) => self.send(attempt, request),
            Action::Disconnect(attempt) => {
                if let Some((_, connection)) = self.connections.remove(&attempt) {
                    connection.fail(connection.timed_out(self.core.cluster.settings.request_timeout));
                }
            }
            Action::Tell { partition, waiters, fate } => {
                self.core.tell(&self.view.partitions[partition as usize], waiters, fate);
            }
            Action::Free(batch) => {
                batch.share.held.fetch_sub(batch.room, Ordering::Relaxed);
                let room = batch.room;
                drop(batch);
                self.core.room.release(room);
                self.core.shares.tell();
            }
            Action::LookUp => self.look_up(),
            Action::Deleted(why) => {
                self.core.topic.declare_deleted(&why);
                self.changed();
            }
            Action::Away { spu, away } => {
                if let Some(share) = self.shares.get(&spu) {
                    share.away.store(away, Ordering::Relaxed);
                    for (partition, leader) in self.view.partitions.iter().zip(&self.view.leaders) {
                        if *leader == Some(spu) {
                            partition.set_share(share);
                        }
                    }
                    self.core.shares.tell();
                }
            }
            Action::Reach { partition, reachable } => {
                self.view.partitions[partition as usize].set_avoided(!reachable);
            }
        }
    }

    fn connect(&mut self, attempt: Attempt) {
        let Some(spu) = self.spus.get(&attempt.spu).cloned() else {
            let message = format!(
                "SPU {} leads no partition of topic {:?} any more",
                attempt.spu,
                self.core.topic.name()
            );
            return self.session.connected(attempt, Err(Error::new(ErrorKind::Connection, message)), now());
        };
        let links = if self.core.committed() { &self.core.own_links } else { &self.core.cluster.links };
        let link = links.to(&spu);
        self.work.push(
            async move {
                let outcome = link.connection().await;
                Event::Connected(attempt, link, outcome)
            }
            .boxed(),
        );
    }

    fn connected(&mut self, attempt: Attempt, link: Link, outcome: Result<Connection>) {
        if self.spus.get(&attempt.spu).is_some_and(|now| now != link.spu()) {
            // It moved meanwhile: tried where it is now.
            return self.connect(attempt);
        }
        let outcome = outcome.map(|connection| {
            let loss = connection.loss();
            self.work.push(async move { Event::Lost(attempt, loss.await) }.boxed());
            self.connections.retain(|other, _| other.spu != attempt.spu);
            self.connections.insert(attempt, (link, connection));
        });
        self.session.connected(attempt, outcome, now());
    }

    fn check(&mut self, attempt: Attempt, ends: Vec<(u32, i64)>) {
        let Some((_, connection)) = self.connections.get(&attempt).cloned() else {
            return self.session.checked(
                attempt,
                Err(Error::new(ErrorKind::Connection, "it was lost")),
                now(),
            );
        };
        let core = Arc::clone(&self.core);
        self.work.push(async move { Event::Checked(attempt, check(core, connection, ends).await) }.boxed());
    }

    fn send(&mut self, attempt: Attempt, request: u64) {
        let entries: Vec<_> = self
            .session
            .request(request)
            .map(|(partition, batch)| (partition, batch.bytes.clone()))
            .collect();
        let core = &self.core;
        let timeout = core.cluster.settings.request_timeout / 2;
        let connection = self.connections.get(&attempt).map(|(_, connection)| connection.clone());
        let written = match &connection {
            Some(connection) => produce(connection, core.topic.name(), &entries, core.committed(), timeout),
            None => Err(Error::new(
                ErrorKind::Connection,
                format!("the connection to SPU {} was lost", attempt.spu),
            )),
        };
        match written {
            Ok(reply) => {
                self.view.turns.insert(request, reply.turn());
                let answer = async move {
                    let answer = reply.answer().await;
                    // Kept until then, even if another one has taken its place.
                    drop(connection);
                    Event::Answered(attempt, request, answer)
                };
                self.work.push(answer.boxed());
            }
            Err(error) => {
                if let Some(connection) = connection.filter(|_| error.kind() == ErrorKind::UnsupportedVersion)
                {
                    // The SPU may offer more on the next one.
                    connection.fail(error.clone());
                }
                let error = at(core, attempt.spu, error);
                self.session.failed(request, Failure::NotSent(error), now(), &mut self.view);
            }
        }
    }

    fn look_up(&mut self) {
        if !std::mem::replace(&mut self.looking_up, true) {
            let asked = self.core.topic.look_up();
            let looking = async move {
                if let Err(error) = asked.await {
                    tracing::debug!(%error, "the topic cannot be looked up");
                }
                Event::LookedUp
            };
            self.work.push(looking.boxed());
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Connected(attempt, link, outcome) => self.connected(attempt, link, outcome),
            Event::Lost(attempt, error) => {
                self.connections.remove(&attempt);
                let error = at(&self.core, attempt.spu, error);
                self.session.lost(attempt, &error, now());
            }
            Event::Checked(attempt, outcome) => {
                let outcome = outcome.map_err(|error| at(&self.core, attempt.spu, error));
                self.session.checked(attempt, outcome, now());
            }
            Event::Answered(attempt, request, outcome) => self.answered(attempt, request, outcome),
            // What it found is in the topic, whose changes are heard.
            Event::LookedUp => self.looking_up = false,
        }
    }

    fn answered(&mut self, attempt: Attempt, request: u64, outcome: Result<ProduceResponse>) {
        self.view.turns.remove(&request);
        let partitions: Vec<u32> = self.session.request(request).map(|(partition, _)| partition).collect();
        match outcome {
            // Answers to other partitions have no codes for these.
            Ok(response) => {
                // A bug, to see what becomes of one.
                #[cfg(test)]
                assert_ne!(response.throttle_time_ms, i32::MIN);
                if let Some((link, _)) = self.connections.get(&attempt) {
                    link.was_of_use();
                }
                let codes = codes_of(response, self.core.topic.name(), &partitions).unwrap_or_default();
                self.session.answered(request, codes, now(), &mut self.view);
            }
            Err(error) => {
                let error = at(&self.core, attempt.spu, error);
                self.session.failed(request, Failure::Lost(error), now(), &mut self.view);
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.core.refuse();
        let error = self.core.given_up.get().cloned().unwrap_or_else(|| Error::closed("producer"));
        // A machine that panicked may do so again: then the records' waiters tell by themselves that they are dropped.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.session.abandon(&error, &mut self.view);
            while let Some(action) = self.session.action() {
                if let Action::Tell { .. } | Action::Free(_) = action {
                    self.carry_out(action);
                }
            }
        }));
        for (partition, waiters, error) in std::mem::take(&mut *self.core.refused.lock()) {
            waiters.resolve(partition, Err(error));
        }
        self.connections.clear();
        self.core.own_links.close();
        self.core.ended.send_replace(true);
        self.core.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

async fn sleep_until(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until.into()).await;
    }
}
