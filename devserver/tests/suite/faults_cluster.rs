//! Faults of records and of the cluster's state: what is refused, cut, corrupted, held back, hidden and announced wrongly.

use crate::common::fixture::{Fixture, open, stream_answer};
use crate::common::{Arrival, Raw, ask, batch_of, create, frame_of, produce, unit_of};
use bytes::Bytes;
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Fault, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::{ApiVersionsRequest, ApiVersionsResponse};
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::message::MsgType;
use fluvio_sc_schema::objects::{
    ListRequest, ListResponse, Metadata, MetadataUpdate, ObjectApiListRequest, ObjectApiListResponse,
    ObjectApiWatchRequest, ObjectApiWatchResponse, WatchRequest, WatchResponse,
};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use fluvio_spu_schema::Isolation::{ReadCommitted, ReadUncommitted};
use std::time::Duration;
use wire::batch::{Batches, Rest};
use wire::memory::Memory;
use wire::view::decode;

/// How long a connection that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);

fn batch() -> Bytes {
    batch_of(b"value", 1)
}

async fn list<S>(controller: &mut Raw) -> Vec<Metadata<S>>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let request = ObjectApiListRequest::try_encode_from(ListRequest::<S>::new(Vec::new(), false), 19);
    let response: ObjectApiListResponse = ask(controller, request.expect("encode")).await;
    let response: Option<ListResponse<S>> = response.downcast().expect("a list");
    response.expect("objects").inner()
}

async fn hello(connection: &mut Raw) -> ApiVersionsResponse {
    let request = ApiVersionsRequest { client_version: "0.50.1".to_owned(), ..ApiVersionsRequest::default() };
    ask(connection, request).await
}

async fn update<S: AdminSpec>(watcher: &mut Raw) -> MetadataUpdate<S>
where
    S::Status: Encoder + Decoder,
{
    let frame = watcher.receive().await;
    let response = ObjectApiWatchResponse::decode_from(&mut &frame[8..], 19).expect("an update");
    let response: Option<WatchResponse<S>> = response.downcast().expect("of this kind");
    response.expect("an update").inner()
}

