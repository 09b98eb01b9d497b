//! What is done about the secrets of a request: is it refused, are they masked, or is the operator asked?

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bot_bottle_routes::{OnMatch, Refusal};
use bot_bottle_scan::Kind;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::exchange::Exchange;
use crate::leave::Question;
use crate::scanning::{Seen, Where, cleaned};

/// Different ones in one request that no grant covers; a human is not asked about more.
const MAX_SECRETS: usize = 5;
/// Characters of a path; the fingerprint and the hash, not the path, are what is approved.
const MAX_SHOWN: usize = 512;

/// What carries the secrets.
pub struct Carrier<'a> {
    /// Its content, or what makes it this one and no other.
    pub content: &'a [&'a [u8]],
    /// Bytes of it, if known.
    pub size: Option<u64>,
    /// Whether it can wait for an answer.
    pub holds: bool,
}

/// `Ok`: it may go on. `allowed`: fingerprints that have been let through, of which nobody is asked again.
pub async fn settle(
    exchange: &Exchange,
    allowed: &mut HashSet<String>,
    seen: &[Seen],
    carrier: Carrier<'_>,
    mask: &mut (dyn FnMut(&Seen) -> bool + Send),
) -> Result<(), Refusal> {
    if seen.is_empty() {
        return Ok(());
    }
    let (proxy, route, host) = (&exchange.proxy, exchange.route(), exchange.host.as_str());
    let record = &proxy.record;
    if seen.iter().any(|each| each.place == Where::Host) {
        // Neither may it be stored, as a part of the host, nor does asking the DNS for it keep it here.
        record.audit("secret-blocked", &format!("A request carried a secret in a host name ({}).", route.host));
        return Err(Refusal::new("secret_in_host", "The host name holds a secret; leave it out."));
    }
    let mut new: BTreeMap<String, Vec<&Seen>> = BTreeMap::new();
    for each in seen {
        let name = proxy.leave.fingerprint(host, as_elsewhere(each, seen));
        if !allowed.contains(&name) {
            new.entry(name).or_default().push(each);
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    let names = |new: &BTreeMap<String, Vec<&Seen>>| new.keys().cloned().collect::<Vec<_>>().join(", ");
    match route.dlp.on_match {
        OnMatch::Block => {
            record.audit("secret-blocked", &format!("A request to {host} carried a secret: {}.", names(&new)));
            let reason = format!("The request carries a secret and the route for {host} blocks those.");
            return Err(Refusal::new("secret_blocked", reason));
        }
        OnMatch::Redact => {
            let masked: Vec<bool> = new.values().flatten().map(|each| mask(each)).collect();
            if masked.iter().all(|masked| *masked) {
                let masked = format!("A secret was masked in a request to {host}: {}.", names(&new));
                record.audit("secret-redacted", &masked);
                return Ok(());
            }
            let shown = format!("A secret could not be masked in a request to {host}: {}.", names(&new));
            record.audit("secret-blocked", &shown);
            let reason = "The request carries a secret where it cannot be masked; leave it out.";
            return Err(Refusal::new("secret_not_masked", reason));
        }
        OnMatch::Supervise => {}
    }
    let hash = request_hash(exchange, carrier.content);
    let mut questions = Vec::new();
    for (name, seen) in &new {
        let question = question(exchange, name, seen, carrier.size, &hash);
        if proxy.leave.lets(&question).await {
            allowed.insert(name.clone());
        } else {
            questions.push(question);
        }
    }
    if questions.is_empty() {
        return Ok(());
    }
    if questions.len() > MAX_SECRETS {
        let count = questions.len();
        record.audit("secret-blocked", &format!("A request to {host} carried {count} secrets."));
        let reason = format!("The request carries {count} secrets; send at most {MAX_SECRETS}.");
        return Err(Refusal::new("too_many_secrets", reason));
    }
    if carrier.holds {
        let names = questions.iter().map(|each| each.fingerprint.as_str()).collect::<Vec<_>>().join(", ");
        record.say(&format!("holding a request to {host}: {names}"));
    }
    match proxy.leave.ask(questions, carrier.holds).await {
        Some(refusal) => Err(refusal),
        None => {
            allowed.extend(new.into_keys());
            Ok(())
        }
    }
}

/// The secret, with the capitals that the name of a header loses, if it is in the request a second time.
fn as_elsewhere<'a>(this: &'a Seen, seen: &'a [Seen]) -> &'a [u8] {
    let secret = &this.finding.secret;
    let same = |each: &&Seen| each.place != Where::HeaderName && each.finding.secret.eq_ignore_ascii_case(secret);
    match this.place {
        Where::HeaderName => seen.iter().find(same).map_or(secret, |each| &each.finding.secret),
        _ => secret,
    }
}

/// What tells this request from every other one; keyed, so that nobody can try out what it was made from.
fn request_hash(exchange: &Exchange, content: &[&[u8]]) -> String {
    let head = &exchange.head;
    let query = head.query.as_deref().map(str::as_bytes);
    let mut parts = vec![head.method.as_str().as_bytes(), head.path.as_bytes()];
    // No query is another one than an empty one.
    parts.extend([if query.is_some() { &b"?"[..] } else { b"" }, query.unwrap_or_default()]);
    parts.extend(content);
    exchange.proxy.leave.keyed_hash(&parts)
}

fn question(exchange: &Exchange, name: &str, seen: &[&Seen], size: Option<u64>, hash: &str) -> Question {
    let (head, host) = (&exchange.head, &exchange.host);
    let kinds: BTreeSet<&str> = seen.iter().map(|each| each.finding.detector.as_str()).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
    let found: BTreeSet<(&str, &str, String)> = seen
        .iter()
        .map(|each| {
            let place = shown(exchange, &each.place_in_words());
            (each.finding.kind.name(), each.finding.detector.as_str(), place)
        })
        .collect();
    let places: BTreeSet<&str> = found.iter().map(|(.., place)| place.as_str()).collect();
    let places = places.into_iter().collect::<Vec<_>>();
    let sentence =
        format!("{} wants to send its {kinds} to {host} in the {}", exchange.proxy.slug, places.join(" and the "));
    let places = places.join("; ");
    let method = shown(exchange, head.method.as_str());
    let found: Vec<Value> = found
        .iter()
        .map(|(detector, what, place)| json!({"what": what, "where": place, "detector": detector}))
        .collect();
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = match bot_bottle_routes::default_port(head.scheme) {
        Some(port) if port == head.port => String::new(),
        _ => format!(":{}", head.port),
    };
    let url = format!("{}://{bracketed}{port}{}", head.scheme, shown(exchange, &head.path));
    let mut content = Map::new();
    content.insert("asks".to_owned(), format!("to send a secret to {host} ({kinds}; in: {places})").into());
    content.insert("request".to_owned(), format!("{method} {url}").into());
    if let Some(size) = size {
        content.insert("bytes".to_owned(), size.into());
    }
    if let Some(kind) = head.header(&CONTENT_TYPE) {
        let kind = String::from_utf8_lossy(kind.as_bytes()).into_owned();
        content.insert("content_type".to_owned(), shown(exchange, &kind).into());
    }
    content.insert("found".to_owned(), found.into());
    content.insert("fingerprint".to_owned(), name.into());
    content.insert("request_hash".to_owned(), hash.into());
    let payload = format!("{:#}\n", Value::Object(content));
    let kind = kind(exchange, seen, size);
    let all = kind.as_ref().map(|kind| format!(", or all of a kind: {kind}")).unwrap_or_default();
    let justification = format!(
        "{sentence} ({method} request); it has not left the bottle. A yes lets this one request through; \
         a grant lets the same secret go to {host} again{all}."
    );
    Question { fingerprint: name.to_owned(), kind, payload, justification }
}

/// What this secret is one of, for operators who let all of them go there: fresh signed URLs, most of all. None for a
/// value that was given, which is the same each time.
fn kind(exchange: &Exchange, seen: &[&Seen], size: Option<u64>) -> Option<String> {
    /// Bytes; a fingerprint holds 512, and the host and a hash before it.
    const MAX_KIND: usize = 300;
    if seen.iter().any(|each| each.finding.kind != Kind::TokenPattern) {
        return None;
    }
    let method = &exchange.head.method;
    let downloads = (method == Method::GET || method == Method::HEAD) && size == Some(0);
    let what: BTreeSet<String> =
        seen.iter().map(|each| format!("{} in the {}", each.finding.detector, each.place_in_words())).collect();
    let what = what.into_iter().collect::<Vec<_>>().join(" with ");
    let of = if downloads { "downloads from" } else { "requests to" };
    let kind = shown(exchange, &format!("any {what} of {of} {}", exchange.host));
    (kind.len() <= MAX_KIND).then_some(kind)
}

/// What of an agent's `text` may be stored and shown.
fn shown(exchange: &Exchange, text: &str) -> String {
    let clean = cleaned(text, exchange.in_force.all());
    let count = clean.chars().count();
    if count <= MAX_SHOWN {
        return clean;
    }
    let first: String = clean.chars().take(MAX_SHOWN).collect();
    format!("{first}... ({} more)", count - MAX_SHOWN)
}
