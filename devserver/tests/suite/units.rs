//! SPUs that come and go with SPU groups, and what SPUs announce.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use crate::common::admin::{all, delete, put};
use crate::common::{Arrival, Raw, SOON, batch_of, create, produce, unit_of};
use fluvio_controlplane_metadata::partition::{PartitionResolution, PartitionSpec};
use fluvio_controlplane_metadata::spg::{SpuGroupSpec, SpuGroupStatusResolution};
use fluvio_controlplane_metadata::spu::{CustomSpuKey, CustomSpuSpec, SpuSpec};
use fluvio_controlplane_metadata::topic::{TopicResolution, TopicSpec};
use fluvio_devserver::{Config, Server};
use fluvio_protocol::link::ErrorCode;
use rand::Rng;
use tempfile::TempDir;

async fn start(config: Config) -> (Server, Raw) {
    let server = Server::start(config).await.expect("start");
    let controller = Raw::connect(&server.endpoint()).await;
    (server, controller)
}

fn group(min_id: i32, replicas: u16) -> SpuGroupSpec {
    SpuGroupSpec { min_id, replicas, ..SpuGroupSpec::default() }
}

/// The first of so many free ports in a row, below those that the system gives to whoever asks for any.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = rand::rng().random_range(10_000..30_000);
        let bound = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + count).all(bound) {
            return first;
        }
    }
}

/// Ids and names of the SPUs that are online.
async fn online(controller: &mut Raw) -> Vec<(i32, String)> {
    let spus = all::<SpuSpec>(controller).await;
    let mut online: Vec<_> =
        spus.into_iter().filter(|spu| spu.status.is_online()).map(|spu| (spu.spec.id, spu.name)).collect();
    online.sort();
    online
}

