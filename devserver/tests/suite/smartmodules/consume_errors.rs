//! What a stream says when a module cannot be started or fails.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use fluvio_devserver::Config;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::smartmodule::SmartModuleKind;
use fluvio_smartmodule::dataplane::smartmodule::Lookback;
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocationWasm;

use super::support::{Stream, ad_hoc, invocation, looking_back, start, start_with, wasm};

/// Room for a module and not much more: 32 pages.
const MEMORY: usize = 32 * 65536;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_started_is_an_error_of_its_own_kind() {
    let fixture = start_with(Config { smart_module_memory: MEMORY, ..Config::default() }).await;
    fixture.write(&["apple"]).await;
    let init_error = |text: &str| ErrorCode::SmartModuleChainInitError(text.to_owned());
    let missing = "Missing param key\n\nSmartModule Init Error: \n";
    let plain = invocation(SmartModuleInvocationWasm::AdHoc(wasm("filter")));
    let cases = [
        (ad_hoc("no_kind.wat"), init_error("No valid smartmodule found")),
        (ad_hoc("filter_init"), init_error(missing)),
        (
            ad_hoc("greedy_init.wat"),
            ErrorCode::SmartModuleMemoryLimitExceeded {
                requested: (MEMORY + 65536) as u64,
                max: MEMORY as u64,
            },
        ),
        (plain, ErrorCode::SmartModuleInvalid { error: "invalid gzip header".to_owned(), name: None }),
    ];
    for (module, expected) in cases {
        let mut stream = Stream::open(&fixture.unit, vec![ad_hoc("filter"), module]).await;
        let answer = stream.answer().await;
        assert_eq!(answer.error(), &expected);
        assert_eq!((answer.values().len(), answer.partition.next_filter_offset), (0, 0));
        // That was all.
        stream.acknowledge(0).await;
        stream.assert_silent().await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_cannot_look_back_is_not_run() {
    let fixture = start().await;
    fixture.write(&["1", "no number"]).await;
    let module = looking_back(ad_hoc("look_back"), Lookback::last(2));
    let answer = Stream::open(&fixture.unit, vec![module]).await.answer().await;
    let expected = "the value is no number\n\nSmartModule Lookback Error: \n    \
                    Offset: 1\n    Key: NULL\n    Value: no number";
    assert_eq!(answer.error(), &ErrorCode::SmartModuleLookBackError(expected.to_owned()));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_traps_ends_its_stream() {
    let fixture = start_with(Config { smart_module_memory: MEMORY, ..Config::default() }).await;
    fixture.write(&["apple"]).await;
    let cases = [
        ("trap.wat", "SmartModule err error while executing at wasm backtrace:"),
        ("greedy.wat", "SmartModule err error while executing at wasm backtrace:"),
        ("refuse.wat", "SmartModule err failed to decode SmartModule record input"),
    ];
    for (module, expected) in cases {
        let mut stream = Stream::open(&fixture.unit, vec![ad_hoc(module)]).await;
        let answer = stream.answer().await;
        let code = answer.error();
        assert!(matches!(code, ErrorCode::Other(text) if text.starts_with(expected)), "{code:?}");
        fixture.write(&["apple"]).await;
        stream.acknowledge(1).await;
        stream.assert_silent().await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_module_comes_with_what_it_has_put_out_and_the_stream_goes_on() {
    let fixture = start().await;
    fixture.write(&["4"]).await;
    fixture.write(&["6", "six", "8"]).await;
    fixture.write(&["10"]).await;
    let mut stream = Stream::open(&fixture.unit, vec![ad_hoc("filter_map")]).await;
    let answer = stream.answer().await;
    let ErrorCode::SmartModuleRuntimeError(error) = answer.error() else {
        panic!("{:?}", answer.error());
    };
    assert_eq!((error.hint.as_str(), error.offset), ("the value is no number", 1));
    assert_eq!((&error.kind, error.record_value.as_ref()), (&SmartModuleKind::FilterMap, &b"six"[..]));
    assert_eq!(answer.values(), ["2", "3"]);
    assert_eq!(answer.partition.next_filter_offset, 4);
    stream.acknowledge(4).await;
    assert_eq!(stream.answer().await.values(), ["5"]);
    // With nothing before the error the client is told to go on at the end of what there is.
    fixture.write(&["seven", "8"]).await;
    stream.acknowledge(5).await;
    let answer = stream.answer().await;
    assert!(matches!(answer.error(), ErrorCode::SmartModuleRuntimeError(_)));
    assert_eq!((answer.values().len(), answer.partition.next_filter_offset), (0, 7));
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_request_cannot_fill_the_memory() {
    let fixture = start().await;
    fixture.write(&["apple"]).await;
    // 70 MB of nothing, in 300 kB.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![0; 70_000_000]).expect("compress");
    let bomb = SmartModuleInvocationWasm::AdHoc(bomb.finish().expect("compress"));
    let mut stream = Stream::open(&fixture.unit, vec![invocation(bomb)]).await;
    let answer = stream.answer().await;
    let code = answer.error();
    assert!(
        matches!(code, ErrorCode::SmartModuleInvalid { error, .. } if error.starts_with("more than ")),
        "{code:?}"
    );
    fixture.server.shutdown().await;
}
