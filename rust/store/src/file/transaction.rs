//! What does everything that writes run in?

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use crate::error::Result;

static WRITES: AtomicU64 = AtomicU64::new(0);

/// How many writes this process has committed, to databases and keys: whoever is interrupted can say whether anything
/// was written.
pub fn committed_writes() -> u64 {
    WRITES.load(Ordering::SeqCst)
}

/// Called at once after each, before a signal's handler can run.
pub(crate) fn count_write() {
    WRITES.fetch_add(1, Ordering::SeqCst);
}

/// A write transaction; dropped, it is rolled back. As rusqlite's own, but for statements that stay prepared.
pub(crate) struct Transaction<'c>(&'c Connection);

impl<'c> Transaction<'c> {
    pub(crate) fn begin(conn: &'c Connection) -> Result<Self> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Transaction(conn))
    }

    pub(crate) fn commit(self) -> Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Committed, or rolled back by SQLite itself after an error that leaves it no choice.
        if self.0.is_autocommit() {
            return;
        }
        let _ = self.0.execute_batch("ROLLBACK");
    }
}
