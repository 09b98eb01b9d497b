//! Where do processes that know nothing of each other see the same two numbers?
//!
//! In a small file beside the database that each of them maps. The kernel keeps what waits on such a number by the file's
//! inode, so it is one queue across containers, users and PID namespaces. Mapping is what needs `unsafe`, and this is the
//! only file of the crate that may use it: whoever writes to the file can put any numbers into it, which is no harm to
//! memory, or cut it short, which is: touching a page that the file has lost ends the process (SIGBUS). So each access
//! asks for its length first. What is left is an instant; the `-shm` file, which SQLite maps, never asks.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_short};
use std::fs::{File, symlink_metadata};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU32;

use nix::libc::{self, F_OFD_GETLK, F_OFD_SETLK, F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, fcntl};
use rustix::fs::{FlockOperation, flock};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::file::layout;

/// What the file begins with, in this machine's byte order. Zeros at first, but any numbers will do.
#[repr(C)]
pub(super) struct Counters {
    /// The next ticket to be drawn.
    pub(super) tickets: AtomicU32,
    /// The ticket whose turn it is; the same number if it is nobody's.
    pub(super) serving: AtomicU32,
}

/// How long the file is made; only its beginning means something.
const LENGTH: usize = 4096;

/// The file, open and mapped.
pub(super) struct Page {
    file: File,
    id: (u64, u64),
    address: NonNull<Counters>,
}

// SAFETY: of what is behind the address nobody gets more than references to atomics, and it stays mapped until `drop`.
unsafe impl Send for Page {}
// SAFETY: the same.
unsafe impl Sync for Page {}

impl Page {
    /// Maps the file, made (0600) where it is missing.
    pub(super) fn open(path: &Path, database: &Path) -> Result<Self> {
        let file = layout::open_beside(path, database)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Error::other("it is not a regular file"));
        }
        if found.len() < LENGTH as u64 {
            grow(&file)?;
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so it is memory that nobody has; the descriptor is open.
        let address = unsafe { mmap(null_mut(), size_of::<Counters>(), access, MapFlags::SHARED, &file, 0)? };
        let address = NonNull::new(address.cast()).ok_or_else(|| Error::other("it was mapped at address zero"))?;
        Ok(Page { file, id: (found.dev(), found.ino()), address })
    }

    /// Whether it is what others find at the path, and not a file that was deleted, replaced or cut short.
    pub(super) fn is_sound_at(&self, path: &Path) -> bool {
        symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.id && found.len() >= LENGTH as u64)
    }

    /// `None` if the file was cut short. Not to be kept over a sleep.
    pub(super) fn counters(&self) -> Option<&Counters> {
        if self.file.metadata().ok()?.len() < size_of::<Counters>() as u64 {
            return None;
        }
        // SAFETY: mapped as long as `self` lives, at the beginning of a page, hence aligned; a type for which every bit
        // pattern is valid and that is only changed atomically, here and in other processes.
        Some(unsafe { self.address.as_ref() })
    }

    /// Shows the other processes that this one is at work, until [`Page::unmark`] or its death, whichever is first.
    /// Shared: who was passed over may be at work too. It is only a hint, so a refusal is no error.
    pub(super) fn mark(&self) {
        let _ = flock(&self.file, FlockOperation::NonBlockingLockShared);
    }

    /// Let go explicitly: a child forked meanwhile has the same open file, so closing it here would leave it marked.
    pub(super) fn unmark(&self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }

    /// Shows the other processes that whoever draws this ticket is alive, until [`Page::let_go`] or its death. Shared, as
    /// two may be about to draw it. One ticket for each `Page` at a time: its own it does not see.
    pub(super) fn hold(&self, ticket: u32) {
        self.lock(F_OFD_SETLK, F_RDLCK, ticket);
    }

    /// Explicitly, for the same reason as [`Page::unmark`].
    pub(super) fn let_go(&self, ticket: u32) {
        self.lock(F_OFD_SETLK, F_UNLCK, ticket);
    }

    /// Whether another holds this ticket; also where the system cannot tell.
    pub(super) fn is_held(&self, ticket: u32) -> bool {
        self.lock(F_OFD_GETLK, F_WRLCK, ticket) != Some(F_UNLCK as _)
    }

    /// A lock on one byte behind the file's end for each ticket, of the open file and not of the process. The kind that is
    /// there afterwards; `None` if it was refused.
    fn lock(&self, command: c_int, kind: c_int, ticket: u32) -> Option<c_short> {
        let mut lock = libc::flock {
            l_type: kind as _,
            l_whence: SEEK_SET as _,
            l_start: LENGTH as i64 + i64::from(ticket),
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, and the kernel only writes to the struct it is given.
        let done = unsafe { fcntl(self.file.as_raw_fd(), command, &mut lock) };
        (done != -1).then_some(lock.l_type)
    }

    /// Whether another is at work.
    pub(super) fn is_marked(&self) -> bool {
        let free = flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        self.unmark();
        !free
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: what `open` mapped, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), size_of::<Counters>()) };
    }
}

/// Writes the part that means nothing, so that two processes that do this at once, or one that finds the counters in use,
/// harm nothing. Written and not just lengthened: a full disk is an error here, but would be a SIGBUS in a hole of the file.
fn grow(file: &File) -> Result<()> {
    let counters = size_of::<Counters>();
    file.write_all_at(&[0; LENGTH][counters..], counters as u64)
}
