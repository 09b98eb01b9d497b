//! What happens to one request on its way through the proxy, from its head to its answer's?
//!
//! It is judged by the routes, scanned, held or refused if it carries a secret, given its credential, and only then sent.
//! Whatever goes wrong on the way, it is not sent.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bot_bottle_routes::{Auth, Head as Judged, Refusal, Route, canonical_host, judge, token};
use bot_bottle_scan::{Budget, Detectors, Place, Scanner};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::answers::{answer, sidecar_by_proxy};
use crate::body::{Body, discard, whole};
use crate::connection::Proxy;
use crate::decode::decoded;
use crate::head::{Head, Outgoing, Via, is_trailer};
use crate::inbound;
use crate::network::Unreachable;
use crate::outbound::{self, Cut};
use crate::routes_file::{InForce, environment};
use crate::scanning::{Seen, Where, lines_of, map_of, mask, mask_outgoing, scan, scan_head, scan_lines, unreadable};
use crate::settings::strerror;
use crate::settle::{Carrier, settle};
use crate::websocket;

/// Bytes of a body that is collected so that the request can be held.
pub const MAX_HELD: usize = 1 << 20;
/// In which the end of a body has to come for its request to be held as a whole.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a compressed body that is taken apart to mask a secret in it.
const MAX_DECODED: usize = 8 << 20;
/// Bytes that are scanned without telling the runtime that this takes a while.
const AT_ONCE: usize = 8 << 10;

/// One request, and what is known about it.
pub struct Exchange {
    pub proxy: Arc<Proxy>,
    pub head: Head,
    pub via: Arc<Via>,
    /// Canonical.
    pub host: String,
    pub version: Version,
    /// Of its scanning, in all its places.
    pub budget: Budget,
    pub in_force: Arc<InForce>,
    /// Which route covers it.
    at: usize,
}

impl Exchange {
    pub fn route(&self) -> &Route {
        &self.in_force.routes.routes()[self.at]
    }

    pub fn outbound(&self) -> &Detectors {
        self.in_force.outbound(self.route())
    }

    /// What may not be among the agent's own credentials where the route lets them pass: of tokens, none but ours.
    fn own_credentials(&self) -> Option<&Detectors> {
        let passes = self.route().auth == Some(Auth::Passthrough);
        passes.then(|| self.in_force.outbound_known(self.route()))
    }

    pub fn inbound(&self) -> &Detectors {
        self.in_force.inbound(self.at)
    }

    /// Judges it by the routes as they are now, which may have changed since.
    pub fn judge(&mut self, path: &str) -> Result<(), Refusal> {
        self.in_force = self.proxy.routes.current();
        self.at = verdict(&self.proxy, &self.in_force, &self.head, &self.via, path)?;
        Ok(())
    }

    /// For a WebSocket, whose messages come long after.
    pub fn still_allowed(&self) -> Result<(), Refusal> {
        let in_force = self.proxy.routes.current();
        verdict(&self.proxy, &in_force, &self.head, &self.via, &self.head.path).map(|_| ())
    }
}

fn verdict(proxy: &Proxy, in_force: &InForce, head: &Head, via: &Via, path: &str) -> Result<usize, Refusal> {
    let headers: Vec<(&str, &[u8])> = head.said.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let authorities: Vec<&str> = head.authorities.iter().map(String::as_str).collect();
    let judged = Judged {
        scheme: head.scheme,
        host: &head.sent_host,
        port: head.port,
        method: head.method.as_str(),
        path,
        headers: &headers,
        authorities: &authorities,
        sni: via.sni.as_deref(),
    };
    match judge(&judged, &in_force.routes, &proxy.ports, &environment) {
        Ok(_) => Ok(in_force.routes.position(&head.sent_host).unwrap_or_default()),
        Err(refusal) if refusal.askable => Err(sidecar_by_proxy(&head.sent_host).unwrap_or(refusal)),
        Err(refusal) => Err(refusal),
    }
}

