//! How is a proposal answered: once, by somebody, about exactly what they saw?

use rusqlite::{Row, named_params};
use serde::{Deserialize, Serialize};

use crate::audit::entry::{self as audit, AuditFields};
use crate::clock;
use crate::diff::{render_diff, sha256_hex};
use crate::error::{Error, Result};
use crate::file::connection::Transaction;
use crate::file::database::{Database, Rings};
use crate::grant::{self, Scope};
use crate::queue::managed_file::{self, Staged};
use crate::queue::proposal::{self, MAX_NOTES_BYTES, MAX_PAYLOAD_BYTES, Proposal, check_hash, check_text, check_time};
use crate::stores::inbox::{self, ChangeKind, InboxItem};

/// A new `routes.yaml` for the egress proxy, letting more through.
pub const TOOL_EGRESS_ALLOW: &str = "egress-allow";
/// A new `routes.yaml` for the egress proxy, letting less through.
pub const TOOL_EGRESS_BLOCK: &str = "egress-block";
/// A new Dockerfile for the agent.
pub const TOOL_CAPABILITY_BLOCK: &str = "capability-block";
/// A push in which gitleaks found something.
pub const TOOL_GITLEAKS_ALLOW: &str = "gitleaks-allow";
/// A request that carries a secret out.
pub const TOOL_EGRESS_TOKEN_ALLOW: &str = "egress-token-allow";

/// Tools whose payload is a finding, not a file: nothing to modify, and leave to pass needs a recorded reason.
const FINDING_TOOLS: [&str; 2] = [TOOL_GITLEAKS_ALLOW, TOOL_EGRESS_TOKEN_ALLOW];

/// It runs as proposed.
pub const STATUS_APPROVED: &str = "approved";
/// Another text runs instead.
pub const STATUS_MODIFIED: &str = "modified";
/// It does not run.
pub const STATUS_REJECTED: &str = "rejected";

const SURFACES: [&str; 5] = ["cli", "tui", "web", "api", "policy"];

/// The operator's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Response {
    pub proposal_id: String,
    pub status: String,
    pub notes: String,
    pub final_file: Option<String>,
    pub payload_sha256: Option<String>,
    pub final_sha256: Option<String>,
    pub decided_by: Option<String>,
    pub surface: Option<String>,
    pub decided_at: Option<String>,
    pub diff: Option<String>,
    pub applied_at: Option<String>,
}

impl Response {
    /// The bare answer, checked; the store fills in the rest.
    pub fn checked(proposal_id: &str, status: &str, notes: &str, final_file: Option<&[u8]>) -> Result<Self> {
        check_text("notes", notes.as_bytes(), MAX_NOTES_BYTES)?;
        let final_file = final_file.map(|bytes| check_text("final_file", bytes, MAX_PAYLOAD_BYTES)).transpose()?;
        match (status, final_file) {
            (STATUS_MODIFIED, None | Some("")) => {
                return Err(Error::proposal("final_file", "is what runs instead; modified needs it"));
            }
            (STATUS_APPROVED | STATUS_REJECTED, Some(_)) => {
                return Err(Error::proposal("final_file", format!("goes with modified, not with {status}")));
            }
            (STATUS_MODIFIED | STATUS_APPROVED | STATUS_REJECTED, _) => {}
            _ => {
                return Err(Error::proposal(
                    "status",
                    format!("must be approved, modified or rejected, not {status:?}"),
                ));
            }
        }
        Ok(Response {
            proposal_id: proposal_id.to_owned(),
            status: status.to_owned(),
            notes: notes.to_owned(),
            final_file: final_file.map(str::to_owned),
            payload_sha256: None,
            final_sha256: None,
            decided_by: None,
            surface: None,
            decided_at: None,
            diff: None,
            applied_at: None,
        })
    }

    /// The answer itself, which is what equality is about.
    pub fn answer(&self) -> (&str, &str, &str, Option<&str>) {
        (&self.proposal_id, &self.status, &self.notes, self.final_file.as_deref())
    }

    /// Checks what a caller filled in beside the answer.
    pub fn check_rest(mut self) -> Result<Self> {
        for hash in [&self.payload_sha256, &self.final_sha256].into_iter().flatten() {
            check_hash("payload_sha256", hash)?;
        }
        if let Some(surface) = &self.surface {
            check_surface(surface)?;
        }
        for at in [&mut self.decided_at, &mut self.applied_at] {
            *at = at.as_deref().map(|at| check_time("decided_at", at)).transpose()?;
        }
        Ok(self)
    }

    /// `r.…, m.updated_at` of the tables, and the proposed file for the diff of a modification.
    pub(crate) const COLUMNS: &str = "r.status, r.notes, r.final_file, r.payload_sha256, r.final_sha256, r.decided_by, \
         r.surface, r.decided_at, CASE m.state WHEN 'applied' THEN m.updated_at END, \
         CASE r.status WHEN 'modified' THEN p.proposed_file END, p.tool";

