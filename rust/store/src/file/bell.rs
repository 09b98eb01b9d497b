//! How does a commit wake those it concerns, and nobody else?
//!
//! A bell is an empty file, one per queue and one for the operator's inbox, in a directory beside the database. A writer
//! rings after its commit by touching it: one system call, and none of its business whether anybody listens. A listener
//! has the kernel tell it of the touch. The bell only ever says "look again"; the database is the truth, and who misses
//! a ring looks once a second anyway.

use std::collections::HashMap;
use std::fs::{Metadata, symlink_metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW, utimensat};

use crate::file::layout;

/// The operator's bell. No queue has this name: a key begins with a letter or digit.
pub(crate) const INBOX: &str = ".inbox";

/// How often a listener looks at its bells where the kernel cannot tell it (no inotify, or no instance left).
const GLANCE: Duration = Duration::from_millis(5);
/// How coarse a file's times may be (a tick of the slowest kernel, doubled): a bell touched so recently may have been
/// touched again since, without a trace.
const TICK: Duration = Duration::from_millis(20);

fn directory(database: &Path) -> PathBuf {
    database.parent().unwrap_or(Path::new("/")).join("bells")
}

/// Rings; a bell that nobody ever listened to does not exist and costs nothing.
pub(crate) fn ring(database: &Path, name: &str) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // Never an error: the commit stands, and the heartbeat notices it.
    let _ = utimensat(CWD, directory(database).join(name), &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Every bell, after something that may concern all: a restored backup, a stopped bottle.
pub(crate) fn ring_all(database: &Path) {
    for entry in std::fs::read_dir(directory(database)).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str() {
            ring(database, name);
        }
    }
}

/// Hears a set of bells.
#[derive(Default)]
pub(crate) struct Listener {
    /// Made with the first bell. `None` beside bells: the user's limit of instances (128 by default) is used up, and
    /// glancing takes over.
    #[cfg(target_os = "linux")]
    inotify: Option<Arc<OwnedFd>>,
    bells: HashMap<String, Bell>,
}

struct Bell {
    #[cfg(target_os = "linux")]
    watch: Option<i32>,
    touched: Option<SystemTime>,
    path: PathBuf,
}

impl Bell {
    /// Whether the kernel tells of it.
    fn is_told(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.watch.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }
}

/// What a listener sleeps on.
#[derive(Default)]
pub(crate) struct Ear {
    descriptor: Option<Arc<OwnedFd>>,
    /// Whether it has to look every few milliseconds, as the kernel does not tell it of every bell.
    glances: bool,
}

impl Ear {
    /// Whether the kernel tells of every bell.
    pub(crate) fn is_told(&self) -> bool {
        self.descriptor.is_some() && !self.glances
    }
}

/// What a listener heard: rung bells by name, or that it may have missed some.
pub(crate) enum Heard {
    Bells(Vec<String>),
    Anything,
}

impl Listener {
    /// Listens to `name` from now on. No error: without its bell a waiter has the heartbeat.
    pub(crate) fn add(&mut self, database: &Path, name: &str) {
        let dir = directory(database);
        let path = dir.join(name);
        layout::make_dir_beside(&dir, database);
        let _ = layout::open_beside(&path, database);
        let own = |path: &Path, is: fn(&Metadata) -> bool| symlink_metadata(path).is_ok_and(|data| is(&data));
        if !own(&dir, Metadata::is_dir) || !own(&path, Metadata::is_file) {
            return;
        }
        #[cfg(target_os = "linux")]
        if self.inotify.is_none() {
            use rustix::fs::inotify::{CreateFlags, init};
            self.inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok().map(Arc::new);
        }
        let bell = Bell {
            #[cfg(target_os = "linux")]
            watch: self.inotify.as_ref().and_then(|inotify| {
                use rustix::fs::inotify::{WatchFlags, add_watch};
                let flags = WatchFlags::ATTRIB | WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
                add_watch(inotify, &path, flags | WatchFlags::DONT_FOLLOW).ok()
            }),
            touched: touched(&path),
            path,
        };
        self.bells.insert(name.to_owned(), bell);
    }

    /// The same, and to no other bell, nor to one of this name in another place.
    pub(crate) fn listen_only_to(&mut self, database: &Path, name: &str) {
        for other in self.bells.keys().cloned().collect::<Vec<_>>() {
            self.remove(&other);
        }
        self.add(database, name);
    }

    pub(crate) fn listens_to(&self, name: &str) -> bool {
        self.bells.contains_key(name)
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Some(_bell) = self.bells.remove(name) else { return };
        #[cfg(target_os = "linux")]
        if let (Some(inotify), Some(watch)) = (&self.inotify, _bell.watch) {
            let _ = rustix::fs::inotify::remove_watch(inotify, watch);
        }
    }

    /// What to sleep on until the next ring.
    pub(crate) fn ear(&self) -> Ear {
        Ear {
            #[cfg(target_os = "linux")]
            descriptor: self.inotify.clone(),
            #[cfg(not(target_os = "linux"))]
            descriptor: None,
            glances: self.bells.values().any(|bell| !bell.is_told()),
        }
    }

