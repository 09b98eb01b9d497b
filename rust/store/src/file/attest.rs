//! Is the schema in the file the one that releases of this crate make?
//!
//! Whoever shares the file can put triggers on its tables or a view in the place of one, which would act inside the
//! host's own writes long after their mount is gone. So what stands in the file under our names, or upon our tables, is
//! held against the statements of our own migrations; what other modules have beside it is theirs.
//!
//! SQLite keeps the text of a statement as it was written, so the migrations need not be run for that, which would cost
//! every start of a program three milliseconds. A test runs them and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::error::{Error, Result};
use crate::file::migrations::{self, Found, MODULES, Module};

/// As many as a message names.
const MOST_NAMED: usize = 3;

/// Type and name in small letters, as SQLite compares names without case.
type Key = (String, String);

/// The table in small letters, and the statement.
type Made = (String, String);

// Without a statement are only the indexes that constraints make.
const OBJECTS_SQL: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL";

/// What a use of the file relies on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// That a table is the table it says.
    Reading,
    /// Also that a write does no more than it says.
    Writing,
}

/// Refuses a schema that has something of somebody else's in the place of ours, or upon it. It costs a read of the schema.
pub(crate) fn check(conn: &Connection, found: &[Found], purpose: For) -> Result<()> {
    let mut findings = planted(conn, found)?;
    if purpose == For::Reading {
        findings.retain(|(kind, _)| matches!(kind.as_str(), "table" | "view"));
    }
    if findings.is_empty() {
        return Ok(());
    }
    let mut reason = findings.iter().take(MOST_NAMED).map(|(_, what)| what.as_str()).collect::<Vec<_>>().join(", ");
    if findings.len() > MOST_NAMED {
        reason.push_str(&format!(" and {} more", findings.len() - MOST_NAMED));
    }
    Err(Error::SchemaAltered { path: String::new(), reason })
}

/// Type and description of what is there under our names, or upon our tables, and is not ours.
pub(crate) fn planted(conn: &Connection, found: &[Found]) -> Result<Vec<(String, String)>> {
    let expected = expected(found);
    let names: BTreeSet<&str> = expected.keys().map(|(_, name)| name.as_str()).collect();
    // A later release that lets this one go on has added tables, columns and indexes, which only it knows, but no more.
    let later = |at: &Found| MODULES.iter().any(|module| at.module == module.name && at.version > module.version());
    let later = found.iter().any(later);

    let mut findings = Vec::new();
    for (key, made) in objects(conn)? {
        let concerns_us = names.contains(key.1.as_str()) || names.contains(made.0.as_str());
        let is_ours = expected.get(&key) == Some(&made);
        let may_be_later = later && (key.0 == "index" || key.0 == "table" && expected.contains_key(&key));
        if concerns_us && !is_ours && !may_be_later {
            let (kind, name) = key;
            let what = match kind.as_str() {
                "table" | "view" => format!("a {kind} {} that is not ours", shown(&name)),
                _ => format!("the {kind} {} on {}, which is not ours", shown(&name), shown(&made.0)),
            };
            findings.push((kind, what));
        }
    }
    findings.sort_by_key(|(kind, _)| !matches!(kind.as_str(), "table" | "view")); // what lies deepest is named first
    Ok(findings)
}

/// What is not there though it should be, such as a trigger that keeps the log from being changed.
pub(crate) fn missing(conn: &Connection, found: &[Found]) -> Result<Vec<String>> {
    let (there, expected) = (objects(conn)?, expected(found));
    Ok(expected
        .keys()
        .filter(|key| !there.contains_key(*key))
        .map(|(kind, name)| format!("the {kind} {name}"))
        .collect())
}

/// What this release has made of a file whose modules are at these versions.
fn expected(found: &[Found]) -> BTreeMap<Key, Made> {
    let at = |module: &Module| found.iter().find(|at| at.module == module.name).map_or(0, |at| at.version);
    migrations::applied(at, !found.is_empty()).flat_map(statements).collect()
}

/// The tables that only this crate writes, in small letters.
pub(crate) fn own_tables() -> &'static BTreeSet<String> {
    static OWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let made = migrations::applied(Module::version, true).flat_map(statements);
        made.filter(|((kind, _), _)| kind == "table").map(|((_, name), _)| name).collect()
    });
    &OWN
}

/// What the statements of a step make. Each begins a line; a trigger ends with a line of its own.
fn statements(step: &'static str) -> Vec<(Key, Made)> {
    let mut lines = step.lines();
    let mut all = Vec::new();
    while let Some(first) = lines.by_ref().find(|line| line.starts_with("CREATE ")) {
        let is_trigger = first.starts_with("CREATE TRIGGER ");
        let mut text = String::new();
        for line in std::iter::once(first).chain(lines.by_ref()) {
            let code = line.split("--").next().unwrap_or_default();
            let end = if is_trigger { code.strip_suffix("END;").map(|rest| rest.len() + 3) } else { code.find(';') };
            text.push_str(&line[..end.unwrap_or(line.len())]);
            if end.is_some() {
                break;
            }
            text.push('\n');
        }
        let text = text.replacen("IF NOT EXISTS ", "", 1); // SQLite leaves that out
        let mut words = text.split(|c: char| c.is_whitespace() || c == '(').filter(|word| *word != "UNIQUE").skip(1);
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let table =
            if kind == "TABLE" { name } else { words.find(|word| *word == "ON").and(words.next()).unwrap_or_default() };
        all.push(((kind.to_ascii_lowercase(), name.to_owned()), (table.to_owned(), text)));
    }
    all
}

fn objects(conn: &Connection) -> Result<BTreeMap<Key, Made>> {
    let mut statement = conn.prepare(OBJECTS_SQL)?;
    let mut rows = statement.query([])?;
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // Whatever is in there: these columns of a file that somebody wrote by hand may be no text.
        let text = |column: &str| -> Result<Option<String>> {
            let value = row.get_ref(column)?;
            Ok(if let ValueRef::Text(text) = value { Some(String::from_utf8_lossy(text).into_owned()) } else { None })
        };
        let small = |column: &str| text(column).map(|text| text.unwrap_or_default().to_ascii_lowercase());
        all.insert((small("type")?, small("name")?), (small("tbl_name")?, text("sql")?.unwrap_or_default()));
    }
    Ok(all)
}

/// A name somebody else chose.
fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statements_of_our_migrations_are_what_sqlite_keeps_of_them() {
        let at = |version: i64| move |_: &Module| version;
        for (version, books) in [(i64::MAX, true), (0, true), (0, false)] {
            let fresh = Connection::open_in_memory().unwrap();
            migrations::applied(at(version), books).for_each(|step| fresh.execute_batch(step).unwrap());
            let read: BTreeMap<_, _> = migrations::applied(at(version), books).flat_map(statements).collect();
            assert_eq!(read, objects(&fresh).unwrap());
        }
        let all = migrations::applied(at(i64::MAX), true).flat_map(statements);
        assert!(all.count() > 20);
    }
}
