//! Is there a secret in these places of a message, and how is it masked there?

use bot_bottle_routes::{Refusal, is_credential_header};
use bot_bottle_scan::{Budget, Detectors, Finding, Place, ScanError, Scanner};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use crate::head::{Head, Line, Outgoing};

/// Which piece of a message a finding is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Host,
    Method,
    Path,
    Query,
    HeaderName,
    /// By its place among the lines.
    Header(usize),
    Trailer(usize),
    Body,
}

/// A secret seen, and where.
#[derive(Debug, Clone)]
pub struct Seen {
    pub finding: Finding,
    pub place: Where,
}

impl Seen {
    /// As an operator reads it.
    pub fn place_in_words(&self) -> String {
        let name = &self.finding.place.name;
        if self.finding.how.is_empty() {
            return name.clone();
        }
        let steps: Vec<_> = self.finding.how.iter().map(|step| step.name()).collect();
        format!("{name}, {}", steps.join(" in "))
    }
}

/// Why a body is not sent.
pub fn unreadable(error: &ScanError) -> Refusal {
    Refusal::new("unreadable_body", format!("The body cannot be inspected: {error}."))
}

/// All the secrets of one piece of text.
pub fn scan(text: &[u8], detectors: &Detectors, budget: &Budget, place: Place) -> Result<Vec<Finding>, ScanError> {
    let mut scanner = Scanner::new(detectors, budget).at(place);
    let mut found = scanner.feed(text)?;
    found.extend(scanner.finish()?);
    Ok(found)
}

/// The secrets of a request's head as it will go out. `own`: what is looked for where the agent authenticates itself, on
/// a route that lets it.
pub fn scan_head(
    head: &Head,
    going: &Outgoing,
    detectors: &Detectors,
    own: Option<&Detectors>,
    budget: &Budget,
) -> Result<Vec<Seen>, ScanError> {
    let host = &going.host;
    let named = |name: &str| Place::new(name, host.as_str());
    let mut places: Vec<(Where, Place, &[u8])> = vec![
        (Where::Host, named("host name"), head.sent_host.as_bytes()),
        (Where::Method, named("method"), head.method.as_str().as_bytes()),
        (Where::Path, named("URL path"), going.path.as_bytes()),
    ];
    if let Some(query) = &going.query {
        places.push((Where::Query, Place::query(host.as_str()), query.as_bytes()));
    }
    let lines = line_places(&going.lines, host, "header", Where::Header);
    let (theirs, rest): (Vec<_>, Vec<_>) = lines.into_iter().partition(|(place, ..)| {
        matches!(place, Where::Header(at) if own.is_some() && is_credential_header(going.lines[*at].0.as_str()))
    });
    places.extend(rest);
    let mut seen = scan_places(&places, detectors, budget)?;
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        seen.extend(scan_places(&theirs, own, budget)?);
    }
    Ok(seen)
}

/// The secrets of header or trailer lines.
pub fn scan_lines(
    lines: &[Line],
    host: &str,
    what: &str,
    place: impl Fn(usize) -> Where,
    detectors: &Detectors,
    budget: &Budget,
) -> Result<Vec<Seen>, ScanError> {
    scan_places(&line_places(lines, host, what, place), detectors, budget)
}

fn line_places<'a>(
    lines: &'a [Line],
    host: &str,
    what: &str,
    place: impl Fn(usize) -> Where,
) -> Vec<(Where, Place, &'a [u8])> {
    let mut places = Vec::with_capacity(2 * lines.len());
    for (at, (name, value)) in lines.iter().enumerate() {
        places.push((Where::HeaderName, Place::new(format!("name of a {what}"), host), name.as_str().as_bytes()));
        places.push((place(at), Place::new(format!("{what} {name}"), host), value.as_bytes()));
    }
    places
}

fn scan_places(
    places: &[(Where, Place, &[u8])],
    detectors: &Detectors,
    budget: &Budget,
) -> Result<Vec<Seen>, ScanError> {
    // Most heads have no secret, and are searched as one text.
    let mut all = Scanner::new(detectors, budget);
    let mut any = false;
    for (_, _, text) in places {
        any |= !all.feed(text)?.is_empty() || !all.feed(b"\n")?.is_empty();
    }
    if !any && all.finish()?.is_empty() {
        return Ok(Vec::new());
    }
    let mut seen = Vec::new();
    for (at, place, text) in places {
        let found = scan(text, detectors, budget, place.clone())?;
        seen.extend(found.into_iter().map(|finding| Seen { finding, place: *at }));
    }
    Ok(seen)
}

