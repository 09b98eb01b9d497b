//! What is in a compressed body, so that a secret in it can be masked?

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Undoes the codings, given in the order applied; `None` if it is not what they say, or larger than `limit` inside.
pub fn decoded(body: &[u8], codings: &[String], limit: usize) -> Option<Vec<u8>> {
    let mut content = body.to_vec();
    for coding in codings.iter().rev() {
        content = match coding.as_str() {
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(content.as_slice()), limit)?,
            // RFC 9110, 8.4.1.2: zlib, but some senders leave its wrapper away.
            "deflate" => read(ZlibDecoder::new(content.as_slice()), limit)
                .or_else(|| read(DeflateDecoder::new(content.as_slice()), limit))?,
            "br" => read(brotli_decompressor::Decompressor::new(content.as_slice(), 8192), limit)?,
            "zstd" => read(zstd::stream::read::Decoder::new(content.as_slice()).ok()?, limit)?,
            _ => return None,
        };
    }
    Some(content)
}

fn read(from: impl Read, limit: usize) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    from.take(limit as u64 + 1).read_to_end(&mut content).ok()?;
    (content.len() <= limit).then_some(content)
}
