//! How is the file looked after: backup, restore, check, prune?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bot_bottle_store::{Error, Inbox, Status};

use crate::audit::entry;
use crate::child::{Child, arg};
use crate::place::{Place, Sets, decide, proposal, shell};

#[test]
fn a_backup_is_one_moment_of_a_busy_database() {
    let place = Place::new();
    let (queue, stop) = (place.queue("dev"), AtomicBool::new(false));
    queue.write_proposal(&proposal("first")).unwrap();
    std::thread::scope(|scope| {
        let _stops = Sets(&stop);
        scope.spawn(|| {
            let inbox = place.inbox();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let asked = queue.write_proposal(&proposal(&format!("{n} {}", "x".repeat(5000)))).unwrap();
                decide(&inbox, &asked, Status::Approved).unwrap();
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
    decide(&inbox, &kept, Status::Approved).unwrap();
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
    decide(&inbox, &kept, Status::Rejected).unwrap();
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
        decide(&inbox, asked, Status::Approved).unwrap();
    }
    place.shell("INSERT INTO applies SELECT seq, '/x', '', '', 'intended', NULL, '' FROM proposals WHERE proposed_file = 'intended'");
    queue.withdraw_proposal(&withdrawn.id, "").unwrap();
    queue.archive_proposal(&archived.id).unwrap();
    let (seen, before) = (inbox.last_change().unwrap(), place.count("audit_entries"));

    assert_eq!(db.prune(Duration::from_secs(3600)).unwrap(), 0);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(db.prune(Duration::ZERO).unwrap(), 3);
    assert_eq!(place.shell("SELECT proposed_file FROM proposals ORDER BY seq"), "pending\nintended");
    // The log keeps everything, and says that something was deleted.
    assert_eq!((place.count("responses"), place.count("audit_entries")), (1, before + 1));
    assert_eq!(place.shell("SELECT operator_action FROM audit_entries ORDER BY seq DESC LIMIT 1"), "pruning");
    assert_eq!(db.prune(Duration::ZERO).unwrap(), 0);
    assert_eq!(place.count("audit_entries"), before + 1, "a prune that deletes nothing is nothing to log");
    assert_eq!(queue.list_pending_proposals().unwrap(), [pending]);
    // The feed goes on from where its readers are.
    assert_eq!((inbox.last_change().unwrap(), inbox.changes(seen, 10).unwrap().len()), (seen, 0));
    queue.write_proposal(&proposal("next")).unwrap();
    assert_eq!(inbox.changes(seen, 10).unwrap().len(), 1);
    // What the test itself put there is all there is to find.
    let findings = db.check().unwrap();
    assert!(findings.len() == 1 && findings[0].contains("was put in place"), "{findings:?}");
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
fn a_prune_with_nothing_to_do_waits_for_nobody() {
    let place = Place::new();
    let db = place.database();
    place.queue("dev").write_proposal(&proposal("pending")).unwrap();
    let mut holder = Child::start("holds", &[arg(&place.db)]);
    assert_eq!(holder.says(), "held");
    // It would stand behind the writer for its whole busy timeout of 30 s.
    assert_eq!(db.prune(Duration::ZERO).unwrap(), 0);
    holder.kill();
}

#[test]
fn a_prune_of_large_proposals_gives_others_their_turn() {
    let place = Place::new();
    place.database().migrate_all().unwrap();
    let large =
        "INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification, arrival_timestamp,
           state, archived_at, proposed_file)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         SELECT i, 'dev', 'dev', 'x', printf('%064x', i), '', '', 'approved', '2020-01-01T00:00:00.000000Z',
           hex(zeroblob(500000)) FROM n";
    place.shell(large);
    let (audit, wal) = (place.audit(), place.dir.join("bot-bottle.db-wal"));
    let (pruned, written, longest) = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| place.database().prune(Duration::from_secs(3600)).unwrap());
        let (mut written, mut longest) = (0, 0);
        while !pruning.is_finished() {
            audit.write_audit_entry(&entry("x")).unwrap();
            longest = longest.max(fs::metadata(&wal).unwrap().len());
            written += 1;
        }
        (pruning.join().unwrap(), written, longest)
    });
    let longest = longest >> 20;
    assert_eq!((pruned, place.count("proposals")), (200, 0));
    assert!(written >= 5, "others wrote {written} times meanwhile");
    assert!(longest <= 32, "the WAL grew to {longest} MiB");
}

