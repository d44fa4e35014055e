//! Objects of every kind: what lists hold, what watchers are told, and in which order requests are checked.

use crate::common::admin::{all, changes, delete, list, named, put, update, watch_frame, watch_in_vain};
use crate::common::{Arrival, Raw, ask, batch_of, create, frame_of, produce, unit_of};
use fluvio_controlplane_metadata::partition::{HomePartitionConfig, PartitionSpec};
use fluvio_controlplane_metadata::smartmodule::{
    FluvioSemVersion, SmartModuleMetadata, SmartModulePackage, SmartModuleWasm,
};
use fluvio_controlplane_metadata::spg::SpuGroupSpec;
use fluvio_controlplane_metadata::spu::{CustomSpuKey, CustomSpuSpec, SpuSpec};
use fluvio_controlplane_metadata::topic::{
    AddMirror, AddPartition, CleanupPolicy, HomeMirrorConfig, MirrorConfig, PartitionMap, RemoteMirrorConfig,
    ReplicaSpec, SegmentBasedPolicy, TopicResolution, TopicSpec, UpdateTopicAction,
};
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::message::MsgType;
use fluvio_sc_schema::mirror::{Home, MirrorSpec, MirrorType, Remote};
use fluvio_sc_schema::objects::{
    CommonCreateRequest, CreateRequest, DeleteRequest, ListFilter, ListRequest, ObjectApiCreateRequest,
    ObjectApiDeleteRequest, ObjectApiUpdateRequest, UpdateRequest,
};
use fluvio_sc_schema::smartmodule::SmartModuleSpec;
use fluvio_sc_schema::tableformat::TableFormatSpec;
use fluvio_sc_schema::{Status, TryEncodableFrom};

async fn start() -> (Server, Raw) {
    let server = Server::start(Config::default()).await.expect("start");
    let controller = Raw::connect(&server.endpoint()).await;
    (server, controller)
}

fn smart_module(package: Option<(&str, &str, &str)>) -> SmartModuleSpec {
    let version = |text| FluvioSemVersion::parse(text).expect("a version");
    let meta = package.map(|(group, name, number)| SmartModuleMetadata {
        package: SmartModulePackage {
            name: name.to_owned(),
            group: group.to_owned(),
            version: version(number),
            api_version: version("0.1.0"),
            ..SmartModulePackage::default()
        },
        ..SmartModuleMetadata::default()
    });
    SmartModuleSpec {
        meta,
        wasm: SmartModuleWasm::from_raw_wasm_bytes(b"\0asm\x01\0\0\0").expect("bytes"),
        ..Default::default()
    }
}

fn remote() -> MirrorSpec {
    MirrorSpec { mirror_type: MirrorType::Remote(Remote { id: "edge".to_owned() }) }
}

fn home() -> MirrorSpec {
    let home = Home { id: "home".to_owned(), ..Home::default() };
    MirrorSpec { mirror_type: MirrorType::Home(home) }
}

/// A topic that gathers what the topics of other clusters have.
fn at_home(remotes: &[&str]) -> TopicSpec {
    let remotes = remotes.iter().map(|remote| (*remote).to_owned()).collect();
    TopicSpec::new_mirror(MirrorConfig::Home(HomeMirrorConfig::from_simple("gathered", remotes)))
}

