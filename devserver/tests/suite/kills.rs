//! The server is killed at random moments under load and started again: what it has acknowledged is there, in order, at
//! the offsets that producers were told, and nothing is there twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::consume::{Stream, range, read};
use crate::common::process::Process;
use crate::common::{Arrival, Raw, SOON, ask, create_frame, frame_of, produce_frame, unit_of};
use fluvio_controlplane_metadata::topic::{TopicSpec, TopicStorageConfig};
use fluvio_protocol::Decoder;
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::objects::{
    DeleteRequest, ListRequest, ListResponse, ObjectApiDeleteRequest, ObjectApiListRequest,
};
use fluvio_sc_schema::{Status, TryEncodableFrom};
use fluvio_spu_schema::produce::ProduceResponse;
use fluvio_spu_schema::server::consumer_offset::{
    FetchConsumerOffsetsRequest, UpdateConsumerOffsetRequest, UpdateConsumerOffsetResponse,
};
use rand::Rng;
use tempfile::TempDir;
use tokio::sync::Notify;
use wire::builder::BatchBuilder;

const TOPICS: [&str; 2] = ["one", "two"];
const PRODUCERS_PER_TOPIC: usize = 2;
/// The server is killed this often on one directory, before the next one begins empty.
const KILLS_PER_DIRECTORY: usize = 10;
const CONSUMER: &str = "reader";

/// What the clients know.
#[derive(Default)]
struct Told {
    /// By topic: the acknowledged records by their offsets.
    acknowledged: BTreeMap<&'static str, BTreeMap<i64, String>>,
    /// All values that were sent, acknowledged or not.
    sent: HashSet<String>,
    /// Topics whose creation was acknowledged and whose deletion was not asked for.
    created: BTreeSet<String>,
    /// Topics whose deletion was acknowledged.
    deleted: BTreeSet<String>,
    /// The last consumer offset that was acknowledged, and the last that was sent.
    stored: Option<i64>,
    storing: i64,
}

fn kills() -> usize {
    if std::env::var_os("FLUVIO_TEST_SOAK").is_some() { 200 } else { 10 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_fsync_always() {
    kill_again_and_again(&["--fsync", "always"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_with_fsync_interval_either() {
    kill_again_and_again(&["--fsync", "interval", "--fsync-interval", "20"]).await;
}

async fn kill_again_and_again(arguments: &[&str]) {
    let kills = kills();
    let mut killed = 0;
    while killed < kills {
        let directory = TempDir::new().expect("a directory");
        let mut told = Told::default();
        for _ in 0..KILLS_PER_DIRECTORY.min(kills - killed) {
            let server = Process::start(directory.path(), arguments);
            compare(&server.endpoint, &told).await;
            told = work_until_killed(server, told, killed).await;
            killed += 1;
        }
        let server = Process::start(directory.path(), arguments);
        compare(&server.endpoint, &told).await;
        assert!(told.acknowledged.values().all(|records| !records.is_empty()), "nothing was tested");
        server.terminate();
    }
}

/// Lets clients work, and kills the server at a random moment.
async fn work_until_killed(server: Process, told: Told, round: usize) -> Told {
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    for topic in TOPICS {
        let mut spec = TopicSpec::new_computed(1, 1, None);
        // Small segments: kills in the middle of a roll-over.
        spec.set_storage(TopicStorageConfig { segment_size: Some(8192), max_partition_size: None });
        let code = crate::common::create(&mut controller, topic, spec).await.error_code;
        assert!(matches!(code, ErrorCode::None | ErrorCode::TopicAlreadyExists), "{code:?}");
    }
    let progress = Arc::new(Progress::default());
    let mut clients = tokio::task::JoinSet::new();
    for topic in TOPICS {
        for number in 0..PRODUCERS_PER_TOPIC {
            let name = format!("{topic} {round} {number}");
            clients.spawn(produce_until_closed(unit.clone(), topic, name, progress.clone()));
        }
    }
    clients.spawn(administrate_until_closed(controller, round));
    clients.spawn(store_offsets_until_closed(unit, told.storing));

    let (acknowledgements, delay) = {
        let mut random = rand::rng();
        (random.random_range(1..400), Duration::from_micros(random.random_range(0..3000)))
    };
    progress.reach(acknowledgements).await;
    // Not a wait for anything: a moment anywhere between two acknowledgements.
    tokio::time::sleep(delay).await;
    server.kill();

    let mut all = told;
    while let Some(learnt) = clients.join_next().await {
        let Told { acknowledged, sent, created, deleted, stored, storing } = learnt.expect("a client");
        for (topic, records) in acknowledged {
            all.acknowledged.entry(topic).or_default().extend(records);
        }
        all.sent.extend(sent);
        all.created.extend(created);
        all.deleted.extend(deleted);
        all.stored = stored.or(all.stored);
        all.storing = storing.max(all.storing);
    }
    all
}

/// Counts acknowledgements.
#[derive(Default)]
struct Progress {
    count: AtomicU64,
    changed: Notify,
}

impl Progress {
    async fn reach(&self, count: u64) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::Acquire) >= count {
                return;
            }
            tokio::time::timeout(SOON, changed).await.expect("an acknowledgement");
        }
    }
}

/// Sends requests of several entries, one after another, until the server is gone.
async fn produce_until_closed(
    unit: String,
    topic: &'static str,
    name: String,
    progress: Arc<Progress>,
) -> Told {
    let mut connection = Raw::connect(&unit).await;
    let mut told = Told::default();
    for request in 0.. {
        let (entries, records, padding) = {
            let mut random = rand::rng();
            (random.random_range(1..4), random.random_range(1..5), random.random_range(0..1500))
        };
        let mut values = Vec::new();
        let mut batches = Vec::new();
        for entry in 0..entries {
            let mut batch = BatchBuilder::with_capacity(1024);
            let in_entry: Vec<_> = (0..records)
                .map(|record| format!("{name} {request} {entry} {record} {}", "x".repeat(padding)))
                .collect();
            in_entry.iter().for_each(|value| batch.push(None, value.as_bytes(), 1_700_000_000_000));
            batches.push(batch.finish());
            told.sent.extend(in_entry.iter().cloned());
            values.push(in_entry);
        }
        let batches: Vec<&[u8]> = batches.iter().map(Vec::as_slice).collect();
        if connection.try_send(&produce_frame(topic, &batches)).await.is_err() {
            return told;
        }
        let Arrival::Frame(answer) = connection.receive_within(SOON).await else {
            return told;
        };
        let response = ProduceResponse::decode_from(&mut &answer[8..], 25).expect("a produce response");
        for (partition, values) in response.responses[0].partitions.iter().zip(values) {
            assert_eq!(partition.error_code, ErrorCode::None);
            let acknowledged = told.acknowledged.entry(topic).or_default();
            for (offset, value) in (partition.base_offset..).zip(values) {
                assert_eq!(acknowledged.insert(offset, value), None, "an offset was given twice");
            }
        }
        progress.count.fetch_add(1, Ordering::Release);
        progress.changed.notify_waiters();
    }
    told
}

/// Creates topics and deletes every other one, until the server is gone.
async fn administrate_until_closed(mut controller: Raw, round: usize) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        let name = format!("extra-{round}-{number}");
        let create = create_frame(&name, TopicSpec::new_computed(2, 1, None));
        if !acknowledged(&mut controller, &create).await {
            return told;
        }
        if number % 2 == 0 {
            let delete = DeleteRequest::<TopicSpec>::new(name.clone());
            let delete = ObjectApiDeleteRequest::try_encode_from(delete, 19).expect("encode");
            if !acknowledged(&mut controller, &frame_of(delete)).await {
                return told;
            }
            told.deleted.insert(name);
        } else {
            told.created.insert(name);
        }
    }
    told
}

