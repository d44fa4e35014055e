//! What a broken or hostile client sends: its own connection ends, another one goes on.

use crate::common::{Arrival, Raw, SOON, create, frame_of, framed, unit_of};
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_devserver::{Config, Server};
use fluvio_protocol::Encoder;
use fluvio_protocol::api::RequestHeader;
use fluvio_sc_schema::TryEncodableFrom;
use fluvio_sc_schema::objects::{ListRequest, ObjectApiListRequest};

const MAX_FRAME: usize = 1024 * 1024;

async fn start() -> Server {
    Server::start(Config { max_frame_bytes: MAX_FRAME, ..Config::default() }).await.expect("start")
}

fn header(api_key: u16, version: i16) -> Vec<u8> {
    let mut header = RequestHeader::new_with_client(api_key, "hostile");
    header.set_api_version(version);
    let mut bytes = Vec::new();
    header.encode(&mut bytes, 0).expect("encode");
    bytes
}

fn with_header(api_key: u16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(api_key, version);
    bytes.extend_from_slice(body);
    framed(&bytes)
}

/// Frames that close their connection on either plane, with a name each.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let too_large = ((MAX_FRAME + 1) as i32).to_be_bytes().to_vec();
    vec![
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("tls", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc]),
        ("negative length", (-1_i32).to_be_bytes().to_vec()),
        ("length zero", 0_i32.to_be_bytes().to_vec()),
        ("length three", vec![0, 0, 0, 3, 1, 2, 3]),
        ("over the cap", too_large),
        ("half a header", framed(&[0, 18, 0, 2])),
        ("client id of negative length and no body", framed(&[3, 235, 0, 19, 0, 0, 0, 1, 0xff, 0xff])),
        ("client id that is no text", framed(&[0, 18, 0, 2, 0, 0, 0, 1, 0, 2, 0xff, 0xfe])),
        ("unknown key", with_header(777, 0, &[])),
        ("list of a version to come", with_header(1003, 20, b"\0\x05Topic\0\0\0\x06\0\0\0\0\0\0")),
        ("list of a version that is gone", with_header(1003, 1, b"\0\x05Topic\0\0\0\0")),
        ("body cut", with_header(1003, 19, b"\0\x05Topic\0\0\0\xff")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_ends_only_its_own_connection() {
    let server = start().await;
    let mut bystander = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut bystander).await;
    for endpoint in [server.endpoint(), unit.clone()] {
        for (name, bytes) in nonsense() {
            let mut hostile = Raw::connect(&endpoint).await;
            hostile.send(&bytes).await;
            assert_eq!(hostile.receive_within(SOON).await, Arrival::Closed, "{name} to {endpoint}");
            assert_eq!(unit_of(&mut bystander).await, unit, "after {name}");
        }
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_break_codecs_end_only_their_own_connection() {
    let server = start().await;
    let mut bystander = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut bystander).await;
    assert!(create(&mut bystander, "t", TopicSpec::new_computed(1, 1, None)).await.error_code.is_ok());

    // The codec of SmartModules panics on a payload that is cut.
    let mut module = b"\0\x01m\0\0\0".to_vec();
    module.extend_from_slice(b"\0\0\0\xff\xff\xff\xff");
    let mut create_module = b"\0\x0bSmartModule".to_vec();
    create_module.extend_from_slice(&(module.len() as u32).to_be_bytes());
    create_module.extend_from_slice(&module);
    let produce = |records: &[u8]| {
        let mut body = b"\0\0\x01\0\0\x03\xe8\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0".to_vec();
        body.extend_from_slice(&(records.len() as i32).to_be_bytes());
        body.extend_from_slice(records);
        body.extend_from_slice(&0_i32.to_be_bytes());
        with_header(0, 25, &body)
    };
    let cases = [
        ("panicking codec", server.endpoint(), with_header(1001, 19, &create_module)),
        ("two billion topics", unit.clone(), with_header(0, 25, b"\0\0\x01\0\0\0\0\x7f\xff\xff\xff")),
        ("records that are no batch", unit.clone(), produce(&[7; 80])),
        ("a batch that is cut", unit.clone(), produce(&[0; 30])),
        ("mirror traffic", unit.clone(), with_header(2000, 25, b"\0\0\0\0")),
    ];
    for (name, endpoint, frame) in cases {
        let mut hostile = Raw::connect(&endpoint).await;
        hostile.send(&frame).await;
        assert_eq!(hostile.receive_within(SOON).await, Arrival::Closed, "{name}");
        assert_eq!(unit_of(&mut bystander).await, unit, "after {name}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_too_much_is_refused() {
    let server = start().await;
    let mut client = Raw::connect(&server.endpoint()).await;
    let status = create(&mut client, "huge", TopicSpec::new_computed(u32::MAX, 1, None)).await;
    assert!(status.error_code.is_error(), "{status:?}");
    let status = create(&mut client, "two-copies", TopicSpec::new_computed(3, 2, None)).await;
    assert_eq!(status.error_message.as_deref(), Some("only 0 out of 3 provisioned"));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_may_come_in_any_pieces() {
    let server = start().await;
    let mut client = Raw::connect(&server.endpoint()).await;
    let list = ListRequest::<TopicSpec>::new(Vec::new(), false);
    let frame = frame_of(ObjectApiListRequest::try_encode_from(list, 19).expect("encode"));
    for byte in &frame {
        client.send(&[*byte]).await;
    }
    let answer = client.receive().await;
    // Many at once are answered one after another.
    client.send(&frame.repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(client.receive().await, answer);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_open_connections_and_takes_new_ones() {
    let server = start().await;
    let mut before = Raw::connect(&server.endpoint()).await;
    let unit = unit_of(&mut before).await;
    let mut idle = Raw::connect(&unit).await;
    idle.send(&frame_of(fluvio_protocol::link::versions::ApiVersionsRequest::default())).await;
    idle.receive().await;
    server.close_connections();
    assert_eq!(before.receive_within(SOON).await, Arrival::Closed);
    assert_eq!(idle.receive_within(SOON).await, Arrival::Closed);
    let mut after = Raw::connect(&server.endpoint()).await;
    assert_eq!(unit_of(&mut after).await, unit);
    server.shutdown().await;
    assert_eq!(after.receive_within(SOON).await, Arrival::Closed);
}
