//! What is the head of a request, checked and taken apart, and how is it put together again for the server?
//!
//! Nothing of a message crosses the proxy as it came: method, path, query and header lines are rebuilt from checked
//! parts, with one framing that the sending side makes itself.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bot_bottle_routes::{Auth, AuthKind, OVERRIDE_HEADERS, Refusal, Route, default_port, is_credential_header};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    HeaderName, IF_RANGE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

/// Between two neighbours, never beyond (RFC 9110, 7.6.1), and what frames a message, which the sender makes itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header line.
pub type Line = (HeaderName, HeaderValue);

/// Where the connection says it leads.
pub struct Via {
    /// `http` or `https`; empty on a connection to the proxy itself, where each request says.
    pub scheme: &'static str,
    /// Canonical host and port of the tunnel.
    pub target: Option<(String, u16)>,
    /// The name in its TLS handshake, `""` if there was none.
    pub sni: Option<String>,
}

pub struct Head {
    pub scheme: &'static str,
    /// As sent; the text of a host may hold a secret in capitals.
    pub sent_host: String,
    pub port: u16,
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    /// All that it says, to be judged.
    pub said: Vec<Line>,
    pub authorities: Vec<String>,
    pub websocket: bool,
    /// The content codings of its body, in the order applied.
    pub codings: Vec<String>,
    /// Trailers it announced.
    pub announced: HashSet<HeaderName>,
    takes_trailers: bool,
}

fn bad(reason: &str) -> Refusal {
    Refusal::new("bad_request", reason).status(400)
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}

impl Head {
    /// Takes a request's head apart.
    pub fn read<B>(request: &Request<B>, via: &Via) -> Result<Head, Refusal> {
        let uri = request.uri();
        let mut authorities = Vec::new();
        for value in request.headers().get_all(HOST) {
            authorities.push(value.to_str().map_err(|_| bad("The Host header is not ASCII."))?.to_owned());
        }
        if let Some(authority) = uri.authority() {
            authorities.push(authority.as_str().to_owned());
        }
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            Some(_) => return Err(bad("Only http and https URLs are let through.")),
            None => via.scheme,
        };
        if !via.scheme.is_empty() && scheme != via.scheme {
            return Err(Refusal::new("host_mismatch", "The URL names another scheme than the tunnel it came through.")
                .status(400));
        }
        let (sent_host, port) = match (&via.target, uri.authority()) {
            (Some((host, port)), _) => (host.clone(), *port),
            (None, Some(authority)) if !scheme.is_empty() => {
                let port = match authority.port() {
                    Some(port) => port.as_str().parse().map_err(|_| bad("The URL's port is not a number."))?,
                    None => default_port(scheme).unwrap_or_default(),
                };
                (authority.host().to_owned(), port)
            }
            _ => return Err(bad("This is a proxy: send it the whole URL, or CONNECT.")),
        };
        let path = match uri.path() {
            "" => "/",
            path => path,
        };
        if !(path.starts_with('/') || (path == "*" && request.method() == Method::OPTIONS)) || !is_visible(path) {
            return Err(bad("The path is not one that a server would read as it is meant."));
        }
        if uri.query().is_some_and(|query| !is_visible(query)) {
            return Err(bad("The query holds characters that have to be percent-encoded."));
        }
        let headers = request.headers();
        if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
            return Err(bad("It has two lengths."));
        }
        let transfer = listed(headers, &TRANSFER_ENCODING);
        if transfer.iter().any(|coding| coding != "chunked") {
            return Err(bad("Of transfer codings only chunked is let through."));
        }
        let upgrades = listed(headers, &CONNECTION).iter().any(|name| name == "upgrade");
        let said = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Head {
            scheme,
            sent_host,
            port,
            method: request.method().clone(),
            path: path.to_owned(),
            query: uri.query().map(str::to_owned),
            said,
            authorities,
            websocket: upgrades
                && request.method() == Method::GET
                && request.version() == Version::HTTP_11
                && listed(headers, &UPGRADE).iter().any(|name| name == "websocket"),
            codings: listed(headers, &CONTENT_ENCODING).into_iter().filter(|name| name != "identity").collect(),
            announced: listed(headers, &TRAILER).iter().filter_map(|name| name.parse().ok()).collect(),
            takes_trailers: listed(headers, &TE).iter().any(|name| name == "trailers"),
        })
    }

    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.said.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether the client will wait for answers before it ends its body, as gRPC's streams do.
    pub fn is_stream(&self) -> bool {
        let kind = self.header(&CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase()).unwrap_or_default();
        kind.starts_with(b"application/grpc") || kind.starts_with(b"application/connect+")
    }

    /// The lines that go to the server: none that is for the proxy, none that is a credential of the agent's.
    pub fn passing(&self, route: &Route) -> Vec<Line> {
        let named = self.said.iter().filter(|(name, _)| name == CONNECTION);
        let named: HashSet<String> =
            named.flat_map(|(_, value)| items(value)).filter(|name| !name.is_empty()).collect();
        let own = route.auth == Some(Auth::Passthrough);
        let mut lines: Vec<Line> = Vec::with_capacity(self.said.len() + 2);
        for (name, value) in &self.said {
            let text = name.as_str();
            let dropped = HOP_BY_HOP.contains(&text)
                || named.contains(text)
                || *name == HOST
                || *name == EXPECT
                || *name == PROXY_AUTHORIZATION
                || (is_credential_header(text) && !own)
                || text == "sec-websocket-extensions" // frames are read here, and not as any extension has them
                || matches!(&route.auth, Some(Auth::Injected { kind: AuthKind::Header(auth), .. }) if auth == text);
            if dropped {
                continue;
            }
            // HTTP/2 may send crumbs, which HTTP/1.1 takes as one line only (RFC 9113, 8.2.3).
            if *name == COOKIE
                && let Some((_, first)) = lines.iter_mut().find(|(known, _)| *known == COOKIE)
                && let Ok(joined) = HeaderValue::from_bytes(&[first.as_bytes(), b"; ", value.as_bytes()].concat())
            {
                *first = joined;
                continue;
            }
            lines.push((name.clone(), value.clone()));
        }
        if self.takes_trailers {
            lines.push((TE, HeaderValue::from_static("trailers")));
        }
        if self.websocket {
            lines.push((CONNECTION, HeaderValue::from_static("upgrade")));
            lines.push((UPGRADE, HeaderValue::from_static("websocket")));
        }
        lines
    }
}

