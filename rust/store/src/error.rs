//! Which errors can happen, what each says, which Python class and exit code it has, and what SQLite's codes mean.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::patience;

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Exhaustive on purpose: a new variant does not compile until it has a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation; the fields are what they interpolate
pub enum Error {
    #[error("{what} {reason}")]
    InvalidInput { what: &'static str, reason: String },
    #[error("{what} {reason}")]
    InvalidProposal { what: &'static str, reason: String },
    #[error("{prefix:?} is the beginning of several ids: {}; give more of it", .matches.join(", "))]
    Ambiguous { prefix: String, matches: Vec<String> },
    #[error("no {what} {id:?} here; check the id, or list what there is")]
    NotFound { what: &'static str, id: String },
    #[error("proposal {id} was already {status} by {by} through {surface} at {at}{}; a decision stands", if *.archived { " and archived" } else { "" })]
    AlreadyDecided { id: String, status: String, by: String, surface: String, at: String, archived: bool },
    #[error("proposal {id} expired at {expires_at} before a decision; ask the agent to propose it again")]
    Expired { id: String, expires_at: String },
    #[error("proposal {id} was withdrawn at {at}: {reason}")]
    Withdrawn { id: String, at: String, reason: String },
    #[error("proposal {id} has payload hash {actual}, not {expected} as reviewed; look at it again, then decide")]
    StalePayload { id: String, expected: String, actual: String },
    #[error(
        "proposal {id} is not what was reviewed: its review has the hash {actual}, not {expected}; look at it again, then decide"
    )]
    StaleReview { id: String, expected: String, actual: String },
    #[error(
        "{path} changed after proposal {id} was written against it and was left as it is; review the file as it is now and have the change proposed again"
    )]
    StaleFile { id: String, path: String, expected: Option<String>, actual: Option<String> },
    #[error("proposal {id} is still undecided after {seconds} s; it stays pending, wait again or withdraw it")]
    WaitTimeout { id: String, seconds: String },
    #[error("the query ran for longer than {seconds} s and was stopped; narrow it or give it more time")]
    QueryTimeout { seconds: String },
    #[error("no ring of the bell in {path} was heard within {seconds} s; waits rely on the one-second heartbeat")]
    BellTimeout { path: String, seconds: String },
    #[error("audit log: {reason}; keep the file as evidence and compare it with a backup")]
    AuditIntegrity { seq: Option<i64>, reason: String },
    #[error("{what} is not taken: {reason}; look for who wrote it, then have it made again")]
    Unverified { what: String, reason: String },
    #[error("the key in {path} cannot be used: {reason}")]
    Key { path: String, reason: String },
    #[error(
        "the database has {module} at version {found}, for programs that know version {compat} or later, and this one knows {supported}; upgrade it, or roll the database back with the release that wrote it"
    )]
    SchemaTooNew { module: String, found: i64, compat: i64, supported: i64 },
    #[error("migration of {module} to version {version} failed and was undone: {reason}")]
    MigrationFailed { module: String, version: i64, reason: String },
    #[error(
        "step {version} of {module} differs from the one that was applied to this database; a released migration is never edited, add a new one"
    )]
    MigrationEdited { module: String, version: i64 },
    #[error(
        "{path} is not a sound SQLite database ({reason}); keep it and restore a backup with `bot-bottle db restore`"
    )]
    Corrupt { path: String, reason: String },
    #[error(
        "{path} holds {reason}; to fix it, stop the containers that mount it and drop that with the sqlite3 program, or restore a backup with `bot-bottle db restore`"
    )]
    SchemaAltered { path: String, reason: String },
    #[error(
        "{path} is itself a mount point: its WAL would stay behind and writes be lost; mount its directory instead"
    )]
    FileMount { path: String, filesystem: String },
    #[error(
        "{path} lies on {filesystem}, which shares neither memory nor locks with the host's kernel: SQLite would corrupt it; use the host's broker from here"
    )]
    ForeignFilesystem { path: String, filesystem: String },
    #[error("{path} was held by another writer for longer than the busy timeout; nothing was written, try again")]
    Busy { path: String },
    #[error(
        "{path}, its WAL or the index of that was deleted, replaced or cut short while this process wrote: the write is not in the file others read; the connection has been reopened, try again"
    )]
    WriteLost { path: String },
    #[error("{path} cannot be used: {reason}")]
    Unavailable { path: String, reason: String },
    #[error(
        "proposal {id} is decided, but {path} is not in effect ({reason}); it is tried again when the inbox is next opened"
    )]
    ManagedFile { id: String, path: String, reason: String },
    #[error("{reason}")]
    AccessDenied { reason: String },
    #[error("the broker at {url} cannot be reached: {reason}; see that `bot-bottle serve` runs on the host")]
    Unreachable { url: String, reason: String },
    /// What the broker said, in its words; `data` has the attributes of the class.
    #[error("{message}")]
    Problem { class: &'static str, message: String, data: Box<serde_json::Map<String, serde_json::Value>> },
    #[error("the store was closed")]
    Closed,
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn input(what: &'static str, reason: impl Into<String>) -> Self {
        Error::InvalidInput { what, reason: reason.into() }
    }

    pub(crate) fn proposal(what: &'static str, reason: impl Into<String>) -> Self {
        Error::InvalidProposal { what, reason: reason.into() }
    }

    pub(crate) fn not_found(what: &'static str, id: &str) -> Self {
        Error::NotFound { what, id: id.to_owned() }
    }

    pub(crate) fn unavailable(path: &Path, reason: impl Reason) -> Self {
        Error::Unavailable { path: path.display().to_string(), reason: reason.words() }
    }

    /// What a call ends with that does not wait any longer for whoever has this file.
    pub(crate) fn impatient(path: &Path) -> Self {
        match patience::was_interrupted() {
            true => Error::Interrupted,
            false => Error::Busy { path: path.display().to_string() },
        }
    }

    pub(crate) fn key(path: &Path, reason: impl Into<String>) -> Self {
        Error::Key { path: path.display().to_string(), reason: reason.into() }
    }

    /// In a word why a row is not taken; `None` if that is not what went wrong.
    pub(crate) fn damage(&self) -> Option<String> {
        match self {
            Error::Unverified { what, reason } => Some(format!("{what}: {reason}")),
            Error::Key { .. } => Some(self.to_string()),
            _ => None,
        }
    }

    /// The Python class that carries it, in `bot_bottle.errors`.
    pub fn class(&self) -> &'static str {
        match self {
            Error::InvalidInput { .. } | Error::Ambiguous { .. } => "InvalidInputError",
            Error::InvalidProposal { .. } => "InvalidProposalError",
            Error::NotFound { .. } => "NotFoundError",
            Error::AlreadyDecided { .. } => "AlreadyDecidedError",
            Error::Expired { .. } => "ProposalExpiredError",
            Error::Withdrawn { .. } => "ProposalWithdrawnError",
            Error::StalePayload { .. } | Error::StaleReview { .. } | Error::StaleFile { .. } => "StaleReviewError",
            Error::WaitTimeout { .. } | Error::QueryTimeout { .. } | Error::BellTimeout { .. } => "WaitTimeoutError",
            Error::AuditIntegrity { .. } | Error::Unverified { .. } => "AuditIntegrityError",
            Error::Key { .. } => "KeyUnusableError",
            Error::SchemaTooNew { .. } => "SchemaTooNewError",
            Error::MigrationFailed { .. } | Error::MigrationEdited { .. } => "MigrationError",
            Error::Corrupt { .. } | Error::SchemaAltered { .. } => "DatabaseCorruptError",
            Error::FileMount { .. } | Error::ForeignFilesystem { .. } => "UnsafeMountError",
            Error::Busy { .. } => "DatabaseBusyError",
            Error::WriteLost { .. } => "WriteLostError",
            Error::Unavailable { .. } => "DatabaseUnavailableError",
            Error::ManagedFile { .. } => "ManagedFileError",
            Error::AccessDenied { .. } => "AccessDeniedError",
            Error::Unreachable { .. } => "DatabaseUnavailableError",
            Error::Problem { class, .. } => class,
            Error::Closed => "ClosedError",
            Error::Interrupted => "KeyboardInterrupt",
        }
    }

    /// The exit code of a program that ends with it; the same for helper and CLI.
    pub fn exit_code(&self) -> u8 {
        match self.class() {
            "InvalidInputError" | "InvalidProposalError" => 2,
            "NotFoundError" => 4,
            "AlreadyDecidedError" | "ProposalExpiredError" | "ProposalWithdrawnError" | "StaleReviewError" => 5,
            "WaitTimeoutError" => 6,
            "AuditIntegrityError" => 7,
            "SchemaTooNewError" | "MigrationError" | "DatabaseCorruptError" | "UnsafeMountError" => 8,
            "DatabaseBusyError" | "WriteLostError" => 9,
            "AccessDeniedError" => 10,
            "KeyboardInterrupt" => 130,
            _ => 1,
        }
    }

    /// Whether nothing was done and the same once more may work.
    pub(crate) fn is_safe_to_retry(&self) -> bool {
        self.exit_code() == 9
    }

    /// Fills in which file an SQLite error was about; the conversion from rusqlite cannot know it.
    pub(crate) fn at(mut self, file: &Path) -> Self {
        if let Error::Corrupt { path, .. }
        | Error::SchemaAltered { path, .. }
        | Error::Busy { path }
        | Error::Unavailable { path, .. } = &mut self
            && path.is_empty()
        {
            *path = file.display().to_string();
        }
        self
    }
}

