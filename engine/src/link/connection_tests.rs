//! The connection against peers that are scripted byte by byte, over an in-memory stream.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use fluvio_protocol::Encoder;
use fluvio_protocol::link::versions::{ApiVersionKey, ApiVersionsResponse, PlatformVersion};
use fluvio_spu_schema::server::fetch_offset::{FetchOffsetsRequest, FetchOffsetsResponse};
use fluvio_spu_schema::server::update_offset::UpdateOffsetsRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use wire::frame::{DEFAULT_MAX_PAYLOAD, split_frame};

use super::{ByteStream, Connection, Settings};
use crate::error::ErrorKind;

impl super::ReadHalf for ReadHalf<DuplexStream> {
    fn acknowledge_quickly(&self) {}
}

impl ByteStream for DuplexStream {
    type Reader = ReadHalf<DuplexStream>;
    type Writer = WriteHalf<DuplexStream>;

    fn split(self) -> (Self::Reader, Self::Writer) {
        tokio::io::split(self)
    }
}

/// The other end: reads requests, writes what the test says.
struct Peer {
    stream: DuplexStream,
    buffer: BytesMut,
}

impl Peer {
    /// The correlation id of the next request.
    async fn request(&mut self) -> i32 {
        loop {
            if let Some(frame) = split_frame(&mut self.buffer, DEFAULT_MAX_PAYLOAD).unwrap() {
                return i32::from_be_bytes(frame[4..8].try_into().unwrap());
            }
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "the client hung up");
        }
    }

    /// Answers byte by byte.
    async fn answer(&mut self, id: i32, body: &impl Encoder) {
        let mut payload = Vec::new();
        payload.put_i32(id);
        body.encode(&mut payload, 25).unwrap();
        let mut frame = (payload.len() as i32).to_be_bytes().to_vec();
        frame.extend(payload);
        for byte in frame {
            self.stream.write_all(&[byte]).await.unwrap();
        }
    }
}

async fn connected() -> (Connection, Peer) {
    let (near, far) = tokio::io::duplex(16);
    let mut peer = Peer { stream: far, buffer: BytesMut::new() };
    let settings = Settings {
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_frame: 100_000,
        budget: None,
    };
    let key = |api_key, max_version| ApiVersionKey { api_key, min_version: 0, max_version };
    let versions = ApiVersionsResponse {
        api_keys: vec![key(1002, 25), key(1005, 0)],
        platform_version: PlatformVersion::from(semver::Version::new(0, 18, 2)),
        ..Default::default()
    };
    let (connection, ()) = tokio::join!(Connection::handshake(near, "peer:1", &settings), async {
        let id = peer.request().await;
        peer.answer(id, &versions).await;
    });
    (connection.unwrap(), peer)
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (connection, mut peer) = connected().await;
    let first = connection.request(FetchOffsetsRequest::new("first".to_owned(), 0)).unwrap();
    let second = connection.request(FetchOffsetsRequest::new("second".to_owned(), 0)).unwrap();
    let (first_id, second_id) = (peer.request().await, peer.request().await);
    let named = |name: &str| FetchOffsetsResponse {
        topics: vec![fluvio_spu_schema::server::fetch_offset::FetchOffsetTopicResponse {
            name: name.to_owned(),
            partitions: Vec::new(),
        }],
    };
    peer.answer(second_id, &named("second")).await;
    peer.answer(12345, &named("nobody asked")).await;
    peer.answer(first_id, &named("first")).await;
    assert_eq!(first.answer().await.unwrap().topics[0].name, "first");
    assert_eq!(second.answer().await.unwrap().topics[0].name, "second");
}

