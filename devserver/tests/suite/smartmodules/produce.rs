//! Produce through SmartModules: what is written, at which offsets, and what a failure leaves behind.

use fluvio_protocol::link::ErrorCode;
use fluvio_smartmodule::dataplane::smartmodule::Lookback;

use super::support::{ad_hoc, batch_of, looking_back, named, produce_through, start, upload, with_param};
use crate::common::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_leaves_gaps_in_the_offsets() {
    let fixture = start().await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let batch = batch_of(&["apple", "berry", "banana", "plum"]);
    let written =
        produce_through(&mut connection, vec![ad_hoc("filter")], std::slice::from_ref(&batch)).await;
    assert_eq!(written, [(ErrorCode::None, 0)]);
    let written = produce_through(&mut connection, vec![ad_hoc("filter")], &[batch]).await;
    assert_eq!(written, [(ErrorCode::None, 4)]);
    let log = fixture.read().await;
    assert_eq!(log.values(), ["apple", "banana", "apple", "banana"]);
    assert_eq!(log.deltas(), [0, 2, 0, 2]);
    let offsets = log.batches.iter().map(|batch| (batch.base_offset, batch.get_last_offset()));
    assert_eq!(offsets.collect::<Vec<_>>(), [(0, 3), (4, 7)]);
    assert_eq!(log.partition.high_watermark, 8);
    // The real server drops the timestamps.
    assert_eq!(log.batches[0].header.first_timestamp, -1);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_is_filtered_out_nothing_is_written_and_that_is_no_error() {
    let fixture = start().await;
    fixture.write(&["before"]).await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let sets = [batch_of(&["plum"]), batch_of(&["apple"])];
    let written = produce_through(&mut connection, vec![ad_hoc("filter")], &sets).await;
    assert_eq!(written, [(ErrorCode::None, 0), (ErrorCode::None, 1)]);
    assert_eq!(fixture.read().await.values(), ["before", "apple"]);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_batches_of_an_entry_become_one_and_every_entry_has_a_chain_of_its_own() {
    let fixture = start().await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let two = [batch_of(&["1", "2"]), batch_of(&["3"])].concat();
    let sets = [two, batch_of(&["10"])];
    let written = produce_through(&mut connection, vec![ad_hoc("aggregate")], &sets).await;
    assert_eq!(written, [(ErrorCode::None, 0), (ErrorCode::None, 3)]);
    let log = fixture.read().await;
    assert_eq!(log.values(), ["1", "3", "6", "10"]);
    assert_eq!(log.batches.len(), 2);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_parameters_and_chains_work_as_on_streams() {
    let mut fixture = start().await;
    upload(&mut fixture.controller, "keeps", "filter_init", None).await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let modules = || vec![with_param(named("keeps"), "key", "err"), ad_hoc("map")];
    let sets = [batch_of(&["apple", "berry"])];
    let written = produce_through(&mut connection, modules(), &sets).await;
    assert_eq!(written, [(ErrorCode::None, 0)]);
    assert_eq!(fixture.read().await.values(), ["BERRY"]);
    let written = produce_through(&mut connection, vec![named("nope")], &sets).await;
    assert_eq!(written[0].0, ErrorCode::SmartModuleNotFound { name: "nope".to_owned() });
    let written = produce_through(&mut connection, vec![named("keeps")], &sets).await;
    assert!(matches!(written[0].0, ErrorCode::SmartModuleChainInitError(_)), "{written:?}");
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_looks_back_on_what_is_written() {
    let fixture = start().await;
    fixture.write(&["5"]).await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let modules = || vec![looking_back(ad_hoc("look_back"), Lookback::last(10))];
    let sets = [batch_of(&["4", "6"]), batch_of(&["6", "7"])];
    let written = produce_through(&mut connection, modules(), &sets).await;
    assert_eq!(written, [(ErrorCode::None, 1), (ErrorCode::None, 3)]);
    assert_eq!(fixture.read().await.values(), ["5", "6", "7"]);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_writes_nothing_of_its_entry() {
    let fixture = start().await;
    let mut connection = Raw::connect(&fixture.unit).await;
    let sets = [batch_of(&["2", "two"]), batch_of(&["4"])];
    let written = produce_through(&mut connection, vec![ad_hoc("filter_map")], &sets).await;
    assert!(matches!(&written[0].0, ErrorCode::SmartModuleRuntimeError(error) if error.offset == 1));
    assert_eq!(written[1], (ErrorCode::None, 0));
    let written = produce_through(&mut connection, vec![ad_hoc("trap.wat")], &sets[1..]).await;
    let expected = "smartmodule chain failed: error while executing at wasm backtrace:";
    assert!(matches!(&written[0].0, ErrorCode::Other(text) if text.starts_with(expected)), "{written:?}");
    assert_eq!(fixture.read().await.values(), ["2"]);
    fixture.server.shutdown().await;
}
