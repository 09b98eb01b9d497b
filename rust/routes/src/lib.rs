//! What a `routes.yaml` says, and whether a request may go where it wants to go.
//!
//! One reading for everybody: the egress proxy enforces it, and Python refuses a bad proposal and shows routes with the
//! same code. Whatever no route names is denied.
//!
//! | file | its question |
//! |---|---|
//! | `yaml` | How is YAML read so that a human and a program cannot see different things in it? |
//! | `file` | Is this text a valid `routes.yaml`, and if not, on which line and what to write instead? |
//! | `rules` | What does a route cover: hosts, paths, methods, headers? |
//! | `host` | When are two host names the same? |
//! | `judge` | May this request go where it wants to go? |
#![forbid(unsafe_code)]

mod file;
mod host;
mod judge;
mod rules;
mod yaml;

pub use file::{MAX_BYTES, MAX_ROUTES, RoutesError, load};
pub use host::canonical_host;
pub use judge::{Environment, Head, Refusal, default_port, judge, judge_tunnel, names_same_host, token, tokens};
pub use rules::{
    Auth, AuthKind, CREDENTIAL_HEADERS, DETECTORS, Detectors, Dlp, HeaderMatch, Match, OVERRIDE_HEADERS, OnMatch,
    PathMatch, Route, Routes, is_credential_header,
};
pub use yaml::quoted;
