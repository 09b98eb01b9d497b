//! When are two host names the same?

use std::net::{Ipv4Addr, Ipv6Addr};

/// `host` as names are compared: lower case, no final dot, IPv6 without brackets and shortened.
///
/// The error is why it is neither an ASCII host name nor an IP address; it ends a sentence `host "…" …`.
pub fn canonical_host(host: &str) -> Result<String, &'static str> {
    if !host.is_ascii() {
        return Err("is not ASCII; write the xn-- form of an international name");
    }
    let lower = host.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name.contains('/') {
        return Err("is a URL; write the host name alone and put paths under matches");
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if bare.contains(':') {
        return match bare.parse::<Ipv6Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err("has a port; write the host name alone"),
        };
    }
    if bare != name || name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is not a host name");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        // Resolvers read 127.1 and 0x7f.1 as addresses, each in its own way; only the dotted form is unmistakable.
        return match name.parse::<Ipv4Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err("looks like an IP address but is not written as four decimal numbers"),
        };
    }
    Ok(name.to_owned())
}

pub(crate) fn is_address(host: &str) -> bool {
    host.parse::<Ipv4Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok()
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let bytes = label.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}
