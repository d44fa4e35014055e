//! Connections that are killed while records move, and peers that are no Fluvio server.

use std::time::Duration;

use crate::common::{Cluster, PATIENCE, options, receive, send, send_many, submit, topic};
use engine::admin::ListTopics;
use engine::consumer::Taken;
use engine::producer::ProducerOptions;
use engine::{Client, ClientOptions, ErrorKind};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Reads a backlog while all connections are killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_survives_kills() {
    for (count, size) in [(1_000_000usize, 100), (50_000, 1_000)] {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let name = topic(&client, 1).await;
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        let values: Vec<Vec<u8>> = (0..count)
            .map(|number| {
                let mut value = vec![b'.'; size];
                value[..8].copy_from_slice(&(number as u64).to_be_bytes());
                value
            })
            .collect();
        send_many(&producer, &values, None).await;
        let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
        let mut next = 0usize;
        let mut kill_at = 0;
        let mut kills = 0;
        while next < count {
            tokio::time::timeout(PATIENCE, consumer.ready()).await.expect("data goes on after a kill");
            let Taken::Batch(batch) = consumer.take().unwrap() else { continue };
            for i in 0..batch.len() {
                let columns = batch.columns();
                let value = &batch.data()[columns.value_starts[i] as usize..columns.value_ends[i] as usize];
                assert_eq!(columns.offsets[i], next as i64);
                assert!(value == values[next]);
                next += 1;
            }
            if next >= kill_at {
                cluster.server().close_connections();
                kills += 1;
                kill_at = next + rand::rng().random_range(1..count / 10);
            }
        }
        assert!(kills > 5);
    }
}

/// Produces while all connections are killed: everything that was accepted is acknowledged, is in the log, and in order
/// apart from the repetitions that a retry may cause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_survives_kills() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 1).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    let mut acks = Vec::new();
    for number in 0..20_000u32 {
        acks.push(submit(&producer, None, &number.to_be_bytes(), None).await.unwrap());
        if number % 2_500 == 0 {
            cluster.server().close_connections();
        }
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for ack in acks {
        tokio::time::timeout(PATIENCE, ack).await.expect("acknowledged in time").unwrap().unwrap();
    }
    let end = send(&producer, None, b"last").await.unwrap().offset;
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    let received = receive(&consumer, end as usize + 1).await;
    let mut expected = 0u32;
    for (_, _, _, value) in &received[..end as usize] {
        let number = u32::from_be_bytes(value[..].try_into().unwrap());
        assert!(number <= expected, "record {expected} is missing in front of {number}");
        expected = expected.max(number + 1);
    }
    assert_eq!(expected, 20_000);
}

/// After the SC's connection was lost, administration and metadata work again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_recovers() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    for _ in 0..5 {
        let name = topic(&client, 2).await;
        cluster.server().close_connections();
        let listed = client.admin().list_topics(ListTopics::default()).await.unwrap();
        assert!(listed.iter().any(|topic| topic.name == name));
        let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
        send(&producer, None, b"value").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_told_to_both_ends() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let name = topic(&client, 2).await;
    let producer = client.producer(&name, ProducerOptions::default()).await.unwrap();
    send(&producer, None, b"value").await.unwrap();
    let consumer = client.consumer(&name, options(r#"{"start": {"beginning": 0}}"#)).await.unwrap();
    receive(&consumer, 1).await;
    client.admin().delete_topic(&name).await.unwrap();
    let mut errors = 0;
    let end = async {
        loop {
            consumer.ready().await;
            match consumer.take() {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
                    errors += 1;
                }
                Ok(Taken::End) => return,
                Ok(other) => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the consumer ends");
    // The consumer as a whole, not each partition.
    assert_eq!(errors, 1);
    let error =
        tokio::time::timeout(PATIENCE, send(&producer, None, b"late")).await.expect("is told").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted, "{error}");
}

/// What a peer does with a connection instead of answering like a Fluvio server.
#[derive(Debug, Clone, Copy)]
enum Peer {
    Silent,
    Closes,
    Http,
    Nonsense,
    WrongAnswer,
    EndlessFrame,
    HugeFrame,
}

async fn serve(peer: Peer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 16];
                let _ = stream.read(&mut request).await;
                match peer {
                    Peer::Closes => return,
                    Peer::Silent => {}
                    Peer::Http => drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await),
                    Peer::Nonsense => {
                        let mut answer = vec![0, 0, 0, 40, 0, 0, 0, 1];
                        answer.resize(44, 0xfe);
                        drop(stream.write_all(&answer).await);
                    }
                    Peer::WrongAnswer => drop(stream.write_all(&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]).await),
                    Peer::HugeFrame => drop(stream.write_all(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1]).await),
                    Peer::EndlessFrame => {
                        drop(stream.write_all(&[0x03, 0, 0, 0, 0, 0, 0, 1]).await);
                        while stream.write_all(&[0; 1024]).await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
                // Holds the connection until the client closes it.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_are_no_server_give_an_error_in_time() {
    for (peer, kind) in [
        (Peer::Silent, ErrorKind::Timeout),
        (Peer::Closes, ErrorKind::Connection),
        (Peer::Http, ErrorKind::Protocol),
        (Peer::Nonsense, ErrorKind::Protocol),
        (Peer::WrongAnswer, ErrorKind::Protocol),
        (Peer::EndlessFrame, ErrorKind::Timeout),
        (Peer::HugeFrame, ErrorKind::Protocol),
    ] {
        let endpoint = serve(peer).await;
        let options = ClientOptions {
            endpoint: Some(endpoint.clone()),
            connect_timeout_ms: 300,
            ..ClientOptions::default()
        };
        let outcome = tokio::time::timeout(Duration::from_secs(10), Client::connect(options)).await;
        let error = outcome.unwrap_or_else(|_| panic!("{peer:?}: no error in time")).unwrap_err();
        assert_eq!(error.kind(), kind, "{peer:?}: {error}");
        assert!(error.message().contains(&endpoint), "{peer:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_platform_is_refused() {
    let config =
        fluvio_devserver::Config { platform_version: semver::Version::new(0, 8, 9), ..Default::default() };
    let server = fluvio_devserver::Server::start(config).await.unwrap();
    let error = crate::common::connect(&server.endpoint()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.message().contains("0.8.9"), "{error}");
}

/// However long the SC is away: of a topic that was made anew only the watch may tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_is_tried_each_second() {
    // With steps that go on doubling, so many take more than 15 s.
    const TRIES: usize = 12;
    const LIMIT: Duration = Duration::from_secs(12);
    let mut cluster = Cluster::start().await;
    let client = cluster.client().await;
    let address = cluster.server().endpoint();
    drop(cluster.server.take());
    let listener = loop {
        // Not before its own socket is closed.
        match TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let tries = async {
        for _ in 0..TRIES {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, tries).await.expect("tried once a second");
    client.close().await;
}
