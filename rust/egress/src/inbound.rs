//! How does an answer pass without the credential that the proxy added to its request?
//!
//! Everything a server can fill is rebuilt or looked at: the reason phrase and informational answers are dropped, header
//! lines, body and trailers are scanned, and what cannot be read is cut.

use std::sync::Arc;

use bot_bottle_routes::Refusal;
use bot_bottle_scan::{Budget, Detectors, Place, ScanError, Scanner};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, TRANSFER_ENCODING};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc::Sender;

use crate::body::{Body, BoxError, Until, piped, whole};
use crate::exchange::{Exchange, has_body};
use crate::head::{Line, listed, returning};
use crate::outbound::{Cut, cut};
use crate::scanning::{Passing, Where, lines_of, map_of, mask_line, scan_lines};

/// The answer for the client; `told` cuts it with its request.
pub fn answer(exchange: Arc<Exchange>, response: Response<Incoming>, told: Cut) -> Result<Response<Body>, Refusal> {
    let (parts, body) = response.into_parts();
    // What another transfer coding hides cannot be looked at.
    let transfer = listed(&parts.headers, &TRANSFER_ENCODING);
    if transfer.iter().any(|coding| coding != "chunked") {
        let reason = "The server cannot be used: its answer has a transfer coding other than chunked.";
        return Err(Refusal::new("upstream_failed", reason).status(502));
    }
    let has_body = has_body(&exchange.head.method, parts.status) && !body.is_end_stream();
    let mut headers = returning(&parts.headers, !has_body);
    let detectors = exchange.inbound().clone();
    let body = if detectors.is_empty() {
        pass_unseen(body, told)
    } else {
        let budget = Budget::for_request();
        headers = scrubbed(&exchange, headers, "header", &detectors, &budget)?;
        let codings = listed(&parts.headers, &CONTENT_ENCODING);
        let scanner = Scanner::new(&detectors, &budget).at(Place::body("")).encoded(&codings);
        match (has_body, scanner) {
            (false, _) => whole(Bytes::new(), None),
            (true, Err(_)) => return Err(cut_off(&exchange)),
            (true, Ok(scanner)) => {
                let (sender, piped) = piped(body.size_hint().exact());
                let answer = Answer { exchange, detectors, budget, passing: Passing::new(scanner), told };
                tokio::spawn(answer.pass(body, sender));
                piped
            }
        }
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn pass_unseen(body: Incoming, told: Cut) -> Body {
    let body = body.map_err(BoxError::from);
    // A request that went out whole is not cut any more.
    if told.has_changed().is_err() && told.borrow().is_none() {
        return body.boxed_unsync();
    }
    let mut told = told;
    Until::new(body.boxed_unsync(), async move {
        cut(&mut told).await;
    })
    .boxed_unsync()
}

/// Masks the credential in header or trailer lines.
pub fn scrubbed(
    exchange: &Exchange,
    headers: HeaderMap,
    what: &str,
    detectors: &Detectors,
    budget: &Budget,
) -> Result<HeaderMap, Refusal> {
    let mut lines: Vec<Line> = lines_of(&headers);
    let seen = match scan_lines(&lines, "", what, Where::Header, detectors, budget) {
        Ok(seen) => seen,
        Err(_) => return Err(cut_off(exchange)),
    };
    if seen.is_empty() {
        return Ok(headers);
    }
    for each in &seen {
        let masked = match each.place {
            Where::Header(at) => mask_line(&mut lines, at, &each.finding),
            _ => false,
        };
        if !masked {
            return Err(cut_off(exchange));
        }
    }
    masked(exchange);
    Ok(map_of(lines))
}

pub fn masked(exchange: &Exchange) {
    let told = format!("{} sent back a secret; the agent did not get it.", exchange.host);
    exchange.proxy.record.audit("answer-masked", &told);
}

pub fn cut_off(exchange: &Exchange) -> Refusal {
    let host = &exchange.host;
    let told = format!("{host} sent back a secret, or what cannot be looked at; its answer was cut.");
    exchange.proxy.record.audit("answer-cut", &told);
    Refusal::new("answer_cut", format!("The answer of {host} held a secret, or cannot be looked at; it was cut."))
        .status(502)
}

struct Answer {
    exchange: Arc<Exchange>,
    detectors: Detectors,
    budget: Budget,
    passing: Passing,
    told: Cut,
}

impl Answer {
    async fn pass(mut self, mut body: Incoming, pieces: Sender<Result<Frame<Bytes>, BoxError>>) {
        let mut told = self.told.clone();
        loop {
            let frame = tokio::select! {
                biased;
                () = pieces.closed() => return,
                _ = cut(&mut told) => {
                    let _ = pieces.send(Err("cut by egress".into())).await;
                    return;
                }
                frame = body.frame() => frame,
            };
            let (frames, last) = match frame {
                None => (self.finish(None), true),
                Some(Err(error)) => (Err(error.into()), true),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => (self.piece(&piece), false),
                    Err(frame) => (self.finish(frame.into_trailers().ok()), true),
                },
            };
            match frames {
                Err(error) => {
                    let _ = pieces.send(Err(error)).await;
                    return;
                }
                Ok(frames) => {
                    for frame in frames {
                        if pieces.send(Ok(frame)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            if last {
                return;
            }
        }
    }

    fn piece(&mut self, piece: &[u8]) -> Result<Vec<Frame<Bytes>>, BoxError> {
        let fed = if piece.len() > 4096 {
            tokio::task::block_in_place(|| self.passing.feed(piece))
        } else {
            self.passing.feed(piece)
        };
        self.scrub(fed)?;
        let clear = self.passing.take();
        Ok(if clear.is_empty() { Vec::new() } else { vec![Frame::data(clear)] })
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<Vec<Frame<Bytes>>, BoxError> {
        let found = self.passing.finish();
        self.scrub(found)?;
        let rest = self.passing.take_all();
        let mut frames = if rest.is_empty() { Vec::new() } else { vec![Frame::data(rest)] };
        if let Some(trailers) = trailers {
            let trailers = returning(&trailers, false);
            let trailers = scrubbed(&self.exchange, trailers, "trailer", &self.detectors, &self.budget)
                .map_err(|refusal| refusal.error)?;
            frames.push(Frame::trailers(trailers));
        }
        Ok(frames)
    }

    fn scrub(&mut self, found: Result<Vec<bot_bottle_scan::Finding>, ScanError>) -> Result<(), BoxError> {
        let found = found.map_err(|_| cut_off(&self.exchange).error)?;
        if found.is_empty() {
            return Ok(());
        }
        if !found.iter().all(|each| self.passing.mask(each)) {
            return Err(cut_off(&self.exchange).error.into());
        }
        masked(&self.exchange);
        Ok(())
    }
}
