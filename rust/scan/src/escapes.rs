//! How are characters spelled as percent, JSON, C and HTML escapes, in every legal way, and what do they say?
//!
//! Text around an escape is decoded too, so that a secret of which one letter is escaped comes out whole. Text without
//! escapes that could matter is not decoded again: `\n` and `\"` are in every JSON document and in no token.

use crate::layer::Layer;

/// How far around an escape text is decoded.
const REACH: usize = 2048;
/// The longest spelling of one character; longer ones are not escapes.
const MAX_SPELLING: usize = 24;

/// An escape at the beginning of some text.
#[derive(Debug, PartialEq, Eq)]
enum Escape {
    /// There is none.
    None,
    /// More bytes decide.
    Unknown,
    /// It spells this in so many bytes.
    Is(Spelled, usize),
}

/// What an escape spells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelled {
    /// A byte: percent, hex and octal escapes are about bytes.
    Byte(u8),
    /// A character, which is written in UTF-8.
    Char(char),
    /// Nothing: a line is continued.
    Nothing,
}

impl Spelled {
    /// Its bytes.
    fn bytes(self, room: &mut [u8; 4]) -> &[u8] {
        match self {
            Spelled::Byte(byte) => {
                room[0] = byte;
                &room[..1]
            }
            Spelled::Char(char) => char.encode_utf8(room).as_bytes(),
            Spelled::Nothing => &[],
        }
    }
}

/// HTML's names for ASCII characters (html.spec.whatwg.org, named character references).
#[rustfmt::skip]
const NAMES: &[(&str, char)] = &[
    ("Tab", '\t'), ("NewLine", '\n'), ("excl", '!'), ("quot", '"'), ("QUOT", '"'), ("num", '#'), ("dollar", '$'),
    ("percnt", '%'), ("amp", '&'), ("AMP", '&'), ("apos", '\''), ("lpar", '('), ("rpar", ')'), ("ast", '*'),
    ("midast", '*'), ("plus", '+'), ("comma", ','), ("period", '.'), ("sol", '/'), ("colon", ':'), ("semi", ';'),
    ("lt", '<'), ("LT", '<'), ("equals", '='), ("gt", '>'), ("GT", '>'), ("quest", '?'), ("commat", '@'),
    ("lsqb", '['), ("lbrack", '['), ("bsol", '\\'), ("rsqb", ']'), ("rbrack", ']'), ("Hat", '^'), ("lowbar", '_'),
    ("UnderBar", '_'), ("grave", '`'), ("DiacriticalGrave", '`'), ("lcub", '{'), ("lbrace", '{'), ("verbar", '|'),
    ("vert", '|'), ("VerticalLine", '|'), ("rcub", '}'), ("rbrace", '}'),
];

/// The number at the beginning of `text` and how many digits it has, `most` at most.
fn number(text: &[u8], radix: u32, most: usize) -> (u32, usize) {
    let len = text.iter().take(most).take_while(|&&byte| char::from(byte).is_digit(radix)).count();
    let add = |value: u32, &byte: &u8| {
        value.saturating_mul(radix).saturating_add(char::from(byte).to_digit(radix).unwrap_or_default())
    };
    (text[..len].iter().fold(0, add), len)
}

fn char_of(value: u32, len: usize) -> Escape {
    Escape::Is(Spelled::Char(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)), len)
}

fn byte_of(value: u32, len: usize) -> Escape {
    match u8::try_from(value) {
        Ok(byte) => Escape::Is(Spelled::Byte(byte), len),
        Err(_) => char_of(value, len),
    }
}

fn escape(text: &[u8], last: bool) -> Escape {
    let found = match text[0] {
        b'%' => percent(text),
        b'&' => entity(text),
        _ => backslash(text),
    };
    match found {
        // What reaches the end of the text may go on.
        Escape::Is(_, len) if len == text.len() && !last && is_open_ended(text) => Escape::Unknown,
        Escape::None if !last && text.len() < MAX_SPELLING && may_go_on(text) => Escape::Unknown,
        found => found,
    }
}

