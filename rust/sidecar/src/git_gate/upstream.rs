//! How does a push get to the upstream, and what of it did the upstream take? What it confirmed, or what it has.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::child::{self, Ended};
use super::git::{argument, git, text};
use super::lfs::paid;
use super::lock::{Lock, remove_stale_locks};
use super::push::{Push, Update};
use super::trouble::{explain, scrub};
use super::{Outcome, Refusal, say};

/// How long an upstream may take to accept a push; its own hooks run in that time.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long to wait for the answer to a short question.
const SHORT_PATIENCE: Duration = Duration::from_secs(120);
/// So many refs are named to one `git push`, which compares each that is named with every one that the upstream has. More
/// new tags than that are not named.
const REFS_AT_ONCE: usize = 500;

/// So many objects are named to one `git lfs push`.
const OBJECTS_AT_ONCE: usize = 500;

pub struct Upstream<'a> {
    url: String,
    interrupted: &'a AtomicBool,
}

/// What became of one ref: nothing to say, or why the upstream does not have it now.
pub type Fate = Result<(), String>;

/// What a program of git's printed.
struct Said {
    success: bool,
    stdout: Vec<u8>,
    stderr: String,
}

impl<'a> Upstream<'a> {
    /// Whatever is under way with it ends when somebody interrupts.
    pub fn new(url: &str, interrupted: &'a AtomicBool) -> Self {
        Upstream { url: url.to_owned(), interrupted }
    }

