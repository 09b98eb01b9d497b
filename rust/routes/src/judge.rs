//! May this request go where it wants to go? The answer needs its head and the routes, no network.
//!
//! The host a request is judged by is the one the proxy connects to. Every other name the request carries (Host header,
//! `:authority`, an absolute URL, the name in the TLS handshake) must say the same, or the server might serve another
//! site than the one that was allowed.

use crate::host::canonical_host;
use crate::rules::{OVERRIDE_HEADERS, Route, Routes};

// TRACE sends back what it was sent, the injected token included.
const REFUSED_METHODS: [&str; 3] = ["TRACE", "TRACK", "CONNECT"];
const OUR_VARIABLES: [&str; 3] = ["BOT_BOTTLE_", "EGRESS_", "SUPERVISE_"];

/// Where routes find the tokens they name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a request is not let through. `error` is for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word for programs.
    pub error: &'static str,
    /// A sentence.
    pub reason: String,
    /// The HTTP status.
    pub status: u16,
    /// Whether a route would help.
    pub askable: bool,
    /// Further members of the answer.
    pub more: Vec<(&'static str, String)>,
}

impl Refusal {
    /// One with status 403 that no route would change.
    pub fn new(error: &'static str, reason: impl Into<String>) -> Self {
        Refusal { error, reason: reason.into(), status: 403, askable: false, more: Vec::new() }
    }

    /// The same with another status.
    pub fn status(self, status: u16) -> Self {
        Refusal { status, ..self }
    }

    fn askable(self) -> Self {
        Refusal { askable: true, ..self }
    }
}

/// What a request says of itself.
pub struct Head<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// What the proxy would connect to.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// As sent.
    pub method: &'a str,
    /// As sent, without query.
    pub path: &'a str,
    /// All lines.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// All names with optional port it carries besides.
    pub authorities: &'a [&'a str],
    /// The name in its TLS handshake.
    pub sni: Option<&'a str>,
}

/// Whether a CONNECT to `host:port` may be opened; what goes through it is judged again, request by request.
pub fn judge_tunnel<'r>(
    host: &str,
    port: u16,
    authority: &str,
    routes: &'r Routes,
    ports: &[u16],
) -> Result<&'r Route, Refusal> {
    if authority.contains('@') {
        let named = "The CONNECT target holds a user name; write host:port alone.";
        return Err(Refusal::new("bad_request", named).status(400));
    }
    judge_host(host, port, routes, ports).map(|(route, _)| route)
}

/// The route that lets this request through, or why none does.
pub fn judge<'r>(
    head: &Head<'_>,
    routes: &'r Routes,
    ports: &[u16],
    environment: Environment<'_>,
) -> Result<&'r Route, Refusal> {
    let (route, host) = judge_host(head.host, head.port, routes, ports)?;
    let same_name = head.sni.is_none_or(|name| names_same_host(name, &host));
    if !same_name || !head.authorities.iter().all(|authority| leads_to(authority, &host, head)) {
        let differs = format!(
            "The request is for {host} but also names another host or port; send the same in the URL, \
             the Host header and the TLS handshake."
        );
        return Err(Refusal::new("host_mismatch", differs).status(400));
    }
    if route.tunnel {
        let closed =
            format!("The route for {host} is a tunnel: only TLS that the proxy does not open goes through it.");
        return Err(Refusal::new("tunnel_only", closed));
    }
    let method = head.method.to_ascii_uppercase();
    if REFUSED_METHODS.contains(&method.as_str()) {
        return Err(Refusal::new("request_denied", format!("{method} requests are never let through.")));
    }
    if route.has_method_or_path_rules()
        && !route.override_headers
        && let Some((name, _)) =
            head.headers.iter().find(|(name, _)| OVERRIDE_HEADERS.contains(&name.to_ascii_lowercase().as_str()))
    {
        let hidden = format!(
            "The header {name} may name another method or path than the route for {host} covers; leave it out."
        );
        return Err(Refusal::new("request_denied", hidden));
    }
    if !route.allows(head.method, head.path, head.headers) {
        let uncovered = format!("The route for {host} does not cover this method, path or header.");
        return Err(Refusal::new("request_denied", uncovered).askable());
    }
    if let Some(token_ref) = route.token_ref() {
        if head.scheme != "https" {
            let open = format!("The proxy adds a credential for {host}, which it sends over https only.");
            return Err(Refusal::new("cleartext_refused", open));
        }
        if token(route, environment).is_none() {
            let missing = format!(
                "The proxy has no value for {token_ref}, which the route for {host} needs; \
                 the operator has to give the egress sidecar that variable."
            );
            return Err(Refusal::new("credential_missing", missing).status(503));
        }
    }
    Ok(route)
}

