//! What is spoken on a client's connection: a request to the proxy, TLS, or HTTP in a tunnel?
//!
//! Nothing but HTTP and WebSocket passes, in TLS or not; a route with `tunnel: true` lets TLS pass unopened.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bot_bottle_routes::{Refusal, canonical_host, judge_tunnel};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::answers::{STANDING, answer, sidecar_by_proxy, standing};
use crate::authority::Authority;
use crate::body::{Body, discard};
use crate::exchange;
use crate::head::Via;
use crate::leave::Leave;
use crate::network::Network;
use crate::record::{Record, log};
use crate::routes_file::RoutesFile;
use crate::scanning::cleaned;
use crate::tunnel;
use crate::unparsed::{Alike, Explained};
use crate::upstream::Upstream;

/// For a request's head, from the end of the one before; idle connections end with it too.
const HEAD: Duration = Duration::from_secs(75);
/// For the first bytes in a tunnel, and for its TLS handshake.
const GREETING: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 256 << 10;
const MAX_HEADERS: usize = 256;
const MAX_GREETING: usize = 64 << 10;
/// The first byte of a TLS record that is part of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// All that a request may need.
pub struct Proxy {
    pub routes: RoutesFile,
    pub leave: Arc<Leave>,
    pub record: Arc<Record>,
    pub upstream: Upstream,
    pub authority: Authority,
    pub network: Network,
    /// Those that may be connected to.
    pub ports: Vec<u16>,
    pub slug: String,
}

impl Proxy {
    /// Says on standard error that a request was refused, without what may be secret in it.
    pub fn say_no(&self, method: &str, host: &str, refusal: &Refusal) {
        let in_force = self.routes.current();
        let (method, host) = (cleaned(method, in_force.all()), cleaned(host, in_force.all()));
        self.record.say(&format!("refused {method} to {host}: {}", refusal.error));
    }
}

/// Serves whoever connects.
pub async fn accept(proxy: Arc<Proxy>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let via = Via { scheme: "", target: None, sni: None };
                tokio::spawn(serve_http1(proxy.clone(), stream, via));
            }
            Err(error) => {
                // Out of file descriptors, most likely; those in use go on and give some back.
                log(&format!("a connection could not be accepted: {}", crate::settings::strerror(&error)));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_http1(proxy: Arc<Proxy>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, via: Via) {
    let via = Arc::new(via);
    let alike = Alike::default();
    let stream = Explained::new(stream, alike.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, via, alike) = (proxy.clone(), via.clone(), alike.clone());
        async move {
            let response = match (&via.target, request.method()) {
                (None, &Method::CONNECT) => connect(proxy, request),
                (None, &Method::GET) if request.uri().authority().is_none() && request.uri().path() == STANDING => {
                    discard(request.into_body());
                    standing(proxy.routes.standing())
                }
                _ => exchange::run(proxy, request, via).await,
            };
            alike.note(response.status());
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    // What goes wrong on a client's connection ends it, and is its own affair.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn serve_http2(proxy: Arc<Proxy>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, via: Via) {
    let via = Arc::new(via);
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, via) = (proxy.clone(), via.clone());
        async move { Ok::<_, Infallible>(exchange::run(proxy, request, via).await) }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(256)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(60));
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn connect(proxy: Arc<Proxy>, mut request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().authority().cloned();
    let verdict = match &target {
        None => Err(Refusal::new("bad_request", "A CONNECT names host:port.").status(400)),
        Some(authority) => {
            let routes = proxy.routes.current();
            let port = authority.port_u16().unwrap_or_default();
            let host = authority.host();
            judge_tunnel(host, port, authority.as_str(), &routes.routes, &proxy.ports)
                .and_then(|_| canonical_host(host).map_err(|reason| Refusal::new("host_denied", reason)))
                .map(|host| (host, port))
                .map_err(|refusal| sidecar_by_proxy(host).unwrap_or(refusal))
        }
    };
    match verdict {
        Err(refusal) => {
            let host = target.map(|authority| authority.host().to_owned()).unwrap_or_default();
            proxy.say_no("CONNECT", &host, &refusal);
            discard(request.into_body());
            answer(&refusal, &Method::CONNECT)
        }
        Ok(target) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(stream) = upgrade.await {
                    open(proxy, TokioIo::new(stream), target).await;
                }
            });
            Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync())
        }
    }
}

/// Finds out what is spoken in a tunnel, and serves it.
async fn open(proxy: Arc<Proxy>, mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, to: (String, u16)) {
    let Ok(Ok((seen, greeting))) = timeout(GREETING, greeting(&mut stream)).await else { return };
    let stream = Rewound { seen, stream };
    let routes = proxy.routes.current();
    let Some(route) = routes.routes.find(&to.0) else { return };
    match greeting {
        Greeting::Plain => {
            let via = Via { scheme: "http", target: Some(to), sni: None };
            serve_http1(proxy, stream, via).await;
        }
        Greeting::Tls { sni } if route.tunnel => tunnel::pass(proxy, stream, to, sni).await,
        Greeting::Tls { sni } => {
            let config = match proxy.authority.config(&to.0) {
                Ok(config) => config,
                Err(error) => return log(&format!("no certificate for {}: {error}", to.0)),
            };
            let Ok(Ok(stream)) = timeout(GREETING, TlsAcceptor::from(config).accept(stream)).await else { return };
            let via = Via { scheme: "https", target: Some(to), sni };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(proxy, stream, via).await;
            } else {
                serve_http1(proxy, stream, via).await;
            }
        }
    }
}

enum Greeting {
    Plain,
    Tls {
        /// The name that the client wants to speak to.
        sni: Option<String>,
    },
}

/// What a client says first, and all bytes that were read to know.
async fn greeting(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Bytes, Greeting)> {
    let mut seen = BytesMut::with_capacity(2048);
    let mut acceptor = Acceptor::default();
    let mut parsed = 0;
    loop {
        if seen.len() > MAX_GREETING || stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if seen[0] != HANDSHAKE {
            return Ok((seen.freeze(), Greeting::Plain));
        }
        while parsed < seen.len() {
            let mut more = &seen[parsed..];
            let before = more.len();
            acceptor.read_tls(&mut more)?;
            parsed += before - more.len();
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let sni = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok((seen.freeze(), Greeting::Tls { sni }));
                }
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// A stream of which some bytes have been looked at.
pub struct Rewound<S> {
    seen: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            return Poll::Ready(Ok(()));
        }
        let length = self.seen.len().min(buf.remaining());
        buf.put_slice(&self.seen[..length]);
        self.seen.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
