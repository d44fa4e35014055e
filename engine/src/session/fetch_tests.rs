//! The session of a partition against a model of a server and every order of events: answers, cuts, duplicates, damage,
//! losses, moves, seeks, pauses, eviction, and topics that are created again.
//!
//! What must hold whatever comes: the records that are handed out are those of the log, each once and in order, from the
//! position on; none of a new topic under the session of the old one; and once nothing fails any more, all of them.

use std::collections::VecDeque;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use proptest::prelude::*;
use wire::batch::set_base_offset;
use wire::builder::BatchBuilder;
use wire::memory::Memory;
use wire::view::decode;

use super::answer::Answer;
use super::fetch::{Action, Fetch, Position, Time};
use crate::error::{Error, ErrorKind};

const TOPIC: &str = "t";
const PARTITION: u32 = 3;
/// Holds two or three batches.
const MAX_BYTES: usize = 300;
const MOST: usize = 4000;

#[derive(Debug, Clone)]
enum Step {
    /// A batch of so many records, each with so many bytes.
    Produce(usize, usize),
    /// The stream of this index sends an answer, if it may.
    Send(prop::sample::Index),
    Receive,
    Duplicate,
    /// The batch that comes next says to begin elsewhere.
    Shift(i64),
    /// What comes next is about something else.
    Mislead,
    /// The server does not lead the partition, for a moment.
    Refuse(prop::sample::Index),
    Lose,
    Connect,
    Move,
    Healthy,
    Wait(u64),
    Seek(prop::sample::Index),
    Pause,
    Resume,
    Evict(prop::sample::Index),
    Recreate(usize),
}

#[derive(Debug)]
struct Stream {
    number: u64,
    session: u32,
    position: i64,
    /// Where the answers end that are not acknowledged.
    in_flight: VecDeque<i64>,
    max_bytes: usize,
}

#[derive(Debug)]
enum Message {
    Answer { stream: u64, session: u32, partition: u32, code: ErrorCode, records: Vec<u8> },
    Header { request: u64, code: ErrorCode, records: Vec<u8> },
    One { request: u64, partition: u32, code: ErrorCode, records: Vec<u8> },
}

/// A server with one partition, what is on its way from it, and the session.
struct World {
    window: usize,
    /// What is written now: 0 to the topic that is read, anything else to a new one.
    incarnation: u8,
    batches: Vec<(i64, i64, Vec<u8>)>,
    start: i64,
    end: i64,
    streams: Vec<Stream>,
    sessions: u32,
    coming: VecDeque<Message>,
    connected: bool,
    now: Time,
    session: Fetch,
    paused: bool,
    /// Where the log began while nothing was read from a relative start: any of them may be the first record.
    starts: Vec<i64>,
    /// What the next record has to be.
    expected: i64,
    nonsense: usize,
    over: Option<Over>,
}

#[derive(Debug)]
enum Over {
    Ended(Error),
    Deleted,
}

impl World {
    fn new(window: usize) -> Self {
        World {
            window,
            incarnation: 0,
            batches: Vec::new(),
            start: 0,
            end: 0,
            streams: Vec::new(),
            sessions: 0,
            coming: VecDeque::new(),
            connected: false,
            now: Duration::ZERO,
            session: Fetch::new(TOPIC.into(), PARTITION, Position::Absolute(0), MAX_BYTES, MOST),
            paused: false,
            starts: Vec::new(),
            expected: 0,
            nonsense: 0,
            over: None,
        }
    }

    /// The same with a session whose start named no offset.
    fn relative(window: usize) -> Self {
        let session = Fetch::new(TOPIC.into(), PARTITION, Position::Relative(0), MAX_BYTES, MOST);
        World { session, starts: vec![0], ..World::new(window) }
    }

    fn produce(&mut self, count: usize, size: usize) {
        let mut builder = BatchBuilder::with_capacity(64);
        for index in 0..count {
            let mut value = vec![self.incarnation; size];
            value.extend((self.end + index as i64).to_be_bytes());
            builder.push(None, &value, self.end);
        }
        let mut batch = builder.finish().to_vec();
        set_base_offset(&mut batch, self.end);
        let next = self.end + count as i64;
        self.batches.push((self.end, next, batch));
        self.end = next;
    }

