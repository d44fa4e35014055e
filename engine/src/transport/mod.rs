//! Byte streams and connections.
//!
//! [`Connection`] speaks the protocol over any [`ByteStream`]; [`dial`] makes one over TCP. Anything else that reads and
//! writes bytes (TLS) slots in by implementing the trait.

mod chunks;
mod connection;
#[cfg(test)]
mod connection_tests;
mod pool;
mod shared;
mod tcp;

pub(crate) use chunks::Chunks;
#[cfg(test)]
pub(crate) use connection::decode_body;
pub(crate) use connection::{Connection, Reply, Settings, StreamFrames};
pub(crate) use pool::Pool;
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
