//! What only a server with two minds does: an SPU that is scripted frame by frame, behind the metadata of a real dev
//! server whose view is bent to lead there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use fluvio_controlplane_metadata::message::{Message, MsgType};
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::{IngressAddr, SpuSpec};
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{ApiVersionKey, ApiVersionsResponse, PlatformVersion};
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::core::Spec;
use fluvio_sc_schema::objects::{Metadata, MetadataUpdate};
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use fluvio_spu_schema::server::stream_fetch::{StreamFetchRequest, StreamFetchResponse};
use fluvio_spu_schema::server::update_offset::UpdateOffsetsResponse;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use wire::builder::BatchBuilder;
use wire::frame::{DEFAULT_MAX_PAYLOAD, split_frame};

use crate::admin::CreateTopic;
use crate::cluster::Cluster;
use crate::consumer::{Consumer, ConsumerOptions, Taken};
use crate::producer::{Ack, AckHandler, Producer, ProducerOptions};
use crate::protocol::RecordBytes;
use crate::{ClientOptions, ErrorKind, Result};

const PATIENCE: Duration = Duration::from_secs(20);

/// The SPU id of the dev server.
const SPU: i32 = 5001;

struct World {
    _server: Server,
    cluster: Arc<Cluster>,
    topic: &'static str,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(Config { cut_batches: true, ..Config::default() }).await.unwrap();
        let options = ClientOptions {
            endpoint: Some(server.endpoint()),
            request_timeout_ms: 5_000,
            ..ClientOptions::default()
        };
        let cluster = Cluster::connect(options).await.unwrap();
        let topic = "orders";
        let admin = crate::admin::Admin { cluster: Arc::clone(&cluster) };
        admin.create_topic(CreateTopic::from_json(r#"{"name": "orders"}"#).unwrap()).await.unwrap();
        // As the watch tells it: from here on the view changes only where a test changes it.
        let mut changes = cluster.view.changes();
        soon(changes.wait_for(|_| cluster.view.leader(topic, 0).is_some())).await.unwrap();
        World { _server: server, cluster, topic }
    }

    /// From here on the SPU is said to be at `address`.
    fn lead_to(&self, address: &str) {
        let (host, port) = address.rsplit_once(':').unwrap();
        let mut spec = SpuSpec { id: SPU, ..SpuSpec::default() };
        spec.public_endpoint.port = port.parse().unwrap();
        spec.public_endpoint.ingress = vec![IngressAddr::from_ip(host.to_owned())];
        self.cluster.view.update_spus(change("custom-spu-5001", spec), false);
        assert_eq!(self.cluster.view.leader(self.topic, 0).unwrap().address, address);
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

fn change<S>(name: &str, spec: S) -> MetadataUpdate<S>
where
    S: Spec + Encoder + Decoder,
    S::Status: Encoder + Decoder + Default + std::fmt::Debug,
{
    let content = Metadata { name: name.to_owned(), spec, status: Default::default() };
    MetadataUpdate { epoch: 1, changes: vec![Message { header: MsgType::UPDATE, content }], all: Vec::new() }
}

struct Tell(oneshot::Sender<Result<Ack>>);

impl AckHandler for Tell {
    fn acked(self: Box<Self>, result: Result<Ack>) {
        let _ = self.0.send(result);
    }
}

fn send(producer: &Producer, value: &[u8]) -> oneshot::Receiver<Result<Ack>> {
    let (sender, receiver) = oneshot::channel();
    producer.send(&mut None, None, value, None, || Ok(Box::new(Tell(sender)))).unwrap();
    receiver
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("within a reasonable time")
}

/// Takes one batch: its first offset and its first value.
async fn take(consumer: &Consumer) -> Result<(i64, Vec<u8>)> {
    loop {
        soon(consumer.ready()).await;
        if let Taken::Batch(batch) = consumer.take()? {
            let columns = batch.columns();
            let value = &batch.data()[columns.value_starts[0] as usize..columns.value_ends[0] as usize];
            return Ok((columns.offsets[0], value.to_vec()));
        }
    }
}

/// A request as the scripted SPU sees it: its key, its body, and where the body of the answer goes.
type Asked = (u16, BytesMut);

/// An SPU that shakes hands and answers what `answer` returns, nothing for `None`. What it was asked is told too.
async fn scripted(
    answer: impl FnMut(u16) -> Option<Vec<u8>> + Send + 'static,
) -> (String, mpsc::UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, receiver) = mpsc::unbounded_channel();
    let answer = Arc::new(Mutex::new(answer));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, asked) = (Arc::clone(&answer), asked.clone());
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while socket.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
                    while let Some(mut frame) = split_frame(&mut buffer, DEFAULT_MAX_PAYLOAD).unwrap() {
                        let (key, _version, id) = (frame.get_u16(), frame.get_i16(), frame.get_i32());
                        let body = if key == 18 { Some(versions()) } else { (answer.lock())(key) };
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
        api_keys: [0, 1002, 1003, 1005].map(key).to_vec(),
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
    let partition = PartitionProduceResponse { error_code, base_offset, ..Default::default() };
    encoded(&ProduceResponse {
        responses: vec![TopicProduceResponse { name: "orders".to_owned(), partitions: vec![partition] }],
        ..Default::default()
    })
}

fn streamed(records: &[u8]) -> Vec<u8> {
    let partition =
        FetchablePartitionResponse { records: RecordBytes(records.to_vec().into()), ..Default::default() };
    encoded(&StreamFetchResponse { topic: "orders".to_owned(), stream_id: 1, partition })
}

fn batch(base_offset: i64, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::with_capacity(100);
    for value in values {
        builder.push(None, value, 1_000);
    }
    let mut batch = builder.finish().to_vec();
    wire::batch::set_base_offset(&mut batch, base_offset);
    batch
}

/// The body of a request, behind the client id.
fn body(mut frame: BytesMut) -> BytesMut {
    let length = frame.get_i16() as usize;
    frame.advance(length);
    frame
}

/// The answers to a consumer that is given `records` once, and then nothing.
fn one_answer(records: Vec<u8>) -> impl FnMut(u16) -> Option<Vec<u8>> {
    let mut records = Some(records);
    move |key| match key {
        1003 => records.take().map(|records| streamed(&records)),
        1005 => Some(encoded(&UpdateOffsetsResponse::default())),
        _ => None,
    }
}

/// The old leader keeps its stream open and says nothing: the consumer goes on at the new one, where it was.
#[tokio::test]
async fn a_consumer_follows_the_leader() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    send(&producer, b"before").await.unwrap().unwrap();
    let consumer = world.consumer().await;
    assert_eq!(take(&consumer).await.unwrap(), (0, b"before".to_vec()));
    let (address, mut asked) = scripted(one_answer(batch(1, &[b"after"]))).await;
    world.lead_to(&address);
    assert_eq!(take(&consumer).await.unwrap(), (1, b"after".to_vec()));
    let request = loop {
        let (key, frame) = soon(asked.recv()).await.unwrap();
        if key == 1003 {
            break StreamFetchRequest::<RecordBytes>::decode_from(&mut body(frame), 25).unwrap();
        }
    };
    assert_eq!((request.topic.as_str(), request.partition, request.fetch_offset), ("orders", 0, 1));
}

/// A damaged batch is an error, told after the good ones in front of it, and nothing of it is handed out.
#[tokio::test]
async fn a_damaged_batch_is_told_after_the_good_ones() {
    let world = World::new().await;
    let consumer = world.consumer().await;
    let mut damaged = batch(1, &[b"bad"]);
    damaged[70] ^= 1;
    let (address, _asked) = scripted(one_answer([batch(0, &[b"good"]), damaged].concat())).await;
    world.lead_to(&address);
    assert_eq!(take(&consumer).await.unwrap(), (0, b"good".to_vec()));
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("partition 0 of topic \"orders\""), "{error}");
    assert!(matches!(consumer.take(), Ok(Taken::End)));
}