/// A request as it will go out.
pub struct Outgoing {
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub lines: Vec<Line>,
}

impl Outgoing {
    /// Adds the route's credential; `token` is its value.
    pub fn authorize(&mut self, auth: &Auth, token: &str) {
        let Auth::Injected { kind, .. } = auth else { return };
        let (name, value) = match kind {
            AuthKind::Scheme(scheme) => (AUTHORIZATION, format!("{scheme} {token}")),
            AuthKind::Basic(user) => (AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))),
            AuthKind::Header(name) => match name.parse() {
                Ok(name) => (name, token.to_owned()),
                Err(_) => return, // the routes were read with names that are
            },
            AuthKind::Query(name) => {
                let kept = self.query.iter().flat_map(|query| query.split('&'));
                let mut parts: Vec<String> =
                    kept.filter(|part| !names_parameter(part, name)).map(str::to_owned).collect();
                parts.push(format!("{name}={}", percent_encoded(token)));
                self.query = Some(parts.join("&"));
                return;
            }
        };
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            self.lines.retain(|(known, _)| *known != name);
            self.lines.push((name, value));
        }
    }

    /// What comes back must be possible to look at, and whole.
    pub fn ask_for_plain(&mut self) {
        self.lines.retain(|(name, _)| *name != ACCEPT_ENCODING && *name != RANGE && *name != IF_RANGE);
        self.lines.push((ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }

    pub fn is_encoded(&self) -> bool {
        self.lines.iter().any(|(name, _)| *name == CONTENT_ENCODING)
    }

    pub fn drop_coding(&mut self) {
        self.lines.retain(|(name, _)| *name != CONTENT_ENCODING);
    }

    /// The request itself.
    pub fn build<B>(&self, head: &Head, body: B, trailers: Option<&HeaderMap>) -> Result<Request<B>, Refusal> {
        let bracketed = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let authority =
            if default_port(head.scheme) == Some(head.port) { bracketed } else { format!("{bracketed}:{}", head.port) };
        let mut path = self.path.clone();
        if let Some(query) = &self.query {
            path.push('?');
            path.push_str(query);
        }
        let uri = Uri::builder().scheme(head.scheme).authority(authority).path_and_query(path).build();
        let uri = uri.map_err(|_| bad("The URL cannot be written in a way that every server reads alike."))?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        for (name, value) in &self.lines {
            request.headers_mut().append(name.clone(), value.clone());
        }
        if let Some(trailers) = trailers {
            for name in trailers.keys() {
                request.headers_mut().append(TRAILER, HeaderValue::from(name.clone()));
            }
        }
        Ok(request)
    }
}

/// The items of a comma list, in lower case.
fn items(value: &HeaderValue) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>().into_iter()
}

/// All items of a header that is a comma list.
pub fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().flat_map(items).filter(|item| !item.is_empty()).collect()
}

