//! Is this a private key in PEM (RFC 7468) or OpenPGP armor (RFC 9580), and where does its material end?
//!
//! A label alone is prose; what counts is the label with key material after it. Line breaks may be escaped, as in JSON,
//! and spaces may be `+`, as in a form.

use crate::formats::{PGP_PRIVATE_KEY, PRIVATE_KEY};
use crate::shape::Outcome;

pub(crate) const BEGIN: &[u8] = b"-----BEGIN";
const MAX_LABEL: usize = 64;
const MIN_MATERIAL: usize = 40; // unbroken characters of base64
const MAX_GAP: usize = 48;
const MAX_HEADERS: usize = 600;
const MAX_KEY: usize = 4000;

/// What `text`, which begins with [`BEGIN`], is, and how long.
pub(crate) fn key(text: &[u8], last: bool) -> (Outcome, usize, &'static str) {
    let dead = (Outcome::Dead, 0, PRIVATE_KEY);
    let open = (if last { Outcome::Dead } else { Outcome::Open }, 0, PRIVATE_KEY);
    let label = &text[BEGIN.len().min(text.len())..];
    let len = label
        .iter()
        .take_while(|&&byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" +".contains(&byte))
        .count();
    if len > MAX_LABEL {
        return dead;
    }
    if label.len() < len + 5 {
        return if label[len..].iter().all(|&byte| byte == b'-') { open } else { dead };
    }
    if &label[len..len + 5] != b"-----" {
        return dead;
    }
    let name = String::from_utf8_lossy(&label[..len]).replace('+', " ");
    let kind = match name.trim_start() {
        "PGP PRIVATE KEY BLOCK" => PGP_PRIVATE_KEY,
        name if name.ends_with("PRIVATE KEY") => PRIVATE_KEY,
        _ => return dead,
    };
    let mut at = BEGIN.len() + len + 5;
    // Headers such as `Proc-Type: 4,ENCRYPTED` may come before the material.
    let headers_end = at + MAX_HEADERS;
    let material = loop {
        at += gap(&text[at..]);
        let run = text[at..].iter().take(MIN_MATERIAL).take_while(|&&byte| is_material(byte)).count();
        if run == MIN_MATERIAL {
            break at;
        }
        if at + run >= text.len() {
            return open;
        }
        let name = text[at..].iter().take(24).take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
        if at + name + 1 >= text.len() {
            return open;
        }
        if name < 2 || !text[at + name..].starts_with(b": ") || at > headers_end {
            return dead;
        }
        let line = text[at..].iter().take(160).take_while(|&&byte| byte != b'\n' && byte != b'\\').count();
        if at + line >= text.len() {
            return open;
        }
        if line >= 160 {
            return dead;
        }
        at += line;
    };
    at = material;
    let mut width = 0;
    loop {
        let line = text[at..].iter().take_while(|&&byte| is_material(byte)).count();
        at += line;
        let ends = text.get(at) == Some(&b'=');
        let escaped_slash = text[at..].starts_with(b"\\/");
        width = width.max(line);
        if at - material > MAX_KEY {
            return (Outcome::Match, at, kind);
        }
        if ends {
            at += text[at..].iter().take(2).take_while(|&&byte| byte == b'=').count();
        }
        if at == text.len() {
            return if last { (Outcome::Match, at, kind) } else { (Outcome::Open, at, kind) };
        }
        if ends || line < width && !escaped_slash && width - line > 2 && line > 0 {
            return (Outcome::Match, at, kind);
        }
        let skipped = if escaped_slash { 1 } else { gap(&text[at..]) };
        if skipped == 0 || !text.get(at + skipped).is_some_and(|&byte| is_material(byte)) {
            let cut = at + skipped == text.len() && !last;
            return (if cut { Outcome::Open } else { Outcome::Match }, at, kind);
        }
        at += skipped;
    }
}

fn is_material(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Line breaks and indentation, also as strings in a program spell them.
fn gap(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len().min(MAX_GAP) {
        match (text[at], text.get(at + 1)) {
            (b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b',', _) => at += 1,
            (b'\\', Some(b'n' | b'r' | b't' | b'\n')) => at += 2,
            (b'\\', Some(b'\\')) => at += 1,
            _ => break,
        }
    }
    at
}
