//! Where does a test's database live, and who else looks at it?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bot_bottle_store::{
    AuditStore, BottleStore, Database, Decision, GrantStore, Inbox, Proposal, ProposalHead, QueueStore, Response,
    Result, Reviewed, Status, Surface,
};

/// A directory that goes with the test, and the database in it.
pub struct Place {
    _dir: tempfile::TempDir,
    pub dir: PathBuf,
    pub db: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        Place { _dir: temp, db: dir.join("bot-bottle.db"), dir }
    }

    pub fn queue(&self, key: &str) -> QueueStore {
        QueueStore::new(key, Some(&self.db)).unwrap()
    }

    pub fn inbox(&self) -> Inbox {
        Inbox::new(Some(&self.db)).unwrap()
    }

    pub fn audit(&self) -> AuditStore {
        AuditStore::new(Some(&self.db)).unwrap()
    }

    pub fn grants(&self) -> GrantStore {
        GrantStore::new(Some(&self.db)).unwrap()
    }

    pub fn bottles(&self) -> BottleStore {
        BottleStore::new(Some(&self.db)).unwrap()
    }

    pub fn database(&self) -> Database {
        Database::new(Some(&self.db)).unwrap()
    }

    /// What the `sqlite3` shell, in a process of its own, says to `sql`: rows as lines, columns parted by `|`.
    pub fn shell(&self, sql: &str) -> String {
        self.try_shell(sql).unwrap_or_else(|error| panic!("sqlite3: {error}"))
    }

    /// The same number, read by the shell.
    pub fn count(&self, what: &str) -> usize {
        self.shell(&format!("SELECT count(*) FROM {what}")).parse().unwrap()
    }

    /// As [`Place::shell`], or what it complains of.
    pub fn try_shell(&self, sql: &str) -> std::result::Result<String, String> {
        shell(&self.db, sql)
    }

    /// Names in the directory, in order.
    pub fn names(&self) -> Vec<String> {
        names(&self.dir)
    }

    /// The bottle `dev` with a managed file `routes.yaml` for `egress-allow`.
    pub fn managed(&self, content: &str) -> PathBuf {
        let dir = self.dir.join("files");
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("routes.yaml");
        fs::write(&file, content).unwrap();
        self.bottles().register("dev", "docker", "mount", &[("egress-allow".to_owned(), file.clone())]).unwrap();
        file
    }
}

pub fn shell(db: &Path, sql: &str) -> std::result::Result<String, String> {
    let mut shell = Command::new("sqlite3");
    shell.args(["-batch", "-bail", "-cmd", ".timeout 10000", "-cmd", "PRAGMA foreign_keys = ON"]).arg(db).arg(sql);
    let output = shell.stdin(Stdio::null()).output().expect("the sqlite3 shell is needed (apt install sqlite3)");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// One of bottle `dev` that asks for `text`.
pub fn proposal(text: &str) -> Proposal {
    proposal_of("dev", text)
}

/// One of the bottle `slug`.
pub fn proposal_of(slug: &str, text: &str) -> Proposal {
    Proposal::new(slug, "egress-allow", text.as_bytes(), "because", None, None, None).unwrap()
}

/// One that expires.
pub fn expiring(text: &str, after: Duration) -> Proposal {
    Proposal::new("dev", "egress-allow", text.as_bytes(), "because", None, Some(after), None).unwrap()
}

/// A decision by Ann that names what is there.
pub fn decide(inbox: &Inbox, proposal: &ProposalHead, status: Status) -> Result<Response> {
    inbox.decide(&decision(proposal, status))
}

pub fn decision(proposal: &ProposalHead, status: Status) -> Decision<'_> {
    Decision {
        proposal_id: &proposal.id,
        status,
        reviewed: Reviewed::Payload(&proposal.payload_sha256),
        notes: "as agreed",
        final_file: None,
        decided_by: Some("ann"),
        surface: Surface::Cli,
        grant: None,
    }
}

/// Waits until `what` is true, for a moment that is far longer than it takes.
pub fn eventually(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sets a flag when it goes: a thread that loops until then ends, and its scope with it, when an assertion fails too.
pub struct Sets<'a>(pub &'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Says why a test cannot run here. In CI everything can.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "not to be skipped in CI: {reason}");
    println!("skipped: {reason}");
}
