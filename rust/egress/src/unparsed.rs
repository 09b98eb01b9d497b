//! What is a client told whose request is no HTTP, so that nobody could judge it?
//!
//! hyper answers such a request by itself, with a bare status. This stands under its HTTP/1.1 connection and puts the JSON of
//! every other refusal into that answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answers::OUR_HEADER;

/// What hyper answers with.
const BY_ITSELF: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];

/// Whether a server has answered like that on this connection: then the bare answers are its own, and are left alone.
#[derive(Clone, Default)]
pub struct Alike(Arc<AtomicBool>);

impl Alike {
    pub fn note(&self, status: StatusCode) {
        if BY_ITSELF.contains(&status) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

pub struct Explained<S> {
    stream: S,
    alike: Alike,
    /// What still has to be written in place of a bare answer.
    instead: Vec<u8>,
}

impl<S> Explained<S> {
    pub fn new(stream: S, alike: Alike) -> Self {
        Explained { stream, alike, instead: Vec::new() }
    }

    /// The answer with a reason, if these bytes are a bare one.
    fn explained(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !bytes.starts_with(b"HTTP/1.") || self.alike.0.load(Ordering::Relaxed) {
            return None;
        }
        let (head, rest) = std::str::from_utf8(bytes).ok()?.split_once("\r\n\r\n")?;
        let (first, lines) = head.split_once("\r\n")?;
        let status = BY_ITSELF.iter().find(|status| first.get(9..12) == Some(status.as_str()))?;
        if !rest.is_empty() || !lines.to_ascii_lowercase().split("\r\n").any(|line| line == "content-length: 0") {
            return None;
        }
        let reason = match *status {
            StatusCode::BAD_REQUEST => "The request is not written as HTTP/1.1 says (RFC 9112).",
            StatusCode::URI_TOO_LONG => "The request's URL is too long.",
            _ => "The request's head is too long.",
        };
        let body = format!("{{\n  \"error\": \"bad_request\",\n  \"reason\": \"{reason}\"\n}}\n");
        let answer = format!(
            "{first}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n{OUR_HEADER}: bad_request\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Some(answer.into_bytes())
    }
}

impl<S: AsyncWrite + Unpin> Explained<S> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        if let Some(instead) = self.explained(buf) {
            self.instead = instead;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        let filled = || bufs.iter().filter(|each| !each.is_empty());
        if let (Some(only), 1) = (filled().next(), filled().count())
            && let Some(instead) = self.explained(only)
        {
            self.instead = instead;
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
