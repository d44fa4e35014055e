//! No order of records, answers, losses, moves and time loses, doubles or reorders a record.

use std::time::Duration;

use proptest::prelude::*;

use super::Terms;
use super::model::{Op, World};
use crate::error::{ErrorKind, Outcome};

const PARTITIONS: u32 = 4;

fn terms(in_flight: usize, linger: u64, committed: bool) -> Terms {
    Terms {
        topic: "orders".to_owned(),
        in_flight,
        max_request_bytes: 500,
        linger: Duration::from_millis(linger),
        delivery_timeout: Duration::from_millis(1000),
        retry_initial: Duration::from_millis(10),
        retry_max: Duration::from_millis(100),
        request_timeout: Duration::from_millis(400),
        committed,
        keeps_all: true,
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..PARTITIONS).prop_map(Op::Push),
        6 => (0..2i32, prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)])
            .prop_map(|(spu, code)| Op::Handle(spu, code)),
        6 => (0..2i32).prop_map(Op::Deliver),
        2 => (0..2i32).prop_map(Op::Break),
        6 => prop::bool::weighted(0.7).prop_map(Op::Reach),
        2 => (0..PARTITIONS, prop::option::of(0..2i32)).prop_map(|(partition, spu)| Op::Lead(partition, spu)),
        4 => (1..150u64).prop_map(Op::Pass),
        1 => (300..1200u64).prop_map(Op::Pass),
        1 => Just(Op::Hurry),
        1 => Just(Op::Doubt),
        2 => (0..2i32).prop_map(Op::Others),
        1 => (0..2i32).prop_map(Op::LeaveOut),
    ]
}

fn end() -> impl Strategy<Value = Option<Op>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(Op::Delete)), 1 => Just(Some(Op::GiveUp)),
        1 => Just(Some(Op::Recreate)), 1 => Just(Some(Op::Replace))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_record_has_one_fate(
        ops in prop::collection::vec(op(), 0..120),
        end in end(),
        late in prop::collection::vec(op(), 0..20),
        in_flight in prop_oneof![2 => Just(1usize), 1 => Just(3)],
        linger in prop_oneof![Just(0u64), Just(50)],
        committed in any::<bool>(),
    ) {
        let mut world = World::new(terms(in_flight, linger, committed), PARTITIONS);
        for op in ops {
            world.run(op);
        }
        for op in end.into_iter().chain(late) {
            world.run(op);
        }
        world.heal();
        world.check();
    }
}

fn run(world: &mut World, ops: &[Op]) {
    for op in ops {
        world.run(*op);
    }
}

/// A record of one partition that is acknowledged at once.
const SENT: [Op; 4] = [Op::Push(0), Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0)];

#[test]
fn nothing_is_written_to_a_topic_that_took_the_name() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &SENT);
    // The third record meets a partition that was never acknowledged: the whole topic is another one all the same.
    run(
        &mut world,
        &[Op::Recreate, Op::Push(0), Op::Push(2), Op::Reach(true), Op::Pass(50), Op::Reach(true)],
    );
    run(&mut world, &[Op::Handle(0, 0), Op::Deliver(0), Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(world.over);
    assert!(world.logs[0].is_empty(), "{:?}", world.logs);
    let error = world.fate(1).unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(Outcome::NotSent)));
}

