//! What do all handles of a process on one file share, so that an acknowledged write is in the file others read?

use std::any::Any;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::connection::{Opened, is_outdated, is_usable};
use crate::file::identity::file_id;
use crate::file::slot::{Guard, Slot, this_thread};
use crate::file::transaction::Transaction;
use crate::file::turn::survive_lost_pages;
use crate::file::wal::{Syncs, WAL_PATIENCE};
use crate::file::{layout, migrations};
use crate::patience::{self, BUSY_TIMEOUT};
use crate::process::{Own, PerProcess};

/// What the handles of one process on one file share.
pub(crate) struct Shared {
    pid: Pid,
    pub(crate) path: PathBuf,
    on_host: bool,
    /// The thread that has a transaction of another program's under way, as [`this_thread`] names it.
    transaction_of: AtomicUsize,
    /// For writes. Reads have their own, so that they never stand behind a writer that waits its turn.
    pub(crate) writer: Slot,
    pub(crate) reader: Slot,
    guest: OnceLock<Arc<dyn Guest>>,
    /// Whether there was ever a connection.
    opened: AtomicBool,
    /// Whether the WAL has a part that could not be synced.
    torn: AtomicBool,
}

/// Who keeps a connection of its own on the file, beside reader and writer, for as long as the process has any.
pub(crate) trait Guest: Any + Send + Sync {
    /// Whether its connection has files open that are not at their paths any more.
    fn is_outdated(&self) -> bool;

    /// Closes its connection together with the others: `close_others` is called while it can neither be used nor opened.
    fn abandon(&self, close_others: &mut dyn FnMut());

    /// Ends what it does for one handle.
    fn end_all(&self, handle: u64);

    /// Ends all it does, for good.
    fn stop(&self);
}

/// Why a forked child is refused what its parent has open.
pub(crate) const INHERITED: &str = "this process was forked from one that had it open, whose locks it did not inherit; \
                                    fork before opening it, or start processes by spawn";

/// Shared state by the first path it was opened by, for this process.
pub(crate) struct Registry {
    shared: Mutex<HashMap<PathBuf, Weak<Shared>>>,
    /// What the processes this one was forked from had open; `None` if that cannot be told, so anything.
    inherited: Option<Vec<PathBuf>>,
}

static REGISTRY: LazyLock<PerProcess<Registry>> = LazyLock::new(|| PerProcess::new(Registry::new(Some(Vec::new()))));

impl Registry {
    fn new(inherited: Option<Vec<PathBuf>>) -> Self {
        Registry { shared: Mutex::new(HashMap::new()), inherited }
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
        Err(Error::unavailable(file, INHERITED))
    }

    fn current() -> Arc<Own<Self>> {
        REGISTRY.get(|parent| Registry::new(parent.open_files()))
    }

    pub(crate) fn shared(path: &Path, on_host: bool) -> Arc<Shared> {
        let registry = Registry::current();
        let mut all = registry.shared.lock();
        if let Some(shared) = all.get(path).and_then(Weak::upgrade) {
            return shared;
        }
        // By another name, through a link or a mount, it is the same file, and SQLite counts locks by file.
        let place = layout::place(path, on_host);
        let same = |shared: &Arc<Shared>| place.is_some() && layout::place(&shared.path, shared.on_host) == place;
        if let Some(shared) = all.values().filter_map(Weak::upgrade).find(same) {
            return shared;
        }
        all.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared {
            pid: getpid(),
            path: path.to_owned(),
            on_host,
            transaction_of: AtomicUsize::new(0),
            writer: Slot::default(),
            reader: Slot::default(),
            guest: OnceLock::new(),
            opened: AtomicBool::new(false),
            torn: AtomicBool::new(false),
        });
        all.insert(path.to_owned(), Arc::downgrade(&shared));
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.pid != getpid() {
            // Inherited by a fork: closing them here would drop locks and write to files that are the parent's.
            std::mem::forget(self.writer.get_mut().take());
            std::mem::forget(self.reader.get_mut().take());
            std::mem::forget(self.guest.take());
        } else if let Some(guest) = self.guest.take() {
            guest.stop();
        }
    }
}

