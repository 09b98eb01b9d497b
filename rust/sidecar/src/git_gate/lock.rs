//! Who may change the mirror now? One at a time: the lock is also held by each git that is started under it, so that one
//! which outlives a killed gate is waited for.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::{Outcome, Refusal};

pub struct Lock {
    file: File,
}

impl Lock {
    /// Waits for its turn, up to `patience`.
    pub fn take(state: &Path, patience: Duration) -> Outcome<Self> {
        let failed = |error: std::io::Error| Refusal::new(format!("the git gate cannot lock its repository: {error}"));
        let file = File::options().create(true).append(true).open(state.join("sync.lock")).map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { file }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Refusal::new("the upstream takes long to answer; try again"));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// For the standard input of a program that changes the mirror: it holds the lock as long as it lives.
    pub fn held_by_child(&self) -> Stdio {
        self.file.try_clone().map_or_else(|_| Stdio::null(), Stdio::from)
    }
}

/// Removes the locks that a git which was killed left on refs. Whoever holds the gate's lock is the only one to write them.
pub fn remove_stale_locks(repository: &Path, _held: &Lock) {
    let mut directories = vec![repository.join("refs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "lock") {
                let _ = fs::remove_file(path);
            }
        }
    }
    for name in ["packed-refs.lock", "HEAD.lock", "shallow.lock", "packed-refs.new"] {
        let _ = fs::remove_file(repository.join(name));
    }
}
