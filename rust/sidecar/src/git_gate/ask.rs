//! May this push go through all the same? A grant of before says so, or the operator does now.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bot_bottle_store::{Proposal, Questions, QueueStore, Response, Status, Tool, Vocabulary, Word, sha256_hex};

use super::question::{asked, waiting};
use super::{Outcome, Refusal, say};
use crate::place::{Interrupted, Place};
use crate::told::decided;

/// How often the pusher hears that the push is still held.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// How often is looked whether the pusher has hung up.
const LOOK: Duration = Duration::from_millis(500);
/// A question that another's deadline ended is asked again for what is left, unless that is hardly anything.
const WORTH_ASKING: Duration = Duration::from_millis(500);

/// The repository's own directory of the gate, with what outlives a push.
pub struct State(pub PathBuf);

impl State {
    pub fn key(&self) -> Outcome<Vec<u8>> {
        fs::read(self.0.join("key"))
            .map_err(|_| Refusal::new("the git gate's key cannot be read; install the git gate again"))
    }

    /// A fingerprint for several findings that are decided together, whose members are kept.
    pub fn name_of(&self, open: &[String]) -> Outcome<String> {
        if let [one] = open {
            return Ok(one.clone());
        }
        let members: String = open.iter().map(|fingerprint| format!("{fingerprint}\n")).collect();
        let hash = &sha256_hex(members.as_bytes())[..40];
        let sets = self.0.join("sets");
        let new = sets.join(format!("{hash}.{}.new", std::process::id()));
        fs::create_dir_all(&sets)
            .and_then(|()| fs::write(&new, members))
            .and_then(|()| fs::rename(&new, sets.join(hash)))
            .map_err(|error| Refusal::new(format!("the git gate cannot keep what is asked about: {error}")))?;
        Ok(format!("{} findings {hash}", open.len()))
    }

    /// The sets of findings that were asked about together.
    pub fn sets(&self) -> Vec<(String, HashSet<String>)> {
        let files = fs::read_dir(self.0.join("sets")).into_iter().flatten().flatten();
        files
            .filter_map(|file| {
                let hash = file.file_name().into_string().ok().filter(|name| !name.contains('.'))?;
                let members: HashSet<String> =
                    fs::read_to_string(file.path()).ok()?.lines().map(str::to_owned).collect();
                Some((format!("{} findings {hash}", members.len()), members))
            })
            .collect()
    }
}

/// Who is asked, for which bottle.
pub struct Operator<'a> {
    pub place: &'a Place,
    pub bottle: &'a str,
    pub patience: Duration,
    pub state: &'a State,
    pub interrupted: &'a Interrupted,
}

impl Operator<'_> {
    /// Returns if the operator approves.
    pub fn ask(&self, payload: &str, justification: &str, fingerprint: &str) -> Outcome<()> {
        let failed = |error: bot_bottle_store::Error| Refusal::new(format!("the operator could not be asked: {error}"));
        let store = self.place.queue(self.bottle).map_err(failed)?;
        let deadline = Instant::now() + self.patience;
        let hung_up = watch_pusher(self.interrupted.clone());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = Proposal::new(
                self.bottle,
                Tool::GitleaksAllow.as_str(),
                payload.as_bytes(),
                justification,
                None,
                Some(left),
                Some(fingerprint),
            );
            let proposal = asked.map_err(failed)?;
            let _held = Held::new(&self.state.0, &proposal.id)?;
            let queued = store.write_proposal(&proposal).map_err(failed)?;
            say(&waiting(&queued.id, self.bottle, left));
            let waited = self.wait(&store, &proposal.id, deadline + Duration::from_secs(5));
            return match waited {
                Ok(response) if response.status == Status::Rejected => Err(Refusal::new(decided(&response))),
                Ok(response) => {
                    say(&decided(&response));
                    Ok(())
                }
                // An identical push asked first, with less time; this one has its own.
                Err(error)
                    if error.class() == "ProposalExpiredError"
                        && deadline.saturating_duration_since(Instant::now()) > WORTH_ASKING =>
                {
                    continue;
                }
                Err(error) => {
                    let gone = hung_up.load(Ordering::Relaxed);
                    let interrupted = self.interrupted.swap(false, Ordering::Relaxed);
                    Err(self.ended(&store, &proposal, &error, interrupted, gone))
                }
            };
        }
    }

    /// The decision. What the operator asks back is passed on to the pusher, whose push stays held.
    fn wait(&self, store: &QueueStore, id: &str, deadline: Instant) -> bot_bottle_store::Result<Response> {
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let questions = Questions::After(seen);
            match store.wait_for_word(id, Some(left), questions, || self.interrupted.load(Ordering::Relaxed))? {
                Word::Answer(response) => return Ok(*response),
                Word::Question(question) => {
                    say(&asked(&question));
                    seen = question.id;
                }
            }
        }
    }

    fn ended(
        &self,
        store: &QueueStore,
        proposal: &Proposal,
        error: &bot_bottle_store::Error,
        interrupted: bool,
        gone: bool,
    ) -> Refusal {
        if interrupted || error.class() == "WaitTimeoutError" {
            let reason = if gone { "the one who pushed hung up" } else { "the git gate was told to stop" };
            let _ = store.withdraw_proposal(&proposal.id, reason);
        }
        match error.class() {
            _ if interrupted && gone => Refusal::new("you hung up"),
            _ if interrupted => Refusal::new("the git gate was stopped; push again once it is back"),
            "ProposalExpiredError" | "WaitTimeoutError" => {
                Refusal::new("there was no decision; push again to ask again")
            }
            "ProposalWithdrawnError" => Refusal::new("the question was taken back; push again to ask again"),
            _ => Refusal::new(format!("the operator could not be asked: {error}")),
        }
    }
}

