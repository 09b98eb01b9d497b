//! Is this text a valid `routes.yaml`, and if not, on which line and what to write instead?

use std::sync::Arc;

use crate::host::{canonical_host, is_address};
use crate::rules::{
    Auth, AuthKind, DETECTORS, Detectors, Dlp, HeaderMatch, Match, OnMatch, PathMatch, Route, Routes, Rule, Whole,
    is_credential_header, walks,
};
use crate::yaml::{self, Node, Value, quoted};

/// The largest file.
pub const MAX_BYTES: usize = 256 * 1024;
/// The most routes in it.
pub const MAX_ROUTES: usize = 1000;

/// The text is no valid `routes.yaml`; nothing of it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutesError {
    /// From 1.
    pub line: usize,
    problem: String,
}

impl std::fmt::Display for RoutesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "routes.yaml line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for RoutesError {}

type Result<T> = std::result::Result<T, RoutesError>;
type Fields<'a> = &'a [(String, Node)];

/// Reads a whole `routes.yaml`.
pub fn load(text: &str) -> Result<Routes> {
    if text.len() > MAX_BYTES {
        let large = format!("the file is larger than {} KiB; shorten it", MAX_BYTES / 1024);
        return Err(RoutesError { line: 1, problem: large });
    }
    let root = yaml::parse(text).map_err(|error| RoutesError { line: error.line, problem: error.problem })?;
    let Some(root) = root else {
        let empty = "the file is empty; write routes: [] to deny everything".to_owned();
        return Err(RoutesError { line: 1, problem: empty });
    };
    let top = mapping(&root, "the file", &["routes"], &["routes"])?;
    let entries = items(needed(top, "routes"), "routes")?;
    if let Some(extra) = entries.get(MAX_ROUTES) {
        return fail(extra, format!("a file may have {MAX_ROUTES} routes and this is one more; remove some"));
    }
    let mut routes: Vec<Route> = Vec::with_capacity(entries.len());
    for entry in entries {
        let route = read_route(entry)?;
        if let Some(earlier) = routes.iter().find(|earlier| earlier.host == route.host) {
            let (host, line) = (&route.host, earlier.line);
            return fail(entry, format!("host {host} has a route on line {line} already; merge them"));
        }
        routes.push(route);
    }
    Ok(Routes(Arc::new(routes)))
}

fn fail<T>(node: &Node, problem: impl Into<String>) -> Result<T> {
    Err(RoutesError { line: node.line, problem: problem.into() })
}

fn mapping<'a>(node: &'a Node, what: &str, known: &[&str], required: &[&str]) -> Result<Fields<'a>> {
    let Value::Mapping(fields) = &node.value else {
        return fail(node, format!("{what} must be a mapping of {}", known.join(", ")));
    };
    if let Some((key, value)) = fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return fail(value, format!("unknown key {} in {what}; known are {}", quoted(key), known.join(", ")));
    }
    if let Some(key) = required.iter().find(|key| field(fields, key).is_none()) {
        return fail(node, format!("{what} has no {key}; add it"));
    }
    Ok(fields)
}

fn field<'a>(fields: Fields<'a>, key: &str) -> Option<&'a Node> {
    fields.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

/// One that `mapping` required.
fn needed<'a>(fields: Fields<'a>, key: &str) -> &'a Node {
    field(fields, key).expect("the mapping was read with this key required")
}

fn items<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => fail(node, format!("{what} must be a list")),
    }
}

fn some<'a>(fields: Fields<'a>, key: &str) -> Result<&'a [Node]> {
    let Some(node) = field(fields, key) else {
        return Ok(&[]);
    };
    let items = items(node, key)?;
    if items.is_empty() {
        return fail(node, format!("{key} is empty, which could mean all or none; leave {key} out for all"));
    }
    Ok(items)
}

fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str> {
    match &node.value {
        Value::Text { text, .. } if !text.is_empty() => Ok(text),
        _ => fail(node, format!("{what} must be text")),
    }
}

fn choice<'a>(node: &Node, what: &str, choices: &[&'a str]) -> Result<&'a str> {
    let text = text(node, what)?;
    match choices.iter().find(|choice| **choice == text) {
        Some(choice) => Ok(choice),
        None => fail(node, format!("{what} is {}; it must be one of {}", quoted(text), choices.join(", "))),
    }
}

fn is_plain(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Text { text, plain: true } if text == word)
}

