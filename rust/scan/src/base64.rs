//! Where are runs of base64 in a text, and what do they say at each of the four places a group can begin at?
//!
//! Encoded text may stand after other letters (`/upload/TWFu…`), so where its groups begin is not known: all four ways
//! are decoded. A run goes on over line breaks, also as strings in a program spell them.

use crate::layer::Layer;

const MIN_LINE: usize = 4; // characters before a line break
const MAX_GAP: usize = 48;
const LOOK_BACK: usize = 128;
/// Characters at the beginning of a run among which something may begin that has no mark of its own: after a slash.
const MARKS: usize = 256;

/// The value of each character in either alphabet; 64: in none.
const VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < 64 {
        values[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
};

pub(crate) fn is_base64(byte: u8) -> bool {
    VALUES[usize::from(byte)] < 64
}

/// What may stand between two lines of one run.
enum Between {
    /// So many bytes.
    Gap(usize),
    /// The run is over.
    End,
    /// More bytes decide.
    Unknown,
}

/// `line`: characters of the run before the gap.
fn between(rest: &[u8], line: usize, last: bool) -> Between {
    if rest.is_empty() {
        return if last { Between::End } else { Between::Unknown };
    }
    if rest.starts_with(b"\\/") {
        return Between::Gap(1); // JSON may spell a slash so
    }
    let (mut at, mut breaks) = (0, false);
    while at < rest.len().min(MAX_GAP) {
        match (rest[at], rest.get(at + 1)) {
            (b'\r' | b'\n', _) => breaks = true,
            (b' ' | b'\t' | b'"' | b'\'' | b',' | b'`', _) => {}
            (b'\\', None) if !last => return Between::Unknown,
            (b'\\', Some(b'n' | b'r' | b't' | b'\\' | b'\r' | b'\n' | b'"')) => {
                breaks |= !matches!(rest[at + 1], b't' | b'"');
                at += usize::from(rest[at + 1] != b'\\');
            }
            (byte, _) if is_base64(byte) && at > 0 => {
                return if breaks && line >= MIN_LINE { Between::Gap(at) } else { Between::End };
            }
            _ => return Between::End,
        }
        at += 1;
    }
    if at >= MAX_GAP || last { Between::End } else { Between::Unknown }
}

/// The run under way and how far the text has been looked at; positions count from the stream's beginning.
#[derive(Debug, Default)]
pub(crate) struct Base64 {
    /// What lies before has been decided on.
    pub at: u64,
    /// Whether a run is under way.
    pub active: bool,
    line: usize,
    /// Characters of the line before this one, if that was not the first.
    width: Option<usize>,
    lines: usize,
    count: u64,
    tail: [(u8, u64); 3],
    scratch: Vec<u8>,
}

/// What is known of a run around some place.
pub(crate) enum Run {
    /// There is none that is long enough.
    None,
    /// It begins there and may become long enough with more text.
    Unknown(usize),
    /// It is long enough; decode it.
    Begun,
}

impl Base64 {
    /// Looks for a run of at least `min` characters around `hit` in `text`, whose first byte is at `base`.
    pub(crate) fn find(&mut self, text: &[u8], base: u64, hit: usize, min: usize, last: bool) -> Run {
        let done = (self.at.saturating_sub(base)) as usize;
        let floor = done.max(hit.saturating_sub(LOOK_BACK));
        let mut start = hit;
        while start > floor && (is_base64(text[start - 1]) || matches!(text[start - 1], b'\r' | b'\n' | b'\\')) {
            start -= 1;
        }
        while start < text.len() && start <= hit + 8 {
            if start < done || !is_base64(text[start]) {
                start += 1;
                continue;
            }
            let (mut at, mut line, mut count) = (start, 0, 0);
            while count < min {
                let taken = text[at..].iter().take(min - count).take_while(|&&byte| is_base64(byte)).count();
                (at, line, count) = (at + taken, line + taken, count + taken);
                if count >= min {
                    break;
                }
                match between(&text[at..], line, last) {
                    Between::Gap(gap) => {
                        line = if gap == 1 && text[at] == b'\\' { line } else { 0 };
                        at += gap;
                    }
                    Between::Unknown => return Run::Unknown(start),
                    Between::End => break,
                }
            }
            if count >= min {
                (self.active, self.line, self.count, self.at) = (true, 0, 0, base + start as u64);
                (self.width, self.lines) = (None, 0);
                return Run::Begun;
            }
            self.at = base + at as u64;
            start = at + 1;
        }
        Run::None
    }

    /// Decodes what `text` has of the run under way.
    pub(crate) fn go_on(&mut self, text: &[u8], base: u64, last: bool, into: &mut [Layer; 4]) {
        let mut at = (self.at - base) as usize;
        loop {
            let taken = text[at..].iter().take_while(|&&byte| is_base64(byte)).count();
            if taken > 0 {
                self.take(&text[at..at + taken], base + at as u64, into);
                self.line += taken;
                at += taken;
            }
            match between(&text[at..], self.line, last) {
                Between::Gap(1) if text[at] == b'\\' => at += 1,
                // A line shorter than the one before is the last; the first may have had something before it.
                Between::Gap(gap) if self.width.is_none_or(|width| self.line >= width) => {
                    self.width = (self.lines > 0).then_some(self.line);
                    (self.line, self.lines) = (0, self.lines + 1);
                    at += gap;
                }
                Between::Unknown => break,
                Between::Gap(_) | Between::End => {
                    self.end(into);
                    break;
                }
            }
        }
        self.at = base + at as u64;
    }

    /// Takes characters that follow each other without a gap.
    fn take(&mut self, chars: &[u8], position: u64, into: &mut [Layer; 4]) {
        let kept = self.count.min(3) as usize;
        let first = self.count - kept as u64;
        let tail = self.tail;
        let place = |index: usize| match index.checked_sub(kept) {
            Some(index) => position + index as u64,
            None => tail[3 - kept + index].1,
        };
        let values = &mut self.scratch;
        values.clear();
        values.extend(tail[3 - kept..].iter().map(|&(value, _)| value));
        values.extend(chars.iter().map(|&byte| VALUES[usize::from(byte)]));
        let marks = chars.iter().take(MARKS).enumerate().filter(|(_, byte)| b"/-_+".contains(byte));
        let marks = marks.map(|(index, _)| self.count + index as u64 + 1);
        for at in marks.chain([self.count]).filter(|&at| at <= MARKS as u64) {
            // A group of four characters is three bytes further on.
            let alignment = at % 4;
            let groups = (at - alignment) / 4 - self.count.saturating_sub(alignment) / 4;
            into[alignment as usize].begins_ahead(groups * 3);
        }
        for (alignment, layer) in (0u64..).zip(into.iter_mut()) {
            let mut from = ((alignment + 4 - first % 4) % 4) as usize;
            if from < kept && from + 4 <= values.len() {
                // This group began before the gap.
                for (index, byte) in (from..).zip(group(&values[from..from + 4])) {
                    layer.unit(byte, place(index), place(index + 1) + 1 - place(index));
                }
                from += 4;
            }
            if from < kept || from + 4 > values.len() {
                continue;
            }
            let groups = values[from..].chunks_exact(4);
            let buffer = layer.run(place(from), (4, 3, 2), groups.len() * 3);
            for (out, four) in buffer.chunks_exact_mut(3).zip(groups) {
                out.copy_from_slice(&group(four));
            }
        }
        self.count += chars.len() as u64;
        let new: [(u8, u64); 3] = [3, 2, 1].map(|back| match values.len().checked_sub(back) {
            Some(index) => (values[index], place(index)),
            None => (0, 0),
        });
        self.tail = new;
    }

    /// The last characters of a run may be less than a group of four.
    fn end(&mut self, into: &mut [Layer; 4]) {
        for (alignment, layer) in (0u64..).zip(into.iter_mut()) {
            let left = (self.count.saturating_sub(alignment) % 4) as usize;
            if left >= 2 {
                let rest = &self.tail[3 - left..];
                let mut four = [0; 4];
                rest.iter().zip(&mut four).for_each(|(&(value, _), slot)| *slot = value);
                for (pair, byte) in rest.windows(2).zip(group(&four)) {
                    layer.unit(byte, pair[0].1, pair[1].1 + 1 - pair[0].1);
                }
            }
            layer.gap();
        }
        self.active = false;
    }
}

/// What `text` says up to its first character that is not base64.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let values: Vec<u8> = text.iter().map(|&byte| VALUES[usize::from(byte)]).take_while(|&value| value < 64).collect();
    let rest = values.chunks_exact(4).remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let whole = values.chunks_exact(4).flat_map(group);
    whole.chain(group(&last).into_iter().take(rest.len().saturating_sub(1))).collect()
}

fn group(four: &[u8]) -> [u8; 3] {
    let bits = u32::from(four[0]) << 18 | u32::from(four[1]) << 12 | u32::from(four[2]) << 6 | u32::from(four[3]);
    let [_, a, b, c] = bits.to_be_bytes();
    [a, b, c]
}
