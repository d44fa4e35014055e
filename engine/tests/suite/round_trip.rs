//! Records through producer, server and consumer, with a server that cuts its answers in mid-batch.

use crate::common::{Cluster, connect, options, receive, send, send_many, submit, topic};
use engine::ErrorKind;
use engine::admin::ListTopics;
use engine::producer::{ProducerOptions, Sent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_listed_and_deleted() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 3).await;
    let admin = client.admin();
    let list = || admin.list_topics(ListTopics { filter: vec![name.clone()], system: false });
    let listed = list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].partitions), (name.as_str(), 3));
    let again = engine::admin::CreateTopic::from_json(&format!(r#"{{"name": "{name}"}}"#)).unwrap();
    let error = admin.create_topic(again).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TopicAlreadyExists, 2002));
    admin.delete_topic(&name).await.unwrap();
    assert!(list().await.unwrap().is_empty());
    let error = admin.delete_topic(&name).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TopicNotFound, 2001));
    let error = client.producer(&name, ProducerOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert!(error.message().contains(&name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_kind_come_back() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let records: [(Option<&[u8]>, &[u8]); 4] =
        [(None, b"a"), (Some(b""), b"b"), (Some(b"key"), b"c"), (None, b"")];
    for (offset, (key, value)) in records.iter().enumerate() {
        let ack = send(&producer, *key, value).await.unwrap();
        assert_eq!((ack.partition, ack.offset), (0, offset as i64));
    }
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let received = receive(&consumer, 4).await;
    for (offset, (key, value)) in records.iter().enumerate() {
        assert_eq!(received[offset], (0, offset as i64, key.map(<[u8]>::to_vec), value.to_vec()));
    }
    consumer.close().await;
    assert_eq!(consumer.take().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_is_resolved() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let values: Vec<Vec<u8>> = (0..10u8).map(|value| vec![value]).collect();
    send_many(&producer, &values, None).await;
    for (start, first) in [
        (r#"{"beginning": 0}"#, 0),
        (r#"{"beginning": 3}"#, 3),
        (r#"{"end": 4}"#, 6),
        (r#"{"end": 99}"#, 0),
        (r#"{"offset": 7}"#, 7),
    ] {
        let consumer = client.consumer(&name, options(&format!(r#"{{"start": {start}}}"#))).await.unwrap();
        assert_eq!(receive(&consumer, 10 - first).await[0].1, first as i64, "{start}");
    }
    let live = [r#"{"beginning": 99}"#, r#"{"end": 0}"#, r#"{"offset": 12}"#];
    for (end, start) in (10..).zip(live) {
        let consumer = client.consumer(&name, options(&format!(r#"{{"start": {start}}}"#))).await.unwrap();
        assert_eq!(send(&producer, None, b"live").await.unwrap().offset, end);
        assert_eq!(receive(&consumer, 1).await[0].1, end, "{start}");
    }
    let error = client.consumer(&name, options(r#"{"start": {"offset": 99}}"#)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    let error = client.consumer(&name, options(r#"{"partitions": [5]}"#)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartitionNotFound);
}

/// The defect that all released clients have: a backlog of more than one answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_is_complete() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (count, size) in [(1_000_000usize, 100), (50_000, 1_000)] {
        let name = topic(&client, 1).await;
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        let values: Vec<Vec<u8>> = (0..count)
            .map(|number| {
                let mut value = vec![b'.'; size];
                value[..8].copy_from_slice(&(number as u64).to_be_bytes());
                value
            })
            .collect();
        send_many(&producer, &values, None).await;
        let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
        let received = receive(&consumer, count).await;
        for (number, (_, offset, _, value)) in received.iter().enumerate() {
            assert_eq!(*offset, number as i64);
            assert_eq!(value, &values[number]);
        }
        client.admin().delete_topic(&name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_an_answer_comes_through() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let large = ProducerOptions::from_json(
        r#"{"batch_size_bytes": 8000000, "max_request_size_bytes": 8000000, "linger_ms": 50, "buffer_bytes": 64000000}"#,
    )
    .unwrap();
    let producer = client.producer(&name, large).await.unwrap();
    let values: Vec<Vec<u8>> = vec![vec![1; 5_000_000], vec![2; 10], vec![3; 3_500_000], vec![4; 20]];
    send_many(&producer, &values, None).await;
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let received: Vec<Vec<u8>> = receive(&consumer, 4).await.into_iter().map(|record| record.3).collect();
    assert!(received == values);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_takes_nothing_and_room_comes_in_order() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let small = ProducerOptions::from_json(r#"{"buffer_bytes": 4096, "linger_ms": 20}"#).unwrap();
    let producer = client.producer(&name, small).await.unwrap();
    let held = producer.reserve(4096).await.unwrap();
    let sent = producer.send(&mut None, None, b"x", None, || unreachable!("no handler for a refused record"));
    assert_eq!(sent.unwrap(), Sent::Full);
    assert_eq!(producer.reserve(4097).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(held);
    let values: Vec<Vec<u8>> = (0..500u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let mut acks = Vec::new();
    for value in &values {
        acks.push(submit(&producer, None, value, None).await.unwrap());
    }
    for (offset, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap().unwrap().offset, offset as i64);
    }
    let too_large = producer.send(&mut None, None, &[0; 5000], None, || unreachable!());
    assert_eq!(too_large.unwrap_err().kind(), ErrorKind::RecordTooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_flushes_and_refuses_what_comes_later() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 3).await;
    let lingering = ProducerOptions::from_json(r#"{"linger_ms": 60000}"#).unwrap();
    let producer = client.producer(&name, lingering.clone()).await.unwrap();
    let mut acks = Vec::new();
    for number in 0..100u8 {
        acks.push(submit(&producer, Some(&[number]), b"value", None).await.unwrap());
    }
    producer.close().await.unwrap();
    for ack in acks {
        ack.await.unwrap().unwrap();
    }
    let refused = producer.send(&mut None, None, b"late", None, || unreachable!());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(producer.reserve(10).await.unwrap_err().kind(), ErrorKind::Closed);
    producer.close().await.unwrap();

    // Dropped without close: what was accepted is still sent.
    let producer = client.producer(&name, lingering).await.unwrap();
    let ack = submit(&producer, None, b"dropped", None).await.unwrap();
    drop(producer);
    ack.await.unwrap().unwrap();
    client.close().await;
    assert_eq!(
        client.producer(&name, ProducerOptions::default()).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn what_is_no_server_is_named() {
    for (endpoint, kind) in [
        ("127.0.0.1:1", ErrorKind::Connection),
        ("no-such-host.invalid:9003", ErrorKind::Connection),
        ("nonsense", ErrorKind::InvalidArgument),
    ] {
        let error = connect(endpoint).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(endpoint), "{error}");
    }
}
