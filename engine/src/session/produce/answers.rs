//! The end of a request: its answer, or that there will be none; and what follows for its batches.

use std::time::Instant;

use fluvio_protocol::link::ErrorCode;

use super::fate::{Verdict, verdict};
use super::lane::Way;
use super::partition::State;
use super::{Action, Attempt, Code, Failure, Outside, Parcel, Request, Sent, Session};
use crate::error::{Error, ErrorKind, Outcome};

impl<B: Parcel> Session<B> {
    /// The answer to a request: a code and a base offset for each of its batches, in their order.
    pub(crate) fn answered(
        &mut self,
        id: u64,
        codes: Vec<Code>,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) {
        let Some(request) = self.requests.get(&id) else { return };
        if codes.len() != request.batches.len() {
            let message =
                format!("SPU {} answered a produce request for other partitions", request.attempt.spu);
            let error = Error::new(ErrorKind::Protocol, message);
            return self.failed(id, Failure::Lost(error), now, outside);
        }
        let Some(request) = self.unanswered_no_more(id, now) else { return };
        if let Some(lane) = self.lanes.get_mut(&request.attempt.spu) {
            lane.attempts = 0;
            lane.error = None;
        }
        self.reached(request.attempt.spu);
        let attempt = request.attempt;
        let known_on = (request.doubts == self.doubts).then_some(attempt);
        for ((index, sent), (code, base_offset)) in request.batches.into_iter().zip(codes) {
            self.settle(index, sent, &code, base_offset, (attempt, known_on), now);
            self.resume(index, now, outside);
        }
    }

    fn settle(
        &mut self,
        index: u32,
        mut sent: Sent<B>,
        code: &ErrorCode,
        base_offset: i64,
        (attempt, known_on): (Attempt, Option<Attempt>),
        now: Instant,
    ) {
        let what = format!("partition {index} of topic {:?}", self.terms.topic);
        if code.is_ok() {
            let Some(end) =
                base_offset.checked_add(i64::from(sent.batch.records())).filter(|_| base_offset >= 0)
            else {
                let message = format!("{what}: the server says that it wrote to offset {base_offset}");
                let error = Error::new(ErrorKind::Protocol, message);
                return self.fail(index, sent, &error, Outcome::Unknown);
            };
            let partition = &mut self.partitions[index as usize];
            partition.attempts = 0;
            partition.error = None;
            partition.end = partition.end.max(Some(end));
            partition.known_on = known_on.or(partition.known_on);
            self.reach(index, true);
            if let Some(known) = sent.end.filter(|known| base_offset < *known && self.terms.keeps_all) {
                // No list of topics and no lost connection told of it.
                let why = format!(
                    "was deleted and created again: partition {index} took records at offset {base_offset} after \
                     {known} was its end"
                );
                let error =
                    Error::new(ErrorKind::TopicDeleted, format!("topic {:?} {why}", self.terms.topic));
                self.actions.push_back(Action::Deleted(why));
                return self.fail(index, sent, &error, Outcome::Written);
            }
            return self.acknowledge(index, sent, base_offset);
        }
        let error = Error::from_code(code, &what, None);
        if matches!(code, ErrorCode::TopicDeleted) {
            self.actions.push_back(Action::Deleted("was deleted".to_owned()));
        }
        match verdict(code, self.terms.committed) {
            Verdict::Again => {
                self.look_up();
                // It comes back here perhaps, or another leader has it meanwhile.
                self.partitions[index as usize].known_on = None;
                if sent.told {
                    self.actions.push_back(Action::Free(sent.batch));
                } else if let Some(over) = self.over.clone() {
                    self.lose(index, sent, &over);
                } else {
                    self.try_later(index, sent, error, attempt.spu, now);
                }
            }
            Verdict::Failed(outcome) => {
                // Before or after the topic was declared deleted: it is one error for all.
                sent.unknown |= outcome == Outcome::Unknown;
                self.fail(index, sent, &error, outcome);
            }
        }
    }

    /// A request has no answer and will have none.
    pub(crate) fn failed(
        &mut self,
        id: u64,
        failure: Failure,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) {
        let lost = match &failure {
            Failure::NotSent(_) => None,
            Failure::Lost(error) => Some(error.clone()),
        };
        let Some(attempt) = self.no_answer(id, failure, now, outside) else { return };
        if let Some(lane) = self.lanes.get_mut(&attempt.spu).filter(|lane| lane.is_on(attempt)) {
            match lost {
                Some(error) => self.lane_down(attempt, &error, now),
                // It was lost before: another one is opened at once.
                None => lane.way = Way::Down { until: None },
            }
        }
    }

    /// The batches of a request without an answer come back, or fail. Gives the connection that it was sent over.
    pub(super) fn no_answer(
        &mut self,
        id: u64,
        failure: Failure,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) -> Option<Attempt> {
        let request = self.unanswered_no_more(id, now)?;
        let (error, may_be_written) = match failure {
            Failure::NotSent(error) => (error, false),
            Failure::Lost(error) => (error, true),
        };
        // A link that is closed is replaced by another: its SPU has another address.
        let passes = error.is_retriable() || error.kind() == ErrorKind::Closed;
        // The last one first: each goes to the front of the line.
        for (index, sent) in request.batches.into_iter().rev() {
            self.partitions[index as usize].error = Some(error.clone());
            if !passes {
                let outcome = if may_be_written { Outcome::Unknown } else { Outcome::NotSent };
                self.fail(index, sent, &error, outcome);
            } else {
                self.come_back(index, Sent { unknown: sent.unknown | may_be_written, ..sent });
            }
            self.resume_in_front(index, now, outside);
        }
        Some(request.attempt)
    }

    /// A batch goes back in line, unless its fate was told or nothing is sent any more.
    fn come_back(&mut self, index: u32, sent: Sent<B>) {
        if sent.told {
            self.actions.push_back(Action::Free(sent.batch));
        } else if let Some(over) = self.over.clone() {
            self.lose(index, sent, &over);
        } else {
            self.partitions[index as usize].put_back(sent);
        }
    }

    /// Like `resume`, in front of those in line: it was there before them.
    fn resume_in_front(&mut self, index: u32, now: Instant, outside: &mut impl Outside<Batch = B>) {
        self.resume(index, now, outside);
        if let State::Ready { spu } = self.partitions[index as usize].state
            && let Some(lane) = self.lanes.get_mut(&spu)
            && lane.turn.back() == Some(&index)
        {
            lane.turn.rotate_right(1);
        }
    }

    /// Takes a request out of its lane; the server can get to the next one.
    fn unanswered_no_more(&mut self, id: u64, now: Instant) -> Option<Request<B>> {
        let request = self.requests.remove(&id)?;
        for (index, _) in &request.batches {
            self.partitions[*index as usize].unanswered.retain(|other| *other != id);
        }
        if let Some(lane) = self.lanes.get_mut(&request.attempt.spu) {
            lane.requests.retain(|other| *other != id);
            lane.since = (!lane.requests.is_empty()).then_some(now);
        }
        self.arm_patience(request.attempt.spu);
        Some(request)
    }

    /// A request has no answer, and its batches are not tried again.
    pub(super) fn give_up(
        &mut self,
        id: u64,
        error: &Error,
        now: Instant,
        outside: &mut impl Outside<Batch = B>,
    ) {
        let Some(request) = self.unanswered_no_more(id, now) else { return };
        for (index, sent) in request.batches {
            self.fail(index, sent, error, Outcome::Unknown);
            self.resume(index, now, outside);
        }
    }
}
