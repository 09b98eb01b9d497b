//! What does a connection settle when it is opened, and how does it know that its files are still the database's?

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Error, Result};
use crate::file::anchor::Anchor;
use crate::file::attest::{self, For};
use crate::file::identity::{FileId, file_id};
use crate::file::transaction::{Transaction, count_write};
use crate::file::turn::{Turn, Turns, lost_pages};
use crate::file::wal::{Syncs, WAL_LIMIT, Wal};
use crate::file::{migrations, mount};
use crate::patience;

/// A connection, and which files it reads and writes.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) file: PathBuf,
    pub(crate) wal: Wal,
    id: Option<FileId>,
    /// How this connection syncs now.
    syncs: Cell<Syncs>,
    /// The schema that this release has been found to fit, and to be nobody else's.
    schema: Cell<Option<i64>>,
    pub(crate) turns: Option<Turns>,
    /// After `conn`, as fields are dropped in order.
    anchor: Option<Arc<Anchor>>,
}

/// Whether it is open, on the files that are at its paths.
pub(crate) fn is_usable(slot: &Option<Opened>) -> bool {
    slot.as_ref().is_some_and(Opened::is_current)
}

/// Whether it is open, on files that are not at its paths any more.
pub(crate) fn is_outdated(slot: &Option<Opened>) -> bool {
    slot.as_ref().is_some_and(|opened| !opened.is_current())
}

impl Opened {
    /// Guards, then pragmas, then migrations: the order is the point.
    pub(crate) fn open(file: PathBuf) -> Result<Self> {
        let _patience = patience::begin();
        mount::check(&file)?;
        mount::refuse_planted(&file)?;
        let before = file_id(&file);
        let lost = before.and_then(Anchor::lost_before).unwrap_or_else(lost_pages);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&file, flags).map_err(|error| Error::from(error).at(&file))?;
        be_patient(&mut conn)?;
        commit_only_whole(&mut conn, lost)?;
        let turns = Turns::beside(&file);
        prepare(&conn, turns.as_ref()).map_err(|error| match lost == lost_pages() {
            true => error.at(&file),
            false => cut_short(&file),
        })?;
        let wal = Wal::beside(&file);
        let anchor = before.and_then(|id| Anchor::hold(&file, id, lost));
        Ok(Opened {
            conn,
            file,
            wal,
            id: before,
            syncs: Cell::new(Syncs::InTurn),
            schema: Cell::new(None),
            turns,
            anchor,
        })
    }

    /// Without a look at its schema, for whoever saves or replaces all of it, whatever is in it.
    pub(crate) fn open_as_it_is(file: PathBuf) -> Result<Self> {
        let _patience = patience::begin();
        mount::check(&file)?;
        mount::refuse_planted(&file)?;
        let id = file_id(&file);
        let lost = id.and_then(Anchor::lost_before).unwrap_or_else(lost_pages);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&file, flags).map_err(|error| Error::from(error).at(&file))?;
        be_patient(&mut conn)?;
        commit_only_whole(&mut conn, lost)?;
        // SQLite opens the WAL with the first look.
        conn.query_row("PRAGMA data_version", [], |_| Ok(())).map_err(|error| Error::from(error).at(&file))?;
        let (wal, turns) = (Wal::beside(&file), Turns::beside(&file));
        let anchor = id.and_then(|id| Anchor::hold(&file, id, lost));
        Ok(Opened { conn, file, wal, id, syncs: Cell::new(Syncs::InTurn), schema: Cell::new(None), turns, anchor })
    }

    /// Whether database and WAL at their paths are still the files this connection has open, and no page of what it has
    /// mapped was lost.
    pub(crate) fn is_current(&self) -> bool {
        self.is_whole() && self.wal.is_current() && file_id(&self.file) == self.id
    }

    fn is_whole(&self) -> bool {
        self.anchor.as_ref().is_none_or(|anchor| anchor.is_whole())
    }

    /// What was read or written since the index of the WAL lost a page may be of any moment.
    pub(crate) fn check_whole(&self) -> Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        Err(cut_short(&self.file))
    }

    /// Where database and WAL are, and which files they were when this connection was opened.
    pub(crate) fn places(&self) -> [(PathBuf, Option<FileId>); 2] {
        [self.wal.place(), (self.file.clone(), self.id)]
    }

    /// With the turn it was done in. `announce` is called with the result before it is committed.
    pub(crate) fn transact<T>(
        &self,
        syncs: Syncs,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
        announce: impl FnOnce(&T),
    ) -> Result<(T, Option<Turn>)> {
        let _patience = patience::begin();
        if self.syncs.get() != syncs {
            let level = if syncs == Syncs::InTurn { "full" } else { "normal" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.syncs.set(syncs);
        }
        let turn = self.turns.as_ref().map(Turns::take).transpose()?;
        let mut tx = Transaction::begin(&self.conn)?;
        // A later release, a rollback or another program's module may have been here since.
        while Some(migrations::schema_version(&tx)?) != self.schema.get() {
            drop(tx);
            self.schema.set(Some(follow_schema(&self.conn)?));
            tx = Transaction::begin(&self.conn)?;
        }
        let result = work(&tx)?;
        announce(&result);
        tx.commit()?;
        count_write();
        Ok((result, turn))
    }

    /// The last step of a write on a connection of its own: is it in the files others read?
    pub(crate) fn acknowledge(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Error::WriteLost { path: self.file.display().to_string() })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // The last connection's checkpoint would copy a WAL that is not the database's any more over what others wrote.
        if !self.is_current() {
            let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        if let Some(anchor) = &self.anchor {
            anchor.let_go();
        }
    }
}

