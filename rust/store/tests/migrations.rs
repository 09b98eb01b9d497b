//! How does a file come to be, and what is done with one that is not ours, not sound, or of another release?

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bot_bottle_store::{Database, Error, Inbox, QueueStore, Status, Step};

use crate::child::{Child, arg, hear, say};
use crate::place::{Place, decide, proposal};

/// In a child: opens each file it hears of, as one of many, and writes to it.
pub fn opens() {
    say("ready");
    loop {
        let path = PathBuf::from(hear());
        let queue = QueueStore::new("dev", Some(&path)).unwrap();
        let asked = proposal(&format!("from process {}", std::process::id()));
        match queue.write_proposal(&asked).and_then(|_| Ok(Inbox::new(Some(&path))?.pending(None)?.len())) {
            Ok(1..) => say("ok"),
            other => say(&format!("{other:?}")),
        }
    }
}

/// In a child: makes a database.
pub fn makes(path: &Path) {
    say("making");
    Database::new(Some(path)).unwrap().migrate_all().unwrap();
    say("made");
    hear();
}

/// In a child, with a root and no mask: uses the host's database as an operator and a sidecar do.
pub fn is_a_host() {
    rustix::process::umask(rustix::fs::Mode::empty());
    let queue = QueueStore::new("dev", None).unwrap();
    assert!(queue.list_pending_proposals().unwrap().is_empty());
    let root = bot_bottle_store::bot_bottle_root().unwrap();
    say(&format!("read, root exists: {}", root.exists()));
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    let inbox = Inbox::new(None).unwrap();
    let _wait = queue.begin_wait(&asked.id, None, |_| {}).unwrap();
    inbox.database().rollback("grant_store", 0).unwrap(); // leaves a backup
    let managed = bot_bottle_store::BottleStore::new(None).unwrap();
    managed.register("dev", "docker", "mount", &[("egress-block".to_owned(), PathBuf::from("routes.yaml"))]).unwrap();
    let other = bot_bottle_store::Proposal::new("dev", "egress-block", b"new", "", None, None, None).unwrap();
    queue.write_proposal(&other).unwrap();
    decide(&inbox, &other, Status::Approved).unwrap();
    say("in use");
    hear();
}

#[test]
fn many_processes_open_a_fresh_file_at_once() {
    let place = Place::new();
    let mut openers: Vec<Child> = (0..8).map(|_| Child::start("opens", &[])).collect();
    openers.iter_mut().for_each(|opener| assert_eq!(opener.says(), "ready"));
    for round in 0..25 {
        let db = place.dir.join(format!("{round}.db"));
        openers.iter_mut().for_each(|opener| opener.tell(arg(&db)));
        let said: Vec<String> = openers.iter_mut().map(Child::says).collect();
        assert!(said.iter().all(|said| said == "ok"), "round {round}: {said:?}");
        let there = crate::place::shell(&db, "SELECT count(*) FROM proposals; PRAGMA journal_mode").unwrap();
        assert_eq!(there, "8\nwal");
    }
}

