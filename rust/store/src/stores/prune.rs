//! How is what ended long ago forgotten, while everybody else goes on?

use std::time::{Duration, Instant};

use rusqlite::{Connection, named_params};

use crate::audit::entry as audit;
use crate::clock;
use crate::error::Result;
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::transaction::Transaction;
use crate::state::Surface;
use crate::user::os_user;

/// How long one transaction may delete before others get their turn: a row of 1 MiB takes as long as hundreds of small ones,
/// so it is counted in time. What follows is one commit.
const SLICE: Duration = Duration::from_millis(10);

/// How many rows one look goes over: without a lock, but a long look would keep the WAL from starting anew.
const LOOK: i64 = 5_000;

impl Database {
    /// Deletes proposals that ended longer ago than `age`, in turns with other writers; how many. Never the audit log,
    /// which says that it began. Where there is nothing to delete nothing is locked.
    pub fn prune(&self, age: Duration) -> Result<usize> {
        let before = clock::before(age);
        let (mut pruned, mut noted) = (0, false);
        let mut after = 0;
        while let Some(window) = self.look(|conn| ended(conn, after, &before))? {
            after = window.last;
            let mut left = window.found.as_slice();
            while !left.is_empty() {
                let (looked, gone) = self.write(|tx| {
                    if !noted {
                        let notes = format!("proposals that ended before {before}");
                        audit::note(tx, "host", "database", "pruning", &notes, &os_user(), Surface::Cli)?;
                    }
                    Ok((delete(tx, left, &before)?, Rings::NONE))
                })?;
                noted = true;
                pruned += gone;
                left = &left[looked..];
            }
        }
        while let Some(seq) = self.look(|conn| forgotten(conn, &before))? {
            self.write(|tx| {
                const FORGET_SQL: &str = "DELETE FROM changes WHERE seq <= :seq";
                tx.prepare_cached(FORGET_SQL)?.execute(named_params! {":seq": seq})?;
                Ok(((), Rings::NONE))
            })?;
        }
        Ok(pruned)
    }

    /// How many proposals [`Self::prune`] would delete now; locks nothing.
    pub fn prunable(&self, age: Duration) -> Result<usize> {
        let before = clock::before(age);
        let (mut found, mut after) = (0, 0);
        while let Some(window) = self.look(|conn| ended(conn, after, &before))? {
            after = window.last;
            found += window.found.len();
        }
        Ok(found)
    }

    /// On a connection that only reads, for a moment.
    fn look<T>(&self, work: impl FnOnce(&Connection) -> Result<Option<T>>) -> Result<Option<T>> {
        Ok(self.read(work)?.flatten())
    }
}

/// Part of the queue's past.
struct Window {
    /// `seq` of the last row that was looked at.
    last: i64,
    /// Those that ended long enough ago.
    found: Vec<i64>,
}

/// When it was over; nothing while it is not, or while its file is on its way.
const ENDED: &str = "CASE WHEN ifnull(m.state, '') <> 'intended'
     THEN coalesce(p.archived_at, r.decided_at, p.withdrawn_at, p.expires_at) END < :before";

/// The next rows after `after`; `None` at the end.
fn ended(conn: &Connection, after: i64, before: &str) -> Result<Option<Window>> {
    let sql = format!(
        "SELECT p.seq AS seq, {ENDED} AS ended FROM proposals p
         LEFT JOIN responses r ON r.proposal_seq = p.seq
         LEFT JOIN applies m ON m.proposal_seq = p.seq
         WHERE p.seq > :after ORDER BY p.seq LIMIT :look"
    );
    let mut window = None;
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(named_params! {":after": after, ":before": before, ":look": LOOK})?;
    while let Some(row) = rows.next()? {
        let window = window.get_or_insert_with(|| Window { last: after, found: Vec::new() });
        window.last = get(row, "seq")?;
        if get::<Option<bool>>(row, "ended")? == Some(true) {
            window.found.push(window.last);
        }
    }
    Ok(window)
}

/// Deletes until its time is over; how many it looked at, and how many of these it deleted.
fn delete(tx: &Transaction<'_>, seqs: &[i64], before: &str) -> Result<(usize, usize)> {
    // Asked again: its file may be on its way since.
    let sql = format!(
        "DELETE FROM proposals AS p WHERE p.seq = :seq AND (
           SELECT {ENDED} FROM (SELECT 1) LEFT JOIN responses r ON r.proposal_seq = p.seq
             LEFT JOIN applies m ON m.proposal_seq = p.seq)"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let (begun, mut gone) = (Instant::now(), 0);
    for (looked, seq) in seqs.iter().enumerate() {
        if looked > 0 && begun.elapsed() >= SLICE {
            return Ok((looked, gone));
        }
        gone += statement.execute(named_params! {":seq": seq, ":before": before})?;
    }
    Ok((seqs.len(), gone))
}

/// The last of the next few changes to forget. The newest one stays: what comes after it must have a larger number, for
/// whoever goes on from one.
fn forgotten(conn: &Connection, before: &str) -> Result<Option<i64>> {
    const FORGOTTEN_SQL: &str = "SELECT seq, at < :before AND seq < (SELECT max(seq) FROM changes) AS old FROM changes
         ORDER BY seq LIMIT 1000";
    let mut last = None;
    let mut statement = conn.prepare_cached(FORGOTTEN_SQL)?;
    let mut rows = statement.query(named_params! {":before": before})?;
    while let Some(row) = rows.next()? {
        if !get::<bool>(row, "old")? {
            break;
        }
        last = Some(get(row, "seq")?);
    }
    Ok(last)
}
