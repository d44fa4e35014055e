//! What only a server with two minds does: an SPU that is scripted frame by frame, behind the metadata of a real dev
//! server that announces its address.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use fluvio_controlplane_metadata::topic::{AddPartition, TopicSpec, UpdateTopicAction};
use fluvio_devserver::{Config, Fault, Server};
use fluvio_protocol::Encoder;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{ApiVersionKey, ApiVersionsResponse, PlatformVersion};
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{ObjectApiUpdateRequest, UpdateRequest};
use fluvio_spu_schema::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use wire::frame::{DEFAULT_MAX_PAYLOAD, split_frame};

use crate::admin::CreateTopic;
use crate::cluster::Cluster;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::directory::Spu;
use crate::producer::{Ack, AckHandler, Producer, ProducerOptions};
use crate::{ClientOptions, Result};

mod consumer;
mod producer;

const PATIENCE: Duration = Duration::from_secs(20);

/// The SPUs of the dev server: the leader of partition 0, and another one.
const SPU: i32 = 5001;
const OTHER: i32 = 5002;

struct World {
    server: Server,
    cluster: Arc<Cluster>,
    topic: &'static str,
}

impl World {
    async fn new() -> Self {
        Self::patient(5_000).await
    }

    /// With a request time-out of so many milliseconds.
    async fn patient(request_timeout_ms: u64) -> Self {
        let config = Config { cut_batches: true, spus: 2, ..Config::default() };
        let server = Server::start(config).await.unwrap();
        let options = ClientOptions {
            endpoint: Some(server.endpoint()),
            request_timeout_ms,
            ..ClientOptions::default()
        };
        let cluster = Cluster::connect(options).await.unwrap();
        let topic = "orders";
        let admin = crate::admin::Admin { cluster: Arc::clone(&cluster) };
        admin.create_topic(CreateTopic::from_json(r#"{"name": "orders"}"#).unwrap()).await.unwrap();
        let world = World { server, cluster, topic };
        world.lead(0, SPU).await;
        world
    }

    /// From here on the SPU of partition 0 is said to be at `address`.
    async fn lead_to(&self, address: &str) {
        self.place(SPU, address).await;
        assert_eq!(&*self.leader(0).unwrap().address, address);
    }

    /// From here on this SPU leads this partition.
    async fn lead(&self, partition: u32, spu: i32) {
        self.server.move_leader(self.topic, partition, spu).unwrap();
        self.known(|| self.leader(partition).is_some_and(|leader| leader.id == spu)).await;
    }

    /// From here on an SPU is said to be at `address`.
    async fn place(&self, spu: i32, address: &str) {
        let fault = format!(r#"{{"kind": "advertised-address", "plane": {spu}, "address": "{address}"}}"#);
        // The last one counts.
        self.server.inject(Fault::from_json(&fault).unwrap()).unwrap();
        let known = || self.cluster.directory.spu(spu);
        self.known(|| known().is_some_and(|known| &*known.address == address)).await;
    }

    /// Adds partition 1, led by this SPU.
    async fn add_partition(&self, spu: i32) {
        let add = || UpdateTopicAction::AddPartition(AddPartition { count: 1 });
        let request = |version| {
            let update = UpdateRequest::<TopicSpec>::new(self.topic.to_owned(), add());
            Ok(ObjectApiUpdateRequest::try_encode_from(update, version).unwrap())
        };
        let status = self.cluster.admin.call(false, None, request).await.unwrap();
        assert_eq!(status.error_code, ErrorCode::None);
        self.lead(1, spu).await;
        let known = || self.cluster.directory.topic(self.topic);
        self.known(|| known().is_some_and(|topic| topic.partition_count() == 2)).await;
    }

    fn leader(&self, partition: u32) -> Option<Spu> {
        self.cluster.directory.topic(self.topic)?.leader(partition)
    }

    /// Waits until the directory is so, as the watch tells it.
    async fn known(&self, is_so: impl Fn() -> bool) {
        let mut changes = self.cluster.directory.changes();
        soon(changes.wait_for(|_| is_so())).await.unwrap();
    }

    async fn producer(&self, options: &str) -> Producer {
        let options = ProducerOptions::from_json(options).unwrap();
        Producer::open(Arc::clone(&self.cluster), self.topic, options).await.unwrap()
    }

    async fn consumer(&self) -> Consumer {
        let options = ConsumerOptions::from_json(r#"{"start": {"beginning": 0}}"#).unwrap();
        Consumer::open(Arc::clone(&self.cluster), self.topic, options).await.unwrap()
    }
}

struct Tell(oneshot::Sender<Result<Ack>>);

impl AckHandler for Tell {
    fn acked(self: Box<Self>, result: Result<Ack>) {
        let _ = self.0.send(result);
    }
}

fn send(producer: &Producer, value: &[u8]) -> oneshot::Receiver<Result<Ack>> {
    send_to(producer, None, value)
}

fn send_to(producer: &Producer, partition: Option<u32>, value: &[u8]) -> oneshot::Receiver<Result<Ack>> {
    let (sender, receiver) = oneshot::channel();
    producer.send(&mut None, None, value, partition, || Ok(Box::new(Tell(sender)))).unwrap();
    receiver
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("within a reasonable time")
}

/// A request as the scripted SPU sees it: its key, its body, and where the body of the answer goes.
pub(crate) type Asked = (u16, BytesMut);

/// An SPU that shakes hands and answers what `answer` returns, nothing for `None`. What it was asked is told too.
pub(crate) async fn scripted(
    mut answer: impl FnMut(u16) -> Option<Vec<u8>> + Send + 'static,
) -> (String, mpsc::UnboundedReceiver<Asked>) {
    scripted_per_connection(move |_, key| answer(key)).await
}

/// Like [`scripted`]; `answer` gets the number of the connection too.
async fn scripted_per_connection(
    answer: impl FnMut(usize, u16) -> Option<Vec<u8>> + Send + 'static,
) -> (String, mpsc::UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, receiver) = mpsc::unbounded_channel();
    let answer = Arc::new(Mutex::new(answer));
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let (answer, asked) = (Arc::clone(&answer), asked.clone());
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while socket.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
                    while let Some(mut frame) = split_frame(&mut buffer, DEFAULT_MAX_PAYLOAD).unwrap() {
                        let (key, _version, id) = (frame.get_u16(), frame.get_i16(), frame.get_i32());
                        let body =
                            if key == 18 { Some(versions()) } else { (answer.lock())(connection, key) };
                        let _ = asked.send((key, frame));
                        let Some(body) = body else { continue };
                        let mut out = Vec::new();
                        out.put_i32(body.len() as i32 + 4);
                        out.put_i32(id);
                        out.extend(body);
                        if socket.write_all(&out).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, receiver)
}

fn versions() -> Vec<u8> {
    let key = |api_key| ApiVersionKey { api_key, min_version: 0, max_version: 25 };
    encoded(&ApiVersionsResponse {
        api_keys: [0, 1, 1002, 1003, 1005].map(key).to_vec(),
        platform_version: PlatformVersion::from(semver::Version::new(0, 18, 2)),
        ..Default::default()
    })
}

fn encoded(answer: &impl Encoder) -> Vec<u8> {
    let mut bytes = Vec::new();
    answer.encode(&mut bytes, 25).unwrap();
    bytes
}

fn produced(error_code: ErrorCode, base_offset: i64) -> Vec<u8> {
    produced_to(0, error_code, base_offset)
}

fn produced_to(partition_index: u32, error_code: ErrorCode, base_offset: i64) -> Vec<u8> {
    let partition =
        PartitionProduceResponse { partition_index, error_code, base_offset, ..Default::default() };
    encoded(&ProduceResponse {
        responses: vec![TopicProduceResponse { name: "orders".to_owned(), partitions: vec![partition] }],
        ..Default::default()
    })
}
