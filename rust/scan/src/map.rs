//! Which bytes of a stream did these decoded bytes come from?

use std::collections::VecDeque;
use std::ops::Range;

/// From offsets in a decoded stream to offsets in the stream it was decoded from.
///
/// Kept as runs in which each decoded byte is `num / den` bytes further on and spelled by `len` bytes: 1, 1, 1 for what
/// was copied, 4, 3, 2 for base64, 2, 1, 2 for hex, 3, 1, 3 for percent escapes in a row.
#[derive(Debug, Default)]
pub(crate) struct Map {
    runs: VecDeque<Run>,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    child: u64,
    parent: u64,
    num: u64,
    den: u64,
    /// 0: decompressed, there are no bytes that spell this one alone.
    len: u64,
}

impl Run {
    fn start(&self, child: u64) -> u64 {
        self.parent + (child - self.child) * self.num / self.den
    }
}

impl Map {
    /// The decoded byte at `child` is spelled by the `len` bytes at `parent`.
    pub(crate) fn unit(&mut self, child: u64, parent: u64, len: u64) {
        if let Some(last) = self.runs.back_mut()
            && last.den == 1
            && last.len == len
            && child == self.end
        {
            let stride = parent.saturating_sub(last.parent);
            if child == last.child + 1 && stride >= len {
                last.num = stride;
            }
            if last.start(child) == parent {
                self.end = child + 1;
                return;
            }
        }
        self.run(child, parent, (len, 1, len), 1);
    }

    /// The `count` bytes from `child` on are spelled at `parent`, with `(num, den, len)` as described above.
    pub(crate) fn run(&mut self, child: u64, parent: u64, (num, den, len): (u64, u64, u64), count: usize) {
        if let Some(last) = self.runs.back()
            && (last.num, last.den, last.len) == (num, den, len)
            && child == self.end
            && (child - last.child).is_multiple_of(den)
            && last.start(child) == parent
        {
            self.end = child + count as u64;
            return;
        }
        self.runs.push_back(Run { child, parent, num, den, len });
        self.end = child + count as u64;
    }

    /// What follows from `child` on was decompressed from what begins at `parent`.
    pub(crate) fn opaque(&mut self, child: u64, parent: u64) {
        self.runs.push_back(Run { child, parent, num: 0, den: 1, len: 0 });
        self.end = child;
    }

    fn at(&self, child: u64) -> Option<&Run> {
        let after = self.runs.partition_point(|run| run.child <= child);
        self.runs.get(after.saturating_sub(1))
    }

    /// Where the bytes that spell `child` begin.
    pub(crate) fn start(&self, child: u64) -> u64 {
        self.at(child).map_or(0, |run| run.start(child))
    }

    /// The bytes that spell a span of decoded ones; `None` where that is decompressed data.
    pub(crate) fn span(&self, child: &Range<u64>) -> Option<Range<u64>> {
        let (first, last) = (self.at(child.start)?, self.at(child.end - 1)?);
        (first.len > 0 && last.len > 0).then(|| first.start(child.start)..last.start(child.end - 1) + last.len)
    }

    /// Forgets what lies before `child`.
    pub(crate) fn forget(&mut self, child: u64) {
        while self.runs.get(1).is_some_and(|second| second.child <= child) {
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_escaped_and_base64_bytes_are_found_where_they_are_spelled() {
        let mut map = Map::default();
        map.run(0, 100, (1, 1, 1), 4);
        map.unit(4, 104, 3);
        map.unit(5, 107, 3);
        map.unit(6, 110, 3);
        map.run(7, 113, (1, 1, 1), 2);
        assert_eq!(map.span(&(1..3)), Some(101..103));
        assert_eq!(map.span(&(3..6)), Some(103..110));
        assert_eq!(map.span(&(6..8)), Some(110..114));
        let mut map = Map::default();
        map.run(0, 10, (4, 3, 2), 9);
        assert_eq!(map.span(&(0..3)), Some(10..14));
        assert_eq!(map.span(&(1..2)), Some(11..13));
        assert_eq!(map.span(&(3..9)), Some(14..22));
    }

    #[test]
    fn decompressed_bytes_have_no_span_but_a_beginning() {
        let mut map = Map::default();
        map.opaque(0, 5);
        map.opaque(1000, 80);
        assert_eq!(map.span(&(10..20)), None);
        assert_eq!((map.start(999), map.start(1000)), (5, 80));
        map.forget(1000);
        assert_eq!(map.start(1500), 80);
    }
}
