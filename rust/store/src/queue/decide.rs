//! How is a proposal decided, once, with its evidence?

use rusqlite::{Connection, named_params};

use crate::audit::entry::{self as audit, AuditFields};
use crate::clock;
use crate::diff::{render_diff, sha256_hex};
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::get;
use crate::file::database::Database;
use crate::file::transaction::Transaction;
use crate::grant::{self, Granted, Reach, Scope};
use crate::patience::{self, SIGNAL_CHECK};
use crate::queue::changes;
use crate::queue::item::{self, InboxItem};
use crate::queue::life;
use crate::queue::managed_file::{self, Current, Staged};
use crate::queue::proposal::Proposal;
use crate::queue::response::Response;
use crate::queue::review::{self, Reviewed};
use crate::registration;
use crate::state::{Status, Surface, Tool, Vocabulary};
use crate::statement::{DecisionStatement, Keys, Signature, Signer};

/// What an operator decides, about what, and how.
pub struct Decision<'a> {
    /// Which proposal, by its full id.
    pub proposal_id: &'a str,
    /// Whether it runs, and as what.
    pub status: Status,
    /// What the operator saw.
    pub reviewed: Reviewed<'a>,
    /// The operator's words.
    pub notes: &'a str,
    /// For `modified`: what runs instead.
    pub final_file: Option<&'a str>,
    /// Who; `None` is the operating system's user.
    pub decided_by: Option<&'a str>,
    /// Through what.
    pub surface: Surface,
    /// What the approval allows again, such as `uses:3`.
    pub grant: Option<&'a str>,
}

/// Decides. For a managed file: stages the new content, commits the decision with the intent, puts it in place,
/// records that. Everything else is one transaction.
pub(crate) fn decide(db: &Database, decision: &Decision<'_>) -> Result<Response> {
    let _patience = patience::begin();
    let answer = Response::checked(
        decision.proposal_id,
        decision.status,
        decision.notes,
        decision.final_file.map(str::as_bytes),
    )?;
    decision.reviewed.check()?;
    let scope = decision.grant.map(Scope::parse).transpose()?;
    let keys = Keys::of(db);
    let item = db
        .read(|conn| look(conn, &keys, decision.proposal_id))?
        .flatten()
        .ok_or_else(|| Error::not_found("proposal", decision.proposal_id))?;
    // That it is too late goes before what is wrong with the decision; the transaction asks again.
    item.ended().map_or(Ok(()), Err)?;
    if let Some(reason) = &item.damaged {
        registration::record_damage(db, &item.proposal.bottle_slug, reason)?;
    }
    item.refuse_damaged()?;
    check_rules(&item.proposal, decision, scope.as_ref())?;
    let payload_sha256 = sha256_hex(&item.proposal.proposed_file);
    let base = base_of(&item);
    let review_sha256 = review::hash(&item, &payload_sha256, base.as_deref());
    decision.reviewed.covers(&item, &payload_sha256, &review_sha256, decision.status)?;
    // Before the turn, as the first time a key is made; after all that can refuse without one.
    let signer = keys.decider()?;
    let decided_by = signer.author("decided_by", decision.decided_by)?;
    let runs = decision.status != Status::Rejected;
    let text = answer.final_file.as_deref().unwrap_or(&item.proposal.proposed_file);
    let staged = match item.managed_file.as_deref().filter(|_| runs) {
        Some(path) => Some(Staged::prepare(db, &item.proposal.id, path, text, base.as_deref())?),
        None => None,
    };
    let diff = evidence(&item, &answer, staged.as_ref());
    let made = Made {
        keys: &keys,
        signer: &signer,
        item: &item,
        payload_sha256: &payload_sha256,
        base: base.as_deref(),
        review_sha256: &review_sha256,
        answer: &answer,
        status: decision.status,
        decided_by: &decided_by,
        surface: decision.surface,
        diff: &diff,
        asked_scope: decision.grant,
    };
    let committed = db.write(|tx| {
        let rings = made.commit(tx, staged.as_ref(), scope.as_ref())?;
        // Read here, as nothing may keep the answer back once it is committed.
        let made = item::read(tx, &item.proposal.id)?.and_then(|item: InboxItem| item.response);
        Ok((made.ok_or_else(|| Error::not_found("response", decision.proposal_id))?, rings))
    });
    match (committed, staged) {
        (Ok(made), None) => Ok(made),
        (Ok(made), Some(staged)) => {
            staged.apply(db)?;
            // Since when it is in effect; not worth waiting for.
            let _patience = patience::limit_quietly(SIGNAL_CHECK);
            let now = db.read(|conn| item::read(conn, &item.proposal.id));
            Ok(now.ok().flatten().flatten().and_then(|item: InboxItem| item.response).unwrap_or(made))
        }
        (Err(error), staged) => {
            // Of these two nobody knows for sure that nothing was committed.
            if let (Some(staged), Error::WriteLost { .. } | Error::Unavailable { .. }) = (staged, &error) {
                staged.keep();
            }
            Err(error)
        }
    }
}

