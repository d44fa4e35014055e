//! What faults do to one connection: its requests, its answers, its bytes.
//!
//! A request is known by its key. Answers are known by the correlation id in their first bytes: that of the request that is
//! being handled, or of an earlier one that is answered by a stream of answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;
use wire::frame::LENGTH_PREFIX;

use super::kinds::{Effect, Fault, Selector, When};
use super::registry::{FaultId, Faults};
use super::requests::RequestName;
use crate::plane::Plane;

/// The faults of one connection.
pub(crate) struct ConnectionFaults {
    faults: Arc<Faults>,
    plane: Plane,
    /// Correlation id and key of the request that is being handled.
    current: AtomicU64,
    /// Keys of the requests that are answered more than once, by correlation id.
    followed: Mutex<HashMap<i32, u16>>,
    /// The fault that has stalled this connection.
    stalled_by: Mutex<Option<FaultId>>,
    received: Mutex<ByteCount>,
    sent: Mutex<ByteCount>,
}

/// Bytes in one direction, counted while there is a fault.
#[derive(Default)]
struct ByteCount {
    total: u64,
    /// The total when a fault was first met.
    since: HashMap<FaultId, u64>,
}

/// A direction, seen from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Received,
    Sent,
}

/// What becomes of a request or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Spared,
    /// The request is not handled.
    Ignored,
    /// The connection is closed.
    Closed,
}

/// What becomes of an answer.
pub(crate) enum Answer {
    /// It is sent, maybe changed.
    Sent(Vec<Bytes>),
    /// It waits until the time, if there is one, or until the fault is cleared.
    Held(Vec<Bytes>, FaultId, Option<Instant>),
    /// Nobody will see it.
    Dropped,
    /// The connection is closed instead.
    Closed,
}

/// What an effect does at a point in the life of a request.
enum Blow {
    Delay(FaultId, Option<std::time::Duration>),
    Ignore,
    Close,
    Stall(FaultId),
    Oversize(i32),
}

impl ConnectionFaults {
    pub(crate) fn new(faults: Arc<Faults>, plane: Plane) -> Self {
        ConnectionFaults {
            faults,
            plane,
            current: AtomicU64::new(0),
            followed: Mutex::default(),
            stalled_by: Mutex::default(),
            received: Mutex::default(),
            sent: Mutex::default(),
        }
    }

