//! How does the file get to this release's schema, and back?
//!
//! Per module an ordered list of up/down pairs. `schema_versions` says how far each module is, so modules that share the
//! file never clobber each other; `schema_steps` keeps the checksum of each applied step, so an edit after release is
//! noticed. The version is read inside the write transaction, and each step commits with its version.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, named_params};

use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Result};

/// One step of a module: how to reach its version, and how to go back.
#[derive(Debug, Clone)]
pub struct Step {
    /// SQL that brings the module to this version.
    pub up: String,
    /// SQL that takes it back.
    pub down: String,
}

/// A named list of steps; its length is its version.
pub(crate) struct Module {
    pub name: &'static str,
    steps: &'static [(&'static str, &'static str)],
}

macro_rules! step {
    ($path:literal) => {
        (
            include_str!(concat!("../../../../migrations/", $path, ".up.sql")),
            include_str!(concat!("../../../../migrations/", $path, ".down.sql")),
        )
    };
}

/// The modules of this release.
pub(crate) const MODULES: [Module; 4] = [
    Module { name: "queue_store", steps: &[step!("queue_store/0001_queue")] },
    Module { name: "audit_store", steps: &[step!("audit_store/0001_audit"), step!("audit_store/0002_filters")] },
    Module { name: "bottle_store", steps: &[step!("bottle_store/0001_bottles"), step!("bottle_store/0002_tokens")] },
    Module { name: "grant_store", steps: &[step!("grant_store/0001_grants")] },
];

impl Module {
    pub(crate) fn version(&self) -> i64 {
        self.steps.len() as i64
    }

    fn owned(&self) -> Vec<Step> {
        self.steps.iter().map(|(up, down)| Step { up: (*up).to_owned(), down: (*down).to_owned() }).collect()
    }
}

