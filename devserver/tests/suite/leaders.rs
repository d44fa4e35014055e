//! Several SPUs, their leaders, and the high watermark: what a client sees when a leader moves, an SPU goes away and
//! returns, and followers stand still.

use std::time::Duration;

use crate::common::{Arrival, Raw, ask, batch_of, create, frame_of, produce};
use fluvio_controlplane_metadata::partition::{PartitionResolution, PartitionSpec};
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::api::RequestKind;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::objects::{ListRequest, ListResponse, Metadata, ObjectApiListRequest};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};

/// How long a connection that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);

struct Fixture {
    server: Server,
    controller: Raw,
}

impl Fixture {
    async fn new(spus: u16) -> Self {
        let server = Server::start(Config { spus, ..Config::default() }).await.expect("start");
        let controller = Raw::connect(&server.endpoint()).await;
        Fixture { server, controller }
    }

    async fn list<S>(&mut self) -> Vec<Metadata<S>>
    where
        S: AdminSpec,
        S::Status: Encoder + Decoder,
        ObjectApiListRequest: TryEncodableFrom<ListRequest<S>>,
        fluvio_sc_schema::objects::ObjectApiListResponse: TryEncodableFrom<ListResponse<S>>,
    {
        let list = ListRequest::<S>::new(Vec::new(), false);
        let request = ObjectApiListRequest::try_encode_from(list, 19).expect("encode");
        let response: Option<ListResponse<S>> =
            ask(&mut self.controller, request).await.downcast().expect("a list");
        response.expect("objects").inner()
    }

    async fn unit(&mut self, id: i32) -> Raw {
        let spus = self.list::<SpuSpec>().await;
        let spu = spus.iter().find(|spu| spu.spec.id == id).expect("the SPU");
        Raw::connect(&spu.spec.public_endpoint.addr()).await
    }

    /// Leaders and states of the partitions of a topic.
    async fn leaders(&mut self, topic: &str) -> Vec<(i32, PartitionResolution)> {
        let mut partitions = self.list::<PartitionSpec>().await;
        partitions.retain(|partition| partition.name.starts_with(&format!("{topic}-")));
        partitions.sort_by_key(|partition| partition.name.clone());
        partitions.into_iter().map(|partition| (partition.spec.leader, partition.status.resolution)).collect()
    }
}

/// One partition on just these SPUs, the leader first.
fn assigned(spus: &[i32]) -> TopicSpec {
    TopicSpec::new_assigned(vec![(0, spus.to_vec())])
}

async fn open(unit: &mut Raw, topic: &str, isolation: Isolation) {
    let mut request = DefaultStreamFetchRequest::builder();
    request.topic(topic.to_owned()).isolation(isolation).max_bytes(1 << 20);
    unit.send(&frame_of(request.build().expect("a request"))).await;
}