fn flag(fields: Fields<'_>, key: &str) -> Result<bool> {
    match field(fields, key) {
        None => Ok(false),
        Some(node) if is_plain(node, "true") => Ok(true),
        Some(node) if is_plain(node, "false") => Ok(false),
        Some(node) => fail(node, format!("{key} must be true or false")),
    }
}

fn read_route(node: &Node) -> Result<Route> {
    let known = ["host", "auth", "matches", "dlp", "tunnel", "override_headers"];
    let fields = mapping(node, "a route", &known, &["host"])?;
    let host = read_host(needed(fields, "host"))?;
    let tunnel = flag(fields, "tunnel")?;
    if tunnel {
        let without_effect = ["auth", "matches", "dlp", "override_headers"];
        if let Some((key, value)) = fields.iter().find(|(key, _)| without_effect.contains(&key.as_str())) {
            return fail(value, format!("{key} has no effect in a tunnel, which is not opened; remove one of the two"));
        }
    }
    let auth = match field(fields, "auth") {
        None => None,
        Some(given) => match read_auth(given)? {
            Auth::Injected { .. } if host.starts_with("*.") => {
                return fail(given, format!("auth for {host} would send the token to every host below; name one host"));
            }
            auth => Some(auth),
        },
    };
    Ok(Route {
        host,
        auth,
        matches: some(fields, "matches")?.iter().map(read_match).collect::<Result<_>>()?,
        dlp: field(fields, "dlp").map_or(Ok(Dlp::default()), read_dlp)?,
        tunnel,
        override_headers: flag(fields, "override_headers")?,
        line: node.line,
    })
}

fn read_host(node: &Node) -> Result<String> {
    let text = text(node, "host")?;
    let (wild, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') || (wild && !name.trim_end_matches('.').contains('.')) {
        let broad =
            format!("host {} matches too much; name a host, or *.example.com for those below one", quoted(text));
        return fail(node, broad);
    }
    match canonical_host(name) {
        Err(reason) => fail(node, format!("host {} {reason}", quoted(text))),
        Ok(host) if wild && is_address(&host) => {
            let odd = format!("host {} has a wildcard before an IP address; write the address alone", quoted(text));
            fail(node, odd)
        }
        Ok(host) => Ok(if wild { format!("*.{host}") } else { host }),
    }
}

fn read_auth(node: &Node) -> Result<Auth> {
    const KINDS: [&str; 4] = ["scheme", "header", "query", "basic"];
    if is_plain(node, "passthrough") {
        return Ok(Auth::Passthrough);
    }
    let fields = mapping(node, "auth", &["scheme", "header", "query", "basic", "token_ref"], &["token_ref"])?;
    let mut kinds = fields.iter().filter(|(key, _)| KINDS.contains(&key.as_str()));
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
        return fail(node, format!("auth must have exactly one of {}", KINDS.join(", ")));
    };
    let reference = needed(fields, "token_ref");
    let token_ref = match &reference.value {
        Value::Text { text, .. } if is_variable(text) => text.clone(),
        // Not quoted: somebody who pasted the token itself must not find it in a log.
        _ => {
            let wrong = "token_ref must be the name of an environment variable (A-Z, 0-9, _), never the token";
            return fail(reference, wrong);
        }
    };
    let kind = match kind.as_str() {
        "scheme" => AuthKind::Scheme(choice(value, "scheme", &["Bearer", "token"])?),
        "header" => AuthKind::Header(read_auth_header(value)?),
        "query" => {
            let name = text(value, "query")?;
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)) {
                return fail(value, format!("{} is not a query parameter's name", quoted(name)));
            }
            AuthKind::Query(name.to_owned())
        }
        _ => {
            let user = text(value, "basic")?;
            if user.contains(':') || !user.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                return fail(value, format!("{} is not a user name", quoted(user)));
            }
            AuthKind::Basic(user.to_owned())
        }
    };
    Ok(Auth::Injected { kind, token_ref })
}

