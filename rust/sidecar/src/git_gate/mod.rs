//! The git gate: may a push go through, and how does it get to the upstream? What git's hooks start.
//!
//! `pre-receive` scans what is pushed and asks the operator where there is doubt; `proc-receive` passes it on to the
//! upstream, ref by ref; `sync` brings the repository up to date before it is read or pushed to. Whatever fails, the push
//! is refused with one sentence.

mod ask;
mod child;
mod contents;
mod decode;
mod detector;
mod files;
mod findings;
mod git;
mod grants;
mod known;
mod lfs;
mod lock;
mod packed;
mod pieces;
mod proc_receive;
mod push;
mod question;
mod scan;
mod sync;
mod trouble;
mod unpack;
mod upstream;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use clap::{Args, ValueEnum};

use crate::place::Interrupted;
use crate::{Queue, seconds, signals};
use ask::{Operator, State, withdraw_orphans};
use contents::Contents;
use detector::Detector;
use findings::{Redaction, findings};
use git::Objects;
use grants::{Cover, Grants};
use known::Known;
use proc_receive::Handed;
use push::Push;
use question::Question;
use scan::Scan;
use upstream::Upstream;

/// Why a push does not go through, in a sentence for the one who pushes.
#[derive(Debug)]
pub struct Refusal(String);

pub type Outcome<T> = std::result::Result<T, Refusal>;

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Refusal(reason.into())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// May it go through?
    PreReceive,
    /// Pass it on.
    ProcReceive,
    /// Fetch what the upstream has.
    Sync,
}

#[derive(Args)]
pub struct Hook {
    /// Which of git's questions this is.
    stage: Stage,
    #[command(flatten)]
    queue: Queue,
    /// gitleaks, by name or path.
    #[arg(long, value_name = "PROGRAM", default_value = "gitleaks")]
    gitleaks: PathBuf,
    /// A gitleaks configuration instead of gitleaks' own.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// How many seconds a push waits for the operator.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    timeout: Duration,
    /// Larger files are refused.
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20)]
    max_file: u64,
    /// Where accepted refs go on to.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// Runs a hook; returns its exit code.
pub fn run(hook: &Hook) -> bot_bottle_store::Result<u8> {
    let interrupted = signals()?;
    let done = match hook.stage {
        Stage::PreReceive => hook.pre_receive(&interrupted),
        Stage::ProcReceive => hook.proc_receive(&interrupted),
        Stage::Sync => return Ok(sync::run(hook, &interrupted)),
    };
    Ok(match done {
        Ok(()) => 0,
        Err(Refusal(reason)) => {
            say(&format!("push refused: {reason}"));
            1
        }
    })
}

/// To the one who pushes: git shows it with "remote:" before each line.
fn say(text: &str) {
    // A pusher who is gone hears nothing, which is no error.
    let _ = std::io::stderr().lock().write_all(format!("bot-bottle: {}\n", text.trim_end()).as_bytes());
}

impl Hook {
    fn state(&self) -> Outcome<State> {
        let here = env::current_dir().map_err(|error| Refusal::new(format!("the repository is not there: {error}")))?;
        Ok(State(here.join("bot-bottle")))
    }

    fn upstream<'a>(&self, interrupted: &'a Interrupted) -> Option<Upstream<'a>> {
        self.upstream.as_deref().filter(|url| !url.is_empty()).map(|url| Upstream::new(url, interrupted))
    }

    fn pre_receive(&self, interrupted: &Interrupted) -> Outcome<()> {
        let within = Refusal::new("this hook only works within a push; push to the repository instead of starting it");
        if env::var_os("GIT_DIR").is_none() {
            return Err(within);
        }
        let state = self.state()?;
        let repository = state.0.parent().map(git::repository_name).unwrap_or_default();
        let push = Push::read(repository, std::io::stdin())?;
        let rules = self.rules.as_deref().filter(|path| !path.as_os_str().is_empty());
        let detector = Detector::new(&self.gitleaks, rules)?;
        let key = state.key()?;
        if let (Some(_), Some(stray)) = (self.upstream(interrupted), push.stray()) {
            let stray = git::text(stray);
            return Err(Refusal::new(format!("only branches, tags and notes are passed on, not {stray}")));
        }
        withdraw_orphans(&state.0, &self.queue.place, &self.queue.bottle);

        let grants = self.grants();
        let mut handed = Handed::default();
        if push.tips().next().is_some() {
            // git makes none for a push that only deletes.
            let quarantine = git::directory("GIT_QUARANTINE_PATH").ok_or(within)?;
            let mut objects = Objects::open()?;
            let contents = Contents::of(&push, &mut objects)?;
            let scan =
                Scan { push: &push, contents: &contents, detector: &detector, max_file: self.max_file, interrupted };
            let scanned = scan.run(&mut objects, &quarantine.join("bot-bottle"))?;
            let leaks = scanned.leaks;
            handed.lfs = scanned.objects;
            let known = Known::look(&leaks, &contents, &mut objects, &quarantine.join("bot-bottle-file"))?;
            let redaction = Redaction::of(&leaks);
            let found = findings(&leaks, &contents, &push, &known, &key, &redaction)?;
            let operator = Operator {
                place: &self.queue.place,
                bottle: &self.queue.bottle,
                patience: self.timeout,
                state: &state,
                interrupted,
            };
            let mut all: Vec<String> = found.iter().map(|finding| finding.fingerprint.clone()).collect();
            all.sort_unstable();
            all.dedup();
            let total = all.len();
            let Cover { open, granted: by } = grants.cover(&state, all)?;
            handed.granted = by;
            let granted = total - open.len();
            if granted > 0 {
                say(&format!("possible secrets that were allowed before: {granted}"));
            }
            if !open.is_empty() {
                if let Some(upstream) = self.upstream(interrupted) {
                    // What the upstream would refuse anyway needs nobody's decision.
                    upstream.would_accept(&push)?;
                }
                let question = Question {
                    push: &push,
                    forced: push.forced(),
                    contents: &contents,
                    findings: found.iter().filter(|finding| open.contains(&finding.fingerprint)).collect(),
                    redaction: &redaction,
                    known: known.count(),
                    granted,
                };
                let payload = question.payload(&mut objects)?;
                say(&question.told(&mut objects)?);
                let fingerprint = state.name_of(&open)?;
                operator.ask(&payload, &question.justification(), &fingerprint)?;
                handed.approved = Some(fingerprint);
            }
        }
        if self.upstream(interrupted).is_some() {
            // Its grants are spent once the upstream has it.
            return proc_receive::hand_over(&state, &push, &handed);
        }
        grants.spend(&handed.granted)?;
        grants.pay(&handed.approved);
        Ok(())
    }

    fn proc_receive(&self, interrupted: &Interrupted) -> Outcome<()> {
        let state = self.state()?;
        let upstream = self.upstream(interrupted).ok_or_else(|| Refusal::new("this repository has no upstream"))?;
        proc_receive::run(&state, &upstream, &self.grants())
    }

    fn grants(&self) -> Grants<'_> {
        Grants { place: &self.queue.place, bottle: &self.queue.bottle }
    }
}

/// A file of the gate's replaced as a whole.
fn replace(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, content)?;
    fs::rename(&new, path)
}