async fn answer(unit: &mut Raw) -> FetchablePartitionResponse<i32> {
    let frame = unit.receive().await;
    StreamFetchResponse::<i32>::decode_from(&mut &frame[8..], 25).expect("an answer").partition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_go_round_and_only_they_serve() {
    let mut fixture = Fixture::new(3).await;
    let spec = TopicSpec::new_computed(4, 2, None);
    assert!(create(&mut fixture.controller, "t", spec).await.error_code.is_ok());
    let online = |spu| (spu, PartitionResolution::Online);
    // The system topic's partition is on 5001 already.
    assert_eq!(fixture.leaders("t").await, [5002, 5003, 5001, 5002].map(online));
    let topics = fixture.list::<TopicSpec>().await;
    assert_eq!(topics[0].status.replica_map[&2], [5001, 5003]);

    let batch = batch_of(b"x", 1);
    let mut leader = fixture.unit(5002).await;
    assert_eq!(produce(&mut leader, "t", &[&batch]).await, [(ErrorCode::None, 0)]);
    let mut other = fixture.unit(5001).await;
    assert_eq!(produce(&mut other, "t", &[&batch]).await, [(ErrorCode::NotLeaderForPartition, 0)]);
    open(&mut other, "t", Isolation::ReadUncommitted).await;
    assert_eq!(answer(&mut other).await.error_code, ErrorCode::NotLeaderForPartition);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_leader_ends_the_streams_of_the_former_one() {
    let mut fixture = Fixture::new(2).await;
    create(&mut fixture.controller, "t", assigned(&[5001])).await;
    let mut former = fixture.unit(5001).await;
    assert_eq!(produce(&mut former, "t", &[&batch_of(b"x", 3)]).await, [(ErrorCode::None, 0)]);
    open(&mut former, "t", Isolation::ReadUncommitted).await;
    assert!(answer(&mut former).await.error_code.is_ok());

    fixture.server.move_leader("t", 0, 5002).expect("move");
    assert_eq!(answer(&mut former).await.error_code, ErrorCode::NotLeaderForPartition);
    assert_eq!(fixture.leaders("t").await, [(5002, PartitionResolution::Online)]);
    assert_eq!(fixture.list::<TopicSpec>().await[0].status.replica_map[&0], [5002]);
    // Nothing is lost, and the new leader goes on behind it.
    let mut leader = fixture.unit(5002).await;
    assert_eq!(produce(&mut leader, "t", &[&batch_of(b"y", 1)]).await, [(ErrorCode::None, 3)]);

    assert!(fixture.server.move_leader("t", 0, 5009).is_err());
    assert!(fixture.server.move_leader("t", 1, 5001).is_err());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_spu_goes_away_and_returns() {
    let mut fixture = Fixture::new(2).await;
    create(&mut fixture.controller, "one", assigned(&[5001])).await;
    create(&mut fixture.controller, "two", assigned(&[5001, 5002])).await;
    let mut unit = fixture.unit(5001).await;
    let batch = batch_of(b"x", 1);
    for topic in ["one", "two"] {
        assert_eq!(produce(&mut unit, topic, &[&batch]).await, [(ErrorCode::None, 0)]);
    }
    fixture.server.stop_spu(5001).await.expect("stop");
    assert_eq!(unit.receive_within(crate::common::SOON).await, Arrival::Closed);
    let spus = fixture.list::<SpuSpec>().await;
    let online: Vec<_> = spus.iter().map(|spu| spu.status.is_online()).collect();
    assert_eq!(online, [false, true]);
    assert_eq!(fixture.leaders("one").await, [(5001, PartitionResolution::LeaderOffline)]);
    assert_eq!(fixture.leaders("two").await, [(5002, PartitionResolution::Online)]);
    let mut successor = fixture.unit(5002).await;
    assert_eq!(produce(&mut successor, "two", &[&batch]).await, [(ErrorCode::None, 1)]);
    assert!(fixture.server.move_leader("two", 0, 5001).is_err());

    fixture.server.start_spu(5001).await.expect("start");
    assert_eq!(fixture.leaders("one").await, [(5001, PartitionResolution::Online)]);
    // Who has taken over stays the leader.
    assert_eq!(fixture.leaders("two").await, [(5002, PartitionResolution::Online)]);
    let mut unit = fixture.unit(5001).await;
    assert_eq!(produce(&mut unit, "one", &[&batch]).await, [(ErrorCode::None, 1)]);
    assert!(fixture.server.stop_spu(5003).await.is_err());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_committed_sees_and_waits_for_the_high_watermark() {
    let mut fixture = Fixture::new(1).await;
    create(&mut fixture.controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    let mut producer = fixture.unit(5001).await;
    let batch = batch_of(b"x", 2);
    fixture.server.hold_high_watermark("t", true);
    assert_eq!(produce(&mut producer, "t", &[&batch]).await, [(ErrorCode::None, 0)]);

    let mut uncommitted = fixture.unit(5001).await;
    open(&mut uncommitted, "t", Isolation::ReadUncommitted).await;
    assert_eq!(answer(&mut uncommitted).await.high_watermark, 0);
    let mut committed = fixture.unit(5001).await;
    open(&mut committed, "t", Isolation::ReadCommitted).await;
    assert_eq!(committed.receive_within(SILENCE).await, Arrival::Nothing);

    // The produce frame with acks -1: it waits for its time-out, and what is behind it waits as well.
    let mut frame = crate::common::produce_frame("t", &[&batch]);
    frame[15..17].copy_from_slice(&(-1_i16).to_be_bytes());
    producer.send(&frame).await;
    let results = produce(&mut producer, "t", &[&batch]).await;
    let timed_out = ErrorCode::RequestTimedOut { kind: RequestKind::Produce, timeout_ms: 1000 };
    assert_eq!(results, [(timed_out, 2)]);
    producer.receive().await;

    fixture.server.hold_high_watermark("t", false);
    // What has timed out is in the log.
    assert_eq!(answer(&mut committed).await.high_watermark, 6);
    producer.send(&frame).await;
    let results = produce(&mut producer, "t", &[&batch]).await;
    assert_eq!(results, [(ErrorCode::None, 6)]);
    fixture.server.shutdown().await;
}
