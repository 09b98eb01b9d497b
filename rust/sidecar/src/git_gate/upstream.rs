//! How does a push get to the upstream, and what of it did the upstream take? What it confirmed, or what it has.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use super::git::{argument, git, text};
use super::lock::{Lock, remove_stale_locks};
use super::push::{Push, Update};
use super::trouble::{explain, scrub};
use super::{Outcome, Refusal, say};

/// How long an upstream may take to accept a push; its own hooks run in that time.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long to wait for the answer to a short question.
const SHORT_PATIENCE: Duration = Duration::from_secs(120);
/// So many refs are named to one `git push`, which compares each with every other: 4,000 at once take it half a minute.
const REFS_AT_ONCE: usize = 500;

pub struct Upstream {
    pub url: String,
}

/// What became of one ref: nothing to say, or why the upstream does not have it now.
pub type Fate = Result<(), String>;

/// What a program of git's printed.
struct Said {
    success: bool,
    stdout: Vec<u8>,
    stderr: String,
}

impl Upstream {
    pub fn new(url: &str) -> Self {
        Upstream { url: url.to_owned() }
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
        for updates in push.updates.chunks(REFS_AT_ONCE) {
            let mut command = self.push_command(updates, false, &[]);
            command.arg("--dry-run").args(self.destination(updates)).stdin(Stdio::null());
            let said = run(command, SHORT_PATIENCE, &mut |_| {})?;
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
        let at_once = if atomic { updates.len().max(1) } else { REFS_AT_ONCE };
        updates.chunks(at_once).flat_map(|updates| self.forward_some(updates, atomic, options, lock)).collect()
    }

    fn forward_some(&self, updates: &[Update], atomic: bool, options: &[Vec<u8>], lock: &Lock) -> Vec<Fate> {
        let mut command = self.push_command(updates, atomic, options);
        command.args(self.destination(updates)).stdin(lock.held_by_child());
        let said = run(command, PATIENCE, &mut |line| {
            // What the upstream itself says is for the one who pushes.
            if let Some(told) = line.strip_prefix("remote:") {
                let told = scrub(told.trim(), &self.url);
                if !told.is_empty() {
                    say(&format!("the upstream says: {told}"));
                }
            }
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
        let fate = |(update, confirmed): (&Update, Option<Fate>)| match (confirmed, &has) {
            (Some(fate), _) => fate,
            (None, Ok(refs)) if refs.get(&update.name) == update.new.as_ref() => Ok(()),
            (None, Ok(_)) => Err(format!("the upstream did not take it: {trouble}")),
            (None, Err(Refusal(again))) => Err(format!(
                "the upstream cannot be reached: {trouble}; whether it took this is not known ({again}), so fetch first"
            )),
        };
        updates.iter().zip(confirmed).map(fate).collect()
    }

    fn push_command(&self, updates: &[Update], atomic: bool, options: &[Vec<u8>]) -> Command {
        let mut command = self.git();
        command.args(["push", "--porcelain", "--no-verify", "--no-signed"]);
        if atomic && updates.len() > 1 {
            command.arg("--atomic");
        }
        for option in options {
            command.arg("-o").arg(argument(option));
        }
        for update in updates {
            let lease =
                [b"--force-with-lease=", &update.name[..], b":", update.old.as_deref().unwrap_or("").as_bytes()];
            command.arg(argument(&lease.concat()));
        }
        command
    }

    fn destination(&self, updates: &[Update]) -> Vec<std::ffi::OsString> {
        let refspec =
            |update: &Update| argument(&[update.new.as_deref().unwrap_or("").as_bytes(), b":", &update.name].concat());
        [self.url.clone().into()].into_iter().chain(updates.iter().map(refspec)).collect()
    }

    /// All that the upstream has, by name.
    pub fn refs(&self) -> Outcome<HashMap<Vec<u8>, String>> {
        let mut command = self.git();
        command.args(["ls-remote", "--symref", &self.url]).stdin(Stdio::null());
        let said = run(command, SHORT_PATIENCE, &mut |_| {})?;
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
            run(command, PATIENCE, &mut |_| {})
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
        why if why.contains("lock") => format!("a ref is locked there; try again in a moment ({why})"),
        why => format!("the upstream refused it: {why}"),
    }
}

/// Runs it to the end, but no longer than `patience`. `line` is given each line of its standard error as it comes.
fn run(mut command: Command, patience: Duration, line: &mut (dyn FnMut(&str) + Send)) -> Outcome<Said> {
    let failed = |error: std::io::Error| Refusal::new(format!("git cannot be started: {error}"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (mut stdout, stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
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
        let success = ended(&mut child, deadline);
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        match success {
            Some(success) => Ok(Said { success, stdout, stderr }),
            None => Err(Refusal::new(format!("the upstream did not answer within {} s", patience.as_secs()))),
        }
    })
}

/// Whether it ended well; `None` if it had to be killed.
fn ended(child: &mut Child, deadline: Instant) -> Option<bool> {
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
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
