//! Watches: what a watcher is told, and when.

use crate::common::{Raw, batch_of, create_frame, frame_of, framed, produce, unit_of};
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::api::RequestMessage;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::message::MsgType;
use fluvio_sc_schema::objects::{MetadataUpdate, ObjectApiWatchRequest, ObjectApiWatchResponse};
use fluvio_sc_schema::objects::{WatchRequest, WatchResponse};
use fluvio_sc_schema::{AdminSpec, Status, TryEncodableFrom};

/// Starts a watch whose updates carry `correlation_id`, and takes the first.
async fn watch<S>(connection: &mut Raw, correlation_id: i32) -> MetadataUpdate<S>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    let request = WatchRequest::<S>::default();
    let request = ObjectApiWatchRequest::try_encode_from(request, 19).expect("encode");
    let mut message = RequestMessage::new_request(request);
    message.header.set_correlation_id(correlation_id);
    let mut body = Vec::new();
    message.encode(&mut body, 0).expect("encode");
    connection.send(&framed(&body)).await;
    update(&connection.receive().await, correlation_id)
}

fn update<S>(frame: &[u8], correlation_id: i32) -> MetadataUpdate<S>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder,
{
    assert_eq!(id_of(frame), correlation_id);
    let response = ObjectApiWatchResponse::decode_from(&mut &frame[8..], 19).expect("an update");
    let response: Option<WatchResponse<S>> = response.downcast().expect("an update");
    response.expect("an update of that kind").inner()
}

fn id_of(frame: &[u8]) -> i32 {
    frame[4..8].iter().fold(0, |id, byte| id << 8 | i32::from(*byte))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_know_a_topic_before_its_creator_does() {
    let server = Server::start(Config::default()).await.expect("start");
    let mut creator = Raw::connect(&server.endpoint()).await;
    let topics = watch::<TopicSpec>(&mut creator, 7).await;
    assert_eq!(topics.all.len(), 1, "the system topic, so that no client waits for a first object");
    watch::<PartitionSpec>(&mut creator, 8).await;
    let mut other = Raw::connect(&server.endpoint()).await;
    watch::<TopicSpec>(&mut other, 9).await;

    creator.send(&create_frame("new", TopicSpec::new_computed(3, 1, None))).await;
    let partitions = update::<PartitionSpec>(&creator.receive().await, 8).changes;
    let names: Vec<_> = partitions.iter().map(|change| change.content.name.as_str()).collect();
    assert_eq!(names, ["new-0", "new-1", "new-2"]);
    assert!(partitions.iter().all(|change| change.content.status.is_online()));
    let topic = update::<TopicSpec>(&creator.receive().await, 7).changes;
    assert!(topic[0].content.status.is_resolution_provisioned());
    let reply = creator.receive().await;
    assert_eq!(id_of(&reply), 1);
    assert!(Status::decode_from(&mut &reply[8..], 19).expect("a status").error_code.is_ok());
    let told = update::<TopicSpec>(&other.receive().await, 9).changes;
    assert_eq!((&told[0].header, told[0].content.name.as_str()), (&MsgType::UPDATE, "new"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_learn_how_far_partitions_have_grown() {
    let server = Server::start(Config::default()).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut controller).await;
    crate::common::create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    watch::<PartitionSpec>(&mut controller, 5).await;
    let batch = batch_of(b"value", 10);
    let mut client = Raw::connect(&unit).await;
    for _ in 0..100 {
        produce(&mut client, "t", &[&batch]).await;
    }
    // Few updates tell of many requests, and the last one of all.
    let mut updates = 0;
    loop {
        let change = update::<PartitionSpec>(&controller.receive().await, 5).changes.remove(0);
        updates += 1;
        let status = change.content.status;
        assert_eq!(status.leader.hw, status.leader.leo);
        if status.leader.leo == 1000 {
            assert_eq!(status.size, 100 * batch.len() as i64);
            break;
        }
    }
    assert!(updates < 20, "{updates} updates");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_has_left_is_forgotten() {
    let server = Server::start(Config::default()).await.expect("start");
    let mut leaver = Raw::connect(&server.endpoint()).await;
    watch::<TopicSpec>(&mut leaver, 3).await;
    drop(leaver);
    let mut controller = Raw::connect(&server.endpoint()).await;
    for number in 0..10 {
        let status = crate::common::create(
            &mut controller,
            &format!("t{number}"),
            TopicSpec::new_computed(1, 1, None),
        )
        .await;
        assert!(status.error_code.is_ok());
    }
    controller
        .send(&frame_of(fluvio_protocol::link::versions::ApiVersionsRequest {
            client_version: "0.50.1".to_owned(),
            ..Default::default()
        }))
        .await;
    controller.receive().await;
    server.shutdown().await;
}
