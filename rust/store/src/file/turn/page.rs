//! Where do processes that know nothing of each other see the same two numbers?
//!
//! In a small file beside the database that each of them maps. The kernel keeps what waits on such a number by the file's
//! inode, so it is one queue across containers, users and PID namespaces. Mapping is what needs `unsafe`, and this is the
//! only file of the crate that may use it: whoever writes to the file can put any numbers into it, which is no harm to
//! memory, or cut it short, which is: touching a page that the file has lost ends the process (SIGBUS). So each access
//! asks for its length first. What is left is an instant, and the `-shm` file, which SQLite maps and never asks about: on
//! the host a handler puts an empty page into the place of a lost one, as systemd's journal does, and counts. What was read
//! or written meanwhile is an error, and everything is opened anew.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_short};
use std::fs::{File, symlink_metadata};
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

/// Pages that files lost while this process had them mapped.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many pages of `-shm` and `-turn` files this process has lost. An index of the WAL with a hole in it is nobody's.
pub(crate) fn lost_pages() -> u64 {
    LOST.load(Ordering::SeqCst)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn survive_lost_pages() {}

#[cfg(target_os = "linux")]
pub(crate) use handler::survive as survive_lost_pages;

#[cfg(target_os = "linux")]
mod handler {
    use std::cell::UnsafeCell;
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};
    use std::sync::Once;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::libc;

    use super::LOST;

    /// What other programs, and other code in this one, want done about a SIGBUS that is not of our files.
    struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

    // SAFETY: written once, before the handler that reads it is there.
    unsafe impl Sync for Previous {}

    static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
    static PAGE_SIZE: AtomicUsize = AtomicUsize::new(4096);

    /// Installs the handler, once in a process.
    pub(crate) fn survive() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // SAFETY: plain calls; all that the handler reads is written before it is there.
            unsafe {
                PAGE_SIZE.store(libc::sysconf(libc::_SC_PAGESIZE).unsigned_abs() as usize, Ordering::SeqCst);
                if libc::sigaction(libc::SIGBUS, null(), PREVIOUS.0.get().cast()) != 0 {
                    return;
                }
                let mut ours: libc::sigaction = std::mem::zeroed();
                ours.sa_sigaction = on_sigbus as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigemptyset(&mut ours.sa_mask);
                libc::sigaction(libc::SIGBUS, &ours, null_mut());
            }
        });
    }

    /// Nothing here but system calls and a buffer on the stack: it may have interrupted anything.
    extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes them as SA_SIGINFO says; `errno` is this thread's, and is put back.
        unsafe {
            let errno = *libc::__errno_location();
            let size = PAGE_SIZE.load(Ordering::SeqCst);
            let address = (*info).si_addr() as usize;
            let fault = matches!((*info).si_code, libc::BUS_ADRERR | libc::BUS_OBJERR);
            let mapped = if fault { mapped_at(address) } else { Mapped::Other };
            if let Mapped::Replaced = mapped {
                *libc::__errno_location() = errno;
                return;
            }
            if let Mapped::Ours = mapped {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let place = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let page = (address & !(size - 1)) as *mut libc::c_void;
                if libc::mmap(page, size, access, place, -1, 0) != libc::MAP_FAILED {
                    LOST.fetch_add(1, Ordering::SeqCst);
                    *libc::__errno_location() = errno;
                    return;
                }
            }
            let previous = (*PREVIOUS.0.get()).assume_init_ref();
            match previous.sa_sigaction {
                libc::SIG_DFL | libc::SIG_IGN => {
                    // It happens again as soon as this returns, and then what was to happen does.
                    libc::sigaction(libc::SIGBUS, previous, null_mut());
                    if !fault {
                        libc::raise(signal); // sent by somebody: it would not happen again
                    }
                }
                handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                }
                handler => {
                    let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
            *libc::__errno_location() = errno;
        }
    }

    /// What there is at an address that faulted.
    enum Mapped {
        /// A shared mapping of a file named like SQLite's index of a WAL or like our turns.
        Ours,
        /// An empty page: another thread met the same lost page and was faster. The access will succeed now.
        Replaced,
        Other,
    }

    /// `/proc/self/maps` has a line for each: `from-to rw-s offset device inode path`, in hexadecimal.
    fn mapped_at(address: usize) -> Mapped {
        // SAFETY: a path with its NUL, a buffer with its length.
        let maps = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if maps < 0 {
            return Mapped::Other;
        }
        let mut line = Line::default();
        let mut mapped = Mapped::Other;
        let mut buffer = [0_u8; 1024];
        'lines: loop {
            // SAFETY: as above.
            let read = unsafe { libc::read(maps, buffer.as_mut_ptr().cast(), buffer.len()) };
            let Ok(read) = usize::try_from(read) else { break };
            if read == 0 {
                break;
            }
            for byte in &buffer[..read.min(1024)] {
                if *byte != b'\n' {
                    line.take(*byte);
                } else if line.from <= address && address < line.to {
                    mapped = line.mapped();
                    break 'lines;
                } else {
                    line = Line::default();
                }
            }
        }
        // SAFETY: it is open, and nobody else's.
        unsafe { libc::close(maps) };
        mapped
    }

    /// As much of a line as matters.
    #[derive(Default)]
    struct Line {
        /// 0 in `from`, 1 in `to`, then the words that follow.
        field: usize,
        from: usize,
        to: usize,
        shared: bool,
        /// The newest bytes of it.
        end: [u8; 16],
    }

    impl Line {
        fn take(&mut self, byte: u8) {
            self.end.copy_within(1.., 0);
            self.end[15] = byte;
            let digit = (byte as char).to_digit(16).map(|digit| digit as usize);
            match (self.field, byte, digit) {
                (0, b'-', _) | (1.., b' ', _) => self.field += 1,
                (0, _, Some(digit)) => self.from = self.from << 4 | digit,
                (1, _, Some(digit)) => self.to = self.to << 4 | digit,
                (2, b's', _) => self.shared = true,
                _ => {}
            }
        }

        fn mapped(&self) -> Mapped {
            let end = self.end.strip_suffix(b" (deleted)").unwrap_or(&self.end);
            if self.shared && (end.ends_with(b"-shm") || end.ends_with(b"-turn")) {
                Mapped::Ours
            } else if !self.shared && end.trim_ascii_end().ends_with(b" 00:00 0") {
                Mapped::Replaced // of no file
            } else {
                Mapped::Other
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// The slower one finds the empty page of the faster one, and must not take it for somebody else's fault.
    #[test]
    fn threads_that_meet_a_lost_page_at_once_live_on() {
        survive_lost_pages();
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("x.db-shm")).unwrap();
        for _ in 0..2000 {
            file.set_len(LENGTH as u64).unwrap();
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, which is unmapped below when nobody looks at it any more.
            let page = unsafe { mmap(null_mut(), LENGTH, access, MapFlags::SHARED, &file, 0) }.unwrap() as usize;
            file.set_len(0).unwrap();
            let together = Barrier::new(2);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        together.wait();
                        // SAFETY: it is mapped; that the file has lost it is what is tried.
                        assert_eq!(unsafe { (page as *const u8).read_volatile() }, 0);
                    });
                }
            });
            // SAFETY: mapped above.
            unsafe { munmap(page as *mut _, LENGTH) }.unwrap();
        }
        assert!(lost_pages() > 0);
    }
}
