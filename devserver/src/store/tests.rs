//! Everything that is stored is found again as it was, whatever happens to the files in between.

use std::collections::BTreeMap;
use std::fmt::Debug;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::smartmodule::{
    FluvioSemVersion, SmartModuleMetadata, SmartModulePackage, SmartModuleWasm, SmartModuleWasmSummary,
};
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{SpuSpec, SpuType};
use fluvio_controlplane_metadata::topic::{
    Bounds, CleanupPolicy, CompressionAlgorithm, Deduplication, Filter, HomeMirrorConfig, MirrorConfig,
    PartitionMap, SegmentBasedPolicy, TopicResolution, TopicStatus, TopicStorageConfig, Transform,
};
use fluvio_sc_schema::mirror::{Home, MirrorSpec, MirrorType, Remote};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::{DataFormat, TableFormatColumnConfig, TableFormatSpec};
use tempfile::TempDir;

use super::*;

fn open(directory: &TempDir) -> DataDir {
    DataDir::open(directory.path(), Fsync::Never, TaskTracker::new()).expect("open")
}

fn journal_of(directory: &TempDir) -> PathBuf {
    directory.path().join("meta/journal.ndjson")
}

fn error_of(directory: &TempDir) -> String {
    match DataDir::open(directory.path(), Fsync::Never, TaskTracker::new()) {
        Ok(_) => panic!("an error was expected"),
        Err(error) => format!("{error:#}"),
    }
}

fn topic(name: &str, partitions: u32) -> Metadata<TopicSpec> {
    Metadata {
        name: name.to_owned(),
        spec: TopicSpec::new_computed(partitions, 1, None),
        status: TopicStatus::default(),
    }
}

fn topics(data: &DataDir) -> Vec<(String, u32)> {
    let topics = data.objects::<TopicSpec>().expect("topics");
    topics.into_iter().map(|topic| (topic.name, topic.spec.partitions())).collect()
}

/// Stores an object, opens the directory twice (journal, then snapshot), and compares.
fn assert_kept<S>(spec: S, status: S::Status)
where
    S: AdminSpec + PartialEq + Debug + Clone,
    S::Status: Encoder + Decoder + PartialEq + Debug + Clone,
{
    let directory = TempDir::new().expect("a directory");
    let object = Metadata { name: "an ödd \"name\"".to_owned(), spec, status };
    open(&directory).journal.record(vec![Change::put(&object)]).expect("record");
    for _ in 0..2 {
        let found = open(&directory).objects::<S>().expect("objects").remove(0);
        assert_eq!((&found.name, &found.spec, &found.status), (&object.name, &object.spec, &object.status));
    }
}

#[test]
fn every_kind_of_object_is_kept_whole() {
    let mut spec = TopicSpec::new_computed(3, 2, Some(true));
    spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds: 77 }));
    spec.set_storage(TopicStorageConfig { segment_size: Some(5000), max_partition_size: Some(9000) });
    spec.set_compression_type(CompressionAlgorithm::Zstd);
    spec.set_system(true);
    spec.set_deduplication(Some(Deduplication {
        bounds: Bounds { count: 5, age: Some(std::time::Duration::from_secs(6)) },
        filter: Filter {
            transform: Transform {
                uses: "group/filter@0.1.0".to_owned(),
                with: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            },
        },
    }));
    let status = TopicStatus {
        resolution: TopicResolution::Provisioned,
        replica_map: BTreeMap::from([(0, vec![5001, 5002]), (1, vec![5002])]),
        reason: "none".to_owned(),
        ..TopicStatus::default()
    };
    assert_kept(spec, status);
    let map = PartitionMap { id: 0, replicas: vec![5001], mirror: None };
    assert_kept(TopicSpec::new_assigned(vec![map]), TopicStatus::default());
    let home = HomeMirrorConfig::from_simple("home", vec!["a".to_owned()]);
    assert_kept(TopicSpec::new_mirror(MirrorConfig::Home(home)), TopicStatus::default());
    assert_kept(PartitionSpec::new(5001, vec![5001, 5002]), Default::default());
    let spu = SpuSpec { id: 9, spu_type: SpuType::Custom, rack: Some("r".to_owned()), ..SpuSpec::default() };
    assert_kept(spu, Default::default());
    assert_kept(SpuGroupSpec { replicas: 2, min_id: 7, ..SpuGroupSpec::default() }, Default::default());
    let package = SmartModulePackage {
        name: "m".to_owned(),
        group: "g".to_owned(),
        version: FluvioSemVersion::parse("0.1.0").expect("a version"),
        ..SmartModulePackage::default()
    };
    let module = SmartModuleSpec {
        meta: Some(SmartModuleMetadata { package, ..SmartModuleMetadata::default() }),
        summary: Some(SmartModuleWasmSummary { wasm_length: 256 }),
        wasm: SmartModuleWasm::from_compressed_gzip((0..=255).collect()),
    };
    assert_kept(module, Default::default());
    let format = TableFormatSpec {
        name: "f".to_owned(),
        input_format: Some(DataFormat::JSON),
        columns: Some(vec![TableFormatColumnConfig { key_path: "k".to_owned(), ..Default::default() }]),
        smartmodule: Some("m".to_owned()),
    };
    assert_kept(format, Default::default());
    let home = Home { id: "h".to_owned(), public_endpoint: "h:9003".to_owned(), ..Home::default() };
    assert_kept(MirrorSpec { mirror_type: MirrorType::Home(home) }, Default::default());
    let remote = MirrorType::Remote(Remote { id: "r".to_owned() });
    assert_kept(MirrorSpec { mirror_type: remote }, Default::default());
}

