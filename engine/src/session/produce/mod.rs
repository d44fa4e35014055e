//! The protocol of one producer as a state machine: events and time in, actions out. It does no I/O, holds no lock and
//! knows no runtime; `producer/driver.rs` carries its actions out.
//!
//! Two parts: what waits for one partition (`partition.rs`), and the lane to one SPU (`lane.rs`), which takes one batch of
//! every partition that is ready into each request, until that has ended (`answers.rs`).
//!
//! Invariants: every batch that was taken in gets exactly one fate; its memory counts until no request holds it any more;
//! of one partition at most `in_flight` batches are unanswered, and a batch that comes back is sent before those that were
//! gathered later; nothing is sent over a connection to a partition that was acknowledged on another one before the end of
//! its log was asked for; patience is lost with a connection, never with one request on it; what may have been written is never sent again because patience was lost while it waited for its
//! replication.

mod answers;
mod fate;
mod lane;
#[cfg(test)]
mod model;
mod partition;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use fluvio_protocol::link::ErrorCode;

pub(crate) use fate::Failure;
use lane::Lane;
use partition::{Partition, State};

use crate::error::{Error, Result};

/// How long a partition without a leader waits before the server is asked again.
const LEADERLESS_PAUSE: Duration = Duration::from_millis(250);

/// What the options say.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) topic: String,
    pub(crate) in_flight: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) retry_initial: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) request_timeout: Duration,
    /// Whether the server answers only once the records are replicated.
    pub(crate) committed: bool,
    /// Whether its logs hold all that was acknowledged, for ever: then a shorter one is that of another topic.
    pub(crate) keeps_all: bool,
}

impl Terms {
    /// How long the server may wait for the replication of each batch of a request. It waits for one after another, and
    /// has to tell of its time-out before patience is lost: what it tells was written, and then that is known.
    pub(crate) fn replication_timeout(&self) -> Duration {
        self.request_timeout / 2
    }

    /// After how long without an answer other SPUs are preferred.
    fn silence(&self) -> Duration {
        (self.request_timeout / 8).min(Duration::from_secs(1))
    }

    /// How long the server may take for a request once it can get to it.
    fn patience(&self, batches: usize) -> Duration {
        if self.committed {
            self.replication_timeout().saturating_mul(u32::try_from(batches + 1).unwrap_or(u32::MAX))
        } else {
            self.request_timeout
        }
    }
}

/// A batch that was sealed.
pub(crate) trait Parcel {
    /// Who is told its fate.
    type Waiters: std::fmt::Debug;
    /// A number that grows with every batch of its partition.
    fn first(&self) -> u64;
    /// Its records.
    fn records(&self) -> u32;
    /// Its bytes in a request.
    fn len(&self) -> usize;
    /// When its first record was accepted.
    fn opened(&self) -> Instant;
    /// Hands out who is told; called once.
    fn waiters(&mut self) -> Self::Waiters;
}

/// What the machine looks at: the records that gather, and who leads.
pub(crate) trait Outside {
    type Batch: Parcel;
    /// What waits in front. After `None` the next record is announced with [`Session::announced`].
    fn look(&mut self, partition: u32) -> Option<Front>;
    /// Has the partition announced once its open batch is full; false if it is full by now.
    fn announce_when_full(&mut self, partition: u32) -> bool;
    /// Seals what waits in front and hands it out. Announces nothing by itself.
    fn take(&mut self, partition: u32) -> Option<Self::Batch>;
    /// The SPU that leads a partition, if that is known.
    fn leader(&self, partition: u32) -> Option<i32>;
    /// Since when the server can get to an unanswered request, as far as its connection knows: others use it too.
    fn turn(&self, request: u64) -> Option<Instant>;
    /// Whether the server has answered what was asked after this request on its connection.
    fn is_left_out(&self, request: u64) -> bool;
}

/// What waits in front of a partition's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) opened: Instant,
    pub(crate) len: usize,
    /// Whether it takes no more records: it does not linger.
    pub(crate) full: bool,
}

/// One connection to one SPU, as far as the machine is concerned. A later one has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt {
    pub(crate) spu: i32,
    pub(crate) number: u64,
}

