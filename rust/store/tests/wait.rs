//! How does a wait end: woken at once, by whom, neither early nor late, and always?

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bot_bottle_store::{Error, Inbox, QueueStore, Response, Status, WaitHandle};

use crate::child::{Child, arg, hear, say};
use crate::place::{Place, decide, decision, eventually, expiring, proposal, proposal_of, skip};

/// Far below the heartbeat, far above a wake-up: who takes longer was not woken by the bell.
const WOKEN: Duration = Duration::from_millis(500);
/// Longer than any wait here should take.
const LIMIT: Option<Duration> = Some(Duration::from_secs(20));

/// In a child: decides each proposal it hears of, after so many microseconds.
pub fn answers(db: &Path) {
    let inbox = Inbox::new(Some(db)).unwrap();
    loop {
        let line = hear();
        let (id, after) = line.split_once(' ').unwrap();
        std::thread::sleep(Duration::from_micros(after.parse().unwrap()));
        decide(&inbox, &inbox.read(id).unwrap().proposal, Status::Approved).unwrap();
        say(id);
    }
}

/// In a child: waits for each proposal it hears of, in whatever namespace it was put.
pub fn waits(db: &Path, queue_key: &str) {
    let queue = QueueStore::new(queue_key, Some(db)).unwrap();
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty()).is_ok();
    say(if inotify { "with inotify" } else { "without inotify" });
    loop {
        say(queue.wait_for_response(&hear(), LIMIT, || false).unwrap().status.as_str());
    }
}

/// In a child: begins a thousand waits and says how many threads that took, then how they ended.
pub fn waits_a_thousand_times(db: &Path) {
    let (done, ends) = mpsc::channel();
    let queues: Vec<QueueStore> = (0..5).map(|n| QueueStore::new(&format!("q{n}"), Some(db)).unwrap()).collect();
    let mut waits: Vec<WaitHandle> = Vec::new();
    for n in 0..1000 {
        let queue = &queues[n % 5];
        let written = queue.write_proposal(&proposal_of(queue.queue_key(), &n.to_string())).unwrap();
        let done = done.clone();
        waits.push(queue.begin_wait(&written.id, None, move |end| done.send(end).unwrap()).unwrap());
    }
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let watchers = tasks.filter(|task| {
        fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap().starts_with("bot-bottle-wait")
    });
    say(&format!("{} watcher", watchers.count()));
    hear();
    let ends = ends.iter().take(1000).filter(|end| matches!(end, Err(Error::Withdrawn { .. })));
    say(&format!("{} withdrawn", ends.count()));
}

/// In a child: waits in twelve threads, says how many inotify instances that took, and how many were approved.
pub fn blocks_in_threads(db: &Path) {
    let queue = QueueStore::new("dev", Some(db)).unwrap();
    let ids: Vec<String> = (0..12).map(|n| queue.write_proposal(&proposal(&n.to_string())).unwrap().head.id).collect();
    std::thread::scope(|scope| {
        let (queue, inbox) = (&queue, Inbox::new(Some(db)).unwrap());
        let wait = |id: &String| {
            let id = id.clone();
            scope.spawn(move || queue.wait_for_response(&id, LIMIT, || false).unwrap().status == Status::Approved)
        };
        let threads: Vec<_> = ids.iter().map(wait).collect();
        eventually(|| inbox.pending(None).unwrap().iter().all(|item| item.waiting));
        let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| fs::read_link(entry.unwrap().path()));
        let instances = open.filter(|link| link.as_ref().is_ok_and(|link| link.ends_with("anon_inode:inotify")));
        say(&instances.count().to_string());
        say(&threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count().to_string());
    });
}

fn waiting(queue: &QueueStore, id: &str) -> (WaitHandle, mpsc::Receiver<Result<(), Error>>) {
    let (done, end) = mpsc::channel();
    let wait = queue.begin_wait(id, None, move |result| drop(done.send(result.map(drop)))).unwrap();
    (wait, end)
}

