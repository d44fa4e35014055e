//! Many connections and many partitions: everybody is served.

use crate::common::admin::{all, changes, update, watch_frame};
use crate::common::{Raw, ask, batch_of, create, frame_of, produce, unit_of};
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::ApiVersionsRequest;
use fluvio_sc_schema::message::MsgType;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;

/// Half of them watch, the others stream.
const CONNECTIONS: usize = 2000;
const TOPICS: usize = 1000;
const PARTITIONS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_are_served() {
    // Both ends are in this process.
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of file descriptors");
    assert!(
        limit > 2 * CONNECTIONS as u64 + 100,
        "this test needs more file descriptors than {limit}: ulimit -n"
    );
    let server = Server::start(Config::default()).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    let unit = unit_of(&mut controller).await;
    let (mut watchers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS / 2 {
        let mut watcher = Raw::connect(&server.endpoint()).await;
        watcher.send(&watch_frame::<TopicSpec>(2)).await;
        assert_eq!(update::<TopicSpec>(&mut watcher).await.all.len(), 2);
        watchers.push(watcher);
        let mut reader = Raw::connect(&unit).await;
        let request = DefaultStreamFetchRequest::builder().topic("t".to_owned()).build().expect("a request");
        reader.send(&frame_of(request)).await;
        // Answered in turn: then the stream is open.
        ask(&mut reader, ApiVersionsRequest::default()).await;
        readers.push(reader);
    }
    create(&mut controller, "new", TopicSpec::new_computed(1, 1, None)).await;
    for watcher in &mut watchers {
        assert_eq!(changes::<TopicSpec>(watcher).await, [(MsgType::UPDATE, "new".to_owned())]);
    }
    let mut producer = Raw::connect(&unit).await;
    let batch = batch_of(b"to everybody", 1);
    assert_eq!(produce(&mut producer, "t", &[&batch]).await, [(ErrorCode::None, 0)]);
    for reader in &mut readers {
        // The record set is the end of the frame.
        assert!(reader.receive().await.ends_with(&batch[batch.len() - 12..]));
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_topics_are_created_listed_and_watched() {
    let server = Server::start(Config { spus: 3, ..Config::default() }).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    let mut watcher = Raw::connect(&server.endpoint()).await;
    watcher.send(&watch_frame::<PartitionSpec>(2)).await;
    assert_eq!(update::<PartitionSpec>(&mut watcher).await.all.len(), 1);
    let watching = tokio::spawn(async move {
        let mut known = 0;
        while known < TOPICS * PARTITIONS {
            known += changes::<PartitionSpec>(&mut watcher).await.len();
        }
        known
    });
    for number in 0..TOPICS {
        let spec = TopicSpec::new_computed(PARTITIONS as u32, 2, None);
        let status = create(&mut controller, &format!("t{number}"), spec).await;
        assert!(status.error_code.is_ok());
    }
    assert_eq!(watching.await.expect("the watcher"), TOPICS * PARTITIONS);
    assert_eq!(all::<TopicSpec>(&mut controller).await.len(), TOPICS);
    let partitions = all::<PartitionSpec>(&mut controller).await;
    assert!(partitions.iter().all(|partition| partition.status.is_online()));
    // The system's partition is the one that makes the difference.
    let mut led = [0; 3];
    partitions.iter().for_each(|partition| led[partition.spec.leader as usize - 5001] += 1);
    assert_eq!((led.iter().sum::<usize>(), led[0]), (TOPICS * PARTITIONS, TOPICS * PARTITIONS / 3));
    // All of an SPU's partitions move in one update per kind.
    let mut watcher = Raw::connect(&server.endpoint()).await;
    watcher.send(&watch_frame::<PartitionSpec>(2)).await;
    assert_eq!(update::<PartitionSpec>(&mut watcher).await.all.len(), TOPICS * PARTITIONS + 1);
    server.stop_spu(5002).await.expect("stop");
    assert_eq!(changes::<PartitionSpec>(&mut watcher).await.len(), led[1]);
    let partitions = all::<PartitionSpec>(&mut controller).await;
    assert!(partitions.iter().all(|partition| partition.status.is_online() && partition.spec.leader != 5002));
    server.shutdown().await;
}