/// Whether a spelling that ends with the text could take further characters.
fn is_open_ended(text: &[u8]) -> bool {
    text[0] == b'&' && text[text.len() - 1] != b';' || text[0] == b'\\' && matches!(text[1], b'x' | b'0'..=b'7' | b'\r')
}

/// Whether text that is no escape yet could become one.
fn may_go_on(text: &[u8]) -> bool {
    let rest = &text[1..];
    match text[0] {
        b'%' => {
            rest.len() < 2 && rest.iter().all(u8::is_ascii_hexdigit) || rest.first() == Some(&b'u') && rest.len() < 5
        }
        b'&' => rest.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#'),
        _ => {
            rest.is_empty()
                || matches!(rest[0], b'u' | b'U' | b'x')
                    && rest[1..].iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'{' | b'u'))
        }
    }
}

fn percent(text: &[u8]) -> Escape {
    if text.get(1) == Some(&b'u') {
        return match number(&text[2..], 16, 4) {
            (value, 4) => char_of(value, 6),
            _ => Escape::None,
        };
    }
    match number(&text[1..], 16, 2) {
        (value, 2) => byte_of(value, 3),
        _ => Escape::None,
    }
}

fn entity(text: &[u8]) -> Escape {
    let rest = &text[1..];
    let (value, len) = match (rest.first(), rest.get(1)) {
        (Some(b'#'), Some(b'x' | b'X')) => match number(&rest[2..], 16, MAX_SPELLING - 4) {
            (_, 0) => return Escape::None,
            (value, len) => (value, len + 3),
        },
        (Some(b'#'), _) => match number(&rest[1..], 10, MAX_SPELLING - 3) {
            (_, 0) => return Escape::None,
            (value, len) => (value, len + 2),
        },
        _ => {
            let len = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
            let named = NAMES.iter().find(|(name, _)| name.as_bytes() == &rest[..len]);
            return match named {
                Some(&(_, char)) if rest.get(len) == Some(&b';') => char_of(char.into(), len + 2),
                _ => Escape::None,
            };
        }
    };
    char_of(value, len + usize::from(text.get(len) == Some(&b';')))
}

fn backslash(text: &[u8]) -> Escape {
    let Some(&second) = text.get(1) else { return Escape::None };
    let braced = |from: usize| match number(&text[from + 1..], 16, 8) {
        (value, len) if len > 0 && text.get(from + 1 + len) == Some(&b'}') => char_of(value, from + len + 2),
        _ => Escape::None,
    };
    let fixed = |from: usize, count: usize| match number(&text[from..], 16, count) {
        (value, len) if len == count => char_of(value, from + len),
        _ => Escape::None,
    };
    let is = |byte: u8| Escape::Is(Spelled::Byte(byte), 2);
    match second {
        b'u' => {
            // Java lets the u be repeated (JLS 3.3).
            let from = 1 + text[1..].iter().take(8).take_while(|&&byte| byte == b'u').count();
            if text.get(from) == Some(&b'{') { braced(from) } else { fixed(from, 4) }
        }
        b'U' => fixed(2, 8),
        b'x' if text.get(2) == Some(&b'{') => braced(2),
        b'x' => {
            // C takes all the digits there are, everybody else two; they differ in what leading zeros mean.
            let zeros = text[2..].iter().take(12).take_while(|&&byte| byte == b'0').count();
            let from = if zeros >= 2 { 2 + zeros } else { 2 };
            match number(&text[from..], 16, 2) {
                (value, len) if len > 0 => byte_of(value, from + len),
                _ if zeros > 0 => byte_of(0, 2 + zeros.min(2)),
                _ => Escape::None,
            }
        }
        b'0'..=b'7' => {
            let (three, len) = number(&text[1..], 8, 3);
            match number(&text[1..], 8, 4) {
                // printf and echo -e: a zero and three digits
                (value @ 32..=126, 4) if second == b'0' && three < 32 => byte_of(value, 5),
                _ => byte_of(three, 1 + len),
            }
        }
        b'\n' => Escape::Is(Spelled::Nothing, 2),
        b'\r' => Escape::Is(Spelled::Nothing, 2 + usize::from(text.get(2) == Some(&b'\n'))),
        b'n' => is(b'\n'),
        b't' => is(b'\t'),
        b'r' => is(b'\r'),
        b'a' | b'b' | b'e' | b'f' | b'v' => is(7),
        _ if second.is_ascii_punctuation() => is(second),
        _ => Escape::None,
    }
}

