//! How do the messages of a WebSocket pass, each looked at as a whole, in both directions?
//!
//! Two connections, one to the client and one to the server: frames, extensions, pings and pongs belong to each of them
//! and never cross. Messages cross, and the code and reason of a close.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bot_bottle_routes::Refusal;
use bot_bottle_scan::{Budget, Detectors, Finding, Place, ScanError, Scanner};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::body::Body;
use crate::exchange::Exchange;
use crate::head::returning;
use crate::inbound::{cut_off, masked, scrubbed};
use crate::scanning::{Seen, Where, mask, unreadable};
use crate::settle::{Carrier, settle};

/// Bytes of one message, which is scanned and passed on as a whole.
const MAX_MESSAGE: usize = 16 << 20;
/// Bytes of what went before that are looked at again, for a secret that is split over messages.
const TAIL: usize = 4 << 10;
const AT_ONCE: usize = 8 << 10;
/// For the other side's part of a close.
const FAREWELL: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Source = SplitStream<Socket>;
type Sink = SplitSink<Socket, Message>;
type Read = Option<Result<Message, Error>>;

/// Answers that the protocol changes, and passes messages from then on.
pub fn open(
    exchange: Arc<Exchange>,
    mut response: Response<Incoming>,
    client: OnUpgrade,
    allowed: HashSet<String>,
) -> Result<Response<Body>, Refusal> {
    let mut headers = returning(response.headers(), false);
    let inbound = exchange.inbound().clone();
    if !inbound.is_empty() {
        headers = scrubbed(&exchange, headers, "header", &inbound, &Budget::for_request())?;
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
        bridge(exchange, client, server, allowed, inbound).await;
    });
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// What each side is told at the end; `None`: nothing, its connection just ends.
struct Ended {
    client: Option<CloseFrame>,
    server: Option<CloseFrame>,
}

impl Ended {
    fn both(frame: CloseFrame) -> Self {
        Ended { client: Some(frame.clone()), server: Some(frame) }
    }

    fn refused(error: &'static str) -> Self {
        let client = CloseFrame { code: CloseCode::Policy, reason: error.into() };
        Ended { client: Some(client), server: Some(CloseFrame { code: CloseCode::Away, reason: "".into() }) }
    }
}

async fn bridge(
    exchange: Arc<Exchange>,
    client: Upgraded,
    server: Upgraded,
    allowed: HashSet<String>,
    inbound: Detectors,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let client = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(config)).await;
    let server = WebSocketStream::from_raw_socket(TokioIo::new(server), Role::Client, Some(config)).await;
    let (mut client_sink, mut client_source) = client.split();
    let (mut server_sink, mut server_source) = server.split();
    let detectors = exchange.outbound().clone();
    let mut out = Out {
        messages: Window::new(&detectors, Place::new("WebSocket message", exchange.host.as_str())),
        control: Window::new(&detectors, Place::new("WebSocket control frame", exchange.host.as_str())),
        exchange: exchange.clone(),
        allowed,
    };
    let mut back = Back { messages: Window::new(&inbound, Place::new("WebSocket message", "")), exchange };
    let ended = tokio::select! {
        ended = out.run(&mut client_source, &mut server_sink) => ended,
        ended = back.run(&mut server_source, &mut client_sink) => ended,
    };
    tokio::join!(close(client_sink, client_source, ended.client), close(server_sink, server_source, ended.server));
}

async fn close(mut sink: Sink, mut source: Source, frame: Option<CloseFrame>) {
    let Some(frame) = frame else { return };
    let _ = timeout(FAREWELL, async {
        if sink.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    })
    .await;
}

/// From the client to the server.
struct Out {
    exchange: Arc<Exchange>,
    allowed: HashSet<String>,
    messages: Window,
    control: Window,
}

