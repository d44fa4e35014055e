//! A server that was built without the engine says so: `cargo test --no-default-features`.

use crate::common::{Raw, ask, create, frame_of, unit_of};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::Decoder;
use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::produce::{DefaultProduceRequest, PartitionProduceData, TopicProduceData};
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, StreamFetchResponse};

#[tokio::test]
async fn smart_modules_are_refused() {
    let server = Server::start(Config::default()).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    assert!(create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await.error_code.is_ok());
    let mut unit = Raw::connect(&unit_of(&mut controller).await).await;
    let module = |wasm| vec![SmartModuleInvocation { wasm, ..SmartModuleInvocation::default() }];
    let ad_hoc = || SmartModuleInvocationWasm::adhoc_from_bytes(b"any").expect("compress");
    let named = || SmartModuleInvocationWasm::Predefined("nope".to_owned());
    let is_refused = |code: &ErrorCode| {
        let text = "built without the smartengine feature: ";
        matches!(code, ErrorCode::SmartModuleChainInitError(message) if message.starts_with(text))
    };
    let is_unknown =
        |code: &ErrorCode| matches!(code, ErrorCode::SmartModuleNotFound { name } if name == "nope");

    let mut fetch = async |wasm| {
        let mut request = DefaultStreamFetchRequest::builder();
        request.topic("t".to_owned()).smartmodules(module(wasm));
        unit.send(&frame_of(request.build().expect("a request"))).await;
        let answer = unit.receive().await;
        let answer = StreamFetchResponse::<i32>::decode_from(&mut &answer[8..], 25).expect("an answer");
        answer.partition.error_code
    };
    let code = fetch(ad_hoc()).await;
    assert!(is_refused(&code), "{code:?}");
    let code = fetch(named()).await;
    assert!(is_unknown(&code), "{code:?}");

    let mut produce = async |wasm| {
        let mut topic = TopicProduceData { name: "t".to_owned(), ..TopicProduceData::default() };
        topic.partitions.push(PartitionProduceData::default());
        let mut request =
            DefaultProduceRequest { smartmodules: module(wasm), ..DefaultProduceRequest::default() };
        request.topics.push(topic);
        let answer = ask(&mut unit, request).await;
        answer.responses[0].partitions[0].error_code.clone()
    };
    let code = produce(ad_hoc()).await;
    assert!(is_refused(&code), "{code:?}");
    let code = produce(named()).await;
    assert!(is_unknown(&code), "{code:?}");
    server.shutdown().await;
}
