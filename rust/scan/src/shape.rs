//! How is a token's format matched as its bytes arrive, in one step per byte?
//!
//! Formats are written as regular expressions without alternation, groups and backtracking: characters, classes and
//! counts. Each part takes as many bytes as it can; a byte that it cannot take is the next part's. This is exact where
//! no part can take what the next one begins with, which a test checks for every format.

/// One class of bytes and how often it may occur in a row.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    class: [bool; 256],
    min: usize,
    max: usize,
}

/// A format, part by part.
#[derive(Debug, Clone)]
pub(crate) struct Shape(Vec<Part>);

/// How far a match has got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    part: usize,
    count: usize,
    /// Bytes matched so far.
    pub len: usize,
}

/// What is known of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// More bytes decide.
    Open,
    /// It matches; its end is known.
    Match,
    /// It does not match.
    Dead,
}

impl Shape {
    /// Reads the restricted expressions described above.
    pub(crate) fn parse(expression: &str) -> Shape {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = expression.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let (class, after) = match first {
                b'[' => Self::class(after),
                b'\\' if after[0] == b'd' => (Self::of(b"0123456789"), &after[1..]),
                b'\\' => (Self::of(&after[..1]), &after[1..]),
                other => (Self::of(&[other]), after),
            };
            let (min, max, after) = Self::count(after);
            parts.push(Part { class, min, max });
            rest = after;
        }
        Shape(parts)
    }

    /// The members of a class written as between brackets; empty for an empty one.
    pub(crate) fn members(class: &str) -> [bool; 256] {
        Self::class(format!("{class}]").as_bytes()).0
    }

    fn of(bytes: &[u8]) -> [bool; 256] {
        let mut class = [false; 256];
        bytes.iter().for_each(|&byte| class[usize::from(byte)] = true);
        class
    }

    fn class(mut rest: &[u8]) -> ([bool; 256], &[u8]) {
        let mut class = [false; 256];
        while rest[0] != b']' {
            if rest.starts_with(b"\\s") {
                b" \t\r\n".iter().for_each(|&byte| class[usize::from(byte)] = true);
                rest = &rest[2..];
                continue;
            }
            let from = usize::from(rest[0] == b'\\');
            let range = rest[from + 1] == b'-' && rest[from + 2] != b']';
            let until = if range { from + 2 } else { from };
            (rest[from]..=rest[until]).for_each(|byte| class[usize::from(byte)] = true);
            rest = &rest[until + 1..];
        }
        (class, &rest[1..])
    }

    fn count(rest: &[u8]) -> (usize, usize, &[u8]) {
        match rest.first() {
            Some(b'?') => (0, 1, &rest[1..]),
            Some(b'{') => {
                let end = rest.iter().position(|&byte| byte == b'}').unwrap_or(rest.len() - 1);
                let text = std::str::from_utf8(&rest[1..end]).unwrap_or_default();
                let (min, max) = text.split_once(',').unwrap_or((text, text));
                (min.parse().unwrap_or(0), max.parse().unwrap_or(0), &rest[end + 1..])
            }
            _ => (1, 1, rest),
        }
    }

    /// Goes on with `bytes`, which follow what `progress` has matched.
    pub(crate) fn advance(&self, progress: &mut Progress, bytes: &[u8]) -> Outcome {
        let mut at = 0;
        while let Some(part) = self.0.get(progress.part) {
            let room = part.max - progress.count;
            let rest = &bytes[at..];
            let taken = rest.iter().take(room).take_while(|&&byte| part.class[usize::from(byte)]).count();
            at += taken;
            progress.count += taken;
            progress.len += taken;
            if at == bytes.len() && progress.count < part.max {
                return Outcome::Open;
            }
            if progress.count < part.min {
                return Outcome::Dead;
            }
            progress.part += 1;
            progress.count = 0;
        }
        Outcome::Match
    }

    /// Whether what `progress` has matched is a match if nothing follows.
    pub(crate) fn is_match_at_end(&self, progress: &Progress) -> bool {
        self.0.get(progress.part).is_none_or(|part| progress.count >= part.min)
            && self.0.iter().skip(progress.part + 1).all(|part| part.min == 0)
    }

    /// Whether no part can take a byte that the next could begin with, unless its count is fixed.
    #[cfg(test)]
    pub(crate) fn is_deterministic(&self) -> bool {
        self.0
            .windows(2)
            .all(|pair| pair[0].min == pair[0].max || !(0..256).any(|byte| pair[0].class[byte] && pair[1].class[byte]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(shape: &str, text: &str) -> Option<usize> {
        let shape = Shape::parse(shape);
        let mut progress = Progress::default();
        match shape.advance(&mut progress, text.as_bytes()) {
            Outcome::Match => Some(progress.len),
            Outcome::Open if shape.is_match_at_end(&progress) => Some(progress.len),
            _ => None,
        }
    }

    #[test]
    fn classes_counts_and_escapes_mean_what_they_do_in_regular_expressions() {
        assert_eq!(matched(r"ab[0-9a-f]{2,4}", "ab12345"), Some(6));
        assert_eq!(matched(r"ab[0-9a-f]{2,4}", "ab1"), None);
        assert_eq!(matched(r"x\.[A-Z_.-]{3}", "x.A-_"), Some(5));
        assert_eq!(matched(r"a=?\d", "a7"), Some(2));
        assert_eq!(matched(r"a=?\d", "a=7"), Some(3));
        assert_eq!(matched(r"a[\s\\]b", "a\\b"), Some(3));
        assert_eq!(matched(r"a[\s\\]b", "a\nb"), Some(3));
        assert_eq!(matched(r"[A-C]{1,3}={0,2}", "AB=="), Some(4));
    }

    #[test]
    fn pieces_of_any_size_give_the_same_match() {
        let shape = Shape::parse(r"gh[po]_[A-Za-z0-9]{4,9}");
        let text = b"ghp_abcdefg rest";
        for cut in 0..text.len() {
            let mut progress = Progress::default();
            let mut outcome = shape.advance(&mut progress, &text[..cut]);
            if outcome == Outcome::Open {
                outcome = shape.advance(&mut progress, &text[cut..]);
            }
            assert_eq!((outcome, progress.len), (Outcome::Match, 11), "{cut}");
        }
    }
}
