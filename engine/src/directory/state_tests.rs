//! What is learnt last counts, only those concerned are told, and no single silence ends a topic.

use std::sync::Arc;

use fluvio_controlplane_metadata::message::{Message, MsgType};
use fluvio_controlplane_metadata::partition::PartitionSpec;
use fluvio_controlplane_metadata::spu::SpuSpec;
use fluvio_controlplane_metadata::topic::{
    Bounds, Deduplication, Filter, PartitionMap, ReplicaSpec, TopicSpec, Transform,
};
use fluvio_sc_schema::objects::{Metadata as Object, MetadataUpdate};
use tokio::sync::watch;

use super::state::State;
use super::topic::Incarnation;

fn topic(name: &str, partitions: u32) -> Object<TopicSpec> {
    let spec = TopicSpec::new_computed(partitions, 1, None);
    Object { name: name.to_owned(), spec, status: Default::default() }
}

fn partition(topic: &str, index: u32, leader: i32) -> Object<PartitionSpec> {
    let spec = PartitionSpec::new(leader, vec![leader]);
    Object { name: format!("{topic}-{index}"), spec, status: Default::default() }
}

fn spu(id: i32, host: &str) -> Object<SpuSpec> {
    let mut spec = SpuSpec { id, ..SpuSpec::default() };
    spec.public_endpoint.ingress =
        vec![fluvio_controlplane_metadata::spu::IngressAddr { hostname: Some(host.to_owned()), ip: None }];
    Object { name: format!("spu-{id}"), spec, status: Default::default() }
}

fn told<S>(header: MsgType, objects: Vec<Object<S>>) -> MetadataUpdate<S>
where
    S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
    S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
{
    let changes = objects.into_iter().map(|content| Message { header: header.clone(), content }).collect();
    MetadataUpdate { epoch: 1, changes, all: Vec::new() }
}

fn all<S>(all: Vec<Object<S>>) -> MetadataUpdate<S>
where
    S: fluvio_sc_schema::core::Spec + fluvio_protocol::Encoder + fluvio_protocol::Decoder,
    S::Status: fluvio_protocol::Encoder + fluvio_protocol::Decoder + std::fmt::Debug,
{
    MetadataUpdate { epoch: 1, changes: Vec::new(), all }
}

/// Topics "a" and "b", a partition each, led by SPU 1 and SPU 2.
fn state() -> State {
    let mut state = State::default();
    assert!(state.update_topics(all(vec![topic("a", 1), topic("b", 1)]), true).is_empty());
    state.update_partitions(all(vec![partition("a", 0, 1), partition("b", 0, 2)]), true);
    state.update_spus(all(vec![spu(1, "one"), spu(2, "two"), spu(3, "three")]), true);
    state
}

fn leaders(incarnation: &Incarnation) -> Vec<Option<i32>> {
    incarnation.leaders().iter().map(|spu| spu.as_ref().map(|spu| spu.id)).collect()
}

fn has_changed(changes: &mut watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap();
    changes.mark_unchanged();
    changed
}

#[test]
fn only_those_concerned_are_told() {
    let mut state = state();
    let (a, b) = (state.hold("a").unwrap(), state.hold("b").unwrap());
    let (mut of_a, mut of_b) = (a.changes(), b.changes());
    // The status of a partition: nothing that concerns anybody here.
    state.update_partitions(told(MsgType::UPDATE, vec![partition("a", 0, 1)]), false);
    assert!(!has_changed(&mut of_a));
    state.update_partitions(told(MsgType::UPDATE, vec![partition("a", 0, 3)]), false);
    assert_eq!((has_changed(&mut of_a), has_changed(&mut of_b)), (true, false));
    assert_eq!(leaders(&a), [Some(3)]);
    state.update_spus(told(MsgType::UPDATE, vec![spu(2, "elsewhere")]), false);
    assert_eq!((has_changed(&mut of_a), has_changed(&mut of_b)), (false, true));
    assert!(b.leaders()[0].as_ref().unwrap().address.starts_with("elsewhere:"));
    state.update_spus(told(MsgType::DELETE, vec![spu(2, "elsewhere")]), false);
    assert_eq!(leaders(&b), [None]);
    state.update_topics(told(MsgType::UPDATE, vec![topic("b", 2)]), false);
    assert_eq!(leaders(&b), [None, None]);
    state.update_topics(told(MsgType::DELETE, vec![topic("b", 2)]), false);
    assert!(has_changed(&mut of_b) && b.ended().is_some());
    assert!(!has_changed(&mut of_a) && a.ended().is_none());
}

/// Only what a watch begins with says that something may have been missed.
#[test]
fn a_new_watch_leaves_doubt() {
    let mut state = state();
    let a = state.hold("a").unwrap();
    let mut of_a = a.changes();
    state.update_topics(all(vec![topic("a", 1), topic("b", 1)]), false);
    assert!(!has_changed(&mut of_a) && a.doubts() == 0);
    state.update_topics(all(vec![topic("a", 1), topic("b", 1)]), true);
    assert!(has_changed(&mut of_a) && a.doubts() == 1);
}

