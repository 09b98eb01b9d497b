//! What belongs to one process, and is left alone by a child forked from it?

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::process::{Pid, getpid};

/// A value that a forked child makes anew. The parent's is never locked, changed or freed there: a thread of the parent
/// may have been at work on it at the moment of the fork, and what it holds (locks, connections) is the parent's.
pub(crate) struct PerProcess<T>(ArcSwap<Own<T>>);

/// A process's own value.
pub(crate) struct Own<T> {
    pid: Pid,
    value: T,
}

impl<T> Own<T> {
    fn new(value: T) -> Arc<Self> {
        Arc::new(Own { pid: getpid(), value })
    }

    fn is_inherited(&self) -> bool {
        self.pid != getpid()
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PerProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        PerProcess(ArcSwap::new(Own::new(value)))
    }

    /// This process's value; a forked child's is made by `renew` from its parent's.
    pub(crate) fn get(&self, renew: impl FnOnce(&T) -> T) -> Arc<Own<T>> {
        let own = self.0.load_full();
        if !own.is_inherited() {
            return own;
        }
        // Of two threads of the child that come here one wins, and the other takes the winner's.
        drop(self.0.compare_and_swap(&own, Own::new(renew(&own))));
        std::mem::forget(own);
        self.0.load_full()
    }

    /// The value, unless it is the parent's.
    pub(crate) fn own(&self) -> Option<Arc<Own<T>>> {
        let own = self.0.load_full();
        if own.is_inherited() {
            std::mem::forget(own);
            return None;
        }
        Some(own)
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        drop(self.own()); // one more reference to the parent's value keeps it for ever
    }
}
