//! What does the proxy put on record, and how is that record kept from being flooded?
//!
//! Two places: the audit log for what an operator must be able to look up, and standard error for what somebody wants to
//! see who wonders why a request failed. Both get host names and fingerprints at most, cleaned by the caller of secrets.
//! Noise, which an agent can make for nothing, and evidence against it have budgets of their own, evidence one for each
//! kind of event; what a budget left out is counted and written down.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bot_bottle_store::{AuditEntry, AuditFields, AuditStore, now, visible};

pub const COMPONENT: &str = "egress";
/// For so long the same line is not written a second time.
const SAME_AGAIN: Duration = Duration::from_secs(60);
/// Lines of one kind; an agent could go on for ever with one made-up token after the other.
const PER_MINUTE: usize = 120;
/// The kind of what goes to standard error alone.
const NOISE: &str = "noise";

pub struct Record {
    budgets: Mutex<HashMap<&'static str, Budget>>,
    writer: Mutex<Option<(Sender<Note>, JoinHandle<()>)>>,
}

struct Note {
    action: &'static str,
    sentence: String,
}

struct Budget {
    since: Instant,
    count: usize,
    said: HashMap<String, Instant>,
}

/// What a budget says about a line.
enum News {
    Yes,
    No,
    /// Yes, and so many lines were left out in the minute before.
    After(usize),
}

impl Record {
    pub fn new(slug: &str, audit: AuditStore) -> Self {
        let (sender, receiver) = channel::<Note>();
        let slug = slug.to_owned();
        // One thread, so that entries keep their order and no request waits for the log.
        let thread = std::thread::spawn(move || {
            for note in receiver {
                write(&audit, &slug, &note);
            }
        });
        Record { budgets: Mutex::default(), writer: Mutex::new(Some((sender, thread))) }
    }

    /// To standard error.
    pub fn say(&self, sentence: &str) {
        match self.news(NOISE, sentence) {
            News::No => return,
            News::Yes => {}
            News::After(count) => log(&format!("{count} more lines were left out in the last minute")),
        }
        log(&visible(sentence, false));
    }

    /// To the audit log, without waiting for it, and to standard error.
    pub fn audit(&self, action: &'static str, sentence: &str) {
        match self.news(action, sentence) {
            News::No => return,
            News::Yes => {}
            News::After(count) => {
                let left_out = format!("{count} more entries {action} were left out in the minute before.");
                self.write("entries-left-out", &left_out);
            }
        }
        self.write(action, sentence);
    }

    /// The same for what no agent can cause.
    pub fn write(&self, action: &'static str, sentence: &str) {
        log(&format!("{action}: {}", visible(sentence, false)));
        if let Some((sender, _)) = &*self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            let _ = sender.send(Note { action, sentence: sentence.to_owned() });
        }
    }

    /// Waits for what is being written; counts what was left out.
    pub fn close(&self) {
        let left_out: Vec<_> = {
            let budgets = self.budgets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            budgets.iter().map(|(kind, budget)| (*kind, budget.count.saturating_sub(PER_MINUTE))).collect()
        };
        for (kind, count) in left_out {
            if count > 0 && kind != NOISE {
                self.write("entries-left-out", &format!("{count} more entries {kind} were left out."));
            }
        }
        let writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some((sender, thread)) = writer {
            drop(sender);
            let _ = thread.join();
        }
    }

    fn news(&self, kind: &'static str, line: &str) -> News {
        let now = Instant::now();
        let mut budgets = self.budgets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let budget = budgets.entry(kind).or_insert_with(|| Budget { since: now, count: 0, said: HashMap::new() });
        let mut left_out = 0;
        if now.duration_since(budget.since) > Duration::from_secs(60) {
            left_out = budget.count.saturating_sub(PER_MINUTE);
            budget.since = now;
            budget.count = 0;
            budget.said.retain(|_, at| now.duration_since(*at) < SAME_AGAIN);
        }
        if budget.said.get(line).is_some_and(|at| now.duration_since(*at) < SAME_AGAIN) {
            return if left_out > 0 { News::After(left_out) } else { News::No };
        }
        budget.count += 1;
        if budget.count > PER_MINUTE {
            return News::No;
        }
        budget.said.insert(line.to_owned(), now);
        if left_out > 0 { News::After(left_out) } else { News::Yes }
    }
}

/// A line on standard error.
pub fn log(sentence: &str) {
    eprintln!("egress: {sentence}");
}

fn write(audit: &AuditStore, slug: &str, note: &Note) {
    let timestamp = now();
    let entry: AuditEntry = AuditFields {
        timestamp: timestamp.as_str(),
        bottle_slug: slug,
        component: COMPONENT,
        operator_action: note.action,
        operator_notes: &note.sentence,
        decided_by: COMPONENT,
        surface: "policy",
        ..AuditFields::default()
    }
    .into();
    if let Err(error) = entry.checked().and_then(|entry| audit.write_audit_entry(&entry)) {
        log(&format!("not in the audit log ({error}): {}", note.action));
    }
}
