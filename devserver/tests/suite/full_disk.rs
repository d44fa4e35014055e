//! Storage that takes no more: producers are told StorageError, the server stays up, nothing that was acknowledged is
//! lost, and writing works again once there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::admin::{all, delete, put};
use crate::common::consume::{range, read};
use crate::common::process::{BINARY, Process, options};
use crate::common::{Raw, batch_of, create, produce, unit_of};
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::link::ErrorCode;
use tempfile::TempDir;

/// Fills `topic` until storage takes no more, and returns where it ends.
async fn fill(unit: &str, topic: &str) -> i64 {
    let mut connection = Raw::connect(unit).await;
    let (large, small) = (batch_of(&[b'x'; 3000], 1), batch_of(b"small", 1));
    let mut end = range(&mut connection, topic).await.1;
    // Entries of one request share a write: each has its own chance.
    loop {
        let results = produce(&mut connection, topic, &[&large, &large]).await;
        for (code, offset) in &results {
            match code {
                ErrorCode::None => {
                    assert_eq!(*offset, end);
                    end += 1;
                }
                code => assert_eq!(*code, ErrorCode::StorageError),
            }
        }
        if results.iter().all(|(code, _)| *code != ErrorCode::None) {
            break;
        }
    }
    // What does not fit says nothing about what is smaller; the first failure leaves no trace before the next batch.
    while produce(&mut connection, topic, &[&small]).await[0].0 == ErrorCode::None {
        end += 1;
    }
    assert_eq!(produce(&mut connection, topic, &[&large, &small]).await[0].0, ErrorCode::StorageError);
    assert_eq!(range(&mut connection, topic).await, (0, end));
    assert_eq!(read(unit, topic, 0, end).await.len(), end as usize);
    end
}

/// Goes on writing behind `end`, restarts by force, and looks whether all is there.
async fn go_on(unit: &str, topic: &str, end: i64) {
    let mut connection = Raw::connect(unit).await;
    let large = batch_of(&[b'y'; 3000], 2);
    let results = produce(&mut connection, topic, &[&large, &large]).await;
    assert_eq!(results, [(ErrorCode::None, end), (ErrorCode::None, end + 2)]);
    assert_eq!(read(unit, topic, 0, end + 4).await.len(), end as usize + 4);
}

/// A server whose files may not grow beyond `most`, in blocks whose size depends on the shell. Without its signal, that is an
/// error of write().
fn limited(directory: &Path, most: &str) -> Process {
    let script = format!(r#"trap "" XFSZ; ulimit -S -f {most}; exec "$0" "$@""#);
    let mut command = Command::new("sh");
    command.args(["-c", &script, BINARY]).args(options(directory)).args(["--fsync", "always"]);
    Process::run(&mut command)
}

/// Has the files of a server grow up to another limit, in bytes.
fn limit(server: &Process, most: &str) {
    let pid = server.child.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={most}")]).status();
    assert!(limited.expect("prlimit").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow() {
    let directory = TempDir::new().expect("a directory");
    let server = limited(directory.path(), "100");
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    for topic in ["t", "u"] {
        assert!(create(&mut controller, topic, TopicSpec::new_computed(1, 1, None)).await.error_code.is_ok());
    }
    let end = fill(&unit, "t").await;
    // Others have files of their own.
    fill(&unit, "u").await;
    limit(&server, "unlimited");
    go_on(&unit, "t", end).await;
    server.kill();
    let server = Process::start(directory.path(), &[]);
    let unit = unit_of(&mut Raw::connect(&server.endpoint).await).await;
    assert_eq!(range(&mut Raw::connect(&unit).await, "t").await, (0, end + 4));
    let log = server.terminate();
    assert!(!log.contains("cut off"), "nothing was left of what failed: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_system() {
    let directory = TempDir::new().expect("a directory");
    // A file system of 300 KiB that only the server sees, and the one that follows it.
    let script = r#"mount -t tmpfs -o size=300k tmpfs "$1" && head -c 100000 /dev/zero > "$1/ballast" && shift && { "$@"; exec "$@"; }"#;
    let mounting = ["-rm", "sh", "-c", script, "sh", directory.path().to_str().expect("text")];
    let allowed =
        Command::new("unshare").args(mounting).arg("true").output().is_ok_and(|run| run.status.success());
    if !allowed {
        // The other test of this file has shown the same with a limit on the size of files.
        eprintln!("not run: this system does not let its users mount file systems");
        return;
    }
    let mut command = Command::new("unshare");
    command
        .args(mounting)
        .arg(BINARY)
        .args(options(&directory.path().join("data")))
        .arg("--exit-with-parent");
    let mut server = Process::run(&mut command);
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    assert!(create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await.error_code.is_ok());
    let end = fill(&unit, "t").await;
    // Metadata finds no room either, and nothing is half changed.
    let mut created = 0;
    let refused = loop {
        let name = format!("more-{created}");
        let status = create(&mut controller, &name, TopicSpec::new_computed(1, 1, None)).await;
        if !status.error_code.is_ok() {
            break status;
        }
        created += 1;
    };
    assert_eq!(refused.error_code, ErrorCode::StorageError);
    // Whoever has no room left can start the server, to delete something.
    let files = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), directory.path().display()));
    let pid = fs::read_to_string(files.join("data/LOCK")).expect("a process id");
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill").success());
    server.follow();
    let mut controller = Raw::connect(&server.endpoint).await;
    let unit = unit_of(&mut controller).await;
    assert_eq!(range(&mut Raw::connect(&unit).await, "t").await, (0, end));
    fs::remove_file(files.join("ballast")).expect("remove");
    go_on(&unit, "t", end).await;
    for (name, is_new) in [(created - 1, false), (created, true)] {
        let name = format!("more-{name}");
        let status = create(&mut controller, &name, TopicSpec::new_computed(1, 1, None)).await;
        assert_eq!(status.error_code.is_ok(), is_new, "{name}");
    }
    let log = server.terminate();
    assert!(log.contains("cannot write a snapshot"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_cannot_be_deleted_keeps_its_spus() {
    let directory = TempDir::new().expect("a directory");
    let server = limited(directory.path(), "unlimited");
    let mut controller = Raw::connect(&server.endpoint).await;
    let group = SpuGroupSpec { min_id: 10, replicas: 1, ..SpuGroupSpec::default() };
    assert!(put(&mut controller, "g", group).await.error_code.is_ok());
    limit(&server, "1:unlimited");
    let status = delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await;
    assert_eq!(status.error_code, ErrorCode::StorageError);
    let spus = all::<SpuSpec>(&mut controller).await;
    assert!(spus.iter().any(|spu| spu.spec.id == 10 && spu.status.is_online()), "{spus:?}");
    limit(&server, "unlimited");
    assert!(delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await.error_code.is_ok());
    assert_eq!(all::<SpuSpec>(&mut controller).await.len(), 1);
    server.terminate();
}
