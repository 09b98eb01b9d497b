//! Where is the broker, by the URL that a launch gave its sidecars?

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::SockAddr;

use super::tls;
use crate::error::{Error, Result};
use crate::patience::{self, SIGNAL_CHECK};

pub(super) struct Endpoint {
    pub(super) url: String,
    /// What a request's `Host` says.
    pub(super) host: String,
    place: Place,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Where the name led last: looking it up may block, and is done again only where nobody answered.
    found: Mutex<Vec<SockAddr>>,
}

enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    /// From `http://host:port`, `https://host:port` or `http+unix:///path`; https trusts the certificates of a PEM file
    /// and no others.
    pub(super) fn new(url: &str, cert_file: Option<&Path>) -> Result<Self> {
        let refused = || {
            let reason = format!("URL must be http://host:port, https://host:port or http+unix:///path, not {url:?}");
            Error::input("broker", reason)
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
        if scheme == "http+unix" {
            if !rest.starts_with('/') || SockAddr::unix(rest).is_err() {
                return Err(refused());
            }
            return Ok(Endpoint::at(url, "localhost".to_owned(), Place::Unix(rest.into()), None));
        }
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(refused()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split(authority, if secure { 443 } else { 80 }).ok_or_else(refused)?;
        let tls = match cert_file {
            _ if !secure => None,
            Some(file) => {
                let name = ServerName::try_from(host.clone()).map_err(|_| refused())?;
                Some((tls::pinned(file)?, name))
            }
            None => {
                let reason = "has an https URL, which needs the certificate from its launch (SUPERVISE_TLS_CERT_FILE)";
                return Err(Error::input("broker", reason));
            }
        };
        Ok(Endpoint::at(url, authority.to_owned(), Place::Tcp { host, port }, tls))
    }

    fn at(url: &str, host: String, place: Place, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> Self {
        Endpoint { url: url.to_owned(), host, place, tls, found: Mutex::new(Vec::new()) }
    }

    /// Where to connect to, the first that works.
    pub(super) fn addresses(&self) -> io::Result<Vec<SockAddr>> {
        let (host, port) = match &self.place {
            Place::Unix(path) => return Ok(vec![SockAddr::unix(path)?]),
            Place::Tcp { host, port } => (host.as_str(), *port),
        };
        let found = self.found.lock().clone();
        if !found.is_empty() {
            return Ok(found);
        }
        let found = resolve(host, port)?;
        self.found.lock().clone_from(&found);
        Ok(found)
    }

    /// Has the name looked up again: nobody answered where it led.
    pub(super) fn forget_addresses(&self) {
        self.found.lock().clear();
    }

    /// A session for one connection, where TLS is spoken.
    pub(super) fn secure(&self) -> io::Result<Option<ClientConnection>> {
        let Some((config, name)) = &self.tls else { return Ok(None) };
        let mut session = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
        // A proposal is written at once, before the handshake has taken place.
        session.set_buffer_limit(None);
        Ok(Some(session))
    }
}

/// Looks a name up on a thread of its own: the system's resolver takes as long as it takes, and whoever waits for it may
/// be told to end.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SockAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::from((address, port)).into()]);
    }
    let (found, result) = sync_channel(1);
    let host = host.to_owned();
    let look = move || {
        let all = (host.as_str(), port).to_socket_addrs().map(|all| all.map(SockAddr::from).collect());
        let _ = found.send(all); // nobody may wait for it any more
    };
    thread::Builder::new().name("bot-bottle-name".to_owned()).spawn(look)?;
    loop {
        match result.recv_timeout(SIGNAL_CHECK) {
            Ok(found) => return found,
            Err(RecvTimeoutError::Timeout) if !patience::is_over() => {}
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "its name is still being looked up")),
        }
    }
}

/// `host:port`, `host`, `[v6]:port` or `[v6]`.
fn split(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let fits = |host: &str, more: &[u8]| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let (host, rest) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').filter(|(host, _)| fits(host, b":.%"))?,
        None => {
            let (host, _) = authority.split_once(':').unwrap_or((authority, ""));
            fits(host, b".-_").then_some((host, &authority[host.len()..]))?
        }
    };
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host.to_owned(), default_port)),
        None => None,
        Some(port) => Some((host.to_owned(), port.parse().ok().filter(|port| *port != 0)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_nothing_else() {
        for (authority, host, port) in [
            ("127.0.0.1:9101", "127.0.0.1", 9101),
            ("host.container.internal", "host.container.internal", 80),
            ("[::1]:9101", "::1", 9101),
            ("[fe80::1%eth0]", "fe80::1%eth0", 80),
        ] {
            assert_eq!(split(authority, 80), Some((host.to_owned(), port)), "{authority}");
        }
        for url in [
            "",
            "127.0.0.1:9101",
            "ftp://h",
            "http://",
            "http://h:",
            "http://h:0",
            "http://h:99999",
            "http://me@h",
            "http://h/v1",
            "http://h?x",
            "http://[::1",
            "http://[::1]x",
            "http://h\r\nx: y",
            "http+unix://relative.sock",
            "https://h",
        ] {
            assert_eq!(Endpoint::new(url, None).err().map(|error| error.exit_code()), Some(2), "{url:?}");
        }
        assert_eq!(Endpoint::new("http://h:1/", None).unwrap().host, "h:1");
        assert!(Endpoint::new(&format!("http+unix:///{}", "x".repeat(200)), None).is_err());
    }
}
