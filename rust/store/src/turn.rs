//! In which order do writers of several processes write?
//!
//! SQLite's busy handler sleeps in growing steps while rivals re-take the lock, so a writer can starve for seconds
//! (FACTS 3). Writers here draw a ticket first and are served in that order, from two counters that all processes share.
//! Who waits sleeps in the kernel until the one before it is done and wakes it, and nobody else; if nobody waits, nobody
//! is woken.
//!
//! A hand-over takes about half as long as a write. So who comes straight back for the next write keeps its turn for a
//! slice of time: between two writes it *rests*, and the next one goes on if it stays away.
//!
//! Waking the next one takes as long as half a write. So who comes straight back for the next write keeps its turn for a
//! slice of time: it *rests* between two writes, and the next one looks whether it stays away.
//!
//! Tickets order, they do not protect: SQLite's own lock does that. So whoever is dead, stopped or in doubt is passed
//! over and, if it lives, goes on without a turn; and a file that is gone or full of nonsense costs order, never data.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, getpid};

use crate::database::BUSY_TIMEOUT;
use page::{Counters, Page};

mod page;

/// How long the queue may stand still while nobody is seen at work: one whose turn it is was killed, or has to be woken
/// on a busy machine.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long it may stand still in any case: a process that is seen at work may be stopped.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// More tickets than this are never out, as a writer has one at a time: such counters are nonsense.
const CROWD: u32 = 1 << 16;

/// How long a turn may last over several writes: long against a hand-over, short against what a decision may wait for.
const SLICE: Duration = Duration::from_millis(2);

/// Who comes back within this time is taken to come back again.
const EAGER: Duration = Duration::from_micros(200);

/// How long a rest may be before the next one goes on.
const REST: Duration = Duration::from_micros(100);

/// How often the next one looks whether there is a rest.
const GLANCE: Duration = Duration::from_micros(300);

/// A connection's place to queue at.
pub(crate) struct Turns {
    path: PathBuf,
    place: Arc<Mutex<Place>>,
}

/// What a connection knows of its turns.
struct Place {
    page: Arc<Page>,
    /// When its last turn ended.
    left: Option<Instant>,
    rest: Option<Rest>,
}

/// A turn that its owner means to go on with.
struct Rest {
    ticket: u32,
    /// When its slice began.
    since: Instant,
    /// The count that this rest made.
    count: u32,
}