/// Why something did not work, in words that say what to do about it.
pub(crate) trait Reason {
    fn words(&self) -> String;
}

impl Reason for std::io::Error {
    fn words(&self) -> String {
        self.raw_os_error().and_then(exhausted).unwrap_or_else(|| self.to_string())
    }
}

impl Reason for rustix::io::Errno {
    fn words(&self) -> String {
        std::io::Error::from(*self).words()
    }
}

impl Reason for str {
    fn words(&self) -> String {
        self.to_owned()
    }
}

impl Reason for String {
    fn words(&self) -> String {
        self.clone()
    }
}

impl<T: Reason + ?Sized> Reason for &T {
    fn words(&self) -> String {
        (**self).words()
    }
}

/// What a failed system call says of the files that may be open, if that is it.
fn exhausted(code: i32) -> Option<String> {
    use rustix::io::Errno;
    use rustix::process::{Resource, getrlimit};
    if code == Errno::NFILE.raw_os_error() {
        return Some("the whole system has no open file left (ENFILE); see who has them, or raise fs.file-max".into());
    }
    let limit = getrlimit(Resource::Nofile).current.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    (code == Errno::MFILE.raw_os_error()).then(|| {
        format!("this process has as many files open as it may (EMFILE, its limit is {limit}); close some, or raise it with `ulimit -n`")
    })
}

