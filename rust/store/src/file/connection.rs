//! What does a connection settle when it is opened, and how does it know that its files are still the database's?

use std::cell::{Cell, OnceCell};
use std::ffi::c_int;
use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Error, Result};
use crate::file::anchor::Anchor;
use crate::file::database::Registry;
use crate::file::turn::{Turn, Turns};
use crate::file::{migrations, mount};
use crate::rules::BUSY_TIMEOUT;

/// What the WAL is cut back to when it starts anew; SQLite's own checkpoints keep it at a quarter of that.
const WAL_LIMIT: u32 = 16 << 20;

/// At each so many bytes more the WAL is made to start anew, and for how long that waits for readers.
const WAL_STEP: u64 = 8 << 20;
pub(crate) const WAL_PATIENCE: Duration = Duration::from_millis(50);

/// From how many frames in the WAL on a checkpoint is due, as SQLite has it; after how many more again, where a reader was
/// in the way.
const CHECKPOINT: u32 = 1000;
const CHECKPOINT_AGAIN: u32 = 500;

/// When a write goes to the disk. Whoever is told that it is done finds it there in either case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// Before anybody else can read it: who acts on a decision must not be alone with it after a power cut.
    InTurn,
    /// Once the next writer has its turn, so that the disk serves several at once. For a moment others can read what a power
    /// cut would undo. All that they write because of it comes later in the WAL and would be undone with it.
    AfterTurn,
}

/// A connection, and which files it reads and writes.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) file: PathBuf,
    wal: PathBuf,
    /// How this connection syncs now, and the WAL, open for syncing it from outside.
    syncs: Cell<Syncs>,
    wal_file: OnceCell<Arc<File>>,
    identity: (Option<FileId>, Option<FileId>),
    /// The schema that this release has been found to fit.
    schema: Cell<i64>,
    /// The WAL's length when it was last looked at, and the time before.
    wal_bytes: Cell<(u64, u64)>,
    /// The WAL's frames after the last commit, and when a checkpoint was last begun.
    frames: Arc<AtomicU32>,
    checkpointed: Cell<u32>,
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

/// Device and inode: which file it is, whatever its name.
pub(crate) type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    look(path).map(|(id, _)| id)
}

/// Which file it is, and how long.
fn look(path: &Path) -> Option<(FileId, u64)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        use rustix::io::Errno;
        // For nothing about its times: Linux (6.13 on) gives a file whose times were looked at a new time with its next
        // write, which every sync of the WAL would then have to write too, a third more for each commit.
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE) {
            Ok(found) => {
                let device = makedev(found.stx_dev_major, found.stx_dev_minor);
                return Some(((device, found.stx_ino), found.stx_size));
            }
            Err(Errno::NOSYS | Errno::PERM) => {} // an old kernel, or a sandbox that does not know the call
            Err(_) => return None,
        }
    }
    fs::metadata(path).ok().map(|data| ((data.dev(), data.ino()), data.len()))
}

impl Opened {
    /// Guards, then pragmas, then migrations: the order is the point.
    pub(crate) fn open(file: PathBuf) -> Result<Self> {
        mount::check(&file)?;
        let wal = {
            let mut name = file.as_os_str().to_owned();
            name.push("-wal");
            PathBuf::from(name)
        };
        let before = file_id(&file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&file, flags).map_err(|error| Error::from(error).at(&file))?;
        let turns = Turns::beside(&file);
        prepare(&conn, turns.as_ref()).map_err(|error| error.at(&file))?;
        let schema = Cell::new(migrations::schema_version(&conn).map_err(|error| error.at(&file))?);
        let (wal_id, wal_bytes) = look(&wal).unzip();
        let wal_bytes = Cell::new((wal_bytes.unwrap_or(0), wal_bytes.unwrap_or(0)));
        let anchor = before.and_then(|id| Anchor::hold(&Registry::current().anchors, &file, id));
        Ok(Opened {
            conn,
            file,
            wal,
            syncs: Cell::new(Syncs::InTurn),
            wal_file: OnceCell::new(),
            identity: (before, wal_id),
            schema,
            wal_bytes,
            frames: Arc::default(),
            checkpointed: Cell::new(0),
            turns,
            anchor,
        })
    }

    /// Whether database and WAL at their paths are still the files this connection has open.
    pub(crate) fn is_current(&self) -> bool {
        let wal = look(&self.wal);
        self.wal_bytes.set((wal.map_or(0, |(_, bytes)| bytes), self.wal_bytes.get().0));
        (file_id(&self.file), wal.map(|(id, _)| id)) == self.identity
    }