/// Neither the cluster nor a lost connection told that the topic is another one: the offset of the next batch does.
#[test]
fn an_offset_that_was_taken_before_gives_the_topic_away() {
    for doubted in [false, true] {
        let mut world = World::new(terms(1, 0, false), PARTITIONS);
        run(&mut world, &SENT);
        run(&mut world, &[Op::Replace]);
        if doubted {
            run(&mut world, &[Op::Doubt]);
        }
        run(&mut world, &[Op::Push(0), Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0), Op::Push(0)]);
        assert!(world.over);
        let error = world.fate(1).unwrap().as_ref().unwrap_err();
        // Asked in time, it is not written to the new one.
        let outcome = if doubted { Outcome::NotSent } else { Outcome::Written };
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(outcome)));
        assert_eq!(world.logs[0].is_empty(), doubted);
    }
    // Where the log may lose what was acknowledged, that proves nothing.
    let mut replicated = World::new(Terms { keeps_all: false, ..terms(1, 0, false) }, PARTITIONS);
    run(&mut replicated, &SENT);
    run(&mut replicated, &[Op::Replace, Op::Push(0), Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(!replicated.over);
    assert_eq!(replicated.fate(1).unwrap().as_ref().unwrap(), &(0, 0));
}

/// A request that could not be checked for stays with its connection, and what goes over the next one stays with that.
#[test]
fn patience_is_lost_with_one_connection() {
    let mut world = World::new(terms(3, 0, false), PARTITIONS);
    run(
        &mut world,
        &[Op::Push(2), Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0), Op::Push(0), Op::Pass(400)],
    );
    run(
        &mut world,
        &[Op::Lead(0, Some(0)), Op::Push(2), Op::Reach(true), Op::Reach(false), Op::Push(0), Op::Push(0)],
    );
    run(&mut world, &[Op::Reach(false), Op::Pass(300), Op::Reach(true), Op::Reach(true), Op::Pass(100)]);
    world.heal();
    world.check();
}

/// Whoever shares a connection with others waits for their answers too.
#[test]
fn a_server_that_answers_others_is_waited_for() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Reach(true)]);
    for _ in 0..3 {
        run(&mut world, &[Op::Pass(300), Op::Others(0)]);
    }
    assert!(world.lost_patience.is_empty());
    run(&mut world, &[Op::Pass(399)]);
    assert!(world.lost_patience.is_empty());
    run(&mut world, &[Op::Pass(1)]);
    assert_eq!(world.lost_patience, [0]);
    world.heal();
    world.check();
}

/// An answer that is lost holds up a lane no longer than somebody waits for it, however many batches are replicated.
#[test]
fn nothing_is_waited_for_in_vain() {
    let mut world = World::new(terms(1, 0, true), 200);
    for partition in (0..200).step_by(2) {
        world.run(Op::Push(partition));
    }
    // The first request has one batch, the second one a hundred less one.
    run(&mut world, &[Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0), Op::Pass(999)]);
    assert!(world.lost_patience.is_empty());
    run(&mut world, &[Op::Pass(1), Op::Pass(1)]);
    assert!(!world.lost_patience.is_empty());
    world.heal();
    world.check();
}

/// News of one partition put no other one in front of those that were in line before it.
#[test]
fn the_line_is_kept_when_leaders_move() {
    let one_at_a_time = Terms { max_request_bytes: 100, ..terms(1, 0, false) };
    let mut world = World::new(one_at_a_time, PARTITIONS);
    run(
        &mut world,
        &[Op::Push(2), Op::Push(0), Op::Lead(1, Some(0)), Op::Push(1), Op::Lead(1, Some(1)), Op::Reach(true)],
    );
    run(&mut world, &[Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(world.fate(0).is_some() && world.fate(1).is_none());
    run(&mut world, &[Op::Push(2), Op::Lead(1, Some(0)), Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(world.fate(1).is_some());
    world.heal();
    world.check();
}

/// One lost answer costs nobody else anything: the connection stays.
#[test]
fn one_lost_answer_is_one() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(
        &mut world,
        &[Op::Push(0), Op::Reach(true), Op::Handle(0, 0), Op::LeaveOut(0), Op::Pass(399), Op::Pass(1)],
    );
    assert!(world.lost_patience.is_empty());
    run(&mut world, &[Op::Handle(0, 0), Op::Deliver(0)]);
    assert_eq!(world.logs[0], [0, 0]);
    assert_eq!(world.fate(0).unwrap().as_ref().unwrap(), &(0, 1));
}

/// What was answered before the cluster was out of sight proves nothing about what is there now.
#[test]
fn an_answer_from_before_a_doubt_leaves_it() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &SENT);
    // The answer to a request that was under way.
    run(&mut world, &[Op::Push(0), Op::Handle(0, 0), Op::Doubt, Op::Deliver(0), Op::Replace, Op::Push(0)]);
    run(&mut world, &[Op::Reach(true)]);
    let error = world.fate(2).unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TopicDeleted, Some(Outcome::NotSent)));
}

