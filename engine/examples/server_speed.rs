//! What the engine writes through a server and reads back from it: the median of several rounds, each with a topic of its own.
//!
//! `cargo run --release -p fluvio-cffi-engine --example server_speed -- ENDPOINT [RECORDS] [RECORD_BYTES] [ROUNDS]`

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use engine::admin::CreateTopic;
use engine::consumer::{ConsumerOptions, Taken};
use engine::producer::{Deliveries, DeliveriesHandler, Many, ProducerOptions, RECORD_OVERHEAD};
use engine::{Client, ClientOptions};

/// Records handed over at a time.
const SLICE: usize = 10_000;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Done<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().ok_or("an endpoint is needed")?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (records, record_bytes, rounds) = (number(10_000_000)?, number(100)?, number(5)?);
    let records = records.next_multiple_of(SLICE);
    let options = ClientOptions { endpoint: Some(endpoint), ..ClientOptions::default() };
    let client = Client::connect(options).await?;
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let topic = format!("throughput-{}-{round}", std::process::id());
        client.admin().create_topic(CreateTopic::from_json(&format!(r#"{{"name": "{topic}"}}"#))?).await?;
        written.push(write(&client, &topic, records, record_bytes).await?);
        read.push(consume(&client, &topic, records, record_bytes).await?);
        client.admin().delete_topic(&topic).await?;
    }
    report("written", records, &mut written);
    report("read", records, &mut read);
    Ok(())
}

fn report(what: &str, records: usize, times: &mut [Duration]) {
    times.sort();
    let rate = |time: Duration| records as f64 / time.as_secs_f64() / 1e6;
    let [fastest, median, slowest] = [0, times.len() / 2, times.len() - 1].map(|at| rate(times[at]));
    println!("{what}: {median:.2} M records/s (of {} rounds, {slowest:.2} to {fastest:.2})", times.len());
}

/// Tells how many records have failed once all of a slice have a fate.
struct Fate(Sender<usize>);

impl DeliveriesHandler for Fate {
    fn delivered(self: Box<Self>, deliveries: Deliveries) {
        // Who waited for it has failed already.
        let _ = self.0.send(deliveries.failed);
    }
}

/// Writes from memory and waits until everything is acknowledged.
async fn write(client: &Client, topic: &str, records: usize, record_bytes: usize) -> Done<Duration> {
    let producer = client.producer(topic, ProducerOptions::default()).await?;
    let (arena, lengths) = (vec![b'v'; SLICE * record_bytes], vec![record_bytes as u32; SLICE]);
    let (fates, failures) = channel();
    let started = Instant::now();
    for _ in 0..records / SLICE {
        let (mut sent, mut room) = (0, None);
        while sent < SLICE {
            let many = Many {
                arena: &arena[sent * record_bytes..],
                key_lengths: None,
                value_lengths: &lengths[sent..],
            };
            match producer.send_many(&mut room, many, None, |_| Ok(Box::new(Fate(fates.clone()))))? {
                0 => room = Some(producer.reserve(16 * (record_bytes + RECORD_OVERHEAD)).await?),
                accepted => sent += accepted,
            }
        }
    }
    producer.flush().await;
    let time = started.elapsed();
    producer.close().await?;
    drop(fates);
    match failures.iter().sum() {
        0 => Ok(time),
        failed => Err(format!("{failed} records were not written").into()),
    }
}

/// Reads every value from the beginning on.
async fn consume(client: &Client, topic: &str, records: usize, record_bytes: usize) -> Done<Duration> {
    let options = ConsumerOptions::from_json(r#"{"start": {"beginning": 0}}"#)?;
    let started = Instant::now();
    let consumer = client.consumer(topic, options).await?;
    let (mut seen, mut bytes) = (0, 0);
    while seen < records {
        consumer.ready().await;
        match consumer.take()? {
            Taken::Batch(batch) => {
                let (columns, data) = (batch.columns(), batch.data());
                for (start, end) in columns.value_starts.iter().zip(columns.value_ends.iter()) {
                    bytes += data[*start as usize..*end as usize].len();
                }
                seen += batch.len();
            }
            Taken::Empty => {}
            Taken::End => return Err("the consumer ended".into()),
        }
    }
    let time = started.elapsed();
    match bytes == records * record_bytes {
        true => Ok(time),
        false => Err(format!("{bytes} bytes were read").into()),
    }
}
