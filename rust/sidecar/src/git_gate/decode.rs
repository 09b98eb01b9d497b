//! As which texts may a file's bytes be read? As what they are, and as UTF-16 wherever they could be that.

use std::borrow::Cow;

/// What a file as a whole seems to be encoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, another superset of ASCII, or no text.
    Bytes,
    Utf16Le,
    Utf16Be,
}

/// A shorter run of UTF-16 within other bytes is chance rather than text.
const SHORTEST_RUN: usize = 8;
/// Shorter lines are no wrapped block; `xxd -p` prints 60 characters, `base64` 76, PEM 64.
const SHORTEST_WRAPPED: usize = 40;
/// Of a file in UTF-16 without a mark, so much of one half of its bytes is zero. Text of only a few ASCII characters is less,
/// but those are found as runs.
const ZERO_HALF: f64 = 0.3;

impl Encoding {
    /// By the mark at the start, or by where the zeros are.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0xff, 0xfe, ..] => return Encoding::Utf16Le,
            [0xfe, 0xff, ..] => return Encoding::Utf16Be,
            _ => {}
        }
        let pairs = start.len() / 2;
        let zeros = |offset: usize| start.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
        let (even, odd) = (zeros(0), zeros(1));
        let many = |count: usize| pairs > 0 && count as f64 / pairs as f64 > ZERO_HALF;
        match (many(even), many(odd)) {
            (false, true) => Encoding::Utf16Le,
            (true, false) => Encoding::Utf16Be,
            _ => Encoding::Bytes,
        }
    }
}

/// The texts that `bytes`, a window of a file, can be read as. The first has a line for each line of the bytes.
pub fn texts(bytes: &[u8], encoding: Encoding) -> Vec<String> {
    let mut texts = vec![without_controls(readable(bytes))];
    match encoding {
        Encoding::Bytes => {}
        Encoding::Utf16Le => texts.push(wide(bytes, u16::from_le_bytes)),
        Encoding::Utf16Be => texts.push(wide(bytes, u16::from_be_bytes)),
    }
    if bytes.contains(&0) {
        texts.push(runs(bytes));
    }
    let more = [without_colours(bytes), unescaped(&texts[0]), unwrapped(&texts[0])];
    texts.extend(more.into_iter().filter(|text| !text.is_empty()));
    texts
}

/// The lines with a terminal's control sequences (ECMA-48, "ESC [ … letter"), without them: what is coloured otherwise has
/// an "m" before it, and rules look for whole words.
fn without_colours(bytes: &[u8]) -> String {
    if !bytes.windows(2).any(|two| two == b"\x1b[") {
        return String::new();
    }
    let mut text = String::new();
    for line in readable(bytes).lines().filter(|line| line.contains("\x1b[")) {
        let mut parts = line.split("\x1b[");
        text += parts.next().unwrap_or_default();
        for part in parts {
            text +=
                part.trim_start_matches(|c: char| c.is_ascii_digit() || ";:?".contains(c)).get(1..).unwrap_or_default();
        }
        text.push('\n');
    }
    without_controls(text.into())
}

/// The lines with escapes of strings, as what they stand for: "\nAKIA…" is a word of its own.
fn unescaped(plain: &str) -> String {
    let mut text = String::new();
    for line in plain.lines().filter(|line| line.contains('\\')) {
        let start = text.len();
        let mut rest = line;
        let mut changed = false;
        while let Some(at) = rest.find('\\') {
            text += &rest[..at];
            let after = &rest[at + 1..];
            let hex = |digits: usize| after.get(1..=digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
            let (stands_for, used) = match after.as_bytes().first() {
                Some(b'n' | b'r' | b't' | b'0') => (Some(' '), 1),
                Some(b'"' | b'\'' | b'/') => (after.chars().next(), 1),
                Some(b'u') => (hex(4).and_then(char::from_u32), 5),
                Some(b'x') => (hex(2).and_then(char::from_u32), 3),
                Some(b'\\') => (Some('\\'), 1),
                _ => (None, 0),
            };
            match stands_for {
                Some(c) if !c.is_control() => text.push(c),
                Some(_) => text.push(' '),
                None => text.push('\\'),
            }
            changed |= stands_for.is_some();
            rest = &after[if stands_for.is_some() { used } else { 0 }..];
        }
        text += rest;
        text.push('\n');
        if !changed {
            text.truncate(start);
        }
    }
    text
}

/// Blocks of lines of one length that are base64 or hex throughout, as `base64` and `xxd -p` print them, each on one line:
/// the detector decodes by lines.
fn unwrapped(plain: &str) -> String {
    let encoded = |line: &str| {
        !line.is_empty()
            && line.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'='))
    };
    let mut text = String::new();
    let mut lines = plain.lines().map(str::trim).peekable();
    while let Some(first) = lines.next() {
        if first.len() < SHORTEST_WRAPPED || !encoded(first) {
            continue;
        }
        let start = text.len();
        text += first;
        while let Some(next) = lines.next_if(|next| next.len() == first.len() && encoded(next)) {
            text += next;
        }
        // The last one may be shorter.
        if let Some(end) = lines.next_if(|next| next.len() < first.len() && encoded(next)) {
            text += end;
        }
        match text.len() - start > first.len() {
            true => text.push('\n'),
            false => text.truncate(start),
        }
    }
    text
}