/// An SPU that says nothing is as good as away for those who can go elsewhere, long before its connection is given up.
#[test]
fn silence_is_told() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Reach(true), Op::Pass(49)]);
    assert!(world.away.is_empty());
    run(&mut world, &[Op::Others(0), Op::Pass(49)]);
    assert!(world.away.is_empty());
    run(&mut world, &[Op::Pass(1)]);
    assert_eq!(world.away, [0]);
    // Another connection is no answer.
    run(&mut world, &[Op::Pass(400), Op::Pass(50), Op::Reach(true)]);
    assert_eq!(world.away, [0]);
    run(&mut world, &[Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(world.away.is_empty());
}

/// So is one that cannot be connected to, long before the connect time-out.
#[test]
fn silence_is_told_while_connecting() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Pass(49)]);
    assert!(world.away.is_empty());
    run(&mut world, &[Op::Pass(1)]);
    assert_eq!(world.away, [0]);
    run(&mut world, &[Op::Reach(true), Op::Handle(0, 0), Op::Deliver(0)]);
    assert!(world.away.is_empty());
}

/// The records of a slow server are told in time, and what it does later is no second fate.
#[test]
fn the_delivery_time_out_bounds_what_is_in_flight() {
    let mut slow = terms(1, 0, false);
    slow.request_timeout = Duration::from_secs(60);
    let mut world = World::new(slow, PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Reach(true), Op::Pass(600), Op::Push(0), Op::Pass(401)]);
    let error = world.fate(0).unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Some(Outcome::Unknown)));
    assert!(!error.is_retriable());
    // What waits behind it was not sent.
    assert!(world.fate(1).is_none());
    run(&mut world, &[Op::Pass(600)]);
    let error = world.fate(1).unwrap().as_ref().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Some(Outcome::NotSent)));
    world.heal();
    world.check();
}

/// The clock of a request that waits for replication starts when the server can get to it.
#[test]
fn patience_begins_with_the_turn() {
    let mut patient = terms(3, 0, true);
    patient.delivery_timeout = Duration::from_secs(60);
    let mut world = World::new(patient, PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Reach(true), Op::Push(2), Op::Push(0)]);
    for _ in 0..3 {
        run(&mut world, &[Op::Pass(350), Op::Handle(0, 0), Op::Deliver(0)]);
    }
    assert!((0..3).all(|record| world.fate(record).unwrap().is_ok()));
    run(&mut world, &[Op::Push(0), Op::Push(0), Op::Pass(401)]);
    for record in [3, 4] {
        let error = world.fate(record).unwrap().as_ref().unwrap_err();
        assert_eq!(error.outcome(), Some(Outcome::Unknown));
    }
    assert!(!world.lost_patience.is_empty());
    world.heal();
    world.check();
}

/// An SPU that is away holds up nobody else.
#[test]
fn the_living_are_served() {
    let mut world = World::new(terms(1, 0, false), PARTITIONS);
    run(&mut world, &[Op::Push(0), Op::Reach(false), Op::Push(1), Op::Push(0), Op::Reach(true)]);
    run(&mut world, &[Op::Handle(1, 0), Op::Deliver(1)]);
    assert!(world.fate(1).unwrap().is_ok());
    assert!(world.fate(0).is_none());
    world.heal();
    world.check();
}

/// Timers do not pile up: a thousand partitions that linger have one each.
#[test]
fn a_thousand_partitions_linger() {
    let mut world = World::new(terms(1, 50, false), 1000);
    for partition in 0..1000 {
        world.run(Op::Push(partition));
    }
    assert_eq!(world.session.timers.len(), 2000);
    world.heal();
    world.check();
}
