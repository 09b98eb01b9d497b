//! What does a sidecar do with its bottle's queue where it is in the file?

use std::time::Duration;

use rusqlite::named_params;

use crate::clock;
use crate::error::{Error, Result};
use crate::file::bell::Rings;
use crate::file::column::Fields;
use crate::file::database::Database;
use crate::queue::asking;
use crate::queue::changes;
use crate::queue::item::{self, InboxItem, InboxSummary, why_not};
use crate::queue::life::{
    Arrival, add_alias, check_cap, expire, find_in_queue, insert, known_by_id, leave, others_ask, pending_twin,
    withdraw,
};
use crate::queue::managed_file;
use crate::queue::message::Message;
use crate::queue::proposal::{Asked, PENDING, Proposal};
use crate::queue::revision::revise;
use crate::registration::Registration;
use crate::state::{ChangeKind, State, Stored};
use crate::statement::Keys;
use crate::verbs::QueueVerbs;
use crate::wait::standing::Target;
use crate::wait::{Done, Event, Questions, WaitHandle, on_file, sleeper};

impl QueueVerbs for Database {
    fn write_proposal(&self, queue_key: &str, proposal: &Proposal) -> Result<Proposal> {
        // Who waits for what it revises goes on.
        let rings = || proposal.revises.as_ref().map_or_else(Rings::inbox, |_| Rings::queue(queue_key));
        let mut looked = None;
        loop {
            let written = self.write_then_sync(|tx| {
                let now = clock::now();
                let Arrival { managed, clear } = Arrival::of(proposal, tx, queue_key, &now)?;
                let base = match base_of(managed, proposal, looked.as_ref()) {
                    Base::Known(base) => base,
                    Base::Look(path) => return Ok((Err(path), Rings::NONE)),
                };
                let mut revision = 1;
                if !clear || proposal.revises.is_some() {
                    expire(tx, queue_key, &now)?;
                    if let Some(known) = known_by_id(tx, queue_key, proposal)? {
                        return Ok((Ok(known), Rings::NONE));
                    }
                    revision = revise(tx, queue_key, proposal, base.as_deref())?;
                    if let Some((seq, twin)) = pending_twin(tx, queue_key, proposal, base.as_deref())? {
                        add_alias(tx, seq, proposal)?;
                        return Ok((Ok(twin), rings()));
                    }
                    check_cap(tx, queue_key)?;
                }
                insert(tx, queue_key, proposal, base.as_deref(), revision)?;
                changes::record(tx, ChangeKind::Proposed, &proposal.id, &proposal.bottle_slug, &proposal.tool)?;
                Ok((Ok(proposal.clone()), rings()))
            })?;
            match written {
                Ok(proposal) => return Ok(proposal),
                // Between two transactions: a slow disk behind a managed file must not hold up other bottles' writes.
                Err(path) => looked = Some((look(self, proposal, &path)?, path)),
            }
        }
    }

    fn pending(&self, queue_key: &str) -> Result<Vec<InboxSummary>> {
        Ok(self.read(|conn| item::pending(conn, Some(queue_key), None))?.unwrap_or_default())
    }

