//! What a producer promises about turns, handlers and flushes.

use std::sync::mpsc;
use std::time::Duration;

use crate::common::{Cluster, One, PATIENCE, impatient, options, receive, send, submit, topic};
use engine::producer::{Ack, AckHandler, Producer, ProducerOptions, Sent};
use engine::{ErrorKind, Result};
use fluvio_devserver::Fault;
use tokio::sync::oneshot;

/// Calls a function with the fate of its record.
struct Then<F>(F);

impl<F: FnOnce(Result<Ack>) + Send + 'static> AckHandler for Then<F> {
    fn acked(self: Box<Self>, result: Result<Ack>) {
        (self.0)(result);
    }
}

fn send_then(producer: &Producer, partition: u32, then: impl FnOnce(Result<Ack>) + Send + 'static) {
    let sent = producer.send(&mut None, None, b"value", Some(partition), || Ok(Box::new(Then(then))));
    assert_eq!(sent.unwrap(), Sent::Accepted);
}

/// A partition with much to send does not keep another one waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_has_its_turn() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let one_batch =
        r#"{"batch_size_bytes": 1024, "max_request_size_bytes": 1024, "buffer_bytes": 100000000}"#;
    let producer = client.producer(&name, ProducerOptions::from_json(one_batch).unwrap()).await.unwrap();
    let (sender, order) = mpsc::channel();
    for _ in 0..3000 {
        let sender = sender.clone();
        let value = [0; 800];
        let handler = Then(move |_| sender.send(0).unwrap());
        producer.send(&mut None, None, &value, Some(0), || Ok(Box::new(handler))).unwrap();
    }
    let late = sender.clone();
    let handler = Then(move |_| late.send(1).unwrap());
    producer.send(&mut None, None, &[1; 800], Some(1), || Ok(Box::new(handler))).unwrap();
    producer.flush().await;
    drop(sender);
    let order: Vec<u32> = order.try_iter().collect();
    assert_eq!(order.len(), 3001);
    let place = order.iter().position(|partition| *partition == 1).unwrap();
    assert!(place < 2900, "the other partition's record was told its fate as number {place}");
}

/// A handler may send, also one that is told at once that its record has expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_send() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 3).await;
    let hurry = ProducerOptions::from_json(r#"{"delivery_timeout_ms": 1}"#).unwrap();
    let producer = client.producer(&name, hurry).await.unwrap();
    let silent = r#"{"kind": "never-answer", "request": "produce"}"#;
    cluster.server().inject(Fault::from_json(silent).unwrap()).unwrap();
    let (told, fate) = oneshot::channel();
    let (second, third) = (producer.clone(), producer.clone());
    send_then(&producer, 0, move |_| {
        send_then(&second, 1, move |_| send_then(&third, 2, move |result| drop(told.send(result))));
        // The dispatcher comes to the second record only when its time is over.
        std::thread::sleep(Duration::from_millis(10));
    });
    let fate = tokio::time::timeout(PATIENCE, fate).await.expect("nobody waits for himself").unwrap();
    assert_eq!(fate.unwrap_err().kind(), ErrorKind::Timeout);
}

/// With several requests in flight too, a flush ends once everything before it has its fate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_covers_everything_before_it() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    for in_flight in [1, 5] {
        let options =
            format!(r#"{{"in_flight": {in_flight}, "batch_size_bytes": 1024, "linger_ms": 60000}}"#);
        let producer = client.producer(&name, ProducerOptions::from_json(&options).unwrap()).await.unwrap();
        for round in 0..50 {
            let mut acks = Vec::new();
            for number in 0..200u32 {
                acks.push(submit(&producer, None, &number.to_be_bytes(), None).await.unwrap());
            }
            if round % 10 == 0 {
                cluster.server().close_connections();
            }
            tokio::time::timeout(PATIENCE, producer.flush()).await.expect("the flush ends");
            for mut ack in acks {
                ack.try_recv().expect("told before the flush ended").unwrap();
            }
        }
        producer.close().await.unwrap();
    }
}

