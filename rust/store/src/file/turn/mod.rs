//! In which order do writers of several processes write?
//!
//! SQLite's busy handler sleeps in growing steps while rivals re-take the lock, so a writer can starve for seconds
//!. Writers here draw a ticket first and are served in that order, from two counters that all processes share.
//! Who waits sleeps in the kernel until the one before it is done and wakes it, and nobody else; if nobody waits, nobody
//! is woken.
//!
//! Tickets order, they do not protect: SQLite's own lock does that. So whoever is dead, stopped or in doubt is passed
//! over and, if it lives, goes on without a turn; and a file that is gone or full of nonsense costs order, never data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};
use crate::patience;
use page::{Counters, Page};

pub(crate) use page::{lost_pages, survive_lost_pages};

mod page;

/// How long the queue may stand still while nobody is seen at work: one whose turn it is was killed, or has to be woken
/// on a busy machine.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long it may stand still in any case: a process that is seen at work may be stopped.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// More tickets than this are never out, as a writer has one at a time: such counters are nonsense.
const CROWD: u32 = 1 << 16;

/// A connection's place to queue at.
pub(crate) struct Turns {
    database: PathBuf,
    path: PathBuf,
    page: Mutex<Arc<Page>>,
}

/// Held while writing; empty where the order was left to SQLite.
pub(crate) struct Turn(#[allow(dead_code)] Option<Served>);

impl Turn {
    /// Whether somebody stands in the queue behind it.
    pub(crate) fn is_wanted(&self) -> bool {
        let Some((served, counters)) = self.0.as_ref().and_then(|served| Some((served, served.page.counters()?)))
        else {
            return false;
        };
        counters.tickets.load(SeqCst) != served.ticket.wrapping_add(1)
    }
}

/// Whose ticket's turn it is.
struct Served {
    page: Arc<Page>,
    ticket: u32,
    pid: Pid,
}

impl Served {
    fn new(page: Arc<Page>, ticket: u32) -> Self {
        page.mark();
        Served { page, ticket, pid: getpid() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.pid != getpid() {
            return; // a forked child's copy: the turn is its parent's
        }
        if let Some(counters) = self.page.counters() {
            pass(&self.page, counters, self.ticket, counters.tickets.load(SeqCst));
        }
        self.page.unmark();
    }
}

impl Turns {
    /// `None` where the file cannot be made: then SQLite's order is the order.
    pub(crate) fn beside(database: &Path) -> Option<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-turn");
        let path = PathBuf::from(path);
        let page = Page::open(&path, database).ok()?;
        Some(Turns { database: database.to_owned(), path, page: Mutex::new(Arc::new(page)) })
    }

    /// Waits its turn for as long as the call has patience.
    pub(crate) fn take(&self) -> Result<Turn> {
        let turn = Turn(self.page().and_then(|page| stand(&page)));
        if patience::was_interrupted() { Err(Error::Interrupted) } else { Ok(turn) }
    }

    /// The turn if nobody has it, for work that can wait.
    pub(crate) fn try_take(&self) -> Option<Turn> {
        let page = self.page()?;
        let counters = page.counters()?;
        let ticket = counters.serving.load(SeqCst);
        counters.tickets.compare_exchange(ticket, ticket.wrapping_add(1), SeqCst, SeqCst).ok()?;
        Some(Turn(Some(Served::new(page, ticket))))
    }

    /// The queue that others find at the path now. Those who still stand in one that was deleted or replaced are served
    /// there.
    fn page(&self) -> Option<Arc<Page>> {
        let mut page = self.page.lock();
        if !page.is_sound_at(&self.path) {
            *page = Arc::new(Page::open(&self.path, &self.database).ok()?);
        }
        Some(page.clone())
    }
}

/// Draws a ticket and waits until it is served. `None` if it is passed over, its time is up, a signal ends it, or the file
/// was cut short.
fn stand(page: &Arc<Page>) -> Option<Served> {
    let ticket = draw(page)?;
    let served = wait_for(page, ticket).map(|()| Served::new(page.clone(), ticket));
    page.let_go(ticket);
    served
}

/// The next ticket. Where it has to wait it is held before it is drawn: at no moment does it look like a dead one's.
fn draw(page: &Page) -> Option<u32> {
    loop {
        let counters = page.counters()?;
        let ticket = counters.tickets.load(SeqCst);
        if counters.serving.load(SeqCst) != ticket {
            page.hold(ticket);
        }
        if counters.tickets.compare_exchange(ticket, ticket.wrapping_add(1), SeqCst, SeqCst).is_ok() {
            return Some(ticket);
        }
        page.let_go(ticket);
    }
}

fn wait_for(page: &Page, ticket: u32) -> Option<()> {
    let mut counters = page.counters()?;
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        let serving = counters.serving.load(SeqCst);
        let ahead = ticket.wrapping_sub(serving);
        if ahead == 0 {
            return Some(());
        }
        if patience::is_over() {
            return None;
        }
        if counters.tickets.load(SeqCst).wrapping_sub(serving) > CROWD {
            // Order begins anew here.
            let _ = counters.serving.compare_exchange(serving, ticket, SeqCst, SeqCst);
            continue;
        }
        if ahead > CROWD {
            return None; // it is a later one's turn already
        }
        if seen != Some(serving) {
            (seen, since) = (Some(serving), Instant::now());
        }
        let stood = since.elapsed();
        if stood >= LONG_PATIENCE || (stood >= PATIENCE && !page.is_marked()) {
            pass(page, counters, serving, ticket);
            continue;
        }
        wait(&counters.serving, serving, ticket, PATIENCE.min(patience::left()));
        counters = page.counters()?;
    }
}

