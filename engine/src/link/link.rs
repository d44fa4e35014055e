//! Links: the way to one SPU for one purpose, whatever becomes of its connection.
//!
//! Invariants: a link has at most one connection, which is opened once for all who wait for it, and a failure is theirs
//! together; the pause before the next attempt is the link's, not theirs; an attempt runs in a task of its own, so whoever
//! loses patience ends it for nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Backoff, Connection, Settings};
use crate::directory::Spu;
use crate::error::{Error, Result};

type Opening = Shared<BoxFuture<'static, Result<Connection>>>;

/// One connection to one SPU for one purpose. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spu: Spu,
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    closed: bool,
    /// The last connection, and since when it is there.
    connection: Option<(Connection, Instant)>,
    /// Whether its owner says that it was of use.
    of_use: bool,
    opening: Option<(Opening, AbortHandle)>,
    backoff: Backoff,
    /// No attempt begins before this.
    not_before: Option<Instant>,
}

impl Link {
    pub(crate) fn new(spu: Spu, settings: Settings) -> Self {
        let state = State {
            closed: false,
            connection: None,
            of_use: false,
            opening: None,
            backoff: Backoff::reconnect(),
            not_before: None,
        };
        Link { inner: Arc::new(Inner { spu, settings, state: Mutex::new(state) }) }
    }

    /// The SPU.
    pub(crate) fn spu(&self) -> &Spu {
        &self.inner.spu
    }

    /// The connection. If there is none, waits for the attempt that is under way, or begins one once the pause after the
    /// last failure is over. Dropping the future ends no attempt.
    pub(crate) async fn connection(&self) -> Result<Connection> {
        let opening = {
            let mut state = self.inner.state.lock();
            if state.closed {
                return Err(Error::closed("client"));
            }
            if let Some((connection, since)) = &state.connection {
                if !connection.is_lost() {
                    return Ok(connection.clone());
                }
                let of_use = state.of_use;
                let lived = since.elapsed();
                (state.connection, state.of_use) = (None, false);
                if of_use {
                    state.backoff.start_anew();
                } else {
                    state.backoff.lasted(lived);
                }
                state.pause();
            }
            match &state.opening {
                Some((opening, _)) => opening.clone(),
                None => self.begin(&mut state),
            }
        };
        opening.await
    }

    /// What the connection is for has come over it: when it is lost the next attempt may follow soon.
    pub(crate) fn was_of_use(&self) {
        self.inner.state.lock().of_use = true;
    }

    /// Begins an attempt.
    fn begin(&self, state: &mut State) -> Opening {
        let not_before = state.not_before.take();
        let (spu, settings) = (self.inner.spu.clone(), self.inner.settings.clone());
        // Weak: nobody may be interested in the outcome any more.
        let link = Arc::downgrade(&self.inner);
        let task = tokio::spawn(async move {
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before).await;
            }
            let outcome = Connection::open(&spu.address, &settings).await;
            ended(&link, outcome.map_err(|error| at(&spu, error)))
        });
        let abort = task.abort_handle();
        let link = Arc::downgrade(&self.inner);
        let opening = async move {
            match task.await {
                Ok(outcome) => outcome,
                Err(failed) if failed.is_panic() => {
                    ended(&link, Err(Error::panic("the opening of a connection")))
                }
                Err(_) => Err(Error::closed("client")),
            }
        };
        let opening = opening.boxed().shared();
        state.opening = Some((opening.clone(), abort));
        opening
    }

    /// Closes the connection, for good: whoever waits for it, or for an answer on it, learns that it is closed.
    pub(crate) fn close(&self) {
        let mut state = self.inner.state.lock();
        state.closed = true;
        if let Some((_, attempt)) = state.opening.take() {
            attempt.abort();
        }
        if let Some((connection, _)) = state.connection.take() {
            drop(state);
            connection.fail(Error::closed("client"));
        }
    }
}

/// An attempt has ended, and nobody who waits for it has heard of it yet.
fn ended(link: &Weak<Inner>, outcome: Result<Connection>) -> Result<Connection> {
    let Some(inner) = link.upgrade() else { return Err(Error::closed("client")) };
    let mut state = inner.state.lock();
    state.opening = None;
    if state.closed {
        return Err(Error::closed("client"));
    }
    match &outcome {
        Ok(connection) => {
            (state.connection, state.of_use) = (Some((connection.clone(), Instant::now())), false);
        }
        Err(_) => state.pause(),
    }
    outcome
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some((_, attempt)) = self.opening.take() {
            attempt.abort();
        }
    }
}

impl State {
    fn pause(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff.next_delay());
    }
}

/// Names the SPU: its address is what the cluster advertises, which need not be right.
fn at(spu: &Spu, error: Error) -> Error {
    let message = format!("SPU {} at its advertised address: {}", spu.id, error.message());
    error.with_message(message).with_spu(spu.id, &spu.address).with_detail("spu", spu.id)
}

/// The links for one purpose, by SPU.
#[derive(Debug)]
pub(crate) struct Links {
    settings: Settings,
    state: Mutex<LinksState>,
}

#[derive(Debug, Default)]
struct LinksState {
    closed: bool,
    by_spu: HashMap<i32, Link>,
}

impl Links {
    pub(crate) fn new(settings: Settings) -> Self {
        Links { settings, state: Mutex::default() }
    }

    /// The link to an SPU; another one if its name or address is no longer what it was.
    pub(crate) fn to(&self, spu: &Spu) -> Link {
        let mut state = self.state.lock();
        if let Some(link) = state.by_spu.get(&spu.id).filter(|link| link.spu() == spu) {
            return link.clone();
        }
        let link = Link::new(spu.clone(), self.settings.clone());
        if state.closed {
            link.close();
        } else {
            // The former one, if there is one, closes once what was asked on it is answered.
            state.by_spu.insert(spu.id, link.clone());
        }
        link
    }

    /// Closes all of them, for good.
    pub(crate) fn close(&self) {
        let links: Vec<Link> = {
            let mut state = self.state.lock();
            state.closed = true;
            state.by_spu.drain().map(|(_, link)| link).collect()
        };
        for link in links {
            link.close();
        }
    }
}
