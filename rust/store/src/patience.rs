//! How long does a call wait for others, and what ends that early?
//!
//! A call begins with one deadline, and all that it waits for on its way (threads of this process, its turn, SQLite's
//! locks, a managed file's, the keys', the broker) shares it: a rival that stands still costs the busy timeout once, not
//! once per lock. Whoever waits asks [`is_over`] at every signal and at least every [`SIGNAL_CHECK`].
//!
//! It is the thread's, not an argument, because SQLite's busy handler is a plain function without one.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a write waits for other writers: a slow disk, a backup, a prune.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often one asks that cannot be woken by a signal.
pub(crate) const SIGNAL_CHECK: Duration = Duration::from_millis(40);

static QUESTION: OnceLock<Box<dyn Fn() -> bool + Send + Sync>> = OnceLock::new();

/// From now on every call of this process that waits for others asks this, on its own thread and at least every 100 ms,
/// and ends with [`Error::Interrupted`](crate::Error::Interrupted) once it says yes. For the first who calls it.
pub fn ask_while_waiting(interrupted: impl Fn() -> bool + Send + Sync + 'static) {
    let _ = QUESTION.set(Box::new(interrupted));
}

/// Runs `work` with that much time for all that it waits for, if it has not less already.
pub fn within<T>(time: Duration, work: impl FnOnce() -> T) -> T {
    let _limit = limit(time);
    work()
}

#[derive(Clone, Copy)]
struct State {
    /// In a call; outside of any nobody would hear of an interrupt.
    called: bool,
    deadline: Option<Instant>,
    /// Not asked in what must be done to its end.
    quiet: bool,
    interrupted: bool,
    asked: Option<Instant>,
}

thread_local! {
    static STATE: Cell<State> =
        const { Cell::new(State { called: false, deadline: None, quiet: false, interrupted: false, asked: None }) };
}

fn change(change: impl FnOnce(&mut State)) {
    let mut state = STATE.get();
    change(&mut state);
    STATE.set(state);
}

/// As long as it lives, what is waited for has this much time.
pub(crate) struct Patience {
    before: State,
}

impl Drop for Patience {
    fn drop(&mut self) {
        let (before, asked) = (self.before, STATE.get().asked);
        // An interrupt ends the whole call, the outermost patience with it.
        let interrupted = before.called && STATE.get().interrupted;
        STATE.set(State { asked, interrupted, ..before });
    }
}

/// For a call: the busy timeout, unless it is part of another call, whose patience it shares.
pub(crate) fn begin() -> Patience {
    let before = STATE.get();
    change(|state| {
        state.called = true;
        state.deadline.get_or_insert_with(|| Instant::now() + BUSY_TIMEOUT);
    });
    Patience { before }
}

/// For work that takes as long as it takes, and may be interrupted; each thing that it waits for has the busy timeout.
pub(crate) fn work() -> Patience {
    let before = STATE.get();
    change(|state| state.called = true);
    Patience { before }
}

/// For something that is worth only so much.
pub(crate) fn limit(time: Duration) -> Patience {
    let before = STATE.get();
    let end = Instant::now() + time;
    change(|state| {
        state.called = true;
        state.deadline = Some(state.deadline.map_or(end, |outer| outer.min(end)));
    });
    Patience { before }
}

/// The same, without asking whether to end: what it does belongs to something that has happened.
pub(crate) fn limit_quietly(time: Duration) -> Patience {
    let patience = limit(time);
    change(|state| state.quiet = true);
    patience
}

/// For a thread that no signal is meant for.
pub(crate) fn never_ask() {
    change(|state| state.quiet = true);
}

/// What is left of the time.
pub(crate) fn left() -> Duration {
    STATE.get().deadline.map_or(BUSY_TIMEOUT, |at| at.saturating_duration_since(Instant::now()))
}

/// Whether a signal has ended it. Asks no more often than is of use, so it may be asked often.
pub(crate) fn is_interrupted() -> bool {
    let state = STATE.get();
    if state.interrupted || state.quiet || !state.called {
        return state.interrupted;
    }
    let Some(question) = QUESTION.get() else { return false };
    let now = Instant::now();
    if state.asked.is_some_and(|asked| now.duration_since(asked) < SIGNAL_CHECK) {
        return false;
    }
    change(|state| state.asked = Some(now));
    let interrupted = question(); // may run anything, another call too
    change(|state| state.interrupted |= interrupted);
    interrupted
}

/// Whether it was ended by a signal, as far as it asked.
pub(crate) fn was_interrupted() -> bool {
    STATE.get().interrupted
}

/// Whether to stop waiting.
pub(crate) fn is_over() -> bool {
    is_interrupted() || left().is_zero()
}

/// Sleeps for so long at most, and no longer than it takes until the next question is due.
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time.min(SIGNAL_CHECK).min(left()));
}

/// What SQLite calls when a lock is another's; whether to try again.
pub(crate) fn for_sqlite(tries: i32) -> bool {
    // SQLite's own steps, so that who comes late has no advantage.
    const STEPS_MS: [u64; 7] = [1, 2, 5, 10, 15, 20, 25];
    let step = STEPS_MS[usize::try_from(tries).unwrap_or(0).min(STEPS_MS.len() - 1)];
    if is_over() || (STATE.get().deadline.is_none() && tries > 1200) {
        return false;
    }
    sleep(Duration::from_millis(step));
    true
}