/// The answer to a request: a server's, or why there is none.
pub async fn run(proxy: Arc<Proxy>, mut request: Request<Incoming>, via: Arc<Via>) -> Response<Body> {
    let (method, version) = (request.method().clone(), request.version());
    let said_host = match (&via.target, request.uri().host()) {
        (Some((host, _)), _) => host.clone(),
        (None, host) => host.unwrap_or_default().to_owned(),
    };
    let no = |refusal: &Refusal| {
        proxy.say_no(method.as_str(), &said_host, refusal);
        answer(refusal, &method)
    };
    let head = match Head::read(&request, &via) {
        Ok(head) => head,
        Err(refusal) => {
            discard(request.into_body());
            return no(&refusal);
        }
    };
    let in_force = proxy.routes.current();
    let at = match verdict(&proxy, &in_force, &head, &via, &head.path) {
        Ok(at) => at,
        Err(refusal) => {
            discard(request.into_body());
            return no(&refusal);
        }
    };
    let upgrade = head.websocket.then(|| hyper::upgrade::on(&mut request));
    let exchange = Exchange {
        proxy: proxy.clone(),
        // Judged, so it is.
        host: canonical_host(&head.sent_host).unwrap_or_default(),
        head,
        via,
        version,
        budget: Budget::for_request(),
        in_force,
        at,
    };
    match go(exchange, request.into_body(), upgrade).await {
        Ok(response) => response,
        Err(refusal) => no(&refusal),
    }
}

async fn go(mut exchange: Exchange, body: Incoming, upgrade: Option<OnUpgrade>) -> Result<Response<Body>, Refusal> {
    let head = &exchange.head;
    let mut going = Outgoing {
        host: exchange.host.clone(),
        path: head.path.clone(),
        query: head.query.clone(),
        lines: head.passing(exchange.route()),
    };
    let detectors = exchange.outbound().clone();
    let looks = !detectors.is_empty();
    if looks && let Err(error) = Scanner::new(&detectors, &exchange.budget).encoded(&head.codings) {
        discard(body);
        return Err(unreadable(&error));
    }
    let mut allowed = HashSet::new();
    match collect(body, looks && !head.is_stream()).await? {
        Collected::Whole(content, trailers) => {
            let trailers = trailers.map(|trailers| checked_trailers(&exchange, trailers)).transpose()?;
            let mut parts = Parts { content, trailers: trailers.map(|map| lines_of(&map)).unwrap_or_default() };
            if looks {
                let seen = look(&exchange, &going, &parts, &detectors)?;
                if !seen.is_empty() {
                    let before = parts.content.clone();
                    let carrier = Carrier { content: &[&before], size: Some(before.len() as u64), holds: true };
                    let mut mask = |each: &Seen| parts.mask(&exchange, &mut going, &detectors, each);
                    settle(&exchange, &mut allowed, &seen, carrier, &mut mask).await?;
                    // The routes may have changed while it was held.
                    exchange.judge(&going.path)?;
                }
            }
            let trailers = (!parts.trailers.is_empty()).then(|| map_of(parts.trailers));
            let body = whole(parts.content, trailers.clone());
            send(exchange, going, body, trailers.as_ref(), allowed, upgrade, outbound::uncut()).await
        }
        Collected::Begun(begun, rest) => {
            let length =
                rest.size_hint().exact().map(|left| left + begun.iter().map(|piece| piece.len() as u64).sum::<u64>());
            if looks {
                let own = exchange.own_credentials();
                let seen = scan_head(&exchange.head, &going, &detectors, own, &exchange.budget);
                let seen = seen.map_err(|error| unreadable(&error))?;
                let carrier = Carrier { content: &[b"passed on"], size: length, holds: false };
                let mut mask = |each: &Seen| mask_outgoing(&mut going, &mut [], each);
                let settled = settle(&exchange, &mut allowed, &seen, carrier, &mut mask).await;
                if let Err(refusal) = settled {
                    discard(rest);
                    return Err(refusal);
                }
            }
            let announced = exchange.head.announced.clone();
            let trailers: HeaderMap =
                announced.into_iter().map(|name| (name, http::HeaderValue::from_static(""))).collect();
            let (cut, told) = watch::channel(None);
            let (pieces, body) = crate::body::piped(length);
            let exchange = Arc::new(exchange);
            outbound::pass(exchange.clone(), detectors, allowed.clone(), begun, rest, pieces, cut);
            send_shared(exchange, going, body, Some(&trailers), allowed, upgrade, told).await
        }
    }
}

