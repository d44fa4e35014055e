//! Offsets: those of partitions, and those that consumers store. And Fetch, which no client sends.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::admin::{all, delete};
use crate::common::{Raw, ask, batch_of, create, frame_of, produce};
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::Decoder;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{RawRecords, RecordSet, ReplicaKey};
use fluvio_spu_schema::Isolation;
use fluvio_spu_schema::fetch::{FetchPartition, FetchRequest, FetchableTopic};
use fluvio_spu_schema::server::consumer_offset::{
    DeleteConsumerOffsetRequest, FetchConsumerOffsetsRequest, UpdateConsumerOffsetRequest,
    UpdateConsumerOffsetResponse,
};
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest, UpdateOffsetsResponse};

struct Fixture {
    server: Server,
    controller: Raw,
}

impl Fixture {
    /// Two SPUs; the first keeps consumer offsets and leads topic `a`, the second leads `b`; each topic has three records.
    async fn new() -> Self {
        let server = Server::start(Config { spus: 2, ..Config::default() }).await.expect("start");
        let controller = Raw::connect(&server.endpoint()).await;
        let mut fixture = Fixture { server, controller };
        for (topic, spu) in [("a", 5001), ("b", 5002)] {
            let spec = TopicSpec::new_assigned(vec![(0, vec![spu])]);
            assert!(create(&mut fixture.controller, topic, spec).await.error_code.is_ok());
            let mut unit = fixture.unit(spu).await;
            produce(&mut unit, topic, &[&batch_of(b"x", 3)]).await;
        }
        fixture
    }

    async fn unit(&mut self, id: i32) -> Raw {
        let spus = all::<SpuSpec>(&mut self.controller).await;
        let spu = spus.iter().find(|spu| spu.spec.id == id).expect("the SPU");
        Raw::connect(&spu.spec.public_endpoint.addr()).await
    }

    /// A connection with a stream, whose session is 1, of a consumer.
    async fn stream(&mut self, spu: i32, topic: &str, consumer: Option<&str>) -> Raw {
        let mut unit = self.unit(spu).await;
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic(topic.to_owned()).max_bytes(1 << 20).consumer_id(consumer.map(str::to_owned));
        unit.send(&frame_of(request.build().expect("a request"))).await;
        unit.receive().await;
        unit
    }
}

async fn store(unit: &mut Raw, offset: i64) -> ErrorCode {
    ask(unit, UpdateConsumerOffsetRequest::new(offset, 1)).await.error_code
}