    /// git towards the upstream: configured by the gate alone, and never asking a person.
    pub fn git(&self) -> Command {
        let mut command = git();
        for name in
            ["GIT_QUARANTINE_PATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_PROXY_COMMAND"]
        {
            command.env_remove(name);
        }
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_PUSH_OPTION_")) {
            command.env_remove(name);
        }
        command
    }

    /// Refuses a push that the upstream would refuse by what it has now.
    pub fn would_accept(&self, push: &Push) -> Outcome<()> {
        for updates in groups(&push.updates) {
            let (mut command, _tags) = self.push_command(&updates, false, &[])?;
            let said = self.run(command.arg("--dry-run").stdin(Stdio::null()), SHORT_PATIENCE, &mut |_| {})?;
            if said.success {
                continue;
            }
            let fates = fates(&said.stdout);
            let refused = updates.iter().find_map(|update| {
                fates.get(&update.name).and_then(|fate| fate.clone().err()).map(|why| (update, why))
            });
            return Err(Refusal::new(match refused {
                Some((update, why)) => format!("{} would not be accepted: {why}", text(&update.name)),
                None => format!("the upstream cannot be reached: {}", explain(&said.stderr, &self.url)),
            }));
        }
        Ok(())
    }

    /// Passes the updates on; each succeeds only if the upstream still has what the pusher saw there. `atomic` is all of
    /// them or none.
    pub fn forward(&self, updates: &[Update], atomic: bool, options: &[Vec<u8>], lock: &Lock) -> Vec<Fate> {
        let groups = if atomic { vec![updates.iter().collect()] } else { groups(updates) };
        let mut fates: HashMap<&[u8], Fate> = HashMap::new();
        for group in groups {
            let of_group = self.forward_some(&group, atomic, options, lock);
            fates.extend(group.iter().map(|update| update.name.as_slice()).zip(of_group));
        }
        let untold = || Err("git named it twice".to_owned());
        updates.iter().map(|update| fates.remove(update.name.as_slice()).unwrap_or_else(untold)).collect()
    }

    fn forward_some(&self, updates: &[&Update], atomic: bool, options: &[Vec<u8>], lock: &Lock) -> Vec<Fate> {
        let said = self.push_command(updates, atomic, options).and_then(|(mut command, _tags)| {
            self.run(command.stdin(lock.held_by_child()), PATIENCE, &mut |line| {
                // What the upstream itself says is for the one who pushes.
                if let Some(told) = line.strip_prefix("remote:") {
                    let told = scrub(told.trim(), &self.url);
                    if !told.is_empty() {
                        say(&format!("the upstream says: {told}"));
                    }
                }
            })
        });
        let (known, trouble) = match said {
            Ok(said) => {
                let own: Vec<&str> = said.stderr.lines().filter(|line| !line.starts_with("remote:")).collect();
                (fates(&said.stdout), explain(&own.join("\n"), &self.url))
            }
            Err(Refusal(why)) => (HashMap::new(), why),
        };
        let confirmed: Vec<Option<Fate>> = updates.iter().map(|update| known.get(&update.name).cloned()).collect();
        if confirmed.iter().all(Option::is_some) {
            return confirmed.into_iter().flatten().collect();
        }
        // The connection ended before the answer came: only the upstream knows whether it took it.
        let has = self.refs();
        let fate = |(update, confirmed): (&&Update, Option<Fate>)| match (confirmed, &has) {
            (Some(fate), _) => fate,
            (None, Ok(refs)) if refs.get(&update.name) == update.new.as_ref() => Ok(()),
            (None, Ok(_)) => Err(format!("the upstream did not take it: {trouble}")),
            (None, Err(Refusal(again))) => Err(format!(
                "the upstream cannot be reached: {trouble}; whether it took this is not known ({again}), so fetch first"
            )),
        };
        updates.iter().zip(confirmed).map(fate).collect()
    }

    /// The push as a command, and the directory that it needs until it has ended.
    fn push_command(
        &self,
        updates: &[&Update],
        atomic: bool,
        options: &[Vec<u8>],
    ) -> Outcome<(Command, Option<TagsAlone>)> {
        let (tags, named): (Vec<&Update>, Vec<&Update>) = updates.iter().partition(|update| is_new_tag(update));
        let (tags, named) = if tags.len() > REFS_AT_ONCE { (tags, named) } else { (Vec::new(), updates.to_vec()) };
        let mut command = self.git();
        let alone = if tags.is_empty() { None } else { Some(TagsAlone::new(&tags, &mut command)?) };
        command.args(["push", "--porcelain", "--no-verify", "--no-signed"]);
        if atomic && updates.len() > 1 {
            command.arg("--atomic");
        }
        for option in options {
            command.arg("-o").arg(argument(option));
        }
        for update in &named {
            let lease =
                [b"--force-with-lease=", &update.name[..], b":", update.old.as_deref().unwrap_or("").as_bytes()];
            command.arg(argument(&lease.concat()));
        }
        command.arg(&self.url);
        if alone.is_some() {
            // Without force: what the upstream has under such a name by now stays.
            command.arg("refs/tags/*:refs/tags/*");
        }
        for update in &named {
            command.arg(argument(&[update.new.as_deref().unwrap_or("").as_bytes(), b":", &update.name].concat()));
        }
        Ok((command, alone))
    }

    /// Passes on objects of Git LFS that lie in the repository; those that the upstream has are not sent again.
    pub fn send_objects(&self, oids: &[String]) -> Outcome<()> {
        let once = Path::new("lfs").join(format!("{}.once", std::process::id()));
        for some in oids.chunks(OBJECTS_AT_ONCE) {
            let mut command = self.git();
            command.args(["lfs", "push", "--object-id", "upstream"]).args(some).stdin(Stdio::null());
            // With this file it gets the credential once (the upstream's settings).
            let _ = fs::write(&once, "");
            let path = std::path::absolute(&once).unwrap_or_default();
            let said = self.run(command.env("GIT_GATE_ONCE", path), PATIENCE, &mut |_| {});
            let _ = fs::remove_file(&once);
            let said = said?;
            // git-lfs takes a refusal of the content (422) for a matter of its type, and ends well.
            let refused = said.stderr.contains("Uploading failed");
            if refused || !said.success {
                let own = said.stderr.lines().filter(|line| !line.starts_with("info:")).collect::<Vec<_>>().join("\n");
                let why = if own.is_empty() { "it refused them (422)".to_owned() } else { explain(&own, &self.url) };
                return Err(Refusal::new(format!("the upstream did not take the Git LFS objects of this push: {why}")));
            }
            paid(some);
        }
        Ok(())
    }

    /// All that the upstream has, by name.
    pub fn refs(&self) -> Outcome<HashMap<Vec<u8>, String>> {
        let mut command = self.git();
        command.args(["ls-remote", "--symref", &self.url]).stdin(Stdio::null());
        let said = self.run(&mut command, SHORT_PATIENCE, &mut |_| {})?;
        if !said.success {
            return Err(Refusal::new(explain(&said.stderr, &self.url)));
        }
        let line = |line: &[u8]| {
            let tab = line.iter().position(|byte| *byte == b'\t')?;
            Some((line[tab + 1..].to_vec(), text(&line[..tab])))
        };
        // The branch that HEAD names comes first, as "ref: refs/heads/main", then the id that it leads to.
        let mut refs = HashMap::new();
        for (name, value) in said.stdout.split(|byte| *byte == b'\n').filter_map(line) {
            refs.entry(name).or_insert(value);
        }
        Ok(refs)
    }

    /// Brings the mirror to what the upstream has.
    pub fn fetch(&self, lock: &Lock) -> Outcome<()> {
        let fetch = || {
            let mut command = self.git();
            command.args(["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--no-write-fetch-head", "upstream"]);
            command.stdin(lock.held_by_child());
            self.run(&mut command, PATIENCE, &mut |_| {})
        };
        let mut said = fetch()?;
        if !said.success && said.stderr.contains(".lock") {
            remove_stale_locks(Path::new("."), lock);
            said = fetch()?;
        }
        match said.success {
            true => Ok(()),
            false => Err(Refusal::new(explain(&said.stderr, &self.url))),
        }
    }

    /// Runs it to the end, but no longer than `patience`. `line` is given each line of its standard error as it comes.
    fn run(&self, command: &mut Command, patience: Duration, line: &mut (dyn FnMut(&str) + Send)) -> Outcome<Said> {
        let failed = |error: std::io::Error| Refusal::new(format!("git cannot be started: {error}"));
        let mut child = child::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).map_err(failed)?;
        let (mut stdout, stderr) =
            (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let deadline = Instant::now() + patience;
        thread::scope(|scope| {
            let stdout = scope.spawn(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
            });
            let stderr = scope.spawn(move || {
                let mut said = String::new();
                let mut reader = BufReader::new(stderr);
                let mut bytes = Vec::new();
                while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                    let text = text(&bytes);
                    line(text.trim_end());
                    said += &text;
                    bytes.clear();
                }
                said
            });
            let ended = child::end(&mut child, deadline, self.interrupted);
            let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
            match ended {
                Ok(Ok(status)) => Ok(Said { success: status.success(), stdout, stderr }),
                Ok(Err(Ended::Interrupted)) => Err(Refusal::new("the git gate was told to stop")),
                Ok(Err(Ended::TooLate)) => {
                    Err(Refusal::new(format!("the upstream did not answer within {} s", patience.as_secs())))
                }
                Err(error) => Err(Refusal::new(format!("git cannot be waited for: {error}"))),
            }
        })
    }
}

