//! Hostile input: whatever a connection brings, no code of ours panics, memory stays bounded, and others do not notice.
//!
//! An input is a connection: recorded requests with damage, requests with arbitrary bodies, and arbitrary bytes. Panics
//! within the platform's decoders are tolerated, since they end their own connection only; they are not ours to mend.
//! A normal test run tries a few thousand; BOLERO_RANDOM_ITERATIONS says how many, and `cargo bolero test fuzz::` lets
//! libFuzzer choose them by coverage.

use std::alloc::System;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use bolero::{TypeGenerator, check};
use bytes::Buf;
use cap::Cap;
use fluvio_controlplane_metadata::spu::SpuType;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::Decoder;
use fluvio_protocol::link::versions::ApiVersionsResponse;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, FIRST_SPU, spu};
use crate::config::Config;
use crate::connection::serve_stream;
use crate::faults::ConnectionFaults;
use crate::outbox::Outbox;
use crate::sc::Controller;
use crate::server::Shared;
use crate::spu::Unit;

/// More than any input may make the server hold, whatever lengths it claims.
const MEMORY: usize = 768 * 1024 * 1024;
/// The frame cap of the server under attack.
const MAX_FRAME: usize = 1024 * 1024;
/// What the pipe between client and server holds.
const PIPE: usize = 64 * 1024;
/// In the runtime's own time, which passes as soon as nobody has anything to do.
const PATIENCE: Duration = Duration::from_secs(600);

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

/// How often code of this workspace has panicked.
static OUR_PANICS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, TypeGenerator)]
enum Plane {
    Controller,
    Unit,
}

