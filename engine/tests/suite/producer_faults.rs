//! A producer whose topic, SPU or server's patience is gone: each record has one clear fate, in time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::common::process::Process;
use crate::common::{All, Cluster, One, PATIENCE, connect, impatient, options, send, submit, topic};
use engine::admin::CreateTopic;
use engine::consumer::Taken;
use engine::producer::{Many, Producer, ProducerOptions, RECORD_OVERHEAD, Sent};
use engine::{Client, ClientOptions, Error, ErrorKind, Outcome};
use fluvio_devserver::{Config, Fault};
use tokio::sync::oneshot;

async fn create(client: &Client, name: &str, partitions: u32) {
    let text = format!(r#"{{"name": "{name}", "partitions": {partitions}}}"#);
    client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.expect("created");
}

async fn producer(client: &Client, name: &str, options: &str) -> Producer {
    client.producer(name, ProducerOptions::from_json(options).unwrap()).await.unwrap()
}

/// One record for each partition, acknowledged.
async fn send_to_all(producer: &Producer, value: &[u8]) -> Vec<i64> {
    let mut fates = Vec::new();
    for partition in 0..producer.partition_count() {
        fates.push(submit(producer, None, value, Some(partition)).await.unwrap());
    }
    let mut offsets = Vec::new();
    for fate in fates {
        offsets.push(tokio::time::timeout(PATIENCE, fate).await.unwrap().unwrap().unwrap().offset);
    }
    offsets
}

/// The old producer learns that its topic is over, at once and for every later record; the topic that has the name now is empty.
async fn is_over(old: &Producer, client: &Client, name: &str) {
    let late = tokio::time::timeout(PATIENCE / 4, send(old, None, b"of the old one")).await;
    let error = late.expect("noticed in time").expect_err("nothing is written to the new topic");
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
    assert_eq!((error.outcome(), error.topic()), (Some(Outcome::NotSent), Some(name)));
    for partition in [None, Some(0), Some(7)] {
        let refused = old.send(&mut None, Some(b"key"), b"late", partition, || unreachable!()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TopicDeleted, "{refused}");
    }
    tokio::time::timeout(PATIENCE, old.close()).await.unwrap().unwrap();
    let fresh = producer(client, name, "{}").await;
    assert!(send_to_all(&fresh, b"new").await.iter().all(|offset| *offset == 0));
}

const RECREATED: [(u32, u32); 5] = [(1, 1), (3, 1), (1, 3), (100, 100), (1000, 1000)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_anew_under_a_connected_producer() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for (number, (before, after)) in RECREATED.into_iter().enumerate() {
        let name = format!("anew-{number}");
        create(&client, &name, before).await;
        let old = producer(&client, &name, "{}").await;
        send_to_all(&old, b"old").await;
        client.admin().delete_topic(&name).await.unwrap();
        create(&client, &name, after).await;
        knows(&old).await;
        is_over(&old, &client, &name).await;
    }
}

/// Waits until the producer has heard of the end of its topic: until then no request tells the two topics apart.
async fn knows(old: &Producer) {
    let nothing = || Err(Error::new(ErrorKind::Closed, "nothing is to be sent"));
    tokio::time::timeout(PATIENCE, async {
        while old.send(&mut None, None, b"", None, nothing).unwrap_err().kind() != ErrorKind::TopicDeleted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it hears of it");
}

/// A server that lost everything, with a topic of the same name: the log ends before what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_anew_while_the_server_is_away() {
    for (before, after) in RECREATED {
        let mut server = Process::start();
        let endpoint = server.endpoint.clone();
        let client = connect(&endpoint).await.unwrap();
        create(&client, "anew", before).await;
        let old = producer(&client, "anew", "{}").await;
        send_to_all(&old, b"old").await;
        server.kill();
        let waiting = submit(&old, None, b"while it is away", Some(0)).await.unwrap();
        let _server = Process::listen(&endpoint);
        let other = connect(&endpoint).await.unwrap();
        create(&other, "anew", after).await;
        let error = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
        is_over(&old, &other, "anew").await;
    }
}

/// What is in flight is bounded too: its outcome is unknown then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delivery_time_out_bounds_what_is_in_flight() {
    for partitions in [1, 100, 1000] {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let name = topic(&client, partitions).await;
        let impatient = producer(&client, &name, r#"{"delivery_timeout_ms": 500}"#).await;
        let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
        cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
        let begun = Instant::now();
        let mut fates = Vec::new();
        for partition in 0..partitions {
            fates.push(submit(&impatient, None, b"value", Some(partition)).await.unwrap());
        }
        for fate in fates {
            let error = tokio::time::timeout(PATIENCE, fate).await.unwrap().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(!error.is_retriable() || error.outcome() == Some(Outcome::NotSent), "{error:?}");
        }
        // The request time-out is 30 s.
        assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    }
}

/// Producers that wait for replication wait for themselves only, and what the server has written is not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_that_stands_still_is_written_once() {
    let cluster = Cluster::start().await;
    let settings = ClientOptions {
        endpoint: Some(cluster.endpoint.clone()),
        request_timeout_ms: 2000,
        ..ClientOptions::default()
    };
    let client = Client::connect(settings).await.unwrap();
    let name = topic(&client, 1).await;
    cluster.server().hold_high_watermark(&name, true);
    let sending = (0..4u8).map(|number| {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move {
            let producer = producer(&client, &name, r#"{"isolation": "read_committed"}"#).await;
            send(&producer, None, &[number]).await.unwrap_err()
        })
    });
    for sent in sending.collect::<Vec<_>>() {
        let error = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Some(Outcome::Written)), "{error}");
        assert!(!error.is_retriable());
    }
    cluster.server().hold_high_watermark(&name, false);
    let fresh = producer(&client, &name, "{}").await;
    assert_eq!(send(&fresh, None, b"last").await.unwrap().offset, 4);
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let mut times: HashMap<u8, usize> = HashMap::new();
    while times.values().sum::<usize>() < 5 {
        tokio::time::timeout(PATIENCE, consumer.ready()).await.unwrap();
        let Taken::Batch(batch) = consumer.take().unwrap() else { continue };
        for start in batch.columns().value_starts.iter() {
            *times.entry(batch.data()[*start as usize]).or_default() += 1;
        }
    }
    assert!(times.values().all(|count| *count == 1), "{times:?}");
}

