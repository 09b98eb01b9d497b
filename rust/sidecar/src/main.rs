//! What can a sidecar do without Python? Propose, wait, answer, look, take back, audit; it has no verb that decides.
//!
//! Parse, one call of the core, exit code (the same codes as `bot-bottle`). Answers go to standard output, as
//! text or with `--json` as one line of JSON; whatever went wrong is one sentence on standard error.

mod git_gate;
mod place;
mod told;

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bot_bottle_store::{
    AuditEntry, AuditFields, Error, InboxSummary, MAX_PAYLOAD_BYTES, Proposal, Questions, QueueStore, Result, Status,
    Word, ask_while_waiting, now, visible, within,
};
use clap::{Args, Parser, Subcommand};
use serde_json::json;

use place::{Interrupted, Place};
use told::{answer, as_json, asked, asks, decided, describe, one_line, one_line_of_json, pending, print};

/// A rejection is a result, not an error.
const REJECTED: u8 = 3;
/// So is what the operator asks back.
const ASKED: u8 = 11;

#[derive(Parser)]
#[command(
    name = "bot-bottle-sidecar",
    version,
    about = "Ask the operator from inside a sidecar, and wait for the answer."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
pub(crate) struct Queue {
    #[command(flatten)]
    place: Place,
    /// The bottle this sidecar belongs to.
    #[arg(long, env = "SUPERVISE_BOTTLE_SLUG", value_name = "SLUG")]
    bottle: String,
}

