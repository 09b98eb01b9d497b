//! How does a request's body pass that is too large, or too long in coming, to be held?
//!
//! Piece by piece, each scanned before it goes on. Should a secret show up, the request is cut so that the server cannot
//! take it for a whole one.

use std::collections::HashSet;
use std::sync::Arc;

use bot_bottle_routes::Refusal;
use bot_bottle_scan::{Detectors, Finding, Place, ScanError, Scanner};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};

use crate::body::{BoxError, discard};
use crate::exchange::{Exchange, checked_trailers};
use crate::scanning::{Passing, Seen, Where, lines_of, map_of, mask_line, scan_lines, unreadable};
use crate::settle::{Carrier, settle};

/// Why a request is cut, once it is.
pub type Cut = watch::Receiver<Option<Refusal>>;

/// Waits until the request is cut; for ever if it is not.
pub async fn cut(told: &mut Cut) -> Refusal {
    match told.wait_for(Option::is_some).await.map(|refusal| refusal.clone()) {
        Ok(Some(refusal)) => refusal,
        _ => std::future::pending().await,
    }
}

/// For a request that went out whole.
pub fn uncut() -> Cut {
    watch::channel(None).1
}

type Pieces = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// Passes `begun` and the rest of a body on.
pub fn pass(
    exchange: Arc<Exchange>,
    detectors: Detectors,
    allowed: HashSet<String>,
    begun: Vec<Bytes>,
    rest: Incoming,
    pieces: Pieces,
    cut: watch::Sender<Option<Refusal>>,
) {
    tokio::spawn(async move {
        let mut passage = match Passage::new(exchange, &detectors, allowed, &pieces) {
            Ok(passage) => passage,
            Err(_) => return,
        };
        let mut rest = Some(rest);
        let ended = passage.run(&begun, &mut rest).await;
        match ended {
            End::Done => {}
            End::Broken => {
                let _ = pieces.send(Err("the client's body ended early".into())).await;
            }
            End::Cut(refusal) => {
                let (record, host) = (&passage.exchange.proxy.record, &passage.exchange.host);
                record.audit("request-cut", &format!("A request to {host} was cut: {}.", refusal.error));
                passage.exchange.proxy.say_no(passage.exchange.head.method.as_str(), host, &refusal);
                cut.send_replace(Some(refusal));
                let _ = pieces.send(Err("cut by egress".into())).await;
            }
        }
        if let Some(rest) = rest {
            discard(rest);
        }
    });
}

enum End {
    Done,
    Broken,
    Cut(Refusal),
}

struct Passage<'a> {
    exchange: Arc<Exchange>,
    detectors: &'a Detectors,
    allowed: HashSet<String>,
    /// Without detectors it passes unseen.
    passing: Option<Passing>,
    pieces: &'a Pieces,
}

impl<'a> Passage<'a> {
    fn new(
        exchange: Arc<Exchange>,
        detectors: &'a Detectors,
        allowed: HashSet<String>,
        pieces: &'a Pieces,
    ) -> Result<Self, ScanError> {
        let passing = if detectors.is_empty() {
            None
        } else {
            let scanner = Scanner::new(detectors, &exchange.budget).at(Place::body(exchange.host.as_str()));
            Some(Passing::new(scanner.encoded(&exchange.head.codings)?))
        };
        Ok(Passage { exchange, detectors, allowed, passing, pieces })
    }

    async fn run(&mut self, begun: &[Bytes], rest: &mut Option<Incoming>) -> End {
        for piece in begun {
            if let Err(end) = self.piece(piece.clone()).await {
                return end;
            }
        }
        let mut trailers = None;
        while let Some(body) = rest {
            match body.frame().await {
                None => *rest = None,
                Some(Err(_)) => {
                    *rest = None;
                    return End::Broken;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        if let Err(end) = self.piece(piece).await {
                            return end;
                        }
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        match self.finish(trailers).await {
            Ok(()) => End::Done,
            Err(end) => end,
        }
    }

    async fn piece(&mut self, piece: Bytes) -> Result<(), End> {
        let Some(passing) = &mut self.passing else { return self.send(Frame::data(piece)).await };
        let fed = if piece.len() > 4096 {
            tokio::task::block_in_place(|| passing.feed(&piece))
        } else {
            passing.feed(&piece)
        };
        self.settle(fed).await?;
        let Some(passing) = &mut self.passing else { return Ok(()) };
        let clear = passing.take();
        self.send(Frame::data(clear)).await
    }

    async fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), End> {
        if let Some(passing) = &mut self.passing {
            let found = passing.finish();
            self.settle(found).await?;
        }
        let trailers = match trailers {
            Some(trailers) => Some(self.trailers(trailers).await?),
            None => None,
        };
        if let Some(passing) = &mut self.passing {
            let clear = passing.take_all();
            self.send(Frame::data(clear)).await?;
        }
        match trailers {
            Some(trailers) => self.send(Frame::trailers(trailers)).await,
            None => Ok(()),
        }
    }

    async fn trailers(&mut self, trailers: HeaderMap) -> Result<HeaderMap, End> {
        let mut lines = lines_of(&checked_trailers(&self.exchange, trailers).map_err(End::Cut)?);
        let (host, budget) = (self.exchange.host.as_str(), &self.exchange.budget);
        let seen = scan_lines(&lines, host, "trailer", Where::Trailer, self.detectors, budget);
        let seen = seen.map_err(|error| End::Cut(unreadable(&error)))?;
        let carrier = Carrier { content: &[b"passed on"], size: None, holds: false };
        let mut mask = |each: &Seen| match each.place {
            Where::Trailer(at) => mask_line(&mut lines, at, &each.finding),
            _ => false,
        };
        let settled = settle(&self.exchange, &mut self.allowed, &seen, carrier, &mut mask).await;
        settled.map_err(End::Cut)?;
        Ok(map_of(lines))
    }

    async fn settle(&mut self, found: Result<Vec<Finding>, ScanError>) -> Result<(), End> {
        let Some(passing) = &mut self.passing else { return Ok(()) };
        let found = found.map_err(|error| {
            let (record, host) = (&self.exchange.proxy.record, &self.exchange.host);
            if matches!(error, ScanError::OverBudget { .. }) {
                let told = format!("A request to {host} was refused: scanning it takes more than one may use.");
                record.audit("scan-refused", &told);
            }
            End::Cut(unreadable(&error))
        })?;
        if found.is_empty() {
            return Ok(());
        }
        let seen: Vec<_> = found.into_iter().map(|finding| Seen { finding, place: Where::Body }).collect();
        let so_far = passing.hash_to(seen.iter().filter_map(|each| Some(each.finding.span.as_ref()?.end)).max());
        let carrier = Carrier { content: &[b"passed on", &so_far], size: None, holds: false };
        let mut mask = |each: &Seen| passing.mask(&each.finding);
        let settled = settle(&self.exchange, &mut self.allowed, &seen, carrier, &mut mask).await;
        settled.map_err(End::Cut)
    }

    async fn send(&self, frame: Frame<Bytes>) -> Result<(), End> {
        if frame.data_ref().is_some_and(Bytes::is_empty) {
            return Ok(());
        }
        // A server that has heard enough has answered by now, or will not.
        self.pieces.send(Ok(frame)).await.map_err(|_| End::Done)
    }
}