/// The records of one SPU that is away take half of the buffer at most; those for the living go out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_spu_away_leaves_room_for_the_living() {
    let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
    let client = cluster.client().await;
    let name = topic(&client, 10).await;
    for partition in 0..10 {
        cluster.server().move_leader(&name, partition, 5001 + (partition % 2) as i32).unwrap();
    }
    let producer = producer(&client, &name, r#"{"buffer_bytes": 200000}"#).await;
    send_to_all(&producer, b"known").await;
    cluster.server().stop_spu(5001).await.unwrap();
    let mut waiting = Vec::new();
    let value = [7; 1000];
    let refused = loop {
        let (sender, fate) = oneshot::channel();
        match producer.send(&mut None, None, &value, Some(0), || Ok(Box::new(One(sender)))) {
            Ok(Sent::Accepted) => waiting.push(fate),
            // Before it is known that the SPU is away its records may take all of the buffer.
            Ok(Sent::Full) => panic!("the buffer is full of records for one SPU"),
            Err(error) => break error,
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    };
    assert_eq!(
        (refused.kind(), refused.outcome()),
        (ErrorKind::Connection, Some(Outcome::NotSent)),
        "{refused}"
    );
    assert!(refused.is_retriable());
    assert_eq!((refused.partition(), refused.spu()), (Some(0), Some(5001)));
    assert!(waiting.len() * (1000 + RECORD_OVERHEAD) <= 100_000, "{}", waiting.len());
    // By partition, without a key, and among others in one call.
    for partition in [Some(1), None, None, None] {
        let fate = submit(&producer, None, b"living", partition).await.unwrap();
        let ack = tokio::time::timeout(PATIENCE / 4, fate).await.expect("not held up").unwrap().unwrap();
        assert_eq!(ack.partition % 2, 1);
    }
    let (told, deliveries) = oneshot::channel();
    let arena = [b'k', b'v'].repeat(100);
    let arena: Vec<u8> = arena.chunks(2).enumerate().flat_map(|(key, pair)| [key as u8, pair[1]]).collect();
    let many = Many { arena: &arena, key_lengths: Some(&[1; 100]), value_lengths: &[1; 100] };
    assert_eq!(producer.send_many(&mut None, many, None, |_| Ok(Box::new(All(told)))).unwrap(), 100);
    cluster.server().start_spu(5001).await.unwrap();
    let deliveries = tokio::time::timeout(PATIENCE, deliveries).await.unwrap().unwrap();
    assert!(deliveries.failed < 100);
    for error in &deliveries.distinct {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Connection, Some(Outcome::NotSent)));
    }
    for fate in waiting {
        tokio::time::timeout(PATIENCE, fate).await.unwrap().unwrap().unwrap();
    }
    producer.close().await.unwrap();
}