/// Where an acknowledged record may not be in the log, a shorter log proves nothing.
#[test]
fn what_keeps_all_is_known() {
    let mut state = state();
    assert!(state.hold("a").unwrap().keeps_all());
    let assigned = |second: Vec<i32>| {
        let map = |id, replicas| PartitionMap { id, replicas, mirror: None };
        TopicSpec::from(ReplicaSpec::Assigned(vec![map(0, vec![1]), map(1, second)].into()))
    };
    let mut deduplicated = TopicSpec::new_computed(1, 1, None);
    deduplicated.set_deduplication(Some(Deduplication {
        bounds: Bounds { count: 1, age: None },
        filter: Filter { transform: Transform { uses: "filter".to_owned(), with: Default::default() } },
    }));
    let cases = [
        (TopicSpec::new_computed(1, 2, None), false),
        (deduplicated, false),
        (assigned(vec![2]), true),
        (assigned(vec![2, 1]), false),
    ];
    for (spec, keeps_all) in cases {
        let topic = Object { name: "c".to_owned(), spec, status: Default::default() };
        state.update_topics(told(MsgType::UPDATE, vec![topic]), false);
        state.update_partitions(
            told(MsgType::UPDATE, vec![partition("c", 0, 1), partition("c", 1, 1)]),
            false,
        );
        assert_eq!(state.hold("c").unwrap().keeps_all(), keeps_all);
    }
}

#[test]
fn a_topic_of_the_same_name_is_another_one() {
    let mut state = state();
    for again in [1, 2] {
        let old = state.hold("a").unwrap();
        state.update_topics(told(MsgType::DELETE, vec![topic("a", 1)]), false);
        state.update_topics(told(MsgType::UPDATE, vec![topic("a", again)]), false);
        assert!(old.ended().unwrap().message().contains("was deleted"));
        state.update_partitions(
            told(MsgType::UPDATE, vec![partition("a", 0, 2), partition("a", 1, 2)]),
            false,
        );
        let new = state.hold("a").unwrap();
        assert!(!Arc::ptr_eq(&old, &new) && new.ended().is_none());
        assert_eq!(leaders(&new).len(), again as usize);
        // What ended stays as it was.
        assert_eq!(leaders(&old).len(), 1);
    }
}

#[test]
fn fewer_partitions_are_another_topic_and_more_are_not() {
    let mut state = state();
    state.update_partitions(told(MsgType::UPDATE, vec![partition("a", 1, 2), partition("a", 2, 2)]), false);
    let one = state.hold("a").unwrap();
    let asked = state.revision();
    state.learn(asked, &topic("a", 3), &[], &[]);
    assert_eq!(leaders(&one), [Some(1), Some(2), Some(2)]);
    state.update_topics(all(vec![topic("a", 2), topic("b", 1)]), true);
    assert!(one.ended().unwrap().message().contains("fewer partitions"));
    assert_eq!(leaders(&state.hold("a").unwrap()), [Some(1), Some(2)]);
}

#[test]
fn a_resync_that_leaves_a_topic_out_ends_it_and_an_empty_one_leaves_it_in_doubt() {
    let mut state = state();
    let (a, b) = (state.hold("a").unwrap(), state.hold("b").unwrap());
    for first in [true, false] {
        let mut doubts = state.update_topics(all(Vec::new()), first);
        doubts.sort();
        assert_eq!(doubts, ["a", "b"]);
        assert!(a.ended().is_none() && b.ended().is_none());
    }
    assert!(state.update_topics(all(vec![topic("b", 1)]), false).is_empty());
    assert!(a.ended().is_some() && b.ended().is_none());
    // Nobody holds it: nobody has to ask.
    drop(b);
    assert!(state.update_topics(all(Vec::new()), true).is_empty());
    assert!(state.hold("b").is_none());
}

#[test]
fn what_only_a_list_told_of_is_not_ended_by_news_of_an_earlier_one() {
    let mut state = state();
    let asked = state.revision();
    state.learn(asked, &topic("new", 1), &[partition("new", 0, 1)], &[]);
    let new = state.hold("new").unwrap();
    assert_eq!(state.update_topics(told(MsgType::DELETE, vec![topic("new", 1)]), false), ["new"]);
    assert!(new.ended().is_none());
    // From here on the watch knows of it.
    assert!(state.update_topics(told(MsgType::UPDATE, vec![topic("new", 1)]), false).is_empty());
    assert!(state.update_topics(told(MsgType::DELETE, vec![topic("new", 1)]), false).is_empty());
    assert!(new.ended().is_some());
}

#[test]
fn a_list_replaces_what_was_known_before() {
    let mut state = state();
    let asked = state.revision();
    state.learn(asked, &topic("a", 2), &[partition("a", 0, 2)], &[]);
    // The second partition has no leader yet.
    assert!(state.hold("a").is_none());
    let asked = state.revision();
    assert!(state.forget(asked, "a"));
    assert!(!state.is_known("a"));
}

#[test]
fn a_list_gives_way_to_what_the_watch_has_told_since() {
    let mut state = state();
    let asked = state.revision();
    state.update_partitions(told(MsgType::UPDATE, vec![partition("a", 0, 3)]), false);
    state.update_topics(told(MsgType::UPDATE, vec![topic("a", 1)]), false);
    state.learn(asked, &topic("a", 2), &[partition("a", 0, 2)], &[]);
    assert_eq!(leaders(&state.hold("a").unwrap()), [Some(3)]);
    // Created while the list was on its way.
    assert!(!state.forget(asked, "a"));
    assert!(state.is_known("a"));
}

#[test]
fn whoever_has_proof_ends_an_incarnation_and_no_later_one() {
    let mut state = state();
    let old = state.hold("a").unwrap();
    state.end(&old, "is another one");
    assert!(old.ended().unwrap().message().contains("is another one"));
    assert!(!state.is_known("a"));
    state.update_topics(told(MsgType::UPDATE, vec![topic("a", 1)]), false);
    let new = state.hold("a").unwrap();
    state.end(&old, "again");
    assert!(Arc::ptr_eq(&state.hold("a").unwrap(), &new) && new.ended().is_none());
}