/// What is to be done. Actions are carried out in their order.
#[derive(Debug)]
pub(crate) enum Action<B: Parcel> {
    /// Connect to an SPU, then tell [`Session::connected`].
    Connect(Attempt),
    /// Ask once how far these partitions reach that were acknowledged up to there, then tell [`Session::checked`].
    Check(Attempt, Vec<(u32, i64)>),
    /// Send a request (see [`Session::request`]), then tell [`Session::answered`] or [`Session::failed`].
    Send(Attempt, u64),
    /// Give a connection up: it does not answer.
    Disconnect(Attempt),
    /// The fate of a batch: its base offset, or why it is not there.
    Tell { partition: u32, waiters: B::Waiters, fate: Result<i64> },
    /// Nothing refers to a batch any more.
    Free(B),
    /// Ask the cluster about the topic.
    LookUp,
    /// An SPU said that the topic is over, or proved it.
    Deleted(String),
    /// Whether an SPU can be reached.
    Away { spu: i32, away: bool },
    /// Whether a partition takes records at the moment, as far as that is its own matter and not its SPU's.
    Reach { partition: u32, reachable: bool },
}

/// A request whose answer is awaited.
#[derive(Debug)]
struct Request<B> {
    attempt: Attempt,
    /// [`Session::doubts`] when it was sent.
    doubts: u64,
    batches: Vec<(u32, Sent<B>)>,
}

/// A batch that was sealed, with what its attempts have led to.
#[derive(Debug)]
struct Sent<B> {
    batch: B,
    /// An attempt that has ended may have written it.
    unknown: bool,
    /// Its fate was told; its memory is still in use.
    told: bool,
    /// The end of its partition as it was known when it was sent last.
    end: Option<i64>,
}

impl<B> Sent<B> {
    fn new(batch: B) -> Self {
        Sent { batch, unknown: false, told: false, end: None }
    }
}

/// What a point in time is kept for. Points that no longer hold are passed over when they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A partition lingers, waits for its retry or for a leader.
    Pause(u32),
    /// The delivery time-out of a partition's oldest batch.
    Deadline(u32),
    /// A lane may connect again.
    Lane(i32),
    /// The answer to a lane's oldest request is late.
    Patience(i32),
    /// An SPU has not answered for so long that others are preferred.
    Silence(i32),
}

/// The machine of one producer.
#[derive(Debug)]
pub(crate) struct Session<B: Parcel> {
    terms: Terms,
    partitions: Vec<Partition<B>>,
    lanes: BTreeMap<i32, Lane>,
    requests: HashMap<u64, Request<B>>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    next_request: u64,
    next_attempt: u64,
    /// How often the cluster was out of sight. An answer to what was asked before proves nothing about what is there now.
    doubts: u64,
    /// Nothing lingers: somebody waits for room, or for the end.
    hurried: bool,
    /// Why nothing is sent any more, once that is so.
    over: Option<Error>,
    actions: VecDeque<Action<B>>,
}

impl<B: Parcel> Session<B> {
    pub(crate) fn new(terms: Terms) -> Self {
        Session {
            terms,
            partitions: Vec::new(),
            lanes: BTreeMap::new(),
            requests: HashMap::new(),
            timers: BinaryHeap::new(),
            next_request: 0,
            next_attempt: 0,
            doubts: 0,
            hurried: false,
            over: None,
            actions: VecDeque::new(),
        }
    }

    /// The topic has so many partitions now: never fewer than before.
    pub(crate) fn grow(&mut self, partitions: usize) {
        self.partitions.resize_with(partitions.max(self.partitions.len()), Partition::default);
    }

    /// The next thing to do.
    pub(crate) fn action(&mut self) -> Option<Action<B>> {
        self.actions.pop_front()
    }

    /// When [`Session::proceed`] is to be called although nothing has happened.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// The batches of a request that is to be sent, by partition.
    pub(crate) fn request(&self, id: u64) -> impl Iterator<Item = (u32, &B)> {
        let batches = self.requests.get(&id).map(|request| &request.batches[..]).unwrap_or_default();
        batches.iter().map(|(partition, sent)| (*partition, &sent.batch))
    }

