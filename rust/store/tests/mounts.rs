//! What if the place is not one to write to: mounted wrong, read-only, full, or another's? Real mounts; root is needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bot_bottle_store::{Database, Error, Inbox, Proposal, QueueStore, State, Status};

use crate::child::{Child, arg, say};
use crate::place::{Place, decide, names, proposal, shell, skip};

/// Unmounted with the test, before its directory goes.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with the reason printed, where this system does not let us.
    fn new(command: &str, args: &[&str], point: &Path) -> Option<Self> {
        match Command::new(command).args(args).arg(point).output() {
            Ok(output) if output.status.success() => Some(Mounted(point.to_owned())),
            Ok(output) => {
                skip(&format!("{command} {args:?}: {}", String::from_utf8_lossy(&output.stderr)));
                None
            }
            Err(error) => {
                skip(&format!("{command}: {error}"));
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn directory(place: &Place, name: &str) -> PathBuf {
    let path = place.dir.join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// What every way in says, for a database that is not to be used.
fn refusals(db: &Path) -> Vec<Error> {
    let queue = QueueStore::new("dev", Some(db)).unwrap();
    vec![
        queue.write_proposal(&proposal("x")).map(drop).unwrap_err(),
        Database::new(Some(db)).unwrap().migrate_all().map(drop).unwrap_err(),
    ]
}

#[test]
fn a_database_file_that_is_a_mount_point_is_refused() {
    let place = Place::new();
    let asked = place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let point = directory(&place, "container").join("bot-bottle.db");
    fs::write(&point, "").unwrap();
    let Some(_mounted) = Mounted::new("mount", &["--bind", arg(&place.db)], &point) else { return };
    let reading = QueueStore::new("dev", Some(&point)).unwrap().list_pending_proposals().map(drop).unwrap_err();
    for error in refusals(&point).into_iter().chain([reading]) {
        assert!(matches!(error, Error::FileMount { .. }), "{error}");
        assert_eq!((error.class(), error.exit_code()), ("UnsafeMountError", 8));
        assert!(error.to_string().contains(arg(&point)) && error.to_string().contains("directory"), "{error}");
    }
    assert_eq!(names(point.parent().unwrap()), ["bot-bottle.db"], "something was written beside it");
    let status = Database::new(Some(&point)).unwrap().status().unwrap();
    assert!(status.exists && !status.mount_safe);
    assert_eq!(place.queue("dev").list_pending_proposals().unwrap(), [asked]);
}

#[test]
fn a_directory_that_is_mounted_is_shared() {
    let place = Place::new();
    let (home, point) = (directory(&place, "home"), directory(&place, "container"));
    let Some(_mounted) = Mounted::new("mount", &["--bind", arg(&home)], &point) else { return };
    let (here, there) = (home.join("bot-bottle.db"), point.join("bot-bottle.db"));
    let (queue, inbox) = (QueueStore::new("dev", Some(&there)).unwrap(), Inbox::new(Some(&here)).unwrap());
    let asked = queue.write_proposal(&proposal("x")).unwrap();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| queue.wait_for_response(&asked.id, Some(std::time::Duration::from_secs(20)), || false));
        crate::place::eventually(|| inbox.read(&asked.id).unwrap().waiting);
        let start = std::time::Instant::now();
        decide(&inbox, &asked, Status::Approved).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap().status, Status::Approved);
        assert!(start.elapsed() < std::time::Duration::from_millis(500), "{:?}", start.elapsed());
    });
}

#[test]
fn a_filesystem_in_user_space_is_refused() {
    let place = Place::new();
    let (below, point) = (directory(&place, "below"), directory(&place, "point"));
    let Some(_mounted) = Mounted::new("bindfs", &[arg(&below)], &point) else { return };
    let db = point.join("bot-bottle.db");
    for error in refusals(&db) {
        assert!(matches!(error, Error::ForeignFilesystem { .. }), "{error}");
        assert_eq!((error.class(), error.exit_code()), ("UnsafeMountError", 8));
        assert!(error.to_string().contains("fuse"), "{error}");
    }
    assert_eq!(names(&below), [""; 0], "something was written there");
    // One that is there already is not even looked at.
    shell(&below.join("bot-bottle.db"), "CREATE TABLE x (y)").unwrap();
    let error = QueueStore::new("dev", Some(&db)).unwrap().list_pending_proposals().unwrap_err();
    assert!(matches!(error, Error::ForeignFilesystem { .. }), "{error}");
    assert_eq!(names(&below), ["bot-bottle.db"]);
}

