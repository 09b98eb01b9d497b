//! What does compressed data say, step by step, in bounded memory however far it expands?

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use crate::Step;

/// The data is not what its encoding says.
#[derive(Debug)]
pub(crate) struct Broken;

/// What one step did.
#[derive(Debug)]
pub(crate) struct Progress {
    pub read: usize,
    pub wrote: usize,
    /// The compressed data ends after what was read.
    pub done: bool,
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// A decoder of one piece of compressed data.
pub(crate) enum Inflater {
    /// zlib, gzip or raw deflate.
    Flate(Decompress),
    /// `Content-Encoding: deflate`: zlib by the standard (RFC 9110, 8.4.1.2), raw by habit.
    Either(Vec<u8>),
    /// A member of a ZIP file from its local header on (APPNOTE.TXT, 4.3.7).
    Zip(Vec<u8>),
    Zstd(Decoder<'static>),
    Brotli(Box<Brotli>),
}

const ZSTD_WINDOW_LOG: u32 = 23; // 8 MiB, the most that RFC 9659 lets an HTTP peer ask for
const ZIP_HEADER: usize = 30;

impl Inflater {
    /// A decoder for what `step` names.
    pub(crate) fn new(step: Step) -> Result<Inflater, Broken> {
        Ok(match step {
            Step::Gzip => Inflater::Flate(Decompress::new_gzip(15)),
            Step::Zlib => Inflater::Flate(Decompress::new(true)),
            Step::Zip => Inflater::Zip(Vec::new()),
            Step::Zstd => {
                let mut decoder = Decoder::new().map_err(|_| Broken)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(|_| Broken)?;
                Inflater::Zstd(decoder)
            }
            Step::Brotli => {
                let alloc = StandardAlloc::default;
                Inflater::Brotli(Box::new(BrotliState::new(alloc(), alloc(), alloc())))
            }
            _ => Inflater::Flate(Decompress::new(false)),
        })
    }

    /// About how much memory it may take.
    pub(crate) fn memory(step: Step) -> usize {
        match step {
            Step::Brotli => 17 << 20,
            Step::Zstd => 9 << 20,
            _ => 48 << 10,
        }
    }

    /// Reads some of `input` and fills some of `output`.
    pub(crate) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Broken> {
        match self {
            Inflater::Flate(decoder) => {
                let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output, FlushDecompress::None).map_err(|_| Broken)?;
                let read = usize::try_from(decoder.total_in() - before_in).map_err(|_| Broken)?;
                let wrote = usize::try_from(decoder.total_out() - before_out).map_err(|_| Broken)?;
                Ok(Progress { read, wrote, done: status == Status::StreamEnd })
            }
            Inflater::Either(head) => {
                let taken = input.len().min(2 - head.len());
                head.extend_from_slice(&input[..taken]);
                if let &[cmf, flg] = head.as_slice() {
                    let head = [cmf, flg];
                    let is_zlib = cmf & 15 == 8 && (u32::from(cmf) << 8 | u32::from(flg)).is_multiple_of(31);
                    *self = Inflater::new(if is_zlib { Step::Zlib } else { Step::Deflate })?;
                    let Progress { wrote, done, .. } = self.step(&head, output)?;
                    return Ok(Progress { read: taken, wrote, done });
                }
                Ok(Progress { read: taken, wrote: 0, done: false })
            }
            Inflater::Zip(head) => {
                let mut read = 0;
                while head.len() < zip_header(head) {
                    let Some(&byte) = input.get(read) else { return Ok(Progress { read, wrote: 0, done: false }) };
                    head.push(byte);
                    read += 1;
                }
                if u16::from_le_bytes([head[8], head[9]]) != 8 {
                    return Err(Broken); // stored: it is there to be read already
                }
                *self = Inflater::new(Step::Deflate)?;
                Ok(Progress { read, wrote: 0, done: false })
            }
            Inflater::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).map_err(|_| Broken)?;
                let (read, wrote) = (status.bytes_read, status.bytes_written);
                Ok(Progress { read, wrote, done: status.remaining == 0 })
            }
            Inflater::Brotli(state) => {
                let (mut left, mut read, mut room, mut wrote, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut read, input, &mut room, &mut wrote, output, &mut total, state,
                );
                match result {
                    BrotliResult::ResultFailure => Err(Broken),
                    other => Ok(Progress { read, wrote, done: matches!(other, BrotliResult::ResultSuccess) }),
                }
            }
        }
    }
}

