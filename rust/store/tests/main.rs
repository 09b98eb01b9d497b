//! The store's tests: real files, real processes, and the `sqlite3` shell as a witness that shares no code with the store.
#![allow(clippy::unwrap_used)] // a test's way to fail

mod audit;
mod bottle;
mod child;
mod concurrency;
mod crash;
mod decide;
mod grant;
mod maintenance;
mod managed_file;
mod message;
mod migrations;
mod mounts;
mod place;
mod query;
mod queue;
mod registration;
mod review;
mod revision;
mod trust;
mod wait;
