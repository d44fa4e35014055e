//! The producer before a scripted SPU.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use fluvio_spu_schema::produce::ProduceResponse;

use super::{
    Asked, OTHER, World, encoded, produced, produced_to, scripted, scripted_per_connection, send, send_to,
    soon,
};
use crate::{ErrorKind, Outcome};

/// An offset that cannot be is an error of the server, not the end of the producer.
#[tokio::test]
async fn an_impossible_offset_is_refused() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    for base_offset in [i64::MAX, -1] {
        let (address, _asked) = scripted(move |_| Some(produced(ErrorCode::None, base_offset))).await;
        world.lead_to(&address).await;
        let error = soon(send(&producer, b"value")).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
    let (address, _asked) = scripted(|_| Some(produced(ErrorCode::None, 7))).await;
    world.lead_to(&address).await;
    assert_eq!(soon(send(&producer, b"value")).await.unwrap().unwrap().offset, 7);
}

/// What is retried stays in front of what came later.
#[tokio::test]
async fn a_retry_keeps_the_order() {
    let world = World::new().await;
    let producer = world.producer(r#"{"batch_size_bytes": 1024}"#).await;
    let mut answers = [
        produced(ErrorCode::NotLeaderForPartition, -1),
        produced(ErrorCode::NotLeaderForPartition, -1),
        produced(ErrorCode::None, 0),
        produced(ErrorCode::None, 1),
        produced(ErrorCode::None, 2),
    ]
    .into_iter();
    let (address, mut asked) = scripted(move |_| answers.next()).await;
    world.lead_to(&address).await;
    let first = send(&producer, &[1; 900]);
    let mut seen = vec![filling(soon(asked.recv()).await.unwrap())];
    while seen[0].is_none() {
        seen = vec![filling(soon(asked.recv()).await.unwrap())];
    }
    // Two more batches gather while the first one is on its way.
    let later = [send(&producer, &[2; 900]), send(&producer, &[3; 900])];
    assert_eq!(soon(first).await.unwrap().unwrap().offset, 0);
    for (offset, fate) in (1..).zip(later) {
        assert_eq!(soon(fate).await.unwrap().unwrap().offset, offset);
    }
    while let Ok(asked) = asked.try_recv() {
        seen.push(filling(asked));
    }
    assert_eq!(seen, [1, 1, 1, 2, 3].map(Some));
}

/// What the value of a produce request is filled with.
fn filling((key, frame): Asked) -> Option<u8> {
    (key == 0).then(|| frame[frame.len() - 100])
}

/// A server that says "written, but not replicated in time" is not sent the same records again.
#[tokio::test]
async fn what_was_written_is_not_sent_again() {
    let world = World::new().await;
    let producer = world.producer(r#"{"isolation": "read_committed"}"#).await;
    let late = ErrorCode::RequestTimedOut { timeout_ms: 10, kind: Default::default() };
    let answer = produced(late, 5);
    let (address, mut asked) = scripted(move |_| Some(answer.clone())).await;
    world.lead_to(&address).await;
    let error = soon(send(&producer, b"value")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    soon(producer.close()).await.unwrap();
    let mut produced = 0;
    while let Ok((key, _)) = asked.try_recv() {
        produced += u32::from(key == 0);
    }
    assert_eq!(produced, 1);
}

/// A pause before a retry that nobody needs any more does not hold up the end.
#[tokio::test]
async fn close_does_not_wait_for_a_pause() {
    let world = World::new().await;
    let producer = world.producer(r#"{"retry_initial_ms": 60000, "retry_max_ms": 60000}"#).await;
    world.lead_to("127.0.0.1:1").await;
    let sent = send(&producer, b"value");
    let admin = crate::admin::Admin { cluster: Arc::clone(&world.cluster) };
    admin.delete_topic(world.topic).await.unwrap();
    let error = soon(sent).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
    soon(producer.close()).await.unwrap();
}

/// With several requests allowed in flight, a backlog of one partition uses them.
#[tokio::test]
async fn a_backlog_fills_what_may_be_in_flight() {
    let world = World::new().await;
    let producer = world.producer(r#"{"in_flight": 3, "batch_size_bytes": 1024, "linger_ms": 60000}"#).await;
    let (address, mut asked) = scripted(|_| None).await;
    world.lead_to(&address).await;
    let fates: Vec<_> = (0..5).map(|number| send(&producer, &[number; 900])).collect();
    let mut sent = Vec::new();
    while sent.len() < 3 {
        sent.extend(filling(soon(asked.recv()).await.unwrap()));
    }
    assert_eq!(sent, [0, 1, 2]);
    drop(fates);
}

/// A leader that moves is followed only once the request to the old one has its answer or was given up.
#[tokio::test]
async fn a_moved_leader_changes_no_order() {
    let world = World::patient(400).await;
    let producer = world.producer("{}").await;
    let (old, mut asked_old) = scripted(|_| None).await;
    world.lead_to(&old).await;
    let first = send(&producer, &[1; 900]);
    while soon(asked_old.recv()).await.unwrap().0 != 0 {}
    let mut next = 0..;
    let (new, mut asked_new) = scripted(move |_| next.next().map(|at| produced(ErrorCode::None, at))).await;
    world.place(OTHER, &new).await;
    world.lead(0, OTHER).await;
    let second = send(&producer, &[2; 900]);
    assert_eq!(soon(first).await.unwrap().unwrap().offset, 0);
    assert_eq!(soon(second).await.unwrap().unwrap().offset, 1);
    let mut seen = Vec::new();
    while let Ok(asked) = asked_new.try_recv() {
        seen.extend(filling(asked));
    }
    assert_eq!(seen, [1, 2]);
}

/// A connection that does not answer is given up: the retry goes over another one.
#[tokio::test]
async fn an_unanswered_request_is_repeated_on_another_connection() {
    let world = World::patient(200).await;
    let producer = world.producer("{}").await;
    let (address, _asked) =
        scripted_per_connection(|connection, _| (connection > 0).then(|| produced(ErrorCode::None, 3))).await;
    world.lead_to(&address).await;
    assert_eq!(soon(send(&producer, b"value")).await.unwrap().unwrap().offset, 3);
}

/// Retries have pauses between them, and end with the delivery time-out, which names the last error.
#[tokio::test]
async fn retries_end_with_the_delivery_time_out() {
    let world = World::new().await;
    let options = r#"{"retry_initial_ms": 50, "retry_max_ms": 100, "delivery_timeout_ms": 400, "batch_size_bytes": 1024}"#;
    let producer = world.producer(options).await;
    let (address, mut asked) = scripted(|_| Some(produced(ErrorCode::NotLeaderForPartition, -1))).await;
    world.lead_to(&address).await;
    // More batches wait behind the first one.
    let fates = [1, 2, 3].map(|number| send(&producer, &[number; 900]));
    let [first, ..] = fates;
    let error = soon(first).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.message().contains("delivery time-out of 400 ms"), "{error}");
    let mut attempts = 0;
    while let Ok(asked) = asked.try_recv() {
        attempts += u32::from(filling(asked).is_some());
    }
    assert!((2..=8).contains(&attempts), "{attempts} attempts");
}

/// A partition that was given up is tried again by the next record without a key, and partitions that are added are used.
#[tokio::test]
async fn a_partition_that_failed_comes_back_into_turn() {
    let world = World::new().await;
    let producer = world.producer(r#"{"delivery_timeout_ms": 200}"#).await;
    // Before the dispatcher has run for the first time.
    world.place(OTHER, "127.0.0.1:1").await;
    world.add_partition(OTHER).await;
    let counted = async {
        while producer.partition_count() < 2 {
            tokio::task::yield_now().await
        }
    };
    soon(counted).await;
    let error = soon(send_to(&producer, Some(1), b"value")).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.message().contains("127.0.0.1:1"), "{error}");
    let mut next = 0..;
    let (address, _asked) =
        scripted(move |_| next.next().map(|at| produced_to(1, ErrorCode::None, at))).await;
    world.place(OTHER, &address).await;
    // Once the pause before the next attempt is over, or the driver has heard of the new address.
    let both = async {
        let mut partitions = BTreeSet::new();
        while partitions.len() < 2 {
            partitions.insert(send(&producer, b"value").await.unwrap().unwrap().partition);
        }
    };
    soon(both).await;
}

/// A batch lingers although nothing is in flight, and takes in what comes meanwhile.
#[tokio::test]
async fn a_batch_lingers() {
    let world = World::new().await;
    let producer = world.producer(r#"{"linger_ms": 400}"#).await;
    let (address, mut asked) = scripted(|_| Some(produced(ErrorCode::None, 0))).await;
    world.lead_to(&address).await;
    let first = send(&producer, &[1; 900]);
    assert!(tokio::time::timeout(Duration::from_millis(50), asked.recv()).await.is_err());
    let second = send(&producer, &[2; 900]);
    assert_eq!(soon(first).await.unwrap().unwrap().offset, 0);
    assert_eq!(soon(second).await.unwrap().unwrap().offset, 1);
}

/// With several requests in flight a later batch can be written first: a flush still waits for the earlier one.
#[tokio::test]
async fn a_flush_waits_for_a_batch_that_was_overtaken() {
    let world = World::new().await;
    let producer = world.producer(r#"{"in_flight": 2, "retry_initial_ms": 300}"#).await;
    let codes = [(ErrorCode::NotLeaderForPartition, -1), (ErrorCode::None, 0), (ErrorCode::None, 1)];
    let mut answers = codes.into_iter();
    let (address, _asked) = scripted(move |_| answers.next().map(|(code, at)| produced(code, at))).await;
    world.lead_to(&address).await;
    let mut first = send(&producer, &[1; 900]);
    let flush = producer.flush();
    tokio::pin!(flush);
    assert!(futures_util::poll!(flush.as_mut()).is_pending());
    let second = send(&producer, &[2; 900]);
    assert_eq!(soon(second).await.unwrap().unwrap().offset, 0);
    assert!(first.try_recv().is_err());
    assert!(futures_util::poll!(flush.as_mut()).is_pending());
    soon(flush).await;
    assert_eq!(first.try_recv().unwrap().unwrap().offset, 1);
}

/// A bug in the task of a producer reaches everybody who waits, and who comes later.
#[tokio::test]
async fn a_panic_reaches_whoever_waits() {
    let world = World::new().await;
    let producer = world.producer(r#"{"batch_size_bytes": 1024}"#).await;
    let bug = encoded(&ProduceResponse { throttle_time_ms: i32::MIN, ..Default::default() });
    let (address, mut asked) = scripted(move |key| (key == 0).then(|| bug.clone())).await;
    world.lead_to(&address).await;
    let sent = [send(&producer, &[1; 900]), send(&producer, &[2; 900])];
    let flushed = producer.flush();
    while soon(asked.recv()).await.unwrap().0 != 0 {}
    // The second one was still in its queue.
    for (fate, outcome) in sent.into_iter().zip([Outcome::Unknown, Outcome::NotSent]) {
        let error = soon(fate).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
        assert_eq!(error.outcome(), Some(outcome), "{error}");
    }
    soon(flushed).await;
    // Refused at the call.
    let later = producer.send(&mut None, None, b"later", None, || panic!("it was accepted"));
    let error = later.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Panic, Some(Outcome::NotSent)), "{error}");
    let error = soon(producer.close()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panic, "{error}");
}

/// Every close says what was given up, whichever of them did it; and who comes later learns that nothing was sent.
#[tokio::test]
async fn whoever_closes_learns_what_was_given_up() {
    let world = World::new().await;
    let producer = world.producer("{}").await;
    let (address, mut asked) = scripted(|_| None).await;
    world.lead_to(&address).await;
    let fate = send(&producer, b"value");
    while soon(asked.recv()).await.unwrap().0 != 0 {}
    let (first, second) = soon(async { tokio::join!(producer.close(), producer.close()) }).await;
    producer.close().await.unwrap();
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.detail()["undelivered"], 1);
    }
    assert_eq!(soon(fate).await.unwrap().unwrap_err().outcome(), Some(Outcome::Unknown));
    let error = producer.reserve(10).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), error.topic()),
        (ErrorKind::Closed, Some(Outcome::NotSent), Some("orders"))
    );
}
