//! TCP: name look-up, connect, socket options.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{ByteStream, ReadHalf};
use crate::error::{Error, ErrorKind, Result};

const KEEPALIVE: Duration = Duration::from_secs(30);

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

/// Connects to `endpoint` (`host:port`), trying every address that its name has.
pub(crate) async fn dial(endpoint: &str, dead_peer_after: Duration) -> Result<TcpStream> {
    let failed = |what: &str, error: std::io::Error| {
        Error::new(ErrorKind::Connection, format!("cannot {what} {endpoint}: {error}"))
    };
    let addresses = tokio::net::lookup_host(endpoint).await.map_err(|error| failed("look up", error))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                configure(&stream, dead_peer_after)
                    .map_err(|error| failed("set up the connection to", error))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::Error::other("the name has no address"));
    Err(failed("connect to", error))
}

fn configure(stream: &TcpStream, dead_peer_after: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(dead_peer_after))?;
    #[cfg(not(target_os = "linux"))]
    let _ = dead_peer_after;
    Ok(())
}
