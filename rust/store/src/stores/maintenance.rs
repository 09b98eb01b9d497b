//! How is the file looked after: status, check, backup, restore, rollback, prune?

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, named_params};
use serde::Serialize;

use crate::audit::entry as audit;
use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::database::Database;
use crate::file::migrations::{self, MODULES};
use crate::file::transaction::Transaction;
use crate::file::{bell, mount};
use crate::queue::changes;
use crate::stores::audit_store::AuditStore;
use crate::user::os_user;

/// A backup in one step, so in one read transaction: in smaller ones every write by others would start it over.
const ALL_PAGES: i32 = i32::MAX;
/// How many proposals one transaction prunes: others get their turn between.
const PRUNE_BATCH: u32 = 500;

/// What `status` reports.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
#[allow(missing_docs)]
pub struct Status {
    pub exists: bool,
    pub path: String,
    pub real_path: String,
    pub filesystem: String,
    pub mount_safe: bool,
    pub size_bytes: u64,
    pub wal_bytes: u64,
    pub sqlite_version: String,
    pub modules: BTreeMap<String, ModuleStatus>,
}

/// How far a module is in the file, down to which version programs may use it, and how far this release knows it
/// (`None`: it is another program's).
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct ModuleStatus {
    pub found: i64,
    pub compat: i64,
    pub supported: Option<i64>,
}

impl Database {
    /// Where it is and what it is, without writing or migrating.
    pub fn status(&self) -> Result<Status> {
        let file = self.real_path()?;
        let size = |suffix: &str| fs::metadata(with_suffix(&file, suffix)).map_or(0, |data| data.len());
        let mount_safe = mount::check(&file).is_ok();
        let exists = file.exists();
        let mut modules: BTreeMap<String, ModuleStatus> = MODULES
            .iter()
            .map(|module| {
                (module.name.to_owned(), ModuleStatus { found: 0, compat: 0, supported: Some(module.version()) })
            })
            .collect();
        if exists && mount_safe {
            let conn = open_read_only(&file)?;
            for found in migrations::versions(&conn).map_err(|error| error.at(&file))? {
                let supported = modules.get(&found.module).and_then(|known| known.supported);
                modules.insert(found.module, ModuleStatus { found: found.version, compat: found.compat, supported });
            }
        }
        Ok(Status {
            exists,
            path: self.path().display().to_string(),
            filesystem: mount::filesystem(&file),
            mount_safe,
            size_bytes: size(""),
            wal_bytes: size("-wal"),
            sqlite_version: rusqlite::version().to_owned(),
            real_path: file.display().to_string(),
            modules,
        })
    }

    /// Opens it as every other call would, and says why not.
    pub fn check_access(&self) -> Result<()> {
        self.read(|conn| Ok(conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?)).map(|_| ())
    }

    /// Creates the file, or brings it to this release's schema.
    pub fn migrate_all(&self) -> Result<Vec<(String, i64)>> {
        let found = self.write(|tx| Ok((migrations::versions(tx)?, Rings::NONE)))?;
        Ok(found.into_iter().map(|found| (found.module, found.version)).collect())
    }

    /// Takes one module back, after a backup whose path is returned.
    pub fn rollback(&self, module: &str, to: i64) -> Result<PathBuf> {
        let saved =
            self.save_aside()?.ok_or_else(|| Error::not_found("database", &self.path().display().to_string()))?;
        let opened = self.open_to_write()?;
        let _turn = opened.turns.as_ref().map(crate::file::turn::Turns::take);
        migrations::rollback(&opened.conn, module, to).map_err(|error| error.at(&opened.file))?;
        opened.acknowledge()?;
        Ok(saved)
    }

    /// SQLite's checks and the audit chain; what is wrong, in sentences.
    pub fn check(&self) -> Result<Vec<String>> {
        let Some(opened) = self.shared()?.open(false)? else { return Ok(Vec::new()) };
        let mut findings = sqlite_checks(&opened.conn).map_err(|error| error.at(&opened.file))?;
        match audit::verify(&opened.conn, None) {
            Ok(_) => {}
            Err(error @ Error::AuditIntegrity { .. }) => findings.push(error.to_string()),
            Err(error) => return Err(error.at(&opened.file)),
        }
        Ok(findings)
    }

    /// A copy of one moment, while others write; its bytes.
    pub fn backup(&self, destination: &Path) -> Result<u64> {
        let Some(opened) = self.shared()?.open(false)? else {
            return Err(Error::not_found("database", &self.path().display().to_string()));
        };
        create_private(destination)?;
        let copied = copy(&opened.conn, destination);
        if copied.is_err() {
            let _ = fs::remove_file(destination);
        }
        copied.map_err(|error| error.at(destination))
    }