/// The mount with the longest path lies under the one that is seen.
#[test]
fn a_mount_hidden_under_a_foreign_one_does_not_count() {
    let place = Place::new();
    let (below, point) = (directory(&place, "below"), directory(&place, "point"));
    for dir in [&below, &point] {
        fs::create_dir(dir.join("db")).unwrap();
    }
    let Some(_hidden) = Mounted::new("mount", &["-t", "tmpfs", "tmpfs"], &point.join("db")) else { return };
    let Some(_mounted) = Mounted::new("bindfs", &["-o", "nonempty", arg(&below)], &point) else { return };
    for error in refusals(&point.join("db/bot-bottle.db")) {
        assert!(matches!(error, Error::ForeignFilesystem { .. }), "{error}");
    }
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    let place = Place::new();
    let point = directory(&place, "small");
    let Some(_mounted) = Mounted::new("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs"], &point) else { return };
    let (db, filler) = (point.join("bot-bottle.db"), point.join("filler"));
    bot_bottle_store::Keys::new(Some(&db)).unwrap().rotate().unwrap(); // later there is no room for one
    fs::write(&filler, vec![1; 1 << 20]).unwrap();
    let (queue, inbox) = (QueueStore::new("dev", Some(&db)).unwrap(), Inbox::new(Some(&db)).unwrap());
    let ask = |n: usize| queue.write_proposal(&proposal(&format!("{n} {}", "x".repeat(50_000))));
    let mut written: Vec<Proposal> = Vec::new();
    let error = loop {
        match ask(written.len()) {
            Ok(asked) => written.push(asked),
            Err(error) => break error,
        }
        assert!(written.len() < 100, "the disk is larger than it should be");
    };
    assert_eq!((error.class(), error.exit_code()), ("DatabaseUnavailableError", 1), "{error}");
    assert!(error.to_string().contains("space") && error.to_string().contains(arg(&db)), "{error}");
    // To the last byte.
    let _ = fs::write(point.join("more"), vec![1; 1 << 20]);
    for _ in 0..3 {
        assert_eq!(ask(999).unwrap_err().class(), "DatabaseUnavailableError");
    }
    let last = written.last().unwrap();
    // A decision is small: it may find room that the larger writes left in the WAL. It is there or an error, never both.
    let decided = decide(&inbox, last, Status::Approved);
    assert_eq!(queue.read_response(&last.id).unwrap().is_some(), decided.is_ok());
    assert_eq!(inbox.read(&last.id).unwrap().state, if decided.is_ok() { State::Approved } else { State::Pending });
    if let Err(error) = decided {
        assert_eq!(error.class(), "DatabaseUnavailableError", "{error}");
    }
    let ids: Vec<String> = written.iter().map(|asked| asked.id.clone()).collect();
    let there = shell(&db, "SELECT id FROM proposals ORDER BY seq; PRAGMA integrity_check").unwrap();
    assert_eq!(there, format!("{}\nok", ids.join("\n")));

    for filler in [filler, point.join("more")] {
        fs::remove_file(filler).unwrap();
    }
    written.push(ask(1000).unwrap());
    decide(&inbox, &written[0], Status::Rejected).unwrap();
    assert_eq!(
        shell(&db, "SELECT count(*) FROM proposals; PRAGMA integrity_check").unwrap(),
        format!("{}\nok", written.len())
    );
}

