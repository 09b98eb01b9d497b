//! How do all handles of a process share their connections, so that an acknowledged write is in the file others read?

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};
use crate::file::anchor::Anchors;
use crate::file::connection::{Opened, Syncs, Transaction, WAL_PATIENCE, is_outdated, is_usable};
use crate::file::{bell, layout};
use crate::rules::BUSY_TIMEOUT;
use crate::wait::sleeper::Bunks;
use crate::wait::watcher::Watcher;

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
    pub(crate) writer: Mutex<Option<Opened>>,
    pub(crate) reader: Mutex<Option<Opened>>,
    watcher: Mutex<Option<Arc<Watcher>>>,
    pub(crate) bunks: Bunks,
    /// Whether there was ever a connection.
    opened: AtomicBool,
    /// Whether the WAL has a part that could not be synced.
    torn: AtomicBool,
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

    /// Before the commit: who waits for an answer is out of its sleep, and its caches are warm from looking in vain, when
    /// the bell rings for good.
    fn stir(&self, database: &Path) {
        for queue in &self.queues {
            bell::ring(database, queue);
        }
    }

    fn ring(&self, database: &Path) {
        self.stir(database);
        if self.inbox {
            bell::ring(database, bell::INBOX);
        }
    }
}

/// Shared state by path, for this process. Replaced, never locked, by a forked child: a thread of the parent may have
/// held the lock at the moment of the fork.
pub(crate) struct Registry {
    pid: Pid,
    shared: Mutex<HashMap<PathBuf, Weak<Shared>>>,
    pub(crate) anchors: Anchors,
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

    pub(crate) fn current() -> Arc<Self> {
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
            bunks: Bunks::default(),
            opened: AtomicBool::new(false),
            torn: AtomicBool::new(false),
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
        self.shared()?.write(Syncs::InTurn, work)
    }

    /// The same, for what others may read before it is on the disk: [`Syncs::AfterTurn`].
    pub(crate) fn write_then_sync<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>) -> Result<T> {
        self.shared()?.write(Syncs::AfterTurn, work)
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
    fn write<T>(&self, syncs: Syncs, work: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>) -> Result<T> {
        let mut slot = self.writer.try_lock_for(BUSY_TIMEOUT).ok_or_else(|| self.busy())?;
        if !is_usable(&slot) {
            if slot.is_some() || self.others_are_outdated() {
                self.abandon(&mut slot);
            }
            *slot = self.connect(true)?;
            slot.iter_mut().for_each(Opened::checkpoint_apart);
        }
        let Some(opened) = slot.as_ref() else {
            return Err(Error::unavailable(&self.path, "it vanished while it was being created; try again"));
        };
        let wal = if syncs == Syncs::AfterTurn { opened.wal_file() } else { None };
        let syncs = if wal.is_some() { Syncs::AfterTurn } else { Syncs::InTurn };
        if self.torn.load(Ordering::Acquire) {
            self.mend(opened)?;
        }
        let file = opened.file.clone();
        let done = opened.transact(syncs, work, |(_, rings)| rings.stir(&file)).map_err(|error| error.at(&file));
        let ((result, rings), turn) = match done {
            Ok(done) => done,
            // The file went away under the transaction: whatever SQLite made of that, this is what happened.
            Err(Error::Corrupt { .. } | Error::Unavailable { .. }) if !opened.is_current() => {
                self.abandon(&mut slot);
                return Err(Error::WriteLost { path: file.display().to_string() });
            }
            Err(error) => return Err(error),
        };
        if wal.is_none() {
            // First, as who waits may begin to wake up. A ring says no more than that it is worth a look.
            rings.ring(&file);
        }
        // An acknowledged write is in the file others read (FACTS 4): two `stat`s turn silent loss into an error.
        if !opened.is_current() {
            self.abandon(&mut slot);
            return Err(Error::WriteLost { path: file.display().to_string() });
        }
        opened.checkpoint(turn);
        if opened.wal_is_long() {
            opened.restart_wal(WAL_PATIENCE);
        }
        if let Some(wal) = wal {
            drop(slot); // other threads' writes need not wait
            if wal.sync_data().is_err() {
                self.torn.store(true, Ordering::Release);
                let slot = self.writer.try_lock_for(BUSY_TIMEOUT).ok_or_else(|| self.busy())?;
                let lost = || Error::WriteLost { path: file.display().to_string() };
                self.mend(slot.as_ref().ok_or_else(lost)?)?;
            }
            rings.ring(&file);
        }
        Ok(result)
    }

    /// The disk refused a part of the WAL that is committed: after a power cut nothing behind it would be found. The kernel
    /// still has it, though, and a checkpoint puts it into the database.
    fn mend(&self, opened: &Opened) -> Result<()> {
        // Twice: SQLite's own descriptor may have to hear of the error, too.
        if opened.restart_wal(BUSY_TIMEOUT) || opened.restart_wal(BUSY_TIMEOUT) {
            self.torn.store(false, Ordering::Release);
            return Ok(());
        }
        Err(Error::unavailable(
            &opened.file,
            "its disk does not take what is written; look at the disk, nothing is queued until then",
        ))
    }

    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        self.read_on(self.reader.lock(), work)
    }

    /// The same, but [`Error::Busy`] where other threads read for longer than that.
    pub(crate) fn read_within<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        self.read_on(self.reader.try_lock_for(patience).ok_or_else(|| self.busy())?, work)
    }

    fn read_on<'s, T>(
        &'s self,
        mut slot: MutexGuard<'s, Option<Opened>>,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        if !is_usable(&slot) {
            drop(slot);
            self.close_outdated();
            slot = self.reader.lock();
        }
        if slot.is_none() {
            *slot = self.connect(false)?;
        }
        let Some(opened) = slot.as_ref() else { return Ok(None) };
        let result = work(&opened.conn).map_err(|error| error.at(&opened.file));
        if let Err(Error::Unavailable { .. }) = result {
            *slot = None; // the schema may have gone from under it: the next use looks at that anew
        }
        result.map(Some)
    }

    fn busy(&self) -> Error {
        Error::Busy { path: self.path.display().to_string() }
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
