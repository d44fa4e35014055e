//! A server that is far away: every answer takes longer, and as much passes as without.

use std::time::{Duration, Instant};

use crate::common::fixture::Fixture;
use crate::common::{Arrival, Raw, SOON, ask, batch_of, frame_of, produce, produce_frame};
use fluvio_devserver::Config;
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::link::versions::ApiVersionsRequest;
use fluvio_spu_schema::Isolation;

const LATENCY: Duration = Duration::from_millis(200);

async fn far_away() -> Fixture {
    Fixture::with(Config { latency: LATENCY, ..Config::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_takes_longer_and_many_on_their_way_no_longer_than_one() {
    const COUNT: u32 = 50;
    let mut fixture = far_away().await;
    let started = Instant::now();
    ask(&mut fixture.unit, ApiVersionsRequest::default()).await;
    assert!(started.elapsed() >= LATENCY, "{:?}", started.elapsed());

    let batch = batch_of(&[b'x'; 1000], 100);
    let started = Instant::now();
    for _ in 0..COUNT {
        fixture.unit.send(&produce_frame("t", &[&batch])).await;
    }
    for _ in 0..COUNT {
        fixture.unit.receive().await;
    }
    assert!(started.elapsed() >= LATENCY, "{:?}", started.elapsed());
    assert!(started.elapsed() < LATENCY * COUNT / 2, "{:?}", started.elapsed());
    // All of it has arrived, in order.
    assert_eq!(produce(&mut fixture.unit, "t", &[&batch]).await, [(ErrorCode::None, i64::from(COUNT) * 100)]);
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_record_needs_half_of_it() {
    let mut fixture = far_away().await;
    let mut reader = fixture.unit().await;
    crate::common::fixture::open(&mut reader, Isolation::ReadUncommitted, 1024).await;
    ask(&mut fixture.unit, ApiVersionsRequest::default()).await;
    let started = Instant::now();
    produce(&mut fixture.unit, "t", &[&batch_of(b"live", 1)]).await;
    let acknowledged = started.elapsed();
    reader.receive().await;
    // It came as the acknowledgement did: both are on their way at the same time.
    assert!(started.elapsed() < acknowledged + LATENCY, "{:?}, {acknowledged:?}", started.elapsed());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_connection_arrives_behind_everything_else() {
    let fixture = far_away().await;
    // Both are on their way when the server finds the second one unreadable and closes.
    let mut client = Raw::connect(&fixture.unit_address).await;
    client.send(&frame_of(ApiVersionsRequest::default())).await;
    client.send(b"\0\0\0\x0a\x12\x34\0\0\0\0\0\x01\0\0").await;
    client.receive().await;
    assert_eq!(client.receive_within(SOON).await, Arrival::Closed);
    // And the server notices that of a client.
    drop(fixture.unit);
    let open = || fixture.server.counters().spus[&5001].connections_open;
    let closing = async {
        while open() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, closing).await.expect("closed");
    fixture.server.shutdown().await;
}
