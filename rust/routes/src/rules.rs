//! What does a route cover: hosts, paths, methods, headers?

use std::borrow::Cow;
use std::sync::Arc;

use regex_automata::meta::{Config, Regex};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, Look};
use serde_json::{Value, json};

use crate::host::canonical_host;

/// The detectors a route may name.
pub const DETECTORS: [&str; 2] = ["token_patterns", "known_secrets"];

/// Headers that some server takes for a credential. The agent's own are dropped on every route: they would let it act
/// as somebody else at an allowed host.
pub const CREDENTIAL_HEADERS: [&str; 18] = [
    "authorization",          // RFC 9110, 11.6.2
    "proxy-authorization",    // RFC 9110, 11.7.2
    "x-api-key",              // Anthropic, AWS API Gateway and many others
    "api-key",                // Azure OpenAI, New Relic
    "x-goog-api-key",         // Google's APIs
    "private-token",          // GitLab
    "job-token",              // GitLab CI
    "deploy-token",           // GitLab
    "x-auth-token",           // OpenStack Keystone, DigitalOcean spaces and others
    "x-subject-token",        // OpenStack Keystone
    "x-access-token",         // widespread without an issuer
    "x-vault-token",          // HashiCorp Vault
    "x-consul-token",         // HashiCorp Consul
    "x-nomad-token",          // HashiCorp Nomad
    "x-amz-security-token",   // AWS session tokens
    "dd-api-key",             // Datadog
    "dd-application-key",     // Datadog
    "x-shopify-access-token", // Shopify
];

/// Headers by which a server may be told another method or path than the one that was judged.
pub const OVERRIDE_HEADERS: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
];

/// Whether servers take a header of this name (lower case) for a credential.
pub fn is_credential_header(name: &str) -> bool {
    CREDENTIAL_HEADERS.contains(&name)
}

/// A regular expression that has to match a whole value, in time linear in it: an agent writes these.
#[derive(Clone)]
pub(crate) struct Whole(Regex);

impl Whole {
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        const TOO_LARGE: usize = 1 << 20;
        let parsed = regex_syntax::parse(pattern).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => error.kind().to_string(),
            regex_syntax::Error::Translate(error) => error.kind().to_string(),
            _ => "it cannot be read".to_owned(),
        })?;
        // Anchored as a tree and not as text, where `a)|(b` or a comment could get around what is written about it.
        let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
        Regex::builder()
            .configure(Config::new().nfa_size_limit(Some(TOO_LARGE)))
            .build_from_hir(&whole)
            .map(Whole)
            .map_err(|_| "it is too large".to_owned())
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.0.search_half(&Input::new(text).anchored(Anchored::Yes)).is_some()
    }
}

#[derive(Clone)]
pub(crate) enum Rule {
    Prefix,
    Exact,
    Regex(Whole),
}

impl Rule {
    fn name(&self) -> &'static str {
        match self {
            Rule::Prefix => "prefix",
            Rule::Exact => "exact",
            Rule::Regex(_) => "regex",
        }
    }
}

/// One rule about a request's path, which comes as sent: percent-encoded, without `?` and what follows.
///
/// `prefix` `/a` covers `/a` and `/a/b` but not `/ab`.
#[derive(Clone)]
pub struct PathMatch {
    pub(crate) rule: Rule,
    pub(crate) value: String,
}

impl PathMatch {
    /// Whether it covers this path.
    pub fn matches(&self, path: &str) -> bool {
        // `/public/../admin` starts with `/public`, but the server would answer for `/admin`.
        if walks(path) {
            return false;
        }
        match &self.rule {
            Rule::Exact => path == self.value,
            Rule::Prefix => {
                let bare = self.value.trim_end_matches('/');
                path == self.value || path.strip_prefix(bare).is_some_and(|rest| rest.starts_with('/'))
            }
            Rule::Regex(whole) => whole.matches(path.as_bytes()),
        }
    }
}

/// A header that must be there, each of whose lines must have this value.
#[derive(Clone)]
pub struct HeaderMatch {
    pub(crate) name: String,
    pub(crate) rule: Rule,
    pub(crate) value: String,
}