    /// Reads [`Response::COLUMNS`] from `first` on; `None` where there is no answer.
    pub(crate) fn from_row(row: &Row<'_>, first: usize, id: &str) -> rusqlite::Result<Option<Self>> {
        let Some(status) = row.get(first)? else { return Ok(None) };
        let final_file: Option<String> = row.get(first + 2)?;
        let proposed: Option<String> = row.get(first + 9)?;
        let tool: String = row.get(first + 10)?;
        let diff = proposed.zip(final_file.as_deref()).map(|(before, after)| render_diff(&before, after, &tool));
        Ok(Some(Response {
            proposal_id: id.to_owned(),
            status,
            notes: row.get(first + 1)?,
            final_file,
            payload_sha256: row.get(first + 3)?,
            final_sha256: row.get(first + 4)?,
            decided_by: row.get(first + 5)?,
            surface: row.get(first + 6)?,
            decided_at: row.get(first + 7)?,
            diff,
            applied_at: row.get(first + 8)?,
        }))
    }
}

pub(crate) fn check_surface(surface: &str) -> Result<()> {
    if SURFACES.contains(&surface) {
        return Ok(());
    }
    Err(Error::input("surface", format!("must be one of {}, not {surface:?}", SURFACES.join(", "))))
}

/// What an operator decides, about what, and how.
pub struct Decision<'a> {
    /// Which proposal, by its full id.
    pub proposal_id: &'a str,
    /// `approved`, `modified` or `rejected`.
    pub status: &'a str,
    /// The hash of the payload the operator saw.
    pub payload_sha256: &'a str,
    /// The operator's words.
    pub notes: &'a str,
    /// For `modified`: what runs instead.
    pub final_file: Option<&'a str>,
    /// Who; `None` is the operating system's user.
    pub decided_by: Option<&'a str>,
    /// Through what.
    pub surface: &'a str,
    /// What the approval allows again, such as `uses:3`.
    pub grant: Option<&'a str>,
}

/// Decides. For a managed file: stages the new content, commits the decision with the intent, puts it in place,
/// records that. Everything else is one transaction.
pub(crate) fn decide(db: &Database, decision: &Decision<'_>) -> Result<Response> {
    let answer = Response::checked(
        decision.proposal_id,
        decision.status,
        decision.notes,
        decision.final_file.map(str::as_bytes),
    )?;
    check_hash("payload_sha256", decision.payload_sha256)?;
    check_surface(decision.surface)?;
    let scope = decision.grant.map(Scope::parse).transpose()?;
    let decided_by = match decision.decided_by {
        Some(name) => check_text("decided_by", name.as_bytes(), 256)?.to_owned(),
        None => os_user(),
    };
    let item = db
        .read(|conn| inbox::read(conn, decision.proposal_id))?
        .flatten()
        .ok_or_else(|| Error::not_found("proposal", decision.proposal_id))?;
    // That it is too late goes before what is wrong with the decision; the transaction asks again.
    item.ended().map_or(Ok(()), Err)?;
    check_rules(&item.proposal, &answer, scope.as_ref())?;
    check_reviewed(&item, decision.payload_sha256)?;
    let runs = answer.status != STATUS_REJECTED;
    let text = answer.final_file.as_deref().unwrap_or(&item.proposal.proposed_file);
    let staged = match item.managed_file.as_deref().filter(|_| runs) {
        Some(path) => Some(Staged::prepare(db, &item, path, text)?),
        None => None,
    };
    let diff = evidence(&item, &answer, staged.as_ref());
    let made = Made { item: &item, answer: &answer, decided_by: &decided_by, surface: decision.surface, diff: &diff };
    let committed = db.write(|tx| made.commit(tx, staged.as_ref(), scope.as_ref()));
    match (committed, staged) {
        (Ok(()), None) => {}
        (Ok(()), Some(staged)) => staged.apply(db)?,
        (Err(error), staged) => {
            // Of these two nobody knows for sure that nothing was committed.
            if let (Some(staged), Error::WriteLost { .. } | Error::Unavailable { .. }) = (staged, &error) {
                staged.keep();
            }
            return Err(error);
        }
    }
    db.read(|conn| inbox::read(conn, &item.proposal.id))?
        .flatten()
        .and_then(|item| item.response)
        .ok_or_else(|| Error::not_found("response", decision.proposal_id))
}

fn check_rules(proposal: &Proposal, answer: &Response, scope: Option<&Scope>) -> Result<()> {
    let finding = FINDING_TOOLS.contains(&proposal.tool.as_str());
    match answer.status.as_str() {
        STATUS_MODIFIED if finding => {
            return Err(Error::input(
                "modify",
                format!("has nothing to change for {}; approve or reject it", proposal.tool),
            ));
        }
        STATUS_APPROVED if finding && answer.notes.trim().is_empty() => {
            return Err(Error::input(
                "notes",
                format!("are needed to approve {}: record why it may pass", proposal.tool),
            ));
        }
        _ => {}
    }
    if scope.is_some() && answer.status == STATUS_REJECTED {
        return Err(Error::input("grant", "goes with an approval, not with a rejection"));
    }
    if scope.is_some() && proposal.fingerprint.is_none() {
        return Err(Error::input(
            "grant",
            format!("is not possible for {}: the proposal has no fingerprint", proposal.tool),
        ));
    }
    Ok(())
}

