//! The session of one partition: where it stands, and what it asks for next.
//!
//! Invariants: there is one position, the offset behind the last complete batch that was handed out, and whatever happens
//! fetching goes on there; only complete batches are handed out and acknowledged, each record once and in order; what comes
//! for an earlier stream, request or seek is ignored. What was removed is passed over only while nothing was read, by a start
//! that named no offset. Before a stream is opened again the batch in front of the position is
//! asked for: if it is another one, or not there although nothing was evicted, the topic is another one too.
//!
//! A server sends one answer, waits for it to be acknowledged and sends the next. It cuts answers at `max_bytes`, in the
//! middle of a batch; the cut batch is sent again once the end of the one before it is acknowledged. A batch that is larger
//! than an answer is asked for by itself, so that the stream needs not be replaced: no request would end it.

use std::sync::Arc;
use std::time::Duration;

use fluvio_protocol::link::ErrorCode;
use wire::batch::BatchHeader;

use super::answer::is_beyond_the_end;
use crate::error::{Error, ErrorKind};

mod answers;

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// An offset that stands for what is there: if it is removed before anything is read, the first one that is there.
    Relative(i64),
    /// This offset and no other.
    Absolute(i64),
}

/// Time since some beginning.
pub(crate) type Time = Duration;

/// Answers in a row that cannot be true before the partition is given up.
const NONSENSE_LIMIT: u32 = 3;

/// Pauses after the server could not go on: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// How long answers may stay away that continue where this session stands, after others came.
const ASTRAY_LIMIT: Duration = Duration::from_secs(5);

/// What whoever drives a session has to do, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Ask for the header of the batch that holds this offset, seen by anyone or not.
    Check { request: u64, offset: i64 },
    /// Open a stream.
    Open { stream: u64, offset: i64, max_bytes: usize },
    /// Ask once for what is at this offset.
    FetchOne { request: u64, offset: i64, max_bytes: usize },
    /// Let the stream go on at this offset.
    Acknowledge { stream: u64, session: u32, offset: i64 },
    /// Hand out the records from this offset on in the first bytes of the answer at hand.
    Deliver { from: i64, bytes: usize },
    /// Ask the directory: the server does not know this partition, or does not lead it.
    LookUp,
    /// Give up the connection: what comes on it cannot be trusted.
    Distrust(Error),
    /// A stream was left on the connection that nobody wants any more.
    Left,
    /// The partition has ended; to be told behind its records.
    End(Error),
    /// The topic is over, and why.
    Deleted(String),
}

/// The batch in front of the position: what tells one incarnation of a topic from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// There is none, or it was evicted.
    Nothing,
    /// To be asked for.
    Unknown,
    Known(BatchHeader),
}

#[derive(Debug)]
enum State {
    /// Not linked, or paused before a stream was opened.
    Idle,
    /// The server could not go on.
    Waiting {
        until: Time,
    },
    /// The batch in front of the position was asked for.
    Checking {
        request: u64,
    },
    Streaming(Stream),
    Over,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    /// What the server calls it, once it has answered.
    session: Option<u32>,
    /// The batch that is asked for by itself, and how many bytes were asked for.
    one: Option<(u64, usize)>,
    /// An answer was dropped while the session was paused: the server waits.
    owed: bool,
    /// An answer was dropped while a batch was asked for by itself: the server takes it for received.
    dropped: bool,
    astray: Astray,
}

/// Whether answers may come that do not continue where the session stands: a server that sends several in advance goes on
/// behind a batch that it has cut, until it hears where to go on.
#[derive(Debug, Clone, Copy)]
enum Astray {
    No,
    Possible,
    Since(Time),
}

