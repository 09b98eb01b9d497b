//! The public verbs, over the file or over the host's broker.

pub(crate) mod audit_store;
pub(crate) mod bottle_store;
pub(crate) mod grant_store;
pub(crate) mod inbox;
pub(crate) mod maintenance;
pub(crate) mod prune;
pub(crate) mod query;
mod queue_file;
pub(crate) mod queue_store;
pub(crate) mod reconcile;
pub(crate) mod restore;
pub(crate) mod stats;
pub(crate) mod transport;
pub(crate) mod trust;

#[cfg(test)]
mod cost;
