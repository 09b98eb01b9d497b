//! What does an approval still allow?

use std::fmt;
use std::time::Duration;

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};

use crate::audit::entry::{self as audit, AuditEntry, AuditFields};
use crate::clock;
use crate::error::{Error, Result};
use crate::file::column::get;
use crate::file::transaction::Transaction;
use crate::rules::{check_time, new_id};
use crate::state::{GrantScope, Stored, Surface, Vocabulary};
use crate::statement::{GrantStatement, Keyring, Keys, Signature, Signer};

/// Leave to do a thing again without asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(missing_docs)] // named and explained in the Python stub and the schema
pub struct Grant {
    pub id: String,
    pub bottle_slug: String,
    pub tool: String,
    pub fingerprint: String,
    pub scope: Stored<GrantScope>,
    /// As it was given; `uses_left` is what is left of it.
    #[serde(default)]
    pub uses: Option<i64>,
    pub uses_left: Option<i64>,
    pub expires_at: Option<String>,
    pub proposal_id: Option<String>,
    pub created_at: String,
    pub created_by: String,
    pub last_used_at: Option<String>,
    pub revoked_at: Option<String>,
    pub revoked_by: Option<String>,
    pub live: bool,
    #[serde(default)]
    pub key_id: String,
    #[serde(default)]
    pub signature: String,
    /// Why it allows nothing: the row is not as it was signed.
    #[serde(default)]
    pub damaged: Option<String>,
}

impl Grant {
    /// Whether one of these keys gave it, and it has not more left than was given.
    pub(crate) fn verify(&self, keyring: &Keyring) -> Result<()> {
        let statement = GrantStatement {
            id: &self.id,
            bottle_slug: &self.bottle_slug,
            tool: &self.tool,
            fingerprint: &self.fingerprint,
            scope: self.scope.as_str(),
            uses: self.uses,
            expires_at: self.expires_at.as_deref(),
            proposal_id: self.proposal_id.as_deref(),
            created_at: &self.created_at,
            created_by: &self.created_by,
        };
        let signature = Signature { key_id: self.key_id.clone(), signature: self.signature.clone() };
        keyring.verify(&statement, &signature)?.check_name(&statement, &self.created_by)?;
        let counts = match (self.uses, self.uses_left) {
            (Some(given), Some(left)) => (0..=given).contains(&left),
            (given, left) => given == left,
        };
        if counts {
            return Ok(());
        }
        Err(Error::Unverified { what: format!("grant {}", self.id), reason: "more is left than was given".to_owned() })
    }
}

pub(crate) const COLUMNS: &str = "id, bottle_slug, tool, fingerprint, scope, uses_left, expires_at, proposal_id, created_at, \
     created_by, last_used_at, revoked_at, revoked_by, uses, key_id, signature";

pub(crate) const LIVE: &str =
    "revoked_at IS NULL AND (uses_left IS NULL OR uses_left > 0) AND (expires_at IS NULL OR expires_at > :now)";

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: get(row, "id")?,
        bottle_slug: get(row, "bottle_slug")?,
        tool: get(row, "tool")?,
        fingerprint: get(row, "fingerprint")?,
        scope: get(row, "scope")?,
        uses_left: get(row, "uses_left")?,
        expires_at: get(row, "expires_at")?,
        proposal_id: get(row, "proposal_id")?,
        created_at: get(row, "created_at")?,
        created_by: get(row, "created_by")?,
        last_used_at: get(row, "last_used_at")?,
        revoked_at: get(row, "revoked_at")?,
        revoked_by: get(row, "revoked_by")?,
        uses: get(row, "uses")?,
        key_id: get(row, "key_id")?,
        signature: get(row, "signature")?,
        live: get(row, "live")?,
        damaged: None,
    })
}

/// The bottles and reasons of the grants that allow nothing, as they are not as they were signed.
pub(crate) fn damaged(conn: &Connection, keys: &Keys) -> Result<Vec<(String, String)>> {
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS}, {LIVE} AS live FROM grants ORDER BY id"))?;
    let mut rows = statement.query(named_params! {":now": clock::now()})?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        let grant = from_row(row)?;
        let verified = keys.keyring().and_then(|keyring| grant.verify(&keyring));
        if let Err(error) = verified {
            let reason = error.damage().ok_or(error)?;
            damaged.push((grant.bottle_slug, reason));
        }
    }
    Ok(damaged)
}

/// For how long an approval holds, and for what.
pub(crate) struct Scope {
    pub(crate) reach: Reach,
    name: GrantScope,
    uses: Option<i64>,
    expires_at: Option<String>,
}

/// What an approval is for beside the request itself.
pub(crate) enum Reach {
    /// The same again.
    This,
    /// All of the proposal's kind.
    Kind,
    /// Commands that begin with these words.
    Prefix(String),
}