fn read_auth_header(node: &Node) -> Result<String> {
    /// What frames or routes a message cannot carry a credential.
    const OURS: [&str; 10] = [
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = text(node, "header")?.to_ascii_lowercase();
    if !is_token(&name) || OURS.contains(&name.as_str()) {
        return fail(node, format!("{} is not a header that can hold a credential", quoted(&name)));
    }
    Ok(name)
}

fn read_match(node: &Node) -> Result<Match> {
    let fields = mapping(node, "a match", &["paths", "methods", "headers"], &[])?;
    if fields.is_empty() {
        return fail(node, "an empty match matches everything; leave matches out to allow the whole host");
    }
    Ok(Match {
        paths: some(fields, "paths")?.iter().map(read_path).collect::<Result<_>>()?,
        methods: some(fields, "methods")?.iter().map(read_method).collect::<Result<_>>()?,
        headers: some(fields, "headers")?.iter().map(read_header).collect::<Result<_>>()?,
    })
}

fn read_path(node: &Node) -> Result<PathMatch> {
    let fields = mapping(node, "a path", &["type", "value"], &["type", "value"])?;
    let place = needed(fields, "value");
    let value = text(place, "a path's value")?.to_owned();
    let rule = match choice(needed(fields, "type"), "a path's type", &["prefix", "exact", "regex"])? {
        "regex" => Rule::Regex(read_regex(place, &value)?),
        _ if !value.starts_with('/') || !value.bytes().all(is_on_the_wire) || walks(&value) => {
            let never = format!(
                "path {} can match no request; start it with / and write it percent-encoded, \
                 without query and without . or .. steps",
                quoted(&value)
            );
            return fail(place, never);
        }
        "exact" => Rule::Exact,
        _ => Rule::Prefix,
    };
    let found = PathMatch { rule, value };
    if matches!(found.rule, Rule::Regex(_))
        && ["/", "/a1/B2.c", "/x-probe_/%20~/0:"].iter().all(|probe| found.matches(probe))
    {
        let all = format!("regex {} matches every path; leave paths out to allow them all", quoted(&found.value));
        return fail(place, all);
    }
    Ok(found)
}

fn read_method(node: &Node) -> Result<String> {
    let method = text(node, "a method")?.to_uppercase();
    let letters = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if !letters || method.starts_with('-') || method.len() > 32 {
        return fail(node, format!("{} is not an HTTP method; leave methods out to allow them all", quoted(&method)));
    }
    Ok(method)
}

fn read_header(node: &Node) -> Result<HeaderMatch> {
    let fields = mapping(node, "a header", &["name", "value", "type"], &["name", "value"])?;
    let place = needed(fields, "name");
    let name = text(place, "a header's name")?.to_owned();
    if !is_token(&name) {
        return fail(place, format!("{} is not a header's name", quoted(&name)));
    }
    if is_credential_header(&name.to_ascii_lowercase()) {
        return fail(place, format!("the proxy replaces {name}, so no route can depend on it; use auth instead"));
    }
    let place = needed(fields, "value");
    let value = text(place, "a header's value")?.to_owned();
    let rule =
        match field(fields, "type").map(|kind| choice(kind, "a header's type", &["exact", "regex"])).transpose()? {
            Some("regex") => Rule::Regex(read_regex(place, &value)?),
            _ => Rule::Exact,
        };
    Ok(HeaderMatch { name, rule, value })
}

fn read_dlp(node: &Node) -> Result<Dlp> {
    let known = ["outbound_detectors", "inbound_detectors", "outbound_on_match"];
    let fields = mapping(node, "dlp", &known, &[])?;
    let mut dlp = Dlp::default();
    if let Some(given) = field(fields, known[0]) {
        dlp.outbound = read_detectors(given, known[0])?;
    }
    if let Some(given) = field(fields, known[1]) {
        dlp.inbound = read_detectors(given, known[1])?;
    }
    if let Some(given) = field(fields, known[2]) {
        dlp.on_match = OnMatch::named(choice(given, known[2], &OnMatch::NAMES)?);
    }
    Ok(dlp)
}

fn read_detectors(node: &Node, what: &str) -> Result<Detectors> {
    if is_plain(node, "false") {
        return Ok(Detectors::default());
    }
    let names = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => return fail(node, format!("{what} must be a list of {}, or false for none", DETECTORS.join(", "))),
    };
    let mut found = Detectors::default();
    for name in names {
        match choice(name, what, &DETECTORS)? {
            "token_patterns" => found.token_patterns = true,
            _ => found.known_secrets = true,
        }
    }
    Ok(found)
}

fn read_regex(node: &Node, pattern: &str) -> Result<Whole> {
    Whole::new(pattern).or_else(|reason| {
        let reason: String =
            reason.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { ' ' }).collect();
        fail(node, format!("regex {} is not RE2 ({reason})", quoted(pattern)))
    })
}

