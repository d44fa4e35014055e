//! Streams: one answer in flight, the next one once its end is acknowledged.
//!
//! A stream lives until its connection closes; no request ends it. Each has a task that waits for records and
//! acknowledgements; the records themselves are slices of the log.

use std::collections::HashMap;
use std::sync::Arc;

use fluvio_protocol::Version;
use fluvio_protocol::api::RequestHeader;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};
use fluvio_spu_schema::server::stream_fetch::{FileStreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::{
    OffsetUpdateStatus, UpdateOffsetsRequest, UpdateOffsetsResponse,
};
use fluvio_types::SpuId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::records::RecordsFollow;
use crate::cluster::{Cluster, Replica};
use crate::frames;
use crate::log::{LogSlice, ReadError};
use crate::outbox::Outbox;

/// The streams of one connection.
pub(super) struct Streams {
    cluster: Arc<Cluster>,
    spu: SpuId,
    outbox: Arc<Outbox>,
    closed: CancellationToken,
    sessions: HashMap<u32, Session>,
    last_id: u32,
}

/// What a connection knows about one of its streams.
pub(super) struct Session {
    pub(super) replica: ReplicaKey,
    pub(super) consumer_id: Option<String>,
    /// The last acknowledged offset; `None` before the first.
    acknowledged: watch::Sender<Option<i64>>,
}

impl Streams {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        spu: SpuId,
        outbox: Arc<Outbox>,
        closed: CancellationToken,
    ) -> Self {
        Streams { cluster, spu, outbox, closed, sessions: HashMap::new(), last_id: 0 }
    }

    pub(super) fn session(&self, id: u32) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Opens a stream; its answers carry the correlation id of the request.
    pub(super) fn open(
        &mut self,
        header: &RequestHeader,
        request: FileStreamFetchRequest,
    ) -> anyhow::Result<()> {
        let answers = Answers {
            outbox: self.outbox.clone(),
            correlation_id: header.correlation_id(),
            version: header.api_version(),
            stream_id: 0,
            topic: request.topic.clone(),
            partition: request.partition,
        };
        let Some(replica) = self.cluster.replica_led_by(self.spu, &request.topic, request.partition) else {
            return answers.fail(ErrorCode::NotLeaderForPartition);
        };
        self.last_id += 1;
        let answers = Answers { stream_id: self.last_id, ..answers };
        let acknowledged = watch::Sender::new(None);
        let acknowledgements = acknowledged.subscribe();
        let session =
            Session { replica: replica.key.clone(), consumer_id: request.consumer_id, acknowledged };
        self.sessions.insert(self.last_id, session);
        if let Err(code) = unsupported_smart_modules(&request.smartmodules) {
            return answers.fail(code);
        }
        let mut stream = Stream {
            replica,
            spu: self.spu,
            answers,
            position: request.fetch_offset,
            isolation: request.isolation,
            // The real server reads a negative limit as a huge one.
            max_bytes: request.max_bytes as u32 as usize,
            cut: self.cluster.config.cut_batches,
        };
        let closed = self.closed.clone();
        tokio::spawn(async move {
            // A stream that panics takes its connection with it: the client must not wait for ever.
            let guard = closed.clone().drop_guard();
            let ended = tokio::select! {
                ended = stream.run(acknowledgements) => ended,
                () = closed.cancelled() => Ok(()),
            };
            match ended {
                Ok(()) => drop(guard.disarm()),
                Err(error) => tracing::warn!("stream ended: {error:#}"),
            }
        });
        Ok(())
    }

    /// Takes acknowledgements, each of which lets its stream go on from that offset.
    pub(super) fn acknowledge(&self, request: UpdateOffsetsRequest) -> UpdateOffsetsResponse {
        let status = request
            .offsets
            .into_iter()
            .map(|update| {
                let error = match self.sessions.get(&update.session_id) {
                    Some(session) => {
                        session
                            .acknowledged
                            .send_if_modified(|last| last.replace(update.offset) != Some(update.offset));
                        ErrorCode::None
                    }
                    None => ErrorCode::FetchSessionNotFoud,
                };
                OffsetUpdateStatus { session_id: update.session_id, error }
            })
            .collect();
        UpdateOffsetsResponse { status }
    }
}