/// Goes on from `ticket` to the next one whose owner lives, at most to `end`, unless somebody did already, and wakes it. So
/// those who died in the queue cost nobody any time, however many they are.
fn pass(page: &Page, counters: &Counters, ticket: u32, end: u32) {
    let mut next = ticket.wrapping_add(1);
    while (1..=CROWD).contains(&end.wrapping_sub(next)) && !page.is_held(next) {
        next = next.wrapping_add(1);
    }
    if counters.serving.compare_exchange(ticket, next, SeqCst, SeqCst).is_ok() && counters.tickets.load(SeqCst) != next
    {
        wake(&counters.serving, next);
    }
}

/// Sleeps while `serving` is served, until `ticket` is next or the time is over. May return early.
#[cfg(target_os = "linux")]
fn wait(counter: &AtomicU32, serving: u32, ticket: u32, time: Duration) {
    use rustix::io::Errno;
    use rustix::thread::futex::{Flags, Timespec, wait_bitset};
    use rustix::time::{ClockId, clock_gettime};
    let Ok(time) = Timespec::try_from(time) else { return };
    let until = clock_gettime(ClockId::Monotonic) + time;
    // Not `PRIVATE`: other processes are to wake us.
    match wait_bitset(counter, Flags::empty(), serving, Some(&until), bit(ticket)) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
        Err(_) => std::thread::sleep(Duration::from_millis(1)), // the file was cut short, or a sandbox forbids it
    }
}

#[cfg(target_os = "linux")]
fn wake(counter: &AtomicU32, ticket: u32) {
    use rustix::thread::futex::{Flags, wake_bitset};
    // All who sleep on the bit, as the kernel cannot tell them apart; there are 32 of them.
    let _ = wake_bitset(counter, Flags::empty(), u32::MAX >> 1, bit(ticket));
}

#[cfg(target_os = "linux")]
fn bit(ticket: u32) -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(1 << (ticket % 32)).unwrap_or(std::num::NonZeroU32::MIN)
}

/// Looks again soon, the sooner the nearer the turn is: other systems have no futex that processes share.
#[cfg(not(target_os = "linux"))]
fn wait(_: &AtomicU32, serving: u32, ticket: u32, _: Duration) {
    std::thread::sleep(Duration::from_micros(50) * ticket.wrapping_sub(serving).min(20));
}

#[cfg(not(target_os = "linux"))]
fn wake(_: &AtomicU32, _: u32) {}

#[cfg(test)]
mod tests;