async fn change(controller: &mut Raw, topic: &str, action: UpdateTopicAction) -> ErrorCode {
    let request = UpdateRequest::<TopicSpec>::new(topic.to_owned(), action);
    let request = ObjectApiUpdateRequest::try_encode_from(request, 19).expect("encode");
    ask(controller, request).await.error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_as_on_the_real_server() {
    let (server, mut controller) = start().await;
    for name in ["orders", "orders-eu", "logs"] {
        create(&mut controller, name, TopicSpec::new_computed(1, 1, None)).await;
        put(&mut controller, name, TableFormatSpec { name: name.to_owned(), ..Default::default() }).await;
        put(&mut controller, name, remote()).await;
        put(&mut controller, name, smart_module(None)).await;
    }
    put(&mut controller, "ignored", smart_module(Some(("acme", "orders", "1.2.0")))).await;
    // Most by a part of the name, one of several.
    assert_eq!(named::<TopicSpec>(&mut controller, &["rder"]).await, ["orders", "orders-eu"]);
    assert_eq!(named::<TopicSpec>(&mut controller, &["eu", "lo"]).await, ["logs", "orders-eu"]);
    assert_eq!(named::<TableFormatSpec>(&mut controller, &["rder"]).await, ["orders", "orders-eu"]);
    assert_eq!(named::<SpuSpec>(&mut controller, &["5001"]).await, ["custom-spu-5001"]);
    assert_eq!(named::<CustomSpuSpec>(&mut controller, &["nope"]).await, [""; 0]);
    assert_eq!(named::<SpuGroupSpec>(&mut controller, &[]).await, [""; 0]);
    // Partitions and mirrors not at all.
    assert_eq!(
        named::<PartitionSpec>(&mut controller, &["nope"]).await,
        ["logs-0", "orders-0", "orders-eu-0"]
    );
    assert_eq!(named::<MirrorSpec>(&mut controller, &["nope"]).await, ["logs", "orders", "orders-eu"]);
    // SmartModules by the whole name, with or without group and version.
    let package = "orders-acme-1.2.0";
    assert_eq!(named::<SmartModuleSpec>(&mut controller, &["orders"]).await, ["orders", package]);
    assert_eq!(named::<SmartModuleSpec>(&mut controller, &["acme/orders"]).await, ["orders", package]);
    assert_eq!(named::<SmartModuleSpec>(&mut controller, &["acme/orders@1.3.0"]).await, ["orders"]);
    assert_eq!(named::<SmartModuleSpec>(&mut controller, &["rder"]).await, [""; 0]);
    // A summary leaves the code out.
    for (summary, empty) in [(true, true), (false, false)] {
        let modules = list(
            &mut controller,
            ListRequest::<SmartModuleSpec>::new(vec![ListFilter::from("logs".to_owned())], summary),
        )
        .await;
        assert_eq!(modules[0].spec.wasm.payload.is_empty(), empty);
    }
    // What is the system's is apart from the rest.
    let system = ListRequest::<TopicSpec>::new(Vec::<ListFilter>::new(), false).system(true);
    let system: Vec<_> = list(&mut controller, system).await.into_iter().map(|topic| topic.name).collect();
    assert_eq!(system, ["consumer-offset"]);
    let system = ListRequest::<PartitionSpec>::new(Vec::<ListFilter>::new(), false).system(true);
    assert_eq!(list(&mut controller, system).await[0].name, "consumer-offset-0");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_told_of_every_kind_that_the_real_server_watches() {
    let (server, mut controller) = start().await;
    macro_rules! watched {
        ($($kind:ty: $known:expr, $name:expr, $put:expr, $gone:expr;)*) => {$(
            let mut watcher = Raw::connect(&server.endpoint()).await;
            watcher.send(&watch_frame::<$kind>(2)).await;
            let first = update::<$kind>(&mut watcher).await;
            let known: Vec<_> = first.all.iter().map(|object| object.name.as_str()).collect();
            assert_eq!((known, first.changes.len()), ($known, 0));
            assert!($put.await.error_code.is_ok());
            assert_eq!(changes::<$kind>(&mut watcher).await, [(MsgType::UPDATE, $name.to_owned())]);
            assert!($gone.await.error_code.is_ok());
            assert_eq!(changes::<$kind>(&mut watcher).await, [(MsgType::DELETE, $name.to_owned())]);
        )*};
    }
    let topic = || TopicSpec::new_computed(1, 1, None);
    let custom = || CustomSpuSpec { id: 7, ..CustomSpuSpec::default() };
    watched! {
        TopicSpec: vec!["consumer-offset"], "t", create(&mut controller, "t", topic()),
            delete::<TopicSpec>(&mut controller, "t".to_owned());
        PartitionSpec: vec!["consumer-offset-0"], "t-0", create(&mut controller, "t", topic()),
            delete::<TopicSpec>(&mut controller, "t".to_owned());
        SpuSpec: vec!["custom-spu-5001"], "mine", put(&mut controller, "mine", custom()),
            delete::<CustomSpuSpec>(&mut controller, CustomSpuKey::Id(7));
        SmartModuleSpec: vec![], "m", put(&mut controller, "m", smart_module(None)),
            delete::<SmartModuleSpec>(&mut controller, "m".to_owned());
        TableFormatSpec: vec![], "f", put(&mut controller, "f", TableFormatSpec::default()),
            delete::<TableFormatSpec>(&mut controller, "f".to_owned());
        SpuGroupSpec: vec![], "g",
            put(&mut controller, "g", SpuGroupSpec { replicas: 0, min_id: 0, ..SpuGroupSpec::default() }),
            delete::<SpuGroupSpec>(&mut controller, "g".to_owned());
    }
    assert_eq!(watch_in_vain::<MirrorSpec>(&server.endpoint()).await, Arrival::Closed);
    assert_eq!(watch_in_vain::<CustomSpuSpec>(&server.endpoint()).await, Arrival::Closed);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_errors_a_topic_has_the_one_that_the_real_server_finds_first() {
    let (server, mut controller) = start().await;
    create(&mut controller, "known", TopicSpec::new_computed(1, 1, None)).await;
    let short = |mut spec: TopicSpec| {
        spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy { time_in_seconds: 1 }));
        spec
    };
    let none = TopicSpec::new_computed(0, 1, None);
    let nowhere = TopicSpec::new_assigned(vec![(0, vec![9])]);
    for (name, spec, code) in [
        ("Known", short(none.clone()), ErrorCode::TopicInvalidName),
        ("known", short(none.clone()), ErrorCode::TopicAlreadyExists),
        ("new", short(none.clone()), ErrorCode::TopicInvalidConfiguration),
        ("new", none, ErrorCode::TopicError),
        ("new", TopicSpec::new_computed(1, 0, None), ErrorCode::TopicError),
        ("new", nowhere, ErrorCode::TopicError),
        ("new", TopicSpec::new_computed(1, 2, None), ErrorCode::TopicNotProvisioned),
    ] {
        assert_eq!(create(&mut controller, name, spec).await.error_code, code, "{name}");
    }
    // A dry run finds all but the last.
    let common = CommonCreateRequest { name: "dry".to_owned(), dry_run: true, ..Default::default() };
    let request = CreateRequest::new(common, TopicSpec::new_computed(1, 2, None));
    let request = ObjectApiCreateRequest::try_encode_from(request, 19).expect("encode");
    assert!(ask(&mut controller, request).await.error_code.is_ok());
    let topics = all::<TopicSpec>(&mut controller).await;
    let topics: Vec<_> = topics.iter().map(|topic| (topic.name.as_str(), &topic.status.resolution)).collect();
    let [short_of_spus, provisioned] = [TopicResolution::InsufficientResources, TopicResolution::Provisioned];
    assert_eq!(topics, [("known", &provisioned), ("new", &short_of_spus)]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_checked_as_on_the_real_server() {
    let (server, mut controller) = start().await;
    let controller = &mut controller;
    let is = |status: Status, code: ErrorCode| assert_eq!(status.error_code, code, "{status:?}");
    is(put(controller, "f", TableFormatSpec::default()).await, ErrorCode::None);
    is(put(controller, "f", TableFormatSpec::default()).await, ErrorCode::TableFormatAlreadyExists);
    is(delete::<TableFormatSpec>(controller, "f".to_owned()).await, ErrorCode::None);
    is(delete::<TableFormatSpec>(controller, "f".to_owned()).await, ErrorCode::TableFormatNotFound);
    // An upload replaces what is there; the package gives the name, by which it is deleted.
    is(put(controller, "m", smart_module(None)).await, ErrorCode::None);
    is(put(controller, "m", smart_module(None)).await, ErrorCode::None);
    let stored = put(controller, "m", smart_module(Some(("acme", "m", "0.1.0")))).await;
    assert_eq!((stored.name.as_str(), stored.error_code), ("m-acme-0.1.0", ErrorCode::None));
    is(put(controller, "m", smart_module(Some(("", "", "0.1.0")))).await, ErrorCode::SmartModuleError);
    is(delete::<SmartModuleSpec>(controller, "acme/m@0.1.0".to_owned()).await, ErrorCode::None);
    let missing = ErrorCode::SmartModuleNotFound { name: "acme/m@0.1.0".to_owned() };
    is(delete::<SmartModuleSpec>(controller, "acme/m@0.1.0".to_owned()).await, missing);
    // A remote is registered once, a home again and again.
    is(put(controller, "remote", remote()).await, ErrorCode::None);
    is(put(controller, "remote", home()).await, ErrorCode::MirrorAlreadyExists);
    is(put(controller, "home", home()).await, ErrorCode::None);
    is(put(controller, "home", home()).await, ErrorCode::None);
    is(delete::<MirrorSpec>(controller, "home".to_owned()).await, ErrorCode::None);
    is(delete::<MirrorSpec>(controller, "home".to_owned()).await, ErrorCode::MirrorNotFound);
    // Objects of a kind that does not exist.
    let request = DeleteRequest::<TopicSpec>::new("x".to_owned());
    let request = ObjectApiDeleteRequest::try_encode_from(request, 19).expect("encode");
    let mut frame = frame_of(request);
    let label = frame.windows(5).position(|bytes| bytes == b"Topic").expect("the label");
    frame[label..label + 5].copy_from_slice(b"Tepid");
    controller.send(&frame).await;
    let status: Status =
        fluvio_protocol::Decoder::decode_from(&mut &controller.receive().await[8..], 19).expect("a status");
    is(status, ErrorCode::Other("unknown admin object type".to_owned()));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_spu_is_online_once_its_process_is_there() {
    let (server, mut controller) = start().await;
    let register = |id| CustomSpuSpec { id, ..CustomSpuSpec::default() };
    assert!(put(&mut controller, "mine", register(7)).await.error_code.is_ok());
    for (name, id) in [("mine", 8), ("other", 7), ("other", 5001)] {
        let status = put(&mut controller, name, register(id)).await;
        assert_eq!(status.error_code, ErrorCode::SpuAlreadyExists);
    }
    // The one that runs can be unregistered, goes on, and is found when it is registered again.
    let key = || CustomSpuKey::Name("custom-spu-5001".to_owned());
    let mut unit = Raw::connect(&unit_of(&mut controller).await).await;
    assert!(delete::<CustomSpuSpec>(&mut controller, key()).await.error_code.is_ok());
    assert_eq!(delete::<CustomSpuSpec>(&mut controller, key()).await.error_code, ErrorCode::SpuNotFound);
    produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await;
    assert!(put(&mut controller, "again", register(5001)).await.error_code.is_ok());
    let spus = all::<SpuSpec>(&mut controller).await;
    let spus: Vec<_> =
        spus.iter().map(|spu| (spu.name.as_str(), spu.status.is_online(), spu.status.is_init())).collect();
    assert_eq!(spus, [("again", true, false), ("mine", false, true)]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_and_deleted_with_their_topic() {
    let (server, mut controller) = start().await;
    create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    let add = |count| UpdateTopicAction::AddPartition(AddPartition { count });
    assert_eq!(change(&mut controller, "t", add(2)).await, ErrorCode::None);
    assert_eq!(named::<PartitionSpec>(&mut controller, &[]).await, ["t-0", "t-1", "t-2"]);
    let topic = all::<TopicSpec>(&mut controller).await.remove(0);
    assert_eq!((topic.spec.partitions(), topic.status.replica_map.len()), (3, 3));
    assert_eq!(change(&mut controller, "nope", add(1)).await, ErrorCode::TopicNotFound);
    assert!(delete::<TopicSpec>(&mut controller, "t".to_owned()).await.error_code.is_ok());
    assert_eq!(named::<PartitionSpec>(&mut controller, &[]).await, [""; 0]);
    // The system's is deleted by force only.
    let system = DeleteRequest::<TopicSpec>::with("consumer-offset".to_owned(), true);
    let system = ObjectApiDeleteRequest::try_encode_from(system, 19).expect("encode");
    assert!(ask(&mut controller, system).await.error_code.is_ok());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirror_topics_have_partitions_that_clients_only_read() {
    let (server, mut controller) = start().await;
    for name in ["edge-0", "edge-1"] {
        put(&mut controller, name, remote()).await;
    }
    put(&mut controller, "home", home()).await;
    create(&mut controller, "plain", TopicSpec::new_computed(1, 1, None)).await;
    assert!(create(&mut controller, "gathered", at_home(&["edge-0"])).await.error_code.is_ok());
    let add = |remote: &str| {
        UpdateTopicAction::AddMirror(AddMirror { remote_cluster: remote.to_owned(), home_to_mirror: false })
    };
    for (topic, remote, code) in [
        ("nope", "nope", ErrorCode::TopicNotFound),
        ("plain", "nope", ErrorCode::MirrorNotFound),
        ("plain", "home", ErrorCode::MirrorInvalidType),
        ("plain", "edge-0", ErrorCode::TopicError),
        ("gathered", "edge-0", ErrorCode::MirrorAlreadyExists),
        ("gathered", "edge-1", ErrorCode::None),
    ] {
        assert_eq!(change(&mut controller, topic, add(remote)).await, code, "{topic} {remote}");
    }
    let partitions = all::<PartitionSpec>(&mut controller).await;
    let home: Vec<_> =
        partitions[..2].iter().map(|partition| partition.spec.mirror.clone().expect("a mirror")).collect();
    let from = |remote: &str| HomePartitionConfig {
        remote_cluster: remote.to_owned(),
        remote_replica: "gathered-0".to_owned(),
        source: false,
    };
    assert_eq!(
        home.iter().map(|mirror| mirror.home().expect("home")).collect::<Vec<_>>(),
        [&from("edge-0"), &from("edge-1")]
    );
    let mut unit = Raw::connect(&unit_of(&mut controller).await).await;
    let results = produce(&mut unit, "gathered", &[&batch_of(b"x", 1)]).await;
    assert_eq!(results, [(ErrorCode::MirrorProduceFromHome, 0)]);
    // The other side's topic is deleted at home.
    let remote = RemoteMirrorConfig { home_cluster: "home".to_owned(), ..Default::default() };
    let status =
        create(&mut controller, "scattered", TopicSpec::new_mirror(MirrorConfig::Remote(remote))).await;
    assert!(status.error_code.is_ok());
    let status = delete::<TopicSpec>(&mut controller, "scattered".to_owned()).await;
    assert_eq!(status.error_code, ErrorCode::MirrorDeleteFromRemote);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assigned_replicas_are_where_they_were_assigned() {
    let server = Server::start(Config { spus: 3, ..Config::default() }).await.expect("start");
    let mut controller = Raw::connect(&server.endpoint()).await;
    let map = |id, replicas: &[i32]| PartitionMap { id, replicas: replicas.to_vec(), mirror: None };
    let assigned = |maps: Vec<PartitionMap>| {
        let mut spec = TopicSpec::default();
        spec.set_replicas(ReplicaSpec::Assigned(maps.into()));
        spec
    };
    for (wrong, text) in [
        (vec![], "no assigned partitions found"),
        (vec![map(1, &[5001])], "must start with id 0"),
        (vec![map(0, &[5001]), map(2, &[5001])], "in sequence"),
        (vec![map(0, &[])], "at least one spu id"),
        (vec![map(0, &[5001, 5001])], "duplicate spu ids"),
        (vec![map(0, &[5001]), map(1, &[5001, 5002])], "same number"),
        (vec![map(0, &[77])], "invalid spu id: 77"),
    ] {
        let status = create(&mut controller, "t", assigned(wrong)).await;
        let message = status.error_message.unwrap_or_default();
        assert!(status.error_code == ErrorCode::TopicError && message.contains(text), "{message}");
    }
    let status =
        create(&mut controller, "t", assigned(vec![map(0, &[5003, 5001]), map(1, &[5002, 5003])])).await;
    assert!(status.error_code.is_ok());
    let partitions = all::<PartitionSpec>(&mut controller).await;
    let held: Vec<_> =
        partitions.into_iter().map(|partition| (partition.spec.leader, partition.spec.replicas)).collect();
    assert_eq!(held, [(5003, vec![5003, 5001]), (5002, vec![5002, 5003])]);
    // An SPU that is away has its partitions wait for it.
    server.stop_spu(5002).await.expect("stop");
    let status = create(&mut controller, "late", assigned(vec![map(0, &[5001]), map(1, &[5002])])).await;
    assert_eq!(status.error_code, ErrorCode::TopicNotProvisioned);
    assert_eq!(status.error_message.as_deref(), Some("only 1 out of 2 provisioned"));
    server.start_spu(5002).await.expect("start");
    let online = all::<PartitionSpec>(&mut controller).await;
    assert!(online.iter().all(|partition| partition.status.is_online()));
    server.shutdown().await;
}