const BOOKS_SQL: &str = "
CREATE TABLE IF NOT EXISTS schema_versions (
  module     TEXT NOT NULL PRIMARY KEY,
  version    INTEGER NOT NULL CONSTRAINT version_is_not_negative CHECK (version >= 0),
  updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schema_steps (
  module     TEXT NOT NULL,
  version    INTEGER NOT NULL,
  checksum   TEXT NOT NULL,
  applied_at TEXT NOT NULL,
  PRIMARY KEY (module, version)
) STRICT, WITHOUT ROWID;";

const HAS_BOOKS_SQL: &str = "SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('schema_versions', 'schema_steps')";

const VERSIONS_SQL: &str = "SELECT module, version FROM schema_versions ORDER BY module";

/// How far each module in the file is; nothing for a file without books.
pub(crate) fn versions(conn: &Connection) -> Result<Vec<(String, i64)>> {
    if !conn.query_row(HAS_BOOKS_SQL, [], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let mut statement = conn.prepare_cached(VERSIONS_SQL)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// An error if a module is further than this release knows.
pub(crate) fn refuse_newer(found: &[(String, i64)]) -> Result<()> {
    for (module, found) in found {
        if let Some(known) = MODULES.iter().find(|known| known.name == module)
            && *found > known.version()
        {
            return Err(Error::SchemaTooNew { module: module.clone(), found: *found, supported: known.version() });
        }
    }
    Ok(())
}

/// Whether every module is as far as this release needs.
pub(crate) fn are_complete(found: &[(String, i64)]) -> bool {
    let current = |module: &Module| found.iter().any(|(name, found)| name == module.name && *found >= module.version());
    MODULES.iter().all(current)
}

/// Moves with every change of the schema, whoever makes it (sqlite.org/pragma.html#pragma_schema_version).
pub(crate) fn schema_version(conn: &Connection) -> Result<i64> {
    Ok(conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?)
}

/// Brings all modules of this release up to date. One that is there already costs a read.
pub(crate) fn migrate_all(conn: &Connection) -> Result<()> {
    for module in &MODULES {
        migrate(conn, module.name, &module.owned(), &AtomicBool::new(false))?;
    }
    Ok(())
}

/// Brings one module to the version its steps make. `running` is true while SQL of a step runs.
pub(crate) fn migrate(conn: &Connection, module: &str, steps: &[Step], running: &AtomicBool) -> Result<i64> {
    let target = steps.len() as i64;
    // Without a write lock first, as nearly every open finds nothing to do. What decides is read inside again.
    if conn.query_row(HAS_BOOKS_SQL, [], |row| row.get(0))? && examine(conn, module, steps)? == target {
        return Ok(target);
    }
    loop {
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        tx.execute_batch(BOOKS_SQL)?;
        let version = examine(&tx, module, steps)?;
        if version == target {
            tx.commit()?;
            return Ok(target);
        }
        let step = &steps[version as usize];
        running.store(true, Ordering::Relaxed);
        let applied = apply(&tx, module, version + 1, &step.up);
        running.store(false, Ordering::Relaxed);
        applied?;
        keep_books(&tx, module, version + 1, Some(&checksum(step)))?;
        tx.commit()?;
    }
}

/// Takes one module back to version `to`, step by step.
pub(crate) fn rollback(conn: &Connection, module: &str, to: i64) -> Result<()> {
    let known = MODULES.iter().find(|known| known.name == module).ok_or_else(|| Error::not_found("module", module))?;
    let steps = known.owned();
    loop {
        let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        let version = examine(&tx, module, &steps)?;
        if !(0..=version).contains(&to) {
            return Err(Error::input(
                "--to",
                format!("must be from 0 to {version}, the version {module} is at, not {to}"),
            ));
        }
        if version == to {
            tx.commit()?;
            return Ok(());
        }
        apply(&tx, module, version, &steps[version as usize - 1].down)?;
        keep_books(&tx, module, version - 1, None)?;
        tx.commit()?;
    }
}

/// The module's version, after a look at whether its steps are the ones that were applied.
fn examine(conn: &Connection, module: &str, steps: &[Step]) -> Result<i64> {
    let found: i64 = conn
        .prepare_cached("SELECT version FROM schema_versions WHERE module = ?1")?
        .query_row([module], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    if found < 0 {
        return Err(Error::Corrupt { path: String::new(), reason: format!("{module} is at version {found}") });
    }
    if found > steps.len() as i64 {
        return Err(Error::SchemaTooNew { module: module.to_owned(), found, supported: steps.len() as i64 });
    }
    let mut applied = conn.prepare_cached("SELECT version, checksum FROM schema_steps WHERE module = ?1")?;
    let mut rows = applied.query([module])?;
    while let Some(row) = rows.next()? {
        let (version, sum): (i64, String) = (row.get(0)?, row.get(1)?);
        if usize::try_from(version - 1).ok().and_then(|at| steps.get(at)).is_some_and(|step| checksum(step) != sum) {
            return Err(Error::MigrationEdited { module: module.to_owned(), version });
        }
    }
    Ok(found)
}

fn checksum(step: &Step) -> String {
    sha256_hex(format!("{}\0{}", step.up, step.down))
}

fn apply(tx: &Transaction<'_>, module: &str, version: i64, sql: &str) -> Result<()> {
    tx.execute_batch(sql).map_err(|error| match Error::from(error) {
        // The step itself is at fault; a busy or full disk says so as anywhere else.
        Error::Unavailable { reason, .. } => Error::MigrationFailed { module: module.to_owned(), version, reason },
        other => other,
    })?;
    if tx.is_autocommit() {
        let reason = "it ended the transaction it runs in".to_owned();
        return Err(Error::MigrationFailed { module: module.to_owned(), version, reason });
    }
    Ok(())
}

/// Records that `module` is at `version` now, and the checksum of a step that was applied.
fn keep_books(tx: &Transaction<'_>, module: &str, version: i64, checksum: Option<&str>) -> Result<()> {
    let now = clock::now();
    tx.execute(
        "INSERT INTO schema_versions (module, version, updated_at) VALUES (:module, :version, :now)
         ON CONFLICT (module) DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at",
        named_params! {":module": module, ":version": version, ":now": now},
    )?;
    tx.execute(
        "DELETE FROM schema_steps WHERE module = :module AND version > :version",
        named_params! {":module": module, ":version": version},
    )?;
    if let Some(checksum) = checksum {
        tx.execute(
            "INSERT OR REPLACE INTO schema_steps (module, version, checksum, applied_at) VALUES (:module, :version, :checksum, :now)",
            named_params! {":module": module, ":version": version, ":checksum": checksum, ":now": now},
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(up: &str, down: &str) -> Step {
        Step { up: up.to_owned(), down: down.to_owned() }
    }

    #[test]
    fn every_step_down_undoes_its_step_up() {
        let conn = Connection::open_in_memory().unwrap();
        let tables = |conn: &Connection| -> i64 {
            conn.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'schema_%' AND name NOT LIKE 'sqlite_%'",
                [],
                |row| row.get(0),
            )
            .unwrap()
        };
        migrate_all(&conn).unwrap();
        assert!(tables(&conn) > 0);
        for module in MODULES.iter().rev() {
            rollback(&conn, module.name, 0).unwrap();
        }
        assert_eq!(tables(&conn), 0);
        migrate_all(&conn).unwrap();
    }

    #[test]
    fn a_failed_step_leaves_the_one_before_it() {
        let conn = Connection::open_in_memory().unwrap();
        let steps = [
            step("CREATE TABLE a (x)", "DROP TABLE a"),
            step("CREATE TABLE b (x); CREATE TABLE a (x)", "DROP TABLE b"),
        ];
        let error = migrate(&conn, "mine", &steps, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, Error::MigrationFailed { version: 2, .. }), "{error}");
        assert_eq!(versions(&conn).unwrap(), [("mine".to_owned(), 1)]);
        assert!(conn.prepare("SELECT * FROM b").is_err());
    }

    #[test]
    fn a_step_that_commits_is_refused() {
        let conn = Connection::open_in_memory().unwrap();
        let error =
            migrate(&conn, "mine", &[step("CREATE TABLE a (x); COMMIT", "")], &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, Error::MigrationFailed { .. }), "{error}");
    }

    #[test]
    fn an_edited_step_and_a_newer_file_are_refused() {
        let conn = Connection::open_in_memory().unwrap();
        migrate(
            &conn,
            "mine",
            &[step("CREATE TABLE a (x)", "DROP TABLE a"), step("CREATE TABLE b (x)", "DROP TABLE b")],
            &AtomicBool::new(false),
        )
        .unwrap();
        let newer =
            migrate(&conn, "mine", &[step("CREATE TABLE a (x)", "DROP TABLE a")], &AtomicBool::new(false)).unwrap_err();
        assert_eq!(newer, Error::SchemaTooNew { module: "mine".to_owned(), found: 2, supported: 1 });
        let edited = migrate(&conn, "mine", &[step("CREATE TABLE a (y)", ""), step("", "")], &AtomicBool::new(false))
            .unwrap_err();
        assert_eq!(edited, Error::MigrationEdited { module: "mine".to_owned(), version: 1 });
    }
}
