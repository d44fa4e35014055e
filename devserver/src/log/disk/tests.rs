//! What is left on the disk when something fails half-way.

use std::time::Duration;

use bytes::BytesMut;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_sc_schema::objects::Metadata;
use tempfile::TempDir;
use wire::batch::BatchHeader;
use wire::builder::BatchBuilder;

use super::*;
use crate::log::PartitionLog;
use crate::store::{Change, DataDir};

const DIR: &str = "log/t/0";
/// Every batch has a segment of its own.
const RETENTION: Retention =
    Retention { segment_bytes: 1, partition_bytes: 1 << 30, age: Duration::from_secs(1 << 20) };

/// A log in its place in a data directory.
fn open(directory: &TempDir) -> (DataDir, PartitionLog) {
    let data = DataDir::open(directory.path(), Fsync::Never, TaskTracker::new()).expect("a data directory");
    let dir = directory.path().join(DIR);
    let log = PartitionLog::open(dir, RETENTION, Fsync::Never, data.journal.clone(), TaskTracker::new());
    (data, log.expect("a log"))
}

fn topic() -> Metadata<TopicSpec> {
    let spec = TopicSpec::new_computed(1, 1, None);
    Metadata { name: "t".to_owned(), spec, status: Default::default() }
}

async fn append(log: &PartitionLog) {
    let mut builder = BatchBuilder::with_capacity(256);
    builder.push(None, b"a record", 1_700_000_000_000);
    let batch = BytesMut::from(&builder.finish()[..]);
    let header = BatchHeader::parse(&batch).expect("a header");
    log.append(vec![(batch, header)]).done().await.expect("append");
}

#[tokio::test]
async fn a_segment_that_cannot_be_removed_keeps_the_later_ones() {
    let directory = TempDir::new().expect("a directory");
    let dir = directory.path().join(DIR);
    let (data, log) = open(&directory);
    data.journal.record(vec![Change::put(&topic())]).expect("record");
    for _ in 0..4 {
        append(&log).await;
    }
    // A directory is no file that could be unlinked, whoever tries.
    let (second, aside) = (segment::path(&dir, 1), directory.path().join("aside"));
    fs::rename(&second, &aside).expect("rename");
    fs::create_dir(&second).expect("create");
    let error = log.evict().expect_err("one stays").to_string();
    assert!(error.contains("00000000000000000001.log"), "{error}");
    assert_eq!(log.start(), 1);
    fs::remove_dir(&second).expect("remove");
    fs::rename(&aside, &second).expect("rename");
    drop((data, log));
    let (_data, log) = open(&directory);
    assert_eq!((log.start(), log.ends().offset), (1, 4));
    log.evict().expect("evict");
    assert_eq!(log.start(), 4);
}

#[tokio::test]
async fn no_file_is_made_before_its_topic_is_on_the_disk() {
    let directory = TempDir::new().expect("a directory");
    let (data, log) = open(&directory);
    data.journal.record(vec![Change::put(&topic())]).expect("record");
    assert!(!data.journal.is_durable());
    append(&log).await;
    assert!(data.journal.is_durable());
    // What changes later is no concern of the log's.
    data.journal.record(vec![Change::put(&topic())]).expect("record");
    append(&log).await;
    assert!(!data.journal.is_durable());
}
