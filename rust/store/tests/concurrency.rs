//! What holds when several threads and processes are at it at once?

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use bot_bottle_store::{Database, Error, Inbox, QueueStore, State, Status};
use rustix::process::Signal;

use crate::child::{Child, arg, hear, say};
use crate::place::{Place, Sets, decide, eventually, expiring, proposal, proposal_of};

/// In a child: decides one proposal when told, and says how that went.
pub fn decides(db: &Path, status: &str) {
    let inbox = Inbox::new(Some(db)).unwrap();
    let status: Status = status.parse().unwrap();
    say("ready");
    loop {
        let proposal = inbox.read(&hear()).unwrap().proposal;
        say("read");
        hear();
        say(match decide(&inbox, &proposal, status) {
            Ok(response) if response.status == status => "decided",
            Err(Error::AlreadyDecided { .. }) => "too late",
            other => panic!("{other:?}"),
        });
    }
}

/// In a child: proposes as fast as it can, and says each id once it is written.
pub fn proposes(db: &Path, queue_key: &str) {
    let queue = QueueStore::new(queue_key, Some(db)).unwrap();
    say("ready");
    let count: usize = hear().parse().unwrap();
    for n in 0..count {
        let written = queue.write_proposal(&proposal_of(queue_key, &format!("{queue_key} {n}"))).unwrap();
        say(&written.id);
        if n % 100 == 99 {
            for pending in queue.list_pending_proposals().unwrap() {
                queue.withdraw_proposal(&pending.id, "").unwrap();
            }
        }
    }
}

/// In a child: has the turn and SQLite's lock until it is told.
pub fn holds(db: &Path) {
    let _transaction = Database::new(Some(db)).unwrap().transaction().unwrap();
    say("held");
    hear();
}

/// In a child: proposes as fast as it can, and does nothing else.
pub fn writes(db: &Path, queue_key: &str) {
    let queue = QueueStore::new(queue_key, Some(db)).unwrap();
    say("ready");
    let count: usize = hear().parse().unwrap();
    for n in 0..count {
        queue.write_proposal(&proposal_of(queue_key, &format!("{queue_key} {n}"))).unwrap();
    }
}

/// How many tickets were drawn; the beginning of the file that orders writers.
fn tickets(place: &Place) -> u32 {
    let content = std::fs::read(format!("{}-turn", place.db.display())).unwrap();
    u32::from_ne_bytes(content[..4].try_into().unwrap())
}

/// A process that waits for its turn to propose.
fn waits_its_turn(place: &Place, queue_key: &str) -> Child {
    let mut child = Child::start("proposes", &[arg(&place.db), queue_key]);
    assert_eq!(child.says(), "ready");
    let drawn = tickets(place);
    child.tell("1");
    while tickets(place) == drawn {
        std::thread::yield_now();
    }
    child
}

/// Two connections that read by turns until told, so that there is always one that does.
fn reads_without_a_gap(db: &Path, stop: &AtomicBool) {
    let readers = [(); 2].map(|()| rusqlite::Connection::open(db).unwrap());
    let begin = |reader: &rusqlite::Connection| {
        reader.execute_batch("BEGIN; SELECT count(*) FROM proposals").unwrap();
    };
    begin(&readers[0]);
    for next in [1, 0].into_iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        begin(&readers[next]);
        std::thread::sleep(Duration::from_millis(2));
        readers[1 - next].execute_batch("COMMIT").unwrap();
    }
}

#[test]
fn readers_that_never_leave_a_gap_do_not_make_the_wal_grow_for_ever() {
    let place = Place::new();
    place.queue("dev").write_proposal(&proposal("first")).unwrap();
    let stop = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let _stops = Sets(&stop);
        scope.spawn(|| reads_without_a_gap(&place.db, &stop));
        let mut longest = 0;
        for n in 0..1000 {
            let queue = place.queue(&format!("dev-{}", n / 100));
            let asked = proposal_of(queue.queue_key(), &format!("{n} {}", "x".repeat(64 << 10)));
            queue.write_proposal(&asked).unwrap();
            longest = longest.max(std::fs::metadata(format!("{}-wal", place.db.display())).unwrap().len());
        }
        longest
    });
    assert!(longest < 40 << 20, "{longest}"); // of 64 MiB that were written
}