    /// What is at an offset: bytes cut at `max_bytes`, and the offset behind the last batch of them, even if it is cut.
    fn read(&self, offset: i64, max_bytes: usize) -> (ErrorCode, Vec<u8>, i64) {
        if offset < self.start {
            let code = ErrorCode::OffsetEvicted { offset, next_available: self.start };
            return (code, Vec::new(), offset);
        }
        if offset > self.end {
            let text = format!("start offset: {offset} is greater than leo: {}", self.end);
            return (ErrorCode::Other(text), Vec::new(), offset);
        }
        let (mut records, mut next) = (Vec::new(), offset);
        for (_, end, batch) in self.batches.iter().filter(|(_, end, _)| *end > offset) {
            if records.len() >= max_bytes {
                break;
            }
            records.extend(batch);
            next = *end;
        }
        records.truncate(max_bytes);
        (ErrorCode::None, records, next)
    }

    fn send(&mut self, index: usize) {
        let Some(position) = self.streams.get(index).map(|stream| stream.position) else { return };
        let (full, max_bytes) =
            (self.streams[index].in_flight.len() >= self.window, self.streams[index].max_bytes);
        if full || position == self.end && position >= self.start {
            return;
        }
        let (code, records, next) = self.read(position, max_bytes);
        let stream = &mut self.streams[index];
        stream.position = next;
        stream.in_flight.push_back(next);
        let (number, session) = (stream.number, stream.session);
        if code.is_error() {
            self.streams.remove(index);
        }
        self.coming.push_back(Message::Answer {
            stream: number,
            session,
            partition: PARTITION,
            code,
            records,
        });
    }

    fn receive(&mut self) {
        let mut out = Vec::new();
        let mut handed = Vec::new();
        match self.coming.pop_front() {
            None => return,
            Some(Message::Header { request, code, records }) => {
                self.session.checked(self.now, request, &code, &records, &mut out);
            }
            Some(Message::Answer { stream, session, partition, code, records }) => {
                let answer = answer(partition, session, &code, &records);
                self.session.answered(self.now, stream, &answer, &mut out);
                handed = records;
            }
            Some(Message::One { request, partition, code, records }) => {
                let answer = answer(partition, 0, &code, &records);
                self.session.fetched(self.now, request, &answer, &mut out);
                handed = records;
            }
        }
        self.perform(out, &handed);
    }

    fn perform(&mut self, out: Vec<Action>, records: &[u8]) {
        for action in out {
            match action {
                Action::Check { request, offset } => {
                    let (code, records, _) = self.read(offset, wire::batch::HEADER_LEN);
                    self.reply(Message::Header { request, code, records });
                }
                Action::FetchOne { request, offset, max_bytes } => {
                    let (code, records, _) = self.read(offset, max_bytes);
                    self.reply(Message::One { request, partition: PARTITION, code, records });
                }
                Action::Open { stream, offset, max_bytes } => {
                    assert!(self.connected && !self.paused);
                    self.sessions += 1;
                    let in_flight = VecDeque::new();
                    let session = self.sessions;
                    self.streams.push(Stream {
                        number: stream,
                        session,
                        position: offset,
                        in_flight,
                        max_bytes,
                    });
                    // The first read is made even if there is nothing: it finds out whether the position is valid.
                    if offset > self.end {
                        self.send(self.streams.len() - 1);
                    }
                }
                Action::Acknowledge { session, offset, .. } => {
                    let stream = self.streams.iter_mut().find(|stream| stream.session == session);
                    if let Some(stream) = stream {
                        match stream.in_flight.iter().position(|end| *end == offset) {
                            Some(index) => drop(stream.in_flight.drain(..=index)),
                            None => {
                                stream.in_flight.clear();
                                stream.position = offset;
                            }
                        }
                    }
                }
                Action::Deliver { from, bytes } => self.handed_out(from, &records[..bytes]),
                Action::LookUp | Action::Left => {}
                Action::Distrust(error) => {
                    assert!(self.nonsense > 0, "{error}");
                    self.lose();
                }
                Action::End(error) => self.over = Some(Over::Ended(error)),
                Action::Deleted(_) => self.over = Some(Over::Deleted),
            }
        }
    }

