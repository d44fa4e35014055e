//! Administration against a server that takes its time.

use std::time::Duration;

use crate::common::{Cluster, PATIENCE, impatient, send, topic};
use engine::admin::{CreateTopic, ListTopics};
use engine::consumer::ConsumerOptions;
use engine::producer::ProducerOptions;
use engine::{ErrorKind, Outcome};
use fluvio_devserver::Fault;

fn slow(seconds: u64) -> Fault {
    let text = format!(
        r#"{{"kind": "delay", "request": "create", "when": "after", "seconds": {seconds}, "count": 1}}"#
    );
    Fault::from_json(&text).unwrap()
}

/// A create that the server was told may take longer than the request time-out is awaited for that long.
#[tokio::test]
async fn the_time_out_of_a_create_holds() {
    let cluster = Cluster::start().await;
    let client = impatient(&cluster.endpoint, PATIENCE).await;
    cluster.server().inject(slow(3)).unwrap();
    let topic = CreateTopic::from_json(r#"{"name": "slow", "timeout_ms": 20000}"#).unwrap();
    client.admin().create_topic(topic).await.expect("awaited for its own time-out");
    // Without one, the request time-out holds; the topic is there all the same, so the error does not ask for a retry.
    cluster.server().inject(slow(3)).unwrap();
    let topic = CreateTopic::from_json(r#"{"name": "given-up"}"#).unwrap();
    let error = client.admin().create_topic(topic).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Some(Outcome::Unknown)));
    assert!(!error.is_retriable());
    let names: Vec<String> = client
        .admin()
        .list_topics(ListTopics::default())
        .await
        .unwrap()
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert_eq!(names, ["given-up", "slow"]);
}

