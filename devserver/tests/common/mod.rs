//! A client that knows frames only: it can send what no real client would.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::frame::split_frame;

/// Long enough for anything that should happen.
pub const SOON: Duration = Duration::from_secs(10);

/// A connection to a server.
pub struct Raw {
    socket: TcpStream,
    buffer: BytesMut,
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame, its length prefix included.
    Frame(Vec<u8>),
    /// The server has closed the connection.
    Closed,
    /// Nothing, within the given time.
    Nothing,
}

impl Raw {
    /// Connects to `endpoint`.
    pub async fn connect(endpoint: &str) -> Self {
        let socket = TcpStream::connect(endpoint).await.expect("connect");
        socket.set_nodelay(true).expect("nodelay");
        Raw { socket, buffer: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("send");
    }

    /// The next frame, or what came instead of it within `wait`.
    pub async fn receive_within(&mut self, wait: Duration) -> Arrival {
        timeout(wait, self.receive_any()).await.unwrap_or(Arrival::Nothing)
    }

    /// The next frame, which is expected soon.
    pub async fn receive(&mut self) -> Vec<u8> {
        match self.receive_within(SOON).await {
            Arrival::Frame(frame) => frame,
            other => panic!("a frame was expected, not {other:?}"),
        }
    }

    async fn receive_any(&mut self) -> Arrival {
        loop {
            if let Some(payload) = split_frame(&mut self.buffer, i32::MAX as usize).expect("a valid frame") {
                let mut frame = (payload.len() as i32).to_be_bytes().to_vec();
                frame.extend_from_slice(payload.chunk());
                return Arrival::Frame(frame);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Arrival::Closed,
                Ok(_) => {}
            }
        }
    }
}