/// Whoever waits for room of a topic that is deleted is told at once, not when the SPU has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_room_ends_with_the_topic() {
    let cluster = Cluster::with(Config { spus: 2, ..Config::default() }).await;
    let client = cluster.client().await;
    // With one SPU and with the line that several have.
    for partitions in [1, 2] {
        let name = topic(&client, partitions).await;
        let producer = producer(&client, &name, r#"{"buffer_bytes": 4096}"#).await;
        let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
        cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
        let mut unanswered = Vec::new();
        for partition in 0..partitions {
            unanswered.push(submit(&producer, None, &[0; 1200], Some(partition)).await.unwrap());
        }
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(producer.reserve(3000))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        let begun = Instant::now();
        client.admin().delete_topic(&name).await.unwrap();
        for one in waiting {
            let error = tokio::time::timeout(PATIENCE, one).await.unwrap().unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(Outcome::NotSent)));
        }
        // The request time-out is 30 s.
        assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
        cluster.server().clear_faults();
        drop(unanswered);
    }
}

/// A send that is refused leaves the caller's room as it was, and a room that would do is never too small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_send_leaves_the_room_as_it_was() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = producer(&client, &name, r#"{"buffer_bytes": 4096}"#).await;
    let value = [0; 3000];
    let mut room = Some(producer.reserve(3000 + RECORD_OVERHEAD).await.unwrap());
    let waiting = producer.reserve(1000);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    let refuse = || Err(engine::Error::new(ErrorKind::Closed, "no"));
    assert!(producer.send(&mut room, None, &value, None, refuse).is_err());
    let many = Many { arena: &value, key_lengths: None, value_lengths: &[1000; 3] };
    let refuse = |_| Err(engine::Error::new(ErrorKind::Closed, "no"));
    assert!(producer.send_many(&mut room, many, None, refuse).is_err());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    let (sender, fate) = oneshot::channel();
    let sent = producer.send(&mut room, None, &value, None, || Ok(Box::new(One(sender)))).unwrap();
    assert_eq!(sent, Sent::Accepted);
    fate.await.unwrap().unwrap();
    drop(tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap());
}

/// A partition that is not known is asked for once: the next attempt finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_known_is_looked_up() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = producer(&client, &name, "{}").await;
    let error = producer.send(&mut None, None, b"value", Some(1), || unreachable!()).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::PartitionNotFound, Some(Outcome::NotSent)));
    assert_eq!(error.partition(), Some(1));
    send(&producer, None, b"value").await.unwrap();
    producer.close().await.unwrap();
}

/// Lengths that wrap around are too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_wrap_are_refused() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = producer(&client, &name, "{}").await;
    for (keys, values) in [([u32::MAX - 1, 1], [2, 1]), ([1, 1], [u32::MAX, u32::MAX])] {
        let many = Many { arena: b"ab", key_lengths: Some(&keys), value_lengths: &values };
        let error = producer.send_many(&mut None, many, None, |_| unreachable!()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    }
}

/// What a close gives up in one `send_many` is not of one fate: some of it is in flight. Each record has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_tells_what_is_in_flight_from_what_is_not() {
    let cluster = Cluster::start().await;
    let client = impatient(&cluster.endpoint, Duration::from_millis(300)).await;
    let name = topic(&client, 2).await;
    let producer = producer(&client, &name, r#"{"batch_size_bytes": 1024}"#).await;
    let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
    cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
    let (told, deliveries) = oneshot::channel();
    // Each fills a batch, and the partitions take turns.
    let many = Many { arena: &[7; 8 * 900], key_lengths: None, value_lengths: &[900; 8] };
    assert_eq!(producer.send_many(&mut None, many, None, |_| Ok(Box::new(All(told)))).unwrap(), 8);
    producer.close().await.unwrap_err();
    let deliveries = deliveries.await.unwrap();
    assert_eq!(deliveries.failed, 8);
    let errors: Vec<&Error> =
        deliveries.errors.iter().map(|number| &deliveries.distinct[*number as usize - 1]).collect();
    for (error, partition) in errors.iter().zip(&deliveries.partitions) {
        assert_eq!(error.partition(), Some(*partition), "{error:?}");
        assert_eq!(error.is_retriable(), error.outcome() == Some(Outcome::NotSent), "{error:?}");
    }
    assert_eq!(errors[0].outcome(), Some(Outcome::Unknown));
    for error in &errors[2..] {
        assert_eq!(error.outcome(), Some(Outcome::NotSent), "{error:?}");
    }
}