/// The credential of a route, or `None` if there is none to be had.
pub fn token(route: &Route, environment: Environment<'_>) -> Option<String> {
    let name = route.token_ref()?;
    if OUR_VARIABLES.iter().any(|ours| name.starts_with(ours)) {
        return None;
    }
    let value = environment(name)?.trim().to_owned();
    (!value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))).then_some(value)
}

/// What the proxy injects: a name for the operator and the value.
pub fn tokens(routes: &Routes, environment: Environment<'_>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for route in routes.routes() {
        if let (Some(name), Some(value)) = (route.token_ref(), token(route, environment))
            && !found.iter().any(|(_, known)| *known == value)
        {
            found.push((format!("value of {name}"), value));
        }
    }
    found
}

/// The port of a scheme.
pub fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Whether `name` is another spelling of `host`, which is canonical.
pub fn names_same_host(name: &str, host: &str) -> bool {
    canonical_host(name).is_ok_and(|canonical| canonical == host)
}

fn judge_host<'r>(host: &str, port: u16, routes: &'r Routes, ports: &[u16]) -> Result<(&'r Route, String), Refusal> {
    let name = canonical_host(host).map_err(|reason| Refusal::new("host_denied", format!("The host {reason}.")))?;
    let Some(route) = routes.find(&name) else {
        return Err(Refusal::new("host_denied", format!("No route allows {name}.")).askable());
    };
    if !ports.contains(&port) {
        let mut allowed = ports.to_vec();
        allowed.sort_unstable();
        let allowed: Vec<_> = allowed.iter().map(u16::to_string).collect();
        let closed = format!("Port {port} is not let through, whatever the host; only {}.", allowed.join(", "));
        return Err(Refusal::new("port_denied", closed));
    }
    Ok((route, name))
}

/// Whether `host` or `host:port` in `authority` is the place that was judged.
fn leads_to(authority: &str, host: &str, head: &Head<'_>) -> bool {
    let (name, port) = match with_port(authority) {
        Some((name, port)) => (name, port),
        None => (authority, u32::from(default_port(head.scheme).unwrap_or(head.port))),
    };
    port == u32::from(head.port) && names_same_host(name, host)
}

fn with_port(authority: &str) -> Option<(&str, u32)> {
    let (name, port) = authority.rsplit_once(':')?;
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let plain = match bracketed {
        Some(inner) => !inner.contains(['@', ']']),
        None => !name.is_empty() && !name.contains([':', '@']),
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    (plain && digits).then(|| (name, port.parse().unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::load;

    fn verdict(routes: &str, method: &str, headers: &[(&str, &[u8])]) -> &'static str {
        let routes = load(&format!("routes:\n{routes}")).expect("valid");
        let head = Head {
            scheme: "https",
            host: "h.example",
            port: 443,
            method,
            path: "/x",
            headers,
            authorities: &["h.example"],
            sni: Some("h.example"),
        };
        judge(&head, &routes, &[443], &|_| None).map_or_else(|refusal| refusal.error, |_| "ok")
    }

    #[test]
    fn a_header_that_names_another_method_is_refused_where_methods_count() {
        let ruled = "- host: h.example\n  matches: [{methods: [GET]}]\n";
        for name in OVERRIDE_HEADERS {
            assert_eq!(verdict(ruled, "GET", &[(name, b"DELETE")]), "request_denied", "{name}");
        }
        assert_eq!(verdict(ruled, "GET", &[("x-other", b"1")]), "ok");
        let allowed = format!("{ruled}  override_headers: true\n");
        assert_eq!(verdict(&allowed, "GET", &[("X-HTTP-Method-Override", b"PUT")]), "ok");
        assert_eq!(verdict("- host: h.example\n", "GET", &[("x-http-method-override", b"PUT")]), "ok");
    }

    #[test]
    fn a_tunnel_takes_no_request() {
        assert_eq!(verdict("- host: h.example\n  tunnel: true\n", "GET", &[]), "tunnel_only");
    }
}
