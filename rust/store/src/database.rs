//! How is the file opened, read and written so that an acknowledged write is really in the file others read?

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use rustix::process::{Pid, getpid};

use crate::anchor::{Anchor, Anchors};
use crate::error::{Error, Result};
use crate::turn::Turns;
use crate::wait::Watcher;
use crate::{bell, layout, migrations, mount};

/// How long a write waits for other writers: a slow disk, a backup, a prune (DESIGN 3).
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The one SQLite file. Cheap to make: it opens nothing until it is used, and all of a process's handles on one path
/// share their connections. A forked child never touches its parent's, and is refused what its parent had open.
pub struct Database {
    path: PathBuf,
    on_host: bool,
    id: u64,
    closed: AtomicBool,
    shared: ArcSwap<Shared>,
}

/// What the handles of one process on one path share.
pub(crate) struct Shared {
    pid: Pid,
    pub(crate) path: PathBuf,
    on_host: bool,
    /// For writes. Reads have their own, so that they never stand behind a writer that waits its turn.
    writer: Mutex<Option<Opened>>,
    reader: Mutex<Option<Opened>>,
    watcher: Mutex<Option<Arc<Watcher>>>,
    /// Whether there was ever a connection.
    opened: AtomicBool,
}

/// Which bells a commit rings.
#[derive(Default)]
pub(crate) struct Rings {
    queues: Vec<String>,
    inbox: bool,
}

impl Rings {
    pub(crate) const NONE: Rings = Rings { queues: Vec::new(), inbox: false };

    /// Those who wait for answers in this queue, and the operator.
    pub(crate) fn queue(key: &str) -> Self {
        Rings { queues: vec![key.to_owned()], inbox: true }
    }

    /// The operator only.
    pub(crate) fn inbox() -> Self {
        Rings { queues: Vec::new(), inbox: true }
    }
}

/// Shared state by path, for this process. Replaced, never locked, by a forked child: a thread of the parent may have
/// held the lock at the moment of the fork.
struct Registry {
    pid: Pid,
    shared: Mutex<HashMap<PathBuf, Weak<Shared>>>,
    anchors: Anchors,
    /// What the processes this one was forked from had open; `None` if that cannot be told, so anything.
    inherited: Option<Vec<PathBuf>>,
}

static REGISTRY: LazyLock<ArcSwap<Registry>> = LazyLock::new(|| ArcSwap::from_pointee(Registry::new(Some(Vec::new()))));
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

impl Registry {
    fn new(inherited: Option<Vec<PathBuf>>) -> Self {
        Registry { pid: getpid(), shared: Mutex::new(HashMap::new()), anchors: Mutex::new(HashMap::new()), inherited }
    }

    /// What a child forked now must not open: SQLite counts a process's locks per file, and a fork inherits the count
    /// but not the locks, so a connection opened there would take none.
    fn open_files(&self) -> Option<Vec<PathBuf>> {
        let mut files = self.inherited.clone()?;
        // Held by another thread at the moment of the fork, it is held for ever.
        for (path, shared) in self.shared.try_lock()?.iter() {
            let Some(shared) = shared.upgrade() else { continue };
            if shared.opened.load(Ordering::Acquire) {
                files.push(path.clone());
            }
            std::mem::forget(shared); // the parent's: never to be dropped here
        }
        Some(files)
    }

    fn refuse_inherited(&self, file: &Path) -> Result<()> {
        let is_it = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path == file);
        if self.inherited.as_ref().is_some_and(|files| !files.iter().any(is_it)) {
            return Ok(());
        }
        let reason = "this process was forked from one that had it open, whose locks it did not inherit; \
                      fork before opening it, or start processes by spawn";
        Err(Error::unavailable(file, reason))
    }

    fn current() -> Arc<Self> {
        let mut registry = REGISTRY.load_full();
        if registry.pid != getpid() {
            // Of two threads of the child that come here one wins, and the other takes the winner's.
            drop(REGISTRY.compare_and_swap(&registry, Arc::new(Registry::new(registry.open_files()))));
            std::mem::forget(registry); // never freed: a thread of the parent may have been changing it
            registry = REGISTRY.load_full();
        }
        registry
    }

    fn shared(path: &Path, on_host: bool) -> Arc<Shared> {
        let registry = Registry::current();
        let mut all = registry.shared.lock();
        if let Some(shared) = all.get(path).and_then(Weak::upgrade) {
            return shared;
        }
        all.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared {
            pid: getpid(),
            path: path.to_owned(),
            on_host,
            writer: Mutex::new(None),
            reader: Mutex::new(None),
            watcher: Mutex::new(None),
            opened: AtomicBool::new(false),
        });
        all.insert(path.to_owned(), Arc::downgrade(&shared));
        shared
    }
}

