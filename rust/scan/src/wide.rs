//! Where is text of wide characters, and what does it say?
//!
//! UTF-16 and UTF-32 of ASCII text, in either byte order, are that text with one to three NULs between.

use crate::base64::Run;
use crate::layer::Layer;

const MIN_CHARS: usize = 8;
const LOOK_BACK: usize = 32;

/// The run under way; positions count from the stream's beginning.
#[derive(Debug, Default)]
pub(crate) struct Wide {
    /// What lies before has been decided on.
    pub at: u64,
    /// Whether a run is under way.
    pub active: bool,
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// How many bytes the wide character at the beginning of `rest` takes; `None`: there is none.
fn character(rest: &[u8]) -> Option<usize> {
    let nuls = rest.get(1..)?.iter().take(3).take_while(|&&byte| byte == 0).count();
    (is_text(rest[0]) && nuls > 0).then_some(1 + nuls)
}

impl Wide {
    /// Looks for a run around the NUL at `hit` in `text`, whose first byte is at `base`.
    pub(crate) fn find(&mut self, text: &[u8], base: u64, hit: usize, last: bool) -> Run {
        let floor = (self.at.saturating_sub(base) as usize).max(hit.saturating_sub(LOOK_BACK));
        let mut start = hit;
        while start > floor && (text[start - 1] == 0 || is_text(text[start - 1])) {
            start -= 1;
        }
        while start < hit && character(&text[start..]).is_none() {
            start += 1;
        }
        let mut at = start;
        for _ in 0..MIN_CHARS {
            match character(&text[at..]) {
                Some(len) => at += len,
                None if text.len() - at < 2 && !last => return Run::Unknown(start),
                None => {
                    self.at = self.at.max(base + at as u64);
                    return Run::None;
                }
            }
        }
        (self.active, self.at) = (true, base + start as u64);
        Run::Begun
    }

    /// Decodes what `text` has of the run under way.
    pub(crate) fn go_on(&mut self, text: &[u8], base: u64, last: bool, into: &mut Layer) {
        let mut at = (self.at - base) as usize;
        while let Some(len) = character(&text[at..]) {
            if at + len == text.len() && len < 4 && !last {
                break; // there may be more NULs
            }
            into.unit(text[at], base + at as u64, len as u64);
            at += len;
        }
        let undecided = text.len() - at < 4 && !last && text[at..].iter().skip(1).all(|&byte| byte == 0);
        if !undecided {
            if let Some(&byte) = text.get(at).filter(|&&byte| is_text(byte)) {
                into.unit(byte, base + at as u64, 1); // in big-endian text no NUL follows the last one
                at += 1;
            }
            into.gap();
            self.active = false;
        }
        self.at = base + at as u64;
    }
}
