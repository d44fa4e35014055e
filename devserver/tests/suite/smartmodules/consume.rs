//! Streams with SmartModules: every kind, chains, names, several batches, limits, compression, looking back.

use std::time::Duration;

use fluvio_compression::Compression;
use fluvio_devserver::{Config, Fault};
use fluvio_protocol::Encoder;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{Batch, RawRecords, Record};
use fluvio_sc_schema::smartmodule::{FluvioSemVersion, SmartModuleMetadata, SmartModulePackage};
use fluvio_smartmodule::dataplane::smartmodule::Lookback;
use wire::builder::BatchBuilder;

use super::support::{
    Stream, accumulating, ad_hoc, looking_back, named, start, start_with, upload, with_param,
};
use crate::common::{Raw, produce};

const FRUIT: [&str; 4] = ["apple", "berry", "banana", "plum"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_module_does_its_work() {
    let cases = [
        (ad_hoc("filter"), &FRUIT[..], &["apple", "banana"][..], &[0, 2][..]),
        (ad_hoc("map"), &FRUIT, &["APPLE", "BERRY", "BANANA", "PLUM"], &[0, 1, 2, 3]),
        (ad_hoc("array_map"), &["a,b", "c", ""], &["a", "b", "c", ""], &[0, 0, 1, 2]),
        (ad_hoc("filter_map"), &["4", "3", "10"], &["2", "5"], &[0, 2]),
        (ad_hoc("aggregate"), &["1", "2", "3"], &["1", "3", "6"], &[0, 1, 2]),
        (accumulating(ad_hoc("aggregate"), "40"), &["1", "1"], &["41", "42"], &[0, 1]),
        (with_param(ad_hoc("filter_init"), "key", "rr"), &FRUIT, &["berry"], &[1]),
    ];
    for (module, input, output, deltas) in cases {
        let fixture = start().await;
        fixture.write(input).await;
        let answer = Stream::open(&fixture.unit, vec![module]).await.answer().await;
        assert!(answer.error().is_ok());
        assert_eq!(answer.values(), output);
        assert_eq!(answer.deltas(), deltas);
        let end = input.len() as i64;
        let partition = &answer.partition;
        assert_eq!(
            (partition.next_filter_offset, partition.high_watermark, partition.log_start_offset),
            (end, end, 0)
        );
        let batch = &answer.batches[0];
        assert_eq!((batch.base_offset, batch.get_last_offset()), (0, end - 1));
        assert_eq!((batch.header.first_timestamp, batch.header.max_time_stamp), (-1, -1));
        fixture.server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive() {
    let fixture = start().await;
    let mut batch = BatchBuilder::with_capacity(64);
    batch.push(Some(b"a key"), b"apple", 1);
    batch.push(Some(b""), b"banana", 1);
    batch.push(None, b"plum", 1);
    let mut connection = Raw::connect(&fixture.unit).await;
    assert!(produce(&mut connection, "t", &[&batch.finish()]).await[0].0.is_ok());
    let answer = Stream::open(&fixture.unit, vec![ad_hoc("map")]).await.answer().await;
    let keys = answer.batches[0].records().iter().map(|record| record.key().map(|key| key.as_ref().to_vec()));
    assert_eq!(keys.collect::<Vec<_>>(), [Some(b"a key".to_vec()), Some(Vec::new()), None]);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_module_of_a_chain_takes_what_the_one_before_puts_out() {
    let fixture = start().await;
    fixture.write(&["4,3", "10", "1,1,16"]).await;
    let chain = vec![ad_hoc("array_map"), ad_hoc("filter_map"), ad_hoc("aggregate")];
    let answer = Stream::open(&fixture.unit, chain).await.answer().await;
    assert_eq!(answer.values(), ["2", "7", "15"]);
    assert_eq!(answer.deltas(), [0, 1, 2]);
    assert_eq!(answer.partition.next_filter_offset, 3);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploaded_modules_are_found_by_name_and_by_package() {
    let mut fixture = start().await;
    fixture.write(&FRUIT).await;
    upload(&mut fixture.controller, "plain", "filter", None).await;
    let package = SmartModulePackage {
        name: "capitals".to_owned(),
        group: "ours".to_owned(),
        version: FluvioSemVersion::parse("1.2.3").expect("a version"),
        ..SmartModulePackage::default()
    };
    let meta = SmartModuleMetadata { package, ..SmartModuleMetadata::default() };
    upload(&mut fixture.controller, "ignored", "map", Some(meta)).await;
    let found = [
        ("plain", "apple"),
        ("capitals", "APPLE"),
        ("ours/capitals", "APPLE"),
        ("ours/capitals@1.2.3", "APPLE"),
        // What was uploaded without a package is in all groups.
        ("ours/plain", "apple"),
    ];
    for (name, first) in found {
        let answer = Stream::open(&fixture.unit, vec![named(name)]).await.answer().await;
        assert_eq!(answer.values()[0], first, "{name}");
    }
    for name in ["nope", "ignored", "theirs/capitals", "ours/capitals@1.2.4"] {
        let answer = Stream::open(&fixture.unit, vec![ad_hoc("map"), named(name)]).await.answer().await;
        assert_eq!(answer.error(), &ErrorCode::SmartModuleNotFound { name: name.to_owned() });
    }
    let answer = Stream::open(&fixture.unit, vec![named("ours/capitals@x")]).await.answer().await;
    let code = answer.error();
    assert!(
        matches!(code, ErrorCode::Other(text) if text.starts_with("error parsing SmartModule name: ")),
        "{code:?}"
    );
    // An upload replaces what was there: streams that are opened from then on have the new one.
    upload(&mut fixture.controller, "plain", "map", None).await;
    let answer = Stream::open(&fixture.unit, vec![named("plain")]).await.answer().await;
    assert_eq!(answer.values()[0], "APPLE");
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_when_nothing_comes_out_and_the_stream_goes_on() {
    let fixture = start().await;
    fixture.write(&["plum", "berry"]).await;
    let mut stream = Stream::open(&fixture.unit, vec![ad_hoc("filter")]).await;
    stream.assert_silent().await;
    fixture.write(&["plum"]).await;
    stream.assert_silent().await;
    // Without any acknowledgement in between.
    fixture.write(&["berry", "apple"]).await;
    let answer = stream.answer().await;
    assert_eq!((answer.batches[0].base_offset, answer.deltas()), (3, vec![1]));
    assert_eq!(answer.partition.next_filter_offset, 5);
    // Now one answer is in flight: the next one waits for its acknowledgement.
    fixture.write(&["banana"]).await;
    stream.assert_silent().await;
    stream.acknowledge(5).await;
    let answer = stream.answer().await;
    assert_eq!((answer.values(), answer.partition.next_filter_offset), (vec!["banana".to_owned()], 6));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_batches_make_one_with_the_real_servers_deltas() {
    let fixture = start().await;
    for values in [&["plum"][..], &["apple", "plum"], &["berry", "banana"], &["plum"]] {
        fixture.write(values).await;
    }
    let answer = Stream::open(&fixture.unit, vec![ad_hoc("filter")]).await.answer().await;
    assert_eq!(answer.values(), ["apple", "banana"]);
    assert_eq!(answer.batches.len(), 1);
    assert_eq!((answer.batches[0].base_offset, answer.batches[0].get_last_offset()), (1, 5));
    // Banana is at offset 4. Its delta should be 3; the real server makes it 1 + (1 - 3).
    assert_eq!(answer.deltas(), [0, -1]);
    assert_eq!(answer.partition.next_filter_offset, 6);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_within_a_batch_gets_the_whole_batch() {
    let fixture = start().await;
    fixture.write(&FRUIT).await;
    let answer = Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 2, 1_000_000).await.answer().await;
    assert_eq!((answer.batches[0].base_offset, answer.values().len()), (0, 2));
    fixture.server.shutdown().await;
}

/// Three batches of which two make an output of about 1 000 bytes each.
async fn write_large(fixture: &super::support::Fixture) {
    for first in ["a", "b", "a"] {
        fixture.write(&[&first.repeat(1000)]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_exceeds_max_bytes_comes_with_the_next_answer() {
    let fixture = start().await;
    write_large(&fixture).await;
    // Room for none, one, and both.
    for (max_bytes, next_offsets) in [(10, &[2, 3][..]), (1500, &[2, 3]), (3000, &[3])] {
        let mut stream = Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 0, max_bytes).await;
        for next_offset in next_offsets {
            let answer = stream.answer().await;
            assert_eq!(answer.partition.next_filter_offset, *next_offset, "{max_bytes}");
            stream.acknowledge(*next_offset).await;
        }
        stream.assert_silent().await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_demand_a_first_output_above_max_bytes_is_lost_as_on_the_real_server() {
    let fixture = start_with(Config { smart_module_overflow: true, ..Config::default() }).await;
    write_large(&fixture).await;
    let mut stream = Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 0, 100).await;
    stream.assert_silent().await;
    // It has gone to the end, without a word.
    fixture.write(&["a"]).await;
    let answer = stream.answer().await;
    assert_eq!((answer.values(), answer.batches[0].base_offset), (vec!["a".to_owned()], 3));
    // Only the first one is lost.
    let answer = Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 0, 1500).await.answer().await;
    assert_eq!(answer.partition.next_filter_offset, 2);
    fixture.server.shutdown().await;

    // The same as a fault, while the server runs.
    let fixture = start().await;
    write_large(&fixture).await;
    let fault = Fault::from_json(r#"{"kind": "smart-module-overflow", "topic": "t"}"#).expect("a fault");
    let fault = fixture.server.inject(fault).expect("injected");
    Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 0, 100).await.assert_silent().await;
    fixture.server.clear(fault).expect("cleared");
    let answer = Stream::open_at(&fixture.unit, vec![ad_hoc("filter")], 0, 100).await.answer().await;
    assert_eq!(answer.partition.next_filter_offset, 2);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_batches_are_read_and_the_answer_is_compressed_as_the_first_was() {
    for codec in 1..=4 {
        let fixture = start().await;
        let mut connection = Raw::connect(&fixture.unit).await;
        let mut batch = Batch::from(FRUIT.map(Record::new).to_vec());
        batch.header.set_compression(Compression::try_from(codec).expect("a codec"));
        let mut bytes = Vec::new();
        Batch::<RawRecords>::try_from(batch).expect("compress").encode(&mut bytes, 0).expect("encode");
        assert!(produce(&mut connection, "t", &[&bytes]).await[0].0.is_ok());
        fixture.write(&["grape"]).await;
        let answer = Stream::open(&fixture.unit, vec![ad_hoc("filter")]).await.answer().await;
        assert_eq!(answer.values(), ["apple", "banana", "grape"]);
        assert_eq!(answer.batches[0].get_compression().expect("a codec") as i8, codec);
        fixture.server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_looks_back_on_what_it_asks_for() {
    let fixture = start().await;
    fixture.write(&["9", "5"]).await;
    fixture.write(&["1", "7"]).await;
    let long = Duration::from_secs(1_000_000_000);
    let cases = [
        (Lookback::last(0), &["9"][..]),
        (Lookback::last(1), &["9"]),                             // greater than 7
        (Lookback::last(3), &["9"]),                             // greater than 5, 1, 7
        (Lookback::last(4), &[]),                                // greater than 9
        (Lookback::last(1000), &[]),                             // as many as there are
        (Lookback::age(long, None), &[]),                        // all of them
        (Lookback::age(long, Some(3)), &["9"]),                  // three of them
        (Lookback::age(Duration::from_millis(1), None), &["9"]), // none is so young
        (Lookback::age(Duration::from_millis(1), Some(1000)), &["9"]), // none
    ];
    for (look_back, values) in cases {
        let module = looking_back(ad_hoc("look_back"), look_back.clone());
        let mut stream = Stream::open(&fixture.unit, vec![module]).await;
        match values {
            [] => stream.assert_silent().await,
            values => assert_eq!(stream.answer().await.values(), values, "{look_back:?}"),
        }
    }
    // Who does not ask sees nothing.
    let answer = Stream::open(&fixture.unit, vec![ad_hoc("look_back")]).await.answer().await;
    assert_eq!(answer.values(), ["9"]);
    fixture.server.shutdown().await;
}