#[test]
fn consumer_offsets_are_kept() {
    let directory = TempDir::new().expect("a directory");
    let data = open(&directory);
    let offset = |consumer: &str, topic: &str, offset| {
        ConsumerOffset::new(consumer, (topic, 3_u32), offset, 1_700_000_000)
    };
    for stored in [offset("a b", "t", 1), offset("a b", "t", 2), offset("c", "t", 3), offset("a b", "u", 4)] {
        data.journal.record(vec![Change::put_offset(&stored)]).expect("record");
    }
    data.journal.record(vec![Change::remove_offset(&("t", 3_u32).into(), "c")]).expect("record");
    drop(data);
    let found = open(&directory).consumer_offsets().expect("offsets");
    let found: Vec<_> = found
        .iter()
        .map(|found| (&found.consumer_id[..], &found.replica_id.topic[..], found.offset))
        .collect();
    assert_eq!(found, [("a b", "t", 2), ("a b", "u", 4)]);
}

#[test]
fn a_torn_last_line_is_cut_and_other_damage_is_named() {
    let directory = TempDir::new().expect("a directory");
    let data = open(&directory);
    for partitions in 1..4 {
        data.journal.record(vec![Change::put(&topic("t", partitions))]).expect("record");
    }
    drop(data);
    let intact = fs::read(journal_of(&directory)).expect("read");
    let snapshot = fs::read(directory.path().join("meta/snapshot.json")).expect("read");
    let ends: Vec<_> = (0..intact.len()).filter(|at| intact[*at] == b'\n').map(|at| at + 1).collect();
    assert_eq!(ends.len(), 3);
    for kept in 0..=intact.len() {
        fs::write(journal_of(&directory), &intact[..kept]).expect("write");
        fs::write(directory.path().join("meta/snapshot.json"), &snapshot).expect("write");
        let expected = ends.iter().filter(|end| **end <= kept).count() as u32;
        let found = topics(&open(&directory));
        assert_eq!(found, (expected > 0).then(|| ("t".to_owned(), expected)).into_iter().collect::<Vec<_>>());
        // What was cut is not found again.
        assert_eq!(topics(&open(&directory)), found);
    }
    for at in [3, ends[0] + 40, intact.len() - 2] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(journal_of(&directory), &damaged).expect("write");
        let line = ends.iter().filter(|end| **end <= at).count() + 1;
        let error = error_of(&directory);
        for part in [&format!("line {line} of"), "journal.ndjson", "copy"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(fs::read(journal_of(&directory)).expect("read"), damaged, "nothing was touched");
    }
}

