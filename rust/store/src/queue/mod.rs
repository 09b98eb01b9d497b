//! What is asked and how is it answered: the rows, and what may happen to them.

pub(crate) mod asking;
pub(crate) mod changes;
pub(crate) mod decide;
pub(crate) mod item;
pub(crate) mod life;
pub(crate) mod managed_file;
pub(crate) mod message;
pub(crate) mod proposal;
pub(crate) mod response;
pub(crate) mod review;
pub(crate) mod revision;