    fn reply(&mut self, message: Message) {
        assert!(self.connected);
        self.coming.push_back(message);
    }

    fn handed_out(&mut self, from: i64, records: &[u8]) {
        assert!(self.over.is_none() && !self.paused);
        if std::mem::take(&mut self.starts).contains(&from) {
            self.expected = from;
        }
        assert_eq!(from, self.expected);
        let decoded = decode(records, from, true, &Memory::default());
        assert_eq!((decoded.error, decoded.rest), (None, None));
        for (index, offset) in decoded.columns.offsets.iter().enumerate() {
            assert_eq!(*offset, self.expected);
            let end = decoded.columns.value_ends[index] as usize;
            assert_eq!(records[end - 8..end], offset.to_be_bytes());
            let start = decoded.columns.value_starts[index] as usize;
            assert!(records[start..end - 8].iter().all(|byte| *byte == 0), "of a new topic");
            self.expected += 1;
        }
    }

    fn lose(&mut self) {
        self.connected = false;
        self.streams.clear();
        self.coming.clear();
        self.session.unlinked();
    }

    fn with(&mut self, act: impl FnOnce(&mut Fetch, &mut Vec<Action>)) {
        let mut out = Vec::new();
        act(&mut self.session, &mut out);
        self.perform(out, &[]);
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.with(|session, out| session.linked(out));
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            self.with(|session, out| session.tick(now, out));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Produce(count, size) => self.produce(*count, *size),
            Step::Send(index) if !self.streams.is_empty() => self.send(index.index(self.streams.len())),
            Step::Receive => self.receive(),
            Step::Duplicate => {
                if let Some(Message::Answer { stream, session, code, records, partition }) =
                    self.coming.front()
                {
                    self.nonsense += 1;
                    let again = Message::Answer {
                        stream: *stream,
                        session: *session,
                        partition: *partition,
                        code: code.clone(),
                        records: records.clone(),
                    };
                    self.coming.push_front(again);
                }
            }
            Step::Shift(by) => {
                if let Some(Message::Answer { records, .. } | Message::One { records, .. }) =
                    self.coming.front_mut()
                    && records.len() > 60
                {
                    self.nonsense += 1;
                    let base = i64::from_be_bytes(*records.first_chunk().unwrap());
                    set_base_offset(records, base + by);
                }
            }
            Step::Mislead => {
                if let Some(Message::Answer { partition, .. } | Message::One { partition, .. }) =
                    self.coming.front_mut()
                {
                    self.nonsense += 1;
                    *partition += 1;
                }
            }
            Step::Refuse(index) if !self.streams.is_empty() => {
                let Stream { number, session, .. } = self.streams.remove(index.index(self.streams.len()));
                self.coming.push_back(Message::Answer {
                    stream: number,
                    session,
                    partition: PARTITION,
                    code: ErrorCode::NotLeaderForPartition,
                    records: Vec::new(),
                });
            }
            Step::Lose if self.connected => self.lose(),
            Step::Connect => self.connect(),
            Step::Move => {
                self.with(|session, out| session.moved(out));
                // The old server's answers no longer reach anyone, and those that do are of no stream that counts.
                self.connected = false;
                self.connect();
            }
            Step::Healthy => self.session.healthy(),
            Step::Wait(millis) => self.wait(Duration::from_millis(*millis)),
            Step::Seek(index) if self.over.is_none() => {
                let offset = self.start + index.index((self.end - self.start) as usize + 1) as i64;
                self.expected = offset;
                self.with(|session, out| session.seek(offset, out));
            }
            Step::Pause => {
                self.paused = true;
                self.session.pause();
            }
            Step::Resume => {
                self.paused = false;
                self.with(|session, out| session.resume(out));
            }
            Step::Evict(index) => {
                let index = index.index(self.batches.len() + 1);
                self.start = self.batches.get(index).map_or(self.end, |(base, ..)| *base);
                self.batches.retain(|(base, ..)| *base >= self.start);
                if !self.starts.is_empty() {
                    self.starts.push(self.start);
                }
            }
            Step::Recreate(count) => self.recreate(*count),
            _ => {}
        }
    }

    fn recreate(&mut self, count: usize) {
        // That a header is on its way is the one moment when only the directory knows.
        if self.coming.iter().any(|message| matches!(message, Message::Header { .. })) {
            return;
        }
        for Stream { number, session, .. } in std::mem::take(&mut self.streams) {
            self.coming.push_back(Message::Answer {
                stream: number,
                session,
                partition: PARTITION,
                code: ErrorCode::TopicDeleted,
                records: Vec::new(),
            });
        }
        self.incarnation = 1;
        self.batches.clear();
        (self.start, self.end) = (0, 0);
        for _ in 0..count {
            self.produce(2, 10);
        }
    }

    /// From here on nothing fails: everything is sent and received.
    fn settle(&mut self) {
        self.step(&Step::Resume);
        for _ in 0..(200 + 4 * self.batches.len()) {
            self.connect();
            for index in (0..self.streams.len()).rev() {
                self.send(index);
            }
            while !self.coming.is_empty() {
                self.receive();
            }
            self.wait(Duration::from_secs(6));
        }
    }
}

