//! One client connection: reads frames, has them answered strictly one after another, and ends alone.
//!
//! Whatever a client sends, only its own connection suffers: frames are capped, and a failed handshake, an undecodable
//! request, a request for an unknown key or a panic in its handling closes this connection and nothing else.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use wire::frame::split_frame;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::faults::{ConnectionFaults, Direction, Fate};
use crate::latency::apart;
use crate::outbox::Outbox;
use crate::plane::Plane;
use crate::tls::Tls;

/// Room for reads from the socket at most. Generous, because a frame that crosses its end is copied to the next.
const READ_BYTES: usize = 1024 * 1024;
/// Room for reads at first, which is enough for a client that only listens: there may be thousands. No read is made into
/// less.
const MIN_READ_BYTES: usize = 16 * 1024;

/// How long a request whose client has stopped sending may still take: a client may close only its own half.
const HALF_CLOSED: Duration = Duration::from_secs(5);
/// How often it is looked whether such a client has got everything.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// How a TLS connection begins; as the length of a frame it would be 352 MiB and more.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Answers the requests of one connection.
pub(crate) trait Service: Send + 'static {
    /// Handles one request; an error closes the connection. The next request waits until this one is done.
    fn handle(&mut self, request: BytesMut) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Serves `socket`, over TLS and from a distance if the server is configured so, until the client leaves, misbehaves, or
/// `closed` is cancelled.
pub(crate) async fn serve<S: Service>(
    socket: TcpStream,
    cluster: Arc<Cluster>,
    plane: Plane,
    closed: CancellationToken,
    service: impl FnOnce(Arc<Outbox>, CancellationToken) -> S,
) {
    let counts = cluster.counts.of(plane);
    let _open = counts.connection();
    let faults = ConnectionFaults::new(cluster.faults.clone(), plane);
    let peer = socket.peer_addr().ok().map(tracing::field::display);
    let split = faults.splits_writes();
    if let Err(error) = socket.set_nodelay(!split) {
        tracing::debug!(peer, %error, "cannot set TCP_NODELAY");
    }
    let Config { ref tls, latency, max_frame_bytes, .. } = cluster.config;
    let served = async {
        if closed.run_until_cancelled(faults.moving()).await.is_none() {
            return Ok(());
        }
        let (opening, passing): (BoxFuture<'_, anyhow::Result<Halves>>, BoxFuture<'_, ()>) =
            match latency.is_zero() {
                true => (Box::pin(open(socket, tls.as_ref(), halves_of)), Box::pin(async {})),
                false => {
                    let (stream, passing) = apart(socket, latency / 2);
                    (Box::pin(open(stream, tls.as_ref(), split_stream)), Box::pin(passing))
                }
            };
        let conversing = async {
            let Some(opened) = closed.run_until_cancelled(opening).await else {
                return Ok(());
            };
            let (reader, writer) = opened?;
            let outbox = Outbox::new(writer, closed.clone(), faults, counts, split);
            serve_stream(reader, outbox, closed.clone(), max_frame_bytes, service).await
        };
        tokio::join!(conversing, passing).0
    };
    match served.await {
        Ok(()) => tracing::debug!(peer, "connection ended"),
        // Somebody looked whether the port is open, or gave up: nothing to warn of either.
        Err(error) if has_left(&error) => tracing::debug!(peer, "connection ended: {error:#}"),
        Err(error) => tracing::warn!(peer, "connection closed: {error:#}"),
    }
}

/// Both directions of a connection.
type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// The directions of a stream, or of TLS over it.
async fn open<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    tls: Option<&Tls>,
    halves: impl FnOnce(S) -> Halves,
) -> anyhow::Result<Halves> {
    Ok(match tls {
        None => halves(stream),
        Some(tls) => split_stream(tls.accept(stream).await?),
    })
}

/// Those of a socket, which need no lock.
fn halves_of(socket: TcpStream) -> Halves {
    let (reader, writer) = socket.into_split();
    (Box::new(reader), Box::new(writer))
}

fn split_stream<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Halves {
    let (reader, writer) = tokio::io::split(stream);
    (Box::new(reader), Box::new(writer))
}

/// [`serve`] on any pair of streams; an error is why the connection was closed.
pub(crate) async fn serve_stream<S: Service>(
    reader: impl AsyncRead + Unpin,
    outbox: Outbox,
    closed: CancellationToken,
    max_frame_bytes: usize,
    service: impl FnOnce(Arc<Outbox>, CancellationToken) -> S,
) -> anyhow::Result<()> {
    let outbox = Arc::new(outbox);
    outbox.faults().all().register(&outbox);
    let mut service = service(outbox.clone(), closed.clone());
    let mut requests = Requests {
        reader,
        buffer: BytesMut::new(),
        held: BytesMut::new(),
        room: MIN_READ_BYTES,
        ended: false,
        max_frame_bytes,
    };
    let ended = tokio::select! {
        ended = requests.serve(&outbox, &mut service) => ended,
        () = closed.cancelled() => Ok(()),
    };
    outbox.close();
    ended
}