#[test]
fn of_two_processes_that_decide_exactly_one_wins() {
    let place = Place::new();
    let queue = place.queue("dev");
    let mut deciders: Vec<Child> =
        ["approved", "rejected", "approved"].map(|status| Child::start("decides", &[arg(&place.db), status])).into();
    for round in 0..30 {
        let written = queue.write_proposal(&proposal(&round.to_string())).unwrap();
        for decider in &mut deciders {
            if round == 0 {
                assert_eq!(decider.says(), "ready");
            }
            decider.tell(&written.id);
            assert_eq!(decider.says(), "read");
        }
        deciders.iter_mut().for_each(|decider| decider.tell("go"));
        let said: Vec<String> = deciders.iter_mut().map(Child::says).collect();
        assert_eq!(said.iter().filter(|said| *said == "decided").count(), 1, "round {round}: {said:?}");
        let winner = said.iter().position(|said| said == "decided").unwrap();
        let stands = queue.read_response(&written.id).unwrap().unwrap().head.status;
        assert_eq!(stands.as_str(), ["approved", "rejected", "approved"][winner]);
    }
    for what in ["responses", "audit_entries", "proposals WHERE state <> 'pending'", "changes WHERE kind <> 'proposed'"]
    {
        assert_eq!(place.count(what), 30, "{what}");
    }
    assert_eq!(place.audit().verify(None).unwrap().entries, 30);
}

#[test]
fn of_many_threads_that_decide_exactly_one_wins() {
    let place = Place::new();
    let (queue, inbox, gate) = (place.queue("dev"), place.inbox(), Barrier::new(8));
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let won = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gate.wait();
                match decide(&inbox, &written, Status::Approved) {
                    Ok(_) => *won.lock().unwrap() += 1,
                    Err(Error::AlreadyDecided { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert_eq!((*won.lock().unwrap(), place.count("audit_entries")), (1, 1));
}

#[test]
fn a_decision_that_waits_for_its_turn_is_judged_when_it_has_it() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked = queue.write_proposal(&expiring("x", Duration::from_secs(2))).unwrap();
    let drawn = tickets(&place);
    let mut holder = Child::start("holds", &[arg(&place.db)]);
    assert_eq!(holder.says(), "held");
    std::thread::scope(|scope| {
        let deciding = scope.spawn(|| decide(&inbox, &asked, Status::Approved));
        eventually(|| tickets(&place) == drawn + 2);
        assert_eq!(inbox.read(&asked.id).unwrap().state, State::Pending);
        eventually(|| inbox.read(&asked.id).unwrap().state == State::Expired);
        holder.tell("let go");
        assert!(matches!(deciding.join().unwrap(), Err(Error::Expired { .. })));
    });
    assert_eq!((place.count("responses"), place.count("audit_entries")), (0, 0));
}

#[test]
fn a_decision_and_a_withdrawal_at_once_are_one_of_the_two() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    for round in 0..40 {
        let written = queue.write_proposal(&proposal(&round.to_string())).unwrap();
        let gate = Barrier::new(2);
        let (decided, withdrawn) = std::thread::scope(|scope| {
            let decider = scope.spawn(|| {
                gate.wait();
                decide(&inbox, &written, Status::Approved)
            });
            gate.wait();
            let withdrawn = queue.withdraw_proposal(&written.id, "never mind");
            (decider.join().unwrap(), withdrawn)
        });
        match (decided, withdrawn) {
            (Ok(_), Err(Error::AlreadyDecided { .. })) | (Err(Error::Withdrawn { .. }), Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
    let decided = place.count("proposals WHERE state = 'approved'");
    assert_eq!(decided, place.count("audit_entries"));
    assert_eq!(decided + place.count("proposals WHERE state = 'withdrawn'"), 40);
}

#[test]
fn identical_requests_at_once_become_one_row() {
    let place = Place::new();
    let (queue, gate) = (place.queue("dev"), Barrier::new(8));
    let ids = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gate.wait();
                ids.lock().unwrap().push(queue.write_proposal(&proposal("the same")).unwrap().head.id);
            });
        }
    });
    let ids = ids.into_inner().unwrap();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!((place.count("proposals"), place.count("aliases")), (1, 7));
    assert_eq!(place.inbox().pending(None).unwrap()[0].requests, 8);
}