/// The same where SQLite only says that it could not open something: whether another file could be opened now.
fn exhausted_now() -> Option<String> {
    std::fs::File::open("/").err().and_then(|error| exhausted(error.raw_os_error()?))
}

/// The classes a broker's problem may name; of a later release's others only the base is known here.
const BROKER_CLASSES: [&str; 20] = [
    "InvalidInputError",
    "InvalidProposalError",
    "NotFoundError",
    "AlreadyDecidedError",
    "ProposalExpiredError",
    "ProposalWithdrawnError",
    "StaleReviewError",
    "WaitTimeoutError",
    "AuditIntegrityError",
    "SchemaTooNewError",
    "MigrationError",
    "DatabaseCorruptError",
    "UnsafeMountError",
    "DatabaseBusyError",
    "WriteLostError",
    "AccessDeniedError",
    "DatabaseUnavailableError",
    "ManagedFileError",
    "KeyUnusableError",
    "ClosedError",
];

pub(crate) fn broker_class(title: &str) -> &'static str {
    BROKER_CLASSES.into_iter().find(|class| *class == title).unwrap_or("BotBottleError")
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let path = String::new();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Error::Corrupt { path, reason: error.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::impatient(Path::new("")),
            Some(ErrorCode::OperationInterrupted) => Error::Interrupted,
            Some(ErrorCode::ReadOnly) => {
                Error::Unavailable { path, reason: "it, or its directory, is not writable".to_owned() }
            }
            Some(ErrorCode::CannotOpen) => {
                let reason = "it or its WAL cannot be opened for writing, which readers need too; \
                              is its directory mounted read-only, or another user's?";
                Error::Unavailable { path, reason: exhausted_now().unwrap_or_else(|| reason.to_owned()) }
            }
            Some(ErrorCode::DiskFull) => {
                Error::Unavailable { path, reason: "no space left on the device; free some and try again".to_owned() }
            }
            _ => Error::Unavailable { path, reason: error.to_string() },
        }
    }
}
