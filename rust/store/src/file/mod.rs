//! How is the one file opened, read and written, so that an acknowledged write is in the file others read?
//!
//! | file | its question |
//! |---|---|
//! | `database` | What is a handle on the file? |
//! | `shared` | What do all handles of a process on one file share? |
//! | `connection`, `transaction`, `wal` | What does a connection settle, what is a write, how does it get to the disk? |
//! | `identity`, `anchor` | Which file is at a path, and what holds it? |
//! | `slot` | How do the threads of a process share one connection? |
//! | `lock` | How does one process at a time have a file? |
//! | `turn` | In which order do writers of several processes write? |
//! | `bell` | How does a commit wake those it concerns? |
//! | `layout`, `mount` | Where does the file lie, and may it be shared from there? |
//! | `migrations` | How does the file get to this release's schema, and back? |
//! | `attest` | Is the schema in the file the one that we make? |

pub(crate) mod anchor;
pub(crate) mod attest;
pub(crate) mod bell;
pub(crate) mod column;
pub(crate) mod connection;
pub(crate) mod database;
pub(crate) mod identity;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod migrations;
pub(crate) mod mount;
pub(crate) mod numbers;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod transaction;
pub(crate) mod turn;
pub(crate) mod wal;
