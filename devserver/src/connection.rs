//! One client connection: reads frames, has them answered strictly one after another, and ends alone.
//!
//! Whatever a client sends, only its own connection suffers: frames are capped, and an undecodable request, a request for
//! an unknown key or a panic in its handling closes this connection and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::anyhow;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use wire::frame::split_frame;

use crate::outbox::Outbox;

/// Room for reads from the socket. Generous, because a frame that crosses its end is copied to the next; memory that
/// nothing was read into costs nothing.
const READ_BYTES: usize = 1024 * 1024;
/// No read is made into less room than this.
const MIN_READ_BYTES: usize = 16 * 1024;

/// Answers the requests of one connection.
pub(crate) trait Service: Send + 'static {
    /// Handles one request; an error closes the connection.
    fn handle(&mut self, request: BytesMut) -> anyhow::Result<()>;
}

/// Serves `socket` until the client leaves, misbehaves, or `closed` is cancelled.
pub(crate) async fn serve<S: Service>(
    socket: TcpStream,
    closed: CancellationToken,
    max_frame_bytes: usize,
    service: impl FnOnce(Arc<Outbox>, CancellationToken) -> S,
) {
    let peer = socket.peer_addr().ok();
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(?peer, %error, "cannot set TCP_NODELAY");
    }
    let (mut reader, writer) = socket.into_split();
    let outbox = Arc::new(Outbox::new(Box::new(writer), closed.clone()));
    let mut service = service(outbox.clone(), closed.clone());

    let requests = async {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            while !outbox.is_congested() {
                let Some(request) = split_frame(&mut buffer, max_frame_bytes)? else {
                    break;
                };
                catch_unwind(AssertUnwindSafe(|| service.handle(request)))
                    .map_err(|_| anyhow!("the request made its handler panic"))??;
            }
            let congested = outbox.is_congested();
            if buffer.capacity() - buffer.len() < MIN_READ_BYTES {
                buffer.reserve(READ_BYTES);
            }
            tokio::select! {
                () = outbox.drive(congested) => {}
                read = reader.read_buf(&mut buffer), if !congested => match read {
                    Ok(1..) => {}
                    // A client that vanishes is nothing to warn of.
                    Ok(0) | Err(_) => return Ok::<(), anyhow::Error>(()),
                },
            }
        }
    };
    let ended = tokio::select! {
        ended = requests => ended,
        () = closed.cancelled() => Ok(()),
    };
    match ended {
        Ok(()) => tracing::debug!(?peer, "connection ended"),
        Err(error) => tracing::warn!(?peer, "connection closed: {error:#}"),
    }
    outbox.close();
}
