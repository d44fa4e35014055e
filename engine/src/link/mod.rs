//! Links and connections: how the client reaches the servers.
//!
//! A [`Link`] is the way to one SPU for one purpose; it outlives its connections. The [`Pool`] is for administration.
//! [`Connection`] speaks the protocol over any [`ByteStream`]; [`dial`] makes one over TCP. Anything else that reads and
//! writes bytes (TLS) slots in by implementing the trait.

mod backoff;
mod chunks;
mod connection;
#[cfg(test)]
mod connection_tests;
#[expect(clippy::module_inception, reason = "the concept has the name of its folder")]
mod link;
#[cfg(test)]
mod link_tests;
mod pool;
mod reply;
mod shared;
mod tcp;

pub(crate) use backoff::Backoff;
pub(crate) use chunks::Chunks;
pub(crate) use connection::{Connection, Settings};
pub(crate) use link::{Link, Links};
pub(crate) use pool::Pool;
pub(crate) use reply::{Reply, StreamFrames, Turn, decode_body};
pub(crate) use shared::{Inbox, Incoming};
pub(crate) use tcp::dial;

use tokio::io::{AsyncRead, AsyncWrite};

/// The reading half of a byte stream.
pub(crate) trait ReadHalf: AsyncRead + Send + Unpin + 'static {
    /// Called after every read of a connection that carries streams. A server writes the header and the records of an
    /// answer separately and without TCP_NODELAY; unless the kernel acknowledges the first part at once, the second
    /// waits for its delayed ACK (40 ms).
    fn acknowledge_quickly(&self);
}

/// A connected byte stream.
pub(crate) trait ByteStream: Send + 'static {
    /// Its reading half.
    type Reader: ReadHalf;
    /// Its writing half.
    type Writer: AsyncWrite + Send + Unpin + 'static;
    /// Takes it apart.
    fn split(self) -> (Self::Reader, Self::Writer);
}