impl Scope {
    /// `once`, `uses:N`, `until:<RFC 3339>`, `for:<seconds>`, `bottle`; after `kind:` for all of the proposal's kind, and
    /// between `prefix:` and words for the commands that begin with these.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refused = || {
            let reason = format!(
                "must be once, uses:N, until:<RFC 3339>, for:<seconds> or bottle, alone, after kind: or between prefix: and \
                 a command's first words, not {text:?}"
            );
            Error::input("grant", reason)
        };
        let (reach, rest) = if let Some(rest) = text.strip_prefix("kind:") {
            (Reach::Kind, rest)
        } else if let Some(rest) = text.strip_prefix("prefix:") {
            let (rest, words) = rest.split_once(' ').filter(|(_, words)| !words.is_empty()).ok_or_else(refused)?;
            (Reach::Prefix(words.to_owned()), rest)
        } else {
            (Reach::This, text)
        };
        let scope = |name, uses, expires_at| Ok(Scope { reach, name, uses, expires_at });
        match rest.split_once(':') {
            None if rest == "once" => scope(GrantScope::Once, Some(1), None),
            None if rest == "bottle" => scope(GrantScope::Bottle, None, None),
            Some(("uses", count)) => match count.parse() {
                Ok(count @ 1..=1_000_000) => scope(GrantScope::Uses, Some(count), None),
                _ => Err(refused()),
            },
            Some(("until", at)) => {
                let at = check_time("grant", at)?;
                if at <= clock::now() {
                    return Err(Error::input("grant", format!("ends at {at}, which has passed")));
                }
                scope(GrantScope::Until, None, Some(at))
            }
            Some(("for", seconds)) => match seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                Some(span) if !span.is_zero() => scope(GrantScope::Until, None, Some(clock::after(span))),
                _ => Err(refused()),
            },
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uses, &self.expires_at) {
            (Some(uses), _) => write!(f, "{uses} use{}", if uses == 1 { "" } else { "s" }),
            (None, Some(at)) => write!(f, "until {at}"),
            (None, None) => write!(f, "for the life of the bottle"),
        }
    }
}

/// What is granted, by whom, and which approval it comes from.
pub(crate) struct Granted<'a> {
    pub(crate) bottle_slug: &'a str,
    pub(crate) tool: &'a str,
    pub(crate) fingerprint: &'a str,
    pub(crate) scope: &'a Scope,
    pub(crate) proposal_id: &'a str,
    pub(crate) by: &'a str,
    pub(crate) surface: Surface,
    pub(crate) now: &'a str,
}

/// What the audit log calls a grant's beginning, a use of it, and its end by a person.
pub(crate) const GIVEN: &str = "grant-given";
pub(crate) const USED: &str = "grant-used";
pub(crate) const REVOKED: &str = "grant-revoked";

/// With an audit entry of its own, in the decision's transaction.
pub(crate) fn create(tx: &Transaction<'_>, granted: &Granted<'_>, signer: &Signer) -> Result<()> {
    const CREATE_SQL: &str =
        "INSERT INTO grants (id, bottle_slug, tool, fingerprint, scope, uses, uses_left, expires_at,
             proposal_id, created_at, created_by, key_id, signature)
         VALUES (:id, :bottle_slug, :tool, :fingerprint, :scope, :uses, :uses, :expires_at, :proposal_id, :now, :by,
             :key_id, :signature)";
    let id = new_id();
    let Signature { key_id, signature } = signer.sign(&GrantStatement {
        id: &id,
        bottle_slug: granted.bottle_slug,
        tool: granted.tool,
        fingerprint: granted.fingerprint,
        scope: granted.scope.name.as_str(),
        uses: granted.scope.uses,
        expires_at: granted.scope.expires_at.as_deref(),
        proposal_id: Some(granted.proposal_id),
        created_at: granted.now,
        created_by: granted.by,
    });
    tx.prepare_cached(CREATE_SQL)?.execute(named_params! {
        ":id": id,
        ":bottle_slug": granted.bottle_slug,
        ":tool": granted.tool,
        ":fingerprint": granted.fingerprint,
        ":scope": granted.scope.name,
        ":uses": granted.scope.uses,
        ":expires_at": granted.scope.expires_at,
        ":proposal_id": granted.proposal_id,
        ":now": granted.now,
        ":by": granted.by,
        ":key_id": key_id,
        ":signature": signature,
    })?;
    let notes = format!("grant {id}: {}", granted.scope);
    let entry = AuditEntry::from(AuditFields {
        timestamp: granted.now,
        bottle_slug: granted.bottle_slug,
        component: granted.tool,
        operator_action: GIVEN,
        operator_notes: &notes,
        decided_by: granted.by,
        surface: granted.surface.as_str(),
        proposal_id: Some(granted.proposal_id),
        ..AuditFields::default()
    });
    audit::append(tx, &entry).map(|_| ())
}

/// Ends the grants that were for a bottle's life.
pub(crate) fn end_with_bottle(tx: &Transaction<'_>, slug: &str) -> Result<()> {
    const END_SQL: &str = "UPDATE grants SET revoked_at = :now, revoked_by = 'bottle stopped'
         WHERE bottle_slug = :slug AND scope = 'bottle' AND revoked_at IS NULL";
    tx.prepare_cached(END_SQL)?.execute(named_params! {":slug": slug, ":now": clock::now()})?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_or_refused() {
        for good in [
            "once",
            "bottle",
            "uses:3",
            "for:0.5",
            "until:9000-01-01T00:00:00Z",
            "kind:once",
            "kind:for:60",
            "prefix:for:60 git status",
        ] {
            assert!(Scope::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ever",
            "uses:0",
            "uses:-1",
            "uses:x",
            "for:0",
            "for:nan",
            "until:2001-01-01T00:00:00Z",
            "once:2",
            "kind:",
            "kind",
            "prefix:for:60",
            "prefix:for:60 ",
            "prefix:git status",
            "kind:prefix:for:60 git",
        ] {
            assert_eq!(Scope::parse(bad).err().map(|error| error.exit_code()), Some(2), "{bad}");
        }
    }
}
