//! TCP: name look-up, connect, socket options.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::{ByteStream, ReadHalf};
use crate::error::{Error, ErrorKind, Result};

const KEEPALIVE: Duration = Duration::from_secs(30);

/// An address that has not answered for so long has company from the next one: RFC 8305, section 8, "Connection Attempt
/// Delay".
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What is left of the connect time-out for the handshake, and for saying who did not answer, is a tenth.
const CONNECT_PART: f64 = 0.9;

impl ReadHalf for OwnedReadHalf {
    #[cfg(target_os = "linux")]
    fn acknowledge_quickly(&self) {
        // The kernel leaves quick mode by itself, hence after every read. It is only a hint: a failure changes nothing.
        let _ = SockRef::from(self.as_ref()).set_tcp_quickack(true);
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_quickly(&self) {}
}

impl ByteStream for TcpStream {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    fn split(self) -> (Self::Reader, Self::Writer) {
        self.into_split()
    }
}

/// Connects to `endpoint` (`host:port`). If its name has several addresses each of them has its chance, the families in
/// turn, the next one as soon as one has failed or kept silent for a while (RFC 8305). The error names those tried.
pub(crate) async fn dial(endpoint: &str, limit: Duration, dead_peer_after: Duration) -> Result<TcpStream> {
    let deadline = Instant::now() + limit.mul_f64(CONNECT_PART);
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Connection, format!("cannot {what} {endpoint}: {error}"))
    };
    let found = tokio::net::lookup_host(endpoint).await.map_err(|error| failed("look up", &error))?;
    let stream = match race(in_turn(found.collect()), deadline).await {
        Ok(stream) => stream,
        Err(tried) => {
            let limit = limit.as_millis();
            let why = |error: Option<std::io::Error>| match error {
                Some(error) => error.to_string(),
                None => format!("no answer within {limit} ms"),
            };
            let silent = tried.iter().any(|(_, error)| error.is_none());
            let text = match &mut { tried }[..] {
                [] => "the name has no address".to_owned(),
                [(_, error)] => why(error.take()),
                several => {
                    let told = several
                        .iter_mut()
                        .map(|(address, error)| format!("{address}: {}", why(error.take())));
                    told.collect::<Vec<_>>().join("; ")
                }
            };
            let kind = if silent { ErrorKind::Timeout } else { ErrorKind::Connection };
            return Err(Error::new(kind, format!("cannot connect to {endpoint}: {text}")));
        }
    };
    configure(&stream, dead_peer_after).map_err(|error| failed("set up the connection to", &error))?;
    Ok(stream)
}

/// The addresses with the families in turn, beginning with the one that the resolver prefers.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// What became of each address that was tried; `None` is silence.
type Tried = Vec<(SocketAddr, Option<std::io::Error>)>;

/// The first connection that stands.
async fn race(addresses: Vec<SocketAddr>, deadline: Instant) -> Result<TcpStream, Tried> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut tried: Tried = Vec::new();
    let mut begin_next = true;
    loop {
        if std::mem::take(&mut begin_next)
            && let Some(address) = waiting.next()
        {
            let position = tried.len();
            tried.push((address, None));
            attempts.push(async move { (position, TcpStream::connect(address).await) });
        }
        if attempts.is_empty() {
            return Err(tried);
        }
        let patience =
            if waiting.len() > 0 { deadline.min(Instant::now() + ATTEMPT_DELAY) } else { deadline };
        match tokio::time::timeout_at(patience, attempts.next()).await {
            Ok(Some((_, Ok(stream)))) => return Ok(stream),
            Ok(Some((position, Err(error)))) => {
                tried[position].1 = Some(error);
                begin_next = true;
            }
            Ok(None) => begin_next = true,
            Err(_) if Instant::now() >= deadline => return Err(tried),
            Err(_) => begin_next = true,
        }
    }
}

/// The kernel counts milliseconds in 31 bits, and a request may wait for longer: a peer that says nothing for a day is dead.
#[cfg(target_os = "linux")]
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);

fn configure(stream: &TcpStream, dead_peer_after: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(dead_peer_after.min(LONGEST_SILENCE)))?;
    #[cfg(not(target_os = "linux"))]
    let _ = dead_peer_after;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"].map(address);
        assert_eq!(in_turn(all.to_vec()), ["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"].map(address));
        assert_eq!(in_turn(Vec::new()), []);
    }

    /// A listener whose backlog is full drops what comes: silence, as from a host that is gone.
    fn silent() -> (std::net::TcpListener, Vec<socket2::Socket>, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&address("127.0.0.1:0").into()).unwrap();
        socket.listen(0).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let at = listener.local_addr().unwrap();
        let fill = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&at.into());
            socket
        };
        let filling = (0..4).map(|_| fill()).collect();
        (listener, filling, at)
    }

    #[tokio::test]
    async fn a_silent_address_does_not_use_up_the_time_of_the_next() {
        let (_listener, _filling, dead) = silent();
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = alive.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = race(vec![dead, at], deadline).await.expect("the second address answers");
        assert_eq!(stream.peer_addr().unwrap(), at);
        assert!(Instant::now() + Duration::from_secs(10) < deadline);
    }

    #[tokio::test]
    async fn everyone_who_was_tried_is_named() {
        let (_listener, _filling, dead) = silent();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tried = race(vec![closed, dead], Instant::now() + Duration::from_millis(300)).await.unwrap_err();
        let told: Vec<_> = tried.iter().map(|(at, error)| (*at, error.is_some())).collect();
        assert_eq!(told, [(closed, true), (dead, false)]);
    }
}
