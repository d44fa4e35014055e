//! The lane to one SPU: its connection, the partitions in line, and the requests that are unanswered.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Action, Attempt, Failure, Outside, Parcel, Request, Sent, Session, Timer};
use crate::error::{Error, ErrorKind, Result};

/// Where the connection of a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There is none, and none is tried before this.
    Down { until: Option<Instant> },
    /// One is being opened.
    Connecting(Attempt),
    /// It is open, and it is being asked whether the topic is still the one that was written to.
    Checking(Attempt),
    /// Requests go over it.
    Up(Attempt),
    /// The SPU is elsewhere now: answers are still awaited, and nothing else is sent over it.
    Leaving(Attempt),
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) way: Way,
    /// Partitions with something to send, in their order.
    pub(super) turn: VecDeque<u32>,
    /// Unanswered requests, in the order in which the server gets to them.
    pub(super) requests: VecDeque<u64>,
    /// Since when the server can get to the first of them.
    pub(super) since: Option<Instant>,
    /// The timer of the first of them.
    patience: Option<Instant>,
    /// When to see whether it is still unanswered.
    silence: Option<Instant>,
    /// [`Session::doubts`] when the ends of logs were asked for last.
    doubts: u64,
    /// Failed attempts since the last success.
    pub(super) attempts: u32,
    /// The last failure since the last success.
    pub(super) error: Option<Error>,
    /// Whether records without a key pass its partitions over.
    away: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            way: Way::Down { until: None },
            turn: VecDeque::new(),
            requests: VecDeque::new(),
            since: None,
            patience: None,
            silence: None,
            doubts: 0,
            attempts: 0,
            error: None,
            away: false,
        }
    }
}

impl Lane {
    pub(super) fn is_on(&self, attempt: Attempt) -> bool {
        match self.way {
            Way::Down { .. } => false,
            Way::Connecting(now) | Way::Checking(now) | Way::Up(now) | Way::Leaving(now) => now == attempt,
        }
    }

    /// Something changed: the pause before the next attempt to connect is over.
    pub(super) fn try_again(&mut self, now: Instant) {
        if let Way::Down { until: Some(until) } = &mut self.way {
            *until = now.min(*until);
        }
    }
}

