//! Does what operators and sidecars do all day cost the same, however much is archived?
//!
//! Measured in steps of SQLite's virtual machine, which count the rows that are looked at and know no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rusqlite::StatementStatus;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use crate::file::bell::Rings;
use crate::file::database::Database;
use crate::{
    AuditEntry, AuditFields, AuditStore, BottleStore, Decision, GrantStore, Inbox, Proposal, QueueStore, Response,
    Reviewed, Status, Surface,
};

/// Everything of the past that the queries must not walk through: `:n` decided and archived proposals with all that
/// hangs on them, under many slugs and under the busy one.
const PAST_SQL: &str = "
CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n}) SELECT i FROM n;
INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp, state,
                       archived_at, proposed_file)
  SELECT printf('%08x-0000-7000-8000-000000000000', i), iif(i % 2, 'dev', 'box' || i % 100),
         iif(i % 2, 'dev', 'box' || i % 100), 'egress-allow', printf('%064x', i), 'because',
         '2020-01-01T00:00:00.000000Z', 'approved', '2020-01-02T00:00:00.000000Z', 'routes: []' FROM n;
INSERT INTO responses (proposal_seq, status, notes, payload_sha256, decided_by, surface, decided_at,
                       review_sha256, key_id, signature)
  SELECT seq, 'approved', '', payload_sha256, 'me', 'cli', arrival_timestamp, '', '', '' FROM proposals;
INSERT INTO applies (proposal_seq, path, expected_sha256, final_sha256, state, updated_at)
  SELECT seq, '/x', '', '', 'applied', arrival_timestamp FROM proposals;
INSERT INTO aliases (id, proposal_seq, justification, arrival_timestamp)
  SELECT printf('%08x-1111-7000-8000-000000000000', seq), seq, '', arrival_timestamp FROM proposals;
INSERT INTO changes (kind, proposal_id, bottle_slug, tool, at)
  SELECT 'approved', id, bottle_slug, tool, arrival_timestamp FROM proposals;
INSERT INTO grants (id, bottle_slug, tool, fingerprint, scope, uses_left, created_at, created_by, revoked_at,
                    key_id, signature)
  SELECT id, bottle_slug, tool, 'token', 'once', 0, arrival_timestamp, 'me', arrival_timestamp, '', '' FROM proposals;
INSERT INTO audit_entries (timestamp, bottle_slug, component, operator_action, operator_notes, justification, diff,
                           decided_by, surface, prev_hash, entry_hash)
  SELECT '2020-01-01T00:00:00.000000Z', iif(i % 2, 'dev', 'box' || i % 100), 'egress-allow', 'approved', '', '', '',
         'me', 'cli', printf('%064x', i), printf('%064x', i) FROM n;
DROP TABLE n;
";

/// Counts what SQLite does on the shared connections of `db`.
fn count(db: &Database) -> Arc<AtomicI64> {
    let steps = Arc::new(AtomicI64::new(0));
    let shared = db.shared().unwrap();
    shared.read(|_| Ok(())).unwrap();
    for slot in [&shared.reader, &shared.writer] {
        let steps = steps.clone();
        let counted = move |event: TraceEvent<'_>| {
            if let TraceEvent::Profile(statement, _) = event {
                steps.fetch_add(i64::from(statement.get_status(StatementStatus::VmStep)), Ordering::Relaxed);
            }
        };
        let mut slot = slot.lock(&shared.path).unwrap();
        slot.as_mut().unwrap().conn.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(counted)).unwrap();
    }
    steps
}

