//! How is a server reached: verified, with kept connections, over the protocol that both speak?

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::body::{Body, BoxError};
use crate::network::{Network, unreachable};
use crate::settings::{Problem, strerror};

const HANDSHAKE: Duration = Duration::from_secs(15);
const KEPT_FOR: Duration = Duration::from_secs(50);
const MAX_HEAD: usize = 256 << 10;

/// Clients for the two needs there are.
pub struct Upstream {
    /// HTTP/2 where the server speaks it.
    pub any: Client<Connector, Body>,
    /// For what only HTTP/1.1 can, such as a change to WebSocket.
    pub http1: Client<Connector, Body>,
}

impl Upstream {
    pub fn new(network: &Network, extra: Option<&Path>) -> Result<Self, Problem> {
        let roots = Arc::new(trusted(extra)?);
        Ok(Upstream {
            any: client(network, &roots, &[b"h2", b"http/1.1"])?,
            http1: client(network, &roots, &[b"http/1.1"])?,
        })
    }
}

fn client(
    network: &Network,
    roots: &Arc<RootCertStore>,
    protocols: &[&[u8]],
) -> Result<Client<Connector, Body>, Problem> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}."))?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|each| each.to_vec()).collect();
    let connector = Connector { network: Arc::new(network.clone()), tls: TlsConnector::from(Arc::new(config)) };
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT_FOR)
        .pool_max_idle_per_host(32)
        .http1_max_buf_size(MAX_HEAD)
        .http2_max_header_list_size(MAX_HEAD as u32)
        .http2_initial_stream_window_size(1 << 20)
        .http2_initial_connection_window_size(2 << 20)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .build(connector))
}

/// The certificates that servers are verified with: Mozilla's, and those of `EGRESS_UPSTREAM_CA_FILE`.
fn trusted(extra: Option<&Path>) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Some(path) = extra else { return Ok(roots) };
    let name = format!("EGRESS_UPSTREAM_CA_FILE {}", path.display());
    let pem = std::fs::read(path).map_err(|error| format!("{name}: {}.", strerror(&error)))?;
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        roots.add(certificate).map_err(|error| format!("{name} holds a certificate that cannot be used: {error}."))?;
        added += 1;
    }
    if added == 0 {
        return Err(format!("{name} holds no certificate.").into());
    }
    Ok(roots)
}

/// Connects to where a host is, if it may be connected to, and lets it prove its name.
#[derive(Clone)]
pub struct Connector {
    network: Arc<Network>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let secure = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let stream = connector.network.connect(&host, port).await?;
            if !secure {
                return Ok(Link::Plain(TokioIo::new(stream)));
            }
            let name = ServerName::try_from(host)?;
            let handshake = connector.tls.connect(name, stream);
            let stream = timeout(HANDSHAKE, handshake).await;
            let slow = |_| unreachable(io::ErrorKind::TimedOut, "its TLS handshake does not end");
            let stream = stream.map_err(slow)??;
            Ok(Link::Tls(TokioIo::new(Box::new(stream))))
        })
    }
}

/// A connection to a server.
pub enum Link {
    Plain(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        match self {
            Link::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl Read for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Link::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Link::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Link::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
