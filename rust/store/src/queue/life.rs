//! What may happen to a proposal: it arrives, expires, is found, left, withdrawn?

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::clock;
use crate::error::{Error, Result};
use crate::file::column::{Fields, get};
use crate::file::numbers;
use crate::file::transaction::Transaction;
use crate::queue::changes;
use crate::queue::proposal::{Asked, PENDING, Proposal, ProposalHead};
use crate::rules::MAX_PENDING_PER_BOTTLE;
use crate::state::{ChangeKind, State, Stored};

/// The row an id leads to, be it its own or an alias's, with what decides over its fate.
pub(crate) struct Found {
    pub seq: i64,
    pub id: String,
    pub queue_key: String,
    pub bottle_slug: String,
    pub tool: String,
    pub state: Stored<State>,
    pub alias: bool,
    pub archived_at: Option<String>,
}

/// What a proposal meets as it arrives, asked in one statement: as five they were a third of the write.
pub(crate) struct Arrival {
    /// The managed file of its bottle and tool, and its hash as the host last saw it.
    pub(crate) managed: Option<(String, String)>,
    /// The usual case: nothing has expired, its id is new, nothing pending has its payload, and there is room.
    pub(crate) clear: bool,
}

impl Arrival {
    pub(crate) fn of(proposal: &Proposal, tx: &Transaction<'_>, queue_key: &str, now: &str) -> Result<Self> {
        const ARRIVAL_SQL: &str = "SELECT m.path, m.known_sha256 AS known, NOT (
                 EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_pending WHERE state = 'pending'
                     AND queue_key = ?1 AND bottle_slug = ?2 AND tool = ?3 AND payload_sha256 = ?4)
                 OR EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_pending WHERE state = 'pending'
                     AND queue_key = ?1 LIMIT 1 OFFSET ?5)
                 OR EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_expiring WHERE state = 'pending'
                     AND queue_key = ?1 AND expires_at <= ?6)
                 OR EXISTS (SELECT 1 FROM proposals WHERE id = ?7)
                 OR EXISTS (SELECT 1 FROM aliases WHERE id = ?7)) AS clear
             FROM (SELECT 1) LEFT JOIN managed_files m ON m.bottle_slug = ?2 AND m.tool = ?3";
        let ProposalHead { bottle_slug, tool, payload_sha256, id, .. } = &proposal.head;
        let asked = (queue_key, bottle_slug, tool, payload_sha256, MAX_PENDING_PER_BOTTLE - 1, now, id);
        Ok(tx.prepare_cached(ARRIVAL_SQL)?.query_row(asked, |row| {
            let path: Option<String> = get(row, "path")?;
            let managed = path.map(|path| Ok::<_, rusqlite::Error>((path, get(row, "known")?))).transpose()?;
            Ok(Arrival { managed, clear: get(row, "clear")? })
        })?)
    }
}

