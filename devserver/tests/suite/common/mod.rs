//! A client that knows frames only: it can send what no real client would.

pub mod admin;
pub mod consume;
pub mod fixture;
pub mod process;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::api::{Request, RequestMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, ListRequest, ListResponse, ObjectApiCreateRequest,
    ObjectApiListRequest,
};
use fluvio_sc_schema::{Status, TryEncodableFrom};
use fluvio_spu_schema::produce::{PartitionProduceResponse, ProduceResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::builder::BatchBuilder;
use wire::frame::split_frame;

/// Long enough for anything that should happen.
pub const SOON: Duration = Duration::from_secs(10);

/// What a connection goes over: TCP, or TLS over TCP.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a server.
pub struct Raw {
    socket: Box<dyn Stream>,
    buffer: BytesMut,
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame, its length prefix included.
    Frame(Vec<u8>),
    /// The server has closed the connection.
    Closed,
    /// Nothing, within the given time.
    Nothing,
}

impl Raw {
    /// Connects to `endpoint`.
    pub async fn connect(endpoint: &str) -> Self {
        let socket = TcpStream::connect(endpoint).await.expect("connect");
        socket.set_nodelay(true).expect("nodelay");
        Raw::over(socket)
    }

    /// A connection that exists already.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Raw { socket: Box::new(stream), buffer: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("send");
    }

    /// Sends bytes to a server that may be gone.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next frame, or what came instead of it within `wait`.
    pub async fn receive_within(&mut self, wait: Duration) -> Arrival {
        timeout(wait, self.receive_any()).await.unwrap_or(Arrival::Nothing)
    }

    /// The next frame, which is expected soon.
    pub async fn receive(&mut self) -> Vec<u8> {
        match self.receive_within(SOON).await {
            Arrival::Frame(frame) => frame,
            other => panic!("a frame was expected, not {other:?}"),
        }
    }

    async fn receive_any(&mut self) -> Arrival {
        loop {
            if let Some(payload) = split_frame(&mut self.buffer, i32::MAX as usize).expect("a valid frame") {
                let mut frame = (payload.len() as i32).to_be_bytes().to_vec();
                frame.extend_from_slice(payload.chunk());
                return Arrival::Frame(frame);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Arrival::Closed,
                Ok(_) => {}
            }
        }
    }
}

/// The bytes with their length in front.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// A request of its newest version with correlation id 1.
pub fn frame_of<R: Request>(request: R) -> Vec<u8> {
    let mut body = Vec::new();
    RequestMessage::new_request(request).encode(&mut body, 0).expect("encode");
    framed(&body)
}

/// Asks, and takes the next frame for the answer.
pub async fn ask<R: Request>(connection: &mut Raw, request: R) -> R::Response {
    connection.send(&frame_of(request)).await;
    let answer = connection.receive().await;
    R::Response::decode_from(&mut &answer[8..], R::DEFAULT_API_VERSION).expect("an answer")
}

/// The address of the SPU.
pub async fn unit_of(controller: &mut Raw) -> String {
    let list = ListRequest::<SpuSpec>::new(Vec::new(), false);
    let request = ObjectApiListRequest::try_encode_from(list, 19).expect("encode");
    let response: Option<ListResponse<SpuSpec>> = ask(controller, request).await.downcast().expect("a list");
    response.expect("SPUs").inner()[0].spec.public_endpoint.addr()
}

/// The frame of a request that creates a topic.
pub fn create_frame(name: &str, spec: TopicSpec) -> Vec<u8> {
    let common = CommonCreateRequest { name: name.to_owned(), ..CommonCreateRequest::default() };
    let request = CreateRequest::new(common, spec);
    frame_of(ObjectApiCreateRequest::try_encode_from(request, 19).expect("encode"))
}

/// Creates a topic.
pub async fn create(controller: &mut Raw, name: &str, spec: TopicSpec) -> Status {
    controller.send(&create_frame(name, spec)).await;
    Status::decode_from(&mut &controller.receive().await[8..], 19).expect("a status")
}

/// A batch of `count` records of `value`.
pub fn batch_of(value: &[u8], count: usize) -> Bytes {
    let mut batch = BatchBuilder::with_capacity(count * (value.len() + 16) + 64);
    for _ in 0..count {
        batch.push(None, value, 1_700_000_000_000);
    }
    batch.finish().into()
}

/// A produce request with one entry for partition 0 per record set.
pub fn produce_frame(topic: &str, record_sets: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 25, 0, 0, 0, 1, 0, 0]; // key 0, version 25, correlation id 1, no client id
    body.extend_from_slice(b"\0\0\x01\0\0\x03\xe8\0\0\0\x01"); // ReadUncommitted, 1000 ms, one topic
    body.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&(record_sets.len() as i32).to_be_bytes());
    for records in record_sets {
        body.extend_from_slice(&0_i32.to_be_bytes());
        body.extend_from_slice(&(records.len() as i32).to_be_bytes());
        body.extend_from_slice(records);
    }
    body.extend_from_slice(&0_i32.to_be_bytes());
    framed(&body)
}

/// Produces to partition 0 and returns the result of each entry.
pub async fn produce(unit: &mut Raw, topic: &str, record_sets: &[&[u8]]) -> Vec<(ErrorCode, i64)> {
    unit.send(&produce_frame(topic, record_sets)).await;
    let answer = unit.receive().await;
    let response = ProduceResponse::decode_from(&mut &answer[8..], 25).expect("a produce response");
    let entries = response.responses.into_iter().flat_map(|topic| topic.partitions);
    let result = |PartitionProduceResponse { error_code, base_offset, .. }| (error_code, base_offset);
    entries.map(result).collect()
}