#[derive(Args)]
struct Waiting {
    /// Give up waiting after so many seconds; the proposal stays pending.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// End with exit code 11 when the operator asks back, which 'answer' answers. Without it what is asked is printed to
    /// standard error, and the wait goes on.
    #[arg(long)]
    stop_on_question: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Queue a proposal, and with --wait block until it is decided and in effect.
    Propose {
        #[command(flatten)]
        queue: Queue,
        /// What it is for, such as egress-allow.
        #[arg(long, value_name = "NAME")]
        tool: String,
        /// The whole proposed file; - or nothing reads standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// Why, in the agent's words.
        #[arg(long, value_name = "TEXT", default_value = "")]
        justification: String,
        /// SHA-256 of the file it was written against.
        #[arg(long, value_name = "HEX")]
        current_hash: Option<String>,
        /// What a grant made from the approval is about.
        #[arg(long, value_name = "TEXT")]
        fingerprint: Option<String>,
        /// The pending proposal in whose place this one is put, after a question say.
        #[arg(long, value_name = "ID")]
        revises: Option<String>,
        /// Undecided after so many seconds means expired.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        expires_in: Option<Duration>,
        /// Block until it is decided. Interrupted, it withdraws the proposal.
        #[arg(long)]
        wait: bool,
        /// Leave the proposal pending when the wait is interrupted.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Block until a proposal is decided and in effect.
    Wait {
        /// The proposal's id.
        id: String,
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Answer what the operator asks back about a proposal.
    Answer {
        /// The proposal's id.
        id: String,
        /// The answer; - reads standard input.
        text: String,
        #[command(flatten)]
        queue: Queue,
    },
    /// Print a proposal and where it stands.
    Show {
        /// The proposal's id.
        id: String,
        #[command(flatten)]
        queue: Queue,
    },
    /// List this bottle's pending proposals.
    Pending {
        #[command(flatten)]
        queue: Queue,
    },
    /// Take a proposal back.
    Withdraw {
        /// The proposal's id.
        id: String,
        #[command(flatten)]
        queue: Queue,
        /// Why; whoever still waits is told.
        #[arg(long, value_name = "TEXT", default_value = "withdrawn by the requester")]
        reason: String,
    },
    /// Put a proposal away; a pending one is withdrawn first.
    Archive {
        /// The proposal's id.
        id: String,
        #[command(flatten)]
        queue: Queue,
    },
    /// Spend one use of a grant; exit code 4 if there is none.
    UseGrant {
        #[command(flatten)]
        queue: Queue,
        /// The tool the grant is for.
        #[arg(long, value_name = "NAME")]
        tool: String,
        /// What the grant is about.
        #[arg(long, value_name = "TEXT")]
        fingerprint: String,
    },
    /// Write to the audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Say how the host is reached from here, as a file or over its broker, whether that works and how fast.
    Doctor {
        #[command(flatten)]
        place: Place,
    },
    /// What the git gate's hooks start.
    #[command(hide = true)]
    GitGateHook(git_gate::Hook),
}

#[derive(Subcommand)]
enum Audit {
    /// Append an entry.
    Append {
        #[command(flatten)]
        queue: Queue,
        /// Who reports it, such as egress.
        #[arg(long, value_name = "NAME")]
        component: String,
        /// What happened, such as routes-reload-failed.
        #[arg(long, value_name = "TEXT")]
        action: String,
        /// More about it.
        #[arg(long, value_name = "TEXT", default_value = "")]
        notes: String,
    },
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    // What would overflow is longer than anything lasts.
    Duration::try_from_secs_f64(if seconds > 1e18 { 1e18 } else { seconds }).map_err(|_| "must be from 0 on".to_owned())
}

impl Verb {
    fn as_json(&self) -> bool {
        match self {
            Verb::Propose { queue, .. }
            | Verb::Wait { queue, .. }
            | Verb::Answer { queue, .. }
            | Verb::Show { queue, .. }
            | Verb::Pending { queue }
            | Verb::Withdraw { queue, .. }
            | Verb::Archive { queue, .. }
            | Verb::UseGrant { queue, .. }
            | Verb::Audit(Audit::Append { queue, .. }) => queue.place.json,
            Verb::Doctor { place } => place.json,
            Verb::GitGateHook(_) => false,
        }
    }
}

impl Queue {
    fn open(&self) -> Result<QueueStore> {
        self.place.queue(&self.bottle)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.verb.as_json();
    match run(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let (message, code) = (error.to_string(), error.exit_code());
            let _ = if as_json {
                let told = json!({"error": error.class(), "message": message, "exit_code": code});
                writeln!(std::io::stderr(), "{}", one_line_of_json(&told))
            } else {
                writeln!(std::io::stderr(), "bot-bottle-sidecar: {}", visible(&message, false))
            };
            ExitCode::from(code)
        }
    }
}

fn run(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Propose {
            queue,
            tool,
            file,
            justification,
            current_hash,
            fingerprint,
            revises,
            expires_in,
            wait,
            keep,
            waiting,
        } => {
            // Before signals are taken: reading may never end.
            let payload = payload(&file)?;
            // Before anything is queued: a signal from here on finds its proposal withdrawn.
            let interrupted = if wait { signals()? } else { Interrupted::default() };
            let proposal = Proposal::new(
                &queue.bottle,
                &tool,
                &payload,
                &justification,
                current_hash.as_deref(),
                expires_in,
                fingerprint.as_deref(),
            )?
            .revising(revises.as_deref())?;
            let store = queue.open()?;
            // Under the id of this request: another's identical one is not this one's to withdraw.
            let asked = store.write_proposal(&proposal);
            // Only over a broker may it be queued all the same.
            let may_be_queued = asked.is_ok() || store.location().contains("://");
            let waited = asked.and_then(|queued| {
                if !wait {
                    print(queue.place.json, &pending(&queued.id), || queued.id.clone());
                    return Ok(0);
                }
                if !queue.place.json {
                    let _ =
                        writeln!(std::io::stderr(), "waiting for the operator's decision on proposal {}", queued.id);
                }
                await_answer(&store, &queue, &proposal.id, &waiting, &interrupted)
            });
            if matches!(waited, Err(Error::Interrupted)) && may_be_queued && !keep {
                interrupted.store(false, Ordering::Relaxed); // a second signal ends this too
                take_back(&store, &proposal.id);
            }
            waited
        }
        Verb::Wait { id, queue, waiting } => {
            let interrupted = signals()?;
            await_answer(&queue.open()?, &queue, &id, &waiting, &interrupted)
        }
        Verb::Answer { id, text, queue } => {
            let text = if text == "-" { words(payload(&PathBuf::from("-"))?)? } else { text };
            let written = queue.open()?.answer(&id, text.trim_end())?;
            print(queue.place.json, &as_json(&written), || format!("answered {}", written.proposal_id));
            Ok(0)
        }
        Verb::Show { id, queue } => {
            let item = queue.open()?.inspect(&id)?;
            let item = item.ok_or(Error::NotFound { what: "proposal", id })?;
            print(queue.place.json, &as_json(&item), || describe(&item));
            Ok(0)
        }
        Verb::Pending { queue } => {
            let listed = queue.open()?.pending()?;
            let line = |InboxSummary { proposal: p, .. }: &InboxSummary| {
                one_line(&format!("{}  {}  {}  {}", p.id, p.tool, p.arrival_timestamp, p.justification))
            };
            print(queue.place.json, &as_json(&listed), || listed.iter().map(line).collect::<Vec<_>>().join("\n"));
            Ok(0)
        }
        Verb::Withdraw { id, queue, reason } => {
            queue.open()?.withdraw_proposal(&id, &reason)?;
            print(queue.place.json, &answer(&id, "withdrawn", &reason), || format!("withdrawn {id}"));
            Ok(0)
        }
        Verb::Archive { id, queue } => {
            queue.open()?.archive_proposal(&id)?;
            print(queue.place.json, &answer(&id, "archived", ""), || format!("archived {id}"));
            Ok(0)
        }
        Verb::UseGrant { queue, tool, fingerprint } => {
            let spent = queue.place.grants()?.use_grant(&queue.bottle, &tool, &fingerprint)?;
            let grant = spent.ok_or(Error::NotFound { what: "live grant for", id: fingerprint })?;
            print(queue.place.json, &as_json(&grant), || one_line(&format!("used {}", grant.id)));
            Ok(0)
        }
        Verb::Audit(Audit::Append { queue, component, action, notes }) => {
            let entry = AuditEntry::from(AuditFields {
                timestamp: now(),
                bottle_slug: queue.bottle,
                component,
                operator_action: action,
                operator_notes: notes,
                surface: "api".to_owned(),
                ..AuditFields::default()
            });
            let written = queue.place.audit()?.write_audit_entry(&entry.checked()?)?;
            print(queue.place.json, &as_json(&written), || {
                format!("appended entry {}", written.fields().seq.unwrap_or(0))
            });
            Ok(0)
        }
        Verb::Doctor { place } => place.doctor(),
        Verb::GitGateHook(hook) => git_gate::run(&hook),
    }
}

/// How long an interrupted program tries to take back what it asked: whoever pressed Ctrl-C wants it to end.
const FAREWELL: Duration = Duration::from_millis(200);

/// Withdraws what an interrupted requester proposed, or says that it still waits.
fn take_back(store: &QueueStore, id: &str) {
    match within(FAREWELL, || store.withdraw_proposal(id, "the requester was interrupted")) {
        // Interrupted before it was queued.
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(error) => {
            let why = visible(&error.to_string(), false).into_owned();
            let _ =
                writeln!(std::io::stderr(), "bot-bottle-sidecar: proposal {id} may stay pending ({why}); withdraw it");
        }
    }
}

/// Set once SIGINT, SIGTERM or SIGHUP came.
static INTERRUPTED: LazyLock<Interrupted> = LazyLock::new(Interrupted::default);

/// From now on these signals end what waits, not the program.
fn signals() -> Result<Interrupted> {
    let flag = INTERRUPTED.clone();
    ask_while_waiting(|| INTERRUPTED.load(Ordering::Relaxed));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, flag.clone()).map_err(|error| cannot("signals", &error))?;
    }
    Ok(flag)
}

