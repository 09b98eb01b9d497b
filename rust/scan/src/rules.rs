//! What is looked for, prepared once for all scanners that share it.

use crate::Kind;
use crate::escapes::Wanted;
use crate::filter::Filter;
use crate::formats::{FORMATS, Format, PGP_PRIVATE_KEY, PRIVATE_KEY};
use crate::pem;
use crate::shape::Shape;

/// What was found when an anchor was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Format(usize),
    PrivateKey,
    Known(usize),
}

/// A piece that every match of a target has.
pub(crate) struct Anchor {
    pub bytes: Vec<u8>,
    /// Which three of them the filter looks for.
    pub offset: usize,
    pub target: Target,
}

pub(crate) struct Rules {
    pub filter: Filter,
    pub anchors: Vec<Anchor>,
    /// For each format its shapes, and which bytes must not stand before or after.
    pub formats: Vec<(Vec<Shape>, [bool; 256], [bool; 256])>,
    pub known: Vec<(String, Vec<u8>)>,
    pub wanted: Wanted,
    /// How long a run of base64 must be to hold anything that is looked for.
    pub min_base64: usize,
}

const SHORTEST_TOKEN: usize = 20;
/// How far from the beginning of an anchor its three bytes may be.
const MAX_OFFSET: usize = 6;
const MAX_KNOWN_OFFSET: usize = 2;

impl Rules {
    pub(crate) fn new(patterns: bool, known: Vec<(String, Vec<u8>)>) -> Rules {
        let mut anchors = Vec::new();
        if patterns {
            for (index, format) in FORMATS.iter().enumerate() {
                let of = |bytes: &&str| anchor(bytes.as_bytes(), Target::Format(index));
                anchors.extend(format.anchors.iter().map(of));
            }
            anchors.push(anchor(pem::BEGIN, Target::PrivateKey));
        }
        for (index, (_, value)) in known.iter().enumerate() {
            anchors.push(anchor(value, Target::Known(index)));
            if !value.is_ascii()
                && let Ok(text) = std::str::from_utf8(value)
            {
                // ASCII text in wide characters is decoded; this is not.
                let wide: Vec<u16> = text.encode_utf16().collect();
                for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                    anchors.push(anchor(
                        &wide.iter().flat_map(|&unit| bytes(unit)).collect::<Vec<_>>(),
                        Target::Known(index),
                    ));
                }
            }
        }
        let grams: Vec<[u8; 3]> = anchors.iter().map(|anchor| gram(&anchor.bytes, anchor.offset)).collect();
        let shortest = known.iter().map(|(_, value)| value.len()).chain(patterns.then_some(SHORTEST_TOKEN)).min();
        let formats = if patterns { FORMATS } else { &[] };
        Rules {
            filter: Filter::new(&grams, true),
            anchors,
            formats: formats.iter().map(compiled).collect(),
            wanted: Wanted::new(known.iter().map(|(_, value)| value.as_slice())),
            min_base64: (shortest.unwrap_or(SHORTEST_TOKEN).min(SHORTEST_TOKEN) * 4).div_ceil(3),
            known,
        }
    }

    /// The id of what was found, and which detector it belongs to.
    pub(crate) fn name(&self, target: Target) -> (&str, Kind) {
        match target {
            Target::Format(index) => (FORMATS[index].id, Kind::TokenPattern),
            Target::PrivateKey => (PRIVATE_KEY, Kind::TokenPattern),
            Target::Known(index) => (&self.known[index].0, Kind::KnownSecret),
        }
    }
}

/// Every id of `token_patterns`.
pub(crate) fn ids() -> impl Iterator<Item = &'static str> {
    [PRIVATE_KEY, PGP_PRIVATE_KEY].into_iter().chain(FORMATS.iter().map(|format| format.id))
}

fn compiled(format: &Format) -> (Vec<Shape>, [bool; 256], [bool; 256]) {
    let shapes = format.shapes.iter().map(|shape| Shape::parse(shape)).collect();
    (shapes, Shape::members(format.not_after), Shape::members(format.not_before))
}

fn gram(bytes: &[u8], offset: usize) -> [u8; 3] {
    [bytes[offset], bytes[offset + 1], bytes[offset + 2]]
}

fn anchor(bytes: &[u8], target: Target) -> Anchor {
    // A known secret should show before much of it has passed.
    let most = if matches!(target, Target::Known(_)) { MAX_KNOWN_OFFSET } else { MAX_OFFSET };
    let offsets = 0..=(bytes.len() - 3).min(most);
    let offset = offsets.min_by_key(|&offset| gram(bytes, offset).into_iter().map(commonness).product::<u32>());
    Anchor { bytes: bytes.to_vec(), offset: offset.unwrap_or(0), target }
}

/// About how common a byte is in text.
fn commonness(byte: u8) -> u32 {
    match byte {
        b' ' => 16,
        b'a' | b'e' | b'i' | b'n' | b'o' | b'r' | b's' | b't' => 9,
        b'a'..=b'z' => 5,
        b'-' | b'0'..=b'9' => 4,
        b'A'..=b'Z' | b'.' | b'/' | b'_' => 3,
        _ => 2,
    }
}
