//! The fetch loop of one partition.
//!
//! It keeps one position: the offset behind the last complete batch that went into the buffer. Whatever happens to the
//! connection, it goes on there. The server sends one answer, waits for it to be acknowledged and sends the next; it
//! cuts answers at `max_bytes` in the middle of a batch, so only the end of the last complete batch is acknowledged, and
//! a batch that does not fit is asked for again with a larger limit.

use std::sync::Arc;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::Isolation as WireIsolation;
use fluvio_spu_schema::server::stream_fetch::{StreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest, UpdateOffsetsResponse};
use tokio::sync::watch;
use wire::batch::{BatchError, Batches, Rest};
use wire::view::decode;

use super::{Batch, Core};
use crate::cluster::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::Spu;
use crate::producer::Isolation;
use crate::protocol::RecordBytes;
use crate::transport::{Connection, Reply};

/// Answers of one stream that may wait. The server sends one at a time; a development server can be told to send eight.
const WAITING_ANSWERS: usize = 16;

/// Attempts in a row that end in nonsense before the partition is given up.
const NONSENSE_LIMIT: u32 = 3;

/// How long a lost stream waits for news of its topic before it is opened again.
const REFRESH_LIMIT: Duration = Duration::from_secs(1);

/// What an answer holds besides records: names, offsets, lengths.
const ANSWER_OVERHEAD: usize = 64 * 1024;

type Answer = StreamFetchResponse<RecordBytes>;

/// Why a stream ended.
enum Ended {
    /// Go on with another stream at the current position.
    Again(Error),
    /// The next batch needs answers of this size.
    TooSmall(usize),
    /// The partition cannot go on.
    Fatal(Error),
}

struct Fetch {
    core: Arc<Core>,
    partition: u32,
    position: i64,
    /// A size that a batch was found to need.
    at_least: usize,
    backoff: Backoff,
    nonsense: u32,
}

/// Fetches until the partition cannot go on.
pub(super) async fn run(core: Arc<Core>, partition: u32, position: i64) {
    let mut fetch =
        Fetch { core, partition, position, at_least: 0, backoff: Backoff::reconnect(), nonsense: 0 };
    let error = fetch.run().await;
    fetch.core.buffer.fail(partition, error);
}

impl Fetch {
    async fn run(&mut self) -> Error {
        loop {
            let error = match self.stream().await {
                Ended::TooSmall(needed) => {
                    self.at_least = needed;
                    continue;
                }
                Ended::Fatal(error) => return error,
                Ended::Again(error) => error,
            };
            tracing::debug!(topic = self.core.topic, partition = self.partition, %error, "stream ended, trying again");
            if matches!(error.kind(), ErrorKind::Protocol | ErrorKind::UnsupportedVersion) {
                self.nonsense += 1;
                if self.nonsense >= NONSENSE_LIMIT {
                    return error;
                }
            }
            tokio::time::sleep(self.backoff.next_delay()).await;
            let refresh = self.core.cluster.refresh_topic(&self.core.topic);
            // Bounded: while the SC cannot be reached, the SPUs may well be.
            if let Ok(Err(error)) = tokio::time::timeout(REFRESH_LIMIT, refresh).await
                && error.kind() == ErrorKind::TopicNotFound
            {
                let message = format!("topic {:?} was deleted", self.core.topic);
                return Error::new(ErrorKind::TopicDeleted, message);
            }
        }
    }