impl Out {
    async fn run(&mut self, source: &mut Source, sink: &mut Sink) -> Ended {
        let mut ahead: Option<Read> = None;
        loop {
            let read = match ahead.take() {
                Some(read) => read,
                None => source.next().await,
            };
            let message = match read {
                Some(Ok(message)) => message,
                Some(Err(error)) => return broken(&error),
                None => return Ended { client: None, server: None },
            };
            let passing = match message {
                Message::Text(_) | Message::Binary(_) => {
                    if let Err(refusal) = self.exchange.still_allowed() {
                        return self.refused(&refusal);
                    }
                    match self.message(message, source, &mut ahead).await {
                        Ok(Some(message)) => message,
                        Ok(None) => return Ended { client: None, server: None },
                        Err(refusal) => return self.refused(&refusal),
                    }
                }
                Message::Close(frame) => {
                    let text = frame.as_ref().map(|frame| frame.reason.to_string()).unwrap_or_default();
                    if self.tells(text.as_bytes()) {
                        return Ended::refused("secret_blocked");
                    }
                    let frame = frame.unwrap_or(CloseFrame { code: CloseCode::Normal, reason: "".into() });
                    return Ended::both(frame);
                }
                // Answered on this connection, and of no use on the other.
                Message::Ping(content) | Message::Pong(content) => {
                    if self.tells(&content) {
                        return Ended::refused("secret_blocked");
                    }
                    continue;
                }
                Message::Frame(_) => continue,
            };
            if sink.send(passing).await.is_err() {
                return Ended { client: Some(gone()), server: None };
            }
        }
    }

    /// Whether a control frame tells a secret; it cannot be held.
    fn tells(&mut self, content: &[u8]) -> bool {
        let found = !content.is_empty() && !matches!(self.control.look(content), Ok(found) if found.is_empty());
        if found {
            let (record, host) = (&self.exchange.proxy.record, &self.exchange.host);
            record.audit("secret-blocked", &format!("A WebSocket control frame to {host} carried a secret."));
        }
        found
    }

    /// The message as it may pass; `None` if the client left while it was held.
    async fn message(
        &mut self,
        message: Message,
        source: &mut Source,
        ahead: &mut Option<Read>,
    ) -> Result<Option<Message>, Refusal> {
        if self.messages.detectors.is_empty() {
            return Ok(Some(message));
        }
        let is_text = message.is_text();
        let content = message.into_data();
        let found = self.messages.look(&content).map_err(|error| unreadable(&error))?;
        if found.is_empty() {
            return rebuilt(is_text, content).map(Some);
        }
        let size = content.len() as u64;
        let (before, mut bytes) = (content.clone(), content.to_vec());
        let seen: Vec<_> = found.into_iter().map(|finding| Seen { finding, place: Where::Body }).collect();
        let carrier = Carrier { content: &[b"WebSocket message", &before], size: Some(size), holds: true };
        {
            let mut mask = |each: &Seen| mask(&mut bytes, &each.finding);
            let mut settling = std::pin::pin!(settle(&self.exchange, &mut self.allowed, &seen, carrier, &mut mask));
            loop {
                tokio::select! {
                    biased;
                    settled = &mut settling => break settled?,
                    // One message ahead, to notice when the client leaves.
                    read = source.next(), if ahead.is_none() => match read {
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                        read => *ahead = Some(read),
                    },
                }
            }
        }
        self.exchange.still_allowed()?;
        self.messages.replace_last(&bytes);
        rebuilt(is_text, Bytes::from(bytes)).map(Some)
    }

    fn refused(&self, refusal: &Refusal) -> Ended {
        self.exchange.proxy.say_no(self.exchange.head.method.as_str(), &self.exchange.host, refusal);
        Ended::refused(refusal.error)
    }
}

/// From the server to the client.
struct Back {
    exchange: Arc<Exchange>,
    messages: Window,
}

