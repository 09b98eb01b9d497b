//! Do the log and the rows say the same of each decision, message, grant and file that was put in place?
//!
//! Both ways: a row that the log knows nothing of was not decided by the host, and an entry without its row means that
//! somebody took the row away. What `prune` deleted is excused by the entry that says so.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::audit::entry::{self as audit, AuditFields, AuditReport};
use crate::error::Result;
use crate::grant::{GIVEN, REVOKED, USED};
use crate::queue::message::{ANSWERED, ASKED};
use crate::state::{Sender, Status, Vocabulary};

/// What is not as the log says, and of which bottle.
pub(crate) struct Mismatch {
    pub(crate) bottle_slug: String,
    pub(crate) reason: String,
}

/// So many are told apart; whoever can write to the file could make millions.
const MOST: usize = 1000;

/// Verifies the chain and compares, in one snapshot. An error is of the chain; nothing is compared with a broken one.
pub(crate) fn reconcile(conn: &Connection, head: Option<&str>) -> Result<(AuditReport, Vec<Mismatch>)> {
    let mut books = Books {
        conn,
        gone: Gone::read(conn, "queue_store")?,
        grants_gone: Gone::read(conn, "grant_store")?,
        seen: HashSet::new(),
        heard: HashSet::new(),
        given: BTreeMap::new(),
        mismatches: Vec::new(),
    };
    let report = audit::verify(conn, head, |entry| books.entry(entry))?;
    books.decisions()?;
    books.messages()?;
    books.grants()?;
    Ok((report, books.mismatches))
}

/// Until when what ended may be gone from the tables of a module, as said by entry `seq` for all entries before it.
struct Gone(Vec<(i64, String)>);

impl Gone {
    fn read(conn: &Connection, module: &str) -> Result<Self> {
        const GONE_SQL: &str = "SELECT seq, operator_action, operator_notes FROM audit_entries
             WHERE bottle_slug = 'host' AND component = 'database' AND operator_action IN ('pruning', 'rolled back')
             ORDER BY seq DESC";
        let mut gone: Vec<(i64, String)> = Vec::new();
        let mut statement = conn.prepare(GONE_SQL)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = |name| row.get_ref(name).map(|value| value.as_bytes().unwrap_or_default());
            let notes = String::from_utf8_lossy(bytes("operator_notes")?);
            let until = match bytes("operator_action")? {
                b"pruning" if module == "queue_store" => notes.strip_prefix("proposals that ended before "),
                b"rolled back" if notes.starts_with(module) => Some("~"), // sorts after every time
                _ => None,
            };
            // From the last on: what a later one excuses, it excuses for earlier entries as well.
            if let Some(until) = until
                && gone.last().is_none_or(|(_, later)| until > later.as_str())
            {
                gone.push((row.get("seq")?, until.to_owned()));
            }
        }
        Ok(Gone(gone))
    }

    /// Whether the row of something that entry `seq` says happened at `at` may be gone.
    fn excuses(&self, seq: i64, at: &str) -> bool {
        let after = self.0.partition_point(|(said, _)| *said > seq);
        self.0[..after].last().is_some_and(|(_, until)| at < until.as_str())
    }
}

/// A grant as the log has it.
struct Given {
    seq: i64,
    bottle_slug: String,
    /// By the columns of its row.
    told: [(&'static str, Option<String>); 5],
    used: i64,
    revoked: bool,
}

struct Books<'c> {
    conn: &'c Connection,
    gone: Gone,
    grants_gone: Gone,
    /// `seq` of the proposals whose decision is in the log, as it is or with something that was told already.
    seen: HashSet<i64>,
    /// `seq` of the messages that are in the log.
    heard: HashSet<i64>,
    given: BTreeMap<String, Given>,
    mismatches: Vec<Mismatch>,
}

impl Books<'_> {
    fn tell(&mut self, bottle_slug: &str, reason: String) {
        if self.mismatches.len() < MOST {
            self.mismatches.push(Mismatch { bottle_slug: bottle_slug.to_owned(), reason });
        }
    }

