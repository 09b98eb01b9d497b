//! Does the log keep what was said, and notice what was done to it?

use bot_bottle_store::{AuditEntry, AuditFields, Error, NO_HASH};

use crate::place::Place;

const FIELDS: AuditFields<&str> = AuditFields {
    timestamp: "2026-01-31T12:00:00Z",
    bottle_slug: "dev",
    component: "egress",
    operator_action: "noted",
    operator_notes: "",
    justification: "",
    diff: "",
    decided_by: "ann",
    surface: "api",
    proposal_id: None,
    payload_sha256: None,
    final_sha256: None,
    seq: None,
    prev_hash: None,
    entry_hash: None,
};

pub fn entry(notes: &str) -> AuditEntry {
    AuditEntry::from(AuditFields { operator_notes: notes, ..FIELDS }).checked().unwrap()
}

fn written(place: &Place, count: usize) -> Vec<AuditEntry> {
    let entries: Vec<AuditEntry> = (1..=count).map(|n| entry(&n.to_string())).collect();
    place.audit().write_audit_entries(&entries).unwrap()
}

/// What `verify` says after `sql`, which gets past the triggers as one with the file in hand does.
fn after(sql: &str, head: bool) -> Result<i64, (Option<i64>, String)> {
    let place = Place::new();
    let entries = written(&place, 5);
    let drop = "DROP TRIGGER audit_entries_no_update; DROP TRIGGER audit_entries_no_delete; DROP TRIGGER audit_entries_no_replace;";
    place.shell(&format!("{drop} {sql}"));
    let head = entries.last().unwrap().fields().entry_hash.filter(|_| head);
    match place.audit().verify(head) {
        Ok(report) => Ok(report.entries),
        Err(Error::AuditIntegrity { seq, reason }) => Err((seq, reason)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn entries_are_numbered_chained_and_read_back_in_order() {
    let place = Place::new();
    let (log, entries) = (place.audit(), written(&place, 3));
    let mut prev = NO_HASH.to_owned();
    for (n, entry) in entries.iter().enumerate() {
        let fields = entry.fields();
        assert_eq!((fields.seq, fields.prev_hash), (Some(n as i64 + 1), Some(prev.as_str())));
        prev = fields.entry_hash.unwrap().to_owned();
    }
    assert_eq!(log.head().unwrap(), prev);
    let report = log.verify(Some(&prev)).unwrap();
    assert_eq!((report.entries, report.first_seq, report.last_seq, report.head), (3, Some(1), Some(3), prev));
    let read = log.read_audit_entries(None, None, None, Some(2)).unwrap();
    assert_eq!(read.iter().map(|entry| entry.fields().operator_notes).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(read[1].content(), entries[2].content());
}

#[test]
fn filters_find_what_they_name_whatever_order_the_clock_had() {
    let place = Place::new();
    let log = place.audit();
    for (time, slug, component) in [
        ("2026-01-03T00:00:00Z", "dev", "egress"),
        ("2026-01-01T00:00:00Z", "box", "egress"), // the clock was set back
        ("2026-01-02T00:00:00Z", "dev", "git-gate"),
    ] {
        let fields = AuditFields { timestamp: time, bottle_slug: slug, component, ..FIELDS };
        log.write_audit_entry(&AuditEntry::from(fields).checked().unwrap()).unwrap();
    }
    let found = |component: Option<&str>, slug: Option<&str>, since: Option<&str>| -> Vec<i64> {
        let entries = log.read_audit_entries(component, slug, since, None).unwrap();
        entries.iter().map(|entry| entry.fields().seq.unwrap()).collect()
    };
    assert_eq!(found(None, None, None), [1, 2, 3]);
    assert_eq!(found(Some("egress"), None, None), [1, 2]);
    assert_eq!(found(None, Some("dev"), None), [1, 3]);
    assert_eq!(found(None, None, Some("2026-01-02T00:00:00Z")), [1, 3]);
    assert_eq!(found(None, None, Some("2026-01-02T12:00:00+12:00")), [1, 3]);
    assert_eq!(found(Some("egress"), Some("dev"), Some("2026-01-02T00:00:00Z")), [1]);
    assert_eq!(found(None, None, Some("2027-01-01T00:00:00Z")), [0; 0]);
    assert_eq!(log.read_audit_entries(None, None, Some("yesterday"), None).unwrap_err().exit_code(), 2);
}

#[test]
fn several_entries_are_written_together_or_not_at_all() {
    let place = Place::new();
    let bad = AuditEntry::from(AuditFields { surface: "phone", ..FIELDS });
    place.audit().write_audit_entries(&[entry("one"), bad]).unwrap_err();
    assert_eq!(place.count("audit_entries"), 0);
    assert!(place.audit().write_audit_entries(&[]).unwrap().is_empty());
}

#[test]
fn sql_itself_refuses_to_change_the_log_whoever_asks() {
    let place = Place::new();
    written(&place, 2);
    let before = place.shell("SELECT * FROM audit_entries");
    let columns = "timestamp, bottle_slug, component, operator_action, operator_notes, justification, diff, decided_by,
                   surface, proposal_id, payload_sha256, final_sha256, prev_hash, entry_hash";
    for sql in [
        "UPDATE audit_entries SET operator_notes = 'evil'".to_owned(),
        "UPDATE OR REPLACE audit_entries SET seq = 1 WHERE seq = 2".to_owned(),
        "DELETE FROM audit_entries WHERE seq = 2".to_owned(),
        "DELETE FROM audit_entries".to_owned(),
        format!(
            "INSERT OR REPLACE INTO audit_entries (seq, {columns}) SELECT 1, {columns} FROM audit_entries WHERE seq = 2"
        ),
        format!("REPLACE INTO audit_entries (seq, {columns}) SELECT 2, {columns} FROM audit_entries WHERE seq = 1"),
        format!(
            "INSERT INTO audit_entries (seq, {columns}) SELECT 2, {columns} FROM audit_entries WHERE seq = 1
             ON CONFLICT (seq) DO UPDATE SET operator_notes = 'evil'"
        ),
    ] {
        for pragma in ["PRAGMA recursive_triggers = OFF", "PRAGMA recursive_triggers = ON"] {
            place.try_shell(&format!("{pragma}; {sql}")).expect_err(&sql);
        }
    }
    assert_eq!(place.shell("SELECT * FROM audit_entries"), before);
    place.audit().verify(None).unwrap();
}

#[test]
fn an_edit_of_any_field_is_noticed() {
    for (column, value) in [
        ("timestamp", "'2020-01-01T00:00:00.000000Z'"),
        ("bottle_slug", "'box'"),
        ("component", "'git-gate'"),
        ("operator_action", "'approved'"),
        ("operator_notes", "'evil'"),
        ("justification", "'evil'"),
        ("diff", "'evil'"),
        ("decided_by", "'bob'"),
        ("surface", "'cli'"),
        ("proposal_id", "'x'"),
        ("payload_sha256", "'x'"),
        ("final_sha256", "''"),
        ("entry_hash", "printf('%064x', 7)"),
        ("prev_hash", "printf('%064x', 7)"),
        ("operator_notes", "CAST(x'ff' AS TEXT)"),
    ] {
        let (seq, _) = after(&format!("UPDATE audit_entries SET {column} = {value} WHERE seq = 3"), false).unwrap_err();
        assert_eq!(seq, Some(3), "{column}");
    }
}

#[test]
fn gaps_other_orders_and_insertions_are_noticed() {
    assert_eq!(after("DELETE FROM audit_entries WHERE seq = 3", false).unwrap_err().0, Some(3));
    assert_eq!(after("DELETE FROM audit_entries WHERE seq = 1", false).unwrap_err().0, Some(1));
    let swap = "UPDATE audit_entries SET seq = seq + 100 WHERE seq IN (2, 3);
                UPDATE audit_entries SET seq = 3 WHERE seq = 102; UPDATE audit_entries SET seq = 2 WHERE seq = 103";
    assert_eq!(after(swap, false).unwrap_err().0, Some(2));
    let closed = "DELETE FROM audit_entries WHERE seq = 3; UPDATE audit_entries SET seq = seq - 1 WHERE seq > 3";
    assert_eq!(after(closed, false).unwrap_err().0, Some(3));
    let forged = "INSERT INTO audit_entries SELECT 6, timestamp, bottle_slug, component, operator_action, 'evil',
                  justification, decided_by, surface, proposal_id, payload_sha256, final_sha256, entry_hash, entry_hash, diff
                  FROM audit_entries WHERE seq = 5";
    assert_eq!(after(forged, false).unwrap_err().0, Some(6));
}

#[test]
fn a_cut_tail_and_a_log_begun_anew_are_noticed_by_a_head_noted_earlier() {
    assert_eq!(after("DELETE FROM audit_entries WHERE seq > 3", false), Ok(3));
    let (seq, reason) = after("DELETE FROM audit_entries WHERE seq > 3", true).unwrap_err();
    assert!(seq.is_none() && reason.contains("cut or rebuilt"), "{reason}");
    assert!(after("DELETE FROM audit_entries", true).is_err());
    assert_eq!(after("SELECT 1", true), Ok(5));
    let place = Place::new();
    written(&place, 1);
    assert_eq!(place.audit().verify(Some("not a hash")).unwrap_err().exit_code(), 2);
    assert_eq!(place.audit().verify(Some(NO_HASH)).unwrap().entries, 1);
}

#[test]
fn appenders_of_many_threads_never_fork_the_chain() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let log = place.audit();
            scope
                .spawn(move || (0..25).for_each(|m| drop(log.write_audit_entry(&entry(&format!("{n} {m}"))).unwrap())));
        }
    });
    assert_eq!(place.audit().verify(None).unwrap().entries, 100);
}