/// Whether a part of a query is the parameter `name`, in whatever spelling.
fn names_parameter(part: &str, name: &str) -> bool {
    let key = part.split('=').next().unwrap_or_default().replace('+', " ");
    let bytes = key.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain == name.as_bytes()
}

fn percent_encoded(text: &str) -> String {
    let mut found = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            found.push(char::from(byte));
        } else {
            found.push_str(&format!("%{byte:02X}"));
        }
    }
    found
}

/// Whether a field may come after the body: none that frames, routes or authenticates (RFC 9110, 6.5.1).
pub fn is_trailer(name: &HeaderName) -> bool {
    let text = name.as_str();
    !HOP_BY_HOP.contains(&text)
        && !OVERRIDE_HEADERS.contains(&text)
        && !is_credential_header(text)
        && ![HOST, EXPECT, COOKIE, CONTENT_ENCODING, CONTENT_TYPE, RANGE].contains(name)
}

/// What of a server's head may reach the client.
pub fn returning(headers: &HeaderMap, keeps_length: bool) -> HeaderMap {
    let named: HashSet<String> = listed(headers, &CONNECTION).into_iter().collect();
    let mut found = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let text = name.as_str();
        let dropped = (HOP_BY_HOP.contains(&text) && !(keeps_length && *name == CONTENT_LENGTH) && *name != TRAILER)
            || named.contains(text)
            || text == crate::answers::OUR_HEADER
            || text == "alt-svc" // another way to the server, past the proxy
            || text == "sec-websocket-extensions";
        if !dropped {
            found.append(name.clone(), value.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &str)]) -> Head {
        let mut request = Request::builder().uri("http://h.example/a?key=1&b=2&%6bey=3");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("valid");
        Head::read(&request, &Via { scheme: "", target: None, sni: None }).expect("read")
    }

    fn route(rest: &str) -> Route {
        let text = format!("routes:\n- host: h.example\n{rest}");
        bot_bottle_routes::load(&text).expect("valid").routes()[0].clone()
    }

    fn names(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn every_credential_of_the_agents_is_dropped_unless_the_route_passes_it_on() {
        let mut sent: Vec<_> = bot_bottle_routes::CREDENTIAL_HEADERS.iter().map(|name| (*name, "mine")).collect();
        sent.push(("accept", "*/*"));
        assert_eq!(names(&head(&sent).passing(&route(""))), ["accept"]);
        let passed = head(&sent).passing(&route("  auth: passthrough\n"));
        assert_eq!(passed.len(), sent.len() - 1, "but for proxy-authorization, which is for the proxy");
    }

    #[test]
    fn what_the_connection_header_names_is_dropped_with_it() {
        let sent = [("connection", "close, X-Secret"), ("x-secret", "1"), ("keep-alive", "5"), ("x-kept", "1")];
        assert_eq!(names(&head(&sent).passing(&route(""))), ["x-kept"]);
    }

    #[test]
    fn a_credential_replaces_what_the_agent_sent_in_its_place() {
        let sent = [("x-own-key", "mine"), ("accept", "*/*")];
        let injected = route("  auth: {header: X-Own-Key, token_ref: T}\n");
        let head = head(&sent);
        let mut going = Outgoing {
            host: "h.example".to_owned(),
            path: head.path.clone(),
            query: head.query.clone(),
            lines: head.passing(&injected),
        };
        going.authorize(injected.auth.as_ref().expect("given"), "real");
        let values: Vec<_> = going.lines.iter().filter(|(name, _)| name == "x-own-key").collect();
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].1, "real");
        going.authorize(&Auth::Injected { kind: AuthKind::Query("key".to_owned()), token_ref: String::new() }, "a/b");
        assert_eq!(going.query.as_deref(), Some("b=2&key=a%2Fb"), "in whatever spelling it was sent");
        going.authorize(&Auth::Injected { kind: AuthKind::Basic("me".to_owned()), token_ref: String::new() }, "pw");
        assert!(going.lines.iter().any(|(name, value)| name == "authorization" && value == "Basic bWU6cHc="));
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_line() {
        let lines = head(&[("cookie", "a=1"), ("cookie", "b=2")]).passing(&route(""));
        assert_eq!(lines, [(COOKIE, HeaderValue::from_static("a=1; b=2"))]);
    }

    #[test]
    fn what_a_server_says_of_us_or_of_other_ways_does_not_pass() {
        let mut headers = HeaderMap::new();
        for name in ["x-bot-bottle-egress", "alt-svc", "keep-alive", "x-kept", "content-length"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        assert_eq!(returning(&headers, false).len(), 1);
        assert_eq!(returning(&headers, true).len(), 2);
    }
}