#[test]
fn a_commit_wakes_its_waiter_at_once_whatever_the_moment() {
    let place = Place::new();
    let queue = place.queue("dev");
    let mut operator = Child::start("answers", &[arg(&place.db)]);
    let mut slow = Vec::new();
    for round in 0..200 {
        let written = queue.write_proposal(&proposal(&round.to_string())).unwrap();
        // Phases from before the waiter has subscribed to long after.
        operator.tell(&format!("{} {}", written.id, [0, 300, 1000, 3000, 9000][round % 5] + round * 7));
        let start = Instant::now();
        let answer = queue.wait_for_response(&written.id, LIMIT, || false).unwrap();
        assert_eq!((answer.proposal_id.as_str(), answer.status.as_str()), (written.id.as_str(), "approved"));
        if start.elapsed() > WOKEN {
            slow.push((round, start.elapsed()));
        }
        assert_eq!(operator.says(), written.id);
    }
    assert!(slow.is_empty(), "not woken by the bell: {slow:?}");
}

#[test]
fn waits_that_end_at_once_never_come_to_block() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&proposal("pending")).unwrap();
    // More than a pipe holds.
    for _ in 0..70_000 {
        let error = queue.wait_for_response(&written.id, Some(Duration::ZERO), || false).unwrap_err();
        assert!(matches!(error, Error::WaitTimeout { .. }));
    }
}

#[test]
fn many_blocked_threads_are_woken_with_few_inotify_instances() {
    let place = Place::new();
    let inbox = place.inbox();
    inbox.last_change().unwrap();
    let mut waiter = Child::start("blocks in threads", &[arg(&place.db)]);
    let instances: usize = waiter.says().parse().unwrap();
    assert!((1..=5).contains(&instances), "{instances} of the 128 that a user has");
    for item in inbox.pending(None).unwrap() {
        decide(&inbox, &item.proposal, Status::Approved).unwrap();
    }
    let start = Instant::now(); // twelve decisions have the disk to thank for their time
    assert_eq!(waiter.says(), "12");
    assert!(start.elapsed() < WOKEN, "{:?}", start.elapsed());
}

#[test]
fn without_inotify_it_glances_and_is_woken_all_the_same() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c"]);
    unshare.arg("echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"").arg("-");
    if !Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip("this system has no user namespaces for everybody");
    }
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let first = queue.write_proposal(&proposal("first")).unwrap();
    let mut waiter = Child::start_through(&mut unshare, "waits", &[arg(&place.db), "dev"]);
    assert_eq!(waiter.says(), "without inotify");
    waiter.tell(&first.id);
    for round in 0..40 {
        let written = inbox.pending(None).unwrap().remove(0).proposal;
        eventually(|| inbox.read(&written.id).unwrap().waiting);
        let start = Instant::now();
        decide(&inbox, &written, Status::Rejected).unwrap();
        assert_eq!(waiter.says(), "rejected");
        assert!(start.elapsed() < WOKEN, "round {round}: {:?}", start.elapsed());
        waiter.tell(&queue.write_proposal(&proposal(&round.to_string())).unwrap().id);
    }
}

#[test]
fn a_writer_that_does_not_ring_is_noticed_within_a_heartbeat() {
    let place = Place::new();
    let queue = place.queue("dev");
    for round in 0..3 {
        let written = queue.write_proposal(&proposal(&round.to_string())).unwrap();
        let (_wait, end) = waiting(&queue, &written.id);
        std::thread::sleep(Duration::from_millis(370 * round)); // another phase of the heartbeat each time
        place.shell(&format!(
            "UPDATE proposals SET state = 'withdrawn', withdrawn_at = 'now' WHERE id = '{}'",
            written.id
        ));
        let start = Instant::now();
        let end = end.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(end, Err(Error::Withdrawn { .. })), "{end:?}");
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
}

