//! How is the one file opened, read and written, so that an acknowledged write is in the file others read?

pub(crate) mod anchor;
pub(crate) mod bell;
pub(crate) mod connection;
pub(crate) mod database;
pub(crate) mod layout;
pub(crate) mod migrations;
pub(crate) mod mount;
pub(crate) mod turn;
