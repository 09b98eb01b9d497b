use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// A directory, and where the connections in it queue.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Desk { dir: tempfile::tempdir().unwrap() }
    }

    /// Another connection's.
    fn turns(&self) -> Turns {
        Turns::beside(&self.dir.path().join("x")).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("x-turn")
    }

    /// What is in the file: the next ticket, and the one that is served.
    fn numbers(&self) -> (u32, u32) {
        let content = fs::read(self.file()).unwrap();
        let number = |at: usize| u32::from_ne_bytes(content[at..at + 4].try_into().unwrap());
        (number(0), number(4))
    }

    fn put(&self, tickets: u32, serving: u32) {
        let file = OpenOptions::new().write(true).open(self.file()).unwrap();
        file.write_all_at(&[tickets.to_ne_bytes(), serving.to_ne_bytes()].concat(), 0).unwrap();
    }

    /// Threads that queue one after the other, behind whoever has the turn now. Each says its number in its turn.
    fn queue(&self, numbers: std::ops::Range<u32>) -> Queue {
        let (sender, said) = channel();
        for number in numbers {
            let (drawn, turns, sender) = (self.numbers().0, self.turns(), sender.clone());
            std::thread::spawn(move || speak(&turns, number, &sender));
            while self.numbers().0 == drawn {
                std::thread::yield_now();
            }
        }
        Queue(said)
    }

    /// Whether order reigns: of five that come in a row while the turn is taken, each is served in its turn.
    fn is_orderly(&self) {
        let held = self.turns().take().unwrap();
        assert!(held.0.is_some());
        let queue = self.queue(1..6);
        drop(held);
        assert_eq!(queue.order(), [1, 2, 3, 4, 5]);
        let (tickets, serving) = self.numbers();
        assert_eq!(tickets, serving, "somebody is still expected");
    }
}

fn speak(turns: &Turns, number: u32, sender: &Sender<(u32, bool)>) {
    let turn = turns.take().unwrap();
    sender.send((number, turn.0.is_some())).unwrap();
}

/// What they say, and whether they had the turn.
struct Queue(Receiver<(u32, bool)>);

impl Queue {
    fn order(self) -> Vec<u32> {
        self.0
            .iter()
            .map(|(number, served)| if served { number } else { panic!("{number} went without a turn") })
            .collect()
    }
}

/// As if the process had been killed in its turn: its marks are gone, its ticket is still served.
fn dies(turn: Turn) {
    turn.0.as_ref().unwrap().page.unmark();
    std::mem::forget(turn);
}

#[test]
fn one_turn_at_a_time_and_a_dropped_one_is_free() {
    let desk = Desk::new();
    let (one, two) = (desk.turns(), desk.turns());
    let held = one.take().unwrap();
    assert!(two.try_take().is_none());
    drop(held);
    assert!(two.try_take().is_some());
    assert_eq!(desk.numbers(), (2, 2));
}

#[test]
fn a_turn_is_wanted_while_somebody_waits_for_it() {
    let desk = Desk::new();
    let (one, two) = (desk.turns(), desk.turns());
    let held = one.take().unwrap();
    assert!(!held.is_wanted());
    std::thread::scope(|scope| {
        let next = scope.spawn(|| two.take().unwrap().is_wanted());
        while !held.is_wanted() {
            std::thread::yield_now();
        }
        drop(held);
        assert!(!next.join().unwrap());
    });
}

#[test]
fn turns_come_in_the_order_of_tickets() {
    Desk::new().is_orderly();
}