fn is_variable(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(letters)
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&byte))
}

/// RFC 3986: `pchar`, `/` and `%`.
fn is_on_the_wire(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-./:;=@_~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(rest: &str) -> std::result::Result<Route, String> {
        let text = format!("routes:\n  - host: h.example\n{rest}");
        load(&text).map(|routes| routes.routes()[0].clone()).map_err(|error| error.to_string())
    }

    fn problem(rest: &str) -> String {
        one(rest).err().unwrap_or_else(|| panic!("{rest} was read"))
    }

    #[test]
    fn a_credential_goes_where_the_route_says() {
        let kind = |rest: &str| match one(&format!("    auth: {rest}\n")).map(|route| route.auth) {
            Ok(Some(Auth::Injected { kind, token_ref })) if token_ref == "T" => kind,
            other => panic!("{rest}: {other:?}"),
        };
        assert_eq!(kind("{scheme: token, token_ref: T}"), AuthKind::Scheme("token"));
        assert_eq!(kind("{header: X-Api-Key, token_ref: T}"), AuthKind::Header("x-api-key".to_owned()));
        assert_eq!(kind("{query: key, token_ref: T}"), AuthKind::Query("key".to_owned()));
        assert_eq!(kind("{basic: me, token_ref: T}"), AuthKind::Basic("me".to_owned()));
        assert_eq!(one("    auth: passthrough\n").map(|route| route.auth), Ok(Some(Auth::Passthrough)));
    }

    #[test]
    fn a_credential_without_one_clear_place_is_refused() {
        assert!(problem("    auth: {token_ref: T}\n").contains("exactly one of scheme, header, query, basic"));
        assert!(problem("    auth: {scheme: token, header: x, token_ref: T}\n").contains("exactly one of"));
        assert!(problem("    auth: {header: Host, token_ref: T}\n").contains("not a header that can hold"));
        assert!(problem("    auth: {header: 'a b', token_ref: T}\n").contains("not a header that can hold"));
        assert!(problem("    auth: {query: 'a&b', token_ref: T}\n").contains("not a query parameter's name"));
        assert!(problem("    auth: {basic: 'a:b', token_ref: T}\n").contains("not a user name"));
        assert!(problem("    auth: 'passthrough'\n").contains("auth must be a mapping"), "quoted it is a word");
    }

    #[test]
    fn a_tunnel_has_no_rules_about_what_is_inside() {
        assert!(one("    tunnel: true\n").is_ok_and(|route| route.tunnel));
        assert!(one("    tunnel: false\n    auth: passthrough\n").is_ok());
        assert!(
            problem("    tunnel: true\n    auth: passthrough\n").contains("line 4: auth has no effect in a tunnel")
        );
        assert!(problem("    tunnel: true\n    matches: [{methods: [GET]}]\n").contains("matches has no effect"));
        assert!(problem("    tunnel: yes\n").contains("tunnel must be true or false"));
    }

    #[test]
    fn a_header_rule_is_met_only_if_all_lines_meet_it() {
        let exact = one("    matches: [{headers: [{name: X-Kind, value: report}]}]\n").expect("valid");
        let allows = |lines: &[(&str, &[u8])]| exact.allows("GET", "/", lines);
        assert!(allows(&[("x-kind", b"report")]) && allows(&[("x-kind", b"report"), ("X-KIND", b"report")]));
        assert!(!allows(&[]) && !allows(&[("x-kind", b"report"), ("x-kind", b"other")]));
    }

    #[test]
    fn no_pattern_escapes_from_its_anchors() {
        for pattern in ["/a)|(.*", "(?x)/a # .*", "/a|/b", "(?m)^/a$"] {
            let rule = one(&format!("    matches: [{{paths: [{{type: regex, value: '{pattern}'}}]}}]\n"));
            assert!(
                !rule.is_ok_and(|route| route.allows("GET", "/a/../../x", &[]) || route.allows("GET", "/a\n/c", &[]))
            );
        }
        let either = one("    matches: [{paths: [{type: regex, value: '/a|/b'}]}]\n").expect("valid");
        assert!(
            either.allows("GET", "/b", &[]) && !either.allows("GET", "/bc", &[]) && !either.allows("GET", "/ac", &[])
        );
    }
}
