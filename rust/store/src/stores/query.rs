//! What may other programs read and build on the file? Any read-only SQL; tables of their own, with their own migrations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Statement};
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result};
use crate::file::attest;
use crate::file::connection::Opened;
use crate::file::database::Database;
use crate::file::migrations::{self, MODULES, Step};
use crate::file::shared::{INHERITED, Shared};
use crate::file::turn::{Turn, Turns};
use crate::patience;

/// Pragmas whose argument asks, not sets.
const ASKING_PRAGMAS: [&str; 11] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "function_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check", // which SQLite itself asks after ALTER TABLE … ADD COLUMN on a STRICT table
];

/// Pragmas that do something without an argument.
const ACTING_PRAGMAS: [&str; 3] = ["wal_checkpoint", "incremental_vacuum", "optimize"];

/// Values for a statement's parameters.
pub enum Params {
    /// For `?1`, `?2`, ….
    Positional(Vec<Value>),
    /// For `:name`, `@name`, `$name`; the name with or without its sign.
    Named(Vec<(String, Value)>),
}

/// Column names and values of one row, in order.
pub type Row = Vec<(String, Value)>;

fn refused(error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message)
            if matches!(
                code.code,
                rusqlite::ErrorCode::Unknown
                    | rusqlite::ErrorCode::AuthorizationForStatementDenied
                    | rusqlite::ErrorCode::ConstraintViolation
                    | rusqlite::ErrorCode::ReadOnly
                    | rusqlite::ErrorCode::TypeMismatch
            ) =>
        {
            Error::input("sql", format!("was refused: {}", message.unwrap_or_else(|| code.to_string())))
        }
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            Error::input("sql", format!("does not compile at character {offset} ({msg}): {sql}"))
        }
        rusqlite::Error::Empty => Error::input("sql", "is empty"),
        rusqlite::Error::MultipleStatement => Error::input("sql", "has several statements; give one"),
        rusqlite::Error::InvalidParameterCount(given, wanted) => {
            Error::input("params", format!("has {given} values, the statement has {wanted} parameters"))
        }
        other => Error::from(other),
    }
}

fn run(conn: &Connection, sql: &str, params: &Params, readonly: bool) -> Result<Vec<Row>> {
    let mut statement = conn.prepare(sql).map_err(refused)?;
    if readonly && !statement.readonly() {
        return Err(Error::input("sql", "writes; query only reads"));
    }
    bind(&mut statement, params)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(Error::input("sql", format!("returns two columns named {twice:?}; rename one of them with AS")));
    }
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(refused)? {
        let mut values = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            // Whoever can write the file can write there what is no text, and one row must not end an answer.
            let value = match row.get_ref(index).map_err(refused)? {
                ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                other => other.try_into().map_err(|_| Error::input("sql", "returns what cannot be read"))?,
            };
            values.push((name.clone(), value));
        }
        found.push(values);
    }
    Ok(found)
}

fn bind(statement: &mut Statement<'_>, params: &Params) -> Result<()> {
    match params {
        Params::Positional(values) => {
            if values.len() != statement.parameter_count() {
                return Err(refused(rusqlite::Error::InvalidParameterCount(values.len(), statement.parameter_count())));
            }
            for (index, value) in values.iter().enumerate() {
                statement.raw_bind_parameter(index + 1, value).map_err(refused)?;
            }
        }
        Params::Named(values) => {
            let mut bound = 0;
            for (name, value) in values {
                let mut index = None;
                for sign in ["", ":", "@", "$"] {
                    if index.is_none() {
                        index = statement.parameter_index(&format!("{sign}{name}")).map_err(refused)?;
                    }
                }
                let index =
                    index.ok_or_else(|| Error::input("params", format!("names {name:?}, the statement does not")))?;
                statement.raw_bind_parameter(index, value).map_err(refused)?;
                bound += 1;
            }
            if bound != statement.parameter_count() {
                return Err(refused(rusqlite::Error::InvalidParameterCount(bound, statement.parameter_count())));
            }
        }
    }
    Ok(())
}

/// Leaves of a statement nothing but reading.
fn only_reading(context: &AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Pragma { pragma_name, pragma_value } if asks(pragma_name, pragma_value) => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

fn asks(pragma: &str, value: Option<&str>) -> bool {
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(pragma));
    is_one_of(&ASKING_PRAGMAS) || (value.is_none() && !is_one_of(&ACTING_PRAGMAS))
}

/// Leaves other programs their own tables, and nothing that outlives or escapes their transaction.
fn only_own_tables(context: &AuthContext<'_>) -> Authorization {
    let own = |table: &str| attest::own_tables().contains(&table.to_ascii_lowercase());
    let denied = match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } | AuthAction::Transaction { .. } => true,
        AuthAction::Pragma { pragma_name, pragma_value } => !asks(pragma_name, pragma_value),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::DropTrigger { table_name, .. }
        | AuthAction::CreateTempTrigger { table_name, .. } => own(table_name),
        _ => false,
    };
    if denied { Authorization::Deny } else { Authorization::Allow }
}