/// What an escape that ends with `text` spells: `\n` before a token is a line break and no letter before it.
pub(crate) fn spelled_last(text: &[u8]) -> Option<u8> {
    (2..=text.len().min(MAX_SPELLING / 2)).find_map(|len| match text[text.len() - len] {
        b'%' | b'&' | b'\\' => match escape(&text[text.len() - len..], true) {
            Escape::Is(spelled, whole) if whole == len => spelled.bytes(&mut [0; 4]).last().copied(),
            _ => None,
        },
        _ => None,
    })
}

/// `text` with its escapes undone.
pub(crate) fn read(text: &[u8]) -> Vec<u8> {
    let mut found = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let escape = if matches!(byte, b'%' | b'&' | b'\\') { escape(&text[at..], true) } else { Escape::None };
        match escape {
            Escape::Is(spelled, len) => {
                found.extend_from_slice(spelled.bytes(&mut [0; 4]));
                at += len;
            }
            _ => {
                found.push(byte);
                at += 1;
            }
        }
    }
    found
}

/// Which escapes matter: those that spell a byte some secret, or some further encoding of it, may have.
pub(crate) struct Wanted([bool; 256]);

impl Wanted {
    /// The characters of tokens and encodings, and those of `known` secrets.
    pub(crate) fn new<'a>(known: impl Iterator<Item = &'a [u8]>) -> Wanted {
        let mut wanted = [false; 256];
        (0..=255u8).filter(u8::is_ascii_alphanumeric).for_each(|byte| wanted[usize::from(byte)] = true);
        b"+/=_-.:~%\\&#".iter().chain(known.flatten()).for_each(|&byte| wanted[usize::from(byte)] = true);
        Wanted(wanted)
    }

    fn has(&self, spelled: Spelled) -> bool {
        spelled == Spelled::Nothing || spelled.bytes(&mut [0; 4]).iter().any(|&byte| self.0[usize::from(byte)])
    }
}

/// What a byte is to this file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Escape,
    Binary,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 32 {
        if byte != 9 && byte != 10 && byte != 13 {
            classes[byte] = Class::Binary;
        }
        byte += 1;
    }
    classes[127] = Class::Binary;
    classes[b'%' as usize] = Class::Escape;
    classes[b'&' as usize] = Class::Escape;
    classes[b'\\' as usize] = Class::Escape;
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// The text that is being decoded; positions count from the stream's beginning.
#[derive(Debug, Default)]
pub(crate) struct Escapes {
    /// What lies before has been decided on.
    pub at: u64,
    /// Whether text is being decoded.
    pub active: bool,
    /// Where the last escape that mattered is.
    mattered: u64,
}

