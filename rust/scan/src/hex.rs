//! Where are hexadecimal digits in a text, in a row or as a list, and what do they say?
//!
//! `67:68:70`, `0x67, 0x68` and digits folded into lines are one run. A run may begin with a digit that is not part of
//! what was encoded, so both ways of pairing its digits are decoded.

use crate::base64::Run;
use crate::layer::Layer;

/// Digits of the shortest secret that is looked for.
pub(crate) const MIN_DIGITS: usize = 16;
const MAX_GAP: usize = 24;
const LOOK_BACK: usize = 128;

/// The run under way; positions count from the stream's beginning.
#[derive(Debug, Default)]
pub(crate) struct Hex {
    /// What lies before has been decided on.
    pub at: u64,
    /// Whether a run is under way.
    pub active: bool,
    count: u64,
    /// Digits since the last gap.
    digits: u64,
    before: (u8, u64),
}

fn is_gap(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'-')
}

/// How many bytes stand between two digits of one run; `Err`: the run is over, or more bytes decide.
fn between(rest: &[u8], digits: u64, last: bool) -> Result<usize, Run> {
    let over = |at: usize| if at < rest.len() || last { Run::None } else { Run::Unknown(0) };
    if digits % 2 == 1 {
        return Err(over(0));
    }
    let mut at = 0;
    while rest.get(at).is_some_and(|&byte| is_gap(byte)) && at < MAX_GAP {
        at += 1;
    }
    if rest.get(at..at + 2) == Some(b"\\n") {
        at += 2;
    }
    if at > 0 && rest.get(at) == Some(&b'0') && matches!(rest.get(at + 1), Some(b'x' | b'X')) {
        at += 2;
    }
    let may_be_prefix = at > 0 && at + 1 == rest.len() && !last && matches!(rest[at], b'0' | b'\\');
    match rest.get(at) {
        _ if may_be_prefix => Err(Run::Unknown(0)),
        Some(byte) if byte.is_ascii_hexdigit() && at > 0 => Ok(at),
        _ => Err(over(at)),
    }
}

impl Hex {
    /// Looks for a run of enough digits around `hit` in `text`, whose first byte is at `base`.
    pub(crate) fn find(&mut self, text: &[u8], base: u64, hit: usize, last: bool) -> Run {
        let done = self.at.saturating_sub(base) as usize;
        let floor = done.max(hit.saturating_sub(LOOK_BACK));
        let mut start = hit;
        while start > floor
            && (text[start - 1].is_ascii_hexdigit() || is_gap(text[start - 1]) || (text[start - 1] | 32) == b'x')
        {
            start -= 1;
        }
        while start < text.len() && start <= hit + 8 {
            let is_prefix = text[start] == b'0' && matches!(text.get(start + 1), Some(b'x' | b'X'));
            if start < done || !text[start].is_ascii_hexdigit() || is_prefix {
                start += 1 + usize::from(is_prefix);
                continue;
            }
            let (mut at, mut digits, mut count) = (start, 0, 0);
            loop {
                let taken = text[at..].iter().take(MIN_DIGITS).take_while(|byte| byte.is_ascii_hexdigit()).count();
                (at, digits, count) = (at + taken, digits + taken as u64, count + taken);
                if count >= MIN_DIGITS {
                    (self.active, self.digits, self.count, self.at) = (true, 0, 0, base + start as u64);
                    return Run::Begun;
                }
                match between(&text[at..], digits, last) {
                    Ok(gap) => (at, digits) = (at + gap, 0),
                    Err(Run::Unknown(_)) => return Run::Unknown(start),
                    Err(_) => break,
                }
            }
            self.at = base + at as u64;
            start = at.max(start + 1);
        }
        Run::None
    }

    /// Decodes what `text` has of the run under way.
    pub(crate) fn go_on(&mut self, text: &[u8], base: u64, last: bool, into: &mut [Layer; 2]) {
        let mut at = (self.at - base) as usize;
        loop {
            let taken = text[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            if taken > 0 {
                self.take(&text[at..at + taken], base + at as u64, into);
                self.digits += taken as u64;
                at += taken;
            }
            match between(&text[at..], self.digits, last) {
                Ok(gap) => (at, self.digits) = (at + gap, 0),
                Err(Run::Unknown(_)) => break,
                Err(_) => {
                    into.iter_mut().for_each(Layer::gap);
                    self.active = false;
                    break;
                }
            }
        }
        self.at = base + at as u64;
    }

    /// Takes digits that follow each other without a gap.
    fn take(&mut self, digits: &[u8], position: u64, into: &mut [Layer; 2]) {
        if self.count == 0 {
            into[0].begins_ahead(0);
        }
        for (parity, layer) in (0u64..).zip(into.iter_mut()) {
            let mut from = 0;
            if self.count > parity && self.count % 2 != parity {
                // Its first digit came before the gap.
                layer.unit(value(self.before.0) << 4 | value(digits[0]), self.before.1, position + 1 - self.before.1);
                from = 1;
            } else if self.count < parity {
                from = 1;
            }
            let pairs = digits.get(from..).unwrap_or_default().chunks_exact(2);
            if pairs.len() > 0 {
                let buffer = layer.run(position + from as u64, (2, 1, 2), pairs.len());
                for (out, pair) in buffer.iter_mut().zip(pairs) {
                    *out = value(pair[0]) << 4 | value(pair[1]);
                }
            }
        }
        self.count += digits.len() as u64;
        self.before = (digits[digits.len() - 1], position + digits.len() as u64 - 1);
    }
}

fn value(digit: u8) -> u8 {
    if digit <= b'9' { digit & 15 } else { (digit & 15) + 9 }
}