    /// Opens a stream at the current position and follows it to its end.
    async fn stream(&mut self) -> Ended {
        match self.follow().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Ended> {
        let core = Arc::clone(&self.core);
        let max_bytes = core.buffer.answer_bytes().max(self.at_least).min(self.most());
        core.buffer.room(self.partition, max_bytes).await;
        let mut changes = core.cluster.view.changes();
        let leader = core.cluster.view.leader(&core.topic, self.partition).ok_or_else(|| {
            let message = format!("{} has no leader at the moment", self.name());
            Ended::Again(Error::new(ErrorKind::Connection, message))
        })?;
        let connection = core.connection(&leader).await.map_err(Ended::Again)?;
        let request = self.request(max_bytes);
        let mut answers = connection.stream(request, WAITING_ANSWERS).map_err(Ended::Again)?;
        loop {
            let answer: Answer = tokio::select! {
                answer = answers.next() => answer.map_err(Ended::Again)?,
                ended = self.moved(&leader, &mut changes) => return Err(ended),
            };
            let stream_id = answer.stream_id;
            let records = self.records_of(answer)?;
            let complete = next_offset(&records.0);
            let next = complete.unwrap_or(self.position).max(self.position);
            // Acknowledged before it is decoded: the server prepares the next answer meanwhile.
            let early =
                complete.is_some() && core.buffer.has_room_for(self.partition, records.0.len(), max_bytes);
            let acknowledged = early.then(|| acknowledge(&connection, stream_id, next)).transpose()?;
            self.take_in(records, max_bytes)?;
            self.position = next;
            let acknowledged = match acknowledged {
                Some(reply) => reply,
                None => {
                    core.buffer.room(self.partition, max_bytes).await;
                    acknowledge(&connection, stream_id, next)?
                }
            };
            self.confirm(&connection, acknowledged).await?;
        }
    }

    /// Completes once another SPU leads the partition: the one that led it may keep its streams open and say nothing.
    async fn moved(&self, leader: &Spu, changes: &mut watch::Receiver<u64>) -> Ended {
        // The view lives in `self`: waiting cannot fail.
        while changes.changed().await.is_ok() {
            let now = self.core.cluster.view.leader(&self.core.topic, self.partition);
            if now.as_ref().is_some_and(|now| now != leader) {
                break;
            }
        }
        let message = format!("SPU {} does not lead {} any more", leader.id, self.name());
        Ended::Again(Error::new(ErrorKind::Connection, message))
    }

    fn request(&self, max_bytes: usize) -> StreamFetchRequest<RecordBytes> {
        let mut request = StreamFetchRequest::default();
        request.topic.clone_from(&self.core.topic);
        request.partition = self.partition;
        request.fetch_offset = self.position;
        // Bounded by the frame cap, which has 31 bits.
        request.max_bytes = max_bytes as i32;
        request.isolation = match self.core.options.isolation {
            Isolation::ReadUncommitted => WireIsolation::ReadUncommitted,
            Isolation::ReadCommitted => WireIsolation::ReadCommitted,
        };
        request
    }

    fn name(&self) -> String {
        format!("partition {} of topic {:?}", self.partition, self.core.topic)
    }

    /// The records of an answer and their high watermark, or what its error code means for the partition.
    fn records_of(&self, answer: Answer) -> Result<(bytes::Bytes, i64), Ended> {
        let code = &answer.partition.error_code;
        if code.is_error() {
            let error = Error::from_code(code, &self.name(), None);
            return Err(match code {
                ErrorCode::TopicDeleted => Ended::Fatal(error),
                _ if error.is_retriable() => Ended::Again(error),
                _ => Ended::Fatal(error),
            });
        }
        Ok((answer.partition.records.0, answer.partition.high_watermark))
    }

    /// Decodes an answer and puts its records into the buffer.
    fn take_in(
        &mut self,
        (data, high_watermark): (bytes::Bytes, i64),
        max_bytes: usize,
    ) -> Result<(), Ended> {
        let decoded = decode(&data, self.position, self.core.options.check_crc);
        if decoded.next_offset.is_some() {
            // Something came through: what failed before is over.
            self.backoff = Backoff::reconnect();
            self.nonsense = 0;
        }
        if !decoded.columns.is_empty() {
            self.core.buffer.push(Batch {
                partition: self.partition,
                high_watermark,
                data: data.slice(..decoded.consumed),
                columns: decoded.columns,
            });
        }
        if let Some(error) = decoded.error {
            return Err(Ended::Fatal(self.broken(error)));
        }
        match decoded.rest {
            Some(Rest::Cut { needed }) if decoded.next_offset.is_none() => {
                Err(self.too_small(needed, max_bytes))
            }
            _ => Ok(()),
        }
    }

    /// The most that an answer may hold. The options leave room for the overhead.
    fn most(&self) -> usize {
        self.core.cluster.settings.max_frame - ANSWER_OVERHEAD
    }

    /// An answer of `asked` bytes does not hold the next batch, which has `needed` bytes as far as that is known. Grows
    /// with every attempt, so that a server that cuts elsewhere is not asked for ever.
    fn too_small(&self, needed: Option<usize>, asked: usize) -> Ended {
        let most = self.most();
        let needed = needed.unwrap_or(0).max(asked.saturating_add(1));
        if needed <= most {
            return Ended::TooSmall(needed.max(asked.saturating_mul(2)).min(most));
        }
        Ended::Fatal(Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "{}: the batch at offset {} needs answers of {needed} bytes, max_frame_bytes allows {most}",
                self.name(),
                self.position
            ),
        ))
    }

    fn broken(&self, error: BatchError) -> Error {
        let kind = match error {
            BatchError::Compressed { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Corrupt,
        };
        let hint = match error {
            BatchError::Compressed { .. } => ", which this version cannot read",
            _ => "",
        };
        Error::new(kind, format!("{}: {error}{hint}", self.name()))
    }

    /// Waits for the server's answer to an acknowledgement.
    async fn confirm(
        &self,
        connection: &Connection,
        reply: Reply<UpdateOffsetsResponse>,
    ) -> Result<(), Ended> {
        let limit = self.core.cluster.settings.request_timeout;
        let answer = match tokio::time::timeout(limit, reply.answer()).await {
            Ok(answer) => answer.map_err(Ended::Again)?,
            Err(_) => {
                let error = connection.timed_out(limit);
                connection.fail(error.clone());
                return Err(Ended::Again(error));
            }
        };
        match answer.status.iter().find(|status| status.error.is_error()) {
            None => Ok(()),
            Some(status) => Err(Ended::Again(Error::from_code(&status.error, &self.name(), None))),
        }
    }
}

/// The offset behind the last complete batch of a record set.
fn next_offset(records: &[u8]) -> Option<i64> {
    Batches::new(records).last().map(|(_, header)| header.next_offset())
}

fn acknowledge(
    connection: &Connection,
    stream_id: u32,
    next: i64,
) -> Result<Reply<UpdateOffsetsResponse>, Ended> {
    let update = OffsetUpdate { offset: next, session_id: stream_id };
    connection.request(UpdateOffsetsRequest::new(vec![update])).map_err(Ended::Again)
}
