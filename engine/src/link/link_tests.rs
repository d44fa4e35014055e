//! Links against a listener that counts, refuses or keeps silent.

use std::time::{Duration, Instant};

use fluvio_devserver::{Config, Server};
use tokio::net::TcpListener;

use super::{Link, Links, Settings};
use crate::directory::Spu;
use crate::error::{Error, ErrorKind};

const PATIENCE: Duration = Duration::from_secs(20);

fn spu(address: &str) -> Spu {
    Spu { id: 5001, name: "spu-5001".into(), address: address.into() }
}

fn settings(connect_timeout: Duration) -> Settings {
    Settings {
        client_id: "test".to_owned(),
        connect_timeout,
        request_timeout: Duration::from_secs(10),
        max_frame: wire::frame::DEFAULT_MAX_PAYLOAD,
        budget: None,
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("within a reasonable time")
}

/// A thousand who wait for one SPU open one connection, or share one failure.
#[tokio::test]
async fn all_who_wait_share_one_attempt() {
    let server = Server::start(Config::default()).await.unwrap();
    let link = Link::new(spu(&server.endpoint()), settings(PATIENCE));
    let all = futures_util::future::join_all((0..1000).map(|_| link.connection()));
    let connections: Vec<_> = soon(all).await.into_iter().map(|opened| opened.unwrap()).collect();
    connections[0].fail(Error::closed("test"));
    assert!(connections.iter().all(super::Connection::is_lost), "more than one connection");
    // The next attempt is a new one.
    assert!(!soon(link.connection()).await.unwrap().is_lost());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = Link::new(spu(&address), settings(Duration::from_millis(300)));
    let begun = tokio::time::Instant::now();
    let all = futures_util::future::join_all((0..1000).map(|_| silent.connection()));
    for outcome in soon(all).await {
        let error = outcome.expect_err("nobody shakes hands");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!((error.spu(), error.endpoint()), (Some(5001), Some(address.as_str())));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "one after another: {:?}", begun.elapsed());
    // One connection came for all of them.
    soon(listener.accept()).await.unwrap();
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
}

/// Who loses patience ends the attempt for nobody else.
#[tokio::test]
async fn an_attempt_outlives_who_began_it() {
    let server = Server::start(Config::default()).await.unwrap();
    let link = Link::new(spu(&server.endpoint()), settings(PATIENCE));
    let mut first = Box::pin(link.connection());
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    drop(first);
    soon(link.connection()).await.unwrap();
}

#[tokio::test]
async fn closed_is_closed_for_those_who_wait_and_those_who_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let links = Links::new(settings(PATIENCE));
    let there = spu(&listener.local_addr().unwrap().to_string());
    let link = links.to(&there);
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { link.connection().await }
    });
    soon(listener.accept()).await.unwrap();
    links.close();
    assert_eq!(soon(waiting).await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(link.connection().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(links.to(&there).connection().await.unwrap_err().kind(), ErrorKind::Closed);
}

/// An SPU that is announced elsewhere gets another link; the former one serves those who have it.
#[tokio::test]
async fn another_address_is_another_link() {
    let server = Server::start(Config::default()).await.unwrap();
    let links = Links::new(settings(PATIENCE));
    let there = spu(&server.endpoint());
    let connection = soon(links.to(&there).connection()).await.unwrap();
    assert!(!soon(links.to(&there).connection()).await.unwrap().is_lost());
    let elsewhere = links.to(&spu("127.0.0.1:1"));
    assert_eq!(soon(elsewhere.connection()).await.unwrap_err().kind(), ErrorKind::Connection);
    soon(connection.ping()).await.unwrap();
}

/// A server that answers and then drops each connection is hammered by nobody.
#[tokio::test]
async fn what_was_of_no_use_comes_back_ever_more_slowly() {
    let server = Server::start(Config::default()).await.unwrap();
    let attempts = async |count: u32, of_use: bool| {
        let link = Link::new(spu(&server.endpoint()), settings(PATIENCE));
        let begun = Instant::now();
        for _ in 0..count {
            let connection = link.connection().await.unwrap();
            connection.ping().await.unwrap();
            if of_use {
                link.was_of_use();
            }
            connection.fail(Error::closed("test"));
        }
        begun.elapsed()
    };
    // At least 25, 50, 100 and 200 ms lie between them; between twenty it would be more than a minute.
    let (of_no_use, _) = soon(async { tokio::join!(attempts(5, false), attempts(20, true)) }).await;
    assert!(of_no_use >= Duration::from_millis(375), "{of_no_use:?}");
}