#[tokio::test]
async fn a_lost_connection_is_told_to_everyone() {
    let (connection, mut peer) = connected().await;
    let waiting = connection.request(FetchOffsetsRequest::new("topic".to_owned(), 0)).unwrap();
    let mut stream = connection.stream(FetchOffsetsRequest::new("topic".to_owned(), 0), 4).unwrap();
    peer.request().await;
    drop(peer);
    assert_eq!(waiting.answer().await.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(stream.next::<FetchOffsetsResponse>().await.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(connection.lost().await.kind(), ErrorKind::Connection);
    assert!(connection.is_lost());
    let late = connection.request(FetchOffsetsRequest::new("topic".to_owned(), 0));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn a_flood_ends_the_connection() {
    let (connection, mut peer) = connected().await;
    let _stream = connection.stream(FetchOffsetsRequest::new("topic".to_owned(), 0), 4).unwrap();
    let id = peer.request().await;
    for _ in 0..5 {
        peer.answer(id, &FetchOffsetsResponse::default()).await;
    }
    assert_eq!(connection.lost().await.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_frame_over_the_cap_ends_the_connection() {
    let (connection, mut peer) = connected().await;
    peer.stream.write_all(&100_001i32.to_be_bytes()).await.unwrap();
    let error = connection.lost().await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("100001"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_request_times_out_and_the_next_one_works() {
    let (connection, mut peer) = connected().await;
    let call = connection.call_within(FetchOffsetsRequest::new("t".to_owned(), 0), Duration::from_millis(5));
    assert_eq!(call.await.unwrap_err().kind(), ErrorKind::Timeout);
    let late = peer.request().await;
    peer.answer(late, &FetchOffsetsResponse::default()).await;
    let (answer, ()) = tokio::join!(connection.call(FetchOffsetsRequest::new("t".to_owned(), 0)), async {
        let id = peer.request().await;
        peer.answer(id, &FetchOffsetsResponse::default()).await;
    });
    answer.unwrap();
}

#[tokio::test]
async fn versions_are_negotiated_per_key() {
    let (connection, _peer) = connected().await;
    assert_eq!(connection.version::<FetchOffsetsRequest>().unwrap(), 25);
    assert_eq!(connection.version::<UpdateOffsetsRequest>().unwrap(), 0);
    let missing = connection.version::<fluvio_sc_schema::objects::ObjectApiListRequest>().unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::UnsupportedVersion);
}

/// A writer with a bug.
struct Panics;

impl tokio::io::AsyncWrite for Panics {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::panic::resume_unwind(Box::new("a bug"))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

struct Buggy(DuplexStream);

impl ByteStream for Buggy {
    type Reader = ReadHalf<DuplexStream>;
    type Writer = Panics;

    fn split(self) -> (Self::Reader, Self::Writer) {
        (tokio::io::split(self.0).0, Panics)
    }
}

#[tokio::test]
async fn a_panic_in_a_task_reaches_whoever_waits() {
    let (near, _far) = tokio::io::duplex(16);
    let settings = Settings {
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(20),
        max_frame: DEFAULT_MAX_PAYLOAD,
        budget: None,
    };
    let opened = Connection::handshake(Buggy(near), "peer", &settings);
    let error =
        tokio::time::timeout(Duration::from_secs(10), opened).await.expect("told at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
}

/// A server that answers one request after another is not blamed for those before: the clock starts with the turn. One that
/// was left out has had its turn.
#[tokio::test(start_paused = true)]
async fn the_clock_of_an_answer_starts_with_its_turn() {
    let (connection, mut peer) = connected().await;
    let call = |topic: &str| {
        let (connection, request) = (connection.clone(), FetchOffsetsRequest::new(topic.to_owned(), 0));
        tokio::spawn(async move { connection.call(request).await })
    };
    let (first, left_out, last) = (call("first"), call("left out"), call("last"));
    let ids = [peer.request().await, peer.request().await, peer.request().await];
    let begun = tokio::time::Instant::now();
    for id in [ids[0], ids[2]] {
        tokio::time::sleep(Duration::from_secs(9)).await;
        peer.answer(id, &FetchOffsetsResponse::default()).await;
    }
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(left_out.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    // Ten seconds after the answer to the first one.
    assert_eq!(begun.elapsed().as_secs(), 19);
}
