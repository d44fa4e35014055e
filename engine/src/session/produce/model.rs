//! A world for the machine: producers' queues, SPUs with logs, and connections that break. What the machine tells is checked
//! against what is in the logs.

mod queues;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fluvio_protocol::link::ErrorCode;

use super::{Action, Attempt, Failure, Outside, Session, Terms};
use crate::error::{Error, ErrorKind, Outcome, Result};
use queues::{BATCH, Batch, Queue, Queues};

/// A request on its way to an SPU.
#[derive(Debug)]
struct Underway {
    attempt: Attempt,
    id: u64,
    batches: Vec<(u32, Vec<u64>)>,
    /// The answer, once the SPU has handled it.
    codes: Option<Vec<(ErrorCode, i64)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Push(u32),
    /// An SPU handles its oldest request; 0 writes, others refuse.
    Handle(i32, u8),
    /// The oldest answer of an SPU arrives.
    Deliver(i32),
    /// The connection to an SPU breaks: what was not handled never is.
    Break(i32),
    /// What waits for a connection, a check or a look-up hears of it; false: that it failed.
    Reach(bool),
    Lead(u32, Option<i32>),
    Pass(u64),
    Hurry,
    Delete,
    GiveUp,
    /// All logs are lost with every connection: the topic was made anew.
    Recreate,
    /// The same while nobody looks: the connections stay.
    Replace,
    /// The cluster was out of sight.
    Doubt,
    /// An SPU answered what others had asked on the connection.
    Others(i32),
    /// The answer to the oldest request of an SPU is lost, and that to a later one of somebody else comes.
    LeaveOut(i32),
}

pub(super) struct World {
    pub(super) session: Session<Batch>,
    queues: Queues,
    terms: Terms,
    now: Instant,
    pushed: Vec<u32>,
    /// Per record: its fate.
    fates: HashMap<u64, Result<(u32, i64)>>,
    pub(super) logs: Vec<Vec<u64>>,
    underway: Vec<Underway>,
    up: HashMap<i32, Attempt>,
    connecting: Vec<Attempt>,
    checking: Vec<(Attempt, Vec<(u32, i64)>)>,
    taken: u64,
    freed: u64,
    /// Records that the log may hold more than once, and why.
    lost_while_unknown: Vec<u64>,
    pub(super) lost_patience: Vec<u64>,
    /// SPUs that are said to be away.
    pub(super) away: Vec<i32>,
    pub(super) over: bool,
    pub(super) recreated: bool,
}

impl World {
    pub(super) fn new(terms: Terms, partitions: u32) -> Self {
        let mut session = Session::new(terms.clone());
        session.grow(partitions as usize);
        let leader = |index: u32| Some(index as i32 % 2);
        World {
            session,
            queues: Queues {
                of: (0..partitions)
                    .map(|index| Queue { leader: leader(index), ..Queue::default() })
                    .collect(),
                turns: HashMap::new(),
                left_out: Vec::new(),
            },
            terms,
            now: Instant::now(),
            pushed: Vec::new(),
            fates: HashMap::new(),
            logs: vec![Vec::new(); partitions as usize],
            underway: Vec::new(),
            up: HashMap::new(),
            connecting: Vec::new(),
            checking: Vec::new(),
            taken: 0,
            freed: 0,
            lost_while_unknown: Vec::new(),
            lost_patience: Vec::new(),
            away: Vec::new(),
            over: false,
            recreated: false,
        }
    }

    pub(super) fn run(&mut self, op: Op) {
        match op {
            Op::Push(partition) => self.push(partition),
            Op::Handle(spu, code) => self.handle(spu, code),
            Op::Deliver(spu) => self.deliver(spu),
            Op::Break(spu) => self.break_connection(spu),
            Op::Reach(ok) => self.reach(ok),
            Op::Lead(partition, spu) => {
                self.queues.of[partition as usize].leader = spu;
                self.session.moved(self.now, &mut self.queues);
            }
            Op::Pass(ms) => self.now += Duration::from_millis(ms),
            Op::Hurry => {
                self.session.hurry(true, self.now, &mut self.queues);
                self.session.hurry(false, self.now, &mut self.queues);
            }
            Op::Delete => self.delete(),
            Op::GiveUp => {
                let error = Error::new(ErrorKind::Timeout, "given up");
                self.over = true;
                self.session.abandon(&error, &mut self.queues);
            }
            Op::Recreate => {
                for spu in [0, 1] {
                    self.break_connection(spu);
                }
                self.replace();
            }
            Op::Replace => self.replace(),
            Op::Doubt => self.session.doubt(),
            Op::LeaveOut(spu) => self.leave_out(spu),
            Op::Others(spu) => {
                let first = self.underway.iter().find(|underway| underway.attempt.spu == spu);
                self.queues.turns.extend(first.map(|underway| (underway.id, self.now)));
            }
        }
        self.proceed();
    }

