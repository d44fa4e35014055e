//! A distance between a client and this server: what either sends arrives later, and as much per second as without.
//!
//! Every piece is stamped when it comes and passed on when its time has come, so order and rate stay; what is on its way
//! is bounded, as on a real network. A connection that is closed has its last bytes arrive first.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A piece is not larger.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way in one direction: 64 MiB, which is 3 GB per second at 20 ms.
const PIECES: usize = 1024;

/// What the client at the other end of `socket` says, and a stream for what it is told, both `one_way` apart from it. The
/// future moves the bytes; it ends when the stream is gone and what went into it has arrived.
pub(crate) fn apart(socket: TcpStream, one_way: Duration) -> (DuplexStream, impl Future<Output = ()> + Send) {
    let (near, far) = tokio::io::duplex(PIECE_BYTES);
    let passing = async move {
        let (from_client, to_client) = socket.into_split();
        let (from_server, to_server) = split(far);
        let inward = async {
            pass(from_client, to_server, one_way).await;
            // The server notices the end by itself; whether it still has something to say is its own matter.
            std::future::pending().await
        };
        tokio::select! {
            () = pass(from_server, to_client, one_way) => {}
            () = inward => {}
        }
    };
    (near, passing)
}

/// Passes on what comes from `from` until that ends or `to` takes no more, then ends `to`.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, one_way: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    let taking = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            // An end by an error is an end.
            let Ok(1..) = (&mut from).take(PIECE_BYTES as u64).read_buf(&mut buffer).await else {
                return;
            };
            if sender.send((Instant::now() + one_way, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let giving = async move {
        while let Some((due, piece)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Who is gone needs no goodbye.
        let _ = to.shutdown().await;
    };
    tokio::pin!(taking);
    tokio::pin!(giving);
    tokio::select! {
        () = &mut giving => {}
        () = &mut taking => giving.await,
    }
}
