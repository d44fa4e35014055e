//! What the server alone can take and give: ready-made frames over loopback, no client library in between.
//!
//! `cargo run --release -p fluvio-devserver --example throughput -- ENDPOINT [BATCH_BYTES] [RECORD_BYTES] [TOTAL_MIB]`

use std::time::Instant;

use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::api::{Request, RequestHeader, RequestMessage, ResponseMessage};
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, ListRequest, ListResponse, ObjectApiCreateRequest,
    ObjectApiListRequest,
};
use fluvio_sc_schema::spu::SpuSpec;
use fluvio_spu_schema::produce::ProduceResponse;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::batch::{BatchHeader, Batches};
use wire::builder::BatchBuilder;
use wire::frame::split_frame;

const TOPIC: &str = "throughput";
/// Requests on their way at a time.
const WINDOW: usize = 4;
const MAX_FRAME: usize = 256 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().context("an endpoint is needed")?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (batch_bytes, record_bytes, total_mib) = (number(128 * 1024)?, number(100)?, number(1024)?);

    let mut controller = Peer::connect(&endpoint).await?;
    let common = CommonCreateRequest { name: TOPIC.to_owned(), ..CommonCreateRequest::default() };
    let create = CreateRequest::new(common, TopicSpec::new_computed(1, 1, None));
    controller.ask(ObjectApiCreateRequest::try_encode_from(create, 19)?).await?;
    let list = ListRequest::<SpuSpec>::new(Vec::new(), false);
    let spus = controller.ask(ObjectApiListRequest::try_encode_from(list, 19)?).await?;
    let spus: Option<ListResponse<SpuSpec>> = spus.downcast()?;
    let spu = spus.context("SPUs")?.inner().swap_remove(0).spec.public_endpoint.addr();

    let mut builder = BatchBuilder::with_capacity(batch_bytes + 1024);
    let value = vec![b'v'; record_bytes];
    while builder.len() + record_bytes < batch_bytes {
        builder.push(None, &value, 1_700_000_000_000);
    }
    let per_batch = u64::from(builder.records());
    let batch = builder.finish();
    let batches = (total_mib * 1024 * 1024).div_ceil(batch.len());
    let records = per_batch * batches as u64;

    let produced = Instant::now();
    produce(&spu, &batch, batches).await?;
    report("produced", records, batches * batch.len(), produced);
    let consumed = Instant::now();
    consume(&spu, records as i64).await?;
    report("consumed", records, batches * batch.len(), consumed);
    Ok(())
}

fn report(what: &str, records: u64, bytes: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!(
        "{what} {records} records: {:.2} M records/s, {:.0} MiB/s",
        records as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1024.0 / 1024.0
    );
}

async fn produce(spu: &str, batch: &[u8], batches: usize) -> anyhow::Result<()> {
    let mut peer = Peer::connect(spu).await?;
    let mut body = Vec::new();
    for part in [
        &[0][..],
        &1_i16.to_be_bytes(),
        &30_000_i32.to_be_bytes(),
        &1_i32.to_be_bytes(),
        &(TOPIC.len() as i16).to_be_bytes(),
        TOPIC.as_bytes(),
        &1_i32.to_be_bytes(),
        &0_i32.to_be_bytes(),
        &(batch.len() as i32).to_be_bytes(),
        batch,
        &0_i32.to_be_bytes(),
    ] {
        body.extend_from_slice(part);
    }
    let mut header = Vec::new();
    let mut fields = RequestHeader::new(0);
    fields.set_api_version(25);
    fields.encode(&mut header, 0)?;
    let mut frame = ((header.len() + body.len()) as i32).to_be_bytes().to_vec();
    frame.extend(header);
    frame.extend(body);

    let mut unanswered = 0;
    for sent in 0..batches {
        peer.socket.write_all(&frame).await?;
        unanswered += 1;
        while unanswered == WINDOW || (sent + 1 == batches && unanswered > 0) {
            let mut answer = peer.receive().await?;
            let response = ResponseMessage::<ProduceResponse>::decode_from(&mut answer, 25)?;
            let code = &response.response.responses[0].partitions[0].error_code;
            anyhow::ensure!(code.is_ok(), "produce failed: {code:?}");
            unanswered -= 1;
        }
    }
    Ok(())
}

async fn consume(spu: &str, end: i64) -> anyhow::Result<()> {
    let mut peer = Peer::connect(spu).await?;
    let fetch = DefaultStreamFetchRequest::builder().topic(TOPIC.to_owned()).max_bytes(1_048_576).build()?;
    peer.send(fetch, 1).await?;
    let mut position = 0;
    while position < end {
        let answer = peer.receive().await?;
        if i32::from_be_bytes(answer[..4].try_into()?) != 1 {
            continue;
        }
        // The head of an answer without an error has a fixed length but for the name of the topic.
        let stream_id_at = 4 + 2 + TOPIC.len();
        let records_at = stream_id_at + 4 + 4 + 2 + 8 + 8 + 8 + 1 + 4;
        let last: Option<BatchHeader> = Batches::new(&answer[records_at..]).last().map(|(_, header)| header);
        let Some(last) = last else { bail!("an answer without a whole batch") };
        position = last.next_offset();
        let session_id = u32::from_be_bytes(answer[stream_id_at..stream_id_at + 4].try_into()?);
        let update = UpdateOffsetsRequest::new(vec![OffsetUpdate { offset: position, session_id }]);
        peer.send(update, 2).await?;
    }
    Ok(())
}

struct Peer {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(endpoint).await?;
        socket.set_nodelay(true)?;
        Ok(Peer { socket, buffer: BytesMut::new() })
    }

    async fn send<R: Request>(&mut self, request: R, correlation_id: i32) -> anyhow::Result<()> {
        let mut message = RequestMessage::new_request(request);
        message.header.set_correlation_id(correlation_id);
        let mut frame = (message.write_size(0) as i32).to_be_bytes().to_vec();
        message.encode(&mut frame, 0)?;
        Ok(self.socket.write_all(&frame).await?)
    }

    async fn receive(&mut self) -> anyhow::Result<BytesMut> {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer, MAX_FRAME)? {
                return Ok(frame);
            }
            self.buffer.reserve(1024 * 1024);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
        }
    }

    async fn ask<R: Request>(&mut self, request: R) -> anyhow::Result<R::Response> {
        self.send(request, 1).await?;
        let mut answer = self.receive().await?;
        answer.advance(4);
        Ok(R::Response::decode_from(&mut answer, R::DEFAULT_API_VERSION)?)
    }
}
