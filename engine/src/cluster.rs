//! One cluster as a client sees it: settings, the directory, and the connections that are not tied to a producer or
//! consumer.
//!
//! Producers and consumers hold it too, so it lives until the last of them is done, also when the client was freed
//! before. Once it is closed no connection of it is left, and none is opened any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::ClientOptions;
use crate::directory::{Directory, Topic, Watches, run};
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Connection, Links, Pool, Settings};

/// The oldest platform whose protocol is spoken here.
const MINIMUM_PLATFORM: semver::Version = semver::Version::new(0, 9, 0);

/// Shared by everything that talks to one cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) endpoint: String,
    pub(crate) platform: semver::Version,
    pub(crate) settings: Settings,
    pub(crate) close_timeout: Duration,
    /// For what the host calls.
    pub(crate) calls: Pool,
    /// For what the client asks for itself: however much the host calls, it has turns of its own.
    pub(crate) admin: Pool,
    pub(crate) directory: Arc<Directory>,
    /// For produce requests that do not wait for replication: all producers share them.
    pub(crate) links: Links,
    /// True, or dropped with the cluster, once the watch is to end.
    over: watch::Sender<bool>,
}

impl Cluster {
    /// Connects, checks the platform and starts to watch.
    pub(crate) async fn connect(options: ClientOptions) -> Result<Arc<Self>> {
        let endpoint = options.resolve_endpoint()?;
        let settings = Settings {
            client_id: options.client_id.clone(),
            connect_timeout: options.connect_timeout(),
            request_timeout: options.request_timeout(),
            max_frame: options.max_frame_size_bytes,
            budget: None,
        };
        let connection = Connection::open(&endpoint, &settings).await?;
        let platform = connection.platform_version().clone();
        if platform < MINIMUM_PLATFORM {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("{endpoint} runs platform {platform}: {MINIMUM_PLATFORM} or newer is needed"),
            )
            .with_endpoint(&endpoint));
        }
        let watches = Watches::start(connection)?;
        let admin = Pool::new(endpoint.clone(), settings.clone());
        let directory = Directory::new(endpoint.clone(), admin.clone());
        let over = watch::Sender::new(false);
        let mut ended = over.subscribe();
        let until = async move { drop(ended.wait_for(|over| *over).await) };
        tokio::spawn(run(Arc::clone(&directory), settings.clone(), watches, until));
        Ok(Arc::new(Cluster {
            endpoint,
            platform,
            links: Links::new(settings.clone()),
            settings,
            close_timeout: options.close_timeout(),
            calls: admin.apart(),
            admin,
            directory,
            over,
        }))
    }

    /// The topic once each of its partitions has a leader. Asks the server before it says that there is no such topic, and
    /// waits up to the request time-out for one that is being set up.
    pub(crate) async fn topic(&self, name: &str) -> Result<Topic> {
        check_topic_name(name)?;
        let limit = self.settings.request_timeout;
        tokio::time::timeout(limit, self.directory.open(name)).await.unwrap_or_else(|_| {
            let limit = limit.as_millis();
            let message = format!("topic {name:?} has no leader for each of its partitions after {limit} ms");
            Err(Error::new(ErrorKind::Timeout, message).with_topic(name))
        })
    }

    /// Closes every connection, for good.
    pub(crate) fn close(&self) {
        self.over.send_replace(true);
        self.links.close();
        self.directory.close();
        // Which closes that of the host's calls too.
        self.admin.close();
    }
}

/// The platform accepts an empty name at creation; nothing can be done with such a topic.
pub(crate) fn check_topic_name(topic: &str) -> Result<()> {
    if topic.is_empty() {
        return Err(Error::invalid("the topic name is empty: give the name of a topic"));
    }
    check_string("the topic name", topic)
}

/// The platform's encoder puts the length of a string into 16 bits and says nothing if it does not fit: whatever a host
/// can make long is to be checked before.
pub(crate) fn check_string(what: &str, text: &str) -> Result<()> {
    if text.len() <= i16::MAX as usize {
        return Ok(());
    }
    let message = format!("{what} has {} bytes: a request can hold {} at most", text.len(), i16::MAX);
    Err(Error::invalid(message))
}
