//! Faults of single connections, seen frame by frame and byte by byte: requests, answers, closed and silent connections.

use std::time::{Duration, Instant};

use crate::common::fixture::{Fixture, open, stream_answer};
use crate::common::{Arrival, Raw, SOON, batch_of, create_frame, frame_of, produce, produce_frame};
use bytes::Bytes;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::Fault;
use fluvio_protocol::link::ErrorCode;
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{ObjectApiWatchRequest, WatchRequest};
use fluvio_spu_schema::Isolation::ReadUncommitted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a connection that must stay silent is listened to.
const SILENCE: Duration = Duration::from_millis(200);
/// A fault that touches nobody.
const UNRELATED: &str = r#"{"kind": "delay", "request": "update"}"#;

fn batch() -> Bytes {
    batch_of(b"value", 1)
}

async fn produces(unit: &mut Raw, offset: i64) {
    assert_eq!(produce(unit, "t", &[&batch()]).await, [(ErrorCode::None, offset)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_holds_one_kind_of_request_until_it_is_cleared() {
    let mut fixture = Fixture::new().await;
    let fault = fixture.fault(r#"{"kind": "delay", "request": "produce", "plane": "spu"}"#);
    fixture.unit.send(&produce_frame("t", &[&batch()])).await;
    assert_eq!(fixture.unit.receive_within(SILENCE).await, Arrival::Nothing);
    // It is not handled either: nothing can be read on another connection, whose requests are answered.
    let mut other = fixture.unit().await;
    open(&mut other, ReadUncommitted, 1 << 20).await;
    assert_eq!(other.receive_within(SILENCE).await, Arrival::Nothing);
    fixture.clear(fault);
    fixture.unit.receive().await;
    assert!(!stream_answer(&other.receive().await).1.is_empty());
    produces(&mut fixture.unit, 1).await;
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_has_a_length_and_a_count() {
    let mut fixture = Fixture::new().await;
    for when in ["before", "after"] {
        let fault = format!(r#"{{"kind": "delay", "when": "{when}", "seconds": 0.2, "count": 1}}"#);
        fixture.fault(&fault);
        let started = Instant::now();
        let offset = if when == "before" { 0 } else { 2 };
        produces(&mut fixture.unit, offset).await;
        assert!(started.elapsed() >= Duration::from_millis(200), "{when}");
        let left: Vec<_> = fixture.server.faults().into_iter().map(|fault| fault.left).collect();
        assert_eq!(left, [Some(0)], "{when}");
        produces(&mut fixture.unit, offset + 1).await;
        assert_eq!(fixture.server.clear_faults(), 1);
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_answers_keep_their_order_and_hold_up_no_stream() {
    let mut fixture = Fixture::new().await;
    open(&mut fixture.unit, ReadUncommitted, 1 << 20).await;
    let fault = fixture.fault(r#"{"kind": "delay", "request": "produce", "when": "after", "count": 1}"#);
    let mut frame = produce_frame("t", &[&batch()]);
    frame[8..12].copy_from_slice(&2_i32.to_be_bytes());
    fixture.unit.send(&frame).await;
    // The stream has the record although its producer is not told yet.
    assert!(!stream_answer(&fixture.unit.receive().await).1.is_empty());
    frame[8..12].copy_from_slice(&3_i32.to_be_bytes());
    fixture.unit.send(&frame).await;
    assert_eq!(fixture.unit.receive_within(SILENCE).await, Arrival::Nothing);
    fixture.clear(fault);
    for id in [2, 3] {
        assert_eq!(fixture.unit.receive().await[4..8], i32::to_be_bytes(id));
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_updates_wait() {
    let mut fixture = Fixture::new().await;
    let watch =
        ObjectApiWatchRequest::try_encode_from(WatchRequest::<TopicSpec>::summary(), 19).expect("encode");
    let mut watcher = Raw::connect(&fixture.server.endpoint()).await;
    watcher.send(&frame_of(watch)).await;
    watcher.receive().await;
    let fault = fixture.fault(r#"{"kind": "delay", "request": "watch", "when": "after"}"#);
    for name in ["one", "two"] {
        fixture.controller.send(&create_frame(name, TopicSpec::new_computed(1, 1, None))).await;
        fixture.controller.receive().await;
    }
    assert_eq!(watcher.receive_within(SILENCE).await, Arrival::Nothing);
    fixture.clear(fault);
    for name in ["one", "two"] {
        let update = watcher.receive().await;
        assert!(update.windows(3).any(|window| window == name.as_bytes()), "{name}");
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_requests_are_never_answered() {
    let mut fixture = Fixture::new().await;
    for (when, offset) in [("before", 0), ("after", 2)] {
        let fault =
            format!(r#"{{"kind": "never-answer", "request": "produce", "when": "{when}", "count": 1}}"#);
        fixture.fault(&fault);
        fixture.unit.send(&produce_frame("t", &[&batch()])).await;
        // The next one on the same connection is answered, and shows whether the first one was handled.
        produces(&mut fixture.unit, offset).await;
    }
    assert!(fixture.server.faults().is_empty());
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_closes_its_connection() {
    let mut fixture = Fixture::new().await;
    for (when, offset) in [("before", 0), ("after", 2)] {
        let fault = format!(r#"{{"kind": "close", "request": "produce", "when": "{when}", "count": 1}}"#);
        fixture.fault(&fault);
        let mut doomed = fixture.unit().await;
        doomed.send(&produce_frame("t", &[&batch()])).await;
        assert_eq!(doomed.receive_within(SOON).await, Arrival::Closed, "{when}");
        produces(&mut fixture.unit, offset).await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_closed_at_a_byte_that_is_sent() {
    let fixture = Fixture::new().await;
    for bytes in [1, 3, 8, 20] {
        fixture.fault(&format!(r#"{{"kind": "close", "plane": "spu", "sent_bytes": {bytes}, "count": 1}}"#));
        let mut doomed = TcpStream::connect(&fixture.unit_address).await.expect("connect");
        tokio::io::AsyncWriteExt::write_all(&mut doomed, &produce_frame("t", &[&batch()]))
            .await
            .expect("send");
        let mut received = Vec::new();
        doomed.read_to_end(&mut received).await.expect("read");
        assert_eq!(received.len(), bytes);
    }
    // Once each.
    produces(&mut fixture.unit().await, 4).await;
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_closed_at_a_byte_that_is_received() {
    let mut fixture = Fixture::new().await;
    produces(&mut fixture.unit, 0).await;
    let frame = produce_frame("t", &[&batch()]);
    // Counted from the injection on: one request passes, of the next one a byte is missing.
    fixture.fault(&format!(r#"{{"kind": "close", "received_bytes": {}, "count": 1}}"#, 2 * frame.len() - 1));
    produces(&mut fixture.unit, 1).await;
    fixture.unit.send(&frame).await;
    assert_eq!(fixture.unit.receive_within(SOON).await, Arrival::Closed);
    produces(&mut fixture.unit().await, 2).await;
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_goes_on_where_it_stopped() {
    let mut fixture = Fixture::new().await;
    let frame = produce_frame("t", &[&batch()]);
    let cases = [
        r#"{"kind": "stall", "plane": "spu", "sent_bytes": 7, "count": 1}"#,
        r#"{"kind": "stall", "plane": "spu", "received_bytes": 7, "count": 1}"#,
        r#"{"kind": "stall", "request": "produce", "count": 1}"#,
        r#"{"kind": "stall", "request": "produce", "when": "after", "count": 1}"#,
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let fault = fixture.fault(case);
        fixture.unit.send(&frame).await;
        fixture.unit.send(&frame).await;
        assert_eq!(fixture.unit.receive_within(SILENCE).await, Arrival::Nothing, "{case}");
        // Others are spared.
        fixture.controller.send(&create_frame("t", TopicSpec::new_computed(1, 1, None))).await;
        fixture.controller.receive().await;
        let mut other = fixture.unit().await;
        produce(&mut other, "t", &[&batch()]).await;
        fixture.clear(fault);
        fixture.unit.receive().await;
        fixture.unit.receive().await;
        produces(&mut fixture.unit, number as i64 * 4 + 3).await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_that_happens_twice_stalls_two_connections() {
    let frame = produce_frame("t", &[&batch()]);
    for direction in ["received_bytes", "sent_bytes"] {
        let mut fixture = Fixture::new().await;
        let json = format!(r#"{{"kind": "stall", "plane": "spu", "{direction}": 7, "count": 2}}"#);
        let fault = fixture.fault(&json);
        let mut second = fixture.unit().await;
        for connection in [&mut fixture.unit, &mut second] {
            connection.send(&frame).await;
            assert_eq!(connection.receive_within(SILENCE).await, Arrival::Nothing, "{direction}");
            // Every change of the faults has all connections look again.
            fixture
                .server
                .clear(fixture.server.inject(Fault::from_json(UNRELATED).unwrap()).unwrap())
                .unwrap();
        }
        produces(&mut fixture.unit().await, if direction == "sent_bytes" { 2 } else { 0 }).await;
        fixture.clear(fault);
        fixture.unit.receive().await;
        second.receive().await;
        fixture.server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_half_gets_its_answers() {
    let fixture = Fixture::new().await;
    let fault = fixture.fault(r#"{"kind": "delay", "request": "produce", "when": "after"}"#);
    let mut client = TcpStream::connect(&fixture.unit_address).await.expect("connect");
    client.write_all(&produce_frame("t", &[&batch()])).await.expect("send");
    client.shutdown().await.expect("shut down");
    let mut answer = Vec::new();
    let waiting = tokio::time::timeout(SILENCE, client.read_to_end(&mut answer)).await;
    assert!(waiting.is_err(), "{answer:?}");
    fixture.clear(fault);
    tokio::time::timeout(SOON, client.read_to_end(&mut answer)).await.expect("in time").expect("read");
    assert_eq!(answer.len(), produce_answer(&fixture).await.len());
    fixture.server.shutdown().await;
}

/// What a produce request is answered with.
async fn produce_answer(fixture: &Fixture) -> Vec<u8> {
    let mut unit = fixture.unit().await;
    unit.send(&produce_frame("t", &[&batch()])).await;
    unit.receive().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_black_hole_nothing_moves_until_it_is_cleared() {
    let mut fixture = Fixture::new().await;
    open(&mut fixture.unit, ReadUncommitted, 1 << 20).await;
    let mut producer = fixture.unit().await;
    let fault = fixture.fault(r#"{"kind": "black-hole", "plane": "spu"}"#);
    let mut late = fixture.unit().await;
    for connection in [&mut producer, &mut late] {
        connection.send(&produce_frame("t", &[&batch()])).await;
    }
    for connection in [&mut producer, &mut late, &mut fixture.unit] {
        assert_eq!(connection.receive_within(SILENCE).await, Arrival::Nothing);
    }
    // The controller is spared.
    fixture.controller.send(&create_frame("other", TopicSpec::new_computed(1, 1, None))).await;
    fixture.controller.receive().await;
    fixture.clear(fault);
    for connection in [&mut producer, &mut late, &mut fixture.unit] {
        connection.receive().await;
    }
    fixture.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_a_black_hole_can_be_stopped() {
    let mut fixture = Fixture::new().await;
    fixture.fault(r#"{"kind": "black-hole"}"#);
    fixture.unit.send(&produce_frame("t", &[&batch()])).await;
    fixture.server.shutdown().await;
    assert_eq!(fixture.unit.receive_within(SOON).await, Arrival::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_claims_to_be_huge() {
    let fixture = Fixture::new().await;
    fixture.fault(r#"{"kind": "oversized-frame", "request": "produce", "count": 1}"#);
    let mut unit = TcpStream::connect(&fixture.unit_address).await.expect("connect");
    tokio::io::AsyncWriteExt::write_all(&mut unit, &produce_frame("t", &[&batch()])).await.expect("send");
    let mut head = [0; 8];
    unit.read_exact(&mut head).await.expect("read");
    assert_eq!(head, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]);
    produces(&mut fixture.unit().await, 1).await;
    fixture.server.shutdown().await;
}

/// Segments cannot be told apart on a byte stream. That the parts really leave one by one, and that the second one waits
/// for the client's kernel, shows when the client lets its kernel delay the acknowledgement: see docs/devserver.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_writes_lose_nothing() {
    let mut fixture = Fixture::new().await;
    let large = batch_of(&[7; 5000], 40);
    produce(&mut fixture.unit, "t", &[&large, &large, &large]).await;
    fixture.fault(r#"{"kind": "split-writes"}"#);
    let mut unit = fixture.unit().await;
    open(&mut unit, ReadUncommitted, 1 << 20).await;
    assert_eq!(stream_answer(&unit.receive().await).1.len(), 3 * large.len());
    fixture.server.shutdown().await;
}