impl Shared {
    pub(crate) fn write<T>(
        &self,
        syncs: Syncs,
        work: impl FnOnce(&Transaction<'_>) -> Result<(T, Rings)>,
    ) -> Result<T> {
        self.refuse_inside_transaction()?;
        let _patience = patience::begin();
        let mut slot = self.writer.lock(&self.path)?;
        if !is_usable(&slot) {
            if slot.is_some() || self.others_are_outdated()? {
                self.abandon(&mut slot)?;
            }
            *slot = self.connect(true)?;
            slot.iter_mut().for_each(|opened| opened.wal.checkpoint_apart(&mut opened.conn));
        }
        let Some(opened) = slot.as_ref() else {
            return Err(Error::unavailable(&self.path, "it vanished while it was being created; try again"));
        };
        let wal = if syncs == Syncs::AfterTurn { opened.wal.file() } else { None };
        let syncs = if wal.is_some() { Syncs::AfterTurn } else { Syncs::InTurn };
        if self.torn.load(Ordering::Acquire) {
            self.mend(opened).map_err(|error| if patience::was_interrupted() { Error::Interrupted } else { error })?;
        }
        let file = opened.file.clone();
        let done = opened.transact(syncs, work, |(_, rings)| rings.stir(&file)).map_err(|error| error.at(&file));
        let ((result, rings), turn) = match done {
            Ok(done) => done,
            // The file went away under the transaction: whatever SQLite made of that, this is what happened.
            Err(Error::Corrupt { .. } | Error::Unavailable { .. }) if !opened.is_current() => {
                let _ = self.abandon(&mut slot); // or the next use does it
                return Err(Error::WriteLost { path: file.display().to_string() });
            }
            Err(error) => return Err(error),
        };
        // It is written, so no signal takes that back any more.
        let quiet = patience::limit_quietly(BUSY_TIMEOUT);
        if wal.is_none() {
            // First, as who waits may begin to wake up. A ring says no more than that it is worth a look.
            rings.ring(&file);
        }
        // An acknowledged write is in the file others read: two `stat`s turn silent loss into an error.
        if !opened.is_current() {
            let _ = self.abandon(&mut slot);
            return Err(Error::WriteLost { path: file.display().to_string() });
        }
        opened.wal.checkpoint(&opened.conn, turn);
        if opened.wal.is_long() {
            // Never ended by a signal: what was written is written.
            opened.wal.restart(&opened.conn, opened.turns.as_ref(), &patience::limit_quietly(WAL_PATIENCE));
        }
        if let Some(wal) = wal {
            let places = opened.places();
            drop(slot); // other threads' writes need not wait
            if wal.sync_data().is_err() {
                self.torn.store(true, Ordering::Release);
                // An error in any case unless it can be mended, and a signal may bring it sooner.
                drop(quiet);
                let slot = self.writer.lock(&self.path)?;
                let lost = || Error::WriteLost { path: file.display().to_string() };
                self.mend(slot.as_ref().ok_or_else(lost)?)?;
            }
            // Again, as a sync takes long enough for somebody to come between. The next write finds it out for itself.
            if places.iter().any(|(path, id)| file_id(path) != *id) {
                return Err(Error::WriteLost { path: file.display().to_string() });
            }
            rings.ring(&file);
        }
        Ok(result)
    }

    /// The disk refused a part of the WAL that is committed: after a power cut nothing behind it would be found. The kernel
    /// still has it, though, and a checkpoint puts it into the database.
    fn mend(&self, opened: &Opened) -> Result<()> {
        let patience = patience::limit(BUSY_TIMEOUT);
        // Twice: SQLite's own descriptor may have to hear of the error, too.
        if (0..2).any(|_| opened.wal.restart(&opened.conn, opened.turns.as_ref(), &patience)) {
            self.torn.store(false, Ordering::Release);
            return Ok(());
        }
        Err(Error::unavailable(
            &opened.file,
            "its disk does not take what is written; look at the disk, nothing is queued until then",
        ))
    }

    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        let _patience = patience::begin();
        self.read_on(work)
    }