    fn leave_out(&mut self, spu: i32) {
        let of_spu = |underway: &Underway| underway.attempt.spu == spu;
        if self.underway.iter().find(|underway| of_spu(underway)).is_some_and(|first| first.codes.is_none()) {
            self.handle(spu, 0);
        }
        if let Some(at) = self.underway.iter().position(of_spu) {
            let Underway { id, batches, .. } = self.underway.remove(at);
            self.queues.left_out.push(id);
            self.lost_while_unknown.extend(batches.iter().flat_map(|(_, records)| records));
        }
    }

    fn replace(&mut self) {
        self.logs.iter_mut().for_each(Vec::clear);
        self.recreated = true;
    }

    fn delete(&mut self) {
        self.over = true;
        self.session.end(Error::new(ErrorKind::TopicDeleted, "deleted"), &mut self.queues);
    }

    fn push(&mut self, partition: u32) {
        if self.over {
            return;
        }
        let (record, now) = (self.pushed.len() as u64, self.now);
        self.pushed.push(partition);
        let queue = &mut self.queues.of[partition as usize];
        match queue.batches.back_mut().filter(|batch| batch.records.len() < BATCH) {
            Some(batch) => batch.records.push(record),
            None => {
                queue.batches.push_back(Batch {
                    first: record,
                    records: vec![record],
                    opened: now,
                    told: false,
                });
                self.taken += 1;
            }
        }
        let full = queue.batches.len() > 1 || queue.batches[0].records.len() == BATCH;
        let wake =
            !std::mem::replace(&mut queue.known, true) || (full && std::mem::take(&mut queue.wake_when_full));
        if wake {
            self.session.announced(partition, now, &mut self.queues);
        }
    }

    fn handle(&mut self, spu: i32, code: u8) {
        let Some(underway) =
            self.underway.iter_mut().find(|underway| underway.attempt.spu == spu && underway.codes.is_none())
        else {
            return;
        };
        let codes = underway.batches.iter().map(|(partition, records)| {
            let log = &mut self.logs[*partition as usize];
            match code {
                0 => {
                    let base = log.len() as i64;
                    log.extend(records);
                    (ErrorCode::None, base)
                }
                1 => (ErrorCode::NotLeaderForPartition, -1),
                2 => (ErrorCode::MessageTooLarge, -1),
                3 => {
                    log.extend(records);
                    let kind = fluvio_protocol::api::RequestKind::Produce;
                    (ErrorCode::RequestTimedOut { kind, timeout_ms: 1 }, -1)
                }
                _ => (ErrorCode::StorageError, -1),
            }
        });
        underway.codes = Some(codes.collect());
    }

    fn deliver(&mut self, spu: i32) {
        // One connection's answers come in the order of its requests.
        let Some(at) = self.underway.iter().position(|underway| underway.attempt.spu == spu) else { return };
        if let Some(codes) = self.underway[at].codes.take() {
            let underway = self.underway.remove(at);
            self.session.answered(underway.id, codes, self.now, &mut self.queues);
        }
    }

    fn break_connection(&mut self, spu: i32) {
        let Some(attempt) = self.up.remove(&spu) else { return };
        let error = Error::new(ErrorKind::Connection, "broken");
        self.connecting.retain(|other| *other != attempt);
        self.checking.retain(|(other, _)| *other != attempt);
        self.session.lost(attempt, &error, self.now);
        let (lost, rest) = std::mem::take(&mut self.underway).into_iter().partition(|u| u.attempt == attempt);
        self.underway = rest;
        let lost: Vec<Underway> = lost;
        for underway in lost {
            if underway.codes.is_some() {
                self.lost_while_unknown.extend(underway.batches.iter().flat_map(|(_, records)| records));
            }
            self.session.failed(underway.id, Failure::Lost(error.clone()), self.now, &mut self.queues);
        }
    }

    fn reach(&mut self, ok: bool) {
        let error = || Error::new(ErrorKind::Connection, "unreachable");
        for attempt in std::mem::take(&mut self.connecting) {
            if ok {
                self.up.insert(attempt.spu, attempt);
            }
            self.session.connected(attempt, if ok { Ok(()) } else { Err(error()) }, self.now);
        }
        for (attempt, ends) in std::mem::take(&mut self.checking) {
            let shorter = ends.iter().any(|(index, end)| (self.logs[*index as usize].len() as i64) < *end);
            let outcome = match (ok, shorter) {
                (false, _) => Err(error()),
                (true, false) => Ok(Ok(ends.into_iter().map(|(index, _)| index).collect())),
                (true, true) => Ok(Err("is another one now".to_owned())),
            };
            self.session.checked(attempt, outcome, self.now);
        }
    }

