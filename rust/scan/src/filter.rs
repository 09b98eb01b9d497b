//! Where in these bytes could anything begin that is looked for? The fast first look at every byte.
//!
//! A scalar Teddy: three tables say, for the byte at each of three neighbouring positions, in which of 64 buckets some
//! needle has that byte there. Only where all three agree are the needles of the bucket compared. There is no chain of
//! dependent loads as in an automaton, so a processor looks at several positions at once.

/// What is looked for by three bytes in a row: its beginning lies `offset` bytes before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needle {
    /// An anchor of a format, as an index into the table of anchors.
    Anchor(usize),
    /// The beginning of compressed data.
    Magic(Magic),
}

/// How compressed data begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magic {
    Gzip,
    Zstd,
    Zip,
    Zlib,
}

/// The tables.
pub(crate) struct Filter {
    rows: Box<[[u64; 4]; 256]>,
    buckets: Vec<Vec<Needle>>,
}

const ZLIB_BUCKETS: usize = 8;

impl Filter {
    /// `anchors`: the three bytes of each anchor by which it is found. `magic`: compressed data too.
    pub(crate) fn new(anchors: &[[u8; 3]], magic: bool) -> Filter {
        let mut filter = Filter { rows: Box::new([[0; 4]; 256]), buckets: vec![Vec::new(); 64] };
        if magic {
            for (bucket, window) in (0..ZLIB_BUCKETS).zip(0u32..) {
                // RFC 1950: method 8, any window, a header that divides by 31, no preset dictionary; RFC 1951: three
                // of the four block types exist.
                let cmf = (window << 4 | 8) as u8;
                filter.set(bucket, 0, cmf);
                (0..=255u8)
                    .filter(|&flg| flg & 0x20 == 0 && (u32::from(cmf) << 8 | u32::from(flg)).is_multiple_of(31))
                    .for_each(|flg| filter.set(bucket, 1, flg));
                (0..=255u8).filter(|&byte| byte & 6 != 6).for_each(|byte| filter.set(bucket, 2, byte));
                filter.buckets[bucket].push(Needle::Magic(Magic::Zlib));
            }
            filter.add(8, *b"\x1f\x8b\x08", Needle::Magic(Magic::Gzip));
            filter.add(9, *b"\x28\xb5\x2f", Needle::Magic(Magic::Zstd));
            filter.add(10, *b"PK\x03", Needle::Magic(Magic::Zip));
        }
        // Neighbours in this order share bytes, and so share buckets without letting more through.
        let mut order: Vec<usize> = (0..anchors.len()).collect();
        order.sort_by_key(|&index| anchors[index]);
        let room = 64 - 11;
        for (rank, index) in order.into_iter().enumerate() {
            let bucket = 11 + rank * room / anchors.len().max(1);
            filter.add(bucket, anchors[index], Needle::Anchor(index));
        }
        filter
    }

    fn add(&mut self, bucket: usize, bytes: [u8; 3], needle: Needle) {
        bytes.into_iter().enumerate().for_each(|(place, byte)| self.set(bucket, place, byte));
        self.buckets[bucket].push(needle);
    }

    fn set(&mut self, bucket: usize, place: usize, byte: u8) {
        self.rows[usize::from(byte)][place] |= 1 << bucket;
    }

    /// Calls `hit` with each needle whose three bytes may begin at a position from `from` on.
    pub(crate) fn scan(&self, text: &[u8], from: usize, mut hit: impl FnMut(Needle, usize)) {
        let rows = &self.rows;
        let row = |byte: u8| &rows[usize::from(byte)];
        let mut at = from;
        let mut rest = text.get(from..).unwrap_or_default();
        // Eight positions are asked at once: nearly always the answer is no for all of them.
        while let Some(bytes) = rest.first_chunk::<10>() {
            // Loops and no closures: not every build inlines those, and this is what a scan does most.
            let mut all = [0; 8];
            for (place, bits) in all.iter_mut().enumerate() {
                *bits = row(bytes[place])[0] & row(bytes[place + 1])[1] & row(bytes[place + 2])[2];
            }
            if all.iter().fold(0, |any, bits| any | bits) != 0 {
                for (place, bits) in all.into_iter().enumerate() {
                    self.told(bits, at + place, &mut hit);
                }
            }
            at += 8;
            rest = &rest[8..];
        }
        while let Some(&[a, b, c]) = rest.first_chunk::<3>() {
            self.told(row(a)[0] & row(b)[1] & row(c)[2], at, &mut hit);
            at += 1;
            rest = &rest[1..];
        }
    }

    fn told(&self, mut bits: u64, at: usize, hit: &mut impl FnMut(Needle, usize)) {
        while bits != 0 {
            for &needle in &self.buckets[bits.trailing_zeros() as usize] {
                hit(needle, at);
            }
            bits &= bits - 1;
        }
    }
}