fn answer<'a>(partition: u32, session: u32, code: &'a ErrorCode, records: &'a [u8]) -> Answer<'a> {
    Answer { topic: TOPIC, partition, session, code, next_filter_offset: 0, records }
}

fn usual() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..6, 0usize..60).prop_map(|(count, size)| Step::Produce(count, size)),
        1 => (1usize..3, 300usize..1000).prop_map(|(count, size)| Step::Produce(count, size)),
        8 => any::<prop::sample::Index>().prop_map(Step::Send),
        12 => Just(Step::Receive),
        1 => Just(Step::Lose),
        3 => Just(Step::Connect),
        1 => Just(Step::Move),
        1 => Just(Step::Healthy),
        2 => (0u64..6000).prop_map(Step::Wait),
        1 => any::<prop::sample::Index>().prop_map(Step::Refuse),
    ]
}

fn commands() -> impl Strategy<Value = Step> {
    prop_oneof![any::<prop::sample::Index>().prop_map(Step::Seek), Just(Step::Pause), Just(Step::Resume),]
}

/// No two of these together make an answer that looks right: no checksum covers the offset, so a batch that comes twice and
/// by chance says to begin where the next one would could not be told from that.
fn nonsense() -> impl Strategy<Value = Vec<Step>> {
    let shifts = prop_oneof![-5i64..0, 1i64..5].prop_map(Step::Shift);
    let far = prop_oneof![Just(-10_000i64), Just(10_000)].prop_map(Step::Shift);
    prop_oneof![
        steps(prop_oneof![10 => usual(), 1 => Just(Step::Mislead), 1 => shifts]),
        steps(prop_oneof![10 => usual(), 1 => Just(Step::Duplicate), 1 => Just(Step::Mislead), 1 => far]),
    ]
}