#[test]
fn a_fresh_database_on_a_full_disk_is_an_error_and_works_later() {
    let place = Place::new();
    let point = directory(&place, "small");
    let Some(_mounted) = Mounted::new("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &point) else { return };
    let (db, filler) = (point.join("bot-bottle.db"), point.join("filler"));
    let _ = fs::write(&filler, vec![1; 2 << 20]);
    let queue = QueueStore::new("dev", Some(&db)).unwrap();
    let error = queue.write_proposal(&proposal("x")).unwrap_err();
    assert_eq!(error.class(), "DatabaseUnavailableError", "{error}");
    assert!(error.to_string().contains("space"), "{error}");
    fs::remove_file(filler).unwrap();
    queue.write_proposal(&proposal("x")).unwrap();
}

#[test]
fn a_full_disk_under_a_managed_file_decides_nothing() {
    let place = Place::new();
    let point = directory(&place, "small");
    let Some(_mounted) = Mounted::new("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &point) else { return };
    let file = point.join("routes.yaml");
    fs::write(&file, "old\n").unwrap();
    place.bottles().register("dev", "docker", "mount", &[("egress-allow".to_owned(), file.clone())]).unwrap();
    let (queue, inbox, filler) = (place.queue("dev"), place.inbox(), point.join("filler"));
    let asked = queue.write_proposal(&proposal(&"new\n".repeat(10_000))).unwrap();
    let _ = fs::write(&filler, vec![1; 2 << 20]);
    let error = decide(&inbox, &asked, Status::Approved).unwrap_err();
    assert_eq!(error.class(), "DatabaseUnavailableError", "{error}");
    assert_eq!(
        (fs::read_to_string(&file).unwrap().as_str(), names(&point)),
        ("old\n", vec!["filler".to_owned(), "routes.yaml".to_owned()])
    );
    assert_eq!(queue.list_pending_proposals().unwrap(), std::slice::from_ref(&asked));
    fs::remove_file(filler).unwrap();
    decide(&inbox, &asked, Status::Approved).unwrap();
}

#[test]
fn a_read_only_filesystem_is_named() {
    let place = Place::new();
    let (home, point) = (directory(&place, "home"), directory(&place, "point"));
    let asked =
        QueueStore::new("dev", Some(&home.join("bot-bottle.db"))).unwrap().write_proposal(&proposal("x")).unwrap();
    // Another process keeps WAL and SHM there; this one has no connection that could write.
    let mut waiter = Child::start("waits", &[arg(&home.join("bot-bottle.db")), "dev"]);
    waiter.says();
    waiter.tell(&asked.id);
    let inbox = || Inbox::new(Some(&home.join("bot-bottle.db"))).unwrap();
    crate::place::eventually(|| inbox().read(&asked.id).unwrap().waiting);
    let Some(_mounted) = Mounted::new("mount", &["--bind", arg(&home)], &point) else { return };
    let remounted = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&point).status().unwrap();
    assert!(remounted.success());
    let queue = QueueStore::new("dev", Some(&point.join("bot-bottle.db"))).unwrap();
    let error = queue.write_proposal(&proposal("y")).unwrap_err();
    assert_eq!(error.class(), "DatabaseUnavailableError", "{error}");
    assert!(error.to_string().contains("bot-bottle.db") && error.to_string().contains("writable"), "{error}");
    // What is there can be read as long as SQLite finds the shared memory of those who write.
    assert_eq!(queue.list_pending_proposals().unwrap(), std::slice::from_ref(&asked));
    assert_eq!(
        QueueStore::new("dev", Some(&home.join("bot-bottle.db"))).unwrap().list_pending_proposals().unwrap(),
        [asked]
    );
}

/// In a child that gave root up.
pub fn reads_as_nobody(db: &Path) {
    let queue = QueueStore::new("dev", Some(db)).unwrap();
    for result in [
        queue.write_proposal(&proposal("y")).map(|_| "written".to_owned()),
        queue.list_pending_proposals().map(|listed| format!("{} listed", listed.len())),
    ] {
        say(&result.unwrap_or_else(|error| format!("{} {error}", error.class())));
    }
}

#[test]
fn a_database_that_is_not_ours_is_named() {
    let place = Place::new();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    if !Command::new("setpriv").args(["--reuid", "65534", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("only root can become nobody");
    }
    // The test binary may lie where nobody may look; a copy does not.
    let binary = place.dir.join("store-test");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o755)).unwrap();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    let mut nobody = Child::start_as(&mut setpriv, &binary, "reads as nobody", &[arg(&place.db)]);
    for _ in 0..2 {
        let said = nobody.says();
        assert!(said.starts_with("DatabaseUnavailableError ") && said.contains(arg(&place.db)), "{said}");
    }
    nobody.ends();
    assert_eq!(place.count("proposals"), 1);
}