async fn address_of(controller: &mut Raw, id: i32) -> String {
    let spus = all::<SpuSpec>(controller).await;
    spus.iter().find(|spu| spu.spec.id == id).expect("the SPU").spec.public_endpoint.addr()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_starts_its_spus_and_takes_them_away() {
    let (server, mut controller) = start(Config::default()).await;
    // It waits for SPUs, and gets its partitions with them.
    let status = create(&mut controller, "wide", TopicSpec::new_computed(2, 3, None)).await;
    assert_eq!(status.error_code, ErrorCode::TopicNotProvisioned);
    assert!(put(&mut controller, "g", group(10, 2)).await.error_code.is_ok());
    let known = [(10, "g-0".to_owned()), (11, "g-1".to_owned()), (5001, "custom-spu-5001".to_owned())];
    assert_eq!(online(&mut controller).await, known);
    let topics = all::<TopicSpec>(&mut controller).await;
    assert_eq!(topics[0].status.resolution, TopicResolution::Provisioned);
    assert_eq!(topics[0].status.replica_map[&0], [10, 11, 5001]);

    let on_group = TopicSpec::new_assigned(vec![(0, vec![11])]);
    assert!(create(&mut controller, "t", on_group).await.error_code.is_ok());
    let mut unit = Raw::connect(&address_of(&mut controller, 11).await).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await, [(ErrorCode::None, 0)]);
    let status = delete::<CustomSpuSpec>(&mut controller, CustomSpuKey::Id(11)).await;
    assert_eq!(status.error_code, ErrorCode::SpuError);
    assert_eq!(status.error_message.as_deref(), Some("expected 'Custom' spu, found 'Managed' spu"));

    // Smaller, then larger again: the same partition is where it was.
    assert!(put(&mut controller, "g", group(10, 1)).await.error_code.is_ok());
    assert_eq!(unit.receive_within(SOON).await, Arrival::Closed);
    assert_eq!(online(&mut controller).await.len(), 2);
    assert!(put(&mut controller, "g", group(10, 2)).await.error_code.is_ok());
    let mut unit = Raw::connect(&address_of(&mut controller, 11).await).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await, [(ErrorCode::None, 1)]);

    assert!(delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await.error_code.is_ok());
    assert_eq!(unit.receive_within(SOON).await, Arrival::Closed);
    assert_eq!(online(&mut controller).await, known[2..]);
    assert_eq!(all::<SpuGroupSpec>(&mut controller).await.len(), 0);
    let partitions = all::<PartitionSpec>(&mut controller).await;
    let states: Vec<_> = partitions
        .into_iter()
        .map(|partition| (partition.spec.leader, partition.status.resolution))
        .collect();
    let (gone, there) = (PartitionResolution::LeaderOffline, PartitionResolution::Online);
    assert_eq!(states, [(11, gone), (5001, there.clone()), (5001, there)]);
    let status = delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await;
    assert_eq!(status.error_code, ErrorCode::SpuNotFound);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_and_what_its_spus_lead_outlive_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let config = Config { data_dir: Some(directory.path().to_owned()), ..Config::default() };
    let (server, mut controller) = start(config.clone()).await;
    assert!(put(&mut controller, "g", group(10, 2)).await.error_code.is_ok());
    // Its ids are taken: it is known, and has no SPUs.
    assert!(put(&mut controller, "h", group(11, 1)).await.error_code.is_ok());
    let on_group = TopicSpec::new_assigned(vec![(0, vec![11])]);
    assert!(create(&mut controller, "t", on_group).await.error_code.is_ok());
    let known = online(&mut controller).await;
    assert_eq!(known.len(), 3);
    let mut unit = Raw::connect(&address_of(&mut controller, 11).await).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await, [(ErrorCode::None, 0)]);
    server.shutdown().await;

    let (server, mut controller) = start(config).await;
    assert_eq!(online(&mut controller).await, known);
    let resolutions: Vec<_> = all::<SpuGroupSpec>(&mut controller)
        .await
        .into_iter()
        .map(|group| (group.name, group.status.resolution))
        .collect();
    let expected = [
        ("g".to_owned(), SpuGroupStatusResolution::Reserved),
        ("h".to_owned(), SpuGroupStatusResolution::Invalid),
    ];
    assert_eq!(resolutions, expected);
    let mut unit = Raw::connect(&address_of(&mut controller, 11).await).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"y", 1)]).await, [(ErrorCode::None, 1)]);
    assert!(delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await.error_code.is_ok());
    assert_eq!(unit.receive_within(SOON).await, Arrival::Closed);
    assert_eq!(online(&mut controller).await, known[2..]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_ids_are_taken_is_invalid() {
    let (server, mut controller) = start(Config::default()).await;
    // As on the real server, creation succeeds.
    assert!(put(&mut controller, "g", group(5000, 2)).await.error_code.is_ok());
    let groups = all::<SpuGroupSpec>(&mut controller).await;
    assert_eq!(groups[0].status.resolution, SpuGroupStatusResolution::Invalid);
    assert_eq!(groups[0].status.reason.as_deref(), Some("conflict with: 5001"));
    assert_eq!(online(&mut controller).await.len(), 1);
    assert!(delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await.error_code.is_ok());
    assert_eq!(online(&mut controller).await.len(), 1);
    for (min_id, replicas) in [(i32::MAX, 2), (-1, 1), (1, 5000)] {
        let status = put(&mut controller, "g", group(min_id, replicas)).await;
        assert_eq!(status.error_code, ErrorCode::SpuError);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_ports_are_taken_is_refused_and_keeps_no_server_from_starting() {
    let directory = TempDir::new().expect("a directory");
    let first = free_ports(3);
    let config =
        Config { data_dir: Some(directory.path().to_owned()), spu_port: Some(first), ..Config::default() };
    let take = |behind| TcpListener::bind((Ipv4Addr::LOCALHOST, first + behind)).expect("still free");
    let (server, mut controller) = start(config.clone()).await;
    let taken = take(2);
    let status = put(&mut controller, "g", group(10, 2)).await;
    assert_eq!(status.error_code, ErrorCode::SpuError);
    let message = status.error_message.expect("a message");
    assert!(message.starts_with("SPU 11 cannot listen: "), "{message}");
    assert_eq!(all::<SpuGroupSpec>(&mut controller).await.len(), 0);
    assert_eq!(online(&mut controller).await.len(), 1);
    // The other port is free again.
    drop(take(1));
    drop(taken);
    assert!(put(&mut controller, "g", group(10, 2)).await.error_code.is_ok());
    assert_eq!(online(&mut controller).await.len(), 3);
    drop(controller);
    server.shutdown().await;

    let taken = take(1);
    let (server, mut controller) = start(config).await;
    assert_eq!(online(&mut controller).await, [(5001, "custom-spu-5001".to_owned())]);
    assert_eq!(all::<SpuSpec>(&mut controller).await.len(), 3);
    drop(taken);
    // Created anew, it gets its SPUs.
    assert!(delete::<SpuGroupSpec>(&mut controller, "g".to_owned()).await.error_code.is_ok());
    assert!(put(&mut controller, "g", group(10, 2)).await.error_code.is_ok());
    assert_eq!(online(&mut controller).await.len(), 3);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spus_announce_what_they_are_told_to() {
    let port = free_ports(1);
    let config = |advertise: &str| Config {
        advertise: Some(advertise.to_owned()),
        spu_port: Some(port),
        ..Config::default()
    };
    for (host, announced) in [("build.example", "build.example"), ("::1", "[::1]"), ("10.0.0.9", "10.0.0.9")]
    {
        let (server, mut controller) = start(config(host)).await;
        assert_eq!(unit_of(&mut controller).await, format!("{announced}:{port}"));
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spus_on_all_interfaces_announce_one_that_can_be_reached() {
    let (server, mut controller) =
        start(Config { listen: "0.0.0.0:0".to_owned(), ..Config::default() }).await;
    create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    let announced = unit_of(&mut controller).await;
    assert!(!announced.starts_with("0.0.0.0"), "{announced}");
    let mut unit = Raw::connect(&announced).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await, [(ErrorCode::None, 0)]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listens_on_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let (server, mut controller) = start(Config { listen: "[::1]:0".to_owned(), ..Config::default() }).await;
    create(&mut controller, "t", TopicSpec::new_computed(1, 1, None)).await;
    let announced = unit_of(&mut controller).await;
    assert!(announced.starts_with("[::1]:"), "{announced}");
    let mut unit = Raw::connect(&announced).await;
    assert_eq!(produce(&mut unit, "t", &[&batch_of(b"x", 1)]).await, [(ErrorCode::None, 0)]);
    server.shutdown().await;
}