    /// Whether nobody waits for an answer and nothing waits inside. What gathers outside is not looked at.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.values().all(|request| request.batches.iter().all(|(_, sent)| sent.told))
            && self.partitions.iter().all(|partition| {
                matches!(partition.state, State::Idle | State::InFlight) && partition.returned.is_empty()
            })
    }

    /// Time has passed, or something has happened: does what is due and sends what can be sent.
    pub(crate) fn proceed(&mut self, now: Instant, outside: &mut impl Outside<Batch = B>) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::Pause(index) => self.pause_over(index, now, outside),
                Timer::Deadline(index) => self.deadline_over(index, at, now, outside),
                // The lane connects below.
                Timer::Lane(_) => {}
                Timer::Patience(spu) => self.patience_over(spu, at, now, outside),
                Timer::Silence(spu) => self.silent(spu, at, now, outside),
            }
        }
        let spus: Vec<i32> = self.lanes.keys().copied().collect();
        for spu in spus {
            self.run_lane(spu, now, outside);
        }
    }

    /// A partition has something to send.
    pub(crate) fn announced(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        match self.partitions[index as usize].state {
            State::Idle | State::InFlight | State::Gathering { .. } => self.step(index, now, outside),
            State::Ready { .. } | State::Retrying { .. } | State::Leaderless { .. } => {}
        }
    }

    /// From now on nothing lingers, or things do again.
    pub(crate) fn hurry(&mut self, hurried: bool, now: Instant, outside: &mut impl Outside<Batch = B>) {
        if std::mem::replace(&mut self.hurried, hurried) || !hurried {
            return;
        }
        for index in self.indexes() {
            if matches!(self.partitions[index as usize].state, State::Gathering { .. }) {
                self.step(index, now, outside);
            }
        }
    }

    /// Something changed: leaders may have moved, addresses too.
    pub(crate) fn moved(&mut self, now: Instant, outside: &mut impl Outside<Batch = B>) {
        if self.over.is_some() {
            return;
        }
        // In line they keep their order: news of others put nobody in front of them.
        let mut in_line = Vec::new();
        for (spu, lane) in &mut self.lanes {
            in_line.extend(lane.turn.drain(..).map(|index| (outside.leader(index) != Some(*spu), index)));
            lane.try_again(now);
        }
        // Those that come from elsewhere behind them.
        in_line.sort_by_key(|(moved, _)| *moved);
        for (_, index) in in_line {
            self.step(index, now, outside);
        }
        for index in self.indexes() {
            match self.partitions[index as usize].state {
                State::Leaderless { .. } => self.step(index, now, outside),
                State::Retrying { spu, .. } if outside.leader(index).is_some_and(|leader| leader != spu) => {
                    self.step(index, now, outside);
                }
                _ => {}
            }
        }
    }

    /// The cluster was out of sight for a while: whether the topic is still the one that was written to is asked anew.
    pub(crate) fn doubt(&mut self) {
        self.doubts += 1;
        for partition in &mut self.partitions {
            partition.known_on = None;
        }
    }

    fn indexes(&self) -> std::ops::Range<u32> {
        0..self.partitions.len() as u32
    }

    /// Nothing is sent any more: the topic is over, or the producer is given up. What waits fails at once, what is
    /// unanswered when its request ends.
    pub(crate) fn end(&mut self, error: Error, outside: &mut impl Outside<Batch = B>) {
        for lane in self.lanes.values_mut() {
            lane.turn.clear();
        }
        for index in self.indexes() {
            let partition = &mut self.partitions[index as usize];
            partition.rest();
            for sent in std::mem::take(&mut partition.returned) {
                self.lose(index, sent, &error);
            }
            self.lose_gathered(index, &error, outside);
        }
        self.over.get_or_insert(error);
    }

    /// Gives up what is unanswered too: nobody waits for answers any more.
    pub(crate) fn abandon(&mut self, error: &Error, outside: &mut impl Outside<Batch = B>) {
        self.end(error.clone(), outside);
        for (_, request) in std::mem::take(&mut self.requests) {
            for (index, sent) in request.batches {
                let partition = &mut self.partitions[index as usize];
                partition.unanswered.clear();
                partition.rest();
                self.lose(index, Sent { unknown: true, ..sent }, error);
            }
        }
        for lane in self.lanes.values_mut() {
            lane.requests.clear();
        }
    }

    fn lose_gathered(&mut self, index: u32, error: &Error, outside: &mut impl Outside<Batch = B>) {
        // The look after the last one has later records announced.
        while outside.look(index).is_some() {
            let Some(batch) = outside.take(index) else { return };
            self.lose(index, Sent::new(batch), error);
        }
    }

    fn arm(&mut self, at: Instant, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }
}

/// The answer to one batch of a request.
pub(crate) type Code = (ErrorCode, i64);
