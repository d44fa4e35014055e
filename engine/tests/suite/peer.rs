//! Together with the `fluvio` crate's own client: what one writes the other reads, and keys go to the same partitions.

use std::collections::BTreeMap;

use crate::common::{Cluster, options, receive, submit, topic};
use engine::producer::ProducerOptions;
use fluvio::consumer::ConsumerConfigExtBuilder;
use fluvio::{Fluvio, FluvioClusterConfig, Offset};
use futures_util::StreamExt;

async fn crate_client(endpoint: &str) -> Fluvio {
    Fluvio::connect_with_config(&FluvioClusterConfig::new(endpoint))
        .await
        .expect("the crate's client connects")
}

fn records() -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
    (0..200u32)
        .map(|number| {
            let key = (number % 3 != 0).then(|| format!("key-{}", number % 40).into_bytes());
            (key, format!("value {number}").into_bytes())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_reads_ours() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let sent = records();
    for (key, value) in &sent {
        drop(submit(&producer, key.as_deref(), value, None).await.unwrap());
    }
    producer.flush().await;
    let config = ConsumerConfigExtBuilder::default()
        .topic(name)
        .partition(0)
        .offset_start(Offset::beginning())
        .build()
        .unwrap();
    let mut stream = crate_client(&cluster.endpoint).await.consumer_with_config(config).await.unwrap();
    for (offset, (key, value)) in sent.iter().enumerate() {
        let record = stream.next().await.unwrap().unwrap();
        assert_eq!(record.offset(), offset as i64);
        assert_eq!(record.key().map(<[u8]>::to_vec), *key);
        assert_eq!(record.value(), value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_read_the_crates() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let sent = records();
    let producer = crate_client(&cluster.endpoint).await.topic_producer(&name).await.unwrap();
    for (key, value) in &sent {
        match key {
            Some(key) => producer.send(key.clone(), value.clone()).await.unwrap(),
            None => producer.send(fluvio::RecordKey::NULL, value.clone()).await.unwrap(),
        };
    }
    producer.flush().await.unwrap();
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let received = receive(&consumer, sent.len()).await;
    for (offset, ((key, value), record)) in sent.into_iter().zip(received).enumerate() {
        assert_eq!(record, (0, offset as i64, key, value));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_where_the_crate_puts_them() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 5).await;
    let keys: Vec<Vec<u8>> = (0..100u32).map(|number| format!("region/{number}").into_bytes()).collect();
    let theirs = crate_client(&cluster.endpoint).await.topic_producer(&name).await.unwrap();
    let ours = client.producer(&name, ProducerOptions::default()).await.unwrap();
    for key in &keys {
        theirs.send(key.clone(), "theirs").await.unwrap();
        drop(submit(&ours, Some(key), b"ours", None).await.unwrap());
    }
    theirs.flush().await.unwrap();
    ours.flush().await;
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let mut places: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
    for (partition, _, key, _) in receive(&consumer, 2 * keys.len()).await {
        places.entry(key.unwrap()).or_default().push(partition);
    }
    assert_eq!(places.len(), keys.len());
    assert!(places.values().all(|places| places.len() == 2 && places[0] == places[1]), "{places:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_batch_is_named_after_what_came_before_it() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let ours = client.producer(&name, ProducerOptions::default()).await.unwrap();
    drop(submit(&ours, None, b"plain", None).await.unwrap());
    ours.flush().await;
    let config =
        fluvio::TopicProducerConfigBuilder::default().compression(fluvio::Compression::Gzip).build().unwrap();
    let theirs =
        crate_client(&cluster.endpoint).await.topic_producer_with_config(&name, config).await.unwrap();
    theirs.send(fluvio::RecordKey::NULL, "compressed").await.unwrap();
    theirs.flush().await.unwrap();
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    assert_eq!(receive(&consumer, 1).await[0].3, b"plain");
    tokio::time::timeout(crate::common::PATIENCE, consumer.ready()).await.expect("the error is told");
    let error = consumer.take().unwrap_err();
    assert_eq!(error.kind(), engine::ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("compressed") && error.message().contains(&name), "{error}");
    assert!(matches!(consumer.take(), Ok(engine::consumer::Taken::End)));
}
