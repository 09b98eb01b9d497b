//! What holds the file while SQLite's own hold on it may be lost?
//!
//! POSIX locks are the process's: whoever in it closes any descriptor on the file, such as a second copy of SQLite, drops
//! the ones that SQLite holds. Then another program takes itself for the last to close, checkpoints, and removes the WAL
//! into which this process goes on committing. A `stat` after the commit notices a WAL that is gone, not one that
//! goes a moment later. So each process also holds the lock that SQLite holds while it is connected (shared, on SQLite's
//! shared bytes; sqlite.org/lockingv3.html) in a way that nobody else in it can drop: as an open file description lock, of
//! a descriptor that stays open as long as any connection. Not on macOS, where the `stat` has to do.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

use crate::file::identity::FileId;
use crate::file::layout;
use crate::file::turn::lost_pages;
use crate::process::{Own, PerProcess};

type Anchors = Mutex<HashMap<FileId, Weak<Anchor>>>;

/// The anchors of a process, by file.
static ANCHORS: LazyLock<PerProcess<Anchors>> = LazyLock::new(|| PerProcess::new(Anchors::default()));

fn anchors() -> Arc<Own<Anchors>> {
    ANCHORS.get(|_| Anchors::default())
}

/// Held by each connection; the last one's is let go before SQLite closes, which may then remove the WAL itself.
pub(crate) struct Anchor {
    file: File,
    /// How many pages of mapped files were lost before the first of these connections was opened.
    lost: u64,
}

impl Anchor {
    /// Holds the file that a connection is open on, which was opened after `lost` pages were lost. `None` if another one is
    /// at the path by now.
    pub(crate) fn hold(path: &Path, id: FileId, lost: u64) -> Option<Arc<Self>> {
        let anchors = anchors();
        let mut all = anchors.lock();
        let anchor = match all.get(&id).and_then(Weak::upgrade) {
            Some(anchor) => anchor,
            None => {
                let file = layout::open_to_read(path).ok()?;
                // Closed here, it would drop the locks of a connection; of another file there are none.
                if file.metadata().ok().map(|data| (data.dev(), data.ino())) != Some(id) {
                    return None;
                }
                all.retain(|_, anchor| anchor.strong_count() > 0);
                let anchor = Arc::new(Anchor { file, lost });
                all.insert(id, Arc::downgrade(&anchor));
                anchor
            }
        };
        anchor.set(true);
        Some(anchor)
    }

    /// How many pages were lost before the connections on a file that are open already, if there are any.
    pub(crate) fn lost_before(id: FileId) -> Option<u64> {
        anchors().lock().get(&id).and_then(Weak::upgrade).map(|anchor| anchor.lost)
    }

    /// Whether the connections' index of the WAL is still the one that others see. They share it with each other: it is not,
    /// until all of them are closed, once one has lost a page of it.
    pub(crate) fn is_whole(&self) -> bool {
        lost_pages() == self.lost
    }

    /// Before its connection is closed: SQLite may need the file for itself.
    pub(crate) fn let_go(self: &Arc<Self>) {
        let anchors = anchors();
        let _all = anchors.lock();
        if Arc::strong_count(self) == 1 {
            self.set(false);
        }
    }

    /// No error: without it, as on an old kernel, there is the `stat`.
    #[cfg(target_os = "linux")]
    fn set(&self, held: bool) {
        use nix::fcntl::{FcntlArg, fcntl};
        use nix::libc::{F_RDLCK, F_UNLCK, SEEK_SET, flock};
        /// Sources: `PENDING_BYTE`, `SHARED_FIRST` and `SHARED_SIZE` of SQLite's os.h; they are part of the file format.
        const SHARED_FIRST: i64 = 0x4000_0000 + 2;
        const SHARED_SIZE: i64 = 510;
        let lock = flock {
            l_type: if held { F_RDLCK } else { F_UNLCK } as _,
            l_whence: SEEK_SET as _,
            l_start: SHARED_FIRST as _,
            l_len: SHARED_SIZE as _,
            l_pid: 0,
        };
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
    }

    #[cfg(not(target_os = "linux"))]
    fn set(&self, _held: bool) {
        let _ = &self.file;
    }
}