/// What of a request comes after its head.
struct Parts {
    content: Bytes,
    trailers: Vec<crate::head::Line>,
}

impl Parts {
    fn mask(&mut self, exchange: &Exchange, going: &mut Outgoing, detectors: &Detectors, seen: &Seen) -> bool {
        if seen.place != Where::Body {
            return mask_outgoing(going, &mut self.trailers, seen);
        }
        if seen.finding.span.is_some() {
            let mut content = BytesMut::from(&self.content[..]);
            let masked = mask(&mut content, &seen.finding);
            self.content = content.freeze();
            return masked;
        }
        // In an encoded body, which goes on without its encoding.
        let codings = &exchange.head.codings;
        if codings.is_empty() || !going.is_encoded() {
            return !codings.is_empty();
        }
        let Some(mut plain) = decoded(&self.content, codings, MAX_DECODED) else { return false };
        let Ok(found) = scan(&plain, detectors, &exchange.budget, Place::body(exchange.host.as_str())) else {
            return false;
        };
        if !found.iter().all(|each| mask(&mut plain, each)) {
            return false;
        }
        self.content = Bytes::from(plain);
        going.drop_coding();
        true
    }
}

/// All the secrets of a request that is here as a whole.
fn look(exchange: &Exchange, going: &Outgoing, parts: &Parts, detectors: &Detectors) -> Result<Vec<Seen>, Refusal> {
    let (head, host, budget) = (&exchange.head, exchange.host.as_str(), &exchange.budget);
    let work = || {
        let mut seen = scan_head(head, going, detectors, exchange.own_credentials(), budget)?;
        if !parts.content.is_empty() {
            let mut scanner = Scanner::new(detectors, budget).at(Place::body(host)).encoded(&head.codings)?;
            let mut found = scanner.feed(&parts.content)?;
            found.extend(scanner.finish()?);
            seen.extend(found.into_iter().map(|finding| Seen { finding, place: Where::Body }));
        }
        seen.extend(scan_lines(&parts.trailers, host, "trailer", Where::Trailer, detectors, budget)?);
        Ok(seen)
    };
    let size = parts.content.len() + going.lines.iter().map(|(_, value)| value.len()).sum::<usize>();
    let found = if size > AT_ONCE { tokio::task::block_in_place(work) } else { work() };
    found.map_err(|error| {
        if matches!(error, bot_bottle_scan::ScanError::OverBudget { .. }) {
            let told = format!("A request to {host} was refused: scanning it takes more than one may use.");
            exchange.proxy.record.audit("scan-refused", &told);
        }
        unreadable(&error)
    })
}

enum Collected {
    Whole(Bytes, Option<HeaderMap>),
    Begun(Vec<Bytes>, Incoming),
}