fn check_rules(proposal: &Proposal, decision: &Decision<'_>, scope: Option<&Scope>) -> Result<()> {
    let finding = Tool::of(&proposal.tool).is_some_and(Tool::shows_a_finding);
    match decision.status {
        Status::Modified if finding => {
            return Err(Error::input(
                "modify",
                format!("has nothing to change for {}; approve or reject it", proposal.tool),
            ));
        }
        Status::Approved if finding && decision.notes.trim().is_empty() => {
            return Err(Error::input(
                "notes",
                format!("are needed to approve {}: record why it may pass", proposal.tool),
            ));
        }
        _ => {}
    }
    if scope.is_some() && decision.status == Status::Rejected {
        return Err(Error::input("grant", "goes with an approval, not with a rejection"));
    }
    if let Some(scope) = scope
        && proposal.granted(scope).is_none()
    {
        let lacks = match &scope.reach {
            Reach::This => "the proposal has no fingerprint".to_owned(),
            Reach::Kind => "its fingerprint names no kind".to_owned(),
            Reach::Prefix(prefix) => match proposal.words() {
                Some(words) => format!("its command begins with the words {words:?}, not with {prefix:?}"),
                None => "it is not one command of plain words".to_owned(),
            },
        };
        return Err(Error::input("grant", format!("is not possible for {}: {lacks}", proposal.tool)));
    }
    Ok(())
}

/// What is decided about, as the transaction looks at it once more.
fn look(conn: &Connection, keys: &Keys, id: &str) -> Result<Option<InboxItem>> {
    item::settle(conn, keys, item::read(conn, id)?)
}

/// Which file a review is about; looked at only where the proposal does not say.
fn base_of(item: &InboxItem) -> Option<String> {
    let current = match (&item.managed_file, &item.base_sha256) {
        (Some(path), None) => managed_file::look(path),
        _ => Current::default(),
    };
    review::base(item, &current)
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
    keys: &'a Keys,
    item: &'a InboxItem,
    payload_sha256: &'a str,
    base: Option<&'a str>,
    review_sha256: &'a str,
    answer: &'a Response,
    status: Status,
    decided_by: &'a str,
    surface: Surface,
    diff: &'a str,
    asked_scope: Option<&'a str>,
    signer: &'a Signer,
}