#[test]
fn the_file_is_its_owners_alone() {
    let desk = Desk::new();
    desk.turns();
    assert_eq!(fs::metadata(desk.file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn who_is_killed_in_its_turn_is_passed_over() {
    let desk = Desk::new();
    dies(desk.turns().take().unwrap());
    let queue = desk.queue(1..4);
    assert_eq!(queue.order(), [1, 2, 3]);
    desk.is_orderly();
}

#[test]
fn who_is_killed_while_it_waits_is_passed_over() {
    let desk = Desk::new();
    let held = desk.turns().take().unwrap();
    let one = desk.queue(1..2);
    let (tickets, serving) = desk.numbers();
    desk.put(tickets + 2, serving); // two that will never come
    let two = desk.queue(2..4);
    drop(held);
    assert_eq!((one.order(), two.order()), (vec![1], vec![2, 3]));
    desk.is_orderly();
}

#[test]
fn many_who_died_in_the_queue_hold_nobody_up() {
    let desk = Desk::new();
    dies(desk.turns().take().unwrap());
    // At a tenth of a second for each, those who live would go without a turn.
    let dead = || {
        let (tickets, serving) = desk.numbers();
        desk.put(tickets + 400, serving);
    };
    let live: Vec<_> = (1..4).map(|number| (dead(), desk.queue(number..number + 1)).1).collect();
    let served: Vec<_> = live.into_iter().flat_map(Queue::order).collect();
    assert_eq!(served, [1, 2, 3]);
    desk.is_orderly();
    desk.put(60_000, 0); // as a sidecar may write them
    assert!(desk.turns().take().unwrap().0.is_some());
    desk.is_orderly();
}

#[test]
fn who_is_at_work_for_long_is_not_passed_over() {
    let desk = Desk::new();
    let held = desk.turns().take().unwrap();
    let queue = desk.queue(1..3);
    // A wait that must not end has no gate: several patiences pass.
    assert!(queue.0.recv_timeout(4 * PATIENCE).is_err());
    assert_eq!(desk.numbers().1, 0);
    drop(held);
    assert_eq!(queue.order(), [1, 2]);
}

#[test]
fn who_is_seen_at_work_for_too_long_is_passed_over() {
    let desk = Desk::new();
    let held = desk.turns().take().unwrap();
    let queue = desk.queue(1..3);
    assert_eq!(queue.order(), [1, 2]);
    drop(held); // too late to have a say
    desk.is_orderly();
}

#[test]
fn who_was_passed_over_goes_on_without_a_turn_and_takes_nobodys() {
    let desk = Desk::new();
    let stopped = desk.turns().take().unwrap();
    let waiting = desk.queue(1..2); // sleeps
    desk.put(3, 2); // another has gone past both, and is at it
    drop(stopped);
    assert_eq!(waiting.0.recv().unwrap(), (1, false));
    assert_eq!(desk.numbers(), (3, 2));
}

#[test]
fn who_waited_its_time_goes_on_without_a_turn() {
    let desk = Desk::new();
    let (held, turns) = (desk.turns().take().unwrap(), desk.turns());
    assert!(patience::within(PATIENCE / 10, || stand(&turns.page().unwrap())).is_none());
    drop(held);
    desk.is_orderly();
}

#[test]
fn counters_wrap_around() {
    let desk = Desk::new();
    desk.turns();
    desk.put(u32::MAX - 2, u32::MAX - 2);
    desk.is_orderly();
    assert_eq!(desk.numbers(), (3, 3));
    desk.put(2, u32::MAX); // three dead ones, one of them before the turn of the counter
    desk.is_orderly();
}

#[test]
fn nonsense_in_the_file_costs_no_more_than_one_turn() {
    let desk = Desk::new();
    desk.turns();
    for (tickets, serving) in [(0, 1), (0, 1 << 31), (1 << 31, 0), (7, u32::MAX - CROWD), (u32::MAX, 5), (CROWD + 1, 0)]
    {
        desk.put(tickets, serving);
        drop(desk.turns().take().unwrap());
        desk.is_orderly();
    }
}

#[test]
fn a_file_without_content_or_with_too_little_is_filled() {
    for length in [0, 1, 7, 8, 4095] {
        let desk = Desk::new();
        fs::write(desk.file(), vec![0; length]).unwrap();
        desk.is_orderly();
    }
}

#[test]
fn a_file_cut_short_is_not_touched_and_then_mended() {
    let desk = Desk::new();
    let turns = desk.turns();
    drop(turns.take().unwrap());
    let held = turns.take().unwrap();
    let waiting = desk.queue(1..2);
    OpenOptions::new().write(true).open(desk.file()).unwrap().set_len(0).unwrap();
    // Here the counters are gone; reading them would end the process.
    assert!(turns.page.lock().counters().is_none());
    assert_eq!(waiting.0.recv().unwrap(), (1, false));
    drop(held);
    drop(turns.take().unwrap());
    desk.is_orderly();
}

#[test]
fn a_deleted_or_replaced_file_is_left_for_the_one_at_its_path() {
    let desk = Desk::new();
    let (turns, other) = (desk.turns(), desk.turns());
    let held = turns.take().unwrap();
    let before = desk.queue(1..3);
    fs::remove_file(desk.file()).unwrap();
    let second = other.take().unwrap(); // in another queue now: the file is there again
    assert!(second.0.is_some());
    assert_eq!(desk.numbers(), (1, 0));
    // Nobody in the first queue is stuck.
    drop(held);
    assert_eq!(before.order(), [1, 2]);
    // And its connection comes over.
    assert!(turns.try_take().is_none());
    drop(second);
    assert!(turns.try_take().is_some());
    fs::rename(desk.file(), desk.dir.path().join("away")).unwrap();
    fs::write(desk.file(), [0; 64]).unwrap();
    drop(turns.take().unwrap());
    assert_eq!(desk.numbers(), (1, 1));
    desk.is_orderly();
}

#[test]
fn what_cannot_be_mapped_or_is_no_file_leaves_the_order_to_sqlite() {
    let desk = Desk::new();
    let path = desk.dir.path().join("x");
    fs::create_dir(desk.file()).unwrap();
    assert!(Turns::beside(&path).is_none());
    fs::remove_dir(desk.file()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, desk.file(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(Turns::beside(&path).is_none());
    fs::remove_file(desk.file()).unwrap();
    std::os::unix::fs::symlink(desk.dir.path().join("elsewhere"), desk.file()).unwrap();
    assert!(Turns::beside(&path).is_none());
    fs::remove_file(desk.file()).unwrap();
    // And so does a file that becomes one under an open connection.
    let turns = desk.turns();
    fs::remove_file(desk.file()).unwrap();
    fs::create_dir(desk.file()).unwrap();
    assert!(turns.take().unwrap().0.is_none());
    assert!(turns.try_take().is_none());
    fs::remove_dir(desk.file()).unwrap();
    assert!(turns.take().unwrap().0.is_some());
}

#[test]
fn a_copy_in_a_forked_child_gives_nothing_back() {
    let desk = Desk::new();
    let mut held = desk.turns().take().unwrap();
    // A fork's child has what its parent has, and another pid.
    held.0.as_mut().unwrap().pid = Pid::INIT;
    drop(held);
    assert_eq!(desk.numbers(), (1, 0));
}
