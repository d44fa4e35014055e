//! The counters: what clients have asked for, by plane and kind, and what is open.

use std::time::Duration;

use crate::common::fixture::{Fixture, open};
use crate::common::{Raw, ask, batch_of, create, produce, produce_frame};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::PlaneCounters;
use fluvio_protocol::link::versions::ApiVersionsRequest;
use fluvio_spu_schema::Isolation;

/// Waits until the counters of the SPU are as they should be.
async fn eventually(fixture: &Fixture, are_so: impl Fn(&PlaneCounters) -> bool) {
    let waiting = async {
        while !are_so(&fixture.server.counters().spus[&5001]) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let counters = || fixture.server.counters();
    assert!(tokio::time::timeout(crate::common::SOON, waiting).await.is_ok(), "{:#?}", counters());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_plane_and_kind_and_bytes_in_both_directions() {
    let mut fixture = Fixture::new().await;
    let before = fixture.server.counters();
    // The fixture has created its topic and asked for the SPU.
    assert_eq!((before.controller.requests_of("create"), before.controller.requests_of("list")), (1, 1));
    assert_eq!(before.controller.all_requests(), 2);
    assert!(before.spus.get(&5001).is_none_or(|spu| spu.requests.is_empty()), "{before:#?}");

    let batch = batch_of(b"value", 10);
    for _ in 0..3 {
        produce(&mut fixture.unit, "t", &[&batch]).await;
    }
    ask(&mut fixture.unit, ApiVersionsRequest::default()).await;
    create(&mut fixture.controller, "u", TopicSpec::new_computed(1, 1, None)).await;
    // One that this server does not know: it closes the connection, and is counted by its key.
    let mut stranger = fixture.unit().await;
    stranger.send(b"\0\0\0\x0a\x12\x34\0\0\0\0\0\x01\0\0").await;
    eventually(&fixture, |spu| spu.requests_of("key-4660") == 1).await;

    let after = fixture.server.counters();
    let spu = &after.spus[&5001];
    assert_eq!((spu.requests_of("produce"), spu.requests_of("api-versions")), (3, 1));
    assert_eq!(after.controller.requests_of("create"), 2);
    let sent = 3 * produce_frame("t", &[&batch]).len() as u64;
    assert!((sent..sent + 100).contains(&spu.received_bytes), "{sent}: {spu:#?}");
    assert!(spu.sent_bytes > 100 && after.controller.sent_bytes > before.controller.sent_bytes, "{after:#?}");
    assert_eq!(after.spu_total(), *spu);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_is_counted_until_it_ends() {
    let mut fixture = Fixture::new().await;
    open(&mut fixture.unit, Isolation::ReadUncommitted, 1024).await;
    open(&mut fixture.unit, Isolation::ReadUncommitted, 1024).await;
    let mut other = fixture.unit().await;
    open(&mut other, Isolation::ReadUncommitted, 1024).await;
    eventually(&fixture, |spu| (spu.connections_open, spu.streams_open) == (2, 3)).await;
    drop(other);
    eventually(&fixture, |spu| (spu.connections_open, spu.streams_open) == (1, 2)).await;
    // Taken away, the SPU closes what is open, and counts on when it is back.
    fixture.server.stop_spu(5001).await.expect("stop");
    eventually(&fixture, |spu| (spu.connections_open, spu.streams_open) == (0, 0)).await;
    fixture.server.start_spu(5001).await.expect("start");
    let _again = Raw::connect(&fixture.unit_address).await;
    eventually(&fixture, |spu| (spu.connections_open, spu.connections_opened) == (1, 3)).await;
    assert_eq!(fixture.server.counters().spus[&5001].streams_opened, 3);
    assert_eq!(fixture.server.counters().controller.connections_open, 1);
    fixture.server.shutdown().await;
}
