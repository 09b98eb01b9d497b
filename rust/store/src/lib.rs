//! Storage of bot-bottle: proposals, answers, audit log, grants and bottles in one SQLite file that the
//! host and its sidecars share.
//!
//! Each room takes from those below it, never from those above (`tests/house/rust_rooms.py` checks that):
//!
//! | room | its question |
//! |---|---|
//! | `stores` | Which verbs do sidecars, operators and other programs have, over the file or the broker? |
//! | `broker` | How is the host's broker reached where the file cannot be shared? |
//! | `verbs` | What does a sidecar do with its bottle's queue, whichever way it reaches it? |
//! | `wait` | How is a waiter woken at once, and how does the operator learn that somebody waits? |
//! | `queue`, `bottle` | What is asked and answered for whom, and what may happen to it? |
//! | `registration` | What may a bottle's rows lead to on this host, and did this host sign that? |
//! | `audit`, `grant` | What was decided, and what does it still allow? |
//! | `statement` | What do a decision, a question, a registration and a grant say, byte by byte, and whose signature fits? |
//! | `file` | How is the one file opened, read and written, so that an acknowledged write is really there? |
//! | `rules`, `state` | What is acceptable, and which states are there? |
//! | `clock`, `diff`, `visible`, `user`, `process` | How is a moment written, a change shown, a text made safe to look at; who and what is this process? |
//! | `error` | What can go wrong, and what is that called? |
//! | `patience` | How long does a call wait for others, and what ends that early? |
#![deny(unsafe_code)] // but for file/turn/page.rs

mod audit;
mod bottle;
mod broker;
mod clock;
mod diff;
mod error;
mod file;
mod grant;
mod patience;
mod process;
mod queue;
mod registration;
mod rules;
mod state;
mod statement;
mod stores;
mod user;
mod verbs;
mod visible;
mod wait;

pub use audit::entry::{AuditEntry, AuditFields, AuditReport, NO_HASH};
pub use bottle::Bottle;
pub use broker::{Broker, Probe};
pub use clock::now;
pub use diff::{Hunk, Part, render_diff, sha256_hex};
pub use error::{Error, Result};
pub use file::database::Database;
pub use file::layout::{DB_PATH_IN_CONTAINER, bot_bottle_root, host_db_path};
pub use file::migrations::Step;
pub use file::transaction::committed_writes;
pub use grant::Grant;
pub use patience::{ask_while_waiting, within};
pub use queue::asking::Question;
pub use queue::changes::Change;
pub use queue::decide::Decision;
pub use queue::item::{InboxItem, InboxSummary, Item};
pub use queue::message::{Message, SignedQuestion};
pub use queue::proposal::{Proposal, ProposalHead, ProposalSummary};
pub use queue::response::{Difference, Response, ResponseHead, ResponseSummary, SignedDecision};
pub use queue::review::{Odd, Review, Reviewed};
pub use queue::revision::Revised;
pub use rules::{
    MAX_JUSTIFICATION_BYTES, MAX_MESSAGE_BYTES, MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, MAX_PENDING_PER_BOTTLE,
    MAX_QUESTIONS_PER_PROPOSAL, new_id,
};
pub use state::{
    ApplyState, ChangeKind, GrantScope, Sender, State, Status, Stored, Surface, Tool, Transport, Vocabulary,
};
pub use statement::{Keyring, Keys, Role, Signature, TrustedKey};
pub use stores::audit_store::AuditStore;
pub use stores::bottle_store::BottleStore;
pub use stores::grant_store::GrantStore;
pub use stores::inbox::Inbox;
pub use stores::maintenance::Status as DatabaseStatus;
pub use stores::query::{ForeignTransaction, Params, Row};
pub use stores::queue_store::{QueueStore, Word};
pub use visible::visible;
pub use wait::{Event, Questions, WaitHandle};

/// The values SQL parameters and results have.
pub use rusqlite::types::Value as SqlValue;
