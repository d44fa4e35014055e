//! Look-ups against an SC that is scripted answer by answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::TopicSpec;
use fluvio_protocol::Encoder;
use fluvio_protocol::api::Request;
use fluvio_sc_schema::objects::{
    ListResponse, Metadata as Object, MetadataUpdate, ObjectApiListRequest, ObjectApiListResponse,
};
use fluvio_sc_schema::{AdminSpec, TryEncodableFrom};
use tokio::sync::mpsc;

use super::Directory;
use crate::error::ErrorKind;
use crate::link::{Pool, Settings};
use crate::spu_tests::{scripted, soon};

const LIST: u16 = 1003;

fn listed<S>(objects: Vec<Object<S>>) -> Vec<u8>
where
    S: AdminSpec,
    S::Status: Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
{
    let version = ObjectApiListRequest::MAX_API_VERSION;
    let answer = ObjectApiListResponse::try_encode_from(ListResponse::new(objects), version).unwrap();
    let mut bytes = Vec::new();
    answer.encode(&mut bytes, version).unwrap();
    bytes
}

fn topics(there: bool) -> Vec<u8> {
    let spec = TopicSpec::new_computed(1, 1, None);
    listed(if there {
        vec![Object { name: "t".to_owned(), spec, status: Default::default() }]
    } else {
        vec![]
    })
}

fn partitions() -> Vec<u8> {
    let spec = PartitionSpec::new(1, vec![1]);
    listed(vec![Object { name: "t-0".to_owned(), spec, status: Default::default() }])
}

fn spus() -> Vec<u8> {
    let spec = SpuSpec { id: 1, ..SpuSpec::default() };
    listed(vec![Object { name: "spu-1".to_owned(), spec, status: Default::default() }])
}

/// A directory whose SC gives these answers to list requests, and what it was asked.
async fn directory(answers: Vec<Vec<u8>>) -> (Arc<Directory>, mpsc::UnboundedReceiver<u16>) {
    let mut answers = VecDeque::from(answers);
    let (asked, lists) = mpsc::unbounded_channel();
    let (endpoint, _) = scripted(move |key| {
        if key == LIST {
            // Not every test counts.
            let _ = asked.send(key);
            answers.pop_front()
        } else {
            None
        }
    })
    .await;
    let settings = Settings {
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_frame: wire::frame::DEFAULT_MAX_PAYLOAD,
        budget: None,
    };
    let pool = Pool::new(endpoint.clone(), settings);
    (Directory::new(endpoint, pool), lists)
}

fn know(directory: &Directory) {
    let update = |all| MetadataUpdate { epoch: 1, changes: Vec::new(), all };
    let spec = TopicSpec::new_computed(1, 1, None);
    let topic = Object { name: "t".to_owned(), spec, status: Default::default() };
    let mut state = directory.state.lock();
    state.update_topics(update(vec![topic]), true);
    let spec = PartitionSpec::new(1, vec![1]);
    let partition = Object { name: "t-0".to_owned(), spec, status: Default::default() };
    state.update_partitions(MetadataUpdate { epoch: 1, changes: Vec::new(), all: vec![partition] }, true);
}

#[tokio::test]
async fn a_thousand_who_ask_cost_one_look_up() {
    let (directory, mut lists) = directory(vec![topics(true), partitions(), spus()]).await;
    let all = futures_util::future::join_all((0..1000).map(|_| directory.look_up("t", false)));
    assert!(soon(all).await.iter().all(Result::is_ok));
    assert_eq!(directory.topic("t").unwrap().leader(0).unwrap().id, 1);
    let count = std::iter::from_fn(|| lists.try_recv().ok()).count();
    assert_eq!(count, 3);
}

#[tokio::test]
async fn who_loses_patience_ends_a_look_up_for_nobody_else() {
    let (directory, _) = directory(vec![topics(true), partitions(), spus()]).await;
    let mut first = Box::pin(directory.look_up("t", false));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let second = directory.look_up("t", false);
    drop(first);
    soon(second).await.unwrap();
}

#[tokio::test]
async fn one_empty_answer_ends_nothing() {
    let answers = vec![topics(false), topics(false), topics(true), partitions(), spus()];
    let (directory, _) = directory(answers).await;
    know(&directory);
    let topic = directory.topic("t").unwrap();
    soon(topic.look_up()).await.unwrap();
    assert!(topic.deleted().is_none());
    assert_eq!(topic.leader(0).unwrap().id, 1);
}

#[tokio::test]
async fn two_empty_answers_in_a_row_end_a_topic() {
    let (directory, _) = directory(vec![topics(false); 4]).await;
    know(&directory);
    let topic = directory.topic("t").unwrap();
    let error = soon(topic.look_up()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicDeleted);
    assert_eq!(error.topic(), Some("t"));
    assert_eq!(topic.deleted().unwrap().message(), error.message());
}

#[tokio::test]
async fn one_empty_answer_is_enough_where_nothing_was_known() {
    let (directory, _) = directory(vec![topics(false); 2]).await;
    let error = soon(directory.open("t")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
}

/// Whoever asks again and again does so about once a second, together with all others.
#[tokio::test]
async fn look_ups_that_follow_each_other_keep_their_pace() {
    let answers = [topics(true), partitions(), spus()].into_iter().cycle().take(6).collect();
    let (directory, _) = directory(answers).await;
    soon(directory.look_up("t", false)).await.unwrap();
    let begun = tokio::time::Instant::now();
    soon(directory.look_up("t", false)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
}