    /// From now on [`Opened::checkpoint`] does what SQLite would do inside a commit, before anybody hears of it.
    pub(crate) fn checkpoint_apart(&mut self) {
        let frames = self.frames.clone();
        let count = move |_: &mut Wal, count: c_int| {
            frames.store(count.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        // Refused, it leaves SQLite to it.
        let _ = self.conn.wal_hook(Some(count));
    }

    /// After a commit: ends its turn, and copies the WAL into the database if it has become long. If others wait, before
    /// the turn is over, as its syncs would make all of theirs longer; if not, whoever comes now need not stand still.
    pub(crate) fn checkpoint(&self, turn: Option<Turn>) {
        let frames = self.frames.load(Ordering::Relaxed);
        // Fewer than before: the WAL has begun anew.
        let last = Some(self.checkpointed.get()).filter(|last| *last <= frames).unwrap_or(0);
        self.checkpointed.set(last);
        if frames < CHECKPOINT || frames - last < CHECKPOINT_AGAIN {
            return;
        }
        self.checkpointed.set(frames);
        let _turn = turn.filter(Turn::is_wanted);
        let _ = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Whether the WAL has just grown past the next step beyond its limit.
    pub(crate) fn wal_is_long(&self) -> bool {
        let (now, before) = self.wal_bytes.get();
        now > WAL_LIMIT.into() && now / WAL_STEP > before / WAL_STEP
    }

    /// SQLite's own checkpoints never wait, so where there is always some reader (many waiters look, each for an instant)
    /// the WAL never starts anew. This one holds off writers until it can. A reader that stays longer than it has
    /// patience is left alone: the next step tries again. Whether all of the WAL is in the database now, on the disk.
    pub(crate) fn restart_wal(&self, patience: Duration) -> bool {
        let _turn = self.turns.as_ref().map(Turns::take);
        let _ = self.conn.busy_timeout(patience);
        let blocked = self.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0));
        let _ = self.conn.busy_timeout(BUSY_TIMEOUT);
        blocked == Ok(false)
    }

    /// With the turn it was done in. `announce` is called with the result before it is committed.
    pub(crate) fn transact<T>(
        &self,
        syncs: Syncs,
        work: impl FnOnce(&Transaction<'_>) -> Result<T>,
        announce: impl FnOnce(&T),
    ) -> Result<(T, Option<Turn>)> {
        if self.syncs.get() != syncs {
            let level = if syncs == Syncs::InTurn { "full" } else { "normal" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.syncs.set(syncs);
        }
        let turn = self.turns.as_ref().map(Turns::take);
        let mut tx = Transaction::begin(&self.conn)?;
        // A later release, a rollback or another program's module may have been here since.
        while migrations::schema_version(&tx)? != self.schema.get() {
            drop(tx);
            self.schema.set(follow_schema(&self.conn)?);
            tx = Transaction::begin(&self.conn)?;
        }
        let result = work(&tx)?;
        announce(&result);
        tx.commit()?;
        Ok((result, turn))
    }

    /// The WAL that this connection writes to, for syncing it. `None` if that is not the one at its path.
    pub(crate) fn wal_file(&self) -> Option<Arc<File>> {
        if self.wal_file.get().is_none() {
            // SQLite has no locks on it that closing it would drop (FACTS 4).
            let file = File::open(&self.wal).ok()?;
            let found = file.metadata().ok()?;
            if Some((found.dev(), found.ino())) != self.identity.1 {
                return None;
            }
            let _ = self.wal_file.set(Arc::new(file));
        }
        self.wal_file.get().cloned()
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
            anchor.let_go(&Registry::current().anchors);
        }
    }
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

/// Whether this release still fits, with whatever is missing brought back.
fn follow_schema(conn: &Connection) -> Result<i64> {
    migrations::refuse_newer(&migrations::versions(conn)?)?;
    migrations::migrate_all(conn)?;
    migrations::schema_version(conn)
}

fn prepare(conn: &Connection, turns: Option<&Turns>) -> Result<()> {
    // Long enough for a slow writer; see BUSY_TIMEOUT.
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Enough for every statement of this crate.
    conn.set_prepared_statement_cache_capacity(64);
    // One plan per statement, whatever its parameters: the bundled SQLite has STAT4 and would otherwise compile a
    // statement anew at every execution to look at their values (sqlite.org/queryplanner-ng.html#qpsg).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Views and triggers in the file may come from others: they get no functions with side effects.
    conn.pragma_update(None, "trusted_schema", false)?;
    // Answers belong to proposals.
    conn.pragma_update(None, "foreign_keys", true)?;
    // INSERT OR REPLACE on the audit log fires its delete trigger (FACTS 6).
    conn.pragma_update(None, "recursive_triggers", true)?;
    // A WAL that grew under a long reader shrinks again.
    conn.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    // Temporary tables and sorts of a query stay out of the shared directory and off the disk.
    conn.pragma_update(None, "temp_store", "memory")?;

    // Before anything is written: a file of a later release is left as it is.
    let found = migrations::versions(conn)?;
    migrations::refuse_newer(&found)?;
    let complete = migrations::are_complete(&found);
    if conn.is_readonly("main")? {
        let reason = "it is not writable, and its schema is older than this release needs".to_owned();
        return if complete { Ok(()) } else { Err(Error::Unavailable { path: String::new(), reason }) };
    }
    let journal: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    // Readers never block the writer, nor it them; the only mode in which a waiter's look is free.
    if journal != "wal" {
        let _turn = turns.map(Turns::take);
        switch_to_wal(conn)?;
    }
    // A decision that was acknowledged survives a power cut.
    conn.pragma_update(None, "synchronous", "full")?;
    let _turn = if complete { None } else { turns.map(Turns::take) };
    migrations::migrate_all(conn)
}

/// `PRAGMA journal_mode = WAL` takes an exclusive lock and ignores the busy timeout (FACTS 5), so it is asked again.
fn switch_to_wal(conn: &Connection) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        match conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let reason = format!("it stays in journal mode {mode}, WAL is needed");
                return Err(Error::Unavailable { path: String::new(), reason });
            }
            Err(error)
                if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
                    && start.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
