//! The data directory: what is served again after a restart, what retention removes, and what is said about a directory
//! that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::consume::{Stream, range, read};
use crate::common::process::{BINARY, Process, options};
use crate::common::{Raw, SOON, ask, batch_of, create, produce, unit_of};
use fluvio_controlplane_metadata::spu::{CustomSpuSpec, IngressPort};
use fluvio_controlplane_metadata::topic::{TopicSpec, TopicStorageConfig};
use fluvio_devserver::{Config, Fsync, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::ReplicaKey;
use fluvio_protocol::{Decoder, Encoder};
use fluvio_sc_schema::mirror::{Home, MirrorSpec, MirrorType};
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, DeleteRequest, ListRequest, ListResponse, ObjectApiCreateRequest,
    ObjectApiDeleteRequest, ObjectApiListRequest, ObjectApiListResponse,
};
use fluvio_sc_schema::smartmodule::{SmartModuleSpec, SmartModuleWasm};
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use fluvio_spu_schema::server::consumer_offset::{FetchConsumerOffsetsRequest, UpdateConsumerOffsetRequest};
use fluvio_types::defaults::CONSUMER_STORAGE_TOPIC;
use tempfile::TempDir;

/// A server in this process, and connections to it.
struct Fixture {
    server: Server,
    controller: Raw,
    unit: String,
    connection: Raw,
}

impl Fixture {
    async fn start(config: Config) -> Self {
        let server = Server::start(config).await.expect("start");
        let mut controller = Raw::connect(&server.endpoint()).await;
        let unit = unit_of(&mut controller).await;
        let connection = Raw::connect(&unit).await;
        Fixture { server, controller, unit, connection }
    }

    async fn create(&mut self, topic: &str, segment_bytes: u32, partition_bytes: Option<u64>) {
        let mut spec = TopicSpec::new_computed(1, 1, None);
        let storage =
            TopicStorageConfig { segment_size: Some(segment_bytes), max_partition_size: partition_bytes };
        spec.set_storage(storage);
        assert_eq!(create(&mut self.controller, topic, spec).await.error_code, ErrorCode::None);
    }

    async fn delete(&mut self, topic: &str) {
        let delete = DeleteRequest::<TopicSpec>::new(topic.to_owned());
        let request = ObjectApiDeleteRequest::try_encode_from(delete, 19).expect("encode");
        assert_eq!(ask(&mut self.controller, request).await.error_code, ErrorCode::None);
    }

    /// Produces batches of one record of `len` bytes each, one request after another.
    async fn produce(&mut self, topic: &str, len: usize, batches: usize) {
        for _ in 0..batches {
            let batch = batch_of(&vec![b'x'; len], 1);
            let results = produce(&mut self.connection, topic, &[&batch]).await;
            assert_eq!(results[0].0, ErrorCode::None);
        }
    }

    async fn objects<S>(&mut self) -> Vec<(String, Vec<u8>)>
    where
        S: AdminSpec,
        S::Status: Encoder + Decoder,
        ObjectApiListRequest: TryEncodableFrom<ListRequest<S>>,
        ObjectApiListResponse: TryEncodableFrom<ListResponse<S>>,
    {
        let request = ObjectApiListRequest::try_encode_from(ListRequest::<S>::new(Vec::new(), false), 19);
        let response = ask(&mut self.controller, request.expect("encode")).await;
        let objects: ListResponse<S> = response.downcast().expect("a list").expect("objects");
        let encoded = objects.inner().into_iter().map(|object| {
            let mut bytes = Vec::new();
            object.encode(&mut bytes, 19).expect("encode");
            (object.name, bytes)
        });
        encoded.collect()
    }