fn await_answer(
    store: &QueueStore,
    queue: &Queue,
    id: &str,
    waiting: &Waiting,
    interrupted: &AtomicBool,
) -> Result<u8> {
    let deadline = waiting.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut seen = String::new();
    let waited = loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now())).or(waiting.timeout);
        let questions = Questions::After(seen);
        match store.wait_for_word(id, left, questions, || interrupted.load(Ordering::Relaxed)) {
            Ok(Word::Answer(response)) => break Ok(*response),
            Ok(Word::Question(question)) if waiting.stop_on_question => {
                print(queue.place.json, &asked(id, &question), || asks(&question));
                return Ok(ASKED);
            }
            Ok(Word::Question(question)) => {
                let told = if queue.place.json { one_line_of_json(&asked(id, &question)) } else { asks(&question) };
                let _ = writeln!(std::io::stderr(), "{told}");
                seen = question.id;
            }
            Err(Error::WaitTimeout { id, .. }) => {
                let seconds = waiting.timeout.unwrap_or_default().as_secs_f64().to_string();
                break Err(Error::WaitTimeout { id, seconds });
            }
            Err(error) => break Err(error),
        }
    };
    // Who reads JSON learns how it ended from there too; the exit code and the sentence stay an error's.
    let ended = match waited.as_ref().err().map(Error::class) {
        Some("WaitTimeoutError") => Some("pending"),
        Some("ProposalExpiredError") => Some("expired"),
        Some("ProposalWithdrawnError") => Some("withdrawn"),
        _ => None,
    };
    if let (Some(status), true) = (ended, queue.place.json) {
        print(true, &answer(id, status, ""), String::new);
    }
    let response = waited?;
    print(queue.place.json, &as_json(&response), || decided(&response));
    Ok(if response.status == Status::Rejected { REJECTED } else { 0 })
}

fn payload(file: &PathBuf) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is accepted: the core then says how much too much it is, and a flood is not read to its end.
    let limit = MAX_PAYLOAD_BYTES as u64 + 1;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| cannot(&file.display().to_string(), &error))?;
    Ok(bytes)
}

fn cannot(path: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::NotFound { what: "file", id: path.to_owned() },
        _ => Error::Unavailable { path: path.to_owned(), reason: error.to_string() },
    }
}

fn words(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::InvalidInput {
        what: "answer",
        reason: format!("is not UTF-8 at byte offset {}", error.utf8_error().valid_up_to()),
    })
}