async fn watch<S: AdminSpec>(endpoint: &str) -> Raw {
    let mut watcher = Raw::connect(endpoint).await;
    let request = ObjectApiWatchRequest::try_encode_from(WatchRequest::<S>::summary(), 19).expect("encode");
    watcher.send(&frame_of(request)).await;
    watcher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produced_batches_are_refused_and_not_written() {
    let mut fixture = Fixture::new().await;
    let unit = &mut fixture.unit;
    let faults = [r#""code": "StorageError""#, r#""code": 56, "topic": "t", "partition": 0"#];
    for fault in faults {
        let fault = format!(r#"{{"kind": "produce-error", {fault}, "count": 2}}"#);
        fixture.server.inject(Fault::from_json(&fault).expect("a fault")).expect("injected");
    }
    for topic in ["other", "t"] {
        let fault = format!(
            r#"{{"kind": "produce-error", "code": "PartitionFull", "topic": "{topic}", "partition": 1}}"#
        );
        fixture.server.inject(Fault::from_json(&fault).expect("a fault")).expect("injected");
    }
    let (batch, refused) = (batch(), (ErrorCode::StorageError, 0));
    assert_eq!(produce(unit, "t", &[&batch]).await, std::slice::from_ref(&refused));
    // By entry, not by request: two errors of the first fault are one each of both.
    let expected = [refused.clone(), refused.clone(), refused, (ErrorCode::None, 0), (ErrorCode::None, 1)];
    assert_eq!(produce(unit, "t", &[&batch, &batch, &batch, &batch, &batch]).await, expected);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_high_watermark_is_held_back() {
    let mut fixture = Fixture::new().await;
    let fault = fixture.fault(r#"{"kind": "hold-high-watermark", "topic": "t"}"#);
    let both = fixture.fault(r#"{"kind": "hold-high-watermark"}"#);
    produce(&mut fixture.unit, "t", &[&batch()]).await;
    let mut committed = fixture.unit().await;
    open(&mut committed, ReadCommitted, 1 << 20).await;
    fixture.clear(fault);
    assert_eq!(committed.receive_within(SILENCE).await, Arrival::Nothing);
    // A topic that comes later is held too.
    create(&mut fixture.controller, "late", TopicSpec::new_computed(1, 1, None)).await;
    produce(&mut fixture.unit, "late", &[&batch()]).await;
    let partitions = list::<PartitionSpec>(&mut fixture.controller).await;
    let ends: Vec<_> = partitions.iter().map(|p| (p.status.leader.leo, p.status.leader.hw)).collect();
    assert_eq!(ends, [(1, 0), (1, 0)]);
    fixture.clear(both);
    assert_eq!(stream_answer(&committed.receive().await).0.high_watermark, 1);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_cut_and_corrupted() {
    let mut fixture = Fixture::new().await;
    let batch = batch_of(&[1; 100], 20);
    produce(&mut fixture.unit, "t", &[&batch, &batch]).await;
    let most = batch.len() as i32 + 50;
    let read = async |fixture: &Fixture| {
        let mut unit = fixture.unit().await;
        open(&mut unit, ReadUncommitted, most).await;
        stream_answer(&unit.receive().await).1
    };
    assert_eq!(read(&fixture).await.len(), batch.len());
    fixture.fault(r#"{"kind": "cut-batches", "topic": "other"}"#);
    assert_eq!(read(&fixture).await.len(), batch.len());
    let fault = fixture.fault(r#"{"kind": "cut-batches", "topic": "t", "partition": 0}"#);
    let cut = read(&fixture).await;
    assert_eq!(cut.len(), most as usize);
    let mut batches = Batches::new(&cut);
    assert_eq!(batches.by_ref().count(), 1);
    assert!(matches!(batches.rest(), Rest::Cut { .. }));
    fixture.clear(fault);

    fixture.fault(r#"{"kind": "corrupt-crc", "count": 1}"#);
    assert!(decode(&read(&fixture).await, 0, true, &Memory::default()).error.is_some());
    // What is stored is sound.
    assert!(decode(&read(&fixture).await, 0, true, &Memory::default()).error.is_none());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_looks_empty() {
    let mut fixture = Fixture::new().await;
    let mut watcher = watch::<TopicSpec>(&fixture.server.endpoint()).await;
    assert_eq!(update::<TopicSpec>(&mut watcher).await.all.len(), 2);
    let fault = fixture.fault(r#"{"kind": "empty-cluster"}"#);
    let deleted = update::<TopicSpec>(&mut watcher).await.changes;
    assert_eq!(deleted.len(), 2);
    assert!(deleted.iter().all(|change| matches!(change.header, MsgType::DELETE)));
    assert!(list::<TopicSpec>(&mut fixture.controller).await.is_empty());
    assert!(list::<PartitionSpec>(&mut fixture.controller).await.is_empty());
    assert!(list::<SpuSpec>(&mut fixture.controller).await.is_empty());
    let mut late = watch::<TopicSpec>(&fixture.server.endpoint()).await;
    assert!(update::<TopicSpec>(&mut late).await.all.is_empty());
    // What happens meanwhile happens unseen.
    create(&mut fixture.controller, "late", TopicSpec::new_computed(1, 1, None)).await;
    fixture.clear(fault);
    for watcher in [&mut watcher, &mut late] {
        let restored = update::<TopicSpec>(watcher).await.changes;
        let names: Vec<_> = restored.iter().map(|change| change.content.name.as_str()).collect();
        assert_eq!(names, ["consumer-offset", "late", "t"]);
    }
    assert_eq!(list::<TopicSpec>(&mut fixture.controller).await.len(), 2);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_and_fewer_requests_are_announced() {
    let mut fixture = Fixture::new().await;
    let truth = hello(&mut fixture.controller).await;
    let version = fixture.fault(r#"{"kind": "platform-version", "version": "0.8.1"}"#);
    fixture.fault(r#"{"kind": "unadvertised", "request": "watch"}"#);
    fixture.fault(r#"{"kind": "unadvertised", "request": "update-offsets"}"#);
    let announced = hello(&mut fixture.controller).await;
    assert_eq!(announced.platform_version.to_semver().to_string(), "0.8.1");
    let keys =
        |answer: &ApiVersionsResponse| answer.api_keys.iter().map(|key| key.api_key).collect::<Vec<_>>();
    assert_eq!(keys(&announced), [1001, 1002, 1003, 1005, 1006]);
    assert_eq!(keys(&hello(&mut fixture.unit).await), [0, 1, 1002, 1003]);
    fixture.clear(version);
    assert_eq!(hello(&mut fixture.controller).await.platform_version, truth.platform_version);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_announced() {
    let mut fixture = Fixture::with(Config { spus: 2, ..Config::default() }).await;
    let truth = fixture.unit_address.clone();
    let mut watcher = watch::<SpuSpec>(&fixture.server.endpoint()).await;
    update::<SpuSpec>(&mut watcher).await;
    let fault = fixture.fault(r#"{"kind": "advertised-address", "plane": 5001, "address": "127.0.0.1:2"}"#);
    let told = update::<SpuSpec>(&mut watcher).await.changes;
    assert_eq!(told.len(), 1, "the other SPU keeps its address");
    assert_eq!(told[0].content.spec.public_endpoint.addr(), "127.0.0.1:2");
    assert_eq!(unit_of(&mut fixture.controller).await, "127.0.0.1:2");
    fixture.clear(fault);
    assert_eq!(update::<SpuSpec>(&mut watcher).await.changes[0].content.spec.public_endpoint.addr(), truth);
    assert_eq!(unit_of(&mut fixture.controller).await, truth);
    fixture.server.shutdown().await;
}

#[test]
fn what_is_no_fault_is_refused_with_its_reason() {
    for (text, expected) in [
        ("{", "EOF"),
        (r#"{"request": "produce"}"#, "missing field `kind`"),
        (r#"{"kind": "dellay"}"#, "unknown variant `dellay`"),
        (r#"{"kind": "delay", "second": 1}"#, "unknown field `second`"),
        (r#"{"kind": "delay", "seconds": -1}"#, "-1 is not a number of seconds"),
        (r#"{"kind": "delay", "request": "read"}"#, "unknown variant `read`"),
        (r#"{"kind": "delay", "topic": "t"}"#, r#"takes no "topic", only plane, request, count"#),
        (r#"{"kind": "delay", "count": 0}"#, "count: invalid value: integer `0`"),
        (r#"{"kind": "delay", "plane": "moon"}"#, r#"expected "controller", "spu" or the id of an SPU"#),
        (r#"{"kind": "black-hole", "count": 1}"#, r#"takes no "count", only plane"#),
        (r#"{"kind": "empty-cluster", "plane": "spu"}"#, r#""empty-cluster" takes no "plane""#),
        (r#"{"kind": "black-hole", "seconds": 1}"#, "unknown field `seconds`"),
        (r#"{"kind": "close", "bytes": 5}"#, "unknown field `bytes`"),
        (r#"{"kind": "produce-error"}"#, "missing field `code`"),
        (r#"{"kind": "produce-error", "code": "Storage"}"#, r#""Storage" is no error of the protocol"#),
        (r#"{"kind": "produce-error", "code": 0}"#, "0 is no error of the protocol"),
        (r#"{"kind": "platform-version", "version": "new"}"#, "unexpected character"),
    ] {
        let error = Fault::from_json(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let server = Server::start(Config::default()).await.expect("start");
    for (text, expected) in [
        (r#"{"kind": "close", "sent_bytes": 5, "received_bytes": 5}"#, "give one of them"),
        (r#"{"kind": "stall", "sent_bytes": 5, "request": "produce"}"#, "at a byte there is no request"),
        (r#"{"kind": "unadvertised"}"#, "missing field `request`"),
        (r#"{"kind": "advertised-address", "address": "nowhere"}"#, "is not host:port"),
        (r#"{"kind": "black-hole", "plane": 5009}"#, "there is no SPU 5009"),
    ] {
        let error = server.inject(Fault::from_json(text).expect(text)).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(server.faults().is_empty());
    server.shutdown().await;
}

#[test]
fn the_json_form_comes_back() {
    for text in [
        r#"{"kind":"delay","when":"after","seconds":0.5,"plane":5001,"request":"stream-fetch","count":3}"#,
        r#"{"kind":"close","when":"before","sent_bytes":5}"#,
        r#"{"kind":"produce-error","code":"NotLeaderForPartition","topic":"t","partition":2}"#,
        r#"{"kind":"black-hole","plane":"controller"}"#,
    ] {
        let fault = Fault::from_json(text).expect(text);
        assert_eq!(serde_json::to_string(&fault).expect("encode"), text);
    }
}
