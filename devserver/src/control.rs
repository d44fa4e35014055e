//! The control socket: faults, events and counters on request, for tests in any language.
//!
//! A Unix socket that only its owner can use. Every line is a JSON object with one request, and is answered by one line.
//! What is wrong with a request is told to whoever sent it; the socket goes on.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fluvio_types::{PartitionId, SpuId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::counters::Counters;
use crate::faults::{Fault, FaultId, InjectedFault};
use crate::server::Server;

/// No request is longer.
const MAX_LINE: u64 = 64 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What can be asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Inject(Fault),
    Clear(Which),
    List(Yes),
    MoveLeader(Move),
    Evict(Evicted),
    StopSpu(SpuId),
    StartSpu(SpuId),
    CloseConnections(Yes),
    Counters(Yes),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "clear: expected the number of a fault or \"all\"")]
enum Which {
    One(FaultId),
    All(All),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum All {
    All,
}

/// `true`: for requests that need no more.
#[derive(Debug, Deserialize)]
#[serde(try_from = "bool")]
struct Yes;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    topic: String,
    partition: PartitionId,
    spu: SpuId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evicted {
    topic: String,
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Injected { id: FaultId },
    Cleared { cleared: usize },
    Listed { faults: Vec<InjectedFault> },
    Counted { counters: Counters },
    Done { done: bool },
    Failed { error: String },
}

/// A control socket. Its file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens at `path`. A file that a dead server has left there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        // Connecting to a file that is no socket is refused as well.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
            && StdStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The file gets the permissions of the socket, so there is no moment at which others could connect.
        let file = File::from(OwnedFd::from(socket));
        file.set_permissions(Permissions::from_mode(0o600))?;
        let socket = Socket::from(OwnedFd::from(file));
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(StdListener::from(OwnedFd::from(socket)))?;
        Ok(Control { listener, path: path.to_owned() })
    }

    /// Serves whoever connects, for ever.
    pub async fn serve(&self, server: &Server) -> ! {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => connections.push(converse(socket, server)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a control connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(ended) = connections.next() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "control connection lost");
                    }
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket cannot be removed");
        }
    }
}

async fn converse(socket: UnixStream, server: &Server) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut socket).take(MAX_LINE).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            socket.write_all(b"{\"error\":\"the line is too long\"}\n").await?;
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, server).await,
            Err(error) => Answer::Failed { error: error.to_string() },
        };
        let mut answer = serde_json::to_vec(&answer)?;
        answer.push(b'\n');
        socket.write_all(&answer).await?;
    }
}

async fn answer(request: Request, server: &Server) -> Answer {
    let outcome: Result<Answer, anyhow::Error> = async {
        Ok(match request {
            Request::Inject(fault) => Answer::Injected { id: server.inject(fault)? },
            Request::Clear(Which::One(id)) => {
                server.clear(id)?;
                Answer::Done { done: true }
            }
            Request::Clear(Which::All(All::All)) => Answer::Cleared { cleared: server.clear_faults() },
            Request::List(Yes) => Answer::Listed { faults: server.faults() },
            Request::MoveLeader(Move { topic, partition, spu }) => {
                server.move_leader(&topic, partition, spu)?;
                Answer::Done { done: true }
            }
            Request::Evict(Evicted { topic }) => {
                server.evict(&topic).await?;
                Answer::Done { done: true }
            }
            Request::StopSpu(spu) => {
                server.stop_spu(spu).await?;
                Answer::Done { done: true }
            }
            Request::StartSpu(spu) => {
                server.start_spu(spu).await?;
                Answer::Done { done: true }
            }
            Request::CloseConnections(Yes) => {
                server.close_connections();
                Answer::Done { done: true }
            }
            Request::Counters(Yes) => Answer::Counted { counters: server.counters() },
        })
    }
    .await;
    outcome.unwrap_or_else(|error| Answer::Failed { error: format!("{error:#}") })
}

impl TryFrom<bool> for Yes {
    type Error = &'static str;

    fn try_from(yes: bool) -> Result<Self, Self::Error> {
        if yes { Ok(Yes) } else { Err("expected true") }
    }
}