/// Overwrites a secret with as many `*`, if its bytes are here as they are.
pub fn mask(text: &mut [u8], finding: &Finding) -> bool {
    let Some(span) = &finding.span else { return false };
    let range = usize::try_from(span.start).ok().zip(usize::try_from(span.end).ok());
    match range.and_then(|(start, end)| text.get_mut(start..end)) {
        Some(bytes) => {
            bytes.fill(b'*');
            true
        }
        None => false,
    }
}

fn mask_text(text: &mut String, finding: &Finding) -> bool {
    let mut bytes = std::mem::take(text).into_bytes();
    let masked = mask(&mut bytes, finding);
    *text = String::from_utf8_lossy(&bytes).into_owned();
    masked
}

pub fn mask_line(lines: &mut [Line], at: usize, finding: &Finding) -> bool {
    let Some((_, value)) = lines.get_mut(at) else { return false };
    let mut bytes = value.as_bytes().to_vec();
    match (mask(&mut bytes, finding), HeaderValue::from_bytes(&bytes)) {
        (true, Ok(masked)) => {
            *value = masked;
            true
        }
        _ => false,
    }
}

/// Masks one in what goes out, but for the body.
pub fn mask_outgoing(going: &mut Outgoing, trailers: &mut [Line], seen: &Seen) -> bool {
    match seen.place {
        Where::Path => mask_text(&mut going.path, &seen.finding),
        Where::Query => going.query.as_mut().is_some_and(|query| mask_text(query, &seen.finding)),
        Where::Header(at) => mask_line(&mut going.lines, at, &seen.finding),
        Where::Trailer(at) => mask_line(trailers, at, &seen.finding),
        Where::Host | Where::Method | Where::HeaderName | Where::Body => false,
    }
}

/// `text` with every secret in it masked, for what is stored or shown.
pub fn cleaned(text: &str, detectors: &Detectors) -> String {
    let mut bytes = text.as_bytes().to_vec();
    match scan(text.as_bytes(), detectors, &Budget::for_request(), Place::new("", "")) {
        Ok(found) if found.iter().all(|finding| mask(&mut bytes, finding)) => {}
        // What cannot be masked, or not be read, is not shown at all.
        _ => bytes.fill(b'*'),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A stream that is scanned as it passes: what may go on, and what was found.
pub struct Passing {
    scanner: Scanner,
    waiting: Vec<u8>,
    taken: u64,
    /// Of what has gone on.
    hash: Sha256,
}

impl Passing {
    pub fn new(scanner: Scanner) -> Self {
        Passing { scanner, waiting: Vec::new(), taken: 0, hash: Sha256::new() }
    }

    /// Scans the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Finding>, ScanError> {
        self.waiting.extend_from_slice(piece);
        self.scanner.feed(piece)
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Result<Vec<Finding>, ScanError> {
        self.scanner.finish()
    }

    /// Overwrites a secret in what has not gone on yet.
    pub fn mask(&mut self, finding: &Finding) -> bool {
        /// How late the beginning of an encoded secret may show: so many bytes of it may have passed already.
        const UNRECOGNISED: u64 = 32;
        let Some(span) = &finding.span else { return false };
        if span.end <= self.taken || span.start + UNRECOGNISED < self.taken {
            return false;
        }
        let start = usize::try_from(span.start.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let end = usize::try_from(span.end - self.taken).unwrap_or(usize::MAX);
        match self.waiting.get_mut(start..end) {
            Some(bytes) => {
                bytes.fill(b'*');
                true
            }
            None => false,
        }
    }

    /// A hash of the stream up to `end`, whatever the pieces it came in; nothing where `end` is not known.
    pub fn hash_to(&self, end: Option<u64>) -> Vec<u8> {
        let length = end.and_then(|end| usize::try_from(end.checked_sub(self.taken)?).ok());
        let Some(more) = length.and_then(|length| self.waiting.get(..length)) else { return Vec::new() };
        self.hash.clone().chain_update(more).finalize().to_vec()
    }

    /// What may go on now.
    pub fn take(&mut self) -> Bytes {
        let clear = usize::try_from(self.scanner.clear().saturating_sub(self.taken)).unwrap_or(usize::MAX);
        self.split(clear)
    }

    /// All of it, at the end or where a message must go on as a whole.
    pub fn take_all(&mut self) -> Bytes {
        self.split(usize::MAX)
    }

    fn split(&mut self, length: usize) -> Bytes {
        let rest = self.waiting.split_off(length.min(self.waiting.len()));
        let passing = std::mem::replace(&mut self.waiting, rest);
        self.taken += passing.len() as u64;
        self.hash.update(&passing);
        Bytes::from(passing)
    }
}

/// A map as lines.
pub fn lines_of(headers: &HeaderMap) -> Vec<Line> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Lines as a map.
pub fn map_of(lines: Vec<Line>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        map.append(name, value);
    }
    map
}