/// A server that cuts far below what it was asked for is not asked for ever.
#[tokio::test]
async fn a_batch_that_never_comes_whole_is_an_error() {
    let world = World::new().await;
    let consumer = world.consumer().await;
    let start = batch(0, &[&[7; 1000]])[..100].to_vec();
    let (address, mut asked) = scripted(move |key| (key == 1003).then(|| streamed(&start))).await;
    world.lead_to(&address);
    let error = take(&consumer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    let mut streams = 0;
    while let Ok((key, _)) = asked.try_recv() {
        streams += u32::from(key == 1003);
    }
    assert!(streams < 12, "{streams} attempts");
}

/// An offset that cannot be is an error of the server, not the end of the producer.
#[tokio::test]
async fn an_impossible_offset_is_refused() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    for base_offset in [i64::MAX, -1] {
        let (address, _asked) = scripted(move |_| Some(produced(ErrorCode::None, base_offset))).await;
        world.lead_to(&address);
        let error = soon(send(&producer, b"value")).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    let (address, _asked) = scripted(|_| Some(produced(ErrorCode::None, 7))).await;
    world.lead_to(&address);
    assert_eq!(soon(send(&producer, b"value")).await.unwrap().unwrap().offset, 7);
}

/// What is retried stays in front of what came later.
#[tokio::test]
async fn a_retry_keeps_the_order() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    let mut answers = [
        produced(ErrorCode::NotLeaderForPartition, -1),
        produced(ErrorCode::NotLeaderForPartition, -1),
        produced(ErrorCode::None, 0),
        produced(ErrorCode::None, 1),
    ]
    .into_iter();
    let (address, mut asked) = scripted(move |_| answers.next()).await;
    world.lead_to(&address);
    let first = send(&producer, b"first value");
    let mut seen = Vec::new();
    let mut note = |frame: BytesMut| {
        let holds = |value: &[u8]| frame.windows(value.len()).any(|window| window == value);
        seen.push((holds(b"first value"), holds(b"second value")));
    };
    // The second record is sent while the first one is on its way.
    loop {
        let (key, frame) = soon(asked.recv()).await.unwrap();
        if key == 0 {
            note(frame);
            break;
        }
    }
    let second = send(&producer, b"second value");
    assert_eq!(soon(first).await.unwrap().unwrap().offset, 0);
    assert_eq!(soon(second).await.unwrap().unwrap().offset, 1);
    while let Ok((_, frame)) = asked.try_recv() {
        note(frame);
    }
    assert_eq!(seen, [(true, false), (true, false), (true, false), (false, true)]);
}