/// Whether the connection just ended, or was reset, in its handshake.
fn has_left(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
}

/// The requests of one connection.
struct Requests<R> {
    reader: R,
    buffer: BytesMut,
    /// What a fault keeps back of what was read.
    held: BytesMut,
    /// Room that the buffer is given; it grows with what the client sends at a time.
    room: usize,
    /// The client sends nothing any more.
    ended: bool,
    max_frame_bytes: usize,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    async fn serve<S: Service>(&mut self, outbox: &Outbox, service: &mut S) -> anyhow::Result<()> {
        loop {
            let mut handled_all = false;
            while !outbox.is_congested() && !outbox.faults().is_stalled() {
                let Some(request) = self.next_request()? else {
                    handled_all = true;
                    break;
                };
                let handled = AssertUnwindSafe(handle(outbox, service, request)).catch_unwind();
                self.answer(outbox, handled)
                    .await?
                    .map_err(|_| anyhow!("the request made its handler panic"))??;
            }
            interrupt(outbox)?;
            let stalled = outbox.faults().is_stalled();
            if self.ended && !stalled && !outbox.is_congested() {
                if !handled_all {
                    continue;
                }
                // A client that vanishes is nothing to warn of.
                let _ = tokio::time::timeout(HALF_CLOSED, drained(outbox)).await;
                return Ok(());
            }
            let congested = outbox.is_congested();
            tokio::select! {
                () = outbox.drive(congested) => {}
                () = self.read(outbox), if !congested && !stalled && !self.ended => {}
            }
        }
    }

    fn next_request(&mut self) -> anyhow::Result<Option<BytesMut>> {
        let request = split_frame(&mut self.buffer, self.max_frame_bytes);
        request.map_err(|error| match self.buffer.starts_with(&TLS_HANDSHAKE) {
            true => {
                anyhow!(error).context("the client seems to use TLS, which this server was not started with")
            }
            false => anyhow!(error),
        })
    }

    /// Waits for `handled` while answers are written and the next requests arrive: a client that is gone must not be
    /// waited for.
    async fn answer<T>(&mut self, outbox: &Outbox, handled: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(handled);
        loop {
            let ended = self.ended;
            let full = self.buffer.len() >= READ_BYTES;
            let faults = outbox.faults();
            let stopped = faults.is_stalled() || faults.limit(Direction::Received) == Some(0);
            let expired = async {
                match ended {
                    true => tokio::time::sleep(HALF_CLOSED).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                handled = &mut handled => return Ok(handled),
                () = expired => return Err(anyhow!("the client left while its request was handled")),
                () = outbox.drive(false) => {}
                () = self.read(outbox), if !full && !ended && !stopped => {}
            }
        }
    }

    async fn read(&mut self, outbox: &Outbox) {
        let faults = outbox.faults();
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let bytes = held.len();
            self.buffer.unsplit(held);
            return self.pass(faults, bytes);
        }
        // From the front again where nothing is left of what was read: otherwise all of the room is in use in the end.
        let reclaimed = self.buffer.is_empty() && self.buffer.try_reclaim(self.room);
        if !reclaimed && self.buffer.capacity() - self.buffer.len() < MIN_READ_BYTES {
            self.buffer.reserve(self.room);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        match self.reader.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => self.ended = true,
            Ok(read) => {
                outbox.counts().received(read);
                if read == room {
                    self.room = (self.room * 4).min(READ_BYTES);
                }
                self.pass(faults, read);
            }
        }
    }

    /// Lets the last bytes of the buffer pass as far as no fault is in the way. Asked after they were read, because a fault
    /// may have come while they were waited for.
    fn pass(&mut self, faults: &ConnectionFaults, bytes: usize) {
        let passed = match faults.limit(Direction::Received) {
            None => bytes,
            Some(most) => bytes.min(usize::try_from(most).unwrap_or(usize::MAX)),
        };
        if passed < bytes {
            self.held = self.buffer.split_off(self.buffer.len() - (bytes - passed));
        }
        faults.count(Direction::Received, passed);
    }
}

/// Writes what the client has still to get.
async fn drained(outbox: &Outbox) {
    while !outbox.is_drained() {
        tokio::select! {
            () = outbox.drive(false) => {}
            () = tokio::time::sleep(DRAIN_INTERVAL) => {}
        }
    }
}

/// Handles a request unless a fault keeps it from that.
async fn handle<S: Service>(outbox: &Outbox, service: &mut S, request: BytesMut) -> anyhow::Result<()> {
    if let Some(key) = request.first_chunk() {
        outbox.counts().request(u16::from_be_bytes(*key));
    }
    match outbox.faults().before(&request).await {
        Fate::Spared => service.handle(request).await,
        Fate::Ignored => Ok(()),
        Fate::Closed => Err(anyhow!("closed by a fault at a request")),
    }
}

/// Ends a connection of which no more bytes may be received.
fn interrupt(outbox: &Outbox) -> anyhow::Result<()> {
    match outbox.faults().interrupt(Direction::Received) {
        Fate::Closed => Err(anyhow!("closed by a fault at a received byte")),
        _ => Ok(()),
    }
}
