//! Topics with deduplication: checks at their creation, what is dropped, and what stays in order.

use std::collections::BTreeMap;

use fluvio_controlplane_metadata::topic::{
    Bounds, Deduplication, Filter, TopicSpec, TopicStorageConfig, Transform,
};
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;

use super::support::{Stream, batch_of, start_with, upload};
use crate::common::admin::delete;
use crate::common::consume::read;
use crate::common::{Raw, create, produce, unit_of};

fn spec(module: &str, count: u64) -> TopicSpec {
    let mut spec = TopicSpec::new_computed(1, 1, None);
    let transform = Transform { uses: module.to_owned(), with: BTreeMap::new() };
    let bounds = Bounds { count, age: None };
    spec.set_deduplication(Some(Deduplication { bounds, filter: Filter { transform } }));
    spec
}

/// The values in the topic `t`, and where its batches begin.
async fn written(unit: &str) -> (Vec<String>, Vec<i64>) {
    let log = Stream::open(unit, Vec::new()).await.answer().await;
    (log.values(), log.batches.iter().map(|batch| batch.base_offset).collect())
}

/// A server with a topic `t` that `module` deduplicates.
async fn start(module: &str, count: u64) -> (Server, String) {
    let config = Config { smart_module_memory: 32 * 65536, ..Config::default() };
    let server = Server::start(config).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    upload(&mut controller, "module", module, None).await;
    let created = create(&mut controller, "t", spec("module", count)).await;
    assert!(created.error_code.is_ok(), "{created:?}");
    let unit = unit_of(&mut controller).await;
    (server, unit)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_module_is_checked_when_the_topic_is_created() {
    let mut fixture = start_with(Config::default()).await;
    let controller = &mut fixture.controller;
    upload(controller, "broken", "no_kind.wat", None).await;
    let status = create(controller, "dedup", spec("group/name@x", 5)).await;
    let code = &status.error_code;
    assert!(matches!(code, ErrorCode::DeduplicationSmartModuleNameInvalid(_)), "{code:?}");
    assert_eq!(status.name, "group/name@x");
    let status = create(controller, "dedup", spec("nope", 5)).await;
    assert_eq!(status.error_code, ErrorCode::DeduplicationSmartModuleNotLoaded);
    let hint = "fluvio hub sm download nope";
    assert!(status.error_message.is_some_and(|message| message.contains(hint)));
    let status = create(controller, "dedup", spec("broken", 5)).await;
    assert_eq!(status.error_code, ErrorCode::TopicNotProvisioned);
    let reason = "No valid smartmodule found";
    assert!(status.error_message.is_some_and(|message| message.contains(reason)));
    // None of them was created.
    let status = create(controller, "dedup", TopicSpec::new_computed(1, 1, None)).await;
    assert!(status.error_code.is_ok());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_dropped_within_a_batch_and_across_requests() {
    let (server, unit) = start("dedup", 3).await;
    let mut connection = Raw::connect(&unit).await;
    let first = batch_of(&["1", "2", "2", "1"]);
    assert_eq!(produce(&mut connection, "t", &[&first]).await, [(ErrorCode::None, 0)]);
    // All of it is known: the answer is the high watermark, and nothing is written.
    assert_eq!(produce(&mut connection, "t", &[&first]).await, [(ErrorCode::None, 4)]);
    let mut other = Raw::connect(&unit).await;
    assert_eq!(produce(&mut other, "t", &[&batch_of(&["2", "3", "4"])]).await, [(ErrorCode::None, 4)]);
    // Of three it remembers 2, 3 and 4.
    assert_eq!(produce(&mut other, "t", &[&batch_of(&["1", "3"])]).await, [(ErrorCode::None, 7)]);
    let (values, base_offsets) = written(&unit).await;
    assert_eq!(values, ["1", "2", "3", "4", "1"]);
    assert_eq!(base_offsets, [0, 4, 7]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_module_looks_back_on_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { data_dir: Some(folder.path().to_owned()), ..Config::default() };
    let server = Server::start(config.clone()).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    upload(&mut controller, "module", "dedup", None).await;
    assert!(create(&mut controller, "t", spec("module", 3)).await.error_code.is_ok());
    let mut connection = Raw::connect(&unit_of(&mut controller).await).await;
    let sets: [&[u8]; 2] = [&batch_of(&["1", "2"]), &batch_of(&["3", "4", "4"])];
    assert_eq!(produce(&mut connection, "t", &sets).await, [(ErrorCode::None, 0), (ErrorCode::None, 2)]);
    drop((controller, connection));
    server.shutdown().await;

    let server = Server::start(config).await.expect("start");
    let unit = unit_of(&mut Raw::connect(&server.endpoint()).await).await;
    let mut connection = Raw::connect(&unit).await;
    // The last three offsets are 2, 3 and 4, and at 4 there is no record.
    let again = batch_of(&["4", "3", "1"]);
    assert_eq!(produce(&mut connection, "t", &[&again]).await, [(ErrorCode::None, 5)]);
    assert_eq!(written(&unit).await.0, ["1", "2", "3", "4", "1"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_too_large_is_written_when_it_comes_in_smaller_pieces() {
    let (server, unit) = start("dedup", 3).await;
    let mut controller = Raw::connect(&server.endpoint()).await;
    assert!(delete::<TopicSpec>(&mut controller, "t".to_owned()).await.error_code.is_ok());
    let mut spec = spec("module", 3);
    spec.set_storage(TopicStorageConfig { segment_size: Some(1024), ..TopicStorageConfig::default() });
    assert!(create(&mut controller, "t", spec).await.error_code.is_ok());
    // It looks back on all that was written, also where followers lag behind.
    server.hold_high_watermark("t", true);
    let mut connection = Raw::connect(&unit).await;
    assert_eq!(produce(&mut connection, "t", &[&batch_of(&["1"])]).await, [(ErrorCode::None, 0)]);
    let large: Vec<String> = ["a", "b"].iter().map(|letter| letter.repeat(600)).collect();
    let [first, second] = [large[0].as_str(), large[1].as_str()];
    let written = produce(&mut connection, "t", &[&batch_of(&[first, second])]).await;
    assert_eq!(written, [(ErrorCode::MessageTooLarge, 0)]);
    let pieces: [&[u8]; 2] = [&batch_of(&["1", first]), &batch_of(&[second])];
    assert_eq!(produce(&mut connection, "t", &pieces).await, [(ErrorCode::None, 1), (ErrorCode::None, 3)]);
    server.hold_high_watermark("t", false);
    let values: Vec<_> = read(&unit, "t", 0, 4).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["1", first, second]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_disk_did_not_take_is_written_when_it_comes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { data_dir: Some(folder.path().to_owned()), ..Config::default() };
    let server = Server::start(config).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    upload(&mut controller, "module", "dedup", None).await;
    assert!(create(&mut controller, "t", spec("module", 3)).await.error_code.is_ok());
    let unit = unit_of(&mut controller).await;
    let mut connection = Raw::connect(&unit).await;
    let in_the_way = folder.path().join("log/t");
    std::fs::write(&in_the_way, "").expect("a file");
    let batch = batch_of(&["1"]);
    assert_eq!(produce(&mut connection, "t", &[&batch]).await, [(ErrorCode::StorageError, 0)]);
    std::fs::remove_file(&in_the_way).expect("remove");
    // The second time within one request it is a duplicate.
    let sets: [&[u8]; 2] = [&batch, &batch];
    assert_eq!(produce(&mut connection, "t", &sets).await, [(ErrorCode::None, 0), (ErrorCode::None, 1)]);
    assert_eq!(written(&unit).await.0, ["1"]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_producers_of_the_same_each_record_is_written_once() {
    let (server, unit) = start("dedup", 64).await;
    let values: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..6 {
        let (unit, mut values) = (unit.clone(), values.clone());
        values.rotate_left(producer * 10);
        producers.spawn(async move {
            let mut connection = Raw::connect(&unit).await;
            for value in &values {
                let written = produce(&mut connection, "t", &[&batch_of(&[value])]).await;
                assert!(written[0].0.is_ok(), "{written:?}");
            }
        });
    }
    while let Some(producer) = producers.join_next().await {
        producer.expect("a producer");
    }
    let mut found = Stream::open(&unit, Vec::new()).await.answer().await.values();
    found.sort_by_key(|value| value.parse::<u32>().expect("a number"));
    assert_eq!(found, values);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_fails_is_an_error_of_the_storage_or_of_the_memory() {
    for (module, expected) in [
        ("trap.wat", ErrorCode::StorageError),
        ("filter_map", ErrorCode::StorageError),
        ("greedy.wat", ErrorCode::SmartModuleMemoryLimitExceeded { requested: 33 * 65536, max: 32 * 65536 }),
    ] {
        let (server, unit) = start(module, 5).await;
        let mut connection = Raw::connect(&unit).await;
        let written = produce(&mut connection, "t", &[&batch_of(&["apple"])]).await;
        assert_eq!(written, [(expected, 0)], "{module}");
        Stream::open(&unit, Vec::new()).await.assert_silent().await;
        server.shutdown().await;
    }
}