/// The session of one partition.
#[derive(Debug)]
pub(crate) struct Fetch {
    topic: Arc<str>,
    partition: u32,
    position: i64,
    /// Whether a server has said that the position is in its log.
    confirmed: bool,
    /// Whether the start was relative and nothing was read yet: it means what is there, so it moves with what is removed.
    relative: bool,
    /// Counts the seeks.
    generation: u32,
    anchor: Anchor,
    state: State,
    linked: bool,
    paused: bool,
    /// The last number that was given to a stream or request.
    numbers: u64,
    max_bytes: usize,
    /// The most that an answer may hold.
    most: usize,
    pause: Duration,
    nonsense: u32,
}

impl Fetch {
    /// A session that begins at `position`, which a server has said to be in the log. Answers of a stream hold `max_bytes`,
    /// and up to `most` if a single batch needs it.
    pub(crate) fn new(
        topic: Arc<str>,
        partition: u32,
        position: Position,
        max_bytes: usize,
        most: usize,
    ) -> Self {
        let (position, relative) = match position {
            Position::Relative(offset) => (offset, true),
            Position::Absolute(offset) => (offset, false),
        };
        Fetch {
            topic,
            partition,
            position,
            confirmed: true,
            relative,
            generation: 0,
            anchor: anchor_at(position),
            state: State::Idle,
            linked: false,
            paused: false,
            numbers: 0,
            max_bytes: max_bytes.min(most),
            most,
            pause: PAUSES[0],
            nonsense: 0,
        }
    }