fn steps(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Nothing is lost, doubled or reordered, whatever happens, and in the end everything is there.
    #[test]
    fn every_record_once_and_in_order(
        window in 1usize..9,
        steps in steps(prop_oneof![10 => usual(), 1 => commands()]),
    ) {
        let mut world = World::new(window);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.over.is_none(), "{:?}", world.over);
        prop_assert_eq!(world.expected, world.end);
    }

    /// What a server says is checked: nonsense is never handed out, and ends the partition only if it does not stop. One
    /// answer at a time, as real servers send them: of several, one behind a cut batch could be shifted to just there.
    #[test]
    fn nonsense_is_never_handed_out(steps in nonsense()) {
        let mut world = World::new(1);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        match &world.over {
            None => prop_assert_eq!(world.expected, world.end),
            Some(Over::Ended(error)) => prop_assert_eq!(error.kind(), ErrorKind::Protocol),
            Some(Over::Deleted) => prop_assert!(false, "nothing was deleted"),
        }
    }

    /// What was removed is no record, and no proof of a new topic.
    #[test]
    fn eviction_is_told_as_such(
        steps in steps(prop_oneof![10 => usual(), 1 => any::<prop::sample::Index>().prop_map(Step::Evict)]),
    ) {
        let mut world = World::new(1);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        match &world.over {
            None => prop_assert_eq!(world.expected, world.end),
            Some(Over::Ended(error)) => {
                prop_assert_eq!(error.kind(), ErrorKind::OffsetEvicted);
                prop_assert!(world.expected < world.start);
            }
            Some(Over::Deleted) => prop_assert!(false, "nothing was deleted"),
        }
    }

    /// A start that named no offset means what is there: what is removed before anything was read is not missed. What is
    /// removed later is.
    #[test]
    fn a_relative_start_moves_with_what_is_removed(
        window in 1usize..9,
        steps in steps(prop_oneof![10 => usual(), 2 => any::<prop::sample::Index>().prop_map(Step::Evict)]),
    ) {
        let mut world = World::relative(window);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let read = world.starts.is_empty();
        match &world.over {
            None if read => prop_assert_eq!(world.expected, world.end),
            None => prop_assert_eq!(world.start, world.end, "nothing is read although something is there"),
            Some(Over::Ended(error)) => {
                prop_assert_eq!(error.kind(), ErrorKind::OffsetEvicted);
                prop_assert!(read && world.expected < world.start);
            }
            Some(Over::Deleted) => prop_assert!(false, "nothing was deleted"),
        }
    }

    /// A topic that is created again is told from the old one, with more, fewer or as many records.
    #[test]
    fn nothing_of_a_new_topic_is_taken_for_the_old_one(
        window in 1usize..9,
        before in steps(usual()),
        count in 0usize..12,
        after in steps(usual()),
    ) {
        let mut world = World::new(window);
        for step in &before {
            world.step(step);
        }
        world.step(&Step::Recreate(count));
        // Whoever has read nothing is at the beginning of the new one as well.
        if world.expected == 0 || world.incarnation == 0 {
            return Ok(());
        }
        for step in &after {
            world.step(step);
        }
        world.settle();
        prop_assert!(matches!(world.over, Some(Over::Deleted)), "{:?} at {}", world.over, world.expected);
    }
}

/// An offset beyond the end is a mistake of whoever sought it, not a new topic.
#[test]
fn beyond_the_end_is_out_of_range() {
    let mut world = World::new(1);
    world.produce(5, 10);
    world.connect();
    for offset in [99, 6] {
        world.over = None;
        world.session = Fetch::new(TOPIC.into(), PARTITION, Position::Absolute(0), MAX_BYTES, MOST);
        world.with(|session, out| session.linked(out));
        world.with(|session, out| session.seek(offset, out));
        world.settle();
        match &world.over {
            Some(Over::Ended(error)) => assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

/// A start in mid-batch, and what SmartModules have left out.
#[test]
fn modules_say_where_to_go_on() {
    let mut session = Fetch::new(TOPIC.into(), PARTITION, Position::Absolute(0), MAX_BYTES, MOST);
    let mut out = Vec::new();
    session.linked(&mut out);
    let Some(Action::Open { stream, .. }) = out.pop() else { panic!("{out:?}") };
    let mut builder = BatchBuilder::with_capacity(64);
    builder.push(None, b"kept", 1);
    let mut batch = builder.finish().to_vec();
    set_base_offset(&mut batch, 40);
    let code = ErrorCode::None;
    let seen = Answer { next_filter_offset: 100, ..answer(PARTITION, 1, &code, &batch) };
    session.answered(Duration::ZERO, stream, &seen, &mut out);
    assert!(matches!(out[0], Action::Acknowledge { offset: 100, .. }), "{out:?}");
    assert!(matches!(out[1], Action::Deliver { from: 0, .. }), "{out:?}");
}

/// Three answers in a row that cannot be true end the partition, unless it was healthy between them.
#[test]
fn the_count_of_bad_answers_starts_anew_after_a_healthy_while() {
    for healthy in [true, false] {
        let mut world = World::new(1);
        world.produce(5, 10);
        for _ in 0..5 {
            world.connect();
            if healthy {
                world.session.healthy();
            }
            world.send(0);
            world.step(&Step::Mislead);
            world.receive();
        }
        assert_eq!(world.over.is_none(), healthy, "{:?}", world.over);
    }
}
