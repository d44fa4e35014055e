//! Client options, and how they become an endpoint: given, or from a profile of the `fluvio` command line.

use std::net::SocketAddrV6;
use std::time::Duration;

use fluvio::config::{ConfigFile, TlsPolicy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How to connect. As JSON: `{"endpoint": "127.0.0.1:9003"}`; every field is optional, unknown ones are refused.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientOptions {
    /// `host:port` of the cluster's public endpoint. Without it, the profile decides.
    pub endpoint: Option<String>,
    /// A profile of the profile file (`$FLV_PROFILE_PATH`, else `~/.fluvio/config`); the active one if absent.
    pub profile: Option<String>,
    /// Sent with every request, for the server's logs.
    pub client_id: String,
    /// Name look-up, TCP connect and handshake, in milliseconds.
    pub connect_timeout_ms: u64,
    /// One request, in milliseconds.
    pub request_timeout_ms: u64,
    /// Flush on close, in milliseconds.
    pub close_timeout_ms: u64,
    /// Largest frame that is accepted from a server, in bytes.
    pub max_frame_size_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            endpoint: None,
            profile: None,
            client_id: "fluvio_cffi".to_owned(),
            connect_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            close_timeout_ms: 10_000,
            max_frame_size_bytes: wire::frame::DEFAULT_MAX_PAYLOAD,
        }
    }
}

impl ClientOptions {
    /// Reads the JSON form.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Self = parse_json("client options", text)?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        if self.endpoint.is_some() && self.profile.is_some() {
            return Err(Error::invalid("both endpoint and profile are given: give one of them"));
        }
        for (name, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("close_timeout_ms", self.close_timeout_ms),
        ] {
            if value == 0 || value > MAX_TIMEOUT_MS {
                return Err(Error::invalid(format!(
                    "{name} is {value}: give milliseconds between 1 and {MAX_TIMEOUT_MS}"
                )));
            }
        }
        if self.max_frame_size_bytes < MIN_FRAME_BYTES || self.max_frame_size_bytes > i32::MAX as usize {
            return Err(Error::invalid(format!(
                "max_frame_size_bytes is {}: give bytes between {MIN_FRAME_BYTES} and {}",
                self.max_frame_size_bytes,
                i32::MAX
            )));
        }
        if self.client_id.len() > MAX_CLIENT_ID {
            let length = self.client_id.len();
            return Err(Error::invalid(format!(
                "client_id has {length} bytes: give {MAX_CLIENT_ID} at most"
            )));
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        Ok(())
    }

    /// The endpoint to connect to. Reads the profile file if none was given.
    pub(crate) fn resolve_endpoint(&self) -> Result<String> {
        self.check()?;
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        let config_error = |message: String| Error::new(ErrorKind::Config, message);
        let file = ConfigFile::load(None)
            .map_err(|error| config_error(format!("no endpoint is given, and the profile file: {error}")))?;
        let config = file.config();
        let cluster = match &self.profile {
            Some(profile) => config
                .cluster_with_profile(profile)
                .ok_or_else(|| config_error(format!("the profile file has no profile {profile:?}")))?,
            None => config.current_cluster().map_err(|error| {
                config_error(format!("no endpoint is given, and the profile file: {error}"))
            })?,
        };
        if !matches!(cluster.tls, TlsPolicy::Disabled) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the profile of {} asks for TLS, which this version does not speak",
                    cluster.endpoint
                ),
            ));
        }
        check_endpoint(&cluster.endpoint)?;
        Ok(cluster.endpoint.clone())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }
}

/// Ten years, as good as no limit, and short enough that no deadline overflows.
pub(crate) const MAX_TIMEOUT_MS: u64 = 3650 * 24 * 3600 * 1000;

/// The smallest answer that a consumer asks for, and what surrounds it.
const MIN_FRAME_BYTES: usize = 128 * 1024;

/// Strings of the protocol have 15 bits; this leaves no doubt.
const MAX_CLIENT_ID: usize = 255;

/// `host:port`, where an IPv6 address is in brackets: without them nobody knows where it ends. Hosts check the same
/// (`endpoint` in fluvio_cffi/_arguments.py; a test compares the two).
fn check_endpoint(endpoint: &str) -> Result<()> {
    let stray = |c: char| matches!(c, ':' | '/' | '@' | '[' | ']') || c.is_whitespace() || c.is_control();
    let valid = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = match host.strip_prefix('[') {
            Some(_) => endpoint.parse::<SocketAddrV6>().is_ok(),
            None => !host.is_empty() && !host.contains(stray),
        };
        // A number of Rust may have a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        is_host && digits && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if valid {
        Ok(())
    } else {
        let message = format!("endpoint {endpoint:?} is not host:port, such as 127.0.0.1:9003 or [::1]:9003");
        Err(Error::invalid(message))
    }
}

/// Reads an options document; the message names the key that is unknown or of the wrong type.
pub(crate) fn parse_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        for (text, expected) in [
            (r#"{"endpoit": "a:1"}"#, "endpoit"),
            (r#"{"endpoint": 5}"#, "integer `5`"),
            (r#"{"endpoint": "localhost"}"#, "\"localhost\" is not host:port"),
            (r#"{"endpoint": "h:0"}"#, "\"h:0\""),
            (r#"{"endpoint": "h:1:2"}"#, "\"h:1:2\""),
            (
                r#"{"endpoint": "::1:9003"}"#,
                "\"::1:9003\" is not host:port, such as 127.0.0.1:9003 or [::1]:9003",
            ),
            (r#"{"endpoint": "[zz:z]:1"}"#, "\"[zz:z]:1\""),
            (r#"{"endpoint": "h:+1"}"#, "\"h:+1\""),
            (r#"{"endpoint": "a\tb:1"}"#, "\"a\\tb:1\""),
            (r#"{"endpoint": "http://h:1"}"#, "\"http://h:1\""),
            (r#"{"endpoint": "h:1", "profile": "p"}"#, "both endpoint and profile"),
            (r#"{"request_timeout_ms": 0}"#, "request_timeout_ms is 0"),
            (r#"{"max_frame_size_bytes": 5}"#, "max_frame_size_bytes is 5"),
            (&format!(r#"{{"client_id": "{}"}}"#, "x".repeat(300)), "client_id has 300 bytes"),
            ("[", "client options"),
        ] {
            let error = ClientOptions::from_json(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn absent_options_are_the_defaults() {
        let options = ClientOptions::from_json("").unwrap();
        assert_eq!(options.connect_timeout(), Duration::from_secs(10));
        assert_eq!(options.request_timeout(), Duration::from_secs(30));
    }
}
