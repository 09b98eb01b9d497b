//! What was decided, in a log that is only ever added to.

pub(crate) mod entry;
