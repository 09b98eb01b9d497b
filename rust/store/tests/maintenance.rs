//! How is the file looked after: backup, restore, check, prune?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bot_bottle_store::{Error, Inbox};

use crate::place::{Place, decide, proposal, shell};

#[test]
fn a_backup_is_one_moment_of_a_busy_database() {
    let place = Place::new();
    let (queue, stop) = (place.queue("dev"), AtomicBool::new(false));
    queue.write_proposal(&proposal("first")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let inbox = place.inbox();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let asked = queue.write_proposal(&proposal(&format!("{n} {}", "x".repeat(5000)))).unwrap();
                decide(&inbox, &asked, "approved").unwrap();
            }
        });
        for n in 0..5 {
            let copy = place.dir.join(format!("{n}.backup"));
            assert_eq!(place.database().backup(&copy).unwrap(), fs::metadata(&copy).unwrap().len());
            assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(shell(&copy, "PRAGMA integrity_check; PRAGMA journal_mode").unwrap(), "ok\ndelete");
            let sound = "SELECT count(*) FROM responses; SELECT count(*) FROM audit_entries";
            let counts = shell(&copy, sound).unwrap();
            let (responses, entries) = counts.split_once('\n').unwrap();
            assert_eq!(responses, entries);
            let error = place.database().backup(&copy).unwrap_err();
            assert_eq!(error.exit_code(), 2, "an existing file was overwritten: {error}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_restored_backup_is_what_everybody_sees_and_what_was_there_is_kept() {
    let place = Place::new();
    let (queue, inbox, db) = (place.queue("dev"), place.inbox(), place.database());
    let kept = queue.write_proposal(&proposal("kept")).unwrap();
    let copy = place.dir.join("copy");
    db.backup(&copy).unwrap();
    let lost = queue.write_proposal(&proposal("lost")).unwrap();
    decide(&inbox, &kept, "approved").unwrap();
    let (done, end) = std::sync::mpsc::channel();
    let _wait = queue.begin_wait(&lost.id, None, move |result| done.send(result.map(drop)).unwrap()).unwrap();
    let head = place.audit().head().unwrap();

    let saved = db.restore(&copy).unwrap();
    assert_eq!(queue.list_pending_proposals().unwrap(), std::slice::from_ref(&kept));
    assert!(matches!(end.recv_timeout(Duration::from_secs(20)).unwrap(), Err(Error::NotFound { .. })));
    assert_eq!(shell(&saved, "SELECT count(*) FROM proposals").unwrap(), "2");
    let entries = place.audit().read_audit_entries(Some("database"), None, None, None).unwrap();
    assert_eq!(entries[0].fields().operator_action, "restored");
    assert!(entries[0].fields().operator_notes.contains(&head), "the log does not say what it replaced");
    decide(&inbox, &kept, "rejected").unwrap();
    assert_eq!(
        place.shell("PRAGMA integrity_check; PRAGMA journal_mode; SELECT count(*) FROM responses"),
        "ok\nwal\n1"
    );
}

#[test]
fn who_watches_goes_on_after_a_restore() {
    let place = Place::new();
    let (queue, inbox, db) = (place.queue("dev"), place.inbox(), place.database());
    db.migrate_all().unwrap();
    let copies = [place.dir.join("empty"), place.dir.join("with one")];
    db.backup(&copies[0]).unwrap();
    queue.write_proposal(&proposal("one")).unwrap();
    db.backup(&copies[1]).unwrap();
    for n in 0..10 {
        queue.write_proposal(&proposal(&n.to_string())).unwrap();
    }
    for copy in copies {
        let since = inbox.last_change().unwrap();
        db.restore(&copy).unwrap();
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| inbox.wait_for_change(since, Some(Duration::from_secs(20)), || false));
            queue.write_proposal(&proposal(&format!("after {}", copy.display()))).unwrap();
            watching.join().unwrap().unwrap();
        });
        let changes = inbox.changes(since, 10).unwrap();
        assert_eq!(changes.iter().map(|change| change.kind.as_str()).collect::<Vec<_>>(), ["proposed"]);
    }
}

#[test]
fn a_damaged_database_is_moved_aside_and_restored() {
    for damage in ["garbage", "holes"] {
        let place = Place::new();
        let copy = place.dir.join("copy");
        {
            let queue = place.queue("dev");
            for n in 0..50 {
                queue.write_proposal(&proposal(&format!("{n}{}", "x".repeat(3000)))).unwrap();
            }
            place.database().backup(&copy).unwrap();
        }
        let mut content = fs::read(&place.db).unwrap();
        if damage == "garbage" {
            content = b"garbage".repeat(1000);
        } else {
            content[4096..].fill(0xaa);
        }
        fs::write(&place.db, &content).unwrap();
        assert!(!matches!(place.database().check().as_deref(), Ok([])), "{damage}: check found nothing");
        let saved = place.database().restore(&copy).unwrap();
        assert!(saved.exists());
        assert_eq!(place.queue("dev").list_pending_proposals().unwrap().len(), 50);
        assert!(place.database().check().unwrap().is_empty());
    }
}

