//! Streams: up to a window of answers in flight, one on the real server; the next one once the end of one is acknowledged.
//!
//! A stream lives until its connection closes; no request ends it. Each has a task that waits for records and
//! acknowledgements; the records themselves are slices of the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use fluvio_protocol::Version;
use fluvio_protocol::api::RequestHeader;
use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocation;
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
use crate::smart::{Chain, Limit, StoredBatches, Transformed, start_chain};

/// Where the checksum stands in a batch.
const CRC_AT: usize = 17;

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
    /// A session outlives its topic, whose log it must not keep.
    pub(super) replica: Weak<Replica>,
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
            Session { replica: Arc::downgrade(&replica), consumer_id: request.consumer_id, acknowledged };
        self.sessions.insert(self.last_id, session);
        let mut stream = Stream {
            cluster: self.cluster.clone(),
            replica,
            spu: self.spu,
            answers,
            position: request.fetch_offset,
            isolation: request.isolation,
            // The real server reads a negative limit as a huge one.
            max_bytes: (request.max_bytes as u32 as usize).max(1),
            window: Window::new(self.cluster.config.window),
            chain: None,
        };
        let modules = request.smartmodules;
        let closed = self.closed.clone();
        let open = self.outbox.counts().stream();
        // Waited for when the server ends: a stream keeps the data directory open.
        self.cluster.tasks.spawn(async move {
            let _open = open;
            // A stream that panics takes its connection with it: the client must not wait for ever.
            let guard = closed.clone().drop_guard();
            let ended = tokio::select! {
                ended = stream.run(modules, acknowledgements) => ended,
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
    cluster: Arc<Cluster>,
    replica: Arc<Replica>,
    /// Whose stream it is: it ends when another SPU becomes the leader.
    spu: SpuId,
    answers: Answers,
    /// Where the next answer begins.
    position: i64,
    isolation: Isolation,
    max_bytes: usize,
    window: Window,
    /// The SmartModules that the records pass.
    chain: Option<Chain>,
}

impl Stream {
    async fn run(
        &mut self,
        modules: Vec<SmartModuleInvocation>,
        mut acknowledgements: watch::Receiver<Option<i64>>,
    ) -> anyhow::Result<()> {
        if !modules.is_empty() {
            match start_chain(&self.cluster, &self.replica, modules, self.answers.version).await {
                Ok(chain) => self.chain = Some(chain),
                Err(code) => return self.answers.fail(code),
            }
        }
        let mut ends = self.replica.log.watch();
        let mut leader = self.replica.leader.subscribe();
        let isolation = self.isolation;
        // The first read is made even if there is nothing: it finds out whether the position is valid.
        let mut opened = false;
        // Up to here there was nothing to send.
        let mut exhausted = i64::MIN;
        loop {
            while !self.window.is_full() {
                let visible = ends.borrow_and_update().visible(isolation);
                if opened && visible <= self.position.max(exhausted) {
                    break;
                }
                opened = true;
                match self.advance().await? {
                    None => return Ok(()),
                    Some(0) => exhausted = visible,
                    Some(_) => {}
                }
            }
            let (waits, position) = (!self.window.is_full(), self.position.max(exhausted));
            tokio::select! {
                changed = acknowledgements.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let offset = *acknowledgements.borrow_and_update();
                    // An acknowledgement of something else than was sent says where to go on, be it back or ahead.
                    if let Some(offset) = offset.filter(|offset| !self.window.acknowledge(*offset)) {
                        self.position = offset;
                        exhausted = i64::MIN;
                    }
                }
                // Acknowledgements wake this task when the window is full; only the stream's end does besides.
                changed = ends.wait_for(|end| {
                    end.deleted || (waits && end.visible(isolation) > position)
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
        }
    }

    /// Sends what there is at the position and says how many bytes; `None`: an error has ended the stream.
    async fn advance(&mut self) -> anyhow::Result<Option<usize>> {
        // A chain reads for itself; here it only matters whether there is something.
        let (max_bytes, cut) = match &self.chain {
            None => (self.max_bytes, self.cluster.config.cut_batches || self.answers.are_cut()),
            Some(_) => (1, false),
        };
        match self.replica.log.read(self.position, self.isolation, max_bytes, cut).await {
            Ok(slice) if slice.len == 0 => Ok(Some(0)),
            Ok(slice) if self.chain.is_some() => self.transform(slice).await,
            Ok(slice) => {
                self.position = slice.next_offset;
                self.window.sent(slice.next_offset);
                let bytes = slice.len;
                self.answers.send(slice).map(|()| Some(bytes))
            }
            Err(error) => self.answers.fail(error_of(error, self.position)).map(|()| None),
        }
    }

    /// Sends what comes out of the chain for everything from the position on. If that is nothing, nothing is sent and the
    /// stream goes on at the end. `found` says how far the log reached.
    async fn transform(&mut self, found: LogSlice) -> anyhow::Result<Option<usize>> {
        let Some(chain) = &self.chain else {
            return Ok(Some(0));
        };
        let end = self.replica.log.ends().visible(self.isolation);
        let batches = StoredBatches::new(self.replica.clone(), self.isolation, self.position, end);
        let even_the_first = self.cluster.config.smart_module_overflow || self.answers.overflow();
        let limit = Limit { max_bytes: self.max_bytes, even_the_first };
        match chain.transform(batches, limit).await {
            Ok(Transformed { batch: None, error: None }) => {
                self.position = end;
                Ok(Some(0))
            }
            Ok(Transformed { batch, error }) => {
                let (batch, next_offset) = batch.unwrap_or((BytesMut::new(), end));
                let error_code = match error {
                    Some(error) => ErrorCode::SmartModuleRuntimeError(Box::new(error)),
                    None => ErrorCode::None,
                };
                self.position = next_offset;
                self.window.sent(next_offset);
                let bytes = batch.len();
                let output = LogSlice { len: bytes, pieces: vec![batch.freeze()], next_offset, ..found };
                self.answers.send_transformed(output, error_code).map(|()| Some(bytes))
            }
            Err(failed) => {
                self.answers.fail(ErrorCode::Other(format!("SmartModule err {failed}"))).map(|()| None)
            }
        }
    }
}

/// What a client is told of a read from `offset` that has failed.
pub(super) fn error_of(error: ReadError, offset: i64) -> ErrorCode {
    match error {
        ReadError::Evicted { start } => ErrorCode::OffsetEvicted { offset, next_available: start },
        ReadError::BeyondEnd { end } => {
            ErrorCode::Other(format!("start offset: {offset} is greater than leo: {end}"))
        }
        ReadError::Storage => ErrorCode::StorageError,
    }
}

/// The answers of a stream that are in flight, as the offsets behind them.
struct Window {
    size: usize,
    ends: VecDeque<i64>,
}

impl Window {
    fn new(size: usize) -> Self {
        Window { size, ends: VecDeque::with_capacity(size) }
    }

    fn is_full(&self) -> bool {
        self.ends.len() >= self.size
    }

    fn sent(&mut self, end: i64) {
        self.ends.push_back(end);
    }

    /// Everything up to `offset` has arrived. `false`: no answer ends there, and nothing that is in flight counts any
    /// more.
    fn acknowledge(&mut self, offset: i64) -> bool {
        let known = self.ends.iter().position(|end| *end == offset);
        match known {
            Some(index) => drop(self.ends.drain(..=index)),
            None => self.ends.clear(),
        }
        known.is_some()
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
    /// Whether a fault cuts them.
    fn are_cut(&self) -> bool {
        self.outbox.faults().all().cuts(&self.topic, self.partition)
    }

    /// Whether a fault loses what SmartModules put out beyond `max_bytes`.
    fn overflow(&self) -> bool {
        self.outbox.faults().all().overflows(&self.topic, self.partition)
    }

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

    /// Sends what came out of a chain, and the error of a module.
    fn send_transformed(&self, output: LogSlice, error_code: ErrorCode) -> anyhow::Result<()> {
        let partition = FetchablePartitionResponse {
            partition_index: self.partition,
            error_code,
            high_watermark: output.high_watermark,
            next_filter_offset: output.next_offset,
            log_start_offset: output.start,
            records: RecordsFollow(output.len),
            ..FetchablePartitionResponse::default()
        };
        self.write(partition, output)
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
        mut slice: LogSlice,
    ) -> anyhow::Result<()> {
        if let Some(batch) = slice.pieces.first_mut()
            && self.outbox.faults().all().corrupts(&self.topic, self.partition)
        {
            *batch = corrupted(batch);
        }
        let stream_id = self.stream_id;
        let response = StreamFetchResponse { topic: self.topic.clone(), stream_id, partition };
        let head = frames::encode_head(self.correlation_id, &response, self.version, slice.len)?;
        self.outbox.send(std::iter::once(head).chain(slice.pieces));
        Ok(())
    }
}

/// Batches of which the first one has another checksum.
fn corrupted(batches: &[u8]) -> Bytes {
    let mut batches = BytesMut::from(batches);
    if let Some(byte) = batches.get_mut(CRC_AT) {
        *byte = !*byte;
    }
    batches.freeze()
}
