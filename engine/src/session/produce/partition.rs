//! What waits for one partition: one explicit state, and the batches that came back for another try.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Action, Attempt, Front, LEADERLESS_PAUSE, Outside, Parcel, Sent, Session, Timer};
use crate::error::{Error, Outcome};

/// What a partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Nothing waits and nothing is unanswered.
    #[default]
    Idle,
    /// Its open batch lingers.
    Gathering { until: Instant },
    /// It is in line at its leader: its next batch is sealed when its turn comes.
    Ready { spu: i32 },
    /// Batches are unanswered, and no other may follow, or none waits.
    InFlight,
    /// The SPU refused its batch for the moment.
    Retrying { until: Instant, spu: i32 },
    /// Nobody is known to lead it.
    Leaderless { until: Instant },
}

#[derive(Debug)]
pub(super) struct Partition<B> {
    pub(super) state: State,
    /// Batches that come back for another try, oldest first.
    pub(super) returned: VecDeque<Sent<B>>,
    /// The requests that hold batches of it.
    pub(super) unanswered: Vec<u64>,
    /// Failed attempts since the last success.
    pub(super) attempts: u32,
    /// The last failure since the last success.
    pub(super) error: Option<Error>,
    /// The least that its log must hold: up to where it was acknowledged.
    pub(super) end: Option<i64>,
    /// The connection on which it is known to be the same log.
    pub(super) known_on: Option<Attempt>,
    /// The timer of its oldest batch.
    pub(super) deadline: Option<Instant>,
    /// Whether records without a key pass it over; as it was told last.
    avoided: bool,
}

impl<B> Default for Partition<B> {
    fn default() -> Self {
        Partition {
            state: State::Idle,
            returned: VecDeque::new(),
            unanswered: Vec::new(),
            attempts: 0,
            error: None,
            end: None,
            known_on: None,
            deadline: None,
            avoided: false,
        }
    }
}

impl<B> Partition<B> {
    /// Nothing waits.
    pub(super) fn rest(&mut self) {
        self.state = if self.unanswered.is_empty() { State::Idle } else { State::InFlight };
    }
}

impl<B: Parcel> Partition<B> {
    /// Puts a batch back where it belongs.
    pub(super) fn put_back(&mut self, sent: Sent<B>) {
        let at = self.returned.partition_point(|other| other.batch.first() < sent.batch.first());
        self.returned.insert(at, sent);
    }
}

impl<B: Parcel> Session<B> {
    /// Decides what a partition does next.
    pub(super) fn step(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        self.partitions[index as usize].rest();
        if let Some(error) = self.over.clone() {
            return self.lose_gathered(index, &error, outside);
        }
        let Some(front) = self.front(index, outside) else { return };
        self.arm_deadline(index, front.opened);
        if self.partitions[index as usize].unanswered.len() >= self.terms.in_flight {
            return;
        }
        let until = front.opened + self.terms.linger;
        if !front.full && !self.hurried && until > now && outside.announce_when_full(index) {
            self.partitions[index as usize].state = State::Gathering { until };
            return self.arm(until, Timer::Pause(index));
        }
        let Some(spu) = outside.leader(index) else {
            let until = now + LEADERLESS_PAUSE;
            self.partitions[index as usize].state = State::Leaderless { until };
            self.arm(until, Timer::Pause(index));
            self.reach(index, false);
            return self.look_up();
        };
        if self.partitions[index as usize].attempts == 0 {
            self.reach(index, true);
        }
        self.partitions[index as usize].state = State::Ready { spu };
        self.lanes.entry(spu).or_default().turn.push_back(index);
    }

    /// A batch of this partition goes with a request.
    pub(super) fn served(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        if self.partitions[index as usize].unanswered.len() < self.terms.in_flight {
            self.step(index, now, outside);
        } else {
            // Not looked at before the answer comes: until then nobody needs to be woken by records.
            self.partitions[index as usize].rest();
        }
    }

    /// Tells whether records without a key should go to this partition.
    pub(super) fn reach(&mut self, index: u32, reachable: bool) {
        let avoided = std::mem::replace(&mut self.partitions[index as usize].avoided, !reachable);
        if avoided == reachable {
            self.actions.push_back(Action::Reach { partition: index, reachable });
        }
    }

    /// What the partition would send next.
    pub(super) fn front(&mut self, index: u32, outside: &mut impl Outside<Batch = B>) -> Option<Front> {
        match self.partitions[index as usize].returned.front() {
            Some(sent) => Some(Front { opened: sent.batch.opened(), len: sent.batch.len(), full: true }),
            None => outside.look(index),
        }
    }

    /// A request ended that held a batch of this partition.
    pub(super) fn resume(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        if matches!(self.partitions[index as usize].state, State::Idle | State::InFlight) {
            self.step(index, now, outside);
        }
    }

