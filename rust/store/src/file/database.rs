//! What is a handle on the file?

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::layout;
use crate::file::shared::{Registry, Shared};
use crate::file::transaction::Transaction;
use crate::file::wal::Syncs;
use crate::process::PerProcess;

/// The one SQLite file. Cheap to make: it opens nothing until it is used, and all of a process's handles on one path
/// share their connections. A forked child never touches its parent's, and is refused what its parent had open.
pub struct Database {
    path: PathBuf,
    /// The host's well-known path, if it is the host's, by whichever name.
    place: PathBuf,
    on_host: bool,
    id: u64,
    closed: AtomicBool,
    shared: PerProcess<Arc<Shared>>,
    keys_dir: OnceLock<PathBuf>,
}

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

impl Database {
    /// A handle on the host's database (`None`) or on an explicit file, as sidecars and tests use.
    pub fn new(path: Option<&Path>) -> Result<Self> {
        let host = layout::host_db_path();
        let path = match path {
            None => host.clone()?,
            // SQLite's name for a database of one connection: nobody else could ever answer.
            Some(path) if path == Path::new(":memory:") => {
                let reason = "cannot be in memory, where no other process reads it; give a file's path";
                return Err(Error::input("db_path", reason));
            }
            Some(path) => std::path::absolute(path).map_err(|error| Error::unavailable(path, error))?,
        };
        let host = host.ok().filter(|host| path == *host || path == layout::real_host_file(host));
        let on_host = host.is_some();
        let place = host.unwrap_or_else(|| path.clone());
        let shared = PerProcess::new(Registry::shared(&place, on_host));
        let id = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        Ok(Database { path, place, on_host, id, closed: AtomicBool::new(false), shared, keys_dir: OnceLock::new() })
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it, or where it would be.
    pub fn real_path(&self) -> Result<PathBuf> {
        Ok(match layout::locate(&self.place, self.on_host, false)? {
            Some(file) => file,
            None if self.on_host => layout::real_host_file(&self.place),
            None => self.path.clone(),
        })
    }

    /// Where the host that it belongs to keeps its keys. Found once: a link that appears where the file was leads nowhere.
    pub(crate) fn keys_dir(&self) -> &Path {
        self.keys_dir.get_or_init(|| layout::keys_dir(&self.place, self.on_host))
    }

    /// Whether it is the host's, whose directory sidecars mount.
    pub(crate) fn is_on_host(&self) -> bool {
        self.on_host
    }

    /// Names this handle among the process's, for ending its waits.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Ends this handle's waits with [`Error::Closed`] and its use. The last handle's connections close with it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(shared) = self.shared.own()
            && let Some(guest) = shared.any_guest()
        {
            guest.end_all(self.id);
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
        Ok(Arc::clone(&self.shared.get(|_| Registry::shared(&self.place, self.on_host))))
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