impl Back {
    async fn run(&mut self, source: &mut Source, sink: &mut Sink) -> Ended {
        loop {
            let message = match source.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return broken(&error),
                None => return Ended { client: None, server: None },
            };
            let passing = match message {
                Message::Text(_) | Message::Binary(_) => {
                    if let Err(refusal) = self.exchange.still_allowed() {
                        return Ended::refused(refusal.error);
                    }
                    match self.message(message) {
                        Ok(message) => message,
                        Err(refusal) => return Ended::refused(refusal.error),
                    }
                }
                Message::Close(frame) => {
                    let mut frame = frame.unwrap_or(CloseFrame { code: CloseCode::Normal, reason: "".into() });
                    let clean = matches!(self.messages.look(frame.reason.as_bytes()), Ok(found) if found.is_empty());
                    if !clean {
                        masked(&self.exchange);
                        frame.reason = "".into();
                    }
                    return Ended::both(frame);
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if sink.send(passing).await.is_err() {
                return Ended { client: None, server: Some(gone()) };
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<Message, Refusal> {
        if self.messages.detectors.is_empty() {
            return Ok(message);
        }
        let is_text = message.is_text();
        let content = message.into_data();
        let found = self.messages.look(&content).map_err(|_| cut_off(&self.exchange))?;
        if found.is_empty() {
            return rebuilt(is_text, content);
        }
        let mut bytes = content.to_vec();
        if !found.iter().all(|each| mask(&mut bytes, each)) {
            return Err(cut_off(&self.exchange));
        }
        masked(&self.exchange);
        self.messages.replace_last(&bytes);
        rebuilt(is_text, Bytes::from(bytes))
    }
}

/// Messages as one stream, of which the last bytes are looked at again with each further message.
struct Window {
    detectors: Detectors,
    place: Place,
    tail: Vec<u8>,
    last: usize,
    /// Secrets of the message before, which what follows does not make into others.
    told: Vec<Vec<u8>>,
}

impl Window {
    fn new(detectors: &Detectors, place: Place) -> Self {
        Window { detectors: detectors.clone(), place, tail: Vec::new(), last: 0, told: Vec::new() }
    }

    /// The secrets that a message holds or completes; spans count from its beginning, `None` if one begins before it.
    fn look(&mut self, message: &[u8]) -> Result<Vec<Finding>, ScanError> {
        if self.detectors.is_empty() {
            return Ok(Vec::new());
        }
        let work = || {
            let mut found = self.scan(&[message])?;
            if !self.tail.is_empty() {
                let before = self.tail.len() as u64;
                for mut finding in self.scan(&[&self.tail, message])? {
                    let crosses = finding.span.as_ref().is_none_or(|span| span.start < before && before < span.end);
                    let known = found.iter().any(|known| known.secret == finding.secret)
                        || self.told.iter().any(|told| finding.secret.starts_with(told));
                    if crosses && !known {
                        finding.span = None;
                        found.push(finding);
                    }
                }
            }
            Ok(found)
        };
        let found = if message.len() > AT_ONCE { tokio::task::block_in_place(work)? } else { work()? };
        self.told = found.iter().map(|finding| finding.secret.clone()).collect();
        self.tail.extend_from_slice(&message[message.len().saturating_sub(TAIL)..]);
        self.last = message.len().min(TAIL);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        Ok(found)
    }

    fn scan(&self, pieces: &[&[u8]]) -> Result<Vec<Finding>, ScanError> {
        let budget = Budget::for_request();
        let mut scanner = Scanner::new(&self.detectors, &budget).at(self.place.clone());
        let mut found = Vec::new();
        for piece in pieces {
            found.extend(scanner.feed(piece)?);
        }
        found.extend(scanner.finish()?);
        Ok(found)
    }

    /// The last message went on like this.
    fn replace_last(&mut self, message: &[u8]) {
        let kept = self.last.min(self.tail.len()).min(message.len());
        let at = self.tail.len() - kept;
        self.tail[at..].copy_from_slice(&message[message.len() - kept..]);
    }
}

fn rebuilt(is_text: bool, content: Bytes) -> Result<Message, Refusal> {
    if !is_text {
        return Ok(Message::Binary(content));
    }
    match content.try_into() {
        Ok(text) => Ok(Message::Text(text)),
        Err(_) => Err(Refusal::new("secret_not_masked", "The message would be no text any more.")),
    }
}

fn gone() -> CloseFrame {
    CloseFrame { code: CloseCode::Away, reason: "the other side is gone".into() }
}

fn broken(error: &Error) -> Ended {
    match error {
        Error::Capacity(_) => Ended::both(CloseFrame {
            code: CloseCode::Size,
            reason: format!("message larger than {} MiB", MAX_MESSAGE >> 20).into(),
        }),
        Error::Protocol(_) | Error::Utf8(_) => Ended::both(CloseFrame { code: CloseCode::Protocol, reason: "".into() }),
        _ => Ended { client: None, server: None },
    }
}