#[test]
fn what_is_no_backup_of_ours_changes_nothing() {
    let place = Place::new();
    let (db, asked) = (place.database(), place.queue("dev").write_proposal(&proposal("x")).unwrap());
    let path = |name: &str| place.dir.join(name);
    fs::write(path("garbage"), "garbage".repeat(1000)).unwrap();
    fs::write(path("empty"), "").unwrap();
    shell(&path("foreign"), "CREATE TABLE x (y)").unwrap();
    db.backup(&path("newer")).unwrap();
    shell(&path("newer"), "UPDATE schema_versions SET version = 9, compat = 9").unwrap();
    for (name, code) in
        [("missing", 4), ("garbage", 8), ("empty", 2), ("foreign", 2), ("newer", 8), ("bot-bottle.db", 2)]
    {
        let error = db.restore(&path(name)).unwrap_err();
        assert_eq!(error.exit_code(), code, "{name}: {error}");
    }
    assert_eq!(place.queue("dev").list_pending_proposals().unwrap(), [asked]);
}

#[test]
fn a_backup_of_an_older_schema_is_brought_up_to_date() {
    let place = Place::new();
    let (db, copy) = (place.database(), place.dir.join("copy"));
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    db.backup(&copy).unwrap();
    shell(&copy, "DROP TABLE grants; DELETE FROM schema_versions WHERE module = 'grant_store'; DELETE FROM schema_steps WHERE module = 'grant_store'").unwrap();
    db.restore(&copy).unwrap();
    assert!(place.grants().list_grants(None, false).unwrap().is_empty());
}

#[test]
fn pruning_forgets_what_ended_long_ago_and_nothing_else() {
    let place = Place::new();
    let (queue, inbox, db) = (place.queue("dev"), place.inbox(), place.database());
    let [pending, decided, withdrawn, archived] =
        ["pending", "decided", "withdrawn", "archived"].map(|text| queue.write_proposal(&proposal(text)).unwrap());
    let intended = queue.write_proposal(&proposal("intended")).unwrap();
    for asked in [&decided, &archived, &intended] {
        decide(&inbox, asked, "approved").unwrap();
    }
    place.shell("INSERT INTO applies SELECT seq, '/x', '', '', 'intended', NULL, '' FROM proposals WHERE proposed_file = 'intended'");
    queue.withdraw_proposal(&withdrawn.id, "").unwrap();
    queue.archive_proposal(&archived.id).unwrap();
    let (seen, before) = (inbox.last_change().unwrap(), place.shell("SELECT * FROM audit_entries"));

    assert_eq!(db.prune(Duration::from_secs(3600)).unwrap(), 0);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(db.prune(Duration::ZERO).unwrap(), 3);
    assert_eq!(place.shell("SELECT proposed_file FROM proposals ORDER BY seq"), "pending\nintended");
    assert_eq!((place.count("responses"), place.shell("SELECT * FROM audit_entries")), (1, before));
    assert_eq!(queue.list_pending_proposals().unwrap(), [pending]);
    // The feed goes on from where its readers are.
    assert_eq!((inbox.last_change().unwrap(), inbox.changes(seen, 10).unwrap().len()), (seen, 0));
    queue.write_proposal(&proposal("next")).unwrap();
    assert_eq!(inbox.changes(seen, 10).unwrap().len(), 1);
    assert!(db.check().unwrap().is_empty());
}

#[test]
fn pruning_goes_on_in_turns_until_all_is_gone() {
    let place = Place::new();
    place.queue("dev").write_proposal(&proposal("pending")).unwrap();
    place.shell(
        "INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp, state,
           archived_at, proposed_file)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1234)
         SELECT i, 'dev', 'dev', 'x', printf('%064x', i), '', '', 'approved', '2020-01-01T00:00:00.000000Z', 'x' FROM n",
    );
    assert_eq!(place.database().prune(Duration::from_secs(3600)).unwrap(), 1234);
    assert_eq!(place.count("proposals"), 1);
}

#[test]
fn check_finds_what_is_wrong_and_says_so() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    decide(&inbox, &queue.write_proposal(&proposal("x")).unwrap(), "approved").unwrap();
    assert!(place.database().check().unwrap().is_empty());
    place.shell("PRAGMA foreign_keys = OFF; DELETE FROM proposals");
    place.shell("DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET decided_by = 'eve'");
    let findings = place.database().check().unwrap();
    assert!(findings.iter().any(|finding| finding.contains("responses")), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.contains("entry 1")), "{findings:?}");
}

#[test]
fn status_tells_of_a_file_without_touching_it() {
    let place = Place::new();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let status = place.database().status().unwrap();
    assert!(status.exists && status.mount_safe && status.size_bytes > 0);
    assert_eq!(status.real_path, place.db.to_str().unwrap());
    assert_eq!((status.modules["queue_store"].found, status.modules["queue_store"].supported), (1, Some(1)));
    assert!(place.database().ring_test(Duration::from_secs(5)).unwrap() < Duration::from_secs(1));
}

#[test]
fn an_inbox_that_was_open_before_a_rollback_says_what_is_missing() {
    let place = Place::new();
    let inbox = Inbox::new(Some(&place.db)).unwrap();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    inbox.pending(None).unwrap();
    place.database().rollback("queue_store", 0).unwrap();
    assert!(inbox.pending(None).is_err(), "an empty list would be a lie");
}