/// Makes what has expired so for good: somebody is about to be told, or needs the place.
pub(crate) fn expire(tx: &Transaction<'_>, queue_key: &str, now: &str) -> Result<()> {
    const ANY_SQL: &str = "SELECT EXISTS (SELECT 1 FROM proposals INDEXED BY proposals_expiring
         WHERE state = 'pending' AND queue_key = :queue_key AND expires_at <= :now)";
    const EXPIRE_SQL: &str = "UPDATE proposals INDEXED BY proposals_expiring SET state = 'expired'
         WHERE state = 'pending' AND queue_key = :queue_key AND expires_at <= :now
         RETURNING id, bottle_slug, tool";
    // Asked first, as an update that returns rows makes a table for them even if there are none: a quarter of a write.
    let any: bool = tx
        .prepare_cached(ANY_SQL)?
        .query_row(named_params! {":queue_key": queue_key, ":now": now}, |row| get(row, 0))?;
    if !any {
        return Ok(());
    }
    let gone: Vec<(String, String, String)> = tx
        .prepare_cached(EXPIRE_SQL)?
        .query_map(named_params! {":queue_key": queue_key, ":now": now}, |row| {
            Ok((get(row, "id")?, get(row, "bottle_slug")?, get(row, "tool")?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, bottle_slug, tool) in gone {
        changes::record(tx, ChangeKind::Expired, &id, &bottle_slug, &tool)?;
    }
    Ok(())
}

/// What stands under this id already: the same once more is no error, something else is.
pub(crate) fn known_by_id(tx: &Transaction<'_>, queue_key: &str, proposal: &Proposal) -> Result<Option<Proposal>> {
    let Some(found) = find(tx, &proposal.id)? else { return Ok(None) };
    let known = tx
        .prepare_cached(&format!("SELECT {} FROM proposals p WHERE p.seq = ?1", Proposal::COLUMNS))?
        .query_row([found.seq], |row| Proposal::from_row(&Fields::of(row)))?;
    // The times may differ: a broker writes its own, at each try.
    let same = found.queue_key == queue_key
        && known.revises == proposal.revises
        && known.asks_the_same(proposal)
        && (found.alias || known.justification == proposal.justification);
    if same {
        return Ok(Some(known));
    }
    Err(Error::proposal("id", format!("{} was used for another proposal; Proposal.new makes a fresh one", proposal.id)))
}

/// One written against another file is none: it could not be approved any more, and this one may. Nor is one about
/// something else: its approval would be heard here, and be for a secret that the operator was not asked about.
/// When they expire makes no difference: each try has a time of its own, so none would ever find its twin.
pub(crate) fn pending_twin(
    tx: &Transaction<'_>,
    queue_key: &str,
    proposal: &Proposal,
    base: Option<&str>,
) -> Result<Option<(i64, Proposal)>> {
    let sql = format!(
        "SELECT {}, p.seq FROM {PENDING} AND p.queue_key = :queue_key
         AND p.bottle_slug = :bottle_slug AND p.tool = :tool AND p.payload_sha256 = :payload_sha256
         AND ifnull(p.base_sha256, 'unknown') = ifnull(:base, 'unknown')
         AND ifnull(p.fingerprint, '') = :fingerprint",
        Proposal::COLUMNS
    );
    Ok(tx
        .prepare_cached(&sql)?
        .query_row(
            named_params! {
                ":queue_key": queue_key,
                ":bottle_slug": proposal.bottle_slug,
                ":tool": proposal.tool,
                ":payload_sha256": proposal.payload_sha256,
                ":base": base,
                ":fingerprint": proposal.about(),
            },
            |row| Ok((get(row, "seq")?, Proposal::from_row(&Fields::of(row))?)),
        )
        .optional()?)
}

pub(crate) fn add_alias(tx: &Transaction<'_>, seq: i64, proposal: &Proposal) -> Result<()> {
    const ADD_ALIAS_SQL: &str = "INSERT INTO aliases (id, proposal_seq, justification, arrival_timestamp)
         VALUES (:id, :seq, :justification, :arrival_timestamp)";
    // Each holds a justification of up to 16 KiB: identical requests are capped like different ones.
    let count: i64 = tx
        .prepare_cached("SELECT count(*) FROM aliases WHERE proposal_seq = ?1")?
        .query_row([seq], |row| get(row, 0))?;
    if count >= MAX_PENDING_PER_BOTTLE {
        return Err(Error::proposal(
            "queue",
            format!("has this very proposal {count} times already; wait for its answer under an id you have"),
        ));
    }
    tx.prepare_cached(ADD_ALIAS_SQL)?.execute(named_params! {
        ":id": proposal.id,
        ":seq": seq,
        ":justification": proposal.justification,
        ":arrival_timestamp": proposal.arrival_timestamp,
    })?;
    Ok(())
}

pub(crate) fn check_cap(tx: &Transaction<'_>, queue_key: &str) -> Result<()> {
    let sql = format!("SELECT count(*) FROM {PENDING} AND p.queue_key = :queue_key");
    let pending: i64 =
        tx.prepare_cached(&sql)?.query_row(named_params! {":queue_key": queue_key}, |row| get(row, 0))?;
    if pending < MAX_PENDING_PER_BOTTLE {
        return Ok(());
    }
    Err(Error::proposal(
        "queue",
        format!(
            "{queue_key} has {pending} proposals pending, the most there may be; have some decided or withdraw them"
        ),
    ))
}

pub(crate) fn insert(
    tx: &Transaction<'_>,
    queue_key: &str,
    proposal: &Proposal,
    base: Option<&str>,
    revision: i64,
) -> Result<()> {
    static INSERT_SQL: LazyLock<String> = LazyLock::new(|| {
        let next = numbers::next("proposals");
        format!(
            "INSERT INTO proposals (seq, id, queue_key, bottle_slug, tool, payload_sha256, justification,
                 arrival_timestamp, current_file_hash, base_sha256, expires_at, fingerprint, proposed_file, revises, revision)
             VALUES ({next}, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        )
    });
    tx.prepare_cached(&INSERT_SQL)?.execute((
        &proposal.id,
        queue_key,
        &proposal.bottle_slug,
        &proposal.tool,
        &proposal.payload_sha256,
        &proposal.justification,
        &proposal.arrival_timestamp,
        &proposal.current_file_hash,
        base,
        &proposal.expires_at,
        &proposal.fingerprint,
        &proposal.proposed_file,
        &proposal.revises,
        revision,
    ))?;
    Ok(())
}

/// The row this id leads to, in any queue.
pub(crate) fn find(conn: &Connection, id: &str) -> Result<Option<Found>> {
    const FIND_SQL: &str = "SELECT p.seq, p.id, p.queue_key, p.bottle_slug, p.tool, p.state, a.id IS NOT NULL AS alias,
             p.archived_at
         FROM (SELECT :id AS id) asked
         LEFT JOIN aliases a ON a.id = asked.id
         JOIN proposals p ON p.seq = coalesce(a.proposal_seq, (SELECT seq FROM proposals WHERE id = asked.id))";
    Ok(conn
        .prepare_cached(FIND_SQL)?
        .query_row(named_params! {":id": id}, |row| {
            Ok(Found {
                seq: get(row, "seq")?,
                id: get(row, "id")?,
                queue_key: get(row, "queue_key")?,
                bottle_slug: get(row, "bottle_slug")?,
                tool: get(row, "tool")?,
                state: get(row, "state")?,
                alias: get(row, "alias")?,
                archived_at: get(row, "archived_at")?,
            })
        })
        .optional()?)
}

pub(crate) fn find_in_queue(tx: &Transaction<'_>, queue_key: &str, id: &str) -> Result<Found> {
    find(tx, id)?.filter(|found| found.queue_key == queue_key).ok_or_else(|| Error::not_found("proposal", id))
}

pub(crate) fn leave(tx: &Transaction<'_>, found: &Found, id: &str) -> Result<()> {
    let sql = if found.alias {
        "UPDATE aliases SET withdrawn_at = :now WHERE id = :id AND withdrawn_at IS NULL"
    } else {
        "UPDATE proposals SET requester_left_at = :now WHERE id = :id AND requester_left_at IS NULL"
    };
    tx.prepare_cached(sql)?.execute(named_params! {":id": id, ":now": clock::now()})?;
    Ok(())
}

pub(crate) fn others_ask(tx: &Transaction<'_>, found: &Found) -> Result<bool> {
    const OTHERS_SQL: &str = "SELECT (SELECT requester_left_at IS NULL FROM proposals WHERE seq = :seq)
             OR EXISTS (SELECT 1 FROM aliases WHERE proposal_seq = :seq AND withdrawn_at IS NULL)";
    Ok(tx.prepare_cached(OTHERS_SQL)?.query_row(named_params! {":seq": found.seq}, |row| get(row, 0))?)
}

pub(crate) fn withdraw(tx: &Transaction<'_>, found: &Found, reason: &str) -> Result<()> {
    const WITHDRAW_SQL: &str =
        "UPDATE proposals SET state = 'withdrawn', withdrawn_at = :now, withdrawn_reason = :reason
         WHERE seq = :seq AND state = 'pending'";
    tx.prepare_cached(WITHDRAW_SQL)?
        .execute(named_params! {":seq": found.seq, ":now": clock::now(), ":reason": reason})?;
    changes::record(tx, ChangeKind::Withdrawn, &found.id, &found.bottle_slug, &found.tool)
}
