//! How does a program end that must not be waited for without end?

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Each pause is this part of the time that has passed, so that little is waited for nothing.
const PART_OF_THE_WAIT: u32 = 50;

/// Why a program was not waited for to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Interrupted,
    TooLate,
}

/// Starts it at the head of a group of its own, which is killed with it: ssh, say, outlives the git that started it, and
/// keeps the pipes open that somebody reads to the end.
pub fn start(command: &mut Command) -> io::Result<Child> {
    command.process_group(0).spawn()
}

/// Its exit status; or, if `deadline` passes or somebody interrupts before, it is killed and nothing of it is left.
pub fn end(child: &mut Child, deadline: Instant, interrupted: &AtomicBool) -> io::Result<Result<ExitStatus, Ended>> {
    let start = Instant::now();
    let why = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Ok(status)),
            Ok(None) if interrupted.load(Ordering::Relaxed) => break Ok(Err(Ended::Interrupted)),
            Ok(None) if Instant::now() >= deadline => break Ok(Err(Ended::TooLate)),
            Ok(None) => {
                thread::sleep((start.elapsed() / PART_OF_THE_WAIT).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
            }
            Err(error) => break Err(error),
        }
    };
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
    why
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    /// A program that hangs, and has started another that does.
    fn hanging() -> Child {
        start(Command::new("sh").args(["-c", "sleep 3600 & wait"]).stdout(Stdio::piped())).expect("it starts")
    }

    /// Whoever reads what they print comes to the end.
    fn is_gone(mut child: Child) -> bool {
        let read = child.stdout.take().expect("it is piped").read_to_end(&mut Vec::new());
        read.is_ok() && child.try_wait().expect("it can be waited for").is_some()
    }

    #[test]
    fn one_that_hangs_is_killed_at_the_deadline() {
        let mut child = hanging();
        let ended = end(&mut child, Instant::now(), &AtomicBool::new(false)).expect("it can be waited for");
        assert_eq!(ended, Err(Ended::TooLate));
        assert!(is_gone(child));
    }

    #[test]
    fn one_that_hangs_is_killed_when_somebody_interrupts() {
        let mut child = hanging();
        let later = Instant::now() + Duration::from_secs(3600);
        let ended = end(&mut child, later, &AtomicBool::new(true)).expect("it can be waited for");
        assert_eq!(ended, Err(Ended::Interrupted));
        assert!(is_gone(child));
    }

    #[test]
    fn one_that_ends_says_how() {
        let mut child = start(Command::new("sh").args(["-c", "exit 3"])).expect("it starts");
        let later = Instant::now() + Duration::from_secs(3600);
        let ended = end(&mut child, later, &AtomicBool::new(false)).expect("it can be waited for");
        assert_eq!(ended.map(|status| status.code()), Ok(Some(3)));
    }
}
