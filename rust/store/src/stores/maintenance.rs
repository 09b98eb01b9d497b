//! How is the file looked after: status, check, backup?

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::connection::be_patient;
use crate::file::database::Database;
use crate::file::migrations::{self, MODULES};
use crate::file::{attest, bell, mount};
use crate::patience;
use crate::queue::{item, message};
use crate::statement::Keys;
use crate::stores::reconcile::reconcile;
use crate::stores::stats;
use crate::{grant, registration};

/// A backup in one step, so in one read transaction: in smaller ones every write by others would start it over.
pub(crate) const ALL_PAGES: i32 = i32::MAX;

/// While one of the two files is another's.
const NEXT_TRY: Duration = Duration::from_millis(5);

/// So many are told one by one, and left in the log: whoever can write to the file could make millions.
const MOST_FINDINGS: usize = 100;

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
        let _patience = patience::limit(Duration::from_secs(5));
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

    /// SQLite's checks, the schema, the audit log and the tallies against the rows, what is not as it was signed, and what
    /// lies in the place of files of the database; in sentences. What
    /// somebody else must have done to a row is left in the audit log, once.
    pub fn check(&self) -> Result<Vec<String>> {
        let _patience = patience::work();
        let Some(opened) = self.shared()?.open(false)? else { return Ok(Vec::new()) };
        let keys = Keys::of(self);
        let look = || {
            let _snapshot = opened.conn.unchecked_transaction()?;
            let (mut all, log) = findings(&opened.conn, |conn| reconcile(conn, None))?;
            let mismatches = log.map(|(_, mismatches)| mismatches).unwrap_or_default();
            let mut wrong: Vec<_> = mismatches.into_iter().map(|found| (found.bottle_slug, found.reason, "")).collect();
            for (slug, reason) in registration::damaged(&opened.conn, &keys)? {
                let way_out = "nothing of it is taken, and `bot-bottle bottle start` or `stop` writes it anew";
                wrong.push((slug, reason, way_out));
            }
            let mut damaged = item::damaged_decisions(&opened.conn, &keys)?;
            damaged.extend(grant::damaged(&opened.conn, &keys)?);
            wrong.extend(stats::miscounted(&opened.conn)?.into_iter().map(|(slug, reason)| (slug, reason, "")));
            let asked = message::damaged(&opened.conn, &keys)?;
            wrong.extend(asked.into_iter().map(|(slug, reason)| (slug, reason, "nobody is to believe it")));
            wrong.extend(damaged.into_iter().map(|(slug, reason)| (slug, reason, "it allows nothing")));
            all.extend(mount::planted_beside(&opened.file));
            Ok((all, wrong))
        };
        let looked = look().map_err(|error: Error| error.at(&opened.file));
        opened.check_whole()?;
        let (mut all, wrong) = looked?;
        drop(opened);
        for (told, (slug, reason, way_out)) in wrong.iter().enumerate() {
            if told == MOST_FINDINGS {
                all.push(format!("{} more rows are not as the log or their signatures say", wrong.len() - told));
                break;
            }
            // What is wrong is told, whether or not it can be written down.
            let _ = registration::record_damage(self, slug, reason);
            all.push(if way_out.is_empty() { reason.clone() } else { format!("{reason}; {way_out}") });
        }
        Ok(all)
    }

    /// A copy of one moment, while others write; its bytes.
    pub fn backup(&self, destination: &Path) -> Result<u64> {
        let _patience = patience::work();
        let Some(opened) = self.shared()?.open(false)? else {
            return Err(Error::not_found("database", &self.path().display().to_string()));
        };
        refuse_own_names(self, &opened.file, destination)?;
        create_private(destination)?;
        let copied = copy(&opened.conn, destination).and_then(|bytes| opened.check_whole().map(|()| bytes));
        if copied.is_err() {
            let _ = fs::remove_file(destination);
        }
        copied.map_err(|error| error.at(destination))
    }

    /// How long a bell takes to be heard here; see [`Error::BellTimeout`].
    pub fn ring_test(&self, limit: Duration) -> Result<Duration> {
        let file = self.real_path()?;
        bell::test(&file, limit).ok_or_else(|| Error::BellTimeout {
            path: file.parent().unwrap_or(&file).join("bells").display().to_string(),
            seconds: limit.as_secs_f64().to_string(),
        })
    }
}