/// Room comes back however a record ends: the buffer is whole again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_room_comes_back() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let small = ProducerOptions::from_json(r#"{"buffer_bytes": 20000, "delivery_timeout_ms": 400}"#).unwrap();
    let producer = client.producer(&name, small).await.unwrap();
    let whole = || async {
        let all = tokio::time::timeout(PATIENCE, producer.reserve(20_000)).await;
        drop(all.expect("all room is free").unwrap());
        // And not more than that.
        let all = producer.reserve(20_000).await.unwrap();
        let sent = producer.send(&mut None, None, b"", None, || unreachable!("no room")).unwrap();
        assert_eq!(sent, Sent::Full);
        drop(all);
    };
    // Acknowledged, with room that was reserved before, more than is used.
    let mut room = Some(producer.reserve(500).await.unwrap());
    let (sender, fate) = oneshot::channel();
    let sent = producer.send(&mut room, Some(b"key"), b"value", None, || Ok(Box::new(One(sender))));
    assert_eq!(sent.unwrap(), Sent::Accepted);
    assert!(room.is_none());
    fate.await.unwrap().unwrap();
    whole().await;
    // Refused by the handler's maker.
    let mut room = Some(producer.reserve(500).await.unwrap());
    let refuse = || Err(engine::Error::new(ErrorKind::Closed, "no"));
    assert!(producer.send(&mut room, None, b"value", None, refuse).is_err());
    drop(room);
    whole().await;
    // A place in the queue that is given up.
    let all = producer.reserve(20_000).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(5), producer.reserve(1)).await.is_err());
    drop(all);
    whole().await;
    // Failed.
    let refuse = r#"{"kind": "produce-error", "code": "MessageTooLarge"}"#;
    cluster.server().inject(Fault::from_json(refuse).unwrap()).unwrap();
    let late: Vec<_> = futures_util::future::join_all((0..100).map(|_| send(&producer, None, b"late"))).await;
    assert!(late.iter().all(Result::is_err));
    whole().await;
}

/// Whoever waits for room does not wait for the linger of what takes it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_lingers_while_somebody_waits_for_room() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let options = r#"{"linger_ms": 60000, "buffer_bytes": 2000}"#;
    let producer = client.producer(&name, ProducerOptions::from_json(options).unwrap()).await.unwrap();
    let mut sent = Vec::new();
    let more = async {
        for _ in 0..200 {
            sent.push(submit(&producer, None, &[7; 100], None).await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE / 3, more).await.expect("room comes back before the linger is over");
    producer.flush().await;
    for ack in sent {
        ack.await.unwrap().unwrap();
    }
}

/// Producers of one client share the connection to a server that takes its time with each request: together they wait longer
/// than a request time-out, nobody loses patience, and nothing is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_is_shared() {
    const PRODUCERS: usize = 15;
    let cluster = Cluster::start().await;
    let client = impatient(&cluster.endpoint, PATIENCE).await;
    let name = topic(&client, 1).await;
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        send(&producer, None, b"first").await.unwrap();
        producers.push(producer);
    }
    let opened = cluster.server().counters().spus[&5001].connections_opened;
    let slow = r#"{"kind": "delay", "request": "produce", "seconds": 0.15}"#;
    cluster.server().inject(Fault::from_json(slow).unwrap()).unwrap();
    let mut acks = Vec::new();
    for producer in &producers {
        acks.push(submit(producer, None, b"second", None).await.unwrap());
    }
    for ack in acks {
        tokio::time::timeout(PATIENCE, ack).await.expect("told").unwrap().expect("acknowledged");
    }
    assert_eq!(cluster.server().counters().spus[&5001].connections_opened, opened);
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    receive(&consumer, 2 * PRODUCERS).await;
    assert_eq!(send(&producers[0], None, b"last").await.unwrap().offset, 2 * PRODUCERS as i64);
}
