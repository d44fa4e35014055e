//! The records of one SPU take half of the buffer at most, whatever becomes of it: those for the others go out.

use std::time::Duration;

use crate::common::{All, Cluster, One, PATIENCE, submit, topic};
use engine::producer::{Ack, Many, Producer, ProducerOptions, RECORD_OVERHEAD, Sent};
use engine::{Client, ClientOptions, Error, ErrorKind, Outcome, Result};
use fluvio_devserver::{Config, Fault};
use tokio::sync::oneshot;

const BUFFER: usize = 200_000;
const VALUE: [u8; 1000] = [7; 1000];
const ROOM: usize = VALUE.len() + 1 + RECORD_OVERHEAD;

/// How an SPU fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Away,
    Silent,
    /// Connections are accepted, and nothing moves on them.
    Unreachable,
}

struct Two {
    cluster: Cluster,
    producer: Producer,
    /// A key for each of the partitions, whose leaders are 5001 and 5002.
    keys: [[u8; 1]; 2],
}

impl Two {
    async fn start() -> Self {
        let cluster = Cluster::with(Config { spus: 2, cut_batches: true, ..Config::default() }).await;
        // What was asked of a silent SPU is asked again after that.
        let settings = ClientOptions {
            endpoint: Some(cluster.endpoint.clone()),
            request_timeout_ms: 2000,
            ..ClientOptions::default()
        };
        let client = Client::connect(settings).await.unwrap();
        let name = topic(&client, 2).await;
        for partition in 0..2 {
            cluster.server().move_leader(&name, partition, 5001 + partition as i32).unwrap();
        }
        let options = format!(r#"{{"buffer_bytes": {BUFFER}}}"#);
        let producer = client.producer(&name, ProducerOptions::from_json(&options).unwrap()).await.unwrap();
        let mut keys = [None; 2];
        for key in 0u8..=255 {
            let ack = submit(&producer, Some(&[key]), b"", None).await.unwrap().await.unwrap().unwrap();
            keys[ack.partition as usize] = Some([key]);
            if let [Some(first), Some(second)] = keys {
                return Two { cluster, producer, keys: [first, second] };
            }
        }
        panic!("all keys go to one partition");
    }

    async fn fail(&self, failure: Failure) {
        let fault = match failure {
            Failure::Away => return self.cluster.server().stop_spu(5001).await.unwrap(),
            Failure::Silent => r#"{"kind": "never-answer", "plane": 5001}"#,
            Failure::Unreachable => {
                self.cluster.server().close_connections();
                r#"{"kind": "black-hole", "plane": 5001}"#
            }
        };
        self.cluster.server().inject(Fault::from_json(fault).unwrap()).unwrap();
    }

    async fn heal(&self, failure: Failure) {
        if failure == Failure::Away {
            self.cluster.server().start_spu(5001).await.unwrap();
        }
        self.cluster.server().clear_faults();
    }

    fn send(
        &self,
        key: Option<&[u8]>,
        partition: Option<u32>,
    ) -> Result<Option<oneshot::Receiver<Result<Ack>>>> {
        let (sender, fate) = oneshot::channel();
        let sent = self.producer.send(&mut None, key, &VALUE, partition, || Ok(Box::new(One(sender))))?;
        Ok((sent == Sent::Accepted).then_some(fate))
    }
}

fn is_refusal(error: &Error) {
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Connection, Some(Outcome::NotSent)), "{error}");
    assert!(error.is_retriable());
    assert_eq!((error.partition(), error.spu()), (Some(0), Some(5001)));
}

async fn acked(fate: oneshot::Receiver<Result<Ack>>) -> Ack {
    tokio::time::timeout(PATIENCE, fate).await.expect("acknowledged").unwrap().unwrap()
}

const FAILURES: [Failure; 3] = [Failure::Away, Failure::Silent, Failure::Unreachable];

/// By key and by partition, from the first moment on: before anybody knows that the SPU has failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_spu_takes_half_of_the_buffer() {
    for failure in FAILURES {
        for by_key in [true, false] {
            let two = Two::start().await;
            let to = |spu: usize| match by_key {
                true => (Some(&two.keys[spu][..]), None),
                false => (None, Some(spu as u32)),
            };
            two.fail(failure).await;
            let mut waiting = Vec::new();
            let mut refused = 0;
            loop {
                match two.send(to(0).0, to(0).1) {
                    Ok(Some(fate)) => waiting.push(fate),
                    Ok(None) => break,
                    Err(error) => {
                        is_refusal(&error);
                        refused += 1;
                        break;
                    }
                }
            }
            let taken = waiting.len() * ROOM;
            assert!((BUFFER / 3..=BUFFER / 2).contains(&taken), "{failure:?}: {taken}");
            // Several times the buffer goes out to the other one, by itself and among others.
            for _ in 0..5 {
                let fates: Vec<_> =
                    (0..60).map(|_| two.send(to(1).0, to(1).1).unwrap().expect("room")).collect();
                for fate in fates {
                    assert_eq!(acked(fate).await.partition, 1);
                }
            }
            // Who waits is refused once it is known.
            if refused == 0 {
                let error =
                    tokio::time::timeout(PATIENCE, submit(&two.producer, to(0).0, &VALUE, to(0).1)).await;
                is_refusal(&error.expect("is told").expect_err("there is no room"));
            }
            let (told, deliveries) = oneshot::channel();
            let record = |number: usize| [&two.keys[number % 2][..], &VALUE[..500]].concat();
            let arena: Vec<u8> = (0..100).flat_map(record).collect();
            let many = Many { arena: &arena, key_lengths: Some(&[1; 100]), value_lengths: &[500; 100] };
            let accepted =
                two.producer.send_many(&mut None, many, None, |_| Ok(Box::new(All(told)))).unwrap();
            assert_eq!(accepted, 100, "{failure:?}");
            two.heal(failure).await;
            let deliveries = tokio::time::timeout(PATIENCE, deliveries).await.unwrap().unwrap();
            for (offset, partition) in deliveries.offsets.iter().zip(&deliveries.partitions) {
                assert!(*partition == 0 || *offset >= 0, "{:?}", deliveries.distinct);
            }
            deliveries.distinct.iter().for_each(is_refusal);
            for fate in waiting {
                acked(fate).await;
            }
        }
    }
}