pub(crate) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn open_read_only(file: &Path) -> Result<Connection> {
    mount::refuse_planted(&fs::canonicalize(file).map_err(|error| Error::unavailable(file, error))?)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(file, flags).map_err(|error| Error::from(error).at(file))?;
    be_patient(&mut conn)?;
    Ok(conn)
}

/// What is wrong with a file, in sentences, and what `log` finds of its audit log, if the log can be read at all.
pub(crate) fn findings<T>(
    conn: &Connection,
    log: impl FnOnce(&Connection) -> Result<T>,
) -> Result<(Vec<String>, Option<T>)> {
    let mut findings = sqlite_checks(conn)?;
    let versions = migrations::versions(conn)?;
    let planted = attest::planted(conn, &versions)?;
    findings.extend(planted.into_iter().map(|(_, what)| format!("{what}: somebody else put it there")));
    findings.extend(attest::missing(conn, &versions)?.into_iter().map(|what| format!("{what} is gone")));
    match log(conn) {
        Ok(found) => Ok((findings, Some(found))),
        Err(error @ Error::AuditIntegrity { .. }) => {
            findings.push(error.to_string());
            Ok((findings, None))
        }
        Err(error) => Err(error),
    }
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

/// SQLite, writers and waiters take whatever has such a name for theirs.
fn refuse_own_names(db: &Database, file: &Path, destination: &Path) -> Result<()> {
    let missing = |error| Error::unavailable(destination, error);
    let (Some(dir), Some(name)) = (destination.parent(), destination.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::input("backup", format!("{} names no file", destination.display())));
    };
    let dir = fs::canonicalize(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).map_err(missing)?;
    let is_own = |database: &Path| {
        let (Some(home), Some(own)) = (database.parent(), database.file_name().and_then(|own| own.to_str())) else {
            return false;
        };
        let Ok(home) = fs::canonicalize(home) else { return false };
        // Some file systems take upper and lower case for the same.
        let (name, own) = (name.to_lowercase(), own.to_lowercase());
        let beside = name.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        (dir == home && (beside || name == "bells")) || dir.starts_with(home.join("bells"))
    };
    let mounted = db.is_on_host() && file.parent().is_some_and(|home| dir.starts_with(home));
    if is_own(file) || is_own(db.path()) || mounted {
        let reason = format!("{} is a name of the database's own files; choose another one", destination.display());
        return Err(Error::input("backup", reason));
    }
    Ok(())
}

pub(crate) fn create_private(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::input("backup", format!("{} exists; choose another name", path.display())))
        }
        Err(error) => Err(Error::unavailable(path, error)),
    }
}

pub(crate) fn copy(from: &Connection, to: &Path) -> Result<u64> {
    let mut target =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    copy_pages(&Backup::new(from, &mut target)?, to)?;
    // A backup is one file: without this, opening it would leave a WAL beside it.
    target.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    fs::metadata(to).map(|data| data.len()).map_err(|error| Error::unavailable(to, error))
}

/// Copies all of it; waits for those who have one of the two files as any call waits. `file` is named if that takes too long.
pub(crate) fn copy_pages(backup: &Backup<'_, '_>, file: &Path) -> Result<()> {
    let _patience = patience::begin();
    loop {
        match backup.step(ALL_PAGES)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if patience::is_over() => return Err(Error::impatient(file)),
            _ => patience::sleep(NEXT_TRY),
        }
    }
}