    /// What was fetched under another generation is not to be handed out.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the partition has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// When [`Fetch::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Streaming(Stream { astray: Astray::Since(since), .. }) => Some(*since + ASTRAY_LIMIT),
            _ => None,
        }
    }

    /// There is a connection to the leader.
    pub(crate) fn linked(&mut self, out: &mut Vec<Action>) {
        self.linked = true;
        if matches!(self.state, State::Idle) {
            self.start(out);
        }
    }

    /// The connection is lost, with everything that was asked for on it.
    pub(crate) fn unlinked(&mut self) {
        self.linked = false;
        if !matches!(self.state, State::Over | State::Waiting { .. }) {
            self.state = State::Idle;
        }
    }

    /// Another server leads the partition. The one that did may keep its streams open and say nothing.
    pub(crate) fn moved(&mut self, out: &mut Vec<Action>) {
        self.linked = false;
        self.leave(out);
        if !self.is_over() {
            self.state = State::Idle;
        }
    }

    /// The connection has been healthy for a while with this session on it: what failed before is over.
    pub(crate) fn healthy(&mut self) {
        if matches!(self.state, State::Streaming(_)) {
            self.nonsense = 0;
            self.pause = PAUSES[0];
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        match &self.state {
            State::Waiting { until } if *until <= now => self.start(out),
            State::Streaming(Stream { astray: Astray::Since(since), .. }) if *since + ASTRAY_LIMIT <= now => {
                self.leave(out);
                self.start(out);
            }
            _ => {}
        }
    }

    /// Ends the partition.
    pub(crate) fn end(&mut self, error: Error, out: &mut Vec<Action>) {
        if !self.is_over() {
            self.leave(out);
            self.state = State::Over;
            out.push(Action::End(error));
        }
    }

    /// Goes on at another offset. What is on its way is of no use any more.
    #[cfg_attr(not(test), expect(dead_code, reason = "commands come with the next step of the consumer"))]
    pub(crate) fn seek(&mut self, offset: i64, out: &mut Vec<Action>) {
        self.generation = self.generation.wrapping_add(1);
        self.position = offset;
        (self.confirmed, self.relative) = (false, false);
        self.anchor = anchor_at(offset);
        if !self.is_over() {
            self.leave(out);
            self.start(out);
        }
    }

    /// Hands nothing out until [`Fetch::resume`]; the server stops after what it has sent.
    #[cfg_attr(not(test), expect(dead_code, reason = "commands come with the next step of the consumer"))]
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    #[cfg_attr(not(test), expect(dead_code, reason = "commands come with the next step of the consumer"))]
    pub(crate) fn resume(&mut self, out: &mut Vec<Action>) {
        self.paused = false;
        match &mut self.state {
            State::Idle => self.start(out),
            State::Streaming(stream) if stream.owed => {
                stream.owed = false;
                stream.astray = Astray::Possible;
                if let Some(session) = stream.session {
                    out.push(Action::Acknowledge { stream: stream.number, session, offset: self.position });
                }
            }
            _ => {}
        }
    }

    /// The server could not do what it was asked for. It keeps no stream then.
    fn failed(&mut self, now: Time, code: &ErrorCode, out: &mut Vec<Action>) {
        let error = Error::from_code(code, &self.name(), None).with_partition(&self.topic, self.partition);
        match code {
            ErrorCode::TopicDeleted => self.deleted("was deleted".to_owned(), out),
            code if is_beyond_the_end(code) => self.ends_before(out),
            ErrorCode::OffsetEvicted { next_available, .. }
                if self.relative && *next_available > self.position =>
            {
                self.position = *next_available;
                self.anchor = Anchor::Nothing;
                self.start(out);
            }
            // The directory decides whether it is over.
            ErrorCode::TopicNotFound => self.wait(now, out),
            _ if error.is_retriable() => self.wait(now, out),
            _ => {
                self.state = State::Over;
                out.push(Action::End(error));
            }
        }
    }

    /// The log ends before the position.
    fn ends_before(&mut self, out: &mut Vec<Action>) {
        if self.confirmed {
            let why = format!(
                "was deleted and created again: partition {} ends before offset {}, up to which it was read",
                self.partition, self.position
            );
            return self.deleted(why, out);
        }
        let message = format!("{}: offset {} lies beyond the end", self.name(), self.position);
        let error = Error::new(ErrorKind::OffsetOutOfRange, message).with_detail("offset", self.position);
        self.end(error.with_partition(&self.topic, self.partition), out);
    }

    fn deleted(&mut self, why: String, out: &mut Vec<Action>) {
        self.state = State::Over;
        out.push(Action::Deleted(why));
    }

    /// Tries again in a while, and asks the directory meanwhile.
    fn wait(&mut self, now: Time, out: &mut Vec<Action>) {
        self.state = State::Waiting { until: now + self.pause };
        self.pause = (self.pause * 2).min(PAUSES[1]);
        out.push(Action::LookUp);
    }

    fn distrust(&mut self, message: String, out: &mut Vec<Action>) {
        let error = Error::new(ErrorKind::Protocol, message).with_partition(&self.topic, self.partition);
        self.nonsense += 1;
        if self.nonsense >= NONSENSE_LIMIT {
            self.state = State::Over;
            out.push(Action::End(error.clone()));
        }
        out.push(Action::Distrust(error));
    }

    fn start(&mut self, out: &mut Vec<Action>) {
        if !self.linked || self.paused {
            self.state = State::Idle;
            return;
        }
        let offset = match self.anchor {
            Anchor::Nothing => return self.open(out),
            Anchor::Unknown => self.position - 1,
            Anchor::Known(header) => header.base_offset,
        };
        let request = self.number();
        self.state = State::Checking { request };
        out.push(Action::Check { request, offset });
    }

    fn open(&mut self, out: &mut Vec<Action>) {
        if self.paused {
            self.state = State::Idle;
            return;
        }
        let number = self.number();
        self.state = State::Streaming(Stream {
            number,
            session: None,
            one: None,
            owed: false,
            dropped: false,
            astray: Astray::No,
        });
        out.push(Action::Open { stream: number, offset: self.position, max_bytes: self.max_bytes });
    }

    /// Leaves the stream, if there is one.
    fn leave(&mut self, out: &mut Vec<Action>) {
        if matches!(self.state, State::Streaming(_)) {
            out.push(Action::Left);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The partition, in words.
    pub(crate) fn name(&self) -> String {
        format!("partition {} of topic {:?}", self.partition, self.topic)
    }
}

fn anchor_at(position: i64) -> Anchor {
    if position > 0 { Anchor::Unknown } else { Anchor::Nothing }
}
