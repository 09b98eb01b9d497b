//! How does one process at a time have a file, and only for as long as it lives?

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::patience;

/// Held; the kernel drops it with a dying process. Let go explicitly: a child that was forked meanwhile has the same open
/// file, so closing it here would leave the lock with the child.
pub(crate) struct Lock(File);

impl Lock {
    /// Waits for as long as the call has patience. Asked again and again, as `flock` has no deadline.
    pub(crate) fn take(file: File, path: &Path) -> Result<Self> {
        let mut file = file;
        loop {
            file = match Lock::try_take(file).map_err(|error| Error::unavailable(path, error))? {
                Ok(lock) => return Ok(lock),
                Err(_) if patience::is_over() => return Err(Error::impatient(path)),
                Err(file) => file,
            };
            patience::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// The lock, or the file again if another has it.
    pub(crate) fn try_take(file: File) -> std::io::Result<std::result::Result<Self, File>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(Lock(file))),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Err(file)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It cannot fail on a lock that is held.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
