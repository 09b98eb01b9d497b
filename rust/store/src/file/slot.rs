//! How do the threads of a process share one connection, with a way out for whoever waits for it?

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::file::connection::Opened;
use crate::patience::{self, SIGNAL_CHECK};

/// A place for a connection that one thread uses at a time.
#[derive(Default)]
pub(crate) struct Slot {
    opened: Mutex<Option<Opened>>,
    /// The thread that has it, as [`this_thread`] names it; 0 is nobody.
    owner: AtomicUsize,
}

impl Slot {
    /// Waits for as long as the call has patience. Refused at once if this thread has it: a signal handler, or a callback,
    /// that runs while the call below it waits would wait for itself.
    pub(crate) fn lock(&self, path: &Path) -> Result<Guard<'_>> {
        if self.owner.load(Ordering::Relaxed) == this_thread() {
            return Err(Error::input(
                "call",
                "is made by a signal handler inside another call on the same database, which it would wait for; \
                 note the signal there and act on it later",
            ));
        }
        loop {
            // Once more than patience lasts: what is free is taken.
            if let Some(guard) = self.opened.try_lock_for(SIGNAL_CHECK.min(patience::left())) {
                return Ok(self.owned(guard));
            }
            if patience::is_over() {
                return Err(Error::impatient(path));
            }
        }
    }

    /// If nobody has it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_>> {
        self.opened.try_lock().map(|guard| self.owned(guard))
    }

    fn owned<'s>(&'s self, guard: MutexGuard<'s, Option<Opened>>) -> Guard<'s> {
        self.owner.store(this_thread(), Ordering::Relaxed);
        Guard { owner: &self.owner, guard }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Option<Opened> {
        self.opened.get_mut()
    }
}

/// The connection in its slot, or none yet, for one thread.
pub(crate) struct Guard<'s> {
    owner: &'s AtomicUsize,
    guard: MutexGuard<'s, Option<Opened>>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.owner.store(0, Ordering::Relaxed); // before the lock goes, as fields are dropped after this
    }
}

impl Deref for Guard<'_> {
    type Target = Option<Opened>;

    fn deref(&self) -> &Option<Opened> {
        &self.guard
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Option<Opened> {
        &mut self.guard
    }
}

/// A number that no other thread has while this one lives.
pub(crate) fn this_thread() -> usize {
    thread_local!(static OWN: u8 = const { 0 });
    OWN.with(|own| std::ptr::from_ref(own).addr())
}
