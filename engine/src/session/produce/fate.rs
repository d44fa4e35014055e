//! What becomes of a batch: acknowledged, to be tried again, or failed with what is known of its outcome.

use std::time::{Duration, Instant};

use fluvio_protocol::link::ErrorCode;

use super::partition::State;
use super::{Action, Parcel, Sent, Session};
use crate::error::{Error, ErrorKind, Outcome};

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It was not written to the connection.
    NotSent(Error),
    /// The connection was lost, or the answer makes no sense: the server may have done it.
    Lost(Error),
}

/// What a code of the server means for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was written, and that passes: another try.
    Again,
    /// It failed for good.
    Failed(Outcome),
}

/// What the server's error means.
pub(super) fn verdict(code: &ErrorCode, committed: bool) -> Verdict {
    match code {
        ErrorCode::NotLeaderForPartition
        | ErrorCode::PartitionNotLeader
        | ErrorCode::PartitionPendingInitialization
        | ErrorCode::TopicPendingInitialization
        | ErrorCode::TopicNotProvisioned
        | ErrorCode::SpuOffline => Verdict::Again,
        // The server waits for replication only after it has written.
        ErrorCode::RequestTimedOut { .. } => Verdict::Failed(Outcome::Written),
        ErrorCode::TopicDeleted if committed => Verdict::Failed(Outcome::Unknown),
        ErrorCode::TopicDeleted
        | ErrorCode::TopicNotFound
        | ErrorCode::MessageTooLarge
        | ErrorCode::CompressionError
        | ErrorCode::SmartModuleNotFound { .. }
        | ErrorCode::SmartModuleInvalid { .. }
        | ErrorCode::SmartModuleRuntimeError(_)
        | ErrorCode::PermissionDenied => Verdict::Failed(Outcome::NotSent),
        _ => Verdict::Failed(Outcome::Unknown),
    }
}

impl<B: Parcel> Session<B> {
    /// The n-th attempt failed: the pause before the next, which doubles.
    pub(super) fn pause_after(&self, attempts: u32) -> Duration {
        let doubled = self.terms.retry_initial.saturating_mul(1 << attempts.min(16));
        doubled.min(self.terms.retry_max)
    }

    /// A batch failed for good.
    pub(super) fn lose(&mut self, index: u32, sent: Sent<B>, error: &Error) {
        let outcome = if sent.unknown { Outcome::Unknown } else { Outcome::NotSent };
        self.fail(index, sent, error, outcome);
    }

    pub(super) fn fail(&mut self, index: u32, mut sent: Sent<B>, error: &Error, outcome: Outcome) {
        self.tell_failure(index, &mut sent, error, outcome);
        self.actions.push_back(Action::Free(sent.batch));
    }

    /// Tells that a batch failed, unless it was told before.
    pub(super) fn tell_failure(&mut self, index: u32, sent: &mut Sent<B>, error: &Error, outcome: Outcome) {
        if std::mem::replace(&mut sent.told, true) {
            return;
        }
        // An earlier attempt may have written it, whatever this one did.
        let outcome = if sent.unknown && outcome == Outcome::NotSent { Outcome::Unknown } else { outcome };
        let error = error.clone().with_partition(&self.terms.topic, index).with_outcome(outcome);
        let waiters = sent.batch.waiters();
        self.actions.push_back(Action::Tell { partition: index, waiters, fate: Err(error) });
    }

    pub(super) fn acknowledge(&mut self, index: u32, mut sent: Sent<B>, base_offset: i64) {
        // Its room first: whoever is told may want to send.
        let waiters = (!sent.told).then(|| sent.batch.waiters());
        self.actions.push_back(Action::Free(sent.batch));
        if let Some(waiters) = waiters {
            self.actions.push_back(Action::Tell { partition: index, waiters, fate: Ok(base_offset) });
        }
    }

    /// The error of a batch whose time is over.
    pub(super) fn expired(&self, index: u32, in_flight: bool) -> Error {
        let partition = &self.partitions[index as usize];
        let at_the_lane = || match partition.state {
            State::Ready { spu } => self.lanes.get(&spu)?.error.as_ref(),
            _ => None,
        };
        let last = partition.error.as_ref().or_else(at_the_lane);
        let cause = match last {
            Some(error) => error.message(),
            None if in_flight => "the server did not answer",
            None => "it was never sent",
        };
        let error = Error::new(
            ErrorKind::Timeout,
            format!(
                "no acknowledgement for partition {index} of topic {:?} within the delivery time-out of {} ms: {cause}",
                self.terms.topic,
                self.terms.delivery_timeout.as_millis()
            ),
        );
        match last.and_then(|error| Some((error.spu()?, error.endpoint()?.to_owned()))) {
            Some((spu, endpoint)) => error.with_spu(spu, &endpoint),
            None => error,
        }
    }

    pub(super) fn is_expired(&self, opened: Instant, now: Instant) -> bool {
        opened + self.terms.delivery_timeout <= now
    }
}
