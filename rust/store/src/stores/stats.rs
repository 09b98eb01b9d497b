//! How many are there of what, and how long do people take?
//!
//! None of it walks through the past: see `tallies`.

use std::collections::BTreeMap;

use rusqlite::{Connection, named_params};
use serde_json::{Value, json};

use crate::clock;
use crate::error::Result;
use crate::file::column::get;
use crate::file::numbers;
use crate::queue::proposal::PENDING;
use crate::state::{State, Vocabulary};

/// Of how many decisions, the newest, the times are told.
const MOST_TIMED: i64 = 100;

/// Bottle, tool, state, and how many.
type Tally = (String, String, String, i64);

pub(crate) fn of(conn: &Connection) -> Result<Value> {
    let now = clock::now();
    let tallies = tallies(conn, &now)?;
    let sums = |of: fn(&Tally) -> &str| {
        let mut sums = BTreeMap::<&str, i64>::new();
        for tally in &tallies {
            let sum = sums.entry(of(tally)).or_default();
            *sum = sum.saturating_add(tally.3); // somebody else may have written it
        }
        sums.retain(|_, sum| *sum > 0);
        sums.into_iter().map(|(name, sum)| (name.to_owned(), Value::from(sum))).collect::<Value>()
    };
    let times = times(conn)?;
    let quantile = |q: f64| times.get(((times.len() as f64 - 1.0) * q).round().max(0.0) as usize).copied();
    // The one row that has the least seq lends its time (sqlite.org/lang_select.html#bareagg).
    let pending = format!(
        "SELECT count(*) AS pending, ifnull(sum(p.waiting_until > :now), 0) AS waiting, min(p.seq),
             p.arrival_timestamp AS oldest
         FROM {PENDING} AND (p.expires_at IS NULL OR p.expires_at > :now)"
    );
    let (pending, waiting, oldest) = conn.prepare_cached(&pending)?.query_row(named_params! {":now": now}, |row| {
        Ok((get::<i64>(row, "pending")?, get::<i64>(row, "waiting")?, get::<Option<String>>(row, "oldest")?))
    })?;
    // The log has no gaps.
    let entries = format!("SELECT ifnull({}, 0)", numbers::last("audit_entries"));
    let entries: i64 = conn.prepare_cached(&entries)?.query_row([], |row| get(row, 0))?;
    Ok(json!({
        "by_state": sums(|tally| &tally.2),
        "by_bottle": sums(|tally| &tally.0),
        "by_tool": sums(|tally| &tally.1),
        "pending": pending,
        "waiting": waiting,
        "oldest_pending_seconds": oldest.map(|at| clock::seconds_between(&at, &now)),
        "decision_seconds": {"median": quantile(0.5), "p90": quantile(0.9), "max": times.last()},
        "audit_entries": entries,
    }))
}

/// The same, where there is no database.
pub(crate) fn of_nothing() -> Value {
    json!({
        "by_state": {}, "by_bottle": {}, "by_tool": {}, "pending": 0, "waiting": 0,
        "oldest_pending_seconds": null,
        "decision_seconds": {"median": null, "p90": null, "max": null}, "audit_entries": 0,
    })
}

/// As they are kept, with what has expired since counted as expired.
fn tallies(conn: &Connection, now: &str) -> Result<Vec<Tally>> {
    const TALLIES_SQL: &str = "SELECT bottle_slug, tool, state, proposals FROM tallies";
    const EXPIRED_SQL: &str = "SELECT bottle_slug, tool, count(*) AS proposals
         FROM proposals INDEXED BY proposals_expiring
         WHERE state = 'pending' AND expires_at IS NOT NULL AND expires_at <= :now GROUP BY bottle_slug, tool";
    let mut all = Vec::new();
    let mut statement = conn.prepare_cached(TALLIES_SQL)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        all.push((get(row, "bottle_slug")?, get(row, "tool")?, get(row, "state")?, get(row, "proposals")?));
    }
    let mut statement = conn.prepare_cached(EXPIRED_SQL)?;
    let mut rows = statement.query(named_params! {":now": now})?;
    while let Some(row) = rows.next()? {
        let (slug, tool): (String, String) = (get(row, "bottle_slug")?, get(row, "tool")?);
        let count: i64 = get(row, "proposals")?;
        all.push((slug.clone(), tool.clone(), State::Pending.as_str().to_owned(), -count));
        all.push((slug, tool, State::Expired.as_str().to_owned(), count));
    }
    Ok(all)
}

/// The tallies that are not what counting says, each with its bottle.
pub(crate) fn miscounted(conn: &Connection) -> Result<Vec<(String, String)>> {
    const MISCOUNTED_SQL: &str = "SELECT bottle_slug, tool, state, max(kept) AS kept, max(counted) AS counted FROM (
             SELECT bottle_slug, tool, state, proposals AS kept, 0 AS counted FROM tallies UNION ALL
             SELECT bottle_slug, tool, state, 0, count(*) FROM proposals GROUP BY bottle_slug, tool, state)
         GROUP BY bottle_slug, tool, state HAVING max(kept) <> max(counted) OR min(kept) < 0";
    let mut statement = conn.prepare(MISCOUNTED_SQL)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (slug, tool, state): (String, String, String) =
            (get(row, "bottle_slug")?, get(row, "tool")?, get(row, "state")?);
        let (kept, counted): (i64, i64) = (get(row, "kept")?, get(row, "counted")?);
        let reason = format!(
            "`stats` counts {kept} proposals of {slug} for {tool} that are {state}, and there are {counted}: somebody else changed the tally, which nothing but `stats` goes by"
        );
        found.push((slug, reason));
    }
    Ok(found)
}

/// How long each of the newest decisions took, in seconds, the shortest first.
fn times(conn: &Connection) -> Result<Vec<f64>> {
    const TIMES_SQL: &str = "SELECT p.arrival_timestamp AS asked, r.decided_at AS decided
         FROM (SELECT proposal_seq, decided_at FROM responses ORDER BY proposal_seq DESC LIMIT :most) r
         CROSS JOIN proposals p ON p.seq = r.proposal_seq";
    let mut statement = conn.prepare_cached(TIMES_SQL)?;
    let times = statement.query_map(named_params! {":most": MOST_TIMED}, |row| {
        Ok(clock::seconds_between(&get::<String>(row, "asked")?, &get::<String>(row, "decided")?))
    })?;
    let mut times = times.collect::<rusqlite::Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}
