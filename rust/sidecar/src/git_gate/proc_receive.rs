//! How does git hand an accepted push over, and learn what became of each ref? By its proc-receive protocol (githooks(5)).

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::ask::State;
use super::git::git;
use super::grants::Grants;
use super::lock::{Lock, remove_stale_locks};
use super::push::{Push, Update};
use super::upstream::{Fate, Upstream, is_new_tag};
use super::{Outcome, Refusal, packed, replace};

/// How long a push waits for others to go through before it.
const TURN: Duration = Duration::from_secs(900);
/// What a killed gate left behind is removed after so long.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// So many new tags are written at once rather than as a file each, which would take as long as the push itself.
const MANY_TAGS: usize = 500;
/// A packet's length is four hex digits, its own included.
const LARGEST_PACKET: usize = 65_520;

/// Where pre-receive says to proc-receive, which the same process of git starts, what may go on.
fn handed_over(state: &State) -> PathBuf {
    state.0.join("pushes").join(parent_id().to_string())
}

/// What a push goes on with, besides its refs.
#[derive(Default, Serialize, Deserialize)]
pub struct Handed {
    /// What the operator has just approved, and may have granted.
    pub approved: Option<String>,
    /// The grants that it needs. Both are fingerprints.
    pub granted: Vec<String>,
    /// The ids of its objects of Git LFS.
    pub lfs: Vec<String>,
}

/// Lets the push go on.
pub fn hand_over(state: &State, push: &Push, handed: &Handed) -> Outcome<()> {
    let failed = |error: std::io::Error| Refusal::new(format!("the git gate cannot pass the push on: {error}"));
    let path = handed_over(state);
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    for old in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = old
            .metadata()
            .and_then(|file| file.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > FORGOTTEN) {
            let _ = fs::remove_file(old.path()).or_else(|_| fs::remove_dir_all(old.path()));
        }
    }
    let mut content = serde_json::to_vec(handed).expect("it is text");
    content.push(b'\n');
    for update in &push.updates {
        content.extend(line(update));
    }
    replace(&path, &content).map_err(failed)
}

/// An update as the gate notes it for itself; "-" is a ref that is not there, in whichever hash git names it.
fn line(update: &Update) -> Vec<u8> {
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "-".to_owned());
    let mut line = format!("{} {} ", id(&update.old), id(&update.new)).into_bytes();
    line.extend(&update.name);
    line.push(b'\n');
    line
}

/// Serves one push.
pub fn run(state: &State, upstream: &Upstream, grants: &Grants<'_>) -> Outcome<()> {
    let mut packets = Packets { input: std::io::stdin().lock(), output: std::io::stdout().lock() };
    let hello = packets.read()?.unwrap_or_default();
    let features = hello.split(|byte| *byte == 0).nth(1).map(super::git::text).unwrap_or_default();
    let has = |name: &str| features.split_whitespace().any(|feature| feature == name);
    let (atomic, with_options) = (has("atomic"), has("push-options"));
    while packets.read()?.is_some() {}
    packets.write(if with_options { b"version=1\0push-options atomic" } else { b"version=1\0atomic" })?;
    packets.flush()?;
    let mut updates = Vec::new();
    while let Some(command) = packets.read()? {
        updates.push(Update::from_line(&command).ok_or_else(|| Refusal::new("git asks for what cannot be read"))?);
    }
    let mut options = Vec::new();
    while with_options && let Some(option) = packets.read()? {
        options.push(option);
    }

    let path = handed_over(state);
    let noted = fs::read(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    let mut noted = noted.split_inclusive(|byte| *byte == b'\n');
    let handed: Option<Handed> = noted.next().and_then(|line| serde_json::from_slice(line).ok());
    let allowed: std::collections::HashSet<&[u8]> = noted.collect();
    let handed = handed.filter(|_| updates.iter().all(|update| allowed.contains(line(update).as_slice())));
    let handed = handed.ok_or_else(|| Refusal::new("this push was not looked at; install the git gate again"))?;

    let fates = forward(state, upstream, &updates, atomic, &options, &handed, grants)?;
    for (update, fate) in updates.iter().zip(fates) {
        let answer = match fate {
            Ok(()) => [b"ok ", &update.name[..]].concat(),
            Err(why) => {
                let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1_000).collect();
                [b"ng ", &update.name[..], b" ", why.as_bytes()].concat()
            }
        };
        packets.write(&answer)?;
    }
    packets.flush()
}