impl<B: Parcel> Session<B> {
    /// Connects, or sends what fits.
    pub(super) fn run_lane(&mut self, spu: i32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        self.nothing_waits(spu, now);
        let limit = self.terms.in_flight;
        while let Some(lane) = self.lanes.get_mut(&spu).filter(|lane| !lane.turn.is_empty()) {
            match lane.way {
                Way::Down { until } if until.is_none_or(|until| until <= now) => {
                    let attempt = Attempt { spu, number: self.next_attempt };
                    self.next_attempt += 1;
                    lane.way = Way::Connecting(attempt);
                    // It counts from here, whatever was asked before.
                    lane.silence = None;
                    self.actions.push_back(Action::Connect(attempt));
                    return self.arm_silence(spu, now);
                }
                Way::Leaving(_) if lane.requests.is_empty() => lane.way = Way::Down { until: None },
                Way::Up(attempt) if lane.requests.len() < limit => {
                    if !self.gather(attempt, now, outside) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Takes one batch of each partition in line, as many as fit, and sends them. False if there is nothing to send now.
    fn gather(&mut self, attempt: Attempt, now: Instant, outside: &mut impl Outside<Batch = B>) -> bool {
        let spu = attempt.spu;
        let id = self.next_request;
        let mut batches: Vec<(u32, Sent<B>)> = Vec::new();
        let mut size = 0;
        let in_line = self.lanes.get(&spu).map_or(0, |lane| lane.turn.len());
        for _ in 0..in_line {
            let Some(index) = self.lanes.get_mut(&spu).and_then(|lane| lane.turn.pop_front()) else { break };
            let Some(front) = self.front(index, outside).filter(|_| outside.leader(index) == Some(spu))
            else {
                self.step(index, now, outside);
                continue;
            };
            let partition = &mut self.partitions[index as usize];
            let unsure = partition.end.is_some() && partition.known_on != Some(attempt);
            let too_much = !batches.is_empty() && size + front.len > self.terms.max_request_bytes;
            if unsure || too_much {
                if let Some(lane) = self.lanes.get_mut(&spu) {
                    lane.turn.push_front(index);
                }
                if unsure {
                    self.check(attempt, outside);
                }
                break;
            }
            let sent = match partition.returned.pop_front() {
                Some(sent) => sent,
                None => match outside.take(index) {
                    Some(batch) => Sent::new(batch),
                    None => {
                        partition.rest();
                        continue;
                    }
                },
            };
            let sent = Sent { end: partition.end, ..sent };
            partition.unanswered.push(id);
            size += sent.batch.len();
            batches.push((index, sent));
        }
        if batches.is_empty() {
            return false;
        }
        self.next_request += 1;
        let served: Vec<u32> = batches.iter().map(|(index, _)| *index).collect();
        self.requests.insert(id, Request { attempt, doubts: self.doubts, batches });
        if let Some(lane) = self.lanes.get_mut(&spu) {
            lane.requests.push_back(id);
            lane.since.get_or_insert(now);
        }
        self.arm_patience(spu);
        self.actions.push_back(Action::Send(attempt, id));
        // Behind those whose turn did not come.
        for index in served {
            self.served(index, now, outside);
        }
        true
    }

    /// Asks, once for all of them, whether the partitions that were acknowledged on another connection are what they were.
    fn check(&mut self, attempt: Attempt, outside: &impl Outside<Batch = B>) {
        let ends = self.indexes().filter_map(|index| {
            let partition = &self.partitions[index as usize];
            let end = partition.end.filter(|_| partition.known_on != Some(attempt))?;
            (outside.leader(index) == Some(attempt.spu)).then_some((index, end))
        });
        let ends = ends.collect();
        if let Some(lane) = self.lanes.get_mut(&attempt.spu) {
            lane.way = Way::Checking(attempt);
            lane.doubts = self.doubts;
            self.actions.push_back(Action::Check(attempt, ends));
        }
    }

    /// The outcome of [`Action::Connect`].
    pub(crate) fn connected(&mut self, attempt: Attempt, outcome: Result<()>, now: Instant) {
        let connecting = |lane: &&mut Lane| lane.way == Way::Connecting(attempt);
        let Some(lane) = self.lanes.get_mut(&attempt.spu).filter(connecting) else { return };
        match outcome {
            Ok(()) => {
                // Whoever accepts connections need not answer: only an answer shows that it is there.
                lane.way = Way::Up(attempt);
            }
            Err(error) => self.lane_down(attempt, &error, now),
        }
    }

    /// The outcome of [`Action::Check`]: the partitions that were asked for, or the proof that the topic is over.
    pub(crate) fn checked(
        &mut self,
        attempt: Attempt,
        outcome: Result<std::result::Result<Vec<u32>, String>>,
        now: Instant,
    ) {
        let Some(lane) = self.lanes.get_mut(&attempt.spu).filter(|lane| lane.is_on(attempt)) else { return };
        match outcome {
            Ok(Ok(partitions)) => {
                if lane.way == Way::Checking(attempt) {
                    lane.way = Way::Up(attempt);
                }
                let asked_in_time = lane.doubts == self.doubts;
                for index in partitions.into_iter().filter(|_| asked_in_time) {
                    self.partitions[index as usize].known_on = Some(attempt);
                }
            }
            Ok(Err(why)) => {
                lane.way = Way::Down { until: None };
                self.actions.push_back(Action::Deleted(why));
            }
            Err(error) => self.lane_down(attempt, &error, now),
        }
    }

    /// A connection was lost, whether or not something was unanswered on it.
    pub(crate) fn lost(&mut self, attempt: Attempt, error: &Error, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&attempt.spu).filter(|lane| lane.is_on(attempt)) else { return };
        if lane.turn.is_empty() && lane.requests.is_empty() {
            // The next record opens another one.
            lane.way = Way::Down { until: None };
        } else {
            self.lane_down(attempt, error, now);
        }
    }

    /// An SPU has another address than the one that a connection leads to.
    pub(crate) fn relocated(&mut self, attempt: Attempt) {
        let Some(lane) = self.lanes.get_mut(&attempt.spu).filter(|lane| lane.is_on(attempt)) else { return };
        lane.way = match lane.way {
            Way::Up(attempt) | Way::Checking(attempt) => Way::Leaving(attempt),
            way => way,
        };
    }

    /// There is no connection, and somebody wanted one.
    pub(super) fn lane_down(&mut self, attempt: Attempt, error: &Error, now: Instant) {
        let attempts = self.lanes.get(&attempt.spu).map_or(0, |lane| lane.attempts);
        let until = now + self.pause_after(attempts);
        let Some(lane) = self.lanes.get_mut(&attempt.spu) else { return };
        lane.attempts += 1;
        lane.way = Way::Down { until: Some(until) };
        lane.error = Some(error.clone());
        self.away(attempt.spu);
        self.arm(until, Timer::Lane(attempt.spu));
        self.look_up();
    }

    fn away(&mut self, spu: i32) {
        if let Some(lane) = self.lanes.get_mut(&spu)
            && !std::mem::replace(&mut lane.away, true)
        {
            self.actions.push_back(Action::Away { spu, away: true });
        }
    }

    /// An SPU gave a sign of life.
    pub(super) fn reached(&mut self, spu: i32) {
        if let Some(lane) = self.lanes.get_mut(&spu)
            && std::mem::replace(&mut lane.away, false)
        {
            self.actions.push_back(Action::Away { spu, away: false });
        }
    }

    /// If nothing waits for an SPU that is away, nobody finds out when it comes back: after the pause the next record tries.
    fn nothing_waits(&mut self, spu: i32, now: Instant) {
        let Some(lane) = self.lanes.get(&spu).filter(|lane| lane.turn.is_empty() && lane.requests.is_empty())
        else {
            return;
        };
        match lane.way {
            Way::Connecting(_) => {}
            Way::Down { until } if until.is_some_and(|until| until > now) => {}
            _ => self.reached(spu),
        }
    }

    /// Until when the first request of a lane may be unanswered, if the server gets to it now or got to it at `turn`.
    fn patience_until(&self, spu: i32, turn: Option<Instant>) -> Option<Instant> {
        let lane = self.lanes.get(&spu)?;
        let first = self.requests.get(lane.requests.front()?)?;
        let patience = if first.batches.iter().all(|(_, sent)| sent.told) {
            // Replication is waited for in vain.
            self.terms.request_timeout
        } else {
            self.terms.patience(first.batches.len())
        };
        Some(lane.since.max(turn)? + patience)
    }

    pub(super) fn arm_patience(&mut self, spu: i32) {
        if let Some(until) = self.patience_until(spu, None) {
            self.arm_patience_for(spu, until);
        }
        if let Some(since) = self.lanes.get(&spu).and_then(|lane| lane.since) {
            self.arm_silence(spu, since);
        }
    }

    /// An SPU has something to answer since then.
    fn arm_silence(&mut self, spu: i32, since: Instant) {
        let until = since + self.terms.silence();
        if let Some(lane) = self.lanes.get_mut(&spu)
            && lane.silence.is_none()
        {
            lane.silence = Some(until);
            self.arm(until, Timer::Silence(spu));
        }
    }

    /// Whether an SPU has not answered for so long that records without a key had better go elsewhere.
    pub(super) fn silent(&mut self, spu: i32, at: Instant, now: Instant, outside: &impl Outside<Batch = B>) {
        let silence = self.terms.silence();
        let Some(lane) = self.lanes.get_mut(&spu).filter(|lane| lane.silence == Some(at)) else { return };
        lane.silence = None;
        let Some(first) = lane.requests.front() else {
            if matches!(lane.way, Way::Connecting(_) | Way::Checking(_)) {
                self.away(spu);
            }
            return;
        };
        let Some(since) = lane.since.max(outside.turn(*first)) else { return };
        if since + silence > now {
            lane.silence = Some(since + silence);
            self.arm(since + silence, Timer::Silence(spu));
        } else {
            self.away(spu);
        }
    }

    fn arm_patience_for(&mut self, spu: i32, until: Instant) {
        if let Some(lane) = self.lanes.get_mut(&spu)
            && lane.patience.is_none_or(|armed| until < armed)
        {
            lane.patience = Some(until);
            self.arm(until, Timer::Patience(spu));
        }
    }

    /// The server may have lost what was sent to it: the connection is given up.
    pub(super) fn patience_over(
        &mut self,
        spu: i32,
        at: Instant,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) {
        let Some(lane) = self.lanes.get_mut(&spu).filter(|lane| lane.patience == Some(at)) else { return };
        lane.patience = None;
        let Some(first) = lane.requests.front().copied() else { return };
        let Some(until) = self.patience_until(spu, outside.turn(first)) else { return };
        if until > now {
            return self.arm_patience_for(spu, until);
        }
        let error = Error::new(
            ErrorKind::Timeout,
            format!("no answer from SPU {spu} within {} ms", self.terms.request_timeout.as_millis()),
        );
        if outside.is_left_out(first) {
            // The connection is well: only this answer is lost.
            return match self.terms.committed {
                true => self.give_up(first, &error, now, outside),
                false => drop(self.no_answer(first, Failure::Lost(error), now, outside)),
            };
        }
        let Some(attempt) = self.requests.get(&first).map(|request| request.attempt) else { return };
        let on_it = |id: &u64| self.requests.get(id).is_some_and(|request| request.attempt == attempt);
        let ids: Vec<u64> = self
            .lanes
            .get(&spu)
            .map(|lane| lane.requests.iter().copied().filter(on_it).collect())
            .unwrap_or_default();
        for id in ids.into_iter().rev() {
            if self.terms.committed {
                // It waits for its replication, and then it was written.
                self.give_up(id, &error, now, outside);
            } else {
                self.failed(id, Failure::Lost(error.clone()), now, outside);
            }
        }
        self.actions.push_back(Action::Disconnect(attempt));
        if self.lanes.get(&spu).is_some_and(|lane| lane.is_on(attempt)) {
            self.lane_down(attempt, &error, now);
        }
    }
}