/// What was reviewed is what is there.
fn check_reviewed(item: &InboxItem, seen: &str) -> Result<()> {
    let actual = sha256_hex(&item.proposal.proposed_file);
    if actual == seen {
        return Ok(());
    }
    Err(Error::StalePayload { id: item.proposal.id.clone(), expected: seen.to_owned(), actual })
}

/// The audit log's diff: for a managed file what changed on the host (or would have), else what the operator changed.
fn evidence(item: &InboxItem, answer: &Response, staged: Option<&Staged>) -> String {
    let proposed = &item.proposal.proposed_file;
    match (staged, answer.final_file.as_deref()) {
        (Some(staged), final_file) => staged.diff(final_file.unwrap_or(proposed)),
        (None, Some(final_file)) => render_diff(proposed, final_file, &item.proposal.tool),
        (None, None) => {
            item.managed_file.as_deref().map_or_else(String::new, |path| managed_file::diff(path, proposed))
        }
    }
}

struct Made<'a> {
    item: &'a InboxItem,
    answer: &'a Response,
    decided_by: &'a str,
    surface: &'a str,
    diff: &'a str,
}

impl Made<'_> {
    /// Decision, audit entry, grant and intent: all or nothing.
    fn commit(&self, tx: &Transaction<'_>, staged: Option<&Staged>, scope: Option<&Scope>) -> Result<((), Rings)> {
        const DECIDE_SQL: &str = "UPDATE proposals SET state = :status
             WHERE id = :id AND state = 'pending' AND archived_at IS NULL
               AND (expires_at IS NULL OR expires_at > :now) AND payload_sha256 = :payload_sha256
             RETURNING seq";
        let (proposal, answer) = (&self.item.proposal, self.answer);
        let now = clock::now();
        let mut statement = tx.prepare_cached(DECIDE_SQL)?;
        let mut decided = statement.query(named_params! {
            ":id": proposal.id,
            ":status": answer.status,
            ":now": now,
            ":payload_sha256": proposal.payload_sha256,
        })?;
        let Some(seq) = decided.next()?.map(|row| row.get::<_, i64>(0)).transpose()? else {
            let found = proposal::find(tx, &proposal.id)?.ok_or_else(|| Error::not_found("proposal", &proposal.id))?;
            return Err(proposal::why_not(tx, &found)?);
        };
        drop(decided);
        let now = now.max(proposal.arrival_timestamp.clone()); // a clock set back must not date it before the question
        let final_sha256 = match answer.status.as_str() {
            STATUS_MODIFIED => answer.final_file.as_deref().map(sha256_hex),
            STATUS_APPROVED => Some(proposal.payload_sha256.clone()),
            _ => None,
        };
        self.insert(tx, seq, &now, final_sha256.as_deref())?;
        audit::append(
            tx,
            &AuditFields {
                timestamp: now.as_str(),
                bottle_slug: &proposal.bottle_slug,
                component: &proposal.tool,
                operator_action: &answer.status,
                operator_notes: &answer.notes,
                justification: &proposal.justification,
                diff: self.diff,
                decided_by: self.decided_by,
                surface: self.surface,
                proposal_id: Some(&proposal.id),
                payload_sha256: Some(&proposal.payload_sha256),
                final_sha256: final_sha256.as_deref(),
                ..AuditFields::default()
            }
            .into(),
        )?;
        if let Some((scope, fingerprint)) = scope.zip(proposal.fingerprint.as_deref()) {
            grant::create(tx, proposal, fingerprint, scope, self.decided_by, &now)?;
        }
        let kind = match answer.status.as_str() {
            STATUS_APPROVED => ChangeKind::Approved,
            STATUS_MODIFIED => ChangeKind::Modified,
            _ => ChangeKind::Rejected,
        };
        inbox::record(tx, kind, &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
        match staged {
            // Its waiters go on once the file is in effect, not before.
            Some(staged) => staged.intend(tx, seq, &now).map(|()| ((), Rings::inbox())),
            None => Ok(((), Rings::queue(&self.item.queue_key))),
        }
    }

    fn insert(&self, tx: &Transaction<'_>, seq: i64, now: &str, final_sha256: Option<&str>) -> Result<()> {
        const INSERT_SQL: &str = "INSERT INTO responses (proposal_seq, status, notes, payload_sha256, final_sha256,
                 decided_by, surface, decided_at, final_file)
             VALUES (:seq, :status, :notes, :payload_sha256, :final_sha256, :decided_by, :surface, :now, :final_file)";
        tx.prepare_cached(INSERT_SQL)?.execute(named_params! {
            ":seq": seq,
            ":status": self.answer.status,
            ":notes": self.answer.notes,
            ":payload_sha256": self.item.proposal.payload_sha256,
            ":final_sha256": final_sha256,
            ":decided_by": self.decided_by,
            ":surface": self.surface,
            ":now": now,
            ":final_file": self.answer.final_file,
        })?;
        Ok(())
    }
}

/// The user this process runs as, by the password file's name for it.
pub(crate) fn os_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("uid:{uid}"))
}
