//! Who waits on one file in this process?

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::file::shared::{Guest, Shared};
use crate::wait::bunk::Bunks;
use crate::wait::watcher::Watcher;

/// The watcher, started with the first wait, and what threads sleep on that wait themselves.
#[derive(Default)]
pub(crate) struct Waiters {
    watcher: Mutex<Option<Arc<Watcher>>>,
    pub(super) bunks: Bunks,
}

impl Waiters {
    /// Those of one file.
    pub(super) fn on(shared: &Arc<Shared>) -> Result<Arc<Self>> {
        shared.guest()
    }

    /// The process's watcher of this file.
    pub(super) fn watcher(shared: &Arc<Shared>) -> Result<Arc<Watcher>> {
        let waiters = Waiters::on(shared)?;
        let mut slot = waiters.watcher.lock();
        if let Some(watcher) = slot.as_ref() {
            return Ok(watcher.clone());
        }
        let started = Watcher::start(Arc::downgrade(shared));
        let watcher = started.map_err(|error| Error::unavailable(&shared.path, error))?;
        Ok(slot.insert(watcher).clone())
    }

    fn running(&self) -> Option<Arc<Watcher>> {
        self.watcher.lock().clone()
    }
}

impl Guest for Waiters {
    fn is_outdated(&self) -> bool {
        self.running().is_some_and(|watcher| watcher.is_outdated())
    }

    fn abandon(&self, close_others: &mut dyn FnMut()) {
        match self.running() {
            Some(watcher) => {
                let mut connection = watcher.connection();
                close_others();
                drop(connection.take());
            }
            None => close_others(),
        }
    }

    fn end_all(&self, handle: u64) {
        if let Some(watcher) = self.running() {
            watcher.end_all(handle);
        }
    }

    fn stop(&self) {
        if let Some(watcher) = self.running() {
            watcher.stop();
        }
    }
}