/// Consumer, topic and offset of what is stored.
async fn stored(unit: &mut Raw, topic: Option<&str>, consumer: Option<&str>) -> Vec<(String, String, i64)> {
    let topic = topic.map(|topic| ReplicaKey::new(topic, 0_u32));
    let request = FetchConsumerOffsetsRequest::with_opts(topic, consumer.map(str::to_owned));
    let response = ask(unit, request).await;
    assert!(response.error_code.is_ok());
    let consumers = response.consumers.into_iter();
    consumers.map(|stored| (stored.consumer_id, stored.replica_id.topic, stored.offset)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_store_where_they_are_at_any_spu() {
    let mut fixture = Fixture::new().await;
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    for (spu, topic, consumer, offset) in [(5001, "a", "c1", 1), (5002, "b", "c1", 2), (5002, "b", "c2", 0)] {
        let mut stream = fixture.stream(spu, topic, Some(consumer)).await;
        assert_eq!(store(&mut stream, offset).await, ErrorCode::None);
    }
    let mut keeper = fixture.unit(5001).await;
    let (a, b) = (("c1".to_owned(), "a".to_owned(), 1), ("c1".to_owned(), "b".to_owned(), 2));
    let other = ("c2".to_owned(), "b".to_owned(), 0);
    assert_eq!(stored(&mut keeper, None, None).await, [a.clone(), b.clone(), other.clone()]);
    assert_eq!(stored(&mut keeper, Some("b"), None).await, [b.clone(), other.clone()]);
    assert_eq!(stored(&mut keeper, None, Some("c1")).await, [a, b.clone()]);
    assert_eq!(stored(&mut keeper, Some("b"), Some("c2")).await, std::slice::from_ref(&other));
    assert_eq!(stored(&mut keeper, Some("nope"), None).await, []);
    let response = ask(&mut keeper, FetchConsumerOffsetsRequest::default()).await;
    assert!(response.consumers.iter().all(|stored| (before..before + 60).contains(&stored.modified_time)));

    // Only the SPU that keeps them lists and deletes them.
    let mut second = fixture.unit(5002).await;
    let response = ask(&mut second, FetchConsumerOffsetsRequest::default()).await;
    assert_eq!(response.error_code, ErrorCode::PartitionNotLeader);
    let forget = || DeleteConsumerOffsetRequest::new("a", 0_u32, "c1");
    assert_eq!(ask(&mut second, forget()).await.error_code, ErrorCode::PartitionNotLeader);
    assert_eq!(ask(&mut keeper, forget()).await.error_code, ErrorCode::None);
    assert_eq!(ask(&mut keeper, forget()).await.error_code, ErrorCode::None);
    assert_eq!(stored(&mut keeper, None, None).await, [b, other]);

    // They go with their topic, and a topic of that name has none.
    delete::<TopicSpec>(&mut fixture.controller, "b".to_owned()).await;
    assert_eq!(stored(&mut keeper, None, None).await, []);
    create(&mut fixture.controller, "b", TopicSpec::new_assigned(vec![(0, vec![5002])])).await;
    assert_eq!(stored(&mut keeper, None, None).await, []);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_cannot_store_learns_why() {
    let mut fixture = Fixture::new().await;
    let mut nobody = fixture.unit(5001).await;
    assert_eq!(store(&mut nobody, 1).await, ErrorCode::FetchSessionNotFoud);
    let mut anonymous = fixture.stream(5001, "a", None).await;
    assert_eq!(store(&mut anonymous, 1).await, ErrorCode::Other("stream without consumer id".to_owned()));
    let mut remote = fixture.stream(5002, "b", Some("c")).await;
    fixture.server.stop_spu(5001).await.expect("stop");
    assert_eq!(store(&mut remote, 1).await, ErrorCode::Other("update offset in peer".to_owned()));
    fixture.server.start_spu(5001).await.expect("start");
    assert_eq!(store(&mut remote, 1).await, ErrorCode::None);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_for_a_topic_that_is_gone() {
    let mut fixture = Fixture::new().await;
    let mut stream = fixture.stream(5001, "a", Some("c")).await;
    assert!(delete::<TopicSpec>(&mut fixture.controller, "a".to_owned()).await.error_code.is_ok());
    // The stream ends.
    stream.receive().await;
    assert_eq!(store(&mut stream, 1).await, ErrorCode::TopicDeleted);
    let spec = TopicSpec::new_assigned(vec![(0, vec![5001])]);
    assert!(create(&mut fixture.controller, "a", spec).await.error_code.is_ok());
    // The new topic of that name is another one.
    assert_eq!(store(&mut stream, 1).await, ErrorCode::TopicDeleted);
    let mut keeper = fixture.unit(5001).await;
    assert_eq!(stored(&mut keeper, None, None).await, []);
    produce(&mut keeper, "a", &[&batch_of(b"x", 1)]).await;
    let mut stream = fixture.stream(5001, "a", Some("c")).await;
    assert_eq!(store(&mut stream, 0).await, ErrorCode::None);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_a_connection_are_answered_in_their_order() {
    let mut fixture = Fixture::new().await;
    let mut stream = fixture.stream(5001, "a", Some("c")).await;
    let acknowledge = UpdateOffsetsRequest::new(vec![OffsetUpdate { offset: 3, session_id: 1 }]);
    let mut frames = frame_of(acknowledge);
    frames.extend(frame_of(UpdateConsumerOffsetRequest::new(2, 1)));
    stream.send(&frames).await;
    let first = UpdateOffsetsResponse::decode_from(&mut &stream.receive().await[8..], 0).expect("a response");
    assert_eq!((first.status.len(), &first.status[0].error), (1, &ErrorCode::None));
    let second = stream.receive().await;
    let second = UpdateConsumerOffsetResponse::decode_from(&mut &second[8..], 25).expect("a response");
    assert_eq!((second.offset, second.error_code), (2, ErrorCode::None));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_partitions_are_known_to_their_leader() {
    let mut fixture = Fixture::new().await;
    fixture.server.hold_high_watermark("a", true);
    let mut unit = fixture.unit(5001).await;
    produce(&mut unit, "a", &[&batch_of(b"y", 2)]).await;
    let mut offsets = async |topic: &str| {
        let response = ask(&mut unit, FetchOffsetsRequest::new(topic.to_owned(), 0)).await;
        let partition = &response.topics[0].partitions[0];
        (partition.error_code.clone(), partition.start_offset, partition.last_stable_offset)
    };
    // The last one that is stable is the high watermark.
    assert_eq!(offsets("a").await, (ErrorCode::None, 0, 3));
    assert_eq!(offsets("b").await, (ErrorCode::PartitionNotLeader, 0, 0));
    assert_eq!(offsets("nope").await, (ErrorCode::PartitionNotLeader, 0, 0));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_reads_once() {
    let mut fixture = Fixture::new().await;
    fixture.server.hold_high_watermark("a", true);
    let mut unit = fixture.unit(5001).await;
    produce(&mut unit, "a", &[&batch_of(b"y", 2)]).await;
    let wanted = |name: &str, offsets: &[i64]| FetchableTopic {
        name: name.to_owned(),
        fetch_partitions: offsets
            .iter()
            .map(|offset| FetchPartition { fetch_offset: *offset, ..FetchPartition::default() })
            .collect(),
    };
    for (isolation_level, end) in [(Isolation::ReadUncommitted, 5), (Isolation::ReadCommitted, 3)] {
        let request = FetchRequest::<RecordSet<RawRecords>> {
            max_bytes: 1 << 20,
            isolation_level,
            topics: vec![wanted("a", &[0, 5, 6, -1]), wanted("b", &[0])],
            ..FetchRequest::default()
        };
        let response = ask(&mut unit, request).await;
        let [found, at_end, beyond, before] = &response.topics[0].partitions[..] else {
            panic!("{response:?}");
        };
        assert_eq!(found.records.batches.last().expect("a batch").get_last_offset() + 1, end);
        assert_eq!((found.high_watermark, at_end.records.batches.len()), (3, 0));
        let text = "start offset: 6 is greater than leo: 5".to_owned();
        assert_eq!(beyond.error_code, ErrorCode::Other(text));
        assert_eq!(before.error_code, ErrorCode::OffsetEvicted { offset: -1, next_available: 0 });
        assert_eq!(response.topics[1].partitions[0].error_code, ErrorCode::NotLeaderForPartition);
    }
    fixture.server.shutdown().await;
}
