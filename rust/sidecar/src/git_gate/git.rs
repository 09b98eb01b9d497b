//! How does the gate ask git for anything, so that neither the repository's settings nor odd names change the answer?

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, thread};

use super::{Outcome, Refusal};

/// So many ids are asked for before the answers are read: few enough that they fit into the pipe unread.
const ASKED_AHEAD: usize = 256;

/// git in this repository (the working directory), with nothing of the machine's or the pusher's configuration.
pub fn git() -> Command {
    let mut command = Command::new("git");
    command.env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_ATTR_NOSYSTEM", "1").env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1");
    for name in ["GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_EXTERNAL_DIFF", "GIT_TRACE", "GIT_LITERAL_PATHSPECS"]
    {
        command.env_remove(name);
    }
    command
}

/// What `git` with these arguments prints when it is given `input`; anything but success is a refusal.
pub fn answer<I, S>(arguments: I, input: Vec<u8>) -> Outcome<Vec<u8>>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let verb = arguments.iter().find(|a| !a.as_bytes().starts_with(b"-")).cloned().unwrap_or_default();
    let failed = |reason: String| Refusal::new(format!("git {} failed: {reason}", verb.to_string_lossy()));
    let mut child = git()
        .args(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // A thread of its own: git may answer before it has read everything.
    let writer = thread::spawn(move || stdin.write_all(&input));
    let done = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    // git may end well without having read on; its exit code says what counts.
    let _ = writer.join();
    if done.status.success() {
        return Ok(done.stdout);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(failed(said.lines().last().unwrap_or("without a word").to_owned()))
}

/// An object as git hands it over; the content is read from the stream.
pub struct Header {
    pub id: String,
    pub kind: String,
    pub size: u64,
}

/// One `git cat-file --batch`, which is asked for objects by id.
pub struct Objects {
    child: Child,
    asking: BufWriter<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Objects {
    /// Of this repository and the quarantine of the push.
    pub fn open() -> Outcome<Self> {
        Self::start(&mut git())
    }

    fn start(command: &mut Command) -> Outcome<Self> {
        let failed = |error: std::io::Error| Refusal::new(format!("git cat-file cannot be started: {error}"));
        let mut child = command
            .args(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let asking = BufWriter::new(child.stdin.take().expect("it is piped"));
        let answers = BufReader::with_capacity(1 << 16, child.stdout.take().expect("it is piped"));
        Ok(Objects { child, asking, answers })
    }

    /// Calls `each` with every one of `ids` in order: its header, and a reader of exactly its content. What `each` leaves
    /// unread is skipped.
    pub fn each<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a str>,
        mut each: impl FnMut(&Header, &mut dyn Read) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut ids = ids.into_iter().peekable();
        while ids.peek().is_some() {
            let batch: Vec<&str> = ids.by_ref().take(ASKED_AHEAD).collect();
            for id in &batch {
                writeln!(self.asking, "{id}").map_err(gone)?;
            }
            self.asking.flush().map_err(gone)?;
            for id in batch {
                let header = self.header(id)?;
                let mut content = self.answers.by_ref().take(header.size);
                each(&header, &mut content)?;
                let left = content.limit();
                let skipped =
                    std::io::copy(&mut self.answers.by_ref().take(left + 1), &mut std::io::sink()).map_err(gone)?;
                if skipped != left + 1 {
                    return Err(Refusal::new("git cat-file ended in the middle of an object"));
                }
            }
        }
        Ok(())
    }

    fn header(&mut self, id: &str) -> Outcome<Header> {
        let mut line = Vec::new();
        self.answers.read_until(b'\n', &mut line).map_err(gone)?;
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [id, kind, size] => {
                let size = size.parse().map_err(|_| Refusal::new("git cat-file gave an object without a size"))?;
                Ok(Header { id: id.to_owned(), kind: kind.to_owned(), size })
            }
            _ => Err(Refusal::new(format!("object {id} is not there; push again from a complete clone"))),
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gone(error: std::io::Error) -> Refusal {
    Refusal::new(format!("git cat-file cannot be read: {error}"))
}

/// Which of `ids` the repository has apart from what this push brings.
pub fn known_before(ids: &[&str]) -> Outcome<Vec<bool>> {
    let mut command = git();
    command.env_remove("GIT_OBJECT_DIRECTORY").env_remove("GIT_QUARANTINE_PATH");
    command.env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES");
    let mut child = command
        .args(["cat-file", "--batch-check=%(objectname)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Refusal::new(format!("git cat-file cannot be started: {error}")))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let asked: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let writer = thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let done = child.wait_with_output().map_err(gone)?;
    let _ = writer.join();
    let known: Vec<bool> =
        String::from_utf8_lossy(&done.stdout).lines().map(|line| !line.ends_with(" missing")).collect();
    if known.len() != ids.len() {
        return Err(Refusal::new("git cat-file did not answer"));
    }
    Ok(known)
}

/// A change of a raw diff: where a path leads now.
pub struct Change {
    pub mode: [u8; 6],
    pub id: String,
    pub path: Vec<u8>,
}

/// Reads `git diff-tree --stdin --raw -z`, of merges combined (`-c`) or not: calls `each` with commit and change.
pub fn changes(raw: &[u8], mut each: impl FnMut(&str, Change)) -> Outcome<()> {
    let odd = || Refusal::new("git diff-tree gave what cannot be read");
    let mut commit = String::new();
    let mut parts = raw.split(|byte| *byte == 0);
    while let Some(part) = parts.next() {
        let colons = part.iter().take_while(|byte| **byte == b':').count();
        if colons == 0 {
            commit = String::from_utf8(part.to_vec()).map_err(|_| odd())?;
            continue;
        }
        // One old mode and id for each parent, then the new ones: ":::m m m m id id id id MMM".
        let words: Vec<&[u8]> = part[colons..].split(|byte| *byte == b' ').collect();
        let (mode, id) = (words.get(colons).ok_or_else(odd)?, words.get(2 * colons + 1).ok_or_else(odd)?);
        let path = parts.next().ok_or_else(odd)?.to_vec();
        let mode = <[u8; 6]>::try_from(*mode).map_err(|_| odd())?;
        each(&commit, Change { mode, id: String::from_utf8_lossy(id).into_owned(), path });
    }
    Ok(())
}

/// An absolute path of the environment's, as git gives its hooks.
pub fn directory(variable: &str) -> Option<PathBuf> {
    let named = PathBuf::from(env::var_os(variable).filter(|value| !value.is_empty())?);
    std::path::absolute(named).ok()
}

/// Bytes of git's as an argument.
pub fn argument(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// For people: bytes of git's as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The name that people know the repository by.
pub fn repository_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