/// What goes to the upstream in one push each: all new tags where there are many, and the others by so many.
fn groups(updates: &[Update]) -> Vec<Vec<&Update>> {
    let (tags, others): (Vec<&Update>, Vec<&Update>) = updates.iter().partition(|update| is_new_tag(update));
    if tags.len() <= REFS_AT_ONCE {
        return updates.chunks(REFS_AT_ONCE).map(|chunk| chunk.iter().collect()).collect();
    }
    [tags].into_iter().chain(others.chunks(REFS_AT_ONCE).map(<[&Update]>::to_vec)).collect()
}

pub fn is_new_tag(update: &Update) -> bool {
    update.old.is_none() && update.new.is_some() && update.name.starts_with(b"refs/tags/")
}

/// A repository whose only refs are the new tags of a push, over this one's objects and settings: `git push` takes them
/// by a pattern, in seconds where it takes a minute for as many that are named. Gone when it is dropped.
struct TagsAlone(PathBuf);

impl TagsAlone {
    /// `command` is made to run there.
    fn new(tags: &[&Update], command: &mut Command) -> Outcome<Self> {
        let failed = |error: std::io::Error| Refusal::new(format!("the git gate cannot name the tags: {error}"));
        let here = env::current_dir().map_err(failed)?;
        let directory = here.join("bot-bottle").join("pushes").join(format!("{}.tags", std::process::id()));
        let alone = TagsAlone(directory);
        fs::create_dir_all(alone.0.join("refs")).map_err(failed)?;
        let id = |tag: &Update| tag.new.clone().unwrap_or_default();
        // git reads the format of a repository's objects from its own file alone (gitrepository-layout(5)).
        let sha256 = tags.iter().any(|tag| id(tag).len() == 64);
        let format = if sha256 { "[extensions]\nobjectformat = sha256\n" } else { "" };
        let version = u8::from(sha256);
        let config = format!(
            "[core]\nrepositoryformatversion = {version}\nbare = true\n{format}[include]\npath = \"{}\"\n",
            here.join("config").display().to_string().replace('\\', "\\\\")
        );
        let mut refs = Vec::new();
        for tag in tags {
            refs.extend([id(tag).as_bytes(), b" ", &tag.name[..], b"\n"].concat());
        }
        fs::write(alone.0.join("config"), config)
            .and_then(|()| fs::write(alone.0.join("packed-refs"), refs))
            .and_then(|()| fs::write(alone.0.join("HEAD"), "ref: refs/heads/none\n"))
            .map_err(failed)?;
        command.env("GIT_DIR", &alone.0);
        // Before a push is accepted its objects lie in a quarantine, which git names to its hooks.
        if env::var_os("GIT_OBJECT_DIRECTORY").is_none() {
            command.env("GIT_OBJECT_DIRECTORY", here.join("objects"));
        }
        Ok(alone)
    }
}