impl HeaderMatch {
    fn matches(&self, headers: &[(&str, &[u8])]) -> bool {
        let mut seen = false;
        for (_, value) in headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&self.name)) {
            // All of them: of two lines, servers differ in which one they take.
            let fits = match &self.rule {
                Rule::Regex(whole) => whole.matches(value),
                _ => *value == self.value.as_bytes(),
            };
            if !fits {
                return false;
            }
            seen = true;
        }
        seen
    }
}

/// Requests a route lets through: one of `paths`, one of `methods`, all of `headers`; an empty list: any.
#[derive(Clone)]
pub struct Match {
    pub(crate) paths: Vec<PathMatch>,
    pub(crate) methods: Vec<String>,
    pub(crate) headers: Vec<HeaderMatch>,
}

impl Match {
    fn matches(&self, method: &str, path: &str, headers: &[(&str, &[u8])]) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|known| known.eq_ignore_ascii_case(method)))
            && (self.paths.is_empty() || self.paths.iter().any(|rule| rule.matches(path)))
            && self.headers.iter().all(|rule| rule.matches(headers))
    }
}

/// How a credential is put into a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// `Authorization: <scheme> <value>`; the scheme is `Bearer` or `token`.
    Scheme(&'static str),
    /// The header of this name (lower case) with the bare value.
    Header(String),
    /// The query parameter of this name.
    Query(String),
    /// `Authorization: Basic` with this user and the value for a password.
    Basic(String),
}

/// Whose credential a request goes out with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// The agent's own, as it sent it: for registries whose tokens the agent fetches itself.
    Passthrough,
    /// The one in the proxy's environment variable `token_ref`.
    Injected {
        /// Where it goes.
        kind: AuthKind,
        /// The name of the variable.
        token_ref: String,
    },
}

impl Auth {
    fn to_json(&self) -> Value {
        match self {
            Auth::Passthrough => json!("passthrough"),
            Auth::Injected { kind, token_ref } => match kind {
                AuthKind::Scheme(scheme) => json!({"scheme": scheme, "token_ref": token_ref}),
                AuthKind::Header(name) => json!({"header": name, "token_ref": token_ref}),
                AuthKind::Query(name) => json!({"query": name, "token_ref": token_ref}),
                AuthKind::Basic(user) => json!({"basic": user, "token_ref": token_ref}),
            },
        }
    }
}

/// Which detectors look at one direction of a route's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detectors {
    /// Published formats of tokens and keys.
    pub token_patterns: bool,
    /// The values that the proxy itself injects.
    pub known_secrets: bool,
}

impl Detectors {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        !self.token_patterns && !self.known_secrets
    }

    fn to_json(self) -> Value {
        let chosen = [(DETECTORS[0], self.token_patterns), (DETECTORS[1], self.known_secrets)];
        let names: Vec<_> = chosen.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        if names.is_empty() { json!(false) } else { json!(names) }
    }
}

/// What a secret on its way out leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMatch {
    /// The operator is asked.
    Supervise,
    /// It is overwritten.
    Redact,
    /// The request is refused.
    Block,
}

impl OnMatch {
    pub(crate) const NAMES: [&'static str; 3] = ["supervise", "redact", "block"];

    pub(crate) fn named(name: &str) -> Self {
        match name {
            "redact" => OnMatch::Redact,
            "block" => OnMatch::Block,
            _ => OnMatch::Supervise,
        }
    }
}

/// What is looked for in a route's traffic, and what is done then.
///
/// Inbound the default is the injected value alone: a server that sends it back must not hand it to the agent, while
/// token-shaped text in an answer is usually documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dlp {
    /// Looked for in requests.
    pub outbound: Detectors,
    /// Looked for in answers.
    pub inbound: Detectors,
    /// What a match outbound leads to.
    pub on_match: OnMatch,
}

impl Default for Dlp {
    fn default() -> Self {
        Dlp {
            outbound: Detectors { token_patterns: true, known_secrets: true },
            inbound: Detectors { token_patterns: false, known_secrets: true },
            on_match: OnMatch::Supervise,
        }
    }
}