    fn pending_proposals(&self, queue_key: &str) -> Result<Vec<Proposal>> {
        let sql = format!(
            "SELECT {} FROM {PENDING} AND p.queue_key = :queue_key
             AND (p.expires_at IS NULL OR p.expires_at > :now) ORDER BY p.seq",
            Proposal::COLUMNS
        );
        let listed = self.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let asked = named_params! {":queue_key": queue_key, ":now": clock::now()};
            let rows = statement.query_map(asked, |row| Proposal::from_row(&Fields::of(row)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        Ok(listed.unwrap_or_default())
    }

    fn inspect(&self, _queue_key: &str, id: &str) -> Result<Option<InboxItem>> {
        Ok(self.read(|conn| item::read(conn, id))?.flatten())
    }

    fn list_items(&self, queue_key: &str, limit: u32) -> Result<Vec<InboxSummary>> {
        Ok(self.read(|conn| item::newest_of_queue(conn, queue_key, limit))?.unwrap_or_default())
    }

    fn answer(&self, queue_key: &str, id: &str, message_id: &str, text: &str) -> Result<Message> {
        self.write(|tx| {
            expire(tx, queue_key, &clock::now())?;
            let found = find_in_queue(tx, queue_key, id)?;
            Ok((asking::answer(tx, &found, message_id, text)?, Rings::inbox()))
        })
    }

    fn withdraw_proposal(&self, queue_key: &str, id: &str, reason: &str) -> Result<()> {
        self.write(|tx| {
            expire(tx, queue_key, &clock::now())?;
            let found = find_in_queue(tx, queue_key, id)?;
            match found.state {
                Stored::Known(State::Pending) => {}
                Stored::Known(State::Withdrawn) => return Ok(((), Rings::NONE)),
                _ => return Err(why_not(tx, &found)?),
            }
            leave(tx, &found, id)?;
            if others_ask(tx, &found)? {
                // The leaver's own waits end; the row stays for the others.
                return Ok(((), Rings::queue(queue_key)));
            }
            withdraw(tx, &found, reason)?;
            Ok(((), Rings::queue(queue_key)))
        })
    }

    fn archive_proposal(&self, queue_key: &str, id: &str) -> Result<()> {
        // One whose file is on its way is first ended, under the lock of whoever puts it in place.
        let mut called_off = None;
        while !archive(self, queue_key, id, called_off.is_some())? {
            called_off = Some(managed_file::call_off(self, id)?);
        }
        Ok(())
    }

    fn begin_wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        done: Done,
    ) -> Result<WaitHandle> {
        on_file::begin(self, Target::answer(queue_key, id, questions), timeout, done)
    }

    fn wait(
        &self,
        queue_key: &str,
        id: &str,
        timeout: Option<Duration>,
        questions: Questions,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Event> {
        sleeper::listen(self, &Target::answer(queue_key, id, questions), timeout, interrupted)
    }
}

/// What a proposal is written against, or the managed file to look at first.
enum Base {
    Known(Option<String>),
    Look(String),
}

/// As the proposal says; or the managed file as it is, or, where it cannot be seen, as the host last saw it.
fn base_of(managed: Option<(String, String)>, proposal: &Proposal, looked: Option<&(Option<String>, String)>) -> Base {
    if let Some(hash) = proposal.current_file_hash.as_ref().filter(|hash| !hash.is_empty()) {
        return Base::Known(Some(hash.clone()));
    }
    match (managed, looked) {
        (None, _) => Base::Known(None),
        (Some((path, known)), Some((seen, at))) if *at == path => Base::Known(Some(seen.clone().unwrap_or(known))),
        (Some((path, _)), _) => Base::Look(path),
    }
}

/// The hash of a managed file as it is, if it is the one that the host registered: no other path is opened.
fn look(db: &Database, proposal: &Proposal, path: &str) -> Result<Option<String>> {
    let keys = Keys::of(db);
    let registered = db.read(|conn| Registration::read_verified(conn, &keys, &proposal.bottle_slug));
    match registered {
        Ok(Some(Some(found))) if found.path_of(&proposal.tool) == Some(path) => Ok(managed_file::seen(path)),
        Ok(_) | Err(Error::Unverified { .. } | Error::Key { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `false`: its decision is still on its way, which `called_off` rules out.
fn archive(db: &Database, queue_key: &str, id: &str, called_off: bool) -> Result<bool> {
    db.write(|tx| {
        expire(tx, queue_key, &clock::now())?;
        let found = find_in_queue(tx, queue_key, id)?;
        if found.archived_at.is_some() {
            return Ok((true, Rings::NONE));
        }
        if !called_off && managed_file::is_intended(tx, found.seq)? {
            return Ok((false, Rings::NONE));
        }
        if found.state == State::Pending {
            leave(tx, &found, id)?;
            if others_ask(tx, &found)? {
                return Ok((true, Rings::queue(queue_key)));
            }
            withdraw(tx, &found, "archived before a decision")?;
        }
        const ARCHIVE_SQL: &str = "UPDATE proposals SET archived_at = :now WHERE seq = :seq AND archived_at IS NULL";
        tx.prepare_cached(ARCHIVE_SQL)?.execute(named_params! {":seq": found.seq, ":now": clock::now()})?;
        changes::record(tx, ChangeKind::Archived, &found.id, &found.bottle_slug, &found.tool)?;
        Ok((true, Rings::queue(queue_key)))
    })
}