impl Drop for TagsAlone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What `git push --porcelain` says of each ref: flag, source and destination, summary and perhaps a reason.
fn fates(porcelain: &[u8]) -> HashMap<Vec<u8>, Fate> {
    let line = |line: &[u8]| {
        let parts: Vec<&[u8]> = line.splitn(3, |byte| *byte == b'\t').collect();
        let [flag, refs, summary] = parts[..] else { return None };
        let colon = refs.iter().position(|byte| *byte == b':')?;
        let name = refs[colon + 1..].to_vec();
        let fate = if flag == b"!" { Err(reason(&text(summary))) } else { Ok(()) };
        Some((name, fate))
    };
    porcelain.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn reason(summary: &str) -> String {
    let why = summary.split_once('(').map_or(summary, |(_, why)| why.trim_end_matches(')'));
    match why {
        "stale info" | "fetch first" | "non-fast-forward" | "already exists" => {
            "the upstream has moved since you fetched; fetch, rebase and push again".to_owned()
        }
        // git's word for a ref that somebody else has locked; the upstream's own line before says so.
        why if why.contains("lock") || why == "failed to update ref" => {
            format!("a ref is locked there; try again in a moment ({why})")
        }
        why => format!("the upstream refused it: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_upstream_says_of_each_ref_is_read() {
        let said = b"To /x\n*\tabc:refs/heads/a b\t[new branch]\n!\tabc:refs/heads/b\t[remote rejected] (protected (by rule))\n\
            -\t:refs/heads/c\t[deleted]\n!\tabc:refs/heads/d\t[rejected] (stale info)\nDone\n";
        let fates = fates(said);
        assert_eq!(fates[&b"refs/heads/a b"[..]], Ok(()));
        assert!(fates[&b"refs/heads/b"[..]].as_ref().is_err_and(|why| why.ends_with("protected (by rule")));
        assert_eq!(fates[&b"refs/heads/c"[..]], Ok(()));
        assert!(fates[&b"refs/heads/d"[..]].as_ref().is_err_and(|why| why.contains("has moved")));
    }
}