/// An open stream.
struct Stream {
    replica: Arc<Replica>,
    /// Whose stream it is: it ends when another SPU becomes the leader.
    spu: SpuId,
    answers: Answers,
    /// Where the next answer begins.
    position: i64,
    isolation: Isolation,
    max_bytes: usize,
    cut: bool,
}

impl Stream {
    async fn run(&mut self, mut acknowledgements: watch::Receiver<Option<i64>>) -> anyhow::Result<()> {
        let mut ends = self.replica.log.watch();
        let mut leader = self.replica.leader.subscribe();
        let isolation = self.isolation;
        let Some(mut in_flight) = self.advance()? else {
            return Ok(());
        };
        loop {
            tokio::select! {
                changed = acknowledgements.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if let Some(offset) = *acknowledgements.borrow_and_update() {
                        self.position = offset;
                        in_flight = false;
                    }
                }
                // Acknowledgements wake this task when an answer is in flight; only the stream's end does besides.
                changed = ends.wait_for(|end| {
                    end.deleted || (!in_flight && end.visible(isolation) > self.position)
                }) => {
                    match changed {
                        Ok(end) if !end.deleted => {}
                        _ => return self.answers.fail(ErrorCode::TopicDeleted),
                    }
                }
                _ = leader.wait_for(|leader| *leader != self.spu) => {
                    return self.answers.fail(ErrorCode::NotLeaderForPartition);
                }
            }
            if !in_flight && self.replica.log.ends().visible(isolation) > self.position {
                match self.advance()? {
                    Some(sent) => in_flight = sent,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Sends what there is at the position. `true`: an answer is in flight; `None`: an error has ended the stream.
    fn advance(&mut self) -> anyhow::Result<Option<bool>> {
        match self.replica.log.read(self.position, self.isolation, self.max_bytes, self.cut) {
            Ok(slice) if slice.len == 0 => Ok(Some(false)),
            Ok(slice) => self.answers.send(slice).map(|()| Some(true)),
            Err(error) => {
                let offset = self.position;
                let code = match error {
                    ReadError::Evicted { start } => {
                        ErrorCode::OffsetEvicted { offset, next_available: start }
                    }
                    ReadError::BeyondEnd { end } => {
                        ErrorCode::Other(format!("start offset: {offset} is greater than leo: {end}"))
                    }
                };
                self.answers.fail(code).map(|()| None)
            }
        }
    }
}

/// Where the answers of a stream go.
struct Answers {
    outbox: Arc<Outbox>,
    correlation_id: i32,
    version: Version,
    stream_id: u32,
    topic: String,
    partition: u32,
}

impl Answers {
    fn send(&self, slice: LogSlice) -> anyhow::Result<()> {
        let partition = FetchablePartitionResponse {
            partition_index: self.partition,
            high_watermark: slice.high_watermark,
            log_start_offset: slice.start,
            records: RecordsFollow(slice.len),
            ..FetchablePartitionResponse::default()
        };
        self.write(partition, slice)
    }

    fn fail(&self, error_code: ErrorCode) -> anyhow::Result<()> {
        let partition = FetchablePartitionResponse {
            partition_index: self.partition,
            error_code,
            ..FetchablePartitionResponse::default()
        };
        self.write(partition, LogSlice::default())
    }

    fn write(
        &self,
        partition: FetchablePartitionResponse<RecordsFollow>,
        slice: LogSlice,
    ) -> anyhow::Result<()> {
        let stream_id = self.stream_id;
        let response = StreamFetchResponse { topic: self.topic.clone(), stream_id, partition };
        let head = frames::encode_head(self.correlation_id, &response, self.version, slice.len)?;
        self.outbox.send(std::iter::once(head).chain(slice.pieces));
        Ok(())
    }
}

/// SmartModules are refused as long as this server has no engine for them: passing records through would be a lie.
pub(super) fn unsupported_smart_modules(modules: &[SmartModuleInvocation]) -> Result<(), ErrorCode> {
    match modules.first().map(|module| &module.wasm) {
        None => Ok(()),
        Some(SmartModuleInvocationWasm::Predefined(name)) => {
            Err(ErrorCode::SmartModuleNotFound { name: name.clone() })
        }
        Some(SmartModuleInvocationWasm::AdHoc(_)) => {
            let message = "the development server has no SmartModule engine".to_owned();
            Err(ErrorCode::SmartModuleChainInitError(message))
        }
    }
}
