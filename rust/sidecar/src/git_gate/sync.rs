//! Does the repository have what its upstream has, before anybody reads it or pushes to it? If that is not certain, no.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ask::withdraw_orphans;
use super::lock::Lock;
use super::proc_receive::refs_here;
use super::{Hook, Outcome, Refusal, git, replace};
use crate::place::Interrupted;

/// How long a request waits for those before it.
const TURN: Duration = Duration::from_secs(300);
/// What the upstream and the mirror share.
const KINDS: [&[u8]; 3] = [b"refs/heads/", b"refs/tags/", b"refs/notes/"];

/// git daemon's access hook: what it prints is the one line that a refused client gets to see.
pub fn run(hook: &Hook, interrupted: &Interrupted) -> u8 {
    match hook.sync(interrupted) {
        Ok(()) => 0,
        Err(Refusal(reason)) => {
            let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            println!("bot-bottle: {line}");
            eprintln!("git gate: {line}");
            1
        }
    }
}

impl Hook {
    fn sync(&self, interrupted: &Interrupted) -> Outcome<()> {
        let arrived = nanoseconds();
        let state = self.state()?;
        let upstream = self.upstream(interrupted).ok_or_else(|| Refusal::new("this repository has no upstream"))?;
        withdraw_orphans(&state.0, &self.queue.place, &self.queue.bottle);
        let lock = Lock::take(&state.0, TURN)?;
        let note = state.0.join("synced");
        // Somebody else's look that began after this request came is as good as one of its own.
        let began = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0u128);
        if began > arrived && began <= nanoseconds() {
            return Ok(());
        }
        let began = nanoseconds();
        let unreachable = |Refusal(why)| Refusal::new(format!("the upstream cannot be reached: {why}"));
        let there = upstream.refs().map_err(unreachable)?;
        let mirrored = |(name, _): &(&Vec<u8>, &String)| {
            KINDS.iter().any(|kind| name.starts_with(kind)) && !name.ends_with(b"^{}")
        };
        let wanted: HashMap<&Vec<u8>, &String> = there.iter().filter(mirrored).collect();
        let here = refs_here()?;
        if here.len() != wanted.len() || here.iter().any(|(name, id)| wanted.get(name) != Some(&id)) {
            upstream.fetch(&lock).map_err(unreachable)?;
        }
        follow_head(there.get(&b"HEAD"[..]))?;
        // Without it the next request looks for itself.
        let _ = replace(&note, began.to_string().as_bytes());
        Ok(())
    }
}

/// The default branch is the upstream's to choose.
fn follow_head(there: Option<&String>) -> Outcome<()> {
    let Some(branch) = there.and_then(|value| value.strip_prefix("ref: ")).filter(|b| b.starts_with("refs/heads/"))
    else {
        return Ok(());
    };
    let here = fs::read(Path::new("HEAD")).unwrap_or_default();
    if here.strip_prefix(b"ref: ").map(<[u8]>::trim_ascii_end) == Some(branch.as_bytes()) {
        return Ok(());
    }
    git::answer(["symbolic-ref", "HEAD", branch], Vec::new()).map(drop)
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