    /// The same, but [`Error::Busy`] where other threads read for longer than that.
    pub(crate) fn read_within<T>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        let _patience = patience::limit(patience);
        self.read_on(work)
    }

    fn read_on<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        let mut slot = self.reader.lock(&self.path)?;
        if !is_usable(&slot) {
            drop(slot);
            self.close_outdated()?;
            slot = self.reader.lock(&self.path)?;
        }
        if slot.is_none() {
            *slot = self.connect(false)?;
        }
        let Some(opened) = slot.as_ref() else { return Ok(None) };
        let result = work(&opened.conn).map_err(|error| error.at(&opened.file));
        // Whatever it says: it may have been read from an index of the WAL with a hole in it. The next use opens it anew.
        opened.check_whole()?;
        if let Err(Error::Unavailable { .. }) = result {
            // The schema may have gone from under it. A later release's is told as such; the next use looks at it anew.
            let newer = migrations::versions(&opened.conn).and_then(|found| migrations::refuse_newer(&found));
            let refused = newer.err().filter(|error| matches!(error, Error::SchemaTooNew { .. }));
            *slot = None;
            return refused.map_or(result.map(Some), Err);
        }
        result.map(Some)
    }

    /// A write of ours would wait for this thread's own transaction, which waits for it to end.
    pub(crate) fn refuse_inside_transaction(&self) -> Result<()> {
        if self.transaction_of.load(Ordering::Relaxed) != this_thread() {
            return Ok(());
        }
        let reason = "would wait for this thread's own transaction() to end; make it before or after that, \
                      or let the transaction's execute() write what is to be written with it";
        Err(Error::input("this write", reason))
    }

    /// From now on, or no longer, this thread has a transaction of its own.
    pub(crate) fn note_transaction(&self, under_way: bool) {
        self.transaction_of.store(if under_way { this_thread() } else { 0 }, Ordering::Relaxed);
    }

    /// A connection of its own, for work that must not hold up others; `None` while there is no database.
    pub(crate) fn open(&self, create: bool) -> Result<Option<Opened>> {
        let _patience = patience::begin();
        self.close_outdated()?;
        self.connect(create)
    }

    /// To be called once nothing outdated is open, see [`Shared::close_outdated`].
    pub(crate) fn connect(&self, create: bool) -> Result<Option<Opened>> {
        match layout::locate(&self.path, self.on_host, create)? {
            Some(file) => {
                Registry::current().refuse_inherited(&file)?;
                if self.on_host {
                    survive_lost_pages();
                }
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
    pub(crate) fn close_outdated(&self) -> Result<()> {
        // Whoever holds the writer checks it as it lets go.
        let outdated = self.writer.try_lock().is_some_and(|slot| is_outdated(&slot)) || self.others_are_outdated()?;
        if outdated {
            self.abandon_all()?;
        }
        Ok(())
    }

    fn others_are_outdated(&self) -> Result<bool> {
        Ok(is_outdated(&*self.reader.lock(&self.path)?) || self.guest.get().is_some_and(|guest| guest.is_outdated()))
    }

    /// Closes every connection, for whoever is about to put another file into the place of theirs.
    pub(crate) fn abandon_all(&self) -> Result<()> {
        let _patience = patience::begin();
        self.abandon(&mut self.writer.lock(&self.path)?)
    }

    /// Closes every connection, all together: SQLite counts a process's locks per file, so one that stays open would
    /// hand lost locks on to the next.
    fn abandon(&self, writer: &mut Guard<'_>) -> Result<()> {
        let mut reader = self.reader.lock(&self.path)?;
        let mut close = || drop((writer.take(), reader.take()));
        match self.guest.get() {
            Some(guest) => guest.abandon(&mut close),
            None => close(),
        }
        Ok(())
    }

    /// The guest of this type, made by its first use. There is one type of guest only.
    pub(crate) fn guest<G: Guest + Default>(&self) -> Result<Arc<G>> {
        let guest: Arc<dyn Any + Send + Sync> = self.guest.get_or_init(|| Arc::new(G::default())).clone();
        guest.downcast().map_err(|_| Error::unavailable(&self.path, "another kind of guest is on it"))
    }

    /// The guest, if there is one.
    pub(crate) fn any_guest(&self) -> Option<&Arc<dyn Guest>> {
        self.guest.get()
    }
}