/// Passes it on, and takes over into the mirror what the upstream has taken. Nobody fetches meanwhile, and no other push
/// spends what this one needs.
fn forward(
    state: &State,
    upstream: &Upstream,
    updates: &[Update],
    atomic: bool,
    options: &[Vec<u8>],
    handed: &Handed,
    grants: &Grants<'_>,
) -> Outcome<Vec<Fate>> {
    let refused = |Refusal(why)| updates.iter().map(|_| Err(String::clone(&why))).collect();
    // As git-lfs does it: nobody is to find a pointer whose object is not there yet.
    if let Err(why) = upstream.send_objects(&handed.lfs) {
        return Ok(refused(why));
    }
    let lock = Lock::take(&state.0, TURN)?;
    if let Err(why) = grants.check(&handed.granted) {
        return Ok(refused(why));
    }
    let fates = upstream.forward(updates, atomic, options, &lock);
    if fates.iter().any(Result::is_ok) {
        grants.pay(handed.granted.iter().chain(&handed.approved));
    }
    let taken: Vec<&Update> =
        updates.iter().zip(&fates).filter(|(_, fate)| fate.is_ok()).map(|(update, _)| update).collect();
    if !mirror(&taken) {
        remove_stale_locks(Path::new("."), &lock);
        // The next fetch brings what still cannot be written.
        if !mirror(&taken) {
            for update in &taken {
                mirror(&[update]);
            }
        }
    }
    Ok(fates)
}

/// Writes the refs; those that go first, as one of the others may have its name for a directory.
fn mirror(updates: &[&Update]) -> bool {
    let (tags, updates): (Vec<&Update>, Vec<&Update>) = updates.iter().partition(|update| is_new_tag(update));
    let updates = match tags.len() >= MANY_TAGS && packed::add(&tags) {
        true => updates,
        false => [tags, updates].concat(),
    };
    let (gone, there): (Vec<&Update>, Vec<&Update>) = updates.iter().partition(|update| update.new.is_none());
    [gone, there].iter().filter(|updates| !updates.is_empty()).all(|updates| {
        let mut commands = Vec::new();
        for update in updates {
            match &update.new {
                Some(new) => commands.extend([b"update ", &update.name[..], b"\0", new.as_bytes(), b"\0\0"].concat()),
                None => commands.extend([b"delete ", &update.name[..], b"\0\0"].concat()),
            }
        }
        write_refs(git().args(["update-ref", "--stdin", "-z"]), &commands)
    })
}

fn write_refs(command: &mut Command, commands: &[u8]) -> bool {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = spawned else { return false };
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(commands).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

/// git's packets: four hex digits of length, then the content; a length of zero ends a list.
struct Packets<I, O> {
    input: I,
    output: O,
}

impl<I: Read, O: Write> Packets<I, O> {
    fn read(&mut self) -> Outcome<Option<Vec<u8>>> {
        let ended = |_| Refusal::new("git ended the conversation");
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(ended)?;
        let length = std::str::from_utf8(&length).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        match length {
            Some(0) => Ok(None),
            Some(length @ 4..=LARGEST_PACKET) => {
                let mut content = vec![0; length - 4];
                self.input.read_exact(&mut content).map_err(ended)?;
                if content.last() == Some(&b'\n') {
                    content.pop();
                }
                Ok(Some(content))
            }
            _ => Err(Refusal::new("git says what cannot be read")),
        }
    }

    fn write(&mut self, content: &[u8]) -> Outcome<()> {
        let packet = [format!("{:04x}", content.len() + 4).as_bytes(), content].concat();
        self.output.write_all(&packet).map_err(|_| Refusal::new("git ended the conversation"))
    }

    fn flush(&mut self) -> Outcome<()> {
        let done = self.output.write_all(b"0000").and_then(|()| self.output.flush());
        done.map_err(|_| Refusal::new("git ended the conversation"))
    }
}

/// Names and ids of the mirror's refs.
pub fn refs_here() -> Outcome<HashMap<Vec<u8>, String>> {
    let format = "--format=%(objectname) %(refname)";
    let listed = super::git::answer(["for-each-ref", format, "refs/heads", "refs/tags", "refs/notes"], Vec::new())?;
    let entry = |line: &[u8]| {
        let blank = line.iter().position(|byte| *byte == b' ')?;
        Some((line[blank + 1..].to_vec(), super::git::text(&line[..blank])))
    };
    // A ref's name has no newline (git check-ref-format).
    Ok(listed.split(|byte| *byte == b'\n').filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_and_written() {
        let mut packets = Packets { input: &b"0009hello0008abc\n0000"[..], output: Vec::new() };
        assert_eq!(packets.read().expect("a packet"), Some(b"hello".to_vec()));
        assert_eq!(packets.read().expect("a packet"), Some(b"abc".to_vec()));
        assert_eq!(packets.read().expect("the end"), None);
        assert!(packets.read().is_err());
        packets.write(b"ok x").expect("written");
        packets.flush().expect("written");
        assert_eq!(packets.output, b"0008ok x0000");
    }

    #[test]
    fn a_packet_of_an_impossible_length_is_refused() {
        for input in [&b"0001"[..], b"fffff", b"xyz1", b"-001"] {
            assert!(Packets { input, output: Vec::new() }.read().is_err());
        }
    }
}