/// A body that is here as a whole soon, or its beginning.
async fn collect(mut body: Incoming, wait: bool) -> Result<Collected, Refusal> {
    if body.is_end_stream() {
        return Ok(Collected::Whole(Bytes::new(), None));
    }
    if !wait || body.size_hint().lower() > MAX_HELD as u64 {
        return Ok(Collected::Begun(Vec::new(), body));
    }
    let until = Instant::now() + PATIENCE;
    let (mut pieces, mut size, mut trailers) = (Vec::<Bytes>::new(), 0, None);
    loop {
        match timeout_at(until, body.frame()).await {
            Err(_) => return Ok(Collected::Begun(pieces, body)),
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(
                    Refusal::new("bad_request", "The body is not framed as HTTP says, or ended early.").status(400)
                );
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => {
                    size += piece.len();
                    pieces.push(piece);
                    if size > MAX_HELD {
                        return Ok(Collected::Begun(pieces, body));
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
    let content = if pieces.len() == 1 { pieces.remove(0) } else { Bytes::from(pieces.concat()) };
    Ok(Collected::Whole(content, trailers))
}

/// Trailers that may pass: announced, and none that frames, routes or authenticates (RFC 9110, 6.5.1).
pub fn checked_trailers(exchange: &Exchange, trailers: HeaderMap) -> Result<HeaderMap, Refusal> {
    for name in trailers.keys() {
        let announced = exchange.version == Version::HTTP_2 || exchange.head.announced.contains(name);
        if !announced || !is_trailer(name) {
            let reason = "The request has a trailer that was not announced, or that has to be a header.";
            return Err(Refusal::new("bad_request", reason).status(400));
        }
    }
    Ok(trailers)
}

async fn send(
    exchange: Exchange,
    going: Outgoing,
    body: Body,
    trailers: Option<&HeaderMap>,
    allowed: HashSet<String>,
    upgrade: Option<OnUpgrade>,
    told: Cut,
) -> Result<Response<Body>, Refusal> {
    send_shared(Arc::new(exchange), going, body, trailers, allowed, upgrade, told).await
}

async fn send_shared(
    exchange: Arc<Exchange>,
    mut going: Outgoing,
    body: Body,
    trailers: Option<&HeaderMap>,
    allowed: HashSet<String>,
    upgrade: Option<OnUpgrade>,
    mut told: Cut,
) -> Result<Response<Body>, Refusal> {
    let route = exchange.route();
    if let Some(auth) = &route.auth
        && let Some(value) = token(route, &environment)
    {
        going.authorize(auth, &value);
    }
    if !exchange.inbound().is_empty() {
        going.ask_for_plain();
    }
    let request = going.build(&exchange.head, body, trailers)?;
    let upstream = &exchange.proxy.upstream;
    let both = exchange.version == Version::HTTP_2;
    let client = if both { &upstream.any } else { &upstream.http1 };
    let answered = tokio::select! {
        biased;
        refusal = outbound::cut(&mut told) => return Err(refusal),
        answered = client.request(request) => answered,
    };
    let response = match answered {
        Ok(response) => response,
        // A request that was cut ends like one that failed.
        Err(error) => return Err(told.borrow().clone().unwrap_or_else(|| failed(&error))),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match upgrade {
            Some(upgrade) => websocket::open(exchange, response, upgrade, allowed),
            None => {
                Err(Refusal::new("upstream_failed", "The server changes to a protocol nobody asked for.").status(502))
            }
        };
    }
    inbound::answer(exchange, response, told)
}

/// Why a server cannot be used. What it sent is not quoted: it knows the credential by then, and the debug data of an
/// HTTP/2 GOAWAY or the names of a certificate would bring it to the agent. Only texts of ours, of the system and of
/// libraries that quote nothing are taken.
fn failed(error: &(dyn Error + 'static)) -> Refusal {
    let mut reason = "it does not answer as HTTP says".to_owned();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            reason = error.to_string();
        } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let inner = error.get_ref();
            if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                reason = tls(error).to_owned();
            } else if inner.is_none() || inner.is_some_and(|inner| inner.is::<Unreachable>()) {
                reason = strerror(error);
            }
        }
        next = error.source();
    }
    Refusal::new("upstream_failed", format!("The server cannot be used: {}.", reason.trim_end_matches('.'))).status(502)
}

fn tls(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(what) => match what {
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            Certificate::Expired | Certificate::ExpiredContext { .. } => "its certificate has expired",
            Certificate::UnknownIssuer => "its certificate is of an authority that is not trusted here",
            _ => "its certificate is not valid",
        },
        _ => "it does not speak TLS as we do",
    }
}

/// Whether an answer to this method has a body.
pub fn has_body(method: &Method, status: StatusCode) -> bool {
    method != Method::HEAD && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}