fn cut_short(file: &Path) -> Error {
    Error::unavailable(file, "its -shm file was cut short meanwhile; it is opened anew with the next use, so try again")
}

/// What was read through an index of the WAL with a hole in it is of any moment, an empty file to begin with: nothing is
/// written on top of that, neither rows nor a schema.
fn commit_only_whole(conn: &mut Connection, lost: u64) -> Result<()> {
    Ok(conn.commit_hook(Some(move || lost_pages() != lost))?)
}

/// Whether this release still fits, with whatever is missing brought back.
fn follow_schema(conn: &Connection) -> Result<i64> {
    let schema = migrations::schema_version(conn)?;
    let found = migrations::versions(conn)?;
    migrations::refuse_newer(&found)?;
    attest::check(conn, &found, For::Writing)?;
    if migrations::are_complete(&found) {
        return Ok(schema);
    }
    migrations::migrate_all(conn)?;
    // What was made meanwhile is looked at before it is written to.
    follow_schema(conn)
}

fn prepare(conn: &Connection, turns: Option<&Turns>) -> Result<()> {
    // Enough for every statement of this crate.
    conn.set_prepared_statement_cache_capacity(64);
    // One plan per statement, whatever its parameters: the bundled SQLite has STAT4 and would otherwise compile a
    // statement anew at every execution to look at their values (sqlite.org/queryplanner-ng.html#qpsg).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Views and triggers in the file may come from others: they get no functions with side effects.
    conn.pragma_update(None, "trusted_schema", false)?;
    // Nor does SQL that runs here change the schema by hand, or a page say of a cell what the page has no room for.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    // Answers belong to proposals.
    conn.pragma_update(None, "foreign_keys", true)?;
    // INSERT OR REPLACE on the audit log fires its delete trigger.
    conn.pragma_update(None, "recursive_triggers", true)?;
    // A WAL that grew under a long reader shrinks again.
    conn.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    // Temporary tables and sorts of a query stay out of the shared directory and off the disk.
    conn.pragma_update(None, "temp_store", "memory")?;

    // Before anything is written: a file of a later release is left as it is.
    let found = migrations::versions(conn)?;
    migrations::refuse_newer(&found)?;
    let complete = migrations::are_complete(&found);
    attest::check(conn, &found, if complete { For::Reading } else { For::Writing })?;
    if conn.is_readonly("main")? {
        let reason = "it is not writable, and its schema is older than this release needs".to_owned();
        return if complete { Ok(()) } else { Err(Error::Unavailable { path: String::new(), reason }) };
    }
    let journal: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    // Readers never block the writer, nor it them; the only mode in which a waiter's look is free.
    if journal != "wal" {
        let _turn = turns.map(Turns::take).transpose()?;
        switch_to_wal(conn)?;
    }
    // A decision that was acknowledged survives a power cut.
    conn.pragma_update(None, "synchronous", "full")?;
    let _turn = if complete { None } else { turns.map(Turns::take).transpose()? };
    migrations::migrate_all(conn)
}

/// How many of SQLite's steps go by between two looks at whether a signal came; some milliseconds.
const STEPS: std::ffi::c_int = 200_000;

/// What this connection waits for and works on ends with the patience of the call it is used in.
pub(crate) fn be_patient(conn: &mut Connection) -> Result<()> {
    conn.busy_handler(Some(patience::for_sqlite))?;
    conn.progress_handler(STEPS, Some(patience::is_interrupted))?;
    Ok(())
}

/// `PRAGMA journal_mode = WAL` takes an exclusive lock and asks no busy handler, so it is asked again.
fn switch_to_wal(conn: &Connection) -> Result<()> {
    loop {
        match conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let reason = format!("it stays in journal mode {mode}, WAL is needed");
                return Err(Error::Unavailable { path: String::new(), reason });
            }
            Err(error)
                if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
                    && !patience::is_over() =>
            {
                patience::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
