//! What does the operator see of all bottles, and how does one decide?

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Params, named_params};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::numbers::END;
use crate::queue::asking::{self, Question};
use crate::queue::changes::{CHANGE_COLUMNS, Change, change_from_row, last_change};
use crate::queue::decide::{self, Decision};
use crate::queue::item::{self, InboxItem, InboxSummary, Item};
use crate::queue::managed_file;
use crate::queue::message::Message;
use crate::queue::proposal::Asked;
use crate::queue::response::{Answered, Response};
use crate::queue::review::Review;
use crate::queue::revision::Revised;
use crate::statement::Keys;
use crate::stores::stats;
use crate::wait::standing::Target;
use crate::wait::{Event, WaitHandle, on_file, sleeper};

/// Shorter beginnings of an id are refused: UUIDv7s of one week share more than this.
const MIN_PREFIX: usize = 4;

/// The operator's view. Opening it finishes managed files that a crash left half done.
pub struct Inbox {
    pub(crate) db: Database,
}

impl Inbox {
    /// Opens it.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let inbox = Inbox { db: Database::new(path)? };
        inbox.recover()?;
        Ok(inbox)
    }

    /// The file it is in.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Finishes interrupted managed files; how many came to an end.
    pub fn recover(&self) -> Result<usize> {
        managed_file::recover(&self.db)
    }

    /// What can be decided now, oldest first.
    pub fn pending(&self, bottle_slug: Option<&str>) -> Result<Vec<InboxSummary>> {
        self.listed(|conn| item::pending(conn, None, bottle_slug))
    }

    /// Decided, but the managed file is not in effect.
    pub fn failed(&self) -> Result<Vec<InboxSummary>> {
        const FAILED: &str = "WHERE p.seq IN (SELECT proposal_seq FROM applies WHERE state <> 'applied')
             AND p.archived_at IS NULL ORDER BY p.seq";
        self.list(FAILED, named_params! {":now": clock::now()})
    }

    fn list(&self, rest: &str, params: impl Params) -> Result<Vec<InboxSummary>> {
        self.listed(|conn| item::list(conn, rest, params))
    }

    fn listed(&self, list: impl FnOnce(&Connection) -> Result<Vec<InboxSummary>>) -> Result<Vec<InboxSummary>> {
        let keys = Keys::of(&self.db);
        let items = self.db.read(|conn| item::settle_all(conn, &keys, list(conn)?))?;
        Ok(items.unwrap_or_default())
    }

    /// One proposal by its id or a unique beginning of it.
    pub fn read(&self, prefix: &str) -> Result<InboxItem> {
        self.find(prefix)
    }

    /// The same as a list has it.
    pub fn summary(&self, prefix: &str) -> Result<InboxSummary> {
        self.find(prefix)
    }

    fn find<P: Asked, R: Answered>(&self, prefix: &str) -> Result<Item<P, R>> {
        const BY_PREFIX_SQL: &str = "SELECT id FROM proposals WHERE id >= :from AND id < :to
             UNION SELECT id FROM aliases WHERE id >= :from AND id < :to ORDER BY id LIMIT 6";
        let prefix = prefix.to_ascii_lowercase();
        if prefix.len() < MIN_PREFIX || !prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(Error::input(
                "id",
                format!("must be at least {MIN_PREFIX} of a proposal id's hex digits, not {prefix:?}"),
            ));
        }
        let keys = Keys::of(&self.db);
        let read = |conn: &Connection, id: &str| item::settle(conn, &keys, item::read(conn, id)?);
        let found = self.db.read(|conn| {
            if let Some(item) = read(conn, &prefix)? {
                return Ok(Some(item));
            }
            let mut statement = conn.prepare_cached(BY_PREFIX_SQL)?;
            let to = format!("{prefix}~"); // sorts after every hex digit and hyphen
            let ids: Vec<String> = statement
                .query_map(named_params! {":from": prefix, ":to": to}, |row| get(row, 0))?
                .collect::<rusqlite::Result<_>>()?;
            match ids.as_slice() {
                [] => Ok(None),
                [id] => read(conn, id),
                _ => Err(Error::Ambiguous { prefix: prefix.clone(), matches: ids }),
            }
        })?;
        found.flatten().ok_or_else(|| Error::not_found("proposal", &prefix))
    }

    /// All that must be seen of one proposal before it is decided, and the hash that a decision names for it.
    pub fn review(&self, prefix: &str) -> Result<Review> {
        let item = self.read(prefix)?;
        let revised = match &item.proposal.revises {
            Some(id) => self.db.read(|conn| Revised::read(conn, &Keys::of(&self.db), &item, id))?.flatten(),
            None => None,
        };
        Ok(Review::of(item, revised))
    }

    /// Proposals of any state, newest first, older than `before`.
    pub fn history(&self, bottle_slug: Option<&str>, limit: u32, before: Option<&str>) -> Result<Vec<InboxSummary>> {
        const BEFORE: &str = "(:before IS NULL OR p.seq < (SELECT seq FROM proposals WHERE id = :before))
             ORDER BY p.seq DESC LIMIT :limit";
        let now = clock::now();
        match bottle_slug {
            // Without the condition it is walked in the order of seq; with it, by the bottle's index, in the same order.
            None => {
                self.list(&format!("WHERE {BEFORE}"), named_params! {":before": before, ":limit": limit, ":now": now})
            }
            Some(slug) => self.list(
                &format!("WHERE p.bottle_slug = :bottle_slug AND {BEFORE}"),
                named_params! {":bottle_slug": slug, ":before": before, ":limit": limit, ":now": now},
            ),
        }
    }

    /// Decides, audits, makes the grant, writes the managed file, wakes the waiters.
    pub fn decide(&self, decision: &Decision<'_>) -> Result<Response> {
        decide::decide(&self.db, decision)
    }

    /// Asks back: whoever waits is told, the proposal stays pending, and its requester may answer or revise it.
    pub fn ask(&self, question: &Question<'_>) -> Result<Message> {
        asking::ask(&self.db, question)
    }

    /// `seq` of the newest change, 0 if there is none.
    pub fn last_change(&self) -> Result<i64> {
        Ok(self.db.read(last_change)?.unwrap_or(0))
    }

    /// Changes after `since`, oldest first.
    pub fn changes(&self, since: i64, limit: u32) -> Result<Vec<Change>> {
        let sql = format!(
            "SELECT {CHANGE_COLUMNS} FROM changes WHERE seq > :since AND seq < {END} ORDER BY seq LIMIT :limit"
        );
        let changes = self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(named_params! {":since": since, ":limit": limit}, change_from_row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(changes.unwrap_or_default())
    }

    /// Counts and ages, as a JSON object; see the Python stub.
    pub fn stats(&self) -> Result<serde_json::Value> {
        Ok(self.db.read(stats::of)?.unwrap_or_else(stats::of_nothing))
    }
}

impl Inbox {
    /// Starts a wait for a change after `since`; `done` as in [`QueueStore::begin_wait`].
    pub fn begin_watch(
        &self,
        since: i64,
        timeout: Option<Duration>,
        done: impl FnOnce(Result<Event>) + Send + 'static,
    ) -> Result<WaitHandle> {
        on_file::begin(&self.db, Target::Change { after: since }, timeout, Box::new(done))
    }

    /// Blocks until there is a change after `since`.
    pub fn wait_for_change(
        &self,
        since: i64,
        timeout: Option<Duration>,
        interrupted: impl FnMut() -> bool,
    ) -> Result<()> {
        sleeper::listen(&self.db, &Target::Change { after: since }, timeout, interrupted).map(|_| ())
    }
}