    pub(super) fn pause_over(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        match self.partitions[index as usize].state {
            State::Gathering { until } | State::Retrying { until, .. } | State::Leaderless { until }
                if until <= now =>
            {
                self.step(index, now, outside);
            }
            _ => {}
        }
    }

    /// The server refused a batch for the moment.
    pub(super) fn try_later(&mut self, index: u32, sent: Sent<B>, error: Error, spu: i32, now: Instant) {
        let pause = self.pause_after(self.partitions[index as usize].attempts);
        let until = now + pause;
        let partition = &mut self.partitions[index as usize];
        partition.attempts += 1;
        partition.error = Some(error);
        partition.put_back(sent);
        if let State::Ready { spu } = partition.state
            && let Some(lane) = self.lanes.get_mut(&spu)
        {
            lane.turn.retain(|other| *other != index);
        }
        self.partitions[index as usize].state = State::Retrying { until, spu };
        self.arm(until, Timer::Pause(index));
        self.reach(index, false);
    }

    fn arm_deadline(&mut self, index: u32, opened: Instant) {
        let at = opened + self.terms.delivery_timeout;
        let partition = &mut self.partitions[index as usize];
        if partition.deadline.is_none_or(|armed| at < armed) {
            partition.deadline = Some(at);
            self.arm(at, Timer::Deadline(index));
        }
    }

    /// Tells those whose time is over, and watches over the oldest that is left.
    pub(super) fn deadline_over(
        &mut self,
        index: u32,
        at: Instant,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) {
        if self.partitions[index as usize].deadline != Some(at) {
            return;
        }
        self.partitions[index as usize].deadline = None;
        let mut oldest = self.expire_unanswered(index, now);
        while let Some(sent) = self.partitions[index as usize].returned.front() {
            let opened = sent.batch.opened();
            if !self.is_expired(opened, now) {
                oldest = Some(oldest.map_or(opened, |oldest: Instant| oldest.min(opened)));
                break;
            }
            let error = self.expired(index, false);
            if let Some(sent) = self.partitions[index as usize].returned.pop_front() {
                self.lose(index, sent, &error);
            }
        }
        if self.partitions[index as usize].returned.is_empty() {
            while let Some(front) = outside.look(index) {
                if !self.is_expired(front.opened, now) {
                    oldest = Some(oldest.map_or(front.opened, |oldest| oldest.min(front.opened)));
                    break;
                }
                let error = self.expired(index, false);
                let Some(batch) = outside.take(index) else { break };
                self.lose(index, Sent::new(batch), &error);
            }
        }
        if let Some(opened) = oldest {
            self.arm_deadline(index, opened);
        }
        if self.front(index, outside).is_none() {
            self.gave_up(index);
        }
    }

    /// Tells the batches on their way whose time is over: they may be written all the same. Gives the oldest other one.
    fn expire_unanswered(&mut self, index: u32, now: Instant) -> Option<Instant> {
        let mut oldest = None;
        for id in self.partitions[index as usize].unanswered.clone() {
            let Some(request) = self.requests.get(&id) else { continue };
            for (at, (partition, sent)) in request.batches.iter().enumerate() {
                if *partition != index || sent.told {
                    continue;
                }
                let opened = sent.batch.opened();
                if self.is_expired(opened, now) {
                    self.expire_sent(id, at, index);
                    break;
                }
                oldest = Some(oldest.map_or(opened, |oldest: Instant| oldest.min(opened)));
            }
        }
        oldest
    }

    fn expire_sent(&mut self, id: u64, at: usize, index: u32) {
        let error = self.expired(index, true);
        // Out of its request for a moment, to be told like any other.
        let Some(mut request) = self.requests.remove(&id) else { return };
        self.tell_failure(index, &mut request.batches[at].1, &error, Outcome::Unknown);
        let spu = request.attempt.spu;
        self.requests.insert(id, request);
        self.arm_patience(spu);
    }

    /// Nothing waits any more, and not because it was sent: the next record tries again.
    fn gave_up(&mut self, index: u32) {
        let partition = &mut self.partitions[index as usize];
        let before = partition.state;
        partition.rest();
        match before {
            State::Ready { spu } | State::Retrying { spu, .. } => {
                if let Some(lane) = self.lanes.get_mut(&spu) {
                    lane.turn.retain(|other| *other != index);
                }
            }
            State::Idle | State::Gathering { .. } | State::Leaderless { .. } | State::InFlight => {}
        }
        self.reach(index, true);
    }

    pub(super) fn look_up(&mut self) {
        let asked = self.actions.iter().any(|action| matches!(action, Action::LookUp));
        if !asked {
            self.actions.push_back(Action::LookUp);
        }
    }
}