#[test]
fn bells_that_somebody_removed_are_hung_again() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let first = queue.write_proposal(&proposal("first")).unwrap();
    let (_wait, end) = waiting(&queue, &first.id);
    fs::remove_dir_all(place.dir.join("bells")).unwrap();
    eventually(|| place.dir.join("bells/dev").exists());
    let start = Instant::now();
    decide(&inbox, &first, Status::Rejected).unwrap();
    end.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert!(start.elapsed() < WOKEN, "{:?}", start.elapsed());
}

#[test]
fn a_thousand_waits_take_one_watcher_thread() {
    let place = Place::new();
    let slugs = ["q0", "q1", "q2", "q3", "q4"];
    for slug in slugs {
        place.bottles().register(slug, "docker", "mount", &[]).unwrap();
    }
    let mut waiter = Child::start("waits a thousand times", &[arg(&place.db)]);
    assert_eq!(waiter.says(), "1 watcher");
    assert_eq!(place.inbox().stats().unwrap()["pending"], 1000);
    waiter.tell("go");
    for slug in slugs {
        assert_eq!(place.bottles().stop(slug, "done").unwrap(), 200);
    }
    assert_eq!(waiter.says(), "1000 withdrawn");
    waiter.ends();
}

#[test]
fn an_answer_that_is_there_is_returned_at_once_after_archiving_too() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let written = queue.write_proposal(&proposal("x")).unwrap();
    decide(&inbox, &written, Status::Rejected).unwrap();
    queue.archive_proposal(&written.id).unwrap();
    for timeout in [None, LIMIT, Some(Duration::ZERO)] {
        let answer = queue.wait_for_response(&written.id, timeout, || false).unwrap();
        assert_eq!((answer.status.as_str(), answer.notes.as_str()), ("rejected", "as agreed"));
    }
    assert_eq!(queue.read_response(&written.id).unwrap().unwrap().decided_by.as_deref(), Some("ann"));
}

#[test]
fn a_timeout_ends_a_wait_neither_early_nor_late_and_leaves_the_proposal() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&proposal("x")).unwrap();
    for (timeout, latest) in [(0, 700), (1, 700), (300, 1000)] {
        let (start, timeout) = (Instant::now(), Duration::from_millis(timeout));
        let error = queue.wait_for_response(&written.id, Some(timeout), || false).unwrap_err();
        assert!(matches!(error, Error::WaitTimeout { .. }), "{error}");
        assert!((timeout..Duration::from_millis(latest)).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
    assert_eq!(queue.list_pending_proposals().unwrap(), [written]);
}

#[test]
fn an_expiry_ends_a_wait_on_time_and_stays_true() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let start = Instant::now();
    let written = queue.write_proposal(&expiring("x", Duration::from_millis(300))).unwrap();
    let error = queue.wait_for_response(&written.id, None, || false).unwrap_err();
    let took = start.elapsed();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert!((Duration::from_millis(299)..Duration::from_millis(800)).contains(&took), "{took:?}");
    // In the file, so a clock that is set back does not revive it.
    assert_eq!(place.shell("SELECT state FROM proposals"), "expired");
    assert!(matches!(decide(&inbox, &written, Status::Approved), Err(Error::Expired { .. })));
}

#[test]
fn an_expiry_that_is_told_at_once_stays_true_too() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&expiring("x", Duration::from_millis(1))).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(place.shell("SELECT state FROM proposals"), "pending");
    let error = queue.wait_for_response(&written.id, Some(Duration::ZERO), || false).unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(place.shell("SELECT state FROM proposals"), "expired");
}

#[test]
fn all_who_ask_the_same_get_the_one_answer() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked: Vec<_> = (0..5).map(|_| proposal("the same")).collect();
    for one in &asked {
        assert_eq!(queue.write_proposal(one).unwrap().id, asked[0].id);
    }
    let waits: Vec<_> = asked.iter().map(|one| waiting(&queue, &one.id)).collect();
    decide(&inbox, &asked[0], Status::Approved).unwrap();
    for (_wait, end) in waits {
        end.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
    let answers: Vec<Response> =
        asked.iter().map(|one| queue.wait_for_response(&one.id, None, || false).unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.answer() == answers[0].answer()));
    assert_eq!(place.count("audit_entries"), 1);
}

