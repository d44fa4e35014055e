//! Start and end of a server: its two listeners, its connections and the clock of its status updates.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::connection::serve;
use crate::sc::Controller;
use crate::spu::Unit;

/// How often watchers learn how far the partitions have grown, as on the real server.
const STATUS_INTERVAL: Duration = Duration::from_millis(400);
/// Pause after a failed accept, so that a lack of file descriptors does not burn a core.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A running development server. Dropping it stops it; [`Server::shutdown`] waits for the end.
#[derive(Debug)]
pub struct Server {
    endpoint: SocketAddr,
    shared: Arc<Shared>,
}

/// What the tasks of a server share.
#[derive(Debug)]
struct Shared {
    stopped: CancellationToken,
    /// Ends every connection that is open now; replaced by each [`Server::close_connections`].
    connections: Mutex<CancellationToken>,
    tasks: TaskTracker,
}

#[derive(Debug, Clone, Copy)]
enum Plane {
    Controller,
    Unit,
}

impl Server {
    /// Binds the listeners and serves from then on, on the caller's tokio runtime.
    pub async fn start(config: Config) -> io::Result<Server> {
        let controller = TcpListener::bind(&config.listen).await?;
        let endpoint = controller.local_addr()?;
        let unit = TcpListener::bind((endpoint.ip(), 0)).await?;
        let cluster = Arc::new(Cluster::new(config, unit.local_addr()?));

        let stopped = CancellationToken::new();
        let shared = Arc::new(Shared {
            connections: Mutex::new(stopped.child_token()),
            stopped,
            tasks: TaskTracker::new(),
        });
        for (listener, plane) in [(controller, Plane::Controller), (unit, Plane::Unit)] {
            let accepting = accept(listener, plane, cluster.clone(), shared.clone());
            shared.tasks.spawn(shared.stopped.clone().run_until_cancelled_owned(accepting));
        }
        let publishing = publish_status(cluster);
        shared.tasks.spawn(shared.stopped.clone().run_until_cancelled_owned(publishing));
        tracing::info!(%endpoint, "serving");
        Ok(Server { endpoint, shared })
    }

    /// The address for clients to connect to, as `host:port`.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// Closes every connection that is open now, abruptly. New ones are accepted as before.
    pub fn close_connections(&self) {
        let next = self.shared.stopped.child_token();
        std::mem::replace(&mut *self.shared.connections.lock(), next).cancel();
    }

    /// Stops listening, closes all connections and waits until nothing is left.
    pub async fn shutdown(self) {
        self.shared.stopped.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
    }
}

async fn accept(listener: TcpListener, plane: Plane, cluster: Arc<Cluster>, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => connect(socket, plane, cluster.clone(), &shared),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn connect(socket: TcpStream, plane: Plane, cluster: Arc<Cluster>, shared: &Shared) {
    let closed = shared.connections.lock().child_token();
    let max_frame_bytes = cluster.config.max_frame_bytes;
    match plane {
        Plane::Controller => {
            let service = move |outbox, _| Controller::new(cluster, outbox);
            shared.tasks.spawn(serve(socket, closed, max_frame_bytes, service));
        }
        Plane::Unit => {
            let service = move |outbox, closed| Unit::new(cluster, outbox, closed);
            shared.tasks.spawn(serve(socket, closed, max_frame_bytes, service));
        }
    }
}

async fn publish_status(cluster: Arc<Cluster>) {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        cluster.publish_log_ends();
    }
}
