//! Made-up secrets, noise and encodings for the tests; put together at run time, so that no scanner takes them for leaks.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bot_bottle_scan::{Budget, Detectors, FORMATS, Finding, Place, ScanError, Scanner};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

pub const KNOWN: &[u8] = b"correct-horse_battery+staple/7";

/// Numbers that look random and are the same every time (SplitMix64).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    pub fn of(&mut self, alphabet: &str, count: usize) -> String {
        (0..count).map(|_| char::from(alphabet.as_bytes()[self.below(alphabet.len())])).collect()
    }

    pub fn letters(&mut self, count: usize) -> String {
        self.of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", count)
    }

    pub fn hex(&mut self, count: usize) -> String {
        self.of("0123456789abcdef", count)
    }

    pub fn base64(&mut self, count: usize) -> String {
        b64(&self.bytes(count))
    }
}

pub fn b64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

pub fn b64url(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(data)
}

/// A private key as OpenSSL writes it.
pub fn private_key(label: &str) -> String {
    let lines: Vec<String> = (0..12).map(|line| Noise(line + 77).base64(48)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Each format by its id with a secret in it.
pub fn formats() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        FORMATS.iter().map(|each| (each.id.to_string(), each.example.concat())).collect();
    all.push(("private key".into(), private_key(&["RSA PRIVATE", "KEY"].join(" "))));
    all.push(("PGP private key".into(), private_key(&["PGP PRIVATE", "KEY BLOCK"].join(" "))));
    all
}

pub fn github_token() -> Vec<u8> {
    format!("ghp_{}", Noise(5).letters(36)).into_bytes()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// With the window's size, 8 to 15, in the header.
pub fn zlib(data: &[u8], window: u8) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    let mut whole = encoder.finish().unwrap();
    whole[0] = (window - 8) << 4 | 8;
    whole[1] =
        (0..=255u8).find(|flg| flg & 0x20 == 0 && (u32::from(whole[0]) << 8 | u32::from(*flg)) % 31 == 0).unwrap();
    whole
}

pub fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).unwrap()
}

pub fn brotli(data: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    brotli::CompressorWriter::new(&mut whole, 4096, 5, 18).write_all(data).unwrap();
    whole
}

/// A ZIP file of one member, as streaming writers make it.
pub fn zip(data: &[u8]) -> Vec<u8> {
    let body = deflate(data);
    let mut whole = b"PK\x03\x04\x14\0\x08\0\x08\0\0\0\0\0\0\0\0\0".to_vec();
    whole.extend((body.len() as u32).to_le_bytes());
    whole.extend((data.len() as u32).to_le_bytes());
    whole.extend(b"\x09\0\0\0notes.txt");
    whole.extend(&body);
    whole.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    whole
}

pub fn detectors() -> Detectors {
    Detectors::new(true, vec![("a password".to_string(), KNOWN.to_vec())])
}

/// What is found in `data` that comes in pieces cut there.
pub fn scan_cut(detectors: &Detectors, data: &[u8], cuts: &[usize], place: Place) -> Result<Vec<Finding>, ScanError> {
    let mut scanner = Scanner::new(detectors, &Budget::for_request()).at(place);
    let mut found = Vec::new();
    let mut from = 0;
    for &cut in cuts.iter().chain([&data.len()]) {
        found.extend(scanner.feed(&data[from..cut])?);
        from = cut;
    }
    found.extend(scanner.finish()?);
    Ok(found)
}

pub fn scan(data: &[u8]) -> Vec<Finding> {
    scan_cut(&detectors(), data, &[], Place::body("api.example.test")).unwrap()
}

pub fn secrets(found: &[Finding]) -> Vec<String> {
    found.iter().map(|each| String::from_utf8_lossy(&each.secret).into_owned()).collect()
}