/// How long a ZIP local header is, as far as `head` tells.
fn zip_header(head: &[u8]) -> usize {
    match head.get(26..ZIP_HEADER) {
        Some(&[a, b, c, d]) => {
            ZIP_HEADER + usize::from(u16::from_le_bytes([a, b])) + usize::from(u16::from_le_bytes([c, d]))
        }
        _ => ZIP_HEADER,
    }
}

/// Whether a deflate stream (RFC 1951) may begin so: looks at the first block's header, which chance seldom gets right,
/// and where that says nothing at the first symbols.
pub(crate) fn may_be_deflate(data: &[u8]) -> bool {
    let Some(&first) = data.first() else { return false };
    // A line of dashes is base64 too, and says the same three bytes again and again; a compressor would not.
    if let Some([_, a, b, c, rest @ ..]) = data.first_chunk::<10>()
        && *rest == [*a, *b, *c, *a, *b, *c]
    {
        return false;
    }
    match first >> 1 & 3 {
        0 => match data.get(1..5) {
            Some(&[a, b, c, d]) => a == !c && b == !d && (a, b) != (0, 0),
            _ => true,
        },
        1 => fixed_symbols_are_sound(&data[..data.len().min(FIXED_HEAD)]),
        2 => dynamic_header_is_sound(data),
        _ => false,
    }
}

/// Bytes of a block with fixed codes that are looked at; of what is no deflate, one in thousands gets so far.
const FIXED_HEAD: usize = 128;

/// 3.2.6: nothing but lengths and distances that lie within what came before, up to the end of the block.
fn fixed_symbols_are_sound(head: &[u8]) -> bool {
    let mut at = 3;
    let bits = |count: usize, at: &mut usize| {
        let range = *at..*at + count;
        *at += count;
        (range.end <= head.len() * 8).then(|| {
            range
                .enumerate()
                .fold(0u32, |value, (place, bit)| value | u32::from(head[bit / 8] >> (bit % 8) & 1) << place)
        })
    };
    // Huffman codes come with their first bit first.
    let code = |count: usize, at: &mut usize| bits(count, at).map(|bits| bits.reverse_bits() >> (32 - count));
    let mut written = 0usize;
    loop {
        let Some(seven) = code(7, &mut at) else { return true };
        let length = match seven {
            0 => return true, // the end of the block
            1..=23 => 256 + seven,
            _ => {
                let Some(eighth) = code(1, &mut at) else { return true };
                match seven << 1 | eighth {
                    eight @ 0xc0..=0xc5 => 280 + eight - 0xc0,
                    0xc6 | 0xc7 => return false,
                    0xc8.. => {
                        at += 1;
                        written += 1;
                        continue;
                    }
                    _ => {
                        written += 1;
                        continue;
                    }
                }
            }
        };
        at += match length {
            257..=264 | 285 => 0,
            other => (other as usize - 261) / 4,
        };
        let Some(distance) = code(5, &mut at) else { return true };
        let nearest = match distance {
            0..=3 => distance as usize + 1,
            4..=29 => (2 + (distance as usize & 1)) << (distance / 2 - 1) | 1,
            _ => return false,
        };
        if nearest > written {
            return false;
        }
        at += (distance / 2).saturating_sub(1) as usize;
        written += 258; // at most
    }
}

/// 3.2.7: the lengths of the code length codes have to use up the code space exactly.
fn dynamic_header_is_sound(data: &[u8]) -> bool {
    let Some(head) = data.get(..10) else { return true };
    let bits = |at: usize, count: usize| {
        (0..count).fold(0u32, |value, bit| value | u32::from(head[(at + bit) / 8] >> ((at + bit) % 8) & 1) << bit)
    };
    let (literals, distances, codes) = (bits(3, 5), bits(8, 5), bits(13, 4) as usize + 4);
    let used: u32 =
        (0..codes).map(|code| bits(17 + 3 * code, 3)).filter(|&length| length > 0).map(|length| 128 >> length).sum();
    literals <= 29 && distances <= 29 && used == 128
}