#[test]
fn a_backup_never_takes_a_name_of_the_database_s_own() {
    let place = Place::new();
    let db = place.database();
    db.migrate_all().unwrap();
    let link = place.dir.join("elsewhere");
    std::os::unix::fs::symlink(&place.dir, &link).unwrap();
    fs::create_dir_all(place.dir.join("bells")).unwrap();
    for name in ["", "-wal", "-shm", "-journal", "-turn", "-apply", "-anything"] {
        let own = format!("bot-bottle.db{name}");
        for dir in [&place.dir, &link, &place.dir.join("bells/..")] {
            let before = place.names();
            let error = db.backup(&dir.join(&own)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{own}: {error}");
            assert_eq!(place.names(), before, "{own}");
        }
    }
    for name in ["bells/dev", "bells/.inbox", "BOT-BOTTLE.DB-WAL"] {
        assert_eq!(db.backup(&place.dir.join(name)).unwrap_err().exit_code(), 2, "{name}");
    }
    let copy = place.dir.join("bot-bottle.db.copy");
    db.backup(&copy).unwrap();
    for (link, target) in [("hard", &place.db), ("soft", &place.db), ("dangling", &place.dir.join("bot-bottle.db-new"))]
    {
        let link = place.dir.join(link);
        let made = if link.ends_with("hard") {
            fs::hard_link(target, &link)
        } else {
            std::os::unix::fs::symlink(target, &link)
        };
        made.unwrap();
        assert_eq!(db.backup(&link).unwrap_err().exit_code(), 2, "{}", link.display());
        fs::remove_file(&link).unwrap();
    }
    assert!(db.check().unwrap().is_empty());
}

#[test]
fn a_backup_with_findings_is_refused_before_anything() {
    let place = Place::new();
    let (db, queue) = (place.database(), place.queue("dev"));
    decide(&place.inbox(), &queue.write_proposal(&proposal("x")).unwrap(), Status::Approved).unwrap();
    let (edited, torn) = (place.dir.join("edited"), place.dir.join("torn"));
    db.backup(&edited).unwrap();
    shell(&edited, "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET decided_by = 'eve'").unwrap();
    db.backup(&torn).unwrap();
    shell(&torn, "PRAGMA foreign_keys = OFF; DELETE FROM proposals").unwrap();
    let before = place.shell("SELECT * FROM audit_entries; SELECT * FROM proposals");
    for copy in [edited, torn] {
        let error = db.restore(&copy).unwrap_err();
        assert_eq!(error.class(), "DatabaseCorruptError", "{error}");
        assert!(error.to_string().contains(arg(&copy)), "{error}");
    }
    assert_eq!(place.shell("SELECT * FROM audit_entries; SELECT * FROM proposals"), before);
    assert!(!place.dir.join("backups").exists());
}

#[test]
fn a_rollback_is_in_the_log_with_the_copy_it_leaves() {
    let place = Place::new();
    let db = place.database();
    db.migrate_all().unwrap();
    let note = "SELECT operator_notes FROM audit_entries WHERE operator_action = 'rolled back'";
    let saved = db.rollback("grant_store", 0).unwrap();
    assert_eq!(
        place.shell(note),
        format!("grant_store from version 1 to 0; all that was there is in {}", saved.display())
    );
    assert_eq!(shell(&saved, note).unwrap(), "", "the copy is what was there before");
    // The log itself: then the copy is where it goes on.
    let saved = db.rollback("audit_store", 0).unwrap();
    assert_eq!(
        shell(&saved, "SELECT operator_action FROM audit_entries ORDER BY seq").unwrap(),
        "rolled back\nrolled back"
    );
    db.migrate_all().unwrap();
    assert_eq!(place.count("audit_entries"), 0);
    let left = crate::place::names(&place.dir.join("backups"));
    assert_eq!(db.rollback("nobody", 0).unwrap_err().exit_code(), 4);
    assert_eq!(crate::place::names(&place.dir.join("backups")), left, "a copy that nobody asked for was left");
}

#[test]
fn check_finds_what_is_wrong_and_says_so() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    decide(&inbox, &queue.write_proposal(&proposal("x")).unwrap(), Status::Approved).unwrap();
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