#[test]
fn everything_many_processes_were_told_is_written_is_there() {
    let place = Place::new();
    let mut writers: Vec<Child> =
        (0..4).map(|n| Child::start("proposes", &[arg(&place.db), &format!("q{n}")])).collect();
    writers.iter_mut().for_each(|writer| assert_eq!(writer.says(), "ready"));
    writers.iter_mut().for_each(|writer| writer.tell("200"));
    let mut said: Vec<String> = writers.into_iter().flat_map(Child::ends).collect();
    said.sort();
    assert_eq!(said.len(), 800);
    let there = place.shell("SELECT id FROM proposals ORDER BY id");
    assert_eq!(said, there.lines().collect::<Vec<_>>());
    assert_eq!(place.shell("PRAGMA integrity_check"), "ok");
}

#[test]
fn of_many_processes_that_write_as_fast_as_they_can_none_starves() {
    const EACH: usize = 150;
    let place = Place::new();
    place.database().migrate_all().unwrap();
    let keys: Vec<String> = (0..8).map(|n| format!("q{n}")).collect();
    let mut writers: Vec<Child> = keys.iter().map(|key| Child::start("writes", &[arg(&place.db), key])).collect();
    writers.iter_mut().for_each(|writer| assert_eq!(writer.says(), "ready"));
    writers.iter_mut().for_each(|writer| writer.tell(&EACH.to_string()));
    writers.into_iter().for_each(|writer| assert!(writer.ends().is_empty()));
    let order = place.shell("SELECT queue_key FROM proposals ORDER BY seq");
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(order.len(), 8 * EACH);
    // While all write: from the last one's first until the first one's last.
    let first = |key: &String| order.iter().position(|each| each == key).unwrap();
    let last = |key: &String| order.iter().rposition(|each| each == key).unwrap();
    let together = &order[keys.iter().map(first).max().unwrap()..=keys.iter().map(last).min().unwrap()];
    let counts: Vec<usize> = keys.iter().map(|key| together.iter().filter(|each| *each == key).count()).collect();
    let mean = together.len() / keys.len();
    assert!(mean > EACH / 3, "they hardly met: {counts:?}");
    assert!(counts.iter().all(|count| *count >= mean / 2), "{counts:?}");
}

#[test]
fn who_is_killed_or_stopped_while_it_writes_or_waits_holds_nobody_up() {
    let place = Place::new();
    let queue = place.queue("dev");
    queue.write_proposal(&proposal("first")).unwrap();
    let mut holder = Child::start("holds", &[arg(&place.db)]);
    assert_eq!(holder.says(), "held");
    let killed = waits_its_turn(&place, "killed");
    let mut stopped = waits_its_turn(&place, "stopped");
    stopped.signal(Signal::STOP);
    killed.kill();
    holder.kill();
    queue.write_proposal(&proposal("second")).unwrap();
    assert_eq!(place.shell("SELECT queue_key FROM proposals"), "dev\ndev");
    stopped.signal(Signal::CONT);
    let written = stopped.says();
    assert_eq!(place.shell("SELECT id FROM proposals WHERE queue_key = 'stopped'"), written);
    queue.write_proposal(&proposal("third")).unwrap();
}

/// The next in turn waits as long as somebody is seen at work: a long transaction must not be the end of all order.
#[test]
fn order_outlasts_a_long_transaction() {
    let place = Place::new();
    place.database().migrate_all().unwrap();
    let mut holder = Child::start("holds", &[arg(&place.db)]);
    assert_eq!(holder.says(), "held");
    let keys = ["one", "two", "three", "four"];
    let waiting: Vec<Child> = keys.iter().map(|key| waits_its_turn(&place, key)).collect();
    std::thread::sleep(Duration::from_secs(1)); // a long one
    holder.tell("enough");
    holder.ends();
    waiting.into_iter().for_each(|child| assert_eq!(child.ends().len(), 1));
    assert_eq!(place.shell("SELECT queue_key FROM proposals ORDER BY seq"), keys.join("\n"));
}