/// Steps of each verb on a database with so much of a past.
fn costs(past: usize, analyzed: bool) -> Vec<(&'static str, i64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bot-bottle.db");
    let path = Some(path.as_path());
    let queue = QueueStore::new("dev", path).unwrap();
    let inbox = Inbox::new(path).unwrap();
    let (audit, grants, bottles) =
        (AuditStore::new(path).unwrap(), GrantStore::new(path).unwrap(), BottleStore::new(path).unwrap());
    bottles.register("dev", "docker", "mount", &[]).unwrap();
    let write = |sql: &str| {
        queue.transport.host_only("").unwrap().write(|tx| Ok((tx.execute_batch(sql)?, Rings::NONE))).unwrap()
    };
    write(&PAST_SQL.replace("{n}", &past.to_string()));
    if analyzed {
        write("ANALYZE");
    }

    let proposal =
        |n: usize| Proposal::new("dev", "egress-allow", format!("{n}").as_bytes(), "", None, None, None).unwrap();
    let proposals: Vec<Proposal> = (0..10).map(proposal).collect();
    for proposal in &proposals {
        queue.write_proposal(proposal).unwrap();
    }
    let entry = AuditEntry::from(AuditFields {
        timestamp: crate::now().as_str(),
        bottle_slug: "dev",
        component: "egress",
        surface: "api",
        ..AuditFields::default()
    });
    let (one, two, three) = (&proposals[0].id, &proposals[1].id, &proposals[2].id);
    let since = inbox.last_change().unwrap() - 5;
    let decision = Decision {
        proposal_id: one,
        status: Status::Approved,
        reviewed: Reviewed::Payload(&proposals[0].payload_sha256),
        notes: "",
        final_file: None,
        decided_by: Some("me"),
        surface: Surface::Cli,
        grant: None,
    };
    let look = |id: &str| queue.wait_for_response(id, Some(Duration::ZERO), || false);

    let steps = count(queue.transport.host_only("").unwrap());
    let mut costs = Vec::new();
    let mut cost = |verb, work: &mut dyn FnMut()| {
        let before = steps.load(Ordering::Relaxed);
        work();
        costs.push((verb, steps.load(Ordering::Relaxed) - before));
    };
    cost("pending", &mut || assert_eq!(inbox.pending(None).unwrap().len(), 10));
    cost("pending of a bottle", &mut || assert_eq!(inbox.pending(Some("dev")).unwrap().len(), 10));
    cost("list_pending_proposals", &mut || assert_eq!(queue.list_pending_proposals().unwrap().len(), 10));
    cost("list_items", &mut || assert_eq!(queue.list_items(10).unwrap().len(), 10));
    cost("write_proposal", &mut || drop(queue.write_proposal(&proposal(11)).unwrap()));
    cost("coalesce", &mut || drop(queue.write_proposal(&proposal(11)).unwrap()));
    cost("inspect", &mut || drop(queue.inspect(one).unwrap().unwrap()));
    cost("read by prefix", &mut || drop(inbox.read(&one[..one.len() - 1]).unwrap()));
    cost("failed", &mut || assert!(inbox.failed().unwrap().is_empty()));
    cost("recover", &mut || assert_eq!(inbox.recover().unwrap(), 0));
    cost("look for an answer", &mut || assert!(look(one).is_err()));
    cost("decide", &mut || assert_eq!(inbox.decide(&decision).unwrap().status, Status::Approved));
    cost("find the answer", &mut || assert!(look(one).is_ok()));
    cost("read_response", &mut || assert!(queue.read_response(one).unwrap().is_some()));
    cost("write_response", &mut || {
        drop(queue.write_response(&Response::checked(two, Status::Rejected, "", None).unwrap()).unwrap());
    });
    cost("archive", &mut || queue.archive_proposal(two).unwrap());
    cost("withdraw", &mut || queue.withdraw_proposal(three, "").unwrap());
    cost("history", &mut || assert_eq!(inbox.history(None, 10, None).unwrap().len(), 10));
    cost("history of a bottle", &mut || assert_eq!(inbox.history(Some("dev"), 10, None).unwrap().len(), 10));
    cost("history of no bottle", &mut || assert!(inbox.history(Some("none"), 10, None).unwrap().is_empty()));
    cost("stats", &mut || assert_eq!(inbox.stats().unwrap()["by_bottle"]["dev"], past / 2 + 11));
    cost("last_change", &mut || assert!(inbox.last_change().unwrap() > 0));
    cost("changes", &mut || assert_eq!(inbox.changes(since, 5).unwrap().len(), 5));
    cost("append", &mut || drop(audit.write_audit_entry(&entry).unwrap()));
    cost("head", &mut || drop(audit.head().unwrap()));
    cost("entries of a bottle", &mut || {
        assert_eq!(audit.read_audit_entries(None, Some("dev"), None, Some(10)).unwrap().len(), 10);
    });
    cost("entries of a component", &mut || {
        assert_eq!(audit.read_audit_entries(Some("egress-allow"), None, None, Some(10)).unwrap().len(), 10);
    });
    cost("entries of a bottle and a component", &mut || {
        assert_eq!(audit.read_audit_entries(Some("egress-allow"), Some("dev"), None, Some(10)).unwrap().len(), 10);
    });
    cost("entries of a component that the bottle has none of", &mut || {
        assert!(audit.read_audit_entries(Some("none"), Some("dev"), None, Some(10)).unwrap().is_empty());
    });
    cost("entries of no bottle", &mut || {
        assert!(audit.read_audit_entries(None, Some("none"), None, Some(10)).unwrap().is_empty());
    });
    cost("newest entries", &mut || {
        assert_eq!(audit.read_audit_entries(None, None, None, Some(10)).unwrap().len(), 10);
    });
    cost("recent entries", &mut || {
        assert_eq!(audit.read_audit_entries(None, None, Some("2021-01-01T00:00:00Z"), None).unwrap().len(), 3);
    });
    cost("recent entries of a bottle", &mut || {
        assert_eq!(audit.read_audit_entries(None, Some("dev"), Some("2021-01-01T00:00:00Z"), None).unwrap().len(), 3);
    });
    cost("use_grant", &mut || assert!(grants.use_grant("dev", "egress-allow", "token").unwrap().is_none()));
    cost("list_bottles", &mut || assert_eq!(bottles.list_bottles(true).unwrap().len(), 1));
    cost("stop a bottle", &mut || assert_eq!(bottles.stop("dev", "done").unwrap(), 8));
    costs
}

#[test]
fn nothing_done_all_day_costs_more_with_a_longer_past() {
    for analyzed in [false, true] {
        let grown = costs(100, analyzed).into_iter().zip(costs(3000, analyzed));
        let dearer = grown.filter(|((_, few), (_, many))| *many > few + few / 4);
        let dearer: Vec<_> = dearer.map(|((verb, few), (_, many))| format!("{verb}: {few}, {many}")).collect();
        assert!(dearer.is_empty(), "with ANALYZE: {analyzed}; steps with 100 and with 3000 archived: {dearer:#?}");
    }
}
