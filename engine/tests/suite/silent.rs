//! A server process that falls silent, comes back, or is killed and restarted.

use std::time::{Duration, Instant};

use crate::common::process::Process;
use crate::common::{PATIENCE, impatient, options, receive, send, submit, topic};
use engine::ErrorKind;
use engine::admin::ListTopics;
use engine::consumer::Taken;
use engine::producer::ProducerOptions;

const BEGINNING: &str = r#"{"start": {"beginning": 0}}"#;

fn number(value: &[u8]) -> u32 {
    u32::from_be_bytes(value.try_into().expect("a number"))
}

/// While the server is stopped nothing is lost; afterwards everything goes on, complete and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_noticed_and_nothing_is_lost() {
    let server = Process::start();
    let client = impatient(&server.endpoint, PATIENCE).await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    let mut acks = Vec::new();
    for number in 0..10u32 {
        acks.push(submit(&producer, None, &number.to_be_bytes(), None).await.unwrap());
    }
    receive(&consumer, 10).await;

    server.stop();
    let silent = Instant::now();
    for number in 10..20u32 {
        acks.push(submit(&producer, None, &number.to_be_bytes(), None).await.unwrap());
    }
    let error = client.admin().list_topics(ListTopics::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(silent.elapsed() < Duration::from_secs(10), "{:?}", silent.elapsed());
    // Long enough for every connection to be given up at least once.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.go_on();

    for number in 20..30u32 {
        acks.push(submit(&producer, None, &number.to_be_bytes(), None).await.unwrap());
    }
    for ack in acks {
        tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged").unwrap().unwrap();
    }
    // What was unanswered when the server fell silent may be there twice, but nothing is missing or out of order.
    let mut next = 10;
    let mut offset = 10;
    while next < 30 {
        for (_, at, _, value) in receive(&consumer, 1).await {
            assert_eq!(at, offset);
            offset += 1;
            assert!(number(&value) <= next, "{next} is missing in front of {}", number(&value));
            next = next.max(number(&value) + 1);
        }
    }
    client.close().await;
}

/// A consumer that waits on a silent server gets a new connection and goes on, although it sends nothing itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_notices_silence() {
    let server = Process::start();
    let client = impatient(&server.endpoint, PATIENCE).await;
    let other = impatient(&server.endpoint, PATIENCE).await;
    let name = topic(&client, 2).await;
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    for round in 0..2u32 {
        server.stop();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        server.go_on();
        let producer = other.producer(&name, ProducerOptions::default()).await.unwrap();
        send(&producer, None, &round.to_be_bytes()).await.unwrap();
        assert_eq!(number(&receive(&consumer, 1).await[0].3), round);
    }
}

/// The server is killed and comes back on its port with nothing in it: both ends are told, and the client works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_hangs_nobody() {
    let mut server = Process::start();
    let client = impatient(&server.endpoint, PATIENCE).await;
    let name = topic(&client, 2).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let consumer = client.consumer(&name, options(BEGINNING)).await.unwrap();
    send(&producer, None, b"value").await.unwrap();
    receive(&consumer, 1).await;
    server.kill();
    let waiting = submit(&producer, None, b"late", None).await.unwrap();
    let error = client.admin().list_topics(ListTopics::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");

    let _again = Process::listen(&server.endpoint);
    let error = tokio::time::timeout(PATIENCE, waiting).await.expect("is told").unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
    let end = async {
        loop {
            consumer.ready().await;
            match consumer.take() {
                Err(error) => assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}"),
                Ok(Taken::End) => return,
                Ok(other) => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the consumer ends");
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    send(&producer, None, b"value").await.unwrap();
}
