//! How much work and memory may one request cost, and what happens when it costs more?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ScanError;

/// What one request may cost in all its places together; clones share what is left.
///
/// Work is counted, not timed, so that the same request always gets the same answer: one step is about one byte looked
/// at by one decoder or detector, a few nanoseconds. Each byte of input adds to what may be spent, so that an upload
/// of any size can be scanned, and a small request that expands without end cannot.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Spent>);

#[derive(Debug)]
struct Spent {
    steps: AtomicU64,
    allowed: AtomicU64,
    per_byte: u64,
    memory: AtomicU64,
    max_memory: u64,
}

impl Budget {
    /// Steps that every request may take, whatever its size; about a tenth of a second.
    pub const STEPS: u64 = 32 << 20;
    /// Steps that each byte of input adds.
    pub const STEPS_PER_BYTE: u64 = 128;
    /// Bytes of memory that decoders may hold at once.
    pub const MEMORY: u64 = 48 << 20;

    /// The limits for a request.
    pub fn for_request() -> Budget {
        Budget::new(Budget::STEPS, Budget::STEPS_PER_BYTE, Budget::MEMORY)
    }

    /// A budget of `steps` and `per_byte` more for each byte of input, and `memory` bytes held at once.
    pub fn new(steps: u64, per_byte: u64, memory: u64) -> Budget {
        Budget(Arc::new(Spent {
            steps: AtomicU64::new(0),
            allowed: AtomicU64::new(steps),
            per_byte,
            memory: AtomicU64::new(0),
            max_memory: memory,
        }))
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Bytes of memory held now.
    pub fn memory(&self) -> u64 {
        self.0.memory.load(Ordering::Relaxed)
    }

    pub(crate) fn fed(&self, bytes: usize) {
        self.0.allowed.fetch_add(bytes as u64 * self.0.per_byte, Ordering::Relaxed);
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), ScanError> {
        let spent = self.0.steps.fetch_add(steps as u64, Ordering::Relaxed) + steps as u64;
        if spent > self.0.allowed.load(Ordering::Relaxed) {
            Err(ScanError::OverBudget { what: "work" })
        } else {
            Ok(())
        }
    }

    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, ScanError> {
        let held = Held { budget: self.clone(), bytes: bytes as u64 };
        let now = self.0.memory.fetch_add(held.bytes, Ordering::Relaxed) + held.bytes;
        if now > self.0.max_memory { Err(ScanError::OverBudget { what: "memory" }) } else { Ok(held) }
    }
}

/// Memory taken from a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Budget,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.memory.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