/// Characters that a detector could take for the end of a text, or for a binary file, become blanks.
fn without_controls(text: Cow<'_, str>) -> String {
    if text.bytes().all(|byte| !blanked(char::from(byte))) {
        return text.into_owned();
    }
    text.chars().map(|c| if blanked(c) { ' ' } else { c }).collect()
}

/// As UTF-8, with a character of one byte for what is none, so that no window grows.
fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.utf8_chunks().fold(String::with_capacity(bytes.len()), |mut text, chunk| {
            text.push_str(chunk.valid());
            text.extend(std::iter::repeat_n('?', usize::from(!chunk.invalid().is_empty())));
            text
        })),
    }
}

fn blanked(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t')
}

fn wide(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or('?'))
        .filter(|c| *c != '\u{feff}')
        .map(|c| if blanked(c) { ' ' } else { c })
        .collect()
}

/// All runs of ASCII characters with zeros between them, wherever they begin and in whichever order: UTF-16, UTF-32, or
/// what programs keep in their binaries.
fn runs(bytes: &[u8]) -> String {
    let shown = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let mut text = String::new();
    let (mut run, mut at) = (String::new(), 0);
    while at < bytes.len() {
        let byte = bytes[at];
        let beside_zero = bytes.get(at + 1).is_none_or(|next| *next == 0) || (at > 0 && bytes[at - 1] == 0);
        if shown(byte) && beside_zero {
            run.push(char::from(byte));
            at += 1;
            let zeros = bytes[at..].iter().take(3).take_while(|byte| **byte == 0).count();
            at += zeros;
            if zeros > 0 {
                continue;
            }
        } else {
            at += 1;
        }
        if run.len() >= SHORTEST_RUN {
            text.push_str(&run);
            text.push('\n');
        }
        run.clear();
    }
    if run.len() >= SHORTEST_RUN {
        text.push_str(&run);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "key = \"AKIAABCDEFGHIJKLMNOP\"\r\n";

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    fn reads(bytes: &[u8]) -> bool {
        texts(bytes, Encoding::of(bytes)).iter().any(|text| text.contains(SECRET.trim()))
    }

    #[test]
    fn utf16_is_read_in_either_order_with_and_without_a_mark() {
        for (mark, unit) in
            [(&b"\xff\xfe"[..], u16::to_le_bytes as fn(u16) -> [u8; 2]), (b"\xfe\xff", u16::to_be_bytes)]
        {
            let bytes = utf16(SECRET, unit);
            assert!(reads(&bytes));
            assert!(reads(&[mark, &bytes].concat()));
            assert!(reads(&[mark, &utf16("Ключ доступа: ", unit), &bytes].concat()));
        }
    }

    #[test]
    fn utf16_within_other_bytes_is_read_at_every_offset() {
        for before in 0..4 {
            for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                let mut bytes =
                    b"\x7fELF\x01\x02 plain text that goes on for longer".repeat(20)[..700 + before].to_vec();
                bytes.extend(utf16(SECRET, unit));
                bytes.extend(b"\x01\x02\x03 and more of it");
                assert!(reads(&bytes), "{before}");
            }
        }
    }

    #[test]
    fn utf16_of_other_scripts_does_not_hide_what_is_between() {
        for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            assert!(reads(&[utf16(&"中文說明".repeat(99), unit), utf16(SECRET, unit), utf16("中", unit)].concat()));
        }
    }

    #[test]
    fn a_mark_before_plain_text_does_not_hide_it() {
        assert!(reads(&[b"\xff\xfe", SECRET.as_bytes()].concat()));
    }

    #[test]
    fn utf32_is_read() {
        let bytes: Vec<u8> = SECRET.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert!(reads(&bytes));
    }

    #[test]
    fn what_is_coloured_escaped_or_wrapped_is_read_as_what_it_is() {
        let read = |text: &str| texts(text.as_bytes(), Encoding::Bytes)[1..].concat();
        assert_eq!(read("a\x1b[1;31mKEY\x1b[0m [x] b\nplain\n"), "aKEY [x] b\n");
        assert_eq!(read(r#"{"a": "1\nKEY\u0041 \q \x4B"}"#), "{\"a\": \"1 KEYA \\q K\"}\n");
        let line = "QUJD".repeat(19);
        assert_eq!(read(&format!("x\n{line}\r\n  {line}\nQUI=\n\n{line}\n")), format!("{line}{line}QUI=\n"));
        for text in ["", "\\", "a \\", "\\u12", "\\xé", "\x1b[", "\x1b[1m", "\x1b[é", "word\nword\n"] {
            assert_eq!(read(text).trim(), "", "{text:?}");
        }
    }

    #[test]
    fn no_text_is_longer_than_what_it_is_read_from() {
        for text in ["\\u00e9\\n\\x41".repeat(99), "\x1b[31m [".repeat(99), format!("{}\n", "A".repeat(60)).repeat(99)]
        {
            assert!(texts(text.as_bytes(), Encoding::Bytes).iter().all(|read| read.len() <= text.len() + 1));
        }
    }

    #[test]
    fn the_first_text_keeps_the_lines_and_loses_control_characters() {
        assert_eq!(texts(b"a\x00b\n\x1b[31mc\xff\n", Encoding::Bytes)[0], "a b\n [31mc?\n");
        assert_eq!(texts("ü\n".as_bytes(), Encoding::Bytes), ["ü\n"]);
    }
}