/// A server that says "written, but not replicated in time" is not sent the same records again.
#[tokio::test]
async fn what_was_written_is_not_sent_again() {
    let world = World::new().await;
    let producer = world.producer(r#"{"isolation": "read_committed"}"#).await;
    let late = ErrorCode::RequestTimedOut { timeout_ms: 10, kind: Default::default() };
    let answer = produced(late, 5);
    let (address, mut asked) = scripted(move |_| Some(answer.clone())).await;
    world.lead_to(&address);
    let error = soon(send(&producer, b"value")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    soon(producer.close()).await.unwrap();
    let mut produced = 0;
    while let Ok((key, _)) = asked.try_recv() {
        produced += u32::from(key == 0);
    }
    assert_eq!(produced, 1);
}

/// A pause before a retry that nobody needs any more does not hold up the end.
#[tokio::test]
async fn close_does_not_wait_for_a_pause() {
    let world = World::new().await;
    let producer = world.producer(r#"{"retry_initial_ms": 60000, "retry_max_ms": 60000}"#).await;
    let admin = crate::admin::Admin { cluster: Arc::clone(&world.cluster) };
    admin.delete_topic(world.topic).await.unwrap();
    let mut changes = world.cluster.view.changes();
    soon(changes.wait_for(|_| world.cluster.view.leader(world.topic, 0).is_none())).await.unwrap();
    // As if the watch had not told yet: the leader is tried, cannot be reached, and the server is asked about the topic.
    world.cluster.view.update_partitions(change("orders-0", PartitionSpec::new(SPU, vec![SPU])), false);
    world.lead_to("127.0.0.1:1");
    let error = soon(send(&producer, b"value")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
    soon(producer.close()).await.unwrap();
}

/// With several requests allowed in flight, a backlog of one partition uses them.
#[tokio::test]
async fn a_backlog_fills_what_may_be_in_flight() {
    let world = World::new().await;
    let producer = world.producer(r#"{"in_flight": 3, "batch_bytes": 1024, "linger_ms": 60000}"#).await;
    let (address, mut asked) = scripted(|_| None).await;
    world.lead_to(&address);
    let fates: Vec<_> = (0..5).map(|_| send(&producer, &[1; 900])).collect();
    let mut requests = 0;
    while requests < 3 {
        requests += u32::from(soon(asked.recv()).await.unwrap().0 == 0);
    }
    drop(fates);
}