#[test]
fn the_host_s_directory_is_ours_alone_from_the_first_moment() {
    let place = Place::new();
    let root = place.dir.join("root");
    let mut env = std::process::Command::new("env");
    let mut host = Child::start_through(env.arg(format!("BOT_BOTTLE_ROOT={}", root.display())), "is a host", &[]);
    assert_eq!(host.says(), "read, root exists: false");
    assert_eq!(host.says(), "in use");
    let mut all = vec![root.clone()];
    let mut seen = 0;
    while let Some(path) = all.pop() {
        let data = path.symlink_metadata().unwrap();
        if data.is_symlink() {
            assert_eq!(
                (path.as_path(), fs::read_link(&path).unwrap().as_path()),
                (root.join("bot-bottle.db").as_path(), Path::new("db/bot-bottle.db"))
            );
            continue;
        }
        let mode = if data.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(data.permissions().mode() & 0o777, mode, "{}", path.display());
        seen += 1;
        if data.is_dir() {
            all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen >= 12, "{seen}");
    // The mounted directory holds the database's own files and nothing else.
    let names = crate::place::names(&root.join("db"));
    assert!(names.iter().all(|name| name == "bells" || name.starts_with("bot-bottle.db")), "{names:?}");
}

#[test]
fn reading_what_is_not_there_finds_nothing_and_creates_nothing() {
    let place = Place::new();
    let (queue, inbox, id) = (place.queue("dev"), place.inbox(), proposal("x").head.id);
    assert!(queue.list_pending_proposals().unwrap().is_empty());
    assert!(queue.read_proposal(&id).unwrap().is_none() && queue.read_response(&id).unwrap().is_none());
    assert!(inbox.pending(None).unwrap().is_empty() && inbox.changes(0, 10).unwrap().is_empty());
    assert_eq!((inbox.recover().unwrap(), inbox.last_change().unwrap()), (0, 0));
    assert_eq!(inbox.stats().unwrap()["pending"], 0);
    assert!(place.audit().read_audit_entries(None, None, None, None).unwrap().is_empty());
    assert_eq!(place.audit().verify(None).unwrap().entries, 0);
    assert!(place.grants().use_grant("dev", "egress-allow", "x").unwrap().is_none());
    assert!(place.grants().list_grants(None, false).unwrap().is_empty());
    assert!(place.bottles().list_bottles(false).unwrap().is_empty());
    assert!(
        place
            .database()
            .query("SELECT 1", &bot_bottle_store::Params::Positional(vec![]), std::time::Duration::MAX)
            .unwrap()
            .is_empty()
    );
    assert!(place.database().check().unwrap().is_empty() && !place.database().status().unwrap().exists);
    assert_eq!(place.database().prune(std::time::Duration::ZERO).unwrap(), 0);
    assert!(matches!(inbox.read(&id), Err(Error::NotFound { .. })));
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let place = Place::new();
    let path = place.dir.join("missing/bot-bottle.db");
    let queue = QueueStore::new("dev", Some(&path)).unwrap();
    assert!(queue.list_pending_proposals().unwrap().is_empty());
    let error = queue.write_proposal(&proposal("x")).unwrap_err();
    assert_eq!((error.class(), error.exit_code()), ("DatabaseUnavailableError", 1));
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_newer_file_is_refused_and_not_written() {
    for journal in ["delete", "wal"] {
        let place = Place::new();
        place.queue("dev").write_proposal(&proposal("x")).unwrap();
        place.shell(&format!(
            "UPDATE schema_versions SET version = 9, compat = 9 WHERE module = 'audit_store'; PRAGMA journal_mode = {journal}"
        ));
        let (before, modified) = (fs::read(&place.db).unwrap(), fs::metadata(&place.db).unwrap().mtime_nsec());
        let errors = [
            place.queue("dev").write_proposal(&proposal("y")).map(drop).unwrap_err(),
            place.queue("dev").list_pending_proposals().map(drop).unwrap_err(),
            Inbox::new(Some(&place.db)).map(drop).unwrap_err(),
            place.database().migrate_all().map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                error,
                Error::SchemaTooNew { module: "audit_store".to_owned(), found: 9, compat: 9, supported: 1 }
            );
            assert_eq!(error.exit_code(), 8);
        }
        assert_eq!(place.database().status().unwrap().modules["audit_store"].found, 9);
        assert!(fs::read(&place.db).unwrap() == before, "{journal}: the file was written to");
        assert_eq!(fs::metadata(&place.db).unwrap().mtime_nsec(), modified);
    }
}

#[test]
fn what_is_no_database_is_refused_and_left_as_it_is() {
    let garbage: [&[u8]; 3] = [b"this is not a database, whatever its name says\n", &[0; 8192], &[0xff; 100]];
    for content in garbage {
        let place = Place::new();
        fs::write(&place.db, content).unwrap();
        for error in [
            place.queue("dev").write_proposal(&proposal("x")).map(drop).unwrap_err(),
            place.queue("dev").list_pending_proposals().map(drop).unwrap_err(),
        ] {
            assert_eq!((error.class(), error.exit_code()), ("DatabaseCorruptError", 8), "{error}");
            assert!(error.to_string().contains(arg(&place.db)), "{error}");
        }
        assert!(fs::read(&place.db).unwrap() == content);
    }
}

#[test]
fn a_truncated_file_is_an_error_and_no_answer() {
    let place = Place::new();
    let queue = place.queue("dev");
    for n in 0..50 {
        queue.write_proposal(&proposal(&format!("{n}{}", "x".repeat(9000)))).unwrap();
    }
    drop(queue);
    let file = fs::OpenOptions::new().write(true).open(&place.db).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    drop(file);
    let listed = place.queue("dev").list_pending_proposals().map(|all| all.len());
    assert_eq!(listed.map_err(|error| error.class()), Err("DatabaseCorruptError"));
    assert!(!matches!(place.database().check().as_deref(), Ok([])), "check found nothing");
}

#[test]
fn a_directory_in_the_file_s_place_is_named() {
    let place = Place::new();
    fs::create_dir(&place.db).unwrap();
    let error = place.queue("dev").write_proposal(&proposal("x")).unwrap_err();
    assert_eq!(error.class(), "DatabaseUnavailableError", "{error}");
    assert!(error.to_string().contains(arg(&place.db)), "{error}");
}

#[test]
fn an_empty_file_becomes_a_database() {
    let place = Place::new();
    fs::write(&place.db, "").unwrap();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    assert_eq!(place.count("proposals"), 1);
}

#[test]
fn a_link_to_the_file_is_the_file() {
    let place = Place::new();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let link = place.dir.join("elsewhere.db");
    std::os::unix::fs::symlink(&place.db, &link).unwrap();
    let queue = QueueStore::new("dev", Some(&link)).unwrap();
    queue.write_proposal(&proposal("y")).unwrap();
    assert_eq!(place.queue("dev").list_pending_proposals().unwrap().len(), 2);
    assert!(!place.names().iter().any(|name| name.starts_with("elsewhere.db-")), "{:?}", place.names());
}

#[test]
fn a_module_rolled_back_comes_up_again() {
    let place = Place::new();
    let db = place.database();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let saved = db.rollback("queue_store", 0).unwrap();
    assert_eq!(place.shell("SELECT count(*) FROM sqlite_schema WHERE name = 'proposals'"), "0");
    assert_eq!(crate::place::shell(&saved, "SELECT count(*) FROM proposals").unwrap(), "1");
    drop(db);
    place.queue("dev").write_proposal(&proposal("y")).unwrap();
    assert_eq!(place.count("proposals"), 1);
    for (module, to, class) in [("nobody", 0, "NotFoundError"), ("queue_store", 7, "InvalidInputError")] {
        assert_eq!(place.database().rollback(module, to).unwrap_err().class(), class);
    }
}

fn step(up: &str, down: &str) -> Step {
    Step { up: up.to_owned(), down: down.to_owned() }
}

#[test]
fn other_programs_keep_tables_of_their_own_in_the_file() {
    let place = Place::new();
    let db = place.database();
    let first = step("CREATE TABLE forge_jobs (id INTEGER PRIMARY KEY) STRICT", "DROP TABLE forge_jobs");
    let second = step("ALTER TABLE forge_jobs ADD COLUMN name TEXT", "ALTER TABLE forge_jobs DROP COLUMN name");
    assert_eq!(db.migrate("forge", std::slice::from_ref(&first), None).unwrap(), 1);
    assert_eq!(db.migrate("forge", &[first.clone(), second], None).unwrap(), 2);
    assert_eq!(place.shell("SELECT module || version FROM schema_versions WHERE module = 'forge'"), "forge2");
    let older = db.migrate("forge", std::slice::from_ref(&first), None).unwrap_err();
    assert_eq!(older, Error::SchemaTooNew { module: "forge".to_owned(), found: 2, compat: 2, supported: 1 });
    let edited = db.migrate("forge", &[step("CREATE TABLE other (id)", ""), first], None).unwrap_err();
    assert_eq!(edited.class(), "MigrationError");
}

#[test]
fn other_programs_keep_off_our_tables_and_books() {
    let place = Place::new();
    let db = place.database();
    db.migrate_all().unwrap();
    let before = place.shell("SELECT * FROM schema_versions; SELECT sql FROM sqlite_schema");
    for sql in [
        "DROP TABLE audit_entries",
        "DROP TRIGGER audit_entries_no_update",
        "DELETE FROM proposals",
        "ALTER TABLE proposals ADD COLUMN x",
        "CREATE TRIGGER t AFTER INSERT ON proposals BEGIN SELECT 1; END",
        "CREATE INDEX i ON grants (tool)",
        "UPDATE schema_versions SET version = 0",
        "INSERT OR REPLACE INTO schema_steps VALUES ('queue_store', 1, '', '')",
        "CREATE TABLE a (x); COMMIT; BEGIN",
        "ATTACH 'x' AS y",
        "PRAGMA writable_schema = ON",
    ] {
        let error = db.migrate("forge", &[step(sql, "")], None).unwrap_err();
        assert_eq!(error.class(), "MigrationError", "{sql}: {error}");
        assert_eq!(place.shell("SELECT * FROM schema_versions; SELECT sql FROM sqlite_schema"), before, "{sql}");
    }
    for name in ["queue_store", "audit_store"] {
        assert_eq!(db.migrate(name, &[], None).unwrap_err().class(), "InvalidInputError");
    }
    assert_eq!(db.migrate("No Name", &[], None).unwrap_err().exit_code(), 2);
}