    /// Replaces the content with a backup's. What was there is saved first; the path of that is returned.
    pub fn restore(&self, source: &Path) -> Result<PathBuf> {
        if !source.is_file() {
            return Err(Error::not_found("backup", &source.display().to_string()));
        }
        let backup = open_read_only(source)?;
        let at_source = |error: Error| error.at(source);
        if let Some(finding) = sqlite_checks(&backup).map_err(at_source)?.into_iter().next() {
            return Err(Error::Corrupt { path: source.display().to_string(), reason: finding });
        }
        let versions = migrations::versions(&backup).map_err(at_source)?;
        if versions.is_empty() {
            return Err(Error::input("backup", format!("{} is not a bot-bottle database", source.display())));
        }
        migrations::refuse_newer(&versions)?;
        if fs::canonicalize(source).ok() == self.shared()?.file()? {
            return Err(Error::input("backup", format!("{} is the database itself", source.display())));
        }
        let audit = AuditStore::new(Some(self.path()))?;
        let saved = self.save_aside().and_then(|saved| Ok((saved, audit.head()?)));
        let (saved, head) = match saved {
            Ok(saved) => saved,
            // The reason to restore: the damaged file is kept as it is, and a new one takes its place.
            Err(Error::Corrupt { .. }) => (Some(self.move_aside()?), "unreadable".to_owned()),
            Err(error) => return Err(error),
        };
        let newest = self.read(changes::newest_change)?.flatten();
        {
            let mut opened = self.open_to_write()?;
            let _turn = opened.turns.as_ref().map(crate::file::turn::Turns::take);
            let copy = Backup::new(&backup, &mut opened.conn)?;
            copy.run_to_completion(ALL_PAGES, Duration::from_millis(5), None)
                .map_err(|error| Error::from(error).at(self.path()))?;
            drop(copy);
            migrations::migrate_all(&opened.conn).map_err(|error| error.at(&opened.file))?;
            opened.acknowledge()?;
        }
        let saved = saved.unwrap_or_else(|| PathBuf::from("/dev/null"));
        self.write(|tx| {
            let notes =
                format!("from {}; the log before it had head {head} and is in {}", source.display(), saved.display());
            audit::note(tx, "host", "database", "restored", &notes, &os_user(), "cli")?;
            newest.as_ref().map_or(Ok(()), |newest| changes::go_on_from(tx, newest))?;
            Ok(((), Rings::inbox()))
        })?;
        bell::ring_all(&self.real_path()?);
        Ok(saved)
    }

    /// Deletes proposals that ended longer ago than `age`, in turns with other writers; how many. Never the audit log.
    pub fn prune(&self, age: Duration) -> Result<usize> {
        if self.read(|_| Ok(()))?.is_none() {
            return Ok(0);
        }
        let before = clock::before(age);
        let mut pruned = 0;
        loop {
            let gone = self.write(|tx| Ok((prune_some(tx, &before)?, Rings::NONE)))?;
            pruned += gone;
            if gone < PRUNE_BATCH as usize {
                return Ok(pruned);
            }
        }
    }

    /// How long a bell takes to be heard here; see [`Error::BellTimeout`].
    pub fn ring_test(&self, limit: Duration) -> Result<Duration> {
        let file = self.real_path()?;
        bell::test(&file, limit).ok_or_else(|| Error::BellTimeout {
            path: file.parent().unwrap_or(&file).join("bells").display().to_string(),
            seconds: limit.as_secs_f64().to_string(),
        })
    }

    /// A backup beside the database's directory; `None` while there is no database.
    fn save_aside(&self) -> Result<Option<PathBuf>> {
        if !self.real_path()?.exists() {
            return Ok(None);
        }
        let saved = self.aside()?;
        self.backup(&saved)?;
        Ok(Some(saved))
    }

    fn move_aside(&self) -> Result<PathBuf> {
        let file = self.real_path()?;
        let saved = self.aside()?;
        // The WAL first: without it the file is merely older, with a WAL that is not its own it would be wrong.
        for suffix in ["-wal", "-shm", ""] {
            match fs::rename(with_suffix(&file, suffix), with_suffix(&saved, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::unavailable(&file, error)),
                _ => {}
            }
        }
        Ok(saved)
    }

    fn aside(&self) -> Result<PathBuf> {
        let dir = self.path().parent().unwrap_or(Path::new("/")).join("backups");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|error| Error::unavailable(&dir, error))?;
        Ok(dir.join(format!("bot-bottle-{}.db", clock::now().replace([':', '.'], "-"))))
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn open_read_only(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(file, flags).map_err(|error| Error::from(error).at(file))?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

fn sqlite_checks(conn: &Connection) -> Result<Vec<String>> {
    let mut findings: Vec<String> =
        conn.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    findings.retain(|finding| finding != "ok");
    let mut statement = conn.prepare("SELECT \"table\", parent FROM pragma_foreign_key_check")?;
    let rows = statement.query_map([], |row| {
        Ok(format!("a row of {} belongs to no row of {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    findings.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
    Ok(findings)
}

fn create_private(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::input("backup", format!("{} exists; choose another name", path.display())))
        }
        Err(error) => Err(Error::unavailable(path, error)),
    }
}

fn copy(from: &Connection, to: &Path) -> Result<u64> {
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    Backup::new(from, &mut target)?.run_to_completion(ALL_PAGES, Duration::from_millis(5), None)?;
    // A backup is one file: without this, opening it would leave a WAL beside it.
    target.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    fs::metadata(to).map(|data| data.len()).map_err(|error| Error::unavailable(to, error))
}

fn prune_some(tx: &Transaction<'_>, before: &str) -> Result<usize> {
    const PRUNE_SQL: &str = "DELETE FROM proposals WHERE seq IN (
           SELECT p.seq FROM proposals p
           LEFT JOIN responses r ON r.proposal_seq = p.seq
           LEFT JOIN applies m ON m.proposal_seq = p.seq
           WHERE coalesce(p.archived_at, r.decided_at, p.withdrawn_at, p.expires_at) < :before
             AND ifnull(m.state, '') <> 'intended'
           LIMIT :batch)";
    // The newest change stays: what comes after it must have a larger number, for whoever goes on from one.
    const FORGET_SQL: &str = "DELETE FROM changes WHERE at < :before AND seq < (SELECT max(seq) FROM changes)";
    let pruned = tx.prepare_cached(PRUNE_SQL)?.execute(named_params! {":before": before, ":batch": PRUNE_BATCH})?;
    if pruned < PRUNE_BATCH as usize {
        tx.prepare_cached(FORGET_SQL)?.execute(named_params! {":before": before})?;
    }
    Ok(pruned)
}
