//! What is asked and how is it answered: the rows, and what may happen to them.

pub(crate) mod managed_file;
pub(crate) mod proposal;
pub(crate) mod response;