impl Database {
    /// A handle on the host's database (`None`) or on an explicit file, as sidecars and tests use.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let host = layout::host_db_path();
        let (path, on_host) = match path {
            None => (host?, true),
            Some(path) => {
                let path = std::path::absolute(path).map_err(|error| Error::unavailable(path, error))?;
                let on_host = host.is_ok_and(|host| host == path);
                (path, on_host)
            }
        };
        let shared = ArcSwap::new(Registry::shared(&path, on_host));
        let id = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        Ok(Database { path, on_host, id, closed: AtomicBool::new(false), shared })
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it, or where it would be.
    pub fn real_path(&self) -> Result<PathBuf> {
        Ok(match layout::locate(&self.path, self.on_host, false)? {
            Some(file) => file,
            None if self.on_host => self.path.with_file_name("db").join("bot-bottle.db"),
            None => self.path.clone(),
        })
    }

    /// Names this handle among the process's, for ending its waits.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Ends this handle's waits with [`Error::Closed`] and its use. The last handle's connections close with it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let shared = self.shared.load();
        if shared.pid == getpid()
            && let Some(watcher) = shared.watcher.lock().clone()
        {
            watcher.end_all(self.id);
        }
    }

    /// Whether [`Database::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn shared(&self) -> Result<Arc<Shared>> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let shared = self.shared.load_full();
        if shared.pid == getpid() {
            return Ok(shared);
        }
        // A forked child. The parent's connections are left as they are for ever: closing them here would drop locks
        // and write to files that are the parent's.
        std::mem::forget(shared);
        let own = Registry::shared(&self.path, self.on_host);
        std::mem::forget(self.shared.swap(own.clone()));
        Ok(own)
    }

    /// Runs `work` in one write transaction, makes sure its result is in the file others read, and rings.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>) -> Result<T> {
        self.shared()?.write(work)
    }

    /// Runs `work` on a connection that does not write, in one snapshot if it asks for a transaction; `None` while
    /// there is no database.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        self.shared()?.read(work)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.pid != getpid() {
            // Inherited by a fork: see `Database::shared`.
            std::mem::forget(self.writer.get_mut().take());
            std::mem::forget(self.reader.get_mut().take());
            std::mem::forget(self.watcher.get_mut().take());
        } else if let Some(watcher) = self.watcher.get_mut().take() {
            watcher.stop();
        }
    }
}