#[test]
fn who_leaves_ends_their_own_wait_only() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let (one, two) = (proposal("same"), proposal("same"));
    queue.write_proposal(&one).unwrap();
    queue.write_proposal(&two).unwrap();
    let ((_one, first), (_two, second)) = (waiting(&queue, &one.id), waiting(&queue, &two.id));
    queue.withdraw_proposal(&one.id, "not needed").unwrap();
    let end = first.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(end, Err(Error::Withdrawn { .. })), "{end:?}");
    assert_eq!(inbox.pending(None).unwrap()[0].requests, 1);
    decide(&inbox, &one, Status::Approved).unwrap();
    second.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

#[test]
fn a_withdrawal_wakes_with_its_reason() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let (_wait, end) = waiting(&queue, &written.id);
    let start = Instant::now();
    queue.withdraw_proposal(&written.id, "changed my mind").unwrap();
    match end.recv_timeout(Duration::from_secs(20)).unwrap() {
        Err(Error::Withdrawn { reason, .. }) => assert_eq!(reason, "changed my mind"),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < WOKEN, "{:?}", start.elapsed());
}

#[test]
fn closing_a_store_ends_its_waits_and_no_others() {
    let place = Place::new();
    let (queue, other) = (place.queue("dev"), place.queue("dev"));
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let ((_wait, end), (_other, stays)) = (waiting(&queue, &written.id), waiting(&other, &written.id));
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| queue.wait_for_response(&written.id, LIMIT, || false));
        eventually(|| place.inbox().pending(None).unwrap()[0].waiting);
        queue.close();
        assert_eq!(blocked.join().unwrap().unwrap_err(), Error::Closed);
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(20)).unwrap(), Err(Error::Closed));
    assert!(stays.try_recv().is_err());
    assert_eq!(queue.wait_for_response(&written.id, None, || false).unwrap_err(), Error::Closed);
    assert_eq!(queue.list_pending_proposals().unwrap_err(), Error::Closed);
    assert_eq!(other.list_pending_proposals().unwrap().len(), 1);
}

#[test]
fn a_wait_that_begins_while_its_store_closes_ends_too() {
    let place = Place::new();
    let written = place.queue("dev").write_proposal(&proposal("x")).unwrap();
    for round in 0..100 {
        let queue = place.queue("dev");
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| queue.wait_for_response(&written.id, LIMIT, || false).unwrap_err());
            std::thread::sleep(Duration::from_micros(round * 20));
            queue.close();
            assert_eq!(blocked.join().unwrap(), Error::Closed);
        });
    }
}

#[test]
fn a_wait_for_what_is_not_in_this_queue_is_an_error() {
    let place = Place::new();
    let queue = place.queue("dev");
    let id = proposal("x").head.id;
    assert!(matches!(queue.wait_for_response(&id, None, || false), Err(Error::NotFound { .. })));
    assert_eq!(place.names(), [""; 0], "asking created something");
    queue.write_proposal(&proposal("y")).unwrap();
    assert!(matches!(queue.wait_for_response(&id, None, || false), Err(Error::NotFound { .. })));
    let others = place.queue("other").write_proposal(&proposal_of("other", "z")).unwrap();
    assert!(matches!(queue.wait_for_response(&others.id, None, || false), Err(Error::NotFound { .. })));
}

#[test]
fn an_interrupted_wait_ends_at_once() {
    let place = Place::new();
    let queue = place.queue("dev");
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let (start, mut asked) = (Instant::now(), 0);
    let interrupted = || {
        asked += 1;
        asked == 3
    };
    assert_eq!(queue.wait_for_response(&written.id, None, interrupted).unwrap_err(), Error::Interrupted);
    assert!(start.elapsed() < WOKEN, "{:?}", start.elapsed());
}