/// Says that a question is somebody's as long as the process lives: whoever finds the file unlocked takes it back.
struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    fn new(state: &Path, id: &str) -> Outcome<Self> {
        let directory = state.join("held");
        let path = directory.join(id);
        let new = directory.join(format!("{id}.new"));
        // Under its name only once it is locked.
        let locked = fs::create_dir_all(&directory)
            .and_then(|()| File::create(&new))
            .and_then(|file| file.lock().map(|()| file))
            .and_then(|file| fs::rename(&new, &path).map(|()| file));
        let lock = locked.map_err(|error| Refusal::new(format!("the git gate cannot note its question: {error}")))?;
        Ok(Held { path, _lock: lock })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes back the questions of pushes that were killed while they were held.
pub fn withdraw_orphans(state: &Path, place: &Place, bottle: &str) {
    for file in fs::read_dir(state.join("held")).into_iter().flatten().flatten() {
        let Ok(id) = file.file_name().into_string() else { continue };
        let Ok(lock) = File::open(file.path()) else { continue };
        if id.ends_with(".new") || lock.try_lock().is_err() {
            continue;
        }
        let Ok(store) = place.queue(bottle) else { return };
        // One that was decided meanwhile, or never got into the queue, has nothing to take back.
        let _ = store.withdraw_proposal(&id, "the git gate was killed while it held this push");
        let _ = fs::remove_file(file.path());
    }
}

/// Interrupts the wait once the pusher has hung up. git does not tell its hook: receive-pack loses the thread that talks
/// to the pusher (within receive.keepAlive, 5 s) and waits on. So its threads are counted; where there is no /proc, the
/// wait goes on to its end.
fn watch_pusher(interrupted: Interrupted) -> Arc<AtomicBool> {
    let gone = Arc::new(AtomicBool::new(false));
    let told = gone.clone();
    let threads = || {
        let parent = std::os::unix::process::parent_id();
        fs::read_dir(format!("/proc/{parent}/task")).map(Iterator::count).unwrap_or(0)
    };
    let (parent, at_first, since) = (std::os::unix::process::parent_id(), threads(), Instant::now());
    thread::spawn(move || {
        let mut signs = 1;
        loop {
            thread::sleep(LOOK);
            if threads() < at_first || std::os::unix::process::parent_id() != parent {
                told.store(true, Ordering::Relaxed);
                interrupted.store(true, Ordering::Relaxed);
                return;
            }
            if since.elapsed() >= SIGN_OF_LIFE * signs {
                say(&format!("still waiting for the operator, since {} s", since.elapsed().as_secs()));
                signs += 1;
            }
        }
    });
    gone
}