    /// Those of the whole server.
    pub(crate) fn all(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Whether its answers are to be written in parts.
    pub(crate) fn splits_writes(&self) -> bool {
        self.faults.splits_writes(self.plane)
    }

    /// Whether nothing moves on this connection.
    pub(crate) fn is_stalled(&self) -> bool {
        if self.faults.is_quiet() {
            return false;
        }
        let black_hole = |effect: &Effect, selector: &Selector| {
            matches!(effect, Effect::BlackHole {}) && selector.has_plane(self.plane)
        };
        let stalled_by = *self.stalled_by.lock();
        stalled_by.is_some_and(|fault| self.faults.is_injected(fault)) || self.faults.stands(black_hole)
    }

    /// Waits until something moves.
    pub(crate) async fn moving(&self) {
        self.faults.until(|| !self.is_stalled()).await;
    }

    /// Notes that a request is about to be handled, and does to it what happens before that.
    pub(crate) async fn before(&self, request: &[u8]) -> Fate {
        let (Some(key), Some(id)) = (request.first_chunk(), id_at(request, 4)) else {
            return Fate::Spared;
        };
        let key = u16::from_be_bytes(*key);
        self.current.store(u64::from(id as u32) << 16 | u64::from(key), Ordering::Relaxed);
        if RequestName::is_followed(self.plane, key) {
            self.followed.lock().insert(id, key);
        }
        for blow in self.blows(key, When::Before) {
            match blow {
                Blow::Delay(fault, None) => self.faults.cleared(fault).await,
                Blow::Delay(fault, Some(delay)) => {
                    // Cleared early or not: the delay is over.
                    let _ = tokio::time::timeout(delay, self.faults.cleared(fault)).await;
                }
                Blow::Stall(fault) => {
                    self.stall(fault);
                    self.faults.cleared(fault).await;
                }
                Blow::Ignore => return Fate::Ignored,
                Blow::Close => return Fate::Closed,
                Blow::Oversize(_) => {}
            }
        }
        Fate::Spared
    }

    /// Does to an answer what happens after its request was handled.
    pub(crate) fn after(&self, mut frame: Vec<Bytes>) -> Answer {
        let Some((_, Some(key))) = self.request_of(&frame) else {
            return Answer::Sent(frame);
        };
        let mut held = None;
        for blow in self.blows(key, When::After) {
            match blow {
                Blow::Delay(fault, delay) => held = Some((fault, delay.map(|delay| Instant::now() + delay))),
                Blow::Ignore => return Answer::Dropped,
                Blow::Close => return Answer::Closed,
                Blow::Stall(fault) => self.stall(fault),
                Blow::Oversize(length) => {
                    let mut head = BytesMut::with_capacity(frame[0].len());
                    head.put_i32(length);
                    head.extend_from_slice(&frame[0][LENGTH_PREFIX..]);
                    frame[0] = head.freeze();
                }
            }
        }
        match held {
            Some((fault, due)) => Answer::Held(frame, fault, due),
            None => Answer::Sent(frame),
        }
    }

    /// The order in which an answer stands: that of its stream, or that of all replies.
    pub(crate) fn stream_of(&self, frame: &[Bytes]) -> Option<i32> {
        let id = id_at(frame.first()?, LENGTH_PREFIX)?;
        self.followed.lock().contains_key(&id).then_some(id)
    }

    /// Correlation id and key of the request that an answer belongs to.
    fn request_of(&self, frame: &[Bytes]) -> Option<(i32, Option<u16>)> {
        let id = id_at(frame.first()?, LENGTH_PREFIX)?;
        let current = self.current.load(Ordering::Relaxed);
        let key = match self.followed.lock().get(&id) {
            Some(key) => Some(*key),
            None => ((current >> 16) as u32 as i32 == id).then_some(current as u16),
        };
        Some((id, key))
    }

    fn blows(&self, key: u16, point: When) -> Vec<Blow> {
        self.faults.happen(|id, Fault { effect, selector, .. }| {
            if !selector.has_request(self.plane, key) {
                return None;
            }
            match effect {
                Effect::Delay { when, seconds } if *when == point => {
                    Some(Blow::Delay(id, seconds.map(|seconds| seconds.0)))
                }
                Effect::NeverAnswer { when } if *when == point => Some(Blow::Ignore),
                Effect::Close(at) if at.is_at(point) => Some(Blow::Close),
                Effect::Stall(at) if at.is_at(point) => Some(Blow::Stall(id)),
                Effect::OversizedFrame { length } if point == When::After => Some(Blow::Oversize(*length)),
                _ => None,
            }
        })
    }

    fn stall(&self, fault: FaultId) {
        *self.stalled_by.lock() = Some(fault);
    }

    /// How many bytes may still pass before a fault interrupts the connection.
    pub(crate) fn limit(&self, direction: Direction) -> Option<u64> {
        self.next_interruption(direction).map(|(bytes, _)| bytes)
    }

    /// Counts bytes that have passed.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) {
        if !self.faults.is_quiet() {
            self.byte_count(direction).lock().total += bytes as u64;
        }
    }

    /// Does what happens when no byte may pass any more.
    pub(crate) fn interrupt(&self, direction: Direction) -> Fate {
        let Some((0, interrupting)) = self.next_interruption(direction) else {
            return Fate::Spared;
        };
        // It has happened here already.
        if *self.stalled_by.lock() == Some(interrupting) {
            return Fate::Spared;
        }
        let closes = self
            .faults
            .happen(|id, fault| (id == interrupting).then_some(matches!(fault.effect, Effect::Close(_))));
        match closes.first() {
            Some(true) => Fate::Closed,
            Some(false) => {
                self.stall(interrupting);
                Fate::Spared
            }
            None => Fate::Spared,
        }
    }

    fn next_interruption(&self, direction: Direction) -> Option<(u64, FaultId)> {
        if self.faults.is_quiet() {
            return None;
        }
        let limits = self.faults.look(|id, Fault { effect, selector, .. }| match effect {
            Effect::Close(at) | Effect::Stall(at) if selector.has_plane(self.plane) => match direction {
                Direction::Received => at.received_bytes,
                Direction::Sent => at.sent_bytes,
            }
            .map(|bytes| (bytes, id)),
            _ => None,
        });
        let mut count = self.byte_count(direction).lock();
        let total = count.total;
        let left = |(bytes, id): (u64, FaultId)| {
            let passed = total - *count.since.entry(id).or_insert(total);
            (bytes.saturating_sub(passed), id)
        };
        limits.into_iter().map(left).min()
    }

    fn byte_count(&self, direction: Direction) -> &Mutex<ByteCount> {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }
}

fn id_at(bytes: &[u8], place: usize) -> Option<i32> {
    bytes.get(place..)?.first_chunk().map(|id| i32::from_be_bytes(*id))
}
