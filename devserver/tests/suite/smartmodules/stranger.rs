//! A client that others wrote, the `fluvio` crate's own, with SmartModules on both sides.

use std::time::Duration;

use fluvio::consumer::ConsumerConfigExt;
use fluvio::metadata::smartmodule::{SmartModuleSpec, SmartModuleWasm};
use fluvio::{Fluvio, FluvioClusterConfig, Offset, RecordKey, TopicProducerConfigBuilder};
use fluvio_protocol::ByteBuf;
use fluvio_spu_schema::server::smartmodule::{SmartModuleInvocation, SmartModuleInvocationWasm};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::support::{accumulating, ad_hoc, named, start, with_param};

const SOON: Duration = Duration::from_secs(30);

async fn produce(client: &Fluvio, modules: Vec<SmartModuleInvocation>, values: &[&str]) {
    let config = TopicProducerConfigBuilder::default().smartmodules(modules).build().expect("configuration");
    let producer = client.topic_producer_with_config("t", config).await.expect("a producer");
    for value in values {
        let sent = producer.send(RecordKey::NULL, *value).await.expect("send");
        producer.flush().await.expect("flush");
        timeout(SOON, sent.wait()).await.expect("in time").expect("an acknowledgement");
    }
}

async fn consume(client: &Fluvio, modules: Vec<SmartModuleInvocation>, count: usize) -> Vec<String> {
    let config = ConsumerConfigExt::builder()
        .topic("t")
        .partition(0)
        .offset_start(Offset::beginning())
        .smartmodule(modules)
        .build()
        .expect("configuration");
    let records = client.consumer_with_config(config).await.expect("a consumer");
    let values = records.take(count).map(|record| {
        let record = record.expect("a record");
        String::from_utf8_lossy(record.value()).into_owned()
    });
    timeout(SOON, values.collect()).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crates_client_filters_maps_and_adds_up() {
    let fixture = start().await;
    let config = FluvioClusterConfig::new(fixture.server.endpoint());
    let client = Fluvio::connect_with_config(&config).await.expect("connect");
    let SmartModuleInvocationWasm::AdHoc(packed) = ad_hoc("map").wasm else { unreachable!() };
    let wasm = SmartModuleWasm { payload: ByteBuf::from(packed), ..SmartModuleWasm::default() };
    let spec = SmartModuleSpec { wasm, ..SmartModuleSpec::default() };
    let admin = client.admin().await;
    admin.create("capitals".to_owned(), false, spec).await.expect("an upload");

    produce(&client, vec![ad_hoc("filter")], &["apple", "berry", "banana", "plum", "grape"]).await;
    assert_eq!(consume(&client, Vec::new(), 3).await, ["apple", "banana", "grape"]);
    assert_eq!(consume(&client, vec![named("capitals")], 3).await, ["APPLE", "BANANA", "GRAPE"]);
    let chain = vec![with_param(ad_hoc("filter_init"), "key", "an"), named("capitals")];
    assert_eq!(consume(&client, chain, 1).await, ["BANANA"]);

    produce(&client, Vec::new(), &["1,2", "3"]).await;
    let chain = vec![
        with_param(ad_hoc("filter_init"), "key", ""),
        ad_hoc("array_map"),
        with_param(ad_hoc("filter_init"), "key", "3"),
        accumulating(ad_hoc("aggregate"), "40"),
    ];
    assert_eq!(consume(&client, chain, 1).await, ["43"]);
    fixture.server.shutdown().await;
}