/// Closing any descriptor on the file drops the POSIX locks that SQLite has of it in this process. Another program that
/// closes would then be the last as far as it can see, and remove the WAL.
#[test]
fn no_acknowledged_row_is_missing_though_somebody_here_drops_the_locks() {
    let place = Place::new();
    let queue = place.queue("dev");
    let mut acknowledged = vec![queue.write_proposal(&proposal("first")).unwrap().head.id];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = Sets(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(File::open(&place.db).unwrap());
                place.shell("SELECT count(*) FROM proposals");
            }
        });
        for n in 0..150 {
            match queue.write_proposal(&proposal(&n.to_string())) {
                Ok(written) => acknowledged.push(written.head.id),
                Err(Error::WriteLost { .. }) => {} // an error is no lie
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let there = place.shell("SELECT id FROM proposals");
    let missing = acknowledged.iter().filter(|id| !there.contains(*id)).count();
    assert_eq!(missing, 0, "of {} acknowledged", acknowledged.len());
    assert_eq!(place.shell("PRAGMA integrity_check"), "ok");
}

#[test]
fn the_last_to_close_still_takes_the_wal_away() {
    let place = Place::new();
    let (one, two) = (place.queue("dev"), place.queue("dev"));
    one.write_proposal(&proposal("x")).unwrap();
    two.list_pending_proposals().unwrap();
    drop(File::open(&place.db).unwrap());
    drop(one);
    assert_eq!(two.list_pending_proposals().unwrap().len(), 1);
    drop(two);
    let names = place.names();
    assert!(!names.iter().any(|name| name.ends_with("-wal") || name.ends_with("-shm")), "{names:?}");
}

/// Somebody removes the WAL by hand, once its content is in the database.
fn remove_the_wal(place: &Place) {
    place.shell("PRAGMA wal_checkpoint(TRUNCATE)");
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", place.db.display())).unwrap();
    }
}

#[test]
fn a_wal_that_is_gone_is_not_written_to() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    queue.write_proposal(&proposal("first")).unwrap();
    // Readers and the watcher have the lost WAL open too.
    let first = inbox.pending(None).unwrap().remove(0).proposal;
    let (done, end) = std::sync::mpsc::channel();
    let _wait = queue.begin_wait(&first.id, None, move |result| done.send(result.map(drop)).unwrap()).unwrap();
    remove_the_wal(&place);
    place.shell("UPDATE proposals SET waiting_until = NULL");
    let second = queue.write_proposal(&proposal("second")).unwrap();
    assert_eq!(place.shell("SELECT count(*) FROM proposals"), "2");
    decide(&inbox, &second, Status::Approved).unwrap();
    assert_eq!(place.shell("SELECT state FROM proposals ORDER BY seq"), "pending\napproved");
    // Nobody rings for this one, and the watcher's connection is another than before.
    place.shell("UPDATE proposals SET state = 'withdrawn', withdrawn_at = 'now' WHERE seq = 1");
    let end = end.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(end, Err(Error::Withdrawn { .. })), "{end:?}");
    assert_eq!(place.shell("PRAGMA integrity_check"), "ok");
}

/// The same, and then the store goes without having written again: its last connection must not copy the lost WAL over
/// what others wrote since.
#[test]
fn closing_over_a_wal_that_is_gone_changes_nothing() {
    let place = Place::new();
    let queue = place.queue("dev");
    for n in 0..50 {
        queue.write_proposal(&proposal(&n.to_string())).unwrap();
    }
    place.shell("PRAGMA wal_checkpoint(TRUNCATE)");
    queue.write_proposal(&proposal("in the WAL alone")).unwrap();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", place.db.display())).unwrap();
    }
    place.shell("DELETE FROM changes; DELETE FROM proposals WHERE seq > 1; PRAGMA wal_checkpoint(TRUNCATE)");
    let before = std::fs::read(&place.db).unwrap();
    drop(queue);
    assert!(std::fs::read(&place.db).unwrap() == before, "the file was written to");
    assert_eq!(place.shell("SELECT count(*) FROM proposals; PRAGMA integrity_check"), "1\nok");
}
