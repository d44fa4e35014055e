//! The host that SPUs announce, so that clients reach them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// What an SPU that listens on `ip` announces. Who listens on all interfaces has to name one of them: the one that leads out
/// of this machine, unless told otherwise.
pub(crate) fn announced_host(ip: IpAddr, advertise: Option<&str>) -> String {
    if let Some(host) = advertise {
        return host.parse().map_or_else(|_| host.to_owned(), bracketed);
    }
    if !ip.is_unspecified() {
        return bracketed(ip);
    }
    let outward = outward(ip).unwrap_or_else(|error| {
        tracing::debug!(%error, "no way out of this machine");
        loopback(ip)
    });
    tracing::warn!(
        "listening on all interfaces: clients are told to reach SPUs at {outward}; --advertise names another host"
    );
    bracketed(outward)
}

/// Clients put host and port together with a colon in between, which an IPv6 address has itself.
fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn loopback(any: IpAddr) -> IpAddr {
    match any {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// The address of the interface on the default route. Connecting a UDP socket sends nothing; the addresses are reserved for
/// documentation.
fn outward(any: IpAddr) -> io::Result<IpAddr> {
    let elsewhere: IpAddr = match any {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((elsewhere, 9))?;
    Ok(socket.local_addr()?.ip())
}