/// What is allowed towards one host; `*.example.com` means every name below `example.com`, not itself.
#[derive(Clone)]
pub struct Route {
    /// Canonical.
    pub host: String,
    /// Whose credential goes out; `None`: none at all.
    pub auth: Option<Auth>,
    /// Without any, every request to the host goes through.
    pub matches: Vec<Match>,
    /// What is looked for.
    pub dlp: Dlp,
    /// TLS to the host passes unopened: judged by its name alone, nothing injected or scanned.
    pub tunnel: bool,
    /// Whether headers that name another method or path may pass although the route has rules about these.
    pub override_headers: bool,
    /// Where it stands in the file, from 1.
    pub line: usize,
}

impl Route {
    fn covers(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            Some(below) => host.ends_with(below),
            None => host == self.host,
        }
    }

    /// Whether this request to the route's host goes through.
    pub fn allows(&self, method: &str, path: &str, headers: &[(&str, &[u8])]) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|rule| rule.matches(method, path, headers))
    }

    /// Whether what is allowed depends on method or path.
    pub fn has_method_or_path_rules(&self) -> bool {
        self.matches.iter().any(|rule| !rule.methods.is_empty() || !rule.paths.is_empty())
    }

    /// The variable whose value it injects.
    pub fn token_ref(&self) -> Option<&str> {
        match &self.auth {
            Some(Auth::Injected { token_ref, .. }) => Some(token_ref),
            _ => None,
        }
    }

    /// The route in the file's own shape, defaults spelled out. Names tokens, never holds one.
    pub fn to_json(&self) -> Value {
        let matches: Vec<_> = self.matches.iter().map(match_to_json).collect();
        let dlp = json!({
            "outbound_detectors": self.dlp.outbound.to_json(),
            "inbound_detectors": self.dlp.inbound.to_json(),
            "outbound_on_match": OnMatch::NAMES[self.dlp.on_match as usize],
        });
        json!({
            "host": self.host,
            "auth": self.auth.as_ref().map(Auth::to_json),
            "matches": matches,
            "dlp": if self.tunnel { Value::Null } else { dlp },
            "tunnel": self.tunnel,
            "override_headers": self.override_headers,
        })
    }
}

fn match_to_json(rule: &Match) -> Value {
    let paths: Vec<_> = rule.paths.iter().map(|path| json!({"type": path.rule.name(), "value": path.value})).collect();
    let headers: Vec<_> = rule
        .headers
        .iter()
        .map(|header| json!({"name": header.name, "type": header.rule.name(), "value": header.value}))
        .collect();
    json!({"paths": paths, "methods": rule.methods, "headers": headers})
}

/// A whole file. `Routes::default()` denies everything. Cheap to clone.
#[derive(Clone, Default)]
pub struct Routes(pub(crate) Arc<Vec<Route>>);

impl Routes {
    /// All of them, in the order of the file.
    pub fn routes(&self) -> &[Route] {
        &self.0
    }

    /// The place in the file of the route for a request's host (no port), or `None`: denied. The most specific one wins.
    pub fn position(&self, host: &str) -> Option<usize> {
        let name = canonical_host(host).ok()?;
        let covering = self.0.iter().enumerate().filter(|(_, route)| route.covers(&name));
        covering.max_by_key(|(_, route)| (!route.host.starts_with('*'), route.host.len())).map(|(at, _)| at)
    }

    /// The route for a request's host.
    pub fn find(&self, host: &str) -> Option<&Route> {
        self.position(host).map(|at| &self.0[at])
    }
}

/// Whether a server may see another path than the one written: dot steps, encoded slashes, backslashes.
pub(crate) fn walks(path: &str) -> bool {
    let once = percent_decoded(path.as_bytes());
    let seen = percent_decoded(&once); // some servers decode twice
    let slashes = |text: &[u8]| text.iter().filter(|byte| **byte == b'/').count();
    seen.contains(&b'\\')
        || slashes(&seen) != slashes(path.as_bytes())
        || seen.split(|byte| *byte == b'/').any(|step| {
            let name = step.split(|byte| *byte == b';').next().unwrap_or_default();
            name == b"." || name == b".."
        })
}

fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut found = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                found.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                found.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(found)
}
