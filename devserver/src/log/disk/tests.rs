//! What is left on the disk when something fails half-way.

use std::time::Duration;

use bytes::BytesMut;
use tempfile::TempDir;
use wire::batch::BatchHeader;
use wire::builder::BatchBuilder;

use super::*;
use crate::log::PartitionLog;

/// Every batch has a segment of its own.
const RETENTION: Retention =
    Retention { segment_bytes: 1, partition_bytes: 1 << 30, age: Duration::from_secs(1 << 20) };

fn open(dir: &Path) -> PartitionLog {
    PartitionLog::open(dir.to_owned(), RETENTION, Fsync::Never, TaskTracker::new()).expect("open")
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
    let dir = directory.path().join("t/0");
    let log = open(&dir);
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
    drop(log);
    let log = open(&dir);
    assert_eq!((log.start(), log.ends().offset), (1, 4));
    log.evict().expect("evict");
    assert_eq!(log.start(), 4);
}
