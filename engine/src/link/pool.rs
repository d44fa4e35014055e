//! A small pool of connections for administration, apart from the metadata watch.
//!
//! The server answers one connection's requests one after another and a topic create can take long, so every call has a
//! connection to itself; of many calls only some are under way at a time, the others wait for their turn. A connection
//! goes back only after its answer came: a request that timed out or was cancelled takes its connection with it. Once
//! the pool is closed every call ends, wherever it stands, and its connection with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluvio_protocol::api::Request;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{Connection, Settings};
use crate::error::{Error, ErrorKind, Outcome, Result};

/// Idle connections that are kept.
const KEPT: usize = 4;

/// Calls that may be under way, each on a connection of its own.
const AT_A_TIME: usize = 16;

/// The idle connections to one endpoint, and turns for those who call. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// Waiting for a turn has no time-out of its own: every call before has one, so the line moves. A call's time begins
    /// with its turn; if the client is closed meanwhile, that ends the wait.
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    endpoint: String,
    settings: Settings,
    idle: Mutex<Vec<Connection>>,
    closed: watch::Sender<bool>,
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(endpoint: String, settings: Settings) -> Self {
        let closed = watch::Sender::new(false);
        let shared = Shared { endpoint, settings, idle: Mutex::default(), closed };
        Pool { shared: Arc::new(shared), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// The same connections with turns of its own: for those who are not to wait behind all others.
    pub(crate) fn apart(&self) -> Self {
        Pool { shared: Arc::clone(&self.shared), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// One request and its answer. `encode` makes the request for the version that the connection speaks.
    ///
    /// A kept connection that turns out to be dead before it answered is replaced once if `repeatable`: the request may
    /// have been executed. Of what is not repeatable, an error says what became of it. `patience` is for requests that
    /// the server was told may take longer than the request time-out.
    pub(crate) async fn call<R: Request>(
        &self,
        repeatable: bool,
        patience: Option<Duration>,
        encode: impl Fn(i16) -> Result<R>,
    ) -> Result<R::Response> {
        let sent = AtomicBool::new(false);
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            biased;
            outcome = self.call_in_turn(repeatable, patience, &encode, &sent) => outcome,
            // What is dropped closes its connection, also one that is being opened.
            _ = closed.wait_for(|closed| *closed) => {
                let outcome = if sent.into_inner() { Outcome::Unknown } else { Outcome::NotSent };
                Err(with_fate(Error::closed("client"), repeatable, outcome))
            }
        }
    }

    async fn call_in_turn<R: Request>(
        &self,
        repeatable: bool,
        patience: Option<Duration>,
        encode: &impl Fn(i16) -> Result<R>,
        sent: &AtomicBool,
    ) -> Result<R::Response> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        self.check_open(repeatable)?;
        if let Some(connection) = self.kept() {
            match self.call_on(connection, repeatable, patience, encode, sent).await {
                Err(error) if repeatable && error.kind() == ErrorKind::Connection => {}
                outcome => return outcome,
            }
        }
        let opened = Connection::open(&self.shared.endpoint, &self.shared.settings).await;
        let connection = opened.map_err(|error| with_fate(error, repeatable, Outcome::NotSent))?;
        self.check_open(repeatable)?;
        self.call_on(connection, repeatable, patience, encode, sent).await
    }

    async fn call_on<R: Request>(
        &self,
        connection: Connection,
        repeatable: bool,
        patience: Option<Duration>,
        encode: impl Fn(i16) -> Result<R>,
        sent: &AtomicBool,
    ) -> Result<R::Response> {
        let request_timeout = self.shared.settings.request_timeout;
        let limit = patience.map_or(request_timeout, |patience| patience.max(request_timeout));
        let begun =
            connection.version::<R>().and_then(encode).and_then(|request| connection.begin(request, limit));
        let answer = begun.map_err(|error| with_fate(error, repeatable, Outcome::NotSent))?;
        sent.store(true, Ordering::Relaxed);
        let answer = answer.await.map_err(|error| with_fate(error, repeatable, Outcome::Unknown))?;
        let mut idle = self.shared.idle.lock();
        if idle.len() < KEPT && !*self.shared.closed.borrow() {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.shared.idle.lock();
        idle.retain(|connection| !connection.is_lost());
        idle.pop()
    }

    fn check_open(&self, repeatable: bool) -> Result<()> {
        if *self.shared.closed.borrow() {
            Err(with_fate(Error::closed("client"), repeatable, Outcome::NotSent))
        } else {
            Ok(())
        }
    }

    /// Closes every connection: the idle ones at once, those in use as their calls end, which is now. No call begins any
    /// more, with or without turns of its own.
    pub(crate) fn close(&self) {
        self.shared.closed.send_replace(true);
        self.shared.idle.lock().clear();
    }
}

fn with_fate(error: Error, repeatable: bool, outcome: Outcome) -> Error {
    if repeatable { error } else { error.with_outcome(outcome) }
}
