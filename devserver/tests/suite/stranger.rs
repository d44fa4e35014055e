//! A client that others wrote, the `fluvio` crate's own, against this server: admin, producer and consumer.

use std::collections::BTreeSet;
use std::time::Duration;

use fluvio::consumer::{ConsumerConfigExt, ConsumerStream, OffsetManagementStrategy};
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::topic::TopicSpec;
use fluvio::{Fluvio, FluvioClusterConfig, Offset, RecordKey};
use fluvio_devserver::{Config, Server};
use futures_util::StreamExt;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

async fn connect(server: &Server) -> Fluvio {
    let config = FluvioClusterConfig::new(server.endpoint());
    timeout(SOON, Fluvio::connect_with_config(&config)).await.expect("in time").expect("connect")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_a_topic_produces_and_consumes() {
    let server = Server::start(Config::default()).await.expect("start");
    let client = connect(&server).await;
    let admin = client.admin().await;
    let spec = TopicSpec::new_computed(2, 1, None);
    admin.create("strange".to_owned(), false, spec).await.expect("create");
    let topics = admin.all::<TopicSpec>().await.expect("list");
    assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["strange"]);

    // No pause in between: the watchers knew of the topic before the creator did.
    let producer = timeout(SOON, client.topic_producer("strange")).await.expect("in time").expect("producer");
    let mut pending = Vec::new();
    for number in 0..1000 {
        pending.push(producer.send(RecordKey::NULL, number.to_string()).await.expect("send"));
    }
    producer.flush().await.expect("flush");
    for output in pending {
        output.wait().await.expect("ack");
    }

    let mut values: Vec<i32> = Vec::new();
    for partition in [0, 1] {
        let config = ConsumerConfigExt::builder()
            .topic("strange")
            .partition(partition)
            .offset_start(Offset::beginning())
            .disable_continuous(true)
            .build()
            .expect("configuration");
        let mut records = client.consumer_with_config(config).await.expect("consumer");
        let mut next_offset = 0;
        while let Some(record) = timeout(SOON, records.next()).await.expect("in time") {
            let record = record.expect("record");
            assert_eq!((record.partition, record.offset), (partition, next_offset));
            next_offset += 1;
            values.push(std::str::from_utf8(record.value()).expect("text").parse().expect("number"));
        }
    }
    values.sort_unstable();
    assert_eq!(values, (0..1000).collect::<Vec<i32>>());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_back_more_than_one_answer_holds() {
    // With whole batches, which this server sends unless told otherwise, even a client that does not notice a cut batch
    // gets every record.
    let server = Server::start(Config::default()).await.expect("start");
    let client = connect(&server).await;
    let admin = client.admin().await;
    admin.create("large".to_owned(), false, TopicSpec::new_computed(1, 1, None)).await.expect("create");
    let producer = client.topic_producer("large").await.expect("producer");
    let value = vec![b'x'; 1000];
    for _ in 0..5000 {
        producer.send(RecordKey::NULL, value.as_slice()).await.expect("send");
    }
    producer.flush().await.expect("flush");
    let config = ConsumerConfigExt::builder()
        .topic("large")
        .partition(0)
        .offset_start(Offset::beginning())
        .build()
        .expect("configuration");
    let mut records = client.consumer_with_config(config).await.expect("consumer");
    for offset in 0..5000 {
        let record = timeout(SOON, records.next()).await.expect("in time").expect("open").expect("record");
        assert_eq!(record.offset, offset);
        assert_eq!(record.value(), value);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_its_way_over_three_spus() {
    let server = Server::start(Config { spus: 3, ..Config::default() }).await.expect("start");
    let client = connect(&server).await;
    let admin = client.admin().await;
    admin.create("spread".to_owned(), false, TopicSpec::new_computed(6, 2, None)).await.expect("create");
    let partitions = admin.all::<PartitionSpec>().await.expect("list");
    let leaders: BTreeSet<_> = partitions.iter().map(|partition| partition.spec.leader).collect();
    assert_eq!((partitions.len(), leaders.len()), (6, 3));

    let producer = client.topic_producer("spread").await.expect("producer");
    for number in 0..600 {
        producer.send(number.to_string(), number.to_string()).await.expect("send");
    }
    producer.flush().await.expect("flush");
    let mut values = BTreeSet::new();
    for partition in 0..6 {
        let config = ConsumerConfigExt::builder()
            .topic("spread")
            .partition(partition)
            .offset_consumer("reader".to_owned())
            .offset_strategy(OffsetManagementStrategy::Manual)
            .offset_start(Offset::beginning())
            .disable_continuous(true)
            .build()
            .expect("configuration");
        let mut records = client.consumer_with_config(config).await.expect("consumer");
        while let Some(record) = timeout(SOON, records.next()).await.expect("in time") {
            assert!(values.insert(record.expect("record").value().to_vec()));
        }
        records.offset_commit().await.expect("commit");
        records.offset_flush().await.expect("flush");
    }
    assert_eq!(values.len(), 600);
    let mut stored = client.consumer_offsets().await.expect("offsets");
    stored.sort_by_key(|stored| stored.partition);
    assert_eq!(stored.iter().map(|stored| stored.partition).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    client.delete_consumer_offset("reader", ("spread".to_owned(), 0)).await.expect("delete");
    assert_eq!(client.consumer_offsets().await.expect("offsets").len(), 5);
    admin.delete::<TopicSpec>("spread").await.expect("delete");
    assert_eq!(client.consumer_offsets().await.expect("offsets").len(), 0);
    server.shutdown().await;
}
