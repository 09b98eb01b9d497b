//! Is there a secret in this stream of bytes, which one, where, and under which encodings?
//!
//! ```
//! use bot_bottle_scan::{Budget, Detectors, Place, Scanner};
//!
//! let known = vec![("GITHUB_TOKEN".to_string(), b"correct-horse-battery".to_vec())];
//! let detectors = Detectors::new(true, known);
//! let mut scanner = Scanner::new(&detectors, &Budget::for_request()).at(Place::body("example.com"));
//! let mut found = scanner.feed(b"{\"key\": \"correct-horse-")?;
//! found.extend(scanner.feed(b"battery\"}")?);
//! found.extend(scanner.finish()?);
//! assert_eq!(found[0].detector, "GITHUB_TOKEN");
//! assert_eq!(found[0].span, Some(9..30));
//! # Ok::<(), bot_bottle_scan::ScanError>(())
//! ```
//!
//! A scanner reads one place of a request (its path, one header, its body) in pieces of any size. It does no I/O, knows
//! no clock and takes time linear in what it reads; what decoding costs is limited by a [`Budget`] that all places of a
//! request share.

#![forbid(unsafe_code)]

mod base64;
mod budget;
mod escapes;
mod filter;
mod formats;
mod hex;
mod inflate;
mod judge;
mod layer;
mod map;
mod pem;
mod rules;
mod shape;
mod wide;

use std::ops::Range;
use std::sync::Arc;

use layer::{Context, Hit, Layer};
use rules::{Rules, Target};

pub use budget::Budget;
pub use formats::{FORMATS, Format};

/// Why a place could not be scanned to its end; what it holds must not be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Decoding it took more than the request's budget.
    #[error("decoding it takes more {what} than one request may use; send it in smaller or less nested parts")]
    OverBudget {
        /// `work`, `memory` or `nesting`.
        what: &'static str,
    },
    /// It is not encoded as it says.
    #[error("it is not {coding} data as its Content-Encoding says; send it as it says or without encoding")]
    Unreadable {
        /// The content coding.
        coding: String,
    },
    /// Its content coding is unknown here.
    #[error("its Content-Encoding {coding:?} cannot be scanned; use gzip, deflate, br, zstd or none")]
    UnknownCoding {
        /// The content coding.
        coding: String,
    },
}

/// Which of the two detectors of `routes.yaml` found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A published format of tokens and keys.
    TokenPattern,
    /// A value that was given.
    KnownSecret,
}

impl Kind {
    /// As `routes.yaml` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::TokenPattern => "token_patterns",
            Kind::KnownSecret => "known_secrets",
        }
    }
}

/// One step that was undone on the way to a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Percent, JSON, C or HTML escapes.
    Escapes,
    /// Base64 in either alphabet, padded or not, in lines or not.
    Base64,
    /// Hexadecimal digits, in a row or as a list.
    Hex,
    /// UTF-16 or UTF-32.
    Wide,
    /// gzip (RFC 1952).
    Gzip,
    /// zlib (RFC 1950).
    Zlib,
    /// Deflate without a header (RFC 1951).
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
    /// A member of a ZIP file.
    Zip,
    /// Brotli (RFC 7932).
    Brotli,
}

impl Step {
    /// As operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Escapes => "escapes",
            Step::Base64 => "base64",
            Step::Hex => "hex",
            Step::Wide => "UTF-16",
            Step::Gzip => "gzip",
            Step::Zlib => "zlib",
            Step::Deflate => "deflate",
            Step::Zstd => "zstd",
            Step::Zip => "zip",
            Step::Brotli => "brotli",
        }
    }
}

/// Where in a request some bytes stand, and for which host they are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// As operators read it: `URL query`, `header x-key`, `body`.
    pub name: String,
    /// The host the request goes to, in lower case; empty if there is none.
    pub host: String,
    /// Whether it is the query of the request's own URL, where signed URLs carry their signature.
    pub is_query: bool,
}

impl Place {
    /// A place by its name.
    pub fn new(name: impl Into<String>, host: impl Into<String>) -> Place {
        Place { name: name.into(), host: host.into(), is_query: false }
    }

    /// The body of a request to `host`.
    pub fn body(host: impl Into<String>) -> Place {
        Place::new("body", host)
    }

    /// The query of a request to `host`.
    pub fn query(host: impl Into<String>) -> Place {
        Place { is_query: true, ..Place::new("URL query", host) }
    }
}

/// What to look for; clones share it.
#[derive(Clone)]
pub struct Detectors(Arc<Rules>);

impl std::fmt::Debug for Detectors {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Detectors")
            .field("patterns", &!self.0.formats.is_empty())
            .field("known", &self.0.known.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}

impl Detectors {
    /// Known values shorter than this are not looked for: they turn up by chance.
    pub const MIN_KNOWN: usize = 8;

    /// `patterns`: look for the published formats. `known`: what a secret is called, and its value.
    pub fn new(patterns: bool, known: Vec<(String, Vec<u8>)>) -> Detectors {
        let known = known.into_iter().filter(|(_, value)| value.len() >= Detectors::MIN_KNOWN).collect();
        Detectors(Arc::new(Rules::new(patterns, known)))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.formats.is_empty() && self.0.known.is_empty()
    }

    /// The ids of all published formats that `token_patterns` knows.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        rules::ids()
    }
}