    async fn create_object<S>(&mut self, name: &str, spec: S)
    where
        ObjectApiCreateRequest: TryEncodableFrom<CreateRequest<S>>,
        S: fluvio_sc_schema::CreatableAdminSpec,
    {
        let common = CommonCreateRequest { name: name.to_owned(), ..CommonCreateRequest::default() };
        let request = ObjectApiCreateRequest::try_encode_from(CreateRequest::new(common, spec), 19);
        let status = ask(&mut self.controller, request.expect("encode")).await;
        assert_eq!(status.error_code, ErrorCode::None);
    }
}

fn durable(directory: &TempDir) -> Config {
    Config { data_dir: Some(directory.path().to_owned()), ..Config::default() }
}

/// The segment files of a topic's only partition.
fn segments(directory: &Path, topic: &str) -> Vec<PathBuf> {
    let directory = directory.join("log").join(topic).join("0");
    let mut files: Vec<_> =
        fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn first_offset(segment: &Path) -> i64 {
    segment.file_stem().and_then(|stem| stem.to_str()).expect("a name").parse().expect("an offset")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_serves_the_same() {
    for fsync in [Fsync::Never, Fsync::Interval(Duration::from_millis(10)), Fsync::Always] {
        let directory = TempDir::new().expect("a directory");
        let config = Config { fsync, ..durable(&directory) };
        let mut first = Fixture::start(config.clone()).await;
        first.create("kept", 4096, None).await;
        first.create("gone", 4096, None).await;
        first
            .create_object(
                "module",
                SmartModuleSpec {
                    wasm: SmartModuleWasm::from_compressed_gzip((0..=255).collect()),
                    ..SmartModuleSpec::default()
                },
            )
            .await;
        let format = TableFormatSpec { name: "format".to_owned(), ..TableFormatSpec::default() };
        first.create_object("format", format).await;
        let home = Home { id: "home".to_owned(), public_endpoint: "h:1".to_owned(), ..Home::default() };
        first.create_object("home", MirrorSpec { mirror_type: MirrorType::Home(home) }).await;
        let spu =
            CustomSpuSpec { id: 7, public_endpoint: IngressPort::default(), ..CustomSpuSpec::default() };
        first.create_object("other", spu).await;
        first.produce("kept", 1000, 9).await;
        first.produce("gone", 1000, 2).await;
        let mut sessions = Vec::new();
        for topic in ["kept", "gone"] {
            let mut stream = Stream::open(&first.unit, topic, 0, Some("reader")).await;
            stream.answer().await;
            let request = UpdateConsumerOffsetRequest::new(5, stream.stream_id);
            assert_eq!(ask(&mut stream.connection, request).await.error_code, ErrorCode::None);
            sessions.push(stream);
        }
        first.delete("gone").await;
        let topics = first.objects::<TopicSpec>().await;
        assert_eq!(topics.len(), 1);
        let others = (
            first.objects::<SmartModuleSpec>().await,
            first.objects::<TableFormatSpec>().await,
            first.objects::<MirrorSpec>().await,
        );
        let spus: Vec<_> = first.objects::<CustomSpuSpec>().await.into_iter().map(|(name, _)| name).collect();
        let records = read(&first.unit, "kept", 0, 9).await;
        drop(sessions);
        first.server.shutdown().await;

        let mut second = Fixture::start(config).await;
        assert_eq!(second.objects::<TopicSpec>().await, topics);
        let found = (
            second.objects::<SmartModuleSpec>().await,
            second.objects::<TableFormatSpec>().await,
            second.objects::<MirrorSpec>().await,
        );
        assert_eq!(found, others);
        // The server's own SPU has another port now.
        let found = second.objects::<CustomSpuSpec>().await;
        assert_eq!(found.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), spus);
        assert_eq!(range(&mut second.connection, "kept").await, (0, 9));
        assert_eq!(read(&second.unit, "kept", 0, 9).await, records);
        let request = FetchConsumerOffsetsRequest::default();
        let offsets = ask(&mut second.connection, request).await.consumers;
        let [offset] = &offsets[..] else { panic!("{offsets:?}") };
        assert_eq!((&offset.replica_id, offset.offset), (&ReplicaKey::new("kept", 0_u32), 5));
        // The log goes on where it ended, and a topic of an old name begins anew.
        second.produce("kept", 1000, 1).await;
        assert_eq!(range(&mut second.connection, "kept").await, (0, 10));
        second.create("gone", 4096, None).await;
        assert_eq!(range(&mut second.connection, "gone").await, (0, 0));
        second.server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_in_files_answer_as_logs_in_memory_do() {
    let directory = TempDir::new().expect("a directory");
    for cut_batches in [false, true] {
        let root = directory.path().join(cut_batches.to_string());
        let in_memory = Config { cut_batches, ..Config::default() };
        let on_disk = Config { data_dir: Some(root.clone()), ..in_memory.clone() };
        let mut answers = Vec::new();
        for config in [in_memory, on_disk] {
            let mut fixture = Fixture::start(config).await;
            fixture.create("t", 60_000, None).await;
            for round in 0..4 {
                for len in [10, 20_000, 300, 17_000, 5000] {
                    fixture.produce("t", len + round, 2).await;
                }
            }
            let mut of_server = Vec::new();
            for offset in 0..40 {
                for max_bytes in [1, 57, 200, 6000, 45_000, 1 << 20] {
                    let mut stream = Stream::open_with(&fixture.unit, "t", offset, max_bytes).await;
                    of_server.push(stream.answer().await.1);
                }
            }
            answers.push(of_server);
            fixture.server.shutdown().await;
        }
        let files = segments(&root, "t");
        assert!(files.len() > 3, "{files:?}");
        let batches: Vec<u8> = files.iter().flat_map(|file| fs::read(file).expect("read")).collect();
        let (in_memory, on_disk) = (&answers[0], &answers[1]);
        let mut shorter = 0;
        for (in_memory, on_disk) in in_memory.iter().zip(on_disk) {
            // An answer ends with its segment.
            assert!(!on_disk.is_empty() && in_memory.starts_with(on_disk));
            shorter += usize::from(in_memory.len() > on_disk.len());
        }
        assert!(shorter < in_memory.len() / 2);
        assert_eq!(on_disk.len(), in_memory.len());
        assert!(batches.starts_with(&on_disk[5]), "answers are what the files hold");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_by_size_removes_the_oldest_segments() {
    let directory = TempDir::new().expect("a directory");
    let retention_interval = Duration::from_millis(10);
    let in_memory = Config { retention_interval, ..Config::default() };
    let on_disk = Config { retention_interval, ..durable(&directory) };
    for config in [in_memory, on_disk.clone()] {
        let mut fixture = Fixture::start(config).await;
        fixture.create("t", 2500, Some(5000)).await;
        // Two batches of more than 1000 bytes fit a segment, and two segments the partition.
        fixture.produce("t", 1000, 11).await;
        let start = tokio::time::timeout(SOON, async {
            loop {
                let (start, end) = range(&mut fixture.connection, "t").await;
                assert_eq!(end, 11);
                if start == 8 {
                    return start;
                }
            }
        });
        let start = start.await.expect("old segments go, and as many as must");
        let evicted = ErrorCode::OffsetEvicted { offset: 3, next_available: start };
        assert_eq!(Stream::open(&fixture.unit, "t", 3, None).await.answer().await.0.error_code, evicted);
        assert_eq!(read(&fixture.unit, "t", start, 11).await.len(), 3);
        fixture.server.shutdown().await;
    }
    let files = segments(directory.path(), "t");
    assert_eq!(files.iter().map(|file| first_offset(file)).collect::<Vec<_>>(), [8, 10]);
    let mut fixture = Fixture::start(on_disk).await;
    assert_eq!(range(&mut fixture.connection, "t").await, (8, 11));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_can_be_evicted_at_once() {
    let directory = TempDir::new().expect("a directory");
    for config in [Config::default(), durable(&directory)] {
        let mut fixture = Fixture::start(config.clone()).await;
        fixture.create("t", 1 << 20, None).await;
        let mut live = Stream::open(&fixture.unit, "t", 0, None).await;
        fixture.produce("t", 1000, 3).await;
        let (_, batches) = live.answer().await;
        assert!(!batches.is_empty());
        fixture.server.evict("t").await.expect("evict");
        assert_eq!(range(&mut fixture.connection, "t").await, (3, 3));
        // Whoever asks for what is gone learns where to go on.
        live.acknowledge(1).await;
        let evicted = ErrorCode::OffsetEvicted { offset: 1, next_available: 3 };
        assert_eq!(live.answer().await.0.error_code, evicted);
        fixture.produce("t", 1000, 1).await;
        assert_eq!(read(&fixture.unit, "t", 3, 4).await.len(), 1);
        fixture.server.evict("t").await.expect("evict");
        fixture.server.evict("t").await.expect("evict nothing");
        fixture.server.shutdown().await;
        if config.data_dir.is_some() {
            let mut fixture = Fixture::start(config).await;
            assert_eq!(range(&mut fixture.connection, "t").await, (4, 4));
            fixture.server.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_leaves_nothing_behind() {
    let directory = TempDir::new().expect("a directory");
    let mut fixture = Fixture::start(durable(&directory)).await;
    for _ in 0..3 {
        fixture.create("t", 4096, None).await;
        fixture.produce("t", 1000, 3).await;
        fixture.delete("t").await;
    }
    fixture.server.shutdown().await;
    // Whatever the removal has not come to yet, the next start removes.
    let fixture = Fixture::start(durable(&directory)).await;
    let logs = fs::read_dir(directory.path().join("log")).expect("read");
    let left: Vec<_> = logs.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| name == CONSUMER_STORAGE_TOPIC), "{left:?}");
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_deletion_is_ended_or_taken_back() {
    let directory = TempDir::new().expect("a directory");
    let logs = directory.path().join("log");
    let mut fixture = Fixture::start(durable(&directory)).await;
    fixture.create("t", 4096, None).await;
    fixture.produce("t", 100, 3).await;
    fixture.server.shutdown().await;
    // As if the server had been killed before the metadata said that the topic is gone, or after.
    fs::rename(logs.join("t"), logs.join(".deleting-t")).expect("rename");
    fs::create_dir(logs.join(".deleting-other")).expect("create");
    fs::create_dir(logs.join(".deleted-3")).expect("create");
    let mut fixture = Fixture::start(durable(&directory)).await;
    assert_eq!(read(&fixture.unit, "t", 0, 3).await.len(), 3);
    assert_eq!(range(&mut fixture.connection, "t").await, (0, 3));
    for name in [".deleting-t", ".deleting-other", ".deleted-3"] {
        assert!(!logs.join(name).exists(), "{name}");
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_a_name_has_logs_of_its_own() {
    let directory = TempDir::new().expect("a directory");
    let mut fixture = Fixture::start(durable(&directory)).await;
    // "0" would be in the way of partition 0 of "".
    for (topic, batches) in [("", 2), ("0", 1)] {
        fixture.create(topic, 4096, None).await;
        fixture.produce(topic, 100, batches).await;
    }
    fixture.server.shutdown().await;
    // A deletion that the metadata knows nothing of.
    let logs = directory.path().join("log");
    fs::rename(logs.join(".unnamed"), logs.join(".deleting-")).expect("rename");
    let mut fixture = Fixture::start(durable(&directory)).await;
    assert_eq!(range(&mut fixture.connection, "").await, (0, 2));
    assert_eq!(range(&mut fixture.connection, "0").await, (0, 1));
    fixture.delete("0").await;
    assert_eq!(read(&fixture.unit, "", 0, 2).await.len(), 2);
    fixture.server.shutdown().await;
    let mut fixture = Fixture::start(durable(&directory)).await;
    assert_eq!(read(&fixture.unit, "", 0, 2).await.len(), 2);
    fixture.delete("").await;
    fixture.server.shutdown().await;
    Fixture::start(durable(&directory)).await.server.shutdown().await;
    assert!(!logs.join(".unnamed").exists() && !logs.join(".deleting-").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_per_directory() {
    let directory = TempDir::new().expect("a directory");
    let first = Process::start(directory.path(), &[]);
    let second = refused(directory.path());
    let pid = first.child.id().to_string();
    for part in [directory.path().to_str().expect("text"), &pid, "in use"] {
        assert!(second.contains(part), "{part}: {second}");
    }
    // The lock goes with its owner, however that ends.
    first.kill();
    Process::start(directory.path(), &[]).terminate();
}

/// What a server says that cannot start on a directory.
fn refused(directory: &Path) -> String {
    let output = Command::new(BINARY).args(options(directory)).output().expect("run");
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_and_a_torn_tail_is_cut() {
    let directory = TempDir::new().expect("a directory");
    let mut fixture = Fixture::start(durable(&directory)).await;
    fixture.create("t", 2500, None).await;
    fixture.produce("t", 1000, 5).await;
    fixture.server.shutdown().await;
    let files = segments(directory.path(), "t");
    let intact: Vec<_> = files.iter().map(|file| fs::read(file).expect("read")).collect();

    let mut damaged = intact[1].clone();
    damaged[100] ^= 1;
    fs::write(&files[1], &damaged).expect("write");
    let said = refused(directory.path());
    for part in [files[1].to_str().expect("text"), "byte 0", "offset 2", "truncate"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::write(&files[1], &intact[1]).expect("write");

    let torn = &intact[2][..intact[2].len() - 1];
    fs::write(&files[2], torn).expect("write");
    let server = Process::start(directory.path(), &[]);
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    assert_eq!(range(&mut Raw::connect(&unit).await, "t").await, (0, 4));
    assert_eq!(read(&unit, "t", 0, 4).await.len(), 4);
    let log = server.terminate();
    assert!(log.contains("cut off") && log.contains(files[2].to_str().expect("text")), "{log}");

    let meta = directory.path().join("meta");
    let snapshot = fs::read_to_string(meta.join("snapshot.json")).expect("read");
    fs::write(meta.join("snapshot.json"), snapshot.replacen("Topic", "Tropic", 1)).expect("write");
    let said = refused(directory.path());
    assert!(said.contains("snapshot.json") && said.contains("copy"), "{said}");
    // Records without their metadata are not thrown away either.
    fs::remove_dir_all(&meta).expect("remove");
    let said = refused(directory.path());
    assert!(said.contains("\"t\"") && said.contains("meta"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_with_retention() {
    let output =
        |server: &Process| fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("status");
    let resident = |server: &Process| {
        let status = output(server);
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    };
    let server = Process::run(Command::new(BINARY).args(["--listen", "127.0.0.1:0"]));
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    let mut spec = TopicSpec::new_computed(1, 1, None);
    spec.set_storage(TopicStorageConfig { segment_size: Some(1 << 20), max_partition_size: Some(4 << 20) });
    assert_eq!(create(&mut controller, "t", spec).await.error_code, ErrorCode::None);
    let mut connection = Raw::connect(&unit).await;
    let batch = batch_of(&[b'x'; 1000], 500);
    let batches = 1000;
    for _ in 0..batches {
        assert_eq!(produce(&mut connection, "t", &[&batch]).await[0].0, ErrorCode::None);
    }
    let (written, resident) = (batches * batch.len() as u64, resident(&server));
    assert!(written > 400 << 20 && resident < 100 << 20, "{resident} bytes resident, {written} written");
    let (start, end) = range(&mut connection, "t").await;
    assert!(start > 0 && (end - start) * 1000 < 6 << 20);
    server.terminate();
}
