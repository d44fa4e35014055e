//! What a failure of the disk half-way leaves, and what it does not take.

use fluvio_sc_schema::core::Spec;
use fluvio_sc_schema::objects::Metadata;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use tempfile::TempDir;

use super::*;

fn open(directory: &TempDir) -> Arc<Journal> {
    let journal = Journal::open(directory.path().to_owned(), Fsync::Always, TaskTracker::new());
    Arc::new(journal.expect("a journal"))
}

fn record(journal: &Arc<Journal>, name: &str) {
    let object =
        Metadata { name: name.to_owned(), spec: TableFormatSpec::default(), status: Default::default() };
    journal.record(vec![Change::put(&object)]).expect("record");
}

fn compact(journal: &Journal) -> io::Result<()> {
    let _syncing = journal.syncing.lock();
    journal.compact()
}

fn names(journal: &Journal) -> Vec<String> {
    journal.of_kind(TableFormatSpec::LABEL).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn what_a_failed_fsync_lost_is_written_anew_before_it_is_acknowledged() {
    let directory = TempDir::new().expect("a directory");
    let journal = open(&directory);
    record(&journal, "a");
    journal.sync().await.expect("sync");
    // A device that takes a line, loses it, and says so once.
    let device = File::options().write(true).open("/dev/null").expect("open");
    let file = std::mem::replace(&mut journal.state.lock().file, Arc::new(device));
    record(&journal, "lost");
    assert_eq!(journal.sync().await, Err(StorageError));
    journal.state.lock().file = file;
    journal.sync().await.expect("sync");
    assert!(journal.is_durable() && journal.state.lock().doubtful == 0);
    record(&journal, "z");
    drop(journal);
    assert_eq!(names(&open(&directory)), ["a", "lost", "z"]);
}

#[test]
fn a_torn_old_journal_is_read() {
    let directory = TempDir::new().expect("a directory");
    let journal = open(&directory);
    record(&journal, "a");
    record(&journal, "b");
    drop(journal);
    let text = fs::read(directory.path().join(JOURNAL)).expect("read");
    fs::write(directory.path().join(OLD_JOURNAL), &text[..text.len() - 1]).expect("write");
    fs::write(directory.path().join(JOURNAL), b"").expect("write");
    assert_eq!(names(&open(&directory)), ["a"]);
}

#[test]
fn without_room_for_a_snapshot_the_journal_goes_on() {
    let directory = TempDir::new().expect("a directory");
    let in_the_way = directory.path().join("snapshot.json.new");
    for with_old_journal in [false, true] {
        let journal = open(&directory);
        record(&journal, "a");
        drop(journal);
        let path = directory.path().join(JOURNAL);
        let mut text = fs::read(&path).expect("read");
        text.extend_from_slice(b"{\"torn");
        fs::write(&path, text).expect("write");
        if with_old_journal {
            fs::rename(&path, directory.path().join(OLD_JOURNAL)).expect("rename");
        }
        fs::create_dir(&in_the_way).expect("create");
        for name in ["b", "c"] {
            let journal = open(&directory);
            record(&journal, name);
            compact(&journal).expect_err("in the way");
            record(&journal, &format!("{name}2"));
        }
        let journal = open(&directory);
        assert_eq!(names(&journal), ["a", "b", "b2", "c", "c2"]);
        fs::remove_dir(&in_the_way).expect("remove");
        compact(&journal).expect("a snapshot");
        record(&journal, "d");
        assert!(!directory.path().join(OLD_JOURNAL).exists());
        assert_eq!(journal.state.lock().bytes, fs::metadata(&path).expect("metadata").len());
        drop(journal);
        let journal = open(&directory);
        assert_eq!(names(&journal), ["a", "b", "b2", "c", "c2", "d"]);
        for name in names(&journal) {
            journal.record(vec![Change::remove::<TableFormatSpec>(&name)]).expect("record");
        }
    }
}

#[test]
fn a_rotation_that_got_half_way_loses_nothing() {
    let directory = TempDir::new().expect("a directory");
    let journal = open(&directory);
    // No new journal can be made: all stays as it is.
    let in_the_way = directory.path().join(NEW_JOURNAL);
    fs::create_dir(&in_the_way).expect("create");
    record(&journal, "a");
    compact(&journal).expect_err("in the way");
    record(&journal, "b");
    fs::remove_dir(&in_the_way).expect("remove");
    // The journal was renamed, and nothing took its place.
    fs::rename(directory.path().join(JOURNAL), directory.path().join(OLD_JOURNAL)).expect("rename");
    record(&journal, "c");
    compact(&journal).expect("compact");
    record(&journal, "d");
    drop(journal);
    assert_eq!(names(&open(&directory)), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn lines_behind_a_snapshot_are_on_the_disk_once_they_are_synced() {
    let directory = TempDir::new().expect("a directory");
    let journal = open(&directory);
    record(&journal, "a");
    let set_aside = journal.set_journal_aside().expect("set aside").expect("a number");
    record(&journal, "b");
    journal.write_snapshot(set_aside).expect("a snapshot");
    assert_eq!((journal.durable.load(Ordering::Acquire), journal.is_durable()), (1, false));
    journal.sync().await.expect("sync");
    assert!(journal.is_durable());
}
