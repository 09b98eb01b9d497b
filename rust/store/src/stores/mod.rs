//! The public verbs, over the file or over the host's broker.

pub(crate) mod inbox;
pub(crate) mod maintenance;
pub(crate) mod query;
pub(crate) mod transport;

#[cfg(test)]
mod cost;