/// A secret and where it is. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// The detector's id, such as `GitHub token`, or the name a known secret was given with.
    pub detector: String,
    /// Which kind of detector it was.
    pub kind: Kind,
    /// The secret itself, decoded.
    pub secret: Vec<u8>,
    /// The bytes of the stream that spell it, counted from the stream's beginning; overwriting each of them with `*`
    /// takes the secret out. `None` inside compressed data.
    pub span: Option<Range<u64>>,
    /// The steps that hid it, outermost first.
    pub how: Vec<Step>,
    /// Where it was found.
    pub place: Place,
}

impl Finding {
    /// What was found, where, under which encodings and why it counts; one line without the secret.
    pub fn explain(&self) -> String {
        let Finding { detector, kind, span, how, place, .. } = self;
        let at = match span {
            Some(span) => format!(" at bytes {} to {}", span.start, span.end),
            None => " in compressed data".to_string(),
        };
        let steps: Vec<&str> = how.iter().map(|step| step.name()).collect();
        let under = if steps.is_empty() { String::new() } else { format!(", under {}", steps.join(", then ")) };
        let source = FORMATS.iter().find(|format| format.id == detector).map(|format| format.source);
        let why = match (kind, source) {
            (Kind::KnownSecret, _) => "it is a value that was given".to_string(),
            (Kind::TokenPattern, Some(source)) => format!("it has the format described at {source}"),
            (Kind::TokenPattern, None) => "key material follows the label of a private key".to_string(),
        };
        format!("{detector} in {}{at}{under}: {why}", place.name)
    }
}

impl std::fmt::Debug for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Finding")
            .field("detector", &self.detector)
            .field("kind", &self.kind)
            .field("span", &self.span)
            .field("how", &self.how)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Scans one place of a request, fed in pieces.
#[derive(Debug)]
pub struct Scanner {
    detectors: Detectors,
    budget: Budget,
    place: Place,
    codings: Vec<(String, Step)>,
    top: Option<Layer>,
    fed: u64,
    told: Vec<(Target, Vec<u8>, Option<Range<u64>>)>,
    failed: Option<ScanError>,
}

/// Bytes that are looked at in one go; small enough to stay in a processor's cache.
const PIECE: usize = 32 << 10;

impl Scanner {
    /// A scanner for a place without name and content coding.
    pub fn new(detectors: &Detectors, budget: &Budget) -> Scanner {
        Scanner {
            detectors: detectors.clone(),
            budget: budget.clone(),
            place: Place::new("", ""),
            codings: Vec::new(),
            top: None,
            fed: 0,
            told: Vec::new(),
            failed: None,
        }
    }

    /// Says what is scanned, for findings and for the rules about signed URLs.
    pub fn at(mut self, place: Place) -> Scanner {
        self.place = place;
        self
    }

    /// Undoes the content codings of a body, given in the order they were applied (as the header lists them).
    ///
    /// # Errors
    /// A coding that is not known here.
    pub fn encoded<S: AsRef<str>>(mut self, codings: &[S]) -> Result<Scanner, ScanError> {
        for coding in codings {
            let step = match coding.as_ref().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Step::Gzip,
                "deflate" => Step::Deflate,
                "br" => Step::Brotli,
                "zstd" => Step::Zstd,
                "identity" => continue,
                _ => return Err(ScanError::UnknownCoding { coding: coding.as_ref().to_string() }),
            };
            self.codings.push((coding.as_ref().to_ascii_lowercase(), step));
        }
        Ok(self)
    }

    /// Takes the next piece and returns the secrets that it completes.
    ///
    /// # Errors
    /// The budget is used up or the data unreadable: nothing of it may be passed on any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<Finding>, ScanError> {
        self.budget.fed(piece.len());
        let mut found = Vec::new();
        for part in piece.chunks(PIECE) {
            self.step(part, false, &mut found)?;
            self.fed += part.len() as u64;
        }
        Ok(found)
    }

    /// Ends the stream and returns what only its end could tell.
    ///
    /// # Errors
    /// As for [`Scanner::feed`], and if the stream ends before its content coding does.
    pub fn finish(&mut self) -> Result<Vec<Finding>, ScanError> {
        let mut found = Vec::new();
        self.step(&[], true, &mut found)?;
        Ok(found)
    }

    /// How many bytes from the stream's beginning hold no secret that is still incomplete and may be passed on.
    pub fn clear(&self) -> u64 {
        if self.failed.is_some() {
            return 0;
        }
        self.top.as_ref().and_then(Layer::open).unwrap_or(self.fed).min(self.fed)
    }

    fn step(&mut self, piece: &[u8], last: bool, found: &mut Vec<Finding>) -> Result<(), ScanError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let context = Context { rules: &self.detectors.0, budget: &self.budget, place: &self.place };
        let mut hits = Vec::new();
        let done = (|| {
            let top = match &mut self.top {
                Some(top) => top,
                None => self.top.insert(Layer::top(&context, &self.codings)?),
            };
            top.push(piece);
            top.process(&context, last, &mut hits)
        })();
        found.extend(hits.into_iter().filter_map(|hit| self.tell(hit)));
        done.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// A secret that is found in several ways at one place counts once.
    fn tell(&mut self, hit: Hit) -> Option<Finding> {
        let Hit { id, target, secret, span, mut how } = hit;
        let key = (target, secret.clone(), span.clone());
        if self.told.contains(&key) {
            return None;
        }
        self.told.push(key);
        if self.told.len() > TOLD {
            self.told.remove(0);
        }
        how.reverse();
        let kind = self.detectors.0.name(target).1;
        Some(Finding { detector: id, kind, secret, span, how, place: self.place.clone() })
    }
}

/// Findings that are remembered so that they are not told twice.
const TOLD: usize = 256;