async fn acknowledged(controller: &mut Raw, frame: &[u8]) -> bool {
    if controller.try_send(frame).await.is_err() {
        return false;
    }
    let Arrival::Frame(answer) = controller.receive_within(SOON).await else {
        return false;
    };
    let status = Status::decode_from(&mut &answer[8..], 19).expect("a status");
    assert_eq!(status.error_code, ErrorCode::None);
    true
}

/// Stores ever larger offsets of one consumer, until the server is gone.
async fn store_offsets_until_closed(unit: String, last: i64) -> Told {
    let mut told = Told { storing: last, ..Told::default() };
    let mut stream = Stream::open(&unit, TOPICS[0], 0, Some(CONSUMER)).await;
    // The first answer tells the session, and it never comes if the server is killed before anything is there.
    if stream.try_answer().await.is_none() {
        return told;
    }
    loop {
        let offset = told.storing + 1;
        let request = UpdateConsumerOffsetRequest::new(offset, stream.stream_id);
        told.storing = offset;
        if stream.connection.try_send(&frame_of(request)).await.is_err() {
            return told;
        }
        let Arrival::Frame(answer) = stream.connection.receive_within(SOON).await else {
            return told;
        };
        let response = UpdateConsumerOffsetResponse::decode_from(&mut &answer[8..], 25).expect("a response");
        assert_eq!(response.error_code, ErrorCode::None);
        told.stored = Some(offset);
    }
}

/// Whether the server has what the clients were told.
async fn compare(endpoint: &str, told: &Told) {
    let mut controller = Raw::connect(endpoint).await;
    let unit = unit_of(&mut controller).await;
    let mut connection = Raw::connect(&unit).await;
    for (topic, acknowledged) in &told.acknowledged {
        let (start, end) = range(&mut connection, topic).await;
        assert_eq!(start, 0);
        let found = read(&unit, topic, start, end).await;
        assert!(found.iter().map(|(offset, _)| *offset).eq(0..end), "{topic}: offsets without a gap");
        for (offset, value) in acknowledged {
            let there = usize::try_from(*offset).ok().and_then(|at| found.get(at));
            assert_eq!(there.map(|(_, value)| value), Some(value), "{topic}: offset {offset} of {end}");
        }
        let mut seen = HashSet::new();
        for (offset, value) in &found {
            assert!(told.sent.contains(value), "{topic}: offset {offset} was never sent");
            assert!(seen.insert(value), "{topic}: offset {offset} is there twice");
        }
    }
    let list = ListRequest::<TopicSpec>::new(Vec::new(), false);
    let request = ObjectApiListRequest::try_encode_from(list, 19).expect("encode");
    let topics: Option<ListResponse<TopicSpec>> =
        ask(&mut controller, request).await.downcast().expect("a list");
    let topics: BTreeSet<_> = topics.expect("topics").inner().into_iter().map(|topic| topic.name).collect();
    assert!(told.created.is_subset(&topics), "missing: {:?}", told.created.difference(&topics));
    assert!(told.deleted.is_disjoint(&topics), "back: {:?}", told.deleted.intersection(&topics));

    let request = FetchConsumerOffsetsRequest::with_opts(None, Some(CONSUMER.to_owned()));
    let offsets = ask(&mut connection, request).await.consumers;
    if let Some(stored) = told.stored {
        assert!((stored..=told.storing).contains(&offsets[0].offset), "{stored}: {offsets:?}");
    }
}