    fn entry(&mut self, entry: &AuditFields<&str>) -> Result<()> {
        match (entry.operator_action, entry.proposal_id) {
            (action, Some(id)) if Status::of(action).is_some() => self.decision(entry, id),
            // Without a payload's hash it is a sidecar's own note that has the same word.
            (ASKED, Some(id)) if entry.payload_sha256.is_some() => self.message(entry, id, Sender::Operator),
            (ANSWERED, Some(id)) if entry.payload_sha256.is_some() => self.message(entry, id, Sender::Requester),
            (GIVEN, Some(proposal_id)) => {
                let Some(id) = named(entry.operator_notes) else { return Ok(()) };
                let text = |text: &str| Some(text.to_owned());
                let given = Given {
                    seq: entry.seq.unwrap_or_default(),
                    bottle_slug: entry.bottle_slug.to_owned(),
                    told: [
                        ("bottle_slug", text(entry.bottle_slug)),
                        ("tool", text(entry.component)),
                        ("proposal_id", text(proposal_id)),
                        ("created_by", text(entry.decided_by)),
                        ("created_at", text(entry.timestamp)),
                    ],
                    used: 0,
                    revoked: false,
                };
                self.given.entry(id.to_owned()).or_insert(given);
                Ok(())
            }
            (USED | REVOKED, _) => {
                if let Some(given) = named(entry.operator_notes).and_then(|id| self.given.get_mut(id)) {
                    given.used += i64::from(entry.operator_action == USED);
                    given.revoked |= entry.operator_action == REVOKED;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An entry of a decision, and its row.
    fn decision(&mut self, entry: &AuditFields<&str>, id: &str) -> Result<()> {
        const ROW_SQL: &str = "SELECT p.seq, p.bottle_slug, p.tool, p.state, r.status, r.notes, r.payload_sha256,
                 r.final_sha256, r.decided_by, r.surface, r.decided_at, m.proposal_seq AS applies,
                 m.final_sha256 AS applied_sha256
             FROM proposals p LEFT JOIN responses r ON r.proposal_seq = p.seq
             LEFT JOIN applies m ON m.proposal_seq = p.seq WHERE p.id = :id";
        let (said, action) = (entry.seq.unwrap_or_default(), entry.operator_action);
        let told = [
            ("bottle_slug", Some(entry.bottle_slug)),
            ("tool", Some(entry.component)),
            ("state", Some(action)),
            ("status", Some(action)),
            ("notes", Some(entry.operator_notes)),
            ("payload_sha256", entry.payload_sha256),
            ("final_sha256", entry.final_sha256),
            ("decided_by", Some(entry.decided_by)),
            ("surface", Some(entry.surface)),
            ("decided_at", Some(entry.timestamp)),
        ];
        let found = self
            .conn
            .prepare_cached(ROW_SQL)?
            .query_row([id], |row| {
                if !has(row, "status")? {
                    return Ok(None);
                }
                let differs = differs(row, &told)?;
                let applied = has(row, "applies")? && !is(row, "applied_sha256", entry.final_sha256)?;
                Ok(Some((row.get::<_, i64>("seq")?, differs, applied)))
            })
            .optional()?
            .flatten();
        match found {
            None if self.gone.excuses(said, entry.timestamp) => {}
            None => self.tell(
                entry.bottle_slug,
                format!("entry {said} says that proposal {id} was {action}, and there is no such decision"),
            ),
            Some((seq, differs, applied)) => {
                self.seen.insert(seq);
                if let Some(name) = differs {
                    let reason =
                        format!("the decision on proposal {id} is not the one of entry {said}: {name} differs");
                    self.tell(entry.bottle_slug, reason);
                } else if applied {
                    let reason =
                        format!("the file that was put in place for proposal {id} is not the one of entry {said}");
                    self.tell(entry.bottle_slug, reason);
                }
            }
        }
        Ok(())
    }

    /// The decisions that no entry is about.
    fn decisions(&mut self) -> Result<()> {
        const DECISIONS_SQL: &str = "SELECT r.proposal_seq, p.id, p.bottle_slug FROM responses r
             JOIN proposals p ON p.seq = r.proposal_seq";
        let mut statement = self.conn.prepare(DECISIONS_SQL)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !self.seen.contains(&row.get("proposal_seq")?) {
                let reason = format!("the decision on proposal {} is not in the audit log", shown(row, "id")?);
                self.tell(&shown(row, "bottle_slug")?, reason);
            }
        }
        Ok(())
    }

    /// An entry of a message, and its row.
    fn message(&mut self, entry: &AuditFields<&str>, id: &str, sender: Sender) -> Result<()> {
        const ROW_SQL: &str = "SELECT m.seq FROM proposals p JOIN messages m ON m.proposal_seq = p.seq
             WHERE p.id = :id AND p.bottle_slug = :slug AND p.tool = :tool AND m.sender = :sender
               AND m.written_at = :at AND m.written_by = :by AND m.surface = :surface AND m.text = :text";
        let text = if sender == Sender::Operator { entry.operator_notes } else { entry.justification };
        let told = named_params! {
            ":id": id,
            ":slug": entry.bottle_slug,
            ":tool": entry.component,
            ":sender": sender,
            ":at": entry.timestamp,
            ":by": entry.decided_by,
            ":surface": entry.surface,
            ":text": text,
        };
        let said = entry.seq.unwrap_or_default();
        match self.conn.prepare_cached(ROW_SQL)?.query_row(told, |row| row.get("seq")).optional()? {
            Some(seq) => drop(self.heard.insert(seq)),
            None if self.gone.excuses(said, entry.timestamp) => {}
            None => self.tell(
                entry.bottle_slug,
                format!("entry {said} has a message about proposal {id} that is not there as it was written"),
            ),
        }
        Ok(())
    }

    /// The messages that no entry has.
    fn messages(&mut self) -> Result<()> {
        const MESSAGES_SQL: &str = "SELECT m.seq, p.id, p.bottle_slug FROM messages m
             JOIN proposals p ON p.seq = m.proposal_seq";
        let mut statement = self.conn.prepare(MESSAGES_SQL)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !self.heard.contains(&row.get("seq")?) {
                let reason = format!("a message about proposal {} is not in the audit log", shown(row, "id")?);
                self.tell(&shown(row, "bottle_slug")?, reason);
            }
        }
        Ok(())
    }

    /// The grants, what is left of them, and those that are gone.
    fn grants(&mut self) -> Result<()> {
        const GRANTS_SQL: &str = "SELECT id, bottle_slug, tool, proposal_id, created_by, created_at, uses, uses_left,
             revoked_at FROM grants ORDER BY id";
        let mut statement = self.conn.prepare(GRANTS_SQL)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, slug) = (shown(row, "id")?, shown(row, "bottle_slug")?);
            let Some(given) = self.given.remove(&id) else {
                self.tell(&slug, format!("grant {id} is not in the audit log"));
                continue;
            };
            let told = given.told.each_ref().map(|(name, text)| (*name, text.as_deref()));
            let (uses, left): (Option<i64>, Option<i64>) = (row.get("uses")?, row.get("uses_left")?);
            let by_log = uses.map(|uses| uses.saturating_sub(given.used));
            if let Some(name) = differs(row, &told)? {
                self.tell(&slug, format!("grant {id} is not the one of entry {}: {name} differs", given.seq));
            } else if left != by_log {
                let count = |left: Option<i64>| left.map_or_else(|| "no count".to_owned(), |left| left.to_string());
                let reason = format!("grant {id} has {} of its uses left, by the log {}", count(left), count(by_log));
                self.tell(&slug, reason);
            } else if given.revoked && !has(row, "revoked_at")? {
                self.tell(&slug, format!("grant {id} was revoked, and its row says nothing of that"));
            }
        }
        for (id, given) in std::mem::take(&mut self.given) {
            if !self.grants_gone.excuses(given.seq, "") {
                let reason = format!("entry {} says that grant {id} was given, and there is no such grant", given.seq);
                self.tell(&given.bottle_slug, reason);
            }
        }
        Ok(())
    }
}

/// The grant that an entry's notes begin with.
fn named(notes: &str) -> Option<&str> {
    notes.strip_prefix("grant ")?.split([' ', ':']).next()
}

fn has(row: &Row<'_>, name: &str) -> rusqlite::Result<bool> {
    row.get_ref(name).map(|value| value.as_bytes_or_null().map_or(true, |bytes| bytes.is_some()))
}

/// Byte for byte: what is in a row can be anything.
fn is(row: &Row<'_>, name: &str, told: Option<&str>) -> rusqlite::Result<bool> {
    Ok(row.get_ref(name)?.as_bytes_or_null().is_ok_and(|bytes| bytes == told.map(str::as_bytes)))
}

/// The first column that is not as told.
fn differs<'n>(row: &Row<'_>, told: &[(&'n str, Option<&str>)]) -> rusqlite::Result<Option<&'n str>> {
    for (name, text) in told {
        if !is(row, name, *text)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn shown(row: &Row<'_>, name: &str) -> rusqlite::Result<String> {
    let bytes = row.get_ref(name)?.as_bytes_or_null().unwrap_or_default().unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