impl Shared {
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>) -> Result<T> {
        let busy = || Error::Busy { path: self.path.display().to_string() };
        let mut slot = self.writer.try_lock_for(BUSY_TIMEOUT).ok_or_else(busy)?;
        if !is_usable(&slot) {
            if is_outdated(&slot) || self.others_are_outdated() {
                self.abandon(&mut slot);
            }
            *slot = self.connect(true)?;
        }
        let Some(opened) = slot.as_mut() else {
            return Err(Error::unavailable(&self.path, "it vanished while it was being created; try again"));
        };
        let file = opened.file.clone();
        let done = opened.transact(work).map_err(|error| error.at(&file));
        let (result, rings) = match done {
            Ok(done) => done,
            // The file went away under the transaction: whatever SQLite made of that, this is what happened.
            Err(Error::Corrupt { .. } | Error::Unavailable { .. }) if !opened.is_current() => {
                self.abandon(&mut slot);
                return Err(Error::WriteLost { path: file.display().to_string() });
            }
            Err(error) => return Err(error),
        };
        // An acknowledged write is in the file others read (FACTS 4): two `stat`s turn silent loss into an error.
        if !opened.is_current() {
            self.abandon(&mut slot);
            return Err(Error::WriteLost { path: file.display().to_string() });
        }
        drop(slot);
        for queue in &rings.queues {
            bell::ring(&file, queue);
        }
        if rings.inbox {
            bell::ring(&file, bell::INBOX);
        }
        Ok(result)
    }

    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        let mut slot = self.reader.lock();
        if !is_usable(&slot) {
            drop(slot);
            self.close_outdated();
            slot = self.reader.lock();
        }
        if slot.is_none() {
            *slot = self.connect(false)?;
        }
        let Some(opened) = slot.as_ref() else { return Ok(None) };
        work(&opened.conn).map(Some).map_err(|error| error.at(&opened.file))
    }

    /// A connection of its own, for work that must not hold up others; `None` while there is no database.
    pub(crate) fn open(&self, create: bool) -> Result<Option<Opened>> {
        self.close_outdated();
        self.connect(create)
    }

    /// To be called once nothing outdated is open, see [`Shared::close_outdated`].
    pub(crate) fn connect(&self, create: bool) -> Result<Option<Opened>> {
        match layout::locate(&self.path, self.on_host, create)? {
            Some(file) => {
                Registry::current().refuse_inherited(&file)?;
                self.opened.store(true, Ordering::Release);
                Opened::open(file).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The file behind the path, if there is one.
    pub(crate) fn file(&self) -> Result<Option<PathBuf>> {
        layout::locate(&self.path, self.on_host, false)
    }

    /// Before anything is opened: SQLite keeps one index of the WAL per file and process, so beside a connection that
    /// still has a removed WAL open a new one would read the new WAL by the old one's index.
    pub(crate) fn close_outdated(&self) {
        // Whoever holds the writer checks it as it lets go.
        let outdated = self.writer.try_lock().is_some_and(|slot| is_outdated(&slot)) || self.others_are_outdated();
        if outdated {
            let mut writer = self.writer.lock();
            self.abandon(&mut writer);
        }
    }

    fn others_are_outdated(&self) -> bool {
        is_outdated(&self.reader.lock()) || self.watcher.lock().clone().is_some_and(|watcher| watcher.is_outdated())
    }

    /// Closes every connection, all together: SQLite counts a process's locks per file, so one that stays open would
    /// hand lost locks on to the next.
    fn abandon(&self, writer: &mut MutexGuard<'_, Option<Opened>>) {
        let mut reader = self.reader.lock();
        let watcher = self.watcher.lock().clone();
        let mut watching = watcher.as_ref().map(|watcher| watcher.connection());
        drop((writer.take(), reader.take(), watching.as_mut().map(|slot| slot.take())));
    }

    /// The process's watcher of this file, started with the first wait.
    pub(crate) fn watcher(self: &Arc<Self>) -> Result<Arc<Watcher>> {
        let mut slot = self.watcher.lock();
        if let Some(watcher) = slot.as_ref() {
            return Ok(watcher.clone());
        }
        let watcher = Watcher::start(Arc::downgrade(self)).map_err(|error| Error::unavailable(&self.path, error))?;
        Ok(slot.insert(watcher).clone())
    }
}

/// A connection, and which files it reads and writes.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) file: PathBuf,
    wal: PathBuf,
    identity: (Option<FileId>, Option<FileId>),
    pub(crate) turns: Option<Turns>,
    /// After `conn`, as fields are dropped in order.
    anchor: Option<Arc<Anchor>>,
}

/// Whether it is open, on the files that are at its paths.
fn is_usable(slot: &Option<Opened>) -> bool {
    slot.as_ref().is_some_and(Opened::is_current)
}

/// Whether it is open, on files that are not at its paths any more.
fn is_outdated(slot: &Option<Opened>) -> bool {
    slot.as_ref().is_some_and(|opened| !opened.is_current())
}

/// Device and inode: which file it is, whatever its name.
pub(crate) type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        use rustix::io::Errno;
        // For nothing but the inode: Linux (6.13 on) gives a file whose times were looked at a new time with its next
        // write, which every sync of the WAL would then have to write too, a third more for each commit.
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
            Ok(found) => return Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
            Err(Errno::NOSYS | Errno::PERM) => {} // an old kernel, or a sandbox that does not know the call
            Err(_) => return None,
        }
    }
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

impl Opened {
    /// Guards, then pragmas, then migrations: the order is the point.
    fn open(file: PathBuf) -> Result<Self> {
        mount::check(&file)?;
        let wal = {
            let mut name = file.as_os_str().to_owned();
            name.push("-wal");
            PathBuf::from(name)
        };
        let before = file_id(&file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&file, flags).map_err(|error| Error::from(error).at(&file))?;
        let turns = Turns::beside(&file);
        prepare(&mut conn, turns.as_ref()).map_err(|error| error.at(&file))?;
        let identity = (before, file_id(&wal));
        let anchor = before.and_then(|id| Anchor::hold(&Registry::current().anchors, &file, id));
        Ok(Opened { conn, file, wal, identity, turns, anchor })
    }

    /// Whether database and WAL at their paths are still the files this connection has open.
    pub(crate) fn is_current(&self) -> bool {
        (file_id(&self.file), file_id(&self.wal)) == self.identity
    }

    fn transact<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let _turn = self.turns.as_ref().map(Turns::take);
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&tx)?;
        tx.commit()?;
        Ok(result)
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

fn prepare(conn: &mut Connection, turns: Option<&Turns>) -> Result<()> {
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
    conn.pragma_update(None, "journal_size_limit", 16 << 20)?;
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

#[cfg(test)]
mod cost;