    fn proceed(&mut self) {
        self.session.proceed(self.now, &mut self.queues);
        while let Some(action) = self.session.action() {
            match action {
                Action::Connect(attempt) => self.connecting.push(attempt),
                Action::Check(attempt, ends) => {
                    assert!(ends.iter().all(|(index, _)| self.queues.leader(*index) == Some(attempt.spu)));
                    self.checking.push((attempt, ends));
                }
                Action::Send(attempt, id) => self.send(attempt, id),
                Action::Disconnect(attempt) => self.disconnect(attempt),
                Action::Tell { partition, waiters, fate } => {
                    for (delta, record) in waiters.into_iter().enumerate() {
                        let fate = fate.clone().map(|base| (partition, base + delta as i64));
                        assert!(self.fates.insert(record, fate).is_none(), "record {record} was told twice");
                    }
                }
                Action::Free(_) => self.freed += 1,
                Action::Deleted(_) => self.delete(),
                Action::Away { spu, away } => {
                    assert_ne!(self.away.contains(&spu), away, "told twice");
                    self.away.retain(|other| *other != spu);
                    self.away.extend(away.then_some(spu));
                }
                Action::LookUp | Action::Reach { .. } => {}
            }
            self.session.proceed(self.now, &mut self.queues);
        }
        assert!(self.session.timer().is_none_or(|at| at > self.now));
    }

    fn send(&mut self, attempt: Attempt, id: u64) {
        let batches: Vec<(u32, Vec<u64>)> =
            self.session.request(id).map(|(partition, batch)| (partition, batch.records.clone())).collect();
        let mut partitions: Vec<u32> = batches.iter().map(|(partition, _)| *partition).collect();
        partitions.dedup();
        assert_eq!(partitions.len(), batches.len(), "one batch of each partition");
        for partition in partitions {
            let unanswered = self.underway.iter().filter(|u| u.batches.iter().any(|(p, _)| *p == partition));
            assert!(unanswered.count() < self.terms.in_flight || !self.lost_patience.is_empty());
        }
        if self.up.get(&attempt.spu) == Some(&attempt) {
            self.underway.push(Underway { attempt, id, batches, codes: None });
        } else {
            let error = Error::new(ErrorKind::Connection, "gone");
            self.session.failed(id, Failure::NotSent(error), self.now, &mut self.queues);
        }
    }

    /// The machine gave a connection up. The SPU goes on with what it got.
    fn disconnect(&mut self, attempt: Attempt) {
        if self.up.get(&attempt.spu) == Some(&attempt) {
            self.up.remove(&attempt.spu);
        }
        let (given_up, rest) =
            std::mem::take(&mut self.underway).into_iter().partition(|u| u.attempt == attempt);
        self.underway = rest;
        let given_up: Vec<Underway> = given_up;
        for underway in given_up {
            for (partition, records) in underway.batches {
                self.lost_patience.extend(&records);
                if underway.codes.is_none() {
                    self.logs[partition as usize].extend(&records);
                }
            }
        }
    }

    /// All is well from here on: what is still without a fate gets one.
    pub(super) fn heal(&mut self) {
        for queue in &mut self.queues.of {
            queue.leader.get_or_insert(0);
        }
        self.session.moved(self.now, &mut self.queues);
        for _ in 0..400 {
            self.proceed();
            self.run(Op::Reach(true));
            for spu in [0, 1] {
                self.run(Op::Handle(spu, 0));
                self.run(Op::Deliver(spu));
            }
            self.run(Op::Pass(20));
        }
    }

    pub(super) fn check(&self) {
        assert_eq!(self.fates.len(), self.pushed.len(), "every record has a fate");
        assert_eq!(self.freed, self.taken, "all memory is free again");
        assert!(self.session.is_idle());
        assert!(self.session.requests.is_empty());
        assert!(self.away.is_empty() || self.over, "SPUs that are there are said to be away");
        let mut ends = vec![-1i64; self.logs.len()];
        for (record, partition) in self.pushed.iter().enumerate() {
            let record = record as u64;
            let log = &self.logs[*partition as usize];
            let times = log.iter().filter(|other| **other == record).count();
            let fate = &self.fates[&record];
            if self.recreated {
                continue;
            }
            match fate {
                Ok((told, offset)) => {
                    assert_eq!(told, partition);
                    assert_eq!(log[*offset as usize], record);
                    if self.terms.in_flight == 1 {
                        assert!(ends[*told as usize] < *offset, "record {record} was overtaken");
                        ends[*told as usize] = *offset;
                    }
                }
                Err(error) => {
                    let outcome = error.outcome().expect("a failed record has an outcome");
                    assert_eq!(error.partition(), Some(*partition));
                    match outcome {
                        Outcome::NotSent => assert_eq!(times, 0, "{record}: {error}"),
                        Outcome::Written => assert!(times > 0, "{record}: {error}"),
                        Outcome::Unknown => assert!(!error.is_retriable()),
                    }
                }
            }
            let unknown = self.lost_while_unknown.contains(&record);
            let patience = self.lost_patience.contains(&record) && !self.terms.committed;
            assert!(times <= 1 || unknown || patience, "record {record} is {times} times in the log");
        }
    }

    pub(super) fn fate(&self, record: u64) -> Option<&Result<(u32, i64)>> {
        self.fates.get(&record)
    }
}
