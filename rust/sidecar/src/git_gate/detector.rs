//! What does gitleaks find in the pieces? Everything, or the push is refused: no crash, hang or garbage passes for a clean
//! scan.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{env, thread};

use serde::Deserialize;

use super::child::{self, Ended};
use super::pieces::{CANARY_RULE, Piece, Pieces, Section, Subject, cannot_write, read};
use super::{Outcome, Refusal};

/// gitleaks' exit code for "leaks found", as it is asked for (`--exit-code`), so that it is none of its failures.
const LEAKS_FOUND: i32 = 42;
/// How long gitleaks may take: this, and a second for so many bytes. It reads a few MB a second on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const BYTES_A_SECOND: u64 = 250_000;
/// A longer report is more than anybody would look through.
const LONGEST_REPORT: u64 = 512 << 20;
/// Lines that are shown before and after a secret.
const CONTEXT: usize = 3;
/// Rules of gitleaks' own that look into files of one name only, though what they look for is told by its form.
const ANY_NAME: [&str; 3] = ["freemius-secret-key", "kubernetes-secret-yaml", "nuget-config-password"];

pub struct Detector {
    program: PathBuf,
    rules: Option<PathBuf>,
}

/// One entry of gitleaks' report; what is not named here is not needed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "RuleID")]
    rule: String,
    description: String,
    start_line: u64,
    end_line: u64,
    #[serde(rename = "Match")]
    matched: String,
    secret: String,
    file: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// A secret that was found, with the lines around it. All of it is secret until it is redacted.
pub struct Leak {
    pub rule: String,
    pub description: String,
    /// Empty for a rule about names alone.
    pub secret: String,
    /// What to look for in other versions of the file: the secret, or the lines that it is encoded in.
    pub trace: String,
    /// Where it is: subject, and line in it (0 where lines mean nothing).
    pub places: Vec<(Subject, u64)>,
    pub before: Vec<String>,
    pub found: Vec<String>,
    pub after: Vec<String>,
}

impl Detector {
    /// `program` by name or path; `rules` a configuration instead of gitleaks' own.
    pub fn new(program: &Path, rules: Option<&Path>) -> Outcome<Self> {
        let named = program.to_string_lossy().into_owned();
        let found = if program.components().count() > 1 {
            std::path::absolute(program).ok().filter(|path| path.is_file())
        } else {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
        };
        let program = found.ok_or_else(|| Refusal::new(format!("{named} is not there; install it on the git gate")))?;
        let rules = rules.map(std::path::absolute).transpose().map_err(cannot_write)?;
        Ok(Detector { program, rules })
    }

    /// Whether rules about names alone have to see this path.
    pub fn judges_name(&self, path: &[u8]) -> bool {
        let ends = |suffix: &[u8]| path.len() >= 4 && path[path.len() - 4..].eq_ignore_ascii_case(suffix);
        self.rules.is_some() || ends(b".p12") || ends(b".pfx")
    }

    /// All leaks in the pieces. `interrupted` ends the run early.
    pub fn run(&self, pieces: &Pieces, interrupted: &AtomicBool) -> Outcome<Vec<Leak>> {
        let mut child = self.start(&pieces.directory)?;
        let mut stdout = child.stdout.take().expect("it is piped");
        let mut stderr = child.stderr.take().expect("it is piped");
        let report = thread::spawn(move || {
            let mut text = Vec::new();
            stdout.by_ref().take(LONGEST_REPORT).read_to_end(&mut text).map(|_| text)
        });
        let complaint = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.by_ref().take(1 << 16).read_to_end(&mut text);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&text).into_owned()
        });
        let patience = PATIENCE + Duration::from_secs(pieces.bytes / BYTES_A_SECOND);
        let status = child::end(&mut child, Instant::now() + patience, interrupted)
            .map_err(|error| Refusal::new(format!("gitleaks cannot be waited for: {error}")))?
            .map_err(|why| match why {
                Ended::Interrupted => Refusal::new("the git gate was told to stop"),
                Ended::TooLate => Refusal::new(format!("gitleaks did not end within {} s", patience.as_secs())),
            })?;
        let report = report.join().ok().and_then(Result::ok).unwrap_or_default();
        let complaint = complaint.join().unwrap_or_default();
        match status.code() {
            Some(0 | LEAKS_FOUND) => {}
            _ => return Err(self.failed(status, &complaint, &pieces.canary)),
        }
        if report.is_empty() {
            return Err(Refusal::new("gitleaks ended without a report"));
        }
        let entries: Vec<Entry> = serde_json::from_slice(&report).map_err(|error| {
            // serde's own message would quote the input, and with it a secret.
            Refusal::new(format!("gitleaks' report cannot be read at line {}", error.line()))
        })?;
        leaks(entries, pieces)
    }

    fn start(&self, directory: &Path) -> Outcome<Child> {
        let extend = match &self.rules {
            None => "useDefault = true".to_owned(),
            Some(rules) => format!("path = '{}'", rules.display()),
        };
        let mut configuration = format!(
            "[extend]\n{extend}\n[[rules]]\nid = '{CANARY_RULE}'\nregex = '{CANARY_RULE}-[0-9a-f]{{32}}'\n\
             keywords = ['{CANARY_RULE}']\n"
        );
        for rule in ANY_NAME.iter().filter(|_| self.rules.is_none()) {
            configuration += &format!("[[rules]]\nid = '{rule}'\npath = '.'\n");
        }
        let mut command = Command::new(&self.program);
        // Only what it needs: the environment may hold settings of gitleaks', of Go's, and secrets.
        command.env_clear().envs(["PATH", "HOME", "TMPDIR"].iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command
            .env("GITLEAKS_CONFIG_TOML", configuration)
            .args(["dir", ".", "--ignore-gitleaks-allow", "--gitleaks-ignore-path", "./none"])
            .args(["--report-format", "json", "--report-path", "-", "--no-banner", "--no-color", "--log-level", "warn"])
            .args(["--exit-code", &LEAKS_FOUND.to_string()])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        child::start(&mut command).map_err(|error| {
            Refusal::new(format!("{} cannot be started ({error}); install gitleaks again", self.program.display()))
        })
    }

    /// Why it failed, if it can say; what it says may quote a file.
    fn failed(&self, status: ExitStatus, complaint: &str, canary: &str) -> Refusal {
        let how = match std::os::unix::process::ExitStatusExt::signal(&status) {
            Some(signal) => format!("gitleaks was killed by signal {signal}"),
            None => format!("gitleaks failed (exit code {})", status.code().unwrap_or(-1)),
        };
        if complaint.contains("unknown command") || complaint.contains("unknown flag") {
            return Refusal::new(format!("{how}: it is too old; install 8.25 or newer on the git gate"));
        }
        let said =
            complaint.lines().rfind(|line| !line.trim().is_empty() && !line.contains(canary)).unwrap_or_default();
        let said: String = said.chars().take(300).collect();
        Refusal::new(if said.is_empty() { how } else { format!("{how}: {said}") })
    }
}