#[test]
fn a_cancelled_wait_is_never_called_back() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let ((wait, cancelled), (_wait, stays)) = (waiting(&queue, &written.id), waiting(&queue, &written.id));
    wait.cancel();
    wait.cancel();
    decide(&inbox, &written, Status::Approved).unwrap();
    stays.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(cancelled.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn a_lease_shows_who_waits_and_is_let_go() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let item = || inbox.read(&written.id).unwrap();
    assert_eq!((item().waiting, item().waiting_until), (false, None));
    let ((one, _end), (two, _also)) = (waiting(&queue, &written.id), waiting(&queue, &written.id));
    eventually(|| item().waiting);
    one.cancel();
    let (_three, _end) = waiting(&place.queue("dev"), &written.id); // the lease is written once more
    eventually(|| item().waiting);
    two.cancel();
    _three.cancel();
    eventually(|| !item().waiting);
    assert!(item().waiting_until.is_some());
}

#[test]
fn a_lease_of_a_killed_waiter_lapses() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let written = queue.write_proposal(&proposal("x")).unwrap();
    let mut waiter = Child::start("waits", &[arg(&place.db), "dev"]);
    assert_eq!(waiter.says(), "with inotify");
    waiter.tell(&written.id);
    eventually(|| inbox.read(&written.id).unwrap().waiting);
    waiter.kill();
    let until = inbox.read(&written.id).unwrap().waiting_until.unwrap();
    let soon = place.shell("SELECT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+16 seconds')");
    assert!(until < soon, "{until} {soon}");
    // As if that time had passed.
    place.shell("UPDATE proposals SET waiting_until = '2026-01-01T00:00:00.000000Z'");
    assert!(!inbox.read(&written.id).unwrap().waiting);
    assert_eq!(inbox.stats().unwrap()["waiting"], 0);
}

#[test]
fn a_watcher_of_the_inbox_is_woken_by_every_step() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let mut seen = 0;
    let mut steps = |step: &mut dyn FnMut(), kind: &str| {
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| inbox.wait_for_change(seen, LIMIT, || false));
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            step();
            watching.join().unwrap().unwrap();
            assert!(seen == 0 || start.elapsed() < WOKEN, "{kind}: {:?}", start.elapsed());
        });
        let changes = inbox.changes(seen, 10).unwrap();
        assert_eq!(changes.last().unwrap().kind.as_str(), kind);
        seen = changes.last().unwrap().seq;
    };
    let (one, two) = (proposal("one"), proposal("two"));
    // The first one creates the database: its watcher had no bell yet.
    steps(&mut || drop(queue.write_proposal(&one).unwrap()), "proposed");
    steps(&mut || drop(queue.write_proposal(&two).unwrap()), "proposed");
    steps(&mut || drop(decide(&inbox, &one, Status::Approved).unwrap()), "approved");
    steps(&mut || queue.withdraw_proposal(&two.id, "").unwrap(), "withdrawn");
    steps(&mut || queue.archive_proposal(&one.id).unwrap(), "archived");
    let error = inbox.wait_for_change(seen, Some(Duration::from_millis(50)), || false).unwrap_err();
    assert!(matches!(error, Error::WaitTimeout { .. }), "{error}");
}

#[test]
fn coalescing_changes_nothing_for_who_watches() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    queue.write_proposal(&proposal("same")).unwrap();
    let last = inbox.last_change().unwrap();
    queue.write_proposal(&proposal("same")).unwrap();
    assert_eq!(inbox.last_change().unwrap(), last);
}

#[test]
fn a_decision_with_a_grant_wakes_like_any_other() {
    let place = Place::new();
    let (queue, inbox) = (place.queue("dev"), place.inbox());
    let asked =
        bot_bottle_store::Proposal::new("dev", "egress-token-allow", b"x", "", None, None, Some("token")).unwrap();
    queue.write_proposal(&asked).unwrap();
    let (_wait, end) = waiting(&queue, &asked.id);
    let granted = bot_bottle_store::Decision { grant: Some("uses:2"), ..decision(&asked, Status::Approved) };
    inbox.decide(&granted).unwrap();
    end.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(place.grants().list_grants(None, true).unwrap().len(), 1);
}