impl Database {
    /// One read-only statement over the whole file; SQLite's own authorizer refuses the rest.
    pub fn query(&self, sql: &str, params: &Params, limit: Duration) -> Result<Vec<Row>> {
        let _patience = patience::begin();
        let Some(mut opened) = self.shared()?.open(false)? else { return Ok(Vec::new()) };
        let deadline = Instant::now().checked_add(limit);
        // It is asked every 1,000 steps of SQLite's machine, some 10 µs.
        opened.conn.progress_handler(
            1000,
            Some(move || patience::is_interrupted() || deadline.is_some_and(|at| Instant::now() >= at)),
        )?;
        opened.conn.authorizer(Some(|context: AuthContext<'_>| only_reading(&context)))?;
        let found = run(&opened.conn, sql, params, true).map_err(|error| match error {
            Error::Interrupted if !patience::was_interrupted() => {
                Error::QueryTimeout { seconds: limit.as_secs_f64().to_string() }
            }
            error => error.at(&opened.file),
        });
        opened.check_whole()?;
        found
    }

    /// Brings another program's module to the version its steps make. Copies of that program that know the module up to
    /// version `compat` may go on using the file; `None` is only those that know all steps.
    pub fn migrate(&self, module: &str, steps: &[Step], compat: Option<i64>) -> Result<i64> {
        crate::rules::check_name("module", &module.replace('_', "-"))?;
        if MODULES.iter().any(|known| known.name == module) {
            return Err(Error::input("module", format!("{module} is bot-bottle's own; choose another name")));
        }
        let _patience = patience::begin();
        let compat = compat.unwrap_or(steps.len() as i64);
        if !(0..=steps.len() as i64).contains(&compat) {
            let reason = format!("must be from 0 to {}, the version that the steps make, not {compat}", steps.len());
            return Err(Error::input("compat", reason));
        }
        let mut opened = self.open_to_write()?;
        let _turn = opened.turns.as_ref().map(Turns::take).transpose()?;
        // On only while a step runs: the books of all modules are ours to keep.
        let guarded = Arc::new(AtomicBool::new(false));
        let guard = guarded.clone();
        opened.conn.authorizer(Some(move |context: AuthContext<'_>| {
            if guard.load(Ordering::Relaxed) { only_own_tables(&context) } else { Authorization::Allow }
        }))?;
        let version = migrations::migrate(&opened.conn, module, steps, compat, &guarded)
            .map_err(|error| error.at(&opened.file))?;
        opened.acknowledge()?;
        Ok(version)
    }

    /// A write transaction over other programs' tables.
    pub fn transaction(&self) -> Result<ForeignTransaction> {
        let _patience = patience::begin();
        let shared = self.shared()?;
        let opened = self.open_to_write()?;
        let turn = opened.turns.as_ref().map(Turns::take).transpose()?;
        opened.conn.execute_batch("BEGIN IMMEDIATE").map_err(|error| Error::from(error).at(&opened.file))?;
        ForeignTransaction::new(shared, opened, turn)
    }

    pub(crate) fn open_to_write(&self) -> Result<Opened> {
        let shared = self.shared()?;
        shared.refuse_inside_transaction()?;
        let opened = shared.open(true)?;
        opened.ok_or_else(|| Error::unavailable(self.path(), "it vanished while it was being created; try again"))
    }
}

/// Under way; dropped, it is rolled back. A forked child's copy does neither: the transaction is its parent's.
pub struct ForeignTransaction {
    pid: Pid,
    /// Taken out by the end only.
    opened: Option<Opened>,
    _turn: Option<Turn>,
    shared: Arc<Shared>,
}

impl Drop for ForeignTransaction {
    fn drop(&mut self) {
        if self.pid != getpid() {
            // Closing it would roll back in the parent's file, and let go of what is the parent's.
            std::mem::forget(self.opened.take());
            return;
        }
        self.shared.note_transaction(false);
    }
}

impl ForeignTransaction {
    fn new(shared: Arc<Shared>, mut opened: Opened, turn: Option<Turn>) -> Result<Self> {
        opened.conn.authorizer(Some(|context: AuthContext<'_>| only_own_tables(&context)))?;
        shared.note_transaction(true);
        Ok(ForeignTransaction { pid: getpid(), opened: Some(opened), _turn: turn, shared })
    }

    /// One statement; its rows.
    pub fn execute(&mut self, sql: &str, params: &Params) -> Result<Vec<Row>> {
        let _patience = patience::begin();
        let opened = self.opened()?;
        run(&opened.conn, sql, params, false).map_err(|error| error.at(&opened.file))
    }

    /// Commits, and makes sure that others read it.
    pub fn commit(mut self) -> Result<()> {
        let _patience = patience::begin();
        let opened = self.opened()?;
        opened.conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
        opened.check_whole()?;
        opened.conn.execute_batch("COMMIT").map_err(|error| Error::from(error).at(&opened.file))?;
        opened.acknowledge()
    }

    /// SQLite's locks are the process's: a forked child would write beside its parent with none.
    fn opened(&mut self) -> Result<&mut Opened> {
        let is_inherited = self.pid != getpid();
        let opened = self.opened.as_mut().ok_or(Error::Closed)?;
        if is_inherited { Err(Error::unavailable(&opened.file, INHERITED)) } else { Ok(opened) }
    }
}