/// Held while writing; empty where the order was left to SQLite.
pub(crate) struct Turn(#[allow(dead_code)] Option<Served>);

/// Whose ticket's turn it is.
struct Served {
    page: Arc<Page>,
    place: Arc<Mutex<Place>>,
    ticket: u32,
    /// When its slice began.
    since: Instant,
    /// Whether its owner came straight from its last turn.
    eager: bool,
    /// Whether its slice had a rest already, of which the next one was told.
    resumed: bool,
    pid: Pid,
}

impl Served {
    /// Whether it was kept for the next write instead of passed on.
    fn rests(&self, counters: &Counters) -> bool {
        let mut place = self.place.lock();
        let now = Instant::now();
        place.left = Some(now);
        let awaited = counters.tickets.load(SeqCst) != self.ticket.wrapping_add(1);
        if !self.eager || !awaited || now - self.since >= SLICE || counters.serving.load(SeqCst) != self.ticket {
            return false;
        }
        let awake = counters.rests.load(SeqCst) & !1;
        let count = awake | 1;
        if counters.rests.compare_exchange(awake, count, SeqCst, SeqCst).is_err() {
            return false;
        }
        place.rest = Some(Rest { ticket: self.ticket, since: self.since, count });
        if !self.resumed {
            // It fell asleep when others were ahead of it too.
            wake(&counters.serving, self.ticket.wrapping_add(1));
        }
        true
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.pid != getpid() {
            return; // a forked child's copy: the turn is its parent's
        }
        if let Some(counters) = self.page.counters()
            && !self.rests(counters)
        {
            pass(counters, self.ticket);
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
        let page = Arc::new(Page::open(&path).ok()?);
        Some(Turns { path, place: Arc::new(Mutex::new(Place { page, left: None, rest: None })) })
    }

    /// Waits its turn, for as long as a connection waits for SQLite's lock at most.
    pub(crate) fn take(&self) -> Turn {
        let now = Instant::now();
        let mut place = self.place.lock();
        let rest = place.rest.take();
        let eager = place.left.is_some_and(|left| now - left < EAGER);
        let page = self.page(&mut place);
        drop(place);
        let Some(page) = page else { return Turn(None) };
        let rest = rest.filter(|rest| resume(&page, rest));
        let resumed = rest.is_some();
        let (ticket, since) = match rest {
            Some(rest) => (rest.ticket, rest.since),
            None => match stand(&page, now + BUSY_TIMEOUT) {
                Some(ticket) => (ticket, Instant::now()),
                None => return Turn(None),
            },
        };
        page.mark();
        Turn(Some(Served { page, place: self.place.clone(), ticket, since, eager, resumed, pid: getpid() }))
    }

    /// The turn if nobody has it, for work that can wait.
    pub(crate) fn try_take(&self) -> Option<Turn> {
        let page = self.page(&mut self.place.lock())?;
        let counters = page.counters()?;
        let ticket = counters.serving.load(SeqCst);
        counters.tickets.compare_exchange(ticket, ticket.wrapping_add(1), SeqCst, SeqCst).ok()?;
        page.mark();
        let (place, since) = (self.place.clone(), Instant::now());
        Some(Turn(Some(Served { page, place, ticket, since, eager: false, resumed: false, pid: getpid() })))
    }

    /// The queue that others find at the path now. Those who still stand in one that was deleted or replaced are served
    /// there.
    fn page(&self, place: &mut Place) -> Option<Arc<Page>> {
        if !place.page.is_sound_at(&self.path) {
            place.page = Arc::new(Page::open(&self.path).ok()?);
        }
        Some(place.page.clone())
    }
}

/// Goes on with a turn after a rest, unless the next one has it already.
fn resume(page: &Page, rest: &Rest) -> bool {
    page.counters().is_some_and(|counters| {
        counters.rests.compare_exchange(rest.count, rest.count.wrapping_add(1), SeqCst, SeqCst).is_ok()
            && counters.serving.load(SeqCst) == rest.ticket
    })
}

/// Draws a ticket and waits until it is served. `None` if it is passed over, its time is up, or the file was cut
/// short.
fn stand(page: &Page, deadline: Instant) -> Option<u32> {
    let mut counters = page.counters()?;
    let ticket = counters.tickets.fetch_add(1, SeqCst);
    let (mut seen, mut since) = (None, Instant::now());
    let mut resting = None;
    loop {
        let serving = counters.serving.load(SeqCst);
        let ahead = ticket.wrapping_sub(serving);
        if ahead == 0 {
            // No rest of this turn's, but of one that was passed over meanwhile.
            let rests = counters.rests.load(SeqCst);
            if rests & 1 == 1 {
                let _ = counters.rests.compare_exchange(rests, rests.wrapping_add(1), SeqCst, SeqCst);
            }
            return Some(ticket);
        }
        let now = Instant::now();
        if now >= deadline {
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
            (seen, since) = (Some(serving), now);
        }
        let stood = now - since;
        if stood >= LONG_PATIENCE || (stood >= PATIENCE && !page.is_marked()) {
            pass(counters, serving);
            continue;
        }
        let mut time = PATIENCE.min(deadline - now);
        // Only the next one looks for rests, and only while there can be one.
        if ahead == 1 && stood < 2 * SLICE {
            let rests = counters.rests.load(SeqCst);
            match resting.filter(|(count, _)| *count == rests) {
                _ if rests & 1 == 0 => time = GLANCE,
                Some((_, began)) if now - began >= REST => {
                    if counters.rests.compare_exchange(rests, rests.wrapping_add(1), SeqCst, SeqCst).is_ok() {
                        pass(counters, serving);
                    }
                    continue;
                }
                Some(_) => time = REST,
                None => (resting, time) = (Some((rests, now)), REST),
            }
        }
        wait(&counters.serving, serving, ticket, time);
        counters = page.counters()?;
    }
}

/// Goes on from `ticket` to the next one, unless somebody did already, and wakes its owner.
fn pass(counters: &Counters, ticket: u32) {
    let next = ticket.wrapping_add(1);
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