impl Made<'_> {
    /// Decision, audit entry, grant and intent: all or nothing.
    fn commit(&self, tx: &Transaction<'_>, staged: Option<&Staged>, scope: Option<&Scope>) -> Result<Rings> {
        const DECIDE_SQL: &str = "UPDATE proposals SET state = :status
             WHERE id = :id AND state = 'pending' AND archived_at IS NULL
               AND (expires_at IS NULL OR expires_at > :now) AND payload_sha256 = :payload_sha256
             RETURNING seq";
        let (proposal, answer) = (&self.item.proposal, self.answer);
        let now = clock::now();
        let mut statement = tx.prepare_cached(DECIDE_SQL)?;
        let mut decided = statement.query(named_params! {
            ":id": proposal.id,
            ":status": self.status,
            ":now": now,
            ":payload_sha256": proposal.payload_sha256,
        })?;
        let Some(seq) = decided.next()?.map(|row| get::<i64>(row, "seq")).transpose()? else {
            let found = life::find(tx, &proposal.id)?.ok_or_else(|| Error::not_found("proposal", &proposal.id))?;
            return Err(item::why_not(tx, &found)?);
        };
        drop(decided);
        self.check_unchanged(tx)?;
        let final_sha256 = match self.status {
            Status::Modified => answer.final_file.as_deref().map(sha256_hex),
            Status::Approved => Some(proposal.payload_sha256.clone()),
            Status::Rejected => None,
        };
        self.insert(tx, seq, &now, final_sha256.as_deref())?;
        audit::append(
            tx,
            &AuditFields {
                timestamp: now.as_str(),
                bottle_slug: &proposal.bottle_slug,
                component: &proposal.tool,
                operator_action: self.status.as_str(),
                operator_notes: &answer.notes,
                justification: &proposal.justification,
                diff: self.diff,
                decided_by: self.decided_by,
                surface: self.surface.as_str(),
                proposal_id: Some(&proposal.id),
                payload_sha256: Some(&proposal.payload_sha256),
                final_sha256: final_sha256.as_deref(),
                ..AuditFields::default()
            }
            .into(),
        )?;
        if let Some((scope, fingerprint)) = scope.and_then(|scope| Some((scope, proposal.granted(scope)?))) {
            let granted = Granted {
                bottle_slug: &proposal.bottle_slug,
                tool: &proposal.tool,
                fingerprint,
                scope,
                proposal_id: &proposal.id,
                by: self.decided_by,
                surface: self.surface,
                now: &now,
            };
            grant::create(tx, &granted, self.signer)?;
        }
        changes::record(tx, self.status.into(), &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
        match staged {
            // Its waiters go on once the file is in effect, not before.
            Some(staged) => staged.intend(tx, seq, &now).map(|()| Rings::inbox()),
            None => Ok(Rings::queue(&self.item.queue_key)),
        }
    }

    /// All that the review covers is still so. What another program changed in between, a sidecar for one, was not reviewed.
    fn check_unchanged(&self, tx: &Transaction<'_>) -> Result<()> {
        let id = &self.item.proposal.id;
        let now = look(tx, self.keys, id)?.ok_or_else(|| Error::not_found("proposal", id))?;
        let payload_sha256 = match now.proposal.proposed_file == self.item.proposal.proposed_file {
            true => self.payload_sha256.to_owned(),
            false => sha256_hex(&now.proposal.proposed_file),
        };
        let base = now.managed_file.as_ref().and(now.base_sha256.as_deref().or(self.base));
        let actual = review::hash(&now, &payload_sha256, base);
        if actual == self.review_sha256 {
            return Ok(());
        }
        Err(Error::StaleReview { id: id.clone(), expected: self.review_sha256.to_owned(), actual })
    }

    fn insert(&self, tx: &Transaction<'_>, seq: i64, now: &str, final_sha256: Option<&str>) -> Result<()> {
        const INSERT_SQL: &str = "INSERT INTO responses (proposal_seq, status, notes, payload_sha256, final_sha256,
                 decided_by, surface, decided_at, final_file, review_sha256, scope, key_id, signature)
             VALUES (:seq, :status, :notes, :payload_sha256, :final_sha256, :decided_by, :surface, :now, :final_file,
                 :review_sha256, :scope, :key_id, :signature)";
        let Signature { key_id, signature } = self.signer.sign(&DecisionStatement {
            proposal_id: &self.item.proposal.id,
            bottle_slug: &self.item.proposal.bottle_slug,
            tool: &self.item.proposal.tool,
            payload_sha256: &self.item.proposal.payload_sha256,
            review_sha256: self.review_sha256,
            status: self.status.as_str(),
            final_sha256,
            notes_sha256: &sha256_hex(&self.answer.notes),
            scope: self.asked_scope,
            decided_by: self.decided_by,
            surface: self.surface.as_str(),
            decided_at: now,
        });
        tx.prepare_cached(INSERT_SQL)?.execute(named_params! {
            ":seq": seq,
            ":status": self.status,
            ":notes": self.answer.notes,
            ":payload_sha256": self.item.proposal.payload_sha256,
            ":final_sha256": final_sha256,
            ":decided_by": self.decided_by,
            ":surface": self.surface,
            ":now": now,
            ":final_file": self.answer.final_file,
            ":review_sha256": self.review_sha256,
            ":scope": self.asked_scope,
            ":key_id": key_id,
            ":signature": signature,
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::inbox::Inbox;
    use crate::stores::queue_store::QueueStore;

    /// A trigger of the connection alone, so that the schema of the file is as it should be: what happens inside of the
    /// decision's transaction, at a step of it, is the test's.
    fn at_the_step(db: &Database, trigger: &str) {
        db.write(|tx| Ok((tx.execute_batch(trigger)?, Rings::NONE))).unwrap();
    }

    #[test]
    fn a_decision_whose_audit_entry_cannot_be_written_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bot-bottle.db");
        let asked =
            Proposal::new("dev", "egress-token-allow", b"a finding", "", None, None, Some("host + token")).unwrap();
        QueueStore::new("dev", Some(&path)).unwrap().write_proposal(&asked).unwrap();
        let inbox = Inbox::new(Some(&path)).unwrap();
        let decision = Decision {
            proposal_id: &asked.id,
            status: Status::Approved,
            reviewed: Reviewed::Payload(&asked.payload_sha256),
            notes: "a test key",
            final_file: None,
            decided_by: Some("ann"),
            surface: Surface::Cli,
            grant: Some("once"),
        };
        let count = |what: &str| {
            let sql = format!("SELECT count(*) FROM {what}");
            inbox.db.read(|conn| Ok(conn.query_row(&sql, [], |row| row.get::<_, i64>(0))?)).unwrap().unwrap()
        };
        // The grant's entry is the second.
        for step in [
            "INSERT ON responses",
            "INSERT ON grants",
            "INSERT ON changes",
            "INSERT ON audit_entries",
            "INSERT ON audit_entries WHEN NEW.operator_action = 'grant-given'",
        ] {
            let fails = format!("CREATE TEMP TRIGGER no AFTER {step} BEGIN SELECT RAISE(ABORT, 'no'); END");
            at_the_step(&inbox.db, &fails);
            let error = inbox.decide(&decision).unwrap_err();
            assert!(error.to_string().contains("no"), "{step}: {error}");
            at_the_step(&inbox.db, "DROP TRIGGER no");
            assert_eq!(count("proposals WHERE state = 'pending'"), 1, "{step}");
            for table in ["audit_entries", "grants", "responses", "changes WHERE kind = 'approved'"] {
                assert_eq!(count(table), 0, "{step}");
            }
        }
        inbox.decide(&decision).unwrap();
        assert_eq!((count("audit_entries"), count("grants")), (2, 1));
    }
}
