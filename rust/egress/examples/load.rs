//! How much passes, directly or through a proxy? Server and client of `python -m benchmarks.proxying`.
//!
//! `load serve CERT KEY` answers every request over TLS with 2 KiB and prints its port. The others are clients of
//! `HOST:PORT`, over `PROXY` (`address:port`, or `-` for none), trusting `CA`, and print figures as JSON:
//! `kept SECONDS CONNECTIONS`, `fresh SECONDS CONNECTIONS`, `upload MIB`, and `idle WEBSOCKETS`, which says `open` and
//! keeps them until its standard input ends. HTTP is spoken in bytes here: the fewer they take, the more is the proxy's.

use std::error::Error;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Done<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", certificate, key] => serve(certificate, key).await,
        [target, proxy, ca, "kept", seconds, connections] => {
            many(&Way::new(target, proxy, ca)?, seconds.parse()?, connections.parse()?, true).await
        }
        [target, proxy, ca, "fresh", seconds, connections] => {
            many(&Way::new(target, proxy, ca)?, seconds.parse()?, connections.parse()?, false).await
        }
        [target, proxy, ca, "upload", mib] => upload(&Way::new(target, proxy, ca)?, mib.parse()?).await,
        [target, proxy, ca, "idle", count] => idle(&Way::new(target, proxy, ca)?, count.parse()?).await,
        _ => Err("see the first lines of load.rs".into()),
    }
}

async fn serve(certificate: &str, key: &str) -> Done<()> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = answer_all(stream).await;
            }
        });
    }
}

async fn answer_all(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Done<()> {
    let body = format!("{{\"text\": \"{}\"}}", "word ".repeat(407));
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut read = Vec::with_capacity(64 << 10);
    loop {
        let Some(head) = head(&mut stream, &mut read).await? else { return Ok(()) };
        if head.contains("upgrade: websocket") {
            let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            stream.write_all(accepted.as_bytes()).await?;
            while stream.read(&mut [0; 64]).await? > 0 {}
            return Ok(());
        }
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(Ok(0), str::parse)?;
        let mut left = length - length.min(read.len());
        read.drain(..length.min(read.len()));
        let mut piece = vec![0; (256 << 10).min(left)];
        while left > 0 {
            let most = piece.len().min(left);
            let count = stream.read(&mut piece[..most]).await?;
            if count == 0 {
                return Ok(());
            }
            left -= count;
        }
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// A head in lower case, taken out of what was read; `None` at the end of the connection.
async fn head(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Done<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end + 4]).to_ascii_lowercase();
            read.drain(..end + 4);
            return Ok(Some(head));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

/// How a server is reached.
struct Way {
    host: String,
    port: u16,
    proxy: Option<String>,
    tls: TlsConnector,
}

impl Way {
    fn new(target: &str, proxy: &str, ca: &str) -> Done<Arc<Way>> {
        let (host, port) = target.rsplit_once(':').ok_or("HOST:PORT")?;
        let mut roots = RootCertStore::empty();
        for each in CertificateDer::pem_file_iter(ca)? {
            roots.add(each?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each of `fresh` is one: no session is taken up again.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(Way {
            host: host.to_owned(),
            port: port.parse()?,
            proxy: (proxy != "-").then(|| proxy.to_owned()),
            tls: TlsConnector::from(Arc::new(config)),
        }))
    }

    async fn open(&self) -> Done<TlsStream<TcpStream>> {
        let place = self.proxy.clone().unwrap_or_else(|| format!("127.0.0.1:{}", self.port));
        let mut stream = TcpStream::connect(place).await?;
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            let to = format!("{}:{}", self.host, self.port);
            stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await?;
            match head(&mut stream, &mut Vec::new()).await? {
                Some(head) if head.contains(" 200 ") => {}
                head => return Err(head.unwrap_or_default().into()),
            }
        }
        Ok(self.tls.connect(ServerName::try_from(self.host.clone())?, stream).await?)
    }
}

/// Sends one request and reads its answer.
async fn ask(stream: &mut TlsStream<TcpStream>, request: &[u8], read: &mut Vec<u8>) -> Done<()> {
    stream.write_all(request).await?;
    let head = head(stream, read).await?.ok_or("no answer")?;
    if !head.starts_with("http/1.1 200") {
        return Err(head.into());
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.ok_or("no length")?.parse()?;
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            return Err("cut".into());
        }
    }
    read.drain(..length);
    Ok(())
}

async fn many(way: &Arc<Way>, seconds: f64, connections: usize, kept: bool) -> Done<()> {
    let body = format!("{{\"model\": \"m\", \"messages\": [{{\"content\": \"{}\"}}]}}", "word ".repeat(380));
    let request = format!(
        "POST /v1 HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        way.host,
        body.len()
    );
    let request: Arc<[u8]> = request.into_bytes().into();
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (way, request) = (way.clone(), request.clone());
        clients.push(tokio::spawn(async move {
            let (mut took, mut read) = (Vec::new(), Vec::with_capacity(8 << 10));
            let mut open = if kept { Some(way.open().await?) } else { None };
            while Instant::now() < until {
                let start = Instant::now();
                match &mut open {
                    Some(stream) => ask(stream, &request, &mut read).await?,
                    None => ask(&mut way.open().await?, &request, &mut read).await?,
                }
                took.push(start.elapsed());
            }
            Done::Ok(took)
        }));
    }
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{{\"per_s\": {:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}}}", took.len() as f64 / elapsed, at(50), at(99));
    Ok(())
}

/// Text as programs are made of, of which no piece is like another.
fn text() -> Vec<u8> {
    let mut state = 7u64;
    let mut words = String::new();
    while words.len() < 1 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words.push_str(&format!(
            "let value_{} = call({}, \"{:x}\");\n",
            state >> 40,
            state >> 50 & 63,
            state >> 36 & 0xffff
        ));
    }
    words.into_bytes()
}

async fn upload(way: &Arc<Way>, mib: usize) -> Done<()> {
    let text = text();
    let mut stream = way.open().await?;
    let begun = Instant::now();
    let head = format!(
        "POST /up HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        way.host,
        mib << 20
    );
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..mib {
        stream.write_all(&text[..1 << 20]).await?;
    }
    ask(&mut stream, b"", &mut Vec::new()).await?;
    println!("{{\"mib_per_s\": {:.1}}}", mib as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

async fn idle(way: &Arc<Way>, count: usize) -> Done<()> {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        way.host
    );
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = way.open().await?;
        stream.write_all(request.as_bytes()).await?;
        match head(&mut stream, &mut Vec::new()).await? {
            Some(head) if head.contains(" 101 ") => open.push(stream),
            head => return Err(head.unwrap_or_default().into()),
        }
    }
    println!("open");
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    Ok(())
}