#[tokio::test]
async fn the_journal_becomes_a_snapshot_before_it_grows_for_ever() {
    let directory = TempDir::new().expect("a directory");
    let data = open(&directory);
    for name in 0..100 {
        data.journal.record(vec![Change::put(&topic(&format!("kept-{name}"), 1))]).expect("record");
    }
    let mut rounds = 0;
    let journal = journal_of(&directory);
    // There is none for a moment while it is replaced.
    let size = || fs::metadata(&journal).map_or(0, |metadata| metadata.len());
    // Until it has been replaced three times, with changes all along.
    for _ in 0..3 {
        loop {
            let before = size();
            rounds += 1;
            data.journal.record(vec![Change::put(&topic("t", rounds))]).expect("record");
            tokio::task::yield_now().await;
            if size() < before {
                break;
            }
        }
    }
    data.journal.sync().await.expect("sync");
    drop(data);
    let found = topics(&open(&directory));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], ("t".to_owned(), rounds));
}

#[test]
fn an_old_journal_is_read_before_the_new_one() {
    // As it stands when the process ends while a snapshot is written, before and after it was renamed.
    for snapshot_is_new in [false, true] {
        let directory = TempDir::new().expect("a directory");
        let meta = directory.path().join("meta");
        let data = open(&directory);
        let old_snapshot = fs::read(meta.join("snapshot.json")).expect("read");
        for partitions in 1..3 {
            data.journal.record(vec![Change::put(&topic("t", partitions))]).expect("record");
        }
        data.journal.record(vec![Change::put(&topic("gone", 1))]).expect("record");
        drop(data);
        let old = fs::read(journal_of(&directory)).expect("read");
        let data = open(&directory);
        data.journal
            .record(vec![Change::put(&topic("t", 3)), Change::remove::<TopicSpec>("gone")])
            .expect("record");
        drop(data);
        fs::write(meta.join("journal.old.ndjson"), &old).expect("write");
        if !snapshot_is_new {
            fs::write(meta.join("snapshot.json"), &old_snapshot).expect("write");
        }
        assert_eq!(topics(&open(&directory)), [("t".to_owned(), 3)]);
    }
}

#[tokio::test]
async fn what_an_earlier_process_could_not_remove_is_in_nobodys_way() {
    let directory = TempDir::new().expect("a directory");
    let tasks = TaskTracker::new();
    let data = DataDir::open(directory.path(), Fsync::Never, tasks.clone()).expect("open");
    let logs = directory.path().join("log");
    fs::create_dir_all(logs.join(".deleted-0/0")).expect("create");
    for _ in 0..2 {
        fs::create_dir_all(data.partition(&("t", 0_u32).into())).expect("create");
        data.set_aside("t").expect("set aside");
        data.discard("t").expect("discard");
    }
    tasks.close();
    tasks.wait().await;
    let left: Vec<_> =
        fs::read_dir(&logs).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(left, [".deleted-0"]);
}

#[test]
fn a_deletion_is_on_the_disk_before_the_logs_go() {
    let directory = TempDir::new().expect("a directory");
    let config = crate::Config {
        data_dir: Some(directory.path().to_owned()),
        fsync: Fsync::Never,
        ..Default::default()
    };
    let cluster = crate::cluster::Cluster::open(config, []).expect("open");
    let data = cluster.data.as_ref().expect("a data directory");
    data.journal.record(vec![Change::put(&topic("t", 1))]).expect("record");
    let dir = data.partition(&("t", 0_u32).into());
    fs::create_dir_all(&dir).expect("create");
    cluster.forget_topic("t").expect("forgotten");
    assert!(!dir.exists() && data.deleting("t").join("0").exists() && !data.journal.is_durable());
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
        cluster.discard_logs("t");
        cluster.tasks.close();
        cluster.tasks.wait().await;
    });
    assert!(data.journal.is_durable() && !data.deleting("t").exists());
}

#[test]
fn directories_are_made_with_all_above_them() {
    let directory = TempDir::new().expect("a directory");
    let nested = directory.path().join("a/b/../c");
    make_directory(&nested).expect("make");
    make_directory(&nested).expect("it is there");
    assert!(nested.is_dir());
    fs::write(directory.path().join("file"), b"").expect("write");
    make_directory(&directory.path().join("file")).expect_err("a file");
}
