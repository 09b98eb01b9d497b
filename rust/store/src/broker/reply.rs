//! Where in a stream of bytes does an HTTP answer end, and what does it say?
//!
//! RFC 9112 as far as a client of one server needs it, without any input or output of its own: bytes go in as they
//! come, an answer comes out once it is whole.

use std::io;
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status, parse_chunk_size};

const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 64 << 10;

/// A whole answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether its body is a problem document (RFC 9457).
    pub(super) problem: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) keep_alive: bool,
    pub(super) body: Vec<u8>,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

/// The answer that is coming.
#[derive(Default)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    head: Option<(Answer, Framing)>,
}

impl Reply {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether its head is there: whoever answers has taken the request.
    pub(super) fn has_begun(&self) -> bool {
        self.head.is_some()
    }

    /// Whether not a byte of it is there.
    pub(super) fn is_blank(&self) -> bool {
        self.head.is_none() && self.bytes.is_empty()
    }

    /// The answer if it is whole; `closed` says that nothing follows.
    pub(super) fn take(&mut self, closed: bool) -> io::Result<Option<Answer>> {
        while self.head.is_none() {
            if !self.read_head()? {
                return Ok(None);
            }
        }
        let Some((answer, framing)) = &mut self.head else { return Ok(None) };
        let whole = match framing {
            Framing::Length(length) if self.bytes.len() >= *length => {
                answer.body = self.bytes.drain(..*length).collect();
                true
            }
            Framing::Length(_) => false,
            Framing::Chunked => {
                let (used, ended) = read_chunks(&self.bytes, &mut answer.body)?;
                self.bytes.drain(..used);
                ended
            }
            Framing::UntilClosed => {
                answer.body.append(&mut self.bytes);
                closed
            }
        };
        Ok(if whole { self.head.take().map(|(answer, _)| answer) } else { None })
    }

    fn read_head(&mut self) -> io::Result<bool> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(&self.bytes).map_err(malformed)? {
            Status::Complete(length) => length,
            Status::Partial if self.bytes.len() > MAX_HEAD_BYTES => return Err(malformed("its head has no end")),
            Status::Partial => return Ok(false),
        };
        let status = parsed.code.unwrap_or_default();
        if status >= 200 {
            self.head = Some(understand(status, parsed.version == Some(1), parsed.headers)?);
        } // else an interim answer, before the real one
        self.bytes.drain(..length);
        Ok(true)
    }
}

fn understand(status: u16, modern: bool, headers: &[httparse::Header<'_>]) -> io::Result<(Answer, Framing)> {
    let mut answer = Answer { status, keep_alive: modern, ..Answer::default() };
    let mut framing = if matches!(status, 204 | 304) { Framing::Length(0) } else { Framing::UntilClosed };
    for header in headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        let says = |word: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
        match header.name.to_ascii_lowercase().as_str() {
            "connection" if says("close") => answer.keep_alive = false,
            "content-type" => answer.problem = value.to_ascii_lowercase().starts_with("application/problem+json"),
            "retry-after" => answer.retry_after = value.parse().ok().map(Duration::from_secs),
            "transfer-encoding" if says("chunked") => framing = Framing::Chunked,
            "content-length" if !matches!(framing, Framing::Chunked) => {
                framing = Framing::Length(value.parse().map_err(|_| malformed("its length is no number"))?);
            }
            _ => {}
        }
    }
    answer.keep_alive &= !matches!(framing, Framing::UntilClosed);
    Ok((answer, framing))
}

/// Adds the chunks that are whole to the body; how many bytes those were, and whether the last one was among them.
fn read_chunks(bytes: &[u8], body: &mut Vec<u8>) -> io::Result<(usize, bool)> {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        match parse_chunk_size(rest).map_err(|_| malformed("a chunk has no size"))? {
            Status::Partial => return Ok((used, false)),
            Status::Complete((line, 0)) => {
                let mut trailers = [EMPTY_HEADER; MAX_HEADERS];
                return match httparse::parse_headers(&rest[line..], &mut trailers).map_err(malformed)? {
                    Status::Complete((length, _)) => Ok((used + line + length, true)),
                    Status::Partial => Ok((used, false)),
                };
            }
            Status::Complete((line, size)) => {
                let end = usize::try_from(size).ok().and_then(|size| size.checked_add(line));
                let Some(chunk) = end.and_then(|end| rest.get(line..end)) else { return Ok((used, false)) };
                let end = line + chunk.len();
                match rest.get(end..end + 2) {
                    None => return Ok((used, false)),
                    Some(b"\r\n") => body.extend_from_slice(chunk),
                    Some(_) => return Err(malformed("a chunk is longer than its size")),
                }
                used += end + 2;
            }
        }
    }
}

fn malformed(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what answers there speaks no HTTP/1.1 ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer, which must be whole with its last byte and not before.
    fn read(text: &str) -> Answer {
        let mut reply = Reply::default();
        let (last, most) = text.as_bytes().split_last().unwrap();
        for byte in most {
            reply.push(&[*byte]);
            assert_eq!(reply.take(false).unwrap(), None);
        }
        reply.push(&[*last]);
        let answer = reply.take(false).unwrap().unwrap();
        assert!(reply.is_blank());
        answer
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\r\n\r}");
        assert_eq!((answer.status, answer.keep_alive, answer.body.as_slice()), (200, true, &b"{\r\n\r}"[..]));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").body, b"");
    }

    #[test]
    fn an_answer_in_chunks_ends_with_the_empty_one() {
        let head = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(&format!("{head}1\r\n \r\n1;a=b\r\n \r\nA\r\n0123456789\r\n0\r\n\r\n")).body, b"  0123456789");
        assert_eq!(read(&format!("{head}0\r\nTrailer: x\r\n\r\n")).body, b"");
    }

    #[test]
    fn the_head_says_what_to_make_of_it() {
        let answer = read(
            "HTTP/1.1 429 Too Many\r\ncontent-type: application/problem+json; charset=utf-8\r\nRetry-After: 2\r\n\
             Connection: x, Close\r\ncontent-length: 2\r\n\r\n{}",
        );
        assert!(answer.problem && !answer.keep_alive);
        assert_eq!(answer.retry_after, Some(Duration::from_secs(2)));
        assert!(!read("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx").keep_alive);
    }

    #[test]
    fn without_a_length_the_connection_s_end_is_the_answer_s() {
        let mut reply = Reply::default();
        reply.push(b"HTTP/1.1 200 OK\r\n\r\nab");
        assert_eq!(reply.take(false).unwrap(), None);
        reply.push(b"c");
        let answer = reply.take(true).unwrap().unwrap();
        assert_eq!((answer.body.as_slice(), answer.keep_alive), (&b"abc"[..], false));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            &format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD_BYTES)),
        ] {
            let mut reply = Reply::default();
            reply.push(text.as_bytes());
            assert_eq!(reply.take(false).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:.60}");
        }
    }
}
