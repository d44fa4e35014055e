//! A small pool of connections for administration, apart from the metadata watch.
//!
//! The server answers one connection's requests one after another and a topic create can take long, so every call has a
//! connection to itself. It goes back only after its answer came: a request that timed out or was cancelled takes its
//! connection with it.

use fluvio_protocol::api::Request;
use parking_lot::Mutex;

use super::{Connection, Settings};
use crate::error::{ErrorKind, Result};

/// Idle connections that are kept.
const KEPT: usize = 4;

/// The idle connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: String,
    settings: Settings,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(endpoint: String, settings: Settings) -> Self {
        Pool { endpoint, settings, idle: Mutex::default() }
    }

    /// One request and its answer. `encode` makes the request for the version that the connection speaks.
    ///
    /// A kept connection that turns out to be dead before it answered is replaced once if `repeatable`: the request may
    /// have been executed.
    pub(crate) async fn call<R: Request>(
        &self,
        repeatable: bool,
        encode: impl Fn(i16) -> Result<R>,
    ) -> Result<R::Response> {
        if let Some(connection) = self.kept() {
            match self.call_on(connection, &encode).await {
                Err(error) if repeatable && error.kind() == ErrorKind::Connection => {}
                outcome => return outcome,
            }
        }
        self.call_on(Connection::open(&self.endpoint, &self.settings).await?, &encode).await
    }

    async fn call_on<R: Request>(
        &self,
        connection: Connection,
        encode: impl Fn(i16) -> Result<R>,
    ) -> Result<R::Response> {
        let answer = connection.call(encode(connection.version::<R>()?)?).await?;
        let mut idle = self.idle.lock();
        if idle.len() < KEPT {
            idle.push(connection);
        }
        Ok(answer)
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|connection| !connection.is_lost());
        idle.pop()
    }

    /// Closes the idle connections.
    pub(crate) fn clear(&self) {
        self.idle.lock().clear();
    }
}