/// The leaks of a report that has every canary.
fn leaks(entries: Vec<Entry>, pieces: &Pieces) -> Outcome<Vec<Leak>> {
    let by_file: HashMap<&str, usize> =
        pieces.pieces.iter().enumerate().map(|(nth, piece)| (piece.file.as_str(), nth)).collect();
    let mut seen = vec![false; pieces.pieces.len()];
    let mut texts: HashMap<usize, String> = HashMap::new();
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.file.strip_prefix("./").unwrap_or(&entry.file);
        let Some(nth) = by_file.get(file).copied() else {
            found.extend(named(entry));
            continue;
        };
        if entry.rule == CANARY_RULE {
            seen[nth] |= entry.secret == pieces.canary;
            continue;
        }
        // A rule about names alone has nothing to say of a number.
        if entry.secret.is_empty() {
            continue;
        }
        let piece = &pieces.pieces[nth];
        let text = match texts.entry(nth) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(read(&pieces.directory, piece)?),
        };
        found.extend(located(entry, piece, text, &pieces.canary));
        if texts.len() > 64 {
            texts.clear();
        }
    }
    match seen.iter().all(|seen| *seen) {
        true => Ok(found),
        false => Err(Refusal::new("gitleaks did not read everything to the end")),
    }
}

/// What a rule about names says of a path.
fn named(entry: Entry) -> Option<Leak> {
    let file = entry.file.strip_prefix("./").unwrap_or(&entry.file);
    let number = file.strip_prefix("n/")?.split('/').next()?.parse().ok()?;
    entry.secret.is_empty().then(|| Leak {
        rule: entry.rule,
        description: entry.description,
        secret: String::new(),
        trace: String::new(),
        places: vec![(Subject::Path(number), 0)],
        before: Vec::new(),
        found: Vec::new(),
        after: Vec::new(),
    })
}

fn located(entry: Entry, piece: &Piece, text: &str, canary: &str) -> Option<Leak> {
    // Next to a cut the rule did not see what the text is; the overlapping piece shows it.
    let inner = text.trim_start_matches('\n').strip_suffix(&format!("\n{canary}\n")).unwrap_or(text);
    if piece.cut_before && inner.starts_with(&entry.matched) || piece.cut_after && inner.ends_with(&entry.matched) {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let first = usize::try_from(entry.start_line).unwrap_or(1).clamp(1, lines.len());
    let last = usize::try_from(entry.end_line).unwrap_or(first).clamp(first, lines.len());

    let section = |sections: &[Section]| -> Option<(Subject, u64, usize, usize)> {
        let after = sections.partition_point(|section| section.first <= first as u64);
        let section = &sections[after.checked_sub(1)?];
        let line = if section.line == 0 { 0 } else { section.line + (first as u64 - section.first) };
        let from = usize::try_from(section.first).unwrap_or(1);
        // The line between two texts, or the canary's, is the end of this one.
        let to = sections.get(after).map_or(lines.len(), |next| usize::try_from(next.first).unwrap_or(1) - 1);
        Some((section.subject.clone(), line, from, to.saturating_sub(1)))
    };
    let owners: Vec<_> = piece.owners.iter().filter_map(|sections| section(sections)).collect();
    let (from, to) = owners.first().map(|(_, _, from, to)| (*from, *to))?;
    let cut = |from: usize, to: usize| -> Vec<String> {
        let lines = lines.get(from.max(1) - 1..to.max(from.max(1) - 1)).unwrap_or_default().iter();
        lines.filter(|line| !line.starts_with(['\u{1e}']) && !line.contains(canary)).map(|l| (*l).to_owned()).collect()
    };
    let found = cut(first, last);
    let decoded = entry.tags.is_some_and(|tags| tags.iter().any(|tag| tag.starts_with("decoded")));
    let trace = if !decoded && text.contains(&entry.secret) {
        entry.secret.clone()
    } else {
        found.join("\n").trim().to_owned()
    };
    Some(Leak {
        rule: entry.rule,
        description: entry.description,
        secret: entry.secret,
        trace,
        places: owners.into_iter().map(|(subject, line, ..)| (subject, line)).collect(),
        before: cut(first.saturating_sub(CONTEXT).max(from), first - 1),
        found,
        after: cut(last + 1, (last + CONTEXT).min(to)),
    })
}
