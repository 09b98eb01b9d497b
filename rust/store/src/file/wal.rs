//! How is the WAL kept short, and how does what is in it get to the disk?

use std::cell::{Cell, OnceCell};
use std::ffi::c_int;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks;

use crate::file::identity::{FileId, look};
use crate::file::layout;
use crate::file::turn::{Turn, Turns};
use crate::patience::Patience;

/// What the WAL is cut back to when it starts anew; SQLite's own checkpoints keep it at a quarter of that.
pub(crate) const WAL_LIMIT: u32 = 16 << 20;

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

/// The WAL that one connection writes to.
pub(crate) struct Wal {
    path: PathBuf,
    id: Option<FileId>,
    /// Open for syncing it from outside.
    file: OnceCell<Arc<File>>,
    /// Its length when it was last looked at, and the time before.
    bytes: Cell<(u64, u64)>,
    /// Its frames after the last commit, and when a checkpoint was last begun.
    frames: Arc<AtomicU32>,
    checkpointed: Cell<u32>,
}

impl Wal {
    /// That of a connection on `database` that has just been opened.
    pub(crate) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-wal");
        let path = PathBuf::from(name);
        let (id, bytes) = look(&path).unzip();
        let bytes = bytes.unwrap_or(0);
        Wal {
            path,
            id,
            file: OnceCell::new(),
            bytes: Cell::new((bytes, bytes)),
            frames: Arc::default(),
            checkpointed: Cell::new(0),
        }
    }

    /// Where it is, and which file that was when the connection was opened.
    pub(crate) fn place(&self) -> (PathBuf, Option<FileId>) {
        (self.path.clone(), self.id)
    }

    /// Whether it is still what is at its path.
    pub(crate) fn is_current(&self) -> bool {
        let (id, bytes) = look(&self.path).unzip();
        self.bytes.set((bytes.unwrap_or(0), self.bytes.get().0));
        id == self.id
    }

    /// From now on [`Wal::checkpoint`] does what SQLite would do inside a commit, before anybody hears of it.
    pub(crate) fn checkpoint_apart(&self, conn: &mut Connection) {
        let frames = self.frames.clone();
        let count = move |_: &mut hooks::Wal, count: c_int| {
            frames.store(count.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        // Refused, it leaves SQLite to it.
        let _ = conn.wal_hook(Some(count));
    }

    /// After a commit: ends its turn, and copies the WAL into the database if it has become long. If others wait, before
    /// the turn is over, as its syncs would make all of theirs longer; if not, whoever comes now need not stand still.
    pub(crate) fn checkpoint(&self, conn: &Connection, turn: Option<Turn>) {
        let frames = self.frames.load(Ordering::Relaxed);
        // Fewer than before: the WAL has begun anew.
        let last = Some(self.checkpointed.get()).filter(|last| *last <= frames).unwrap_or(0);
        self.checkpointed.set(last);
        if frames < CHECKPOINT || frames - last < CHECKPOINT_AGAIN {
            return;
        }
        self.checkpointed.set(frames);
        let _turn = turn.filter(Turn::is_wanted);
        let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Whether it has just grown past the next step beyond its limit.
    pub(crate) fn is_long(&self) -> bool {
        let (now, before) = self.bytes.get();
        now > WAL_LIMIT.into() && now / WAL_STEP > before / WAL_STEP
    }

    /// SQLite's own checkpoints never wait, so where there is always some reader (many waiters look, each for an instant)
    /// the WAL never starts anew. This one holds off writers until it can. A reader that stays longer than it has
    /// patience is left alone: the next step tries again. Whether all of the WAL is in the database now, on the disk.
    pub(crate) fn restart(&self, conn: &Connection, turns: Option<&Turns>, _patience: &Patience) -> bool {
        let Ok(_turn) = turns.map(Turns::take).transpose() else { return false };
        conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)) == Ok(false)
    }

    /// For syncing it. `None` if the one at its path is another.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        if self.file.get().is_none() {
            // SQLite has no locks on it that closing it would drop.
            let file = layout::open_to_read(&self.path).ok()?;
            let found = file.metadata().ok()?;
            if Some((found.dev(), found.ino())) != self.id {
                return None;
            }
            let _ = self.file.set(Arc::new(file));
        }
        self.file.get().cloned()
    }
}