    /// Which bells rang since the last call.
    pub(crate) fn heard(&mut self) -> Heard {
        #[cfg(target_os = "linux")]
        if let Some(inotify) = &self.inotify {
            return heard_by_inotify(inotify, &mut self.bells);
        }
        Heard::Bells(glance(self.bells.iter_mut()))
    }
}

/// Waits until a bell rings, `wake` is readable or closed by its writer, the time is over, or a signal comes.
pub(crate) fn sleep(ear: &Ear, wake: impl AsFd, limit: Option<Duration>) {
    let limit = if ear.glances { Some(limit.map_or(GLANCE, |limit| limit.min(GLANCE))) } else { limit };
    let until = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let wake = PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN);
    // An interrupted or failed poll is an early return, and the caller looks at everything after each.
    let _ = match &ear.descriptor {
        Some(bells) => poll(&mut [wake, PollFd::new(bells, PollFlags::IN)], until.as_ref()),
        None => poll(&mut [wake], until.as_ref()),
    };
}

fn touched(path: &Path) -> Option<SystemTime> {
    symlink_metadata(path).and_then(|data| data.modified()).ok()
}

fn glance<'a>(bells: impl Iterator<Item = (&'a String, &'a mut Bell)>) -> Vec<String> {
    let mut rung = Vec::new();
    for (name, bell) in bells {
        let now = touched(&bell.path);
        let again = now.and_then(|at| at.elapsed().ok()).is_some_and(|age| age < TICK);
        if again || now != bell.touched {
            bell.touched = now;
            rung.push(name.clone());
        }
    }
    rung
}

#[cfg(target_os = "linux")]
fn heard_by_inotify(inotify: &OwnedFd, bells: &mut HashMap<String, Bell>) -> Heard {
    use rustix::fs::inotify::{ReadFlags, Reader};
    let mut space = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut space);
    let mut rung = Vec::new();
    let mut gone = Vec::new();
    let mut overflow = false;
    while let Ok(event) = reader.next() {
        overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
        let Some(name) = bells.iter().find(|(_, bell)| bell.watch == Some(event.wd())).map(|(name, _)| name) else {
            continue; // the last word of a watch that was removed
        };
        if event.events().intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
            gone.push(name.clone()); // somebody deleted the bell; its listener hangs a new one
        }
        if !rung.contains(name) {
            rung.push(name.clone());
        }
        if reader.is_buffer_empty() && !overflow {
            break; // if there is more, the descriptor says so
        }
    }
    for name in gone {
        bells.remove(&name);
    }
    if overflow {
        return Heard::Anything;
    }
    // Bells beyond the limit of watches.
    rung.extend(glance(bells.iter_mut().filter(|(_, bell)| bell.watch.is_none())));
    Heard::Bells(rung)
}

/// Rings a bell of its own and times how long it takes to be heard, through the same files as every wait.
pub(crate) fn test(database: &Path, limit: Duration) -> Option<Duration> {
    let name = format!(".test-{}", std::process::id());
    let mut listener = Listener::default();
    listener.add(database, &name);
    let (never, _writer) = std::io::pipe().ok()?;
    let start = Instant::now();
    ring(database, &name);
    let mut heard = None;
    while heard.is_none() && start.elapsed() < limit {
        sleep(&listener.ear(), &never, Some(limit.saturating_sub(start.elapsed())));
        if let Heard::Bells(rung) = listener.heard()
            && rung.contains(&name)
        {
            heard = Some(start.elapsed());
        }
    }
    let _ = std::fs::remove_file(directory(database).join(&name));
    heard
}

/// Which bells a commit rings.
#[derive(Default)]
pub(crate) struct Rings {
    queues: Vec<String>,
    inbox: bool,
}

impl Rings {
    pub(crate) const NONE: Rings = Rings { queues: Vec::new(), inbox: false };

    /// Those who wait for answers in this queue, and the operator.
    pub(crate) fn queue(key: &str) -> Self {
        Rings { queues: vec![key.to_owned()], inbox: true }
    }

    /// The operator only.
    pub(crate) fn inbox() -> Self {
        Rings { queues: Vec::new(), inbox: true }
    }

    /// Before the commit: who waits for an answer is out of its sleep, and its caches are warm from looking in vain, when
    /// the bell rings for good.
    pub(crate) fn stir(&self, database: &Path) {
        for queue in &self.queues {
            ring(database, queue);
        }
    }

    pub(crate) fn ring(&self, database: &Path) {
        self.stir(database);
        if self.inbox {
            ring(database, INBOX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_hears_a_second_ring_that_left_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("x.db");
        let mut listener = Listener::default();
        listener.add(&database, "dev");
        #[cfg(target_os = "linux")]
        {
            // As where the kernel has none left.
            listener.inotify = None;
            listener.bells.values_mut().for_each(|bell| bell.watch = None);
        }
        let mut hears = || matches!(listener.heard(), Heard::Bells(rung) if rung == ["dev"]);
        // The second look sees the same time as the first. Several tries: it has to come within the tick.
        assert!((0..50).any(|_| {
            ring(&database, "dev");
            hears() && hears()
        }));
        std::thread::sleep(TICK);
        assert!(!hears(), "it goes on hearing what is over");
    }
}