impl Escapes {
    /// Whether an escape that matters stands between `from` and `to` in `text`; decoding begins before it.
    pub(crate) fn find(&mut self, text: &[u8], base: u64, from: usize, to: usize, last: bool, wanted: &Wanted) -> bool {
        let done = self.at.saturating_sub(base) as usize;
        let mut at = from.max(done);
        while at < to.min(text.len()) {
            let Some(next) = memchr::memchr3(b'%', b'&', b'\\', &text[at..to.min(text.len())]) else { break };
            at += next;
            match escape(&text[at..], last) {
                Escape::Is(spelled, _) if wanted.has(spelled) => {
                    let floor = done.max(at.saturating_sub(REACH));
                    let before = text[floor..at].iter().rev().take_while(|&&byte| class(byte) != Class::Binary).count();
                    (self.active, self.at, self.mattered) = (true, base + (at - before) as u64, base + at as u64);
                    return true;
                }
                Escape::Is(_, len) => at += len,
                Escape::None => at += 1,
                Escape::Unknown => return false,
            }
        }
        false
    }

    /// Decodes what `text` has of the text under way.
    pub(crate) fn go_on(&mut self, text: &[u8], base: u64, last: bool, wanted: &Wanted, into: &mut Layer) {
        let mut at = (self.at - base) as usize;
        while at < text.len() {
            let quiet = ((self.mattered - base.min(self.mattered)) as usize + REACH).min(text.len());
            let plain = text[at..quiet.max(at)].iter().take_while(|&&byte| class(byte) == Class::Plain).count();
            if plain > 0 {
                into.run(base + at as u64, (1, 1, 1), plain).copy_from_slice(&text[at..at + plain]);
                at += plain;
            }
            if at >= text.len() {
                break;
            }
            if at >= quiet || class(text[at]) == Class::Binary {
                into.gap();
                self.active = false;
                break;
            }
            match escape(&text[at..], last) {
                Escape::Unknown => break,
                Escape::None => {
                    into.unit(text[at], base + at as u64, 1);
                    at += 1;
                }
                Escape::Is(spelled, len) => {
                    for &byte in spelled.bytes(&mut [0; 4]) {
                        into.unit(byte, base + at as u64, len as u64);
                    }
                    if wanted.has(spelled) {
                        self.mattered = base + at as u64;
                    }
                    at += len;
                }
            }
        }
        if last && self.active {
            into.gap();
            self.active = false;
        }
        self.at = base + at as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(text: &str) -> Option<char> {
        match escape(text.as_bytes(), true) {
            Escape::Is(Spelled::Byte(byte), len) if len == text.len() => Some(char::from(byte)),
            Escape::Is(Spelled::Char(char), len) if len == text.len() => Some(char),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_legal_spelling_of_a_character_is_read() {
        for text in [
            "%67",
            "%u0067",
            r"\u0067",
            r"\uu0067",
            r"\u{67}",
            r"\u{000067}",
            r"\U00000067",
            r"\x67",
            r"\x{67}",
            r"\x0067",
            r"\147",
            r"\0147",
            "&#103;",
            "&#103",
            "&#0000103;",
            "&#x67;",
            "&#X67;",
            "&#x00067;",
            "&#x67",
        ] {
            assert_eq!(spelled(text), Some('g'), "{text}");
        }
        for text in ["%5f", "%5F", r"\_", r"\u005F", "&lowbar;", "&UnderBar;", r"\137", r"\x5f"] {
            assert_eq!(spelled(text), Some('_'), "{text}");
        }
        assert_eq!((spelled(r"\/"), spelled(r"\n"), spelled("&sol;")), (Some('/'), Some('\n'), Some('/')));
    }

    #[test]
    fn what_is_no_escape_is_left_alone() {
        for text in ["%6", "%zz", "100% sure", r"\q", "&nothing;", "&", "a && b", r"\x", r"\u00", "&#;", "&#x;"] {
            let text = text.trim_start_matches(|char| !"%\\&".contains(char));
            assert_eq!(escape(text.as_bytes(), true), Escape::None, "{text}");
        }
    }

    #[test]
    fn an_escape_that_is_cut_is_waited_for() {
        for text in ["%6", "%", r"\", r"\u00", r"\x", r"\x6", r"\14", "&#10", "&#x", "&low", "&", r"\u{6"] {
            assert_eq!(escape(text.as_bytes(), false), Escape::Unknown, "{text}");
        }
    }
}
