//! A dev server (or the cluster that `FLUVIO_TEST_ENDPOINT` names) and topics of one's own.

pub mod process;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::admin::CreateTopic;
use engine::consumer::{Consumer, ConsumerOptions, Taken};
use engine::producer::{Ack, AckHandler, Deliveries, DeliveriesHandler, Many, Producer};
use engine::{Client, ClientOptions, Result};
use fluvio_devserver::{Config, Server};
use tokio::sync::oneshot;

/// What every wait of a test is bounded by.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub endpoint: String,
    pub server: Option<Server>,
}

impl Cluster {
    /// Cuts answers in mid-batch, as the real server does.
    pub async fn start() -> Self {
        Self::with(Config { cut_batches: true, ..Config::default() }).await
    }

    pub async fn with(config: Config) -> Self {
        match std::env::var("FLUVIO_TEST_ENDPOINT") {
            Ok(endpoint) => Cluster { endpoint, server: None },
            Err(_) => {
                let server = Server::start(config).await.expect("the dev server starts");
                Cluster { endpoint: server.endpoint(), server: Some(server) }
            }
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("this test needs the dev server")
    }

    pub async fn client(&self) -> Client {
        connect(&self.endpoint).await.expect("connects")
    }
}

pub async fn connect(endpoint: &str) -> Result<Client> {
    Client::connect(ClientOptions { endpoint: Some(endpoint.to_owned()), ..ClientOptions::default() }).await
}

/// A client that loses patience with the server after a second.
pub async fn impatient(endpoint: &str, close_timeout: Duration) -> Client {
    let close = close_timeout.as_millis();
    let options = format!(
        r#"{{"endpoint": "{endpoint}", "connect_timeout_ms": 1000, "request_timeout_ms": 1000, "close_timeout_ms": {close}}}"#
    );
    Client::connect(ClientOptions::from_json(&options).unwrap()).await.expect("connects")
}

pub async fn topic(client: &Client, partitions: u32) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("engine-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let text = format!(r#"{{"name": "{name}", "partitions": {partitions}}}"#);
    client.admin().create_topic(CreateTopic::from_json(&text).unwrap()).await.expect("the topic is created");
    name
}

pub struct One(pub oneshot::Sender<Result<Ack>>);

impl AckHandler for One {
    fn acked(self: Box<Self>, result: Result<Ack>) {
        let _ = self.0.send(result);
    }
}

pub struct All(pub oneshot::Sender<Deliveries>);

impl DeliveriesHandler for All {
    fn delivered(self: Box<Self>, deliveries: Deliveries) {
        let _ = self.0.send(deliveries);
    }
}

/// Sends one record, waiting for room, and returns where its fate will be told.
pub async fn submit(
    producer: &Producer,
    key: Option<&[u8]>,
    value: &[u8],
    partition: Option<u32>,
) -> Result<oneshot::Receiver<Result<Ack>>> {
    let mut room = None;
    loop {
        let (sender, receiver) = oneshot::channel();
        match producer.send(&mut room, key, value, partition, || Ok(Box::new(One(sender))))? {
            engine::producer::Sent::Accepted => return Ok(receiver),
            engine::producer::Sent::Full => {
                let needed = key.map_or(0, <[u8]>::len) + value.len() + engine::producer::RECORD_OVERHEAD;
                room = Some(producer.reserve(needed).await?);
            }
        }
    }
}

/// Sends one record and waits for its acknowledgement.
pub async fn send(producer: &Producer, key: Option<&[u8]>, value: &[u8]) -> Result<Ack> {
    submit(producer, key, value, None).await?.await.expect("every record has a fate")
}

/// Sends values, slice by slice; whatever fails panics.
pub async fn send_many(producer: &Producer, values: &[Vec<u8>], partition: Option<u32>) {
    let mut pending = Vec::new();
    let mut rest = values;
    let mut room = None;
    while !rest.is_empty() {
        let arena = rest.concat();
        let lengths: Vec<u32> = rest.iter().map(|value| value.len() as u32).collect();
        let many = Many { arena: &arena, key_lengths: None, value_lengths: &lengths };
        let (sender, receiver) = oneshot::channel();
        match producer
            .send_many(&mut room, many, partition, |_| Ok(Box::new(All(sender))))
            .expect("valid records")
        {
            0 => room = Some(producer.reserve(rest[0].len() + 1 + 64 * 1024).await.expect("room")),
            accepted => {
                rest = &rest[accepted..];
                pending.push(receiver);
            }
        }
    }
    for receiver in pending {
        let deliveries = receiver.await.expect("every record has a fate");
        assert_eq!(deliveries.failed, 0, "{:?}", deliveries.distinct);
    }
}

/// A record as it came: partition, offset, key, value.
pub type Received = (u32, i64, Option<Vec<u8>>, Vec<u8>);

/// Takes `count` records.
pub async fn receive(consumer: &Consumer, count: usize) -> Vec<Received> {
    let mut records = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        while records.len() < count {
            consumer.ready().await;
            match consumer.take().expect("no error while consuming") {
                Taken::Batch(batch) => {
                    let (data, columns) = (batch.data(), batch.columns());
                    for i in 0..batch.len() {
                        let key = (columns.key_starts[i] != u32::MAX).then(|| {
                            data[columns.key_starts[i] as usize..columns.key_ends[i] as usize].to_vec()
                        });
                        let value =
                            data[columns.value_starts[i] as usize..columns.value_ends[i] as usize].to_vec();
                        records.push((batch.partition(), columns.offsets[i], key, value));
                    }
                }
                Taken::Empty => {}
                Taken::End => panic!("the consumer ended"),
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} of {count} records came", records.len()));
    records
}

pub fn options(text: &str) -> ConsumerOptions {
    ConsumerOptions::from_json(text).unwrap()
}
