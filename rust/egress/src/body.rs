//! What is a body here: something whole, something that passes, or what another task writes?

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What went wrong with it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Pieces that may lie between the writing task and the connection.
const PIECES: usize = 4;

/// A body that one task writes and a connection reads, at the reader's pace.
struct Piped {
    pieces: Receiver<Result<Frame<Bytes>, BoxError>>,
    left: Option<u64>,
}

impl http_body::Body for Piped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.pieces.poll_recv(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let (Some(data), Some(left)) = (frame.data_ref(), &mut self.left)
        {
            *left = left.saturating_sub(data.len() as u64);
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A body and its writer; `length` if it is known before its end.
pub fn piped(length: Option<u64>) -> (Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, pieces) = channel(PIECES);
    (sender, Piped { pieces, left: length }.boxed_unsync())
}

/// A body that is all here.
pub fn whole(content: Bytes, trailers: Option<HeaderMap>) -> Body {
    match trailers {
        None => Full::new(content).map_err(|never| match never {}).boxed_unsync(),
        Some(trailers) => {
            let frames = [Ok(Frame::data(content)), Ok(Frame::trailers(trailers))];
            StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
        }
    }
}

/// A body that breaks off once something else has happened.
pub struct Until<F> {
    body: Body,
    end: Option<Pin<Box<F>>>,
}

impl<F: Future<Output = ()>> Until<F> {
    pub fn new(body: Body, end: F) -> Self {
        Until { body, end: Some(Box::pin(end)) }
    }
}

impl<F: Future<Output = ()>> http_body::Body for Until<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            self.end = None;
            return Poll::Ready(Some(Err("cut by egress".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whatever the client still sends is read and thrown away, so that it gets around to reading its answer.
pub fn discard(mut body: hyper::body::Incoming) {
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
}
