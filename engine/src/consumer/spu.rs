//! What a consumer has to do with one SPU: one link, the partitions that it leads, and what was asked for on its connection.
//!
//! Invariants: at most one connection, opened once for all partitions; an answer counts only if what it answers was asked for
//! on the present connection; the same SPU is given up if it leaves an older request unanswered, or says nothing at all, for
//! the request time-out. While there is no room for answers nothing is read, and then nothing counts as silence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluvio_protocol::api::Request;

use crate::directory::Spu;
use crate::error::{Error, ErrorKind};
use crate::link::{Connection, Inbox, Link};
use crate::session::Time;

/// Connections in a row that end in nonsense before the partitions are given up.
const NONSENSE_LIMIT: u32 = 3;

/// How long streams that nobody wants may stay on the server: it ends them with their connection only.
const LEFT_LIMIT: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A stream of a partition: its number there.
    Stream { partition: u32, number: u64 },
    /// One batch of a partition.
    One { partition: u32, request: u64 },
    /// Headers of partitions, each with the number of the request there.
    Headers(Vec<(u32, u64)>),
    /// Acknowledgements of streams: partition, number, and what the server calls it.
    Acknowledgements(Vec<(u32, u64, u32)>),
    /// A sign of life.
    Probe,
}

/// One SPU as a consumer uses it.
#[derive(Debug)]
pub(super) struct SpuLink {
    pub(super) link: Link,
    pub(super) connection: Option<Connection>,
    /// Counts the connections.
    pub(super) epoch: u64,
    pub(super) opening: bool,
    pub(super) partitions: BTreeSet<u32>,
    /// What is under way on the connection, by tag.
    asked: BTreeMap<u64, Asked>,
    /// Of these, what is answered once, and since when it is under way.
    unanswered: BTreeMap<u64, Time>,
    probing: Option<u64>,
    /// Since when there are streams that nobody wants.
    left: Option<Time>,
    nonsense: u32,
    /// Whether anything that can be believed has come on the connection.
    believed: bool,
}

impl SpuLink {
    pub(super) fn new(link: Link) -> Self {
        SpuLink {
            link,
            connection: None,
            epoch: 0,
            opening: false,
            partitions: BTreeSet::new(),
            asked: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            probing: None,
            left: None,
            nonsense: 0,
            believed: false,
        }
    }

    pub(super) fn spu(&self) -> &Spu {
        self.link.spu()
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, connection: Connection) {
        self.opening = false;
        self.epoch += 1;
        self.believed = false;
        self.connection = Some(connection);
    }

    /// The connection is lost, and everything that was asked for on it. The error, once nonsense has come too often.
    pub(super) fn lost(&mut self, error: &Error) -> Option<Error> {
        self.connection = None;
        self.opening = false;
        self.asked.clear();
        self.unanswered.clear();
        (self.probing, self.left) = (None, None);
        if matches!(error.kind(), ErrorKind::Protocol | ErrorKind::UnsupportedVersion) {
            self.nonsense += 1;
        }
        (self.nonsense >= NONSENSE_LIMIT).then(|| error.clone())
    }

    /// A stream was left behind.
    pub(super) fn left(&mut self, now: Time) {
        self.left.get_or_insert(now);
    }

    /// Sends a request, if there is a connection. What cannot be sent ends the connection.
    pub(super) fn ask<R: Request>(&mut self, now: Time, request: R, asked: Asked, inbox: &Inbox, tag: u64) {
        let Some(connection) = &self.connection else { return };
        let once = !matches!(asked, Asked::Stream { .. });
        let probes = matches!(asked, Asked::Probe);
        match connection.subscribe(request, once, inbox, tag) {
            Ok(()) => {
                self.asked.insert(tag, asked);
                if once {
                    self.unanswered.insert(tag, now);
                }
                if probes {
                    self.probing = Some(tag);
                }
            }
            // Nothing happens to a connection that is lost already.
            Err(error) => connection.fail(error),
        }
    }

    /// What an answer with this tag answers. `None` if nobody wants it any more.
    pub(super) fn answered(&mut self, now: Time, tag: u64, patience: Duration) -> Option<&Asked> {
        if self.unanswered.remove(&tag).is_some() {
            // The server answers in turn: what was asked before should have been answered before.
            if let (Some((_, since)), Some(connection)) =
                (self.unanswered.range(..tag).next(), &self.connection)
                && now.saturating_sub(*since) >= patience
            {
                connection.fail(connection.timed_out(patience));
            }
            if self.probing == Some(tag) {
                self.probing = None;
            }
        }
        self.asked.get(&tag)
    }

    /// Forgets what was asked for with this tag.
    pub(super) fn forget(&mut self, tag: u64) -> Option<Asked> {
        self.asked.remove(&tag)
    }

    /// Records that can be believed have come.
    pub(super) fn healthy(&mut self) {
        self.nonsense = 0;
        if !std::mem::replace(&mut self.believed, true) {
            self.link.was_of_use();
        }
    }

    /// Gives up a connection that is silent, or has streams that nobody wants. Returns whether a sign of life is wanted.
    pub(super) fn look_after(&mut self, now: Time, patience: Duration) -> bool {
        let Some(connection) = &self.connection else { return false };
        if self.left.is_some_and(|since| now >= since + LEFT_LIMIT) {
            let message = format!("the streams on the connection to {} were replaced", connection.peer());
            connection.fail(Error::new(ErrorKind::Connection, message));
            return false;
        }
        let silent = connection.silent_for() >= patience;
        let overdue =
            self.unanswered.values().next().is_some_and(|since| now.saturating_sub(*since) >= patience);
        if silent && overdue {
            connection.fail(connection.timed_out(patience));
            return false;
        }
        (overdue || (silent && self.unanswered.is_empty())) && self.probing.is_none()
    }

    /// When [`SpuLink::look_after`] has something to do at the latest.
    pub(super) fn deadline(&self, now: Time, patience: Duration) -> Option<Time> {
        let connection = self.connection.as_ref()?;
        let silent = now + patience.saturating_sub(connection.silent_for()).max(patience / 8);
        let overdue = self.unanswered.values().next().map_or(silent, |since| *since + patience);
        let overdue = if overdue <= now { now + patience / 8 } else { overdue };
        let left = self.left.map_or(silent, |since| since + LEFT_LIMIT);
        Some(silent.min(overdue).min(left))
    }
}