/// A client that is closed administrates nothing any more, and says so.
#[tokio::test]
async fn a_closed_client_says_so() {
    let cluster = Cluster::start().await;
    let client = impatient(&cluster.endpoint, Duration::from_secs(1)).await;
    client.admin().list_topics(ListTopics::default()).await.unwrap();
    client.close().await;
    let error = client.admin().list_topics(ListTopics::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Nothing of a client is left on the server once it is closed, although its handle and its producer are still there.
#[tokio::test]
async fn closing_a_client_closes_every_connection() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 3).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let options = ProducerOptions::from_json(r#"{"isolation": "read_committed"}"#).unwrap();
    let waiting = client.producer(&name, options).await.unwrap();
    let consumer = client.consumer(&name, ConsumerOptions::default()).await.unwrap();
    send(&producer, None, b"value").await.unwrap();
    send(&waiting, None, b"value").await.unwrap();
    let open = || {
        let counters = cluster.server().counters();
        (counters.controller.connections_open, counters.spu_total().connections_open)
    };
    assert!(open().0 >= 2 && open().1 >= 3, "{:?}", open());
    client.close().await;
    tokio::time::timeout(PATIENCE, async {
        while open() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("still open: {:?}", open()));
    drop((producer, waiting, consumer));
}

/// Nor is anything of what was under way: calls, look-ups and opens end at once, each with a clear word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_client_ends_what_is_under_way() {
    for silence in [r#"{"kind": "never-answer"}"#, r#"{"kind": "black-hole"}"#] {
        let cluster = Cluster::start().await;
        // The request time-out is 30 s.
        let client = cluster.client().await;
        let name = topic(&client, 1).await;
        drop(client.producer(&name, ProducerOptions::default()).await.unwrap());
        cluster.server().inject(Fault::from_json(silence).unwrap()).unwrap();
        let count = || cluster.server().counters().controller.connections_open;
        let before = count();
        let mut under_way = tokio::task::JoinSet::new();
        for number in 0..30 {
            let admin = client.admin();
            match number % 3 {
                0 => under_way.spawn(async move {
                    admin.list_topics(ListTopics::default()).await.map(drop).unwrap_err()
                }),
                1 => {
                    let created = CreateTopic::from_json(&format!(r#"{{"name": "new-{number}"}}"#)).unwrap();
                    under_way.spawn(async move { admin.create_topic(created).await.unwrap_err() })
                }
                _ => under_way.spawn(async move { admin.delete_topic("gone").await.unwrap_err() }),
            };
        }
        for name in ["unknown", &name] {
            let (client, name) = (client.clone(), name.to_owned());
            under_way.spawn(async move {
                let opened = client.consumer(&name, ConsumerOptions::default()).await;
                opened.map(drop).unwrap_err()
            });
        }
        let opening = client.clone();
        under_way.spawn(async move {
            opening.producer("another", ProducerOptions::default()).await.map(drop).unwrap_err()
        });
        let soon = Duration::from_secs(10);
        let until = async |is_so: &dyn Fn() -> bool| {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(soon, until(&|| count() >= before + 16)).await.expect("they hang");
        client.close().await;
        while let Some(ended) = tokio::time::timeout(soon, under_way.join_next()).await.expect("they end") {
            let error = ended.unwrap();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
            assert!(!error.is_retriable(), "{error:?}");
        }
        cluster.server().clear_faults();
        let none = || count() == 0 && cluster.server().counters().spu_total().connections_open == 0;
        tokio::time::timeout(soon, until(&none)).await.expect("nothing is left on the server");
    }
}

/// However many calls there are, only some are under way; the others get their turn, with all of their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_take_turns() {
    let cluster = Cluster::start().await;
    let client = impatient(&cluster.endpoint, PATIENCE).await;
    client.admin().list_topics(ListTopics::default()).await.unwrap();
    // 13 rounds of 150 ms: more than the request time-out of a second, for those in the last one.
    let slow = r#"{"kind": "delay", "request": "list", "seconds": 0.15}"#;
    cluster.server().inject(Fault::from_json(slow).unwrap()).unwrap();
    let admin = client.admin();
    let calls = (0..200).map(|_| admin.list_topics(ListTopics::default()));
    let most = std::sync::atomic::AtomicU64::new(0);
    let looking = async {
        loop {
            let open = cluster.server().counters().controller.connections_open;
            most.fetch_max(open, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        listed = futures_util::future::join_all(calls) => assert!(listed.iter().all(Result::is_ok)),
        () = looking => {}
    }
    // One more is the watch's, and some may not have ended yet.
    let most = most.into_inner();
    assert!((10..=40).contains(&most), "{most}");
}

/// What does not fit into a request is refused by name, and an error says what it is about.
#[tokio::test]
async fn errors_name_what_they_are_about() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let admin = client.admin();
    let long = "x".repeat(32_768);
    let filter = ListTopics { filter: vec!["fits".repeat(8000), long.clone()], ..ListTopics::default() };
    let named = CreateTopic::from_json(&format!(r#"{{"name": "{long}"}}"#)).unwrap_err();
    for (error, what) in [
        (admin.list_topics(filter).await.unwrap_err(), "filter"),
        (admin.delete_topic(&long).await.unwrap_err(), "topic name"),
        (client.producer(&long, ProducerOptions::default()).await.unwrap_err(), "topic name"),
        (client.consumer(&long, ConsumerOptions::default()).await.unwrap_err(), "topic name"),
        (named, "topic name"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains(what) && error.message().contains("32768"), "{error}");
    }
    let fits = ListTopics { filter: vec!["x".repeat(32_767)], ..ListTopics::default() };
    assert!(admin.list_topics(fits).await.unwrap().is_empty());

    let name = topic(&client, 2).await;
    let chosen = ConsumerOptions::from_json(r#"{"partitions": [9]}"#).unwrap();
    let error = client.consumer(&name, chosen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartitionNotFound, "{error}");
    assert_eq!((error.topic(), error.partition()), (Some(&*name), Some(9)));
    let error = admin.delete_topic("unknown").await.unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicNotFound, Some("unknown")));
    let twice = CreateTopic::from_json(&format!(r#"{{"name": "{name}"}}"#)).unwrap();
    let error = admin.create_topic(twice).await.unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicAlreadyExists, Some(&*name)));
}