/// What a hostile client does.
#[derive(Debug, Clone, TypeGenerator)]
struct Attack {
    plane: Plane,
    #[generator(bolero::produce::<Vec<Piece>>().with().len(1_usize..=5))]
    pieces: Vec<Piece>,
    /// It stays for the answers, or leaves at once.
    stays: bool,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Piece {
    /// A recorded request with some bytes overwritten, perhaps cut short or sent to the wrong plane.
    Damaged {
        which: u16,
        #[generator(bolero::produce::<Vec<(u16, u8)>>().with().len(0_usize..=4))]
        damage: Vec<(u16, u8)>,
        cut: Option<u16>,
        other_plane: bool,
    },
    /// A request with a valid header.
    Request {
        key: Key,
        version: u8,
        #[generator(bolero::produce::<Vec<u8>>().with().len(0_usize..=300))]
        body: Vec<u8>,
    },
    /// No frame at all.
    Bytes(#[generator(bolero::produce::<Vec<u8>>().with().len(0_usize..=300))] Vec<u8>),
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
enum Key {
    Known(u8),
    Any(u16),
}

/// Of both planes.
const KEYS: [u16; 13] = [0, 1, 18, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 2000];

/// The frames of recorded requests without their length: to the controller, to the unit.
static RECORDED: LazyLock<[Vec<Vec<u8>>; 2]> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct Exchange {
        plane: String,
        request: Option<String>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/exchanges.jsonl");
    let recorded = std::fs::read_to_string(path).expect("the recorded exchanges");
    let mut requests = [Vec::new(), Vec::new()];
    for line in recorded.lines() {
        let exchange: Exchange = serde_json::from_str(line).expect("an exchange");
        let hex = exchange.request.unwrap_or_default();
        // Bytes 0 to 3 are the length.
        let frame: Vec<u8> = (8..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
            .collect();
        if !frame.is_empty() {
            requests[usize::from(exchange.plane == "spu")].push(frame);
        }
    }
    requests
});

impl Piece {
    fn bytes(&self, plane: Plane) -> Vec<u8> {
        let frame = match self {
            Piece::Bytes(bytes) => return bytes.clone(),
            Piece::Request { key, version, body } => {
                let key = match key {
                    Key::Known(which) => KEYS[usize::from(*which) % KEYS.len()],
                    Key::Any(key) => *key,
                };
                // Correlation id 7, no client id.
                let head = [&key.to_be_bytes()[..], &[0, *version, 0, 0, 0, 7, 0, 0]].concat();
                [&head, &body[..]].concat()
            }
            Piece::Damaged { which, damage, cut, other_plane } => {
                let recorded = &RECORDED[usize::from((plane == Plane::Unit) != *other_plane)];
                let mut frame = recorded[usize::from(*which) % recorded.len()].clone();
                for (at, value) in damage {
                    let length = frame.len();
                    frame[usize::from(*at) % length] = *value;
                }
                if let Some(cut) = cut {
                    frame.truncate(usize::from(*cut) % frame.len());
                }
                frame
            }
        };
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    }
}

fn connect(shared: &Arc<Shared>, plane: Plane) -> DuplexStream {
    let (client, server) = tokio::io::duplex(PIPE);
    let (reader, writer) = tokio::io::split(server);
    let (cluster, shared) = (shared.cluster.clone(), shared.clone());
    let closed = CancellationToken::new();
    let server = match plane {
        Plane::Controller => crate::plane::Plane::Controller,
        Plane::Unit => crate::plane::Plane::Unit(FIRST_SPU),
    };
    let faults = ConnectionFaults::new(cluster.faults.clone(), server);
    let outbox = Outbox::new(Box::new(writer), closed.clone(), faults, Arc::default(), false);
    match plane {
        Plane::Controller => {
            let service = move |outbox, _| Controller::new(cluster, shared, outbox);
            tokio::spawn(serve_stream(reader, outbox, closed, MAX_FRAME, service));
        }
        Plane::Unit => {
            let service = move |outbox, closed| Unit::new(cluster, FIRST_SPU, outbox, closed);
            tokio::spawn(serve_stream(reader, outbox, closed, MAX_FRAME, service));
        }
    }
    client
}

async fn run(attack: &Attack) {
    // An address that no machine has: the SPUs of a group, whose number an attack can choose, cannot listen on it.
    let nowhere = Ipv4Addr::new(192, 0, 2, 1);
    let unit = spu("custom-spu-5001".to_owned(), FIRST_SPU, SpuType::Custom, nowhere.to_string(), 1);
    let cluster = Arc::new(Cluster::open(Config::default(), [unit]).expect("a cluster"));
    cluster.put_topic("topic".to_owned(), TopicSpec::new_computed(2, 1, None)).expect("a topic");
    let shared = Arc::new(Shared::new(cluster, nowhere.into(), nowhere.to_string()));
    let mut bystander = connect(&shared, attack.plane);

    let (mut reader, mut writer) = tokio::io::split(connect(&shared, attack.plane));
    let sending = async {
        for piece in &attack.pieces {
            // The server may have had enough.
            if writer.write_all(&piece.bytes(attack.plane)).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    if attack.stays {
        let mut answers = Vec::new();
        let both = async { tokio::join!(sending, reader.read_to_end(&mut answers)) };
        let ended = tokio::time::timeout(PATIENCE, both).await;
        assert!(ended.is_ok(), "the connection does not end");
    } else {
        let _ = tokio::time::timeout(PATIENCE, sending).await;
    }
    drop((reader, writer));
    assert!(answers(&mut bystander).await, "another connection has suffered");
}

/// Whether a well-behaved client still gets its answer.
async fn answers(client: &mut DuplexStream) -> bool {
    // ApiVersions, version 2, correlation id 7: client version "0.50.1", its system and processor.
    let body = b"\0\x12\0\x02\0\0\0\x07\0\0\0\x060.50.1\0\x05linux\0\x06x86_64";
    let request = [&(body.len() as u32).to_be_bytes()[..], body].concat();
    client.write_all(&request).await.expect("send");
    let mut head = [0; 4];
    client.read_exact(&mut head).await.expect("the length of an answer");
    let mut answer = vec![0; u32::from_be_bytes(head) as usize];
    client.read_exact(&mut answer).await.expect("an answer");
    let mut unread = &answer[..];
    unread.get_i32() == 7
        && ApiVersionsResponse::decode_from(&mut unread, 2).is_ok_and(|answer| !answer.api_keys.is_empty())
}

/// The crates whose decoders we call.
const DECODERS: [&str; 4] =
    ["fluvio_protocol::", "fluvio_sc_schema::", "fluvio_spu_schema::", "fluvio_controlplane_metadata::"];

/// Counts the panics that are ours: those whose innermost known frame is not in a decoder of the platform.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let trace = Backtrace::force_capture().to_string();
            let known = trace.lines().find_map(|frame| {
                let foreign = DECODERS.iter().any(|decoder| frame.contains(decoder));
                let ours = frame.contains("fluvio_devserver::") && !frame.contains("watch_panics");
                (foreign || ours).then_some(foreign)
            });
            if known != Some(true) {
                OUR_PANICS.fetch_add(1, Ordering::Relaxed);
                earlier(panic);
            }
        }));
    });
}

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime"),
    );
}

#[test]
fn nothing_that_arrives_does_harm() {
    check!().with_iterations(5_000).with_type::<Attack>().for_each(|attack| {
        watch_panics();
        let before = OUR_PANICS.load(Ordering::Relaxed);
        RUNTIME.with_borrow(|runtime| runtime.block_on(run(attack)));
        assert_eq!(OUR_PANICS.load(Ordering::Relaxed), before, "the server has panicked");
    });
}