/// Records that may go anywhere do not pile up where nobody answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_a_key_leave_room_too() {
    for failure in FAILURES {
        let two = Two::start().await;
        two.fail(failure).await;
        let mut fates = Vec::new();
        for _ in 0..1000 {
            let fate = tokio::time::timeout(PATIENCE, submit(&two.producer, None, &VALUE, None)).await;
            fates.push(fate.expect("the other one makes room").unwrap());
        }
        let fates = futures_util::future::join_all(
            fates
                .into_iter()
                .map(|mut fate| async move { fate.try_recv().ok().map(|fate| fate.unwrap().partition) }),
        );
        let there = fates.await.into_iter().flatten().filter(|partition| *partition == 1).count();
        assert!(there >= 1000 - 2 * BUFFER / ROOM, "{failure:?}: {there}");
        two.heal(failure).await;
    }
}

/// A healthy SPU that gets everything makes its senders wait, and refuses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_spu_makes_its_senders_wait() {
    let two = Two::start().await;
    let senders = (0..50).map(|_| {
        let (producer, key) = (two.producer.clone(), two.keys[0]);
        tokio::spawn(async move {
            let mut fates = Vec::new();
            for _ in 0..50 {
                fates.push(submit(&producer, Some(&key), &VALUE, None).await.unwrap());
            }
            for fate in fates {
                fate.await.unwrap().unwrap();
            }
        })
    });
    let all = futures_util::future::join_all(senders.collect::<Vec<_>>());
    for sender in tokio::time::timeout(PATIENCE, all).await.expect("all of it goes out") {
        sender.unwrap();
    }
    // And many at once, with room for as much as there is.
    let arena = [&two.keys[0][..], &VALUE].concat().repeat(500);
    let (mut room, mut sent, mut pending) = (None, 0, Vec::new());
    while sent < 500 {
        let rest = &arena[sent * (VALUE.len() + 1)..];
        let lengths = vec![VALUE.len() as u32; 500 - sent];
        let keys = vec![1; 500 - sent];
        let many = Many { arena: rest, key_lengths: Some(&keys), value_lengths: &lengths };
        let (told, deliveries) = oneshot::channel();
        let reserved = room.is_some();
        match two.producer.send_many(&mut room, many, None, |_| Ok(Box::new(All(told)))).unwrap() {
            0 => {
                assert!(!reserved, "room is enough for one");
                let reserved = tokio::time::timeout(PATIENCE, two.producer.reserve(BUFFER / 2)).await;
                room = Some(reserved.expect("room").unwrap());
            }
            accepted => {
                sent += accepted;
                pending.push(deliveries);
            }
        }
    }
    for deliveries in pending {
        assert_eq!(tokio::time::timeout(PATIENCE, deliveries).await.unwrap().unwrap().failed, 0);
    }
    two.producer.close().await.unwrap();
}

/// A record that needs more than half of the buffer gets its turn, although some small ones are always on their way to the
/// other SPU.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_record_is_not_passed_for_ever() {
    let two = Two::start().await;
    let delay = r#"{"kind": "delay", "plane": 5002, "request": "produce", "seconds": 0.02}"#;
    two.cluster.server().inject(Fault::from_json(delay).unwrap()).unwrap();
    let (producer, key) = (two.producer.clone(), two.keys[1]);
    let small = tokio::spawn(async move {
        let mut turns = tokio::time::interval(Duration::from_millis(1));
        loop {
            turns.tick().await;
            drop(submit(&producer, Some(&key), &VALUE, None).await.unwrap());
        }
    });
    let large = vec![7; BUFFER * 3 / 4];
    for _ in 0..10 {
        // The second finds the first one there.
        let send = || async {
            let sent = submit(&two.producer, Some(&two.keys[0]), &large, None);
            let fate = tokio::time::timeout(PATIENCE, sent).await.expect("its turn").unwrap();
            assert_eq!(acked(fate).await.partition, 0);
        };
        tokio::join!(send(), send(), send());
    }
    assert!(!small.is_finished(), "the small ones went on");
    small.abort();
}
