//! What is an agent told when its request is not let through?
//!
//! A JSON object with `error` (for programs), `reason` (a sentence) and, where a route would help, `what_to_do`.

use bot_bottle_routes::Refusal;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::ext::ReasonPhrase;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::routes_file::Standing;

/// Ours alone: it is taken out of what servers answer.
pub const OUR_HEADER: &str = "x-bot-bottle-egress";
const SUPERVISE_URL: &str = "http://supervise:9100/";
/// Names of the sidecars, which an agent reaches without the proxy.
const SIDECARS: [&str; 2] = ["supervise", "git-gate"];

/// The refusal for a client that asks the proxy for a sidecar, which it reaches without one.
pub fn sidecar_by_proxy(host: &str) -> Option<Refusal> {
    SIDECARS.contains(&host).then(|| {
        let reason = format!(
            "{host} is reached without the proxy; set no_proxy={} (and NO_PROXY) for this program.",
            SIDECARS.join(",")
        );
        Refusal::new("host_denied", reason)
    })
}

/// Where the proxy itself is asked, not a server through it, which routes are in force.
pub const STANDING: &str = "/bot-bottle/routes";

/// Which file's routes are in force, for the sidecar that tells the agent so.
pub fn standing(of: Standing) -> Response<Body> {
    let text = format!("{}\n", json!({"sha256": of.sha256, "refused": of.refused}));
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The response that says so, to a request with this method.
pub fn answer(refusal: &Refusal, method: &Method) -> Response<Body> {
    let mut content = Map::new();
    content.insert("error".to_owned(), refusal.error.into());
    content.insert("reason".to_owned(), refusal.reason.clone().into());
    for (name, value) in &refusal.more {
        content.insert((*name).to_owned(), value.clone().into());
    }
    if refusal.askable {
        let way = format!(
            "Ask for it: call the MCP tool `allow` at {SUPERVISE_URL} with the whole routes.yaml as it should be \
             (`list-egress-routes` shows what is allowed now) and why you need it. Once approved, send the request again."
        );
        content.insert("what_to_do".to_owned(), way.into());
    }
    let body = if method == Method::HEAD {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        let text = format!("{:#}\n", Value::Object(content));
        Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(OUR_HEADER, HeaderValue::from_static(refusal.error));
    if method == Method::CONNECT {
        // Of whose answer most clients show nothing but the reason phrase.
        let how =
            if refusal.askable { format!(" Ask with the MCP tool allow at {SUPERVISE_URL}") } else { String::new() };
        let phrase: String =
            refusal.reason.chars().map(|letter| if letter.is_ascii() { letter } else { '?' }).collect();
        if let Ok(phrase) = ReasonPhrase::try_from(phrase + &how) {
            response.extensions_mut().insert(phrase);
        }
    }
    response
}
