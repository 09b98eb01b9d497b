//! How does a test get another process? The test binary starts itself again and plays a part there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

/// Which part; in a run of the tests it is not set.
const PART: &str = "BOT_BOTTLE_TEST_PART";
const ARGS: &str = "BOT_BOTTLE_TEST_ARGS";
/// Marks a line as the part's, among what the test harness prints.
const MARK: &str = "\u{bb} ";

/// Another process, killed with the test at the latest.
pub struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts it in its part.
    pub fn start(part: &str, args: &[&str]) -> Self {
        Self::spawn(&mut Command::new(std::env::current_exe().unwrap()), part, args)
    }

    /// As [`Child::start`], through a command that runs what is appended to it.
    pub fn start_through(command: &mut Command, part: &str, args: &[&str]) -> Self {
        Self::start_as(command, &std::env::current_exe().unwrap(), part, args)
    }

    /// The same with a copy of the test binary.
    pub fn start_as(command: &mut Command, binary: &Path, part: &str, args: &[&str]) -> Self {
        Self::spawn(command.arg(binary), part, args)
    }

    fn spawn(command: &mut Command, part: &str, args: &[&str]) -> Self {
        command.args(["--exact", "child::part", "--nocapture", "--quiet"]);
        command.env(PART, part).env(ARGS, args.join("\n")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Child { process, input, output }
    }

    /// Its next line; `None` once it has ended.
    pub fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// The line it has to say now.
    pub fn says(&mut self) -> String {
        self.next().expect("the other process ended without a word")
    }

    /// Gives it a line.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Stops it where it is, or has it go on.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal).unwrap();
    }

    /// SIGKILL, now; what it had said until then.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Waits for its end, which has to be a good one; what else it said.
    pub fn ends(mut self) -> Vec<String> {
        let said: Vec<String> = std::iter::from_fn(|| self.next()).collect();
        assert!(self.process.wait().unwrap().success(), "the other process failed; it said {said:?}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In a child: tells the parent. One write, so that a line is said or not.
pub fn say(line: &str) {
    std::io::stdout().write_all(format!("{MARK}{line}\n").as_bytes()).unwrap();
}

/// In a child: the parent's next line; the child ends with its parent.
pub fn hear() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap() == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}

/// Not a test: where a child begins.
#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let args = std::env::var(ARGS).unwrap();
    let mut args = args.split('\n');
    let mut next = || args.next().unwrap();
    match part.as_str() {
        "opens" => crate::migrations::opens(),
        "makes" => crate::migrations::makes(Path::new(next())),
        "is a host" => crate::migrations::is_a_host(),
        "decides" => crate::concurrency::decides(Path::new(next()), next()),
        "proposes" => crate::concurrency::proposes(Path::new(next()), next()),
        "holds" => crate::concurrency::holds(Path::new(next())),
        "writes" => crate::concurrency::writes(Path::new(next()), next()),
        "decides all" => crate::crash::decides_all(Path::new(next())),
        "answers" => crate::wait::answers(Path::new(next())),
        "waits a thousand times" => crate::wait::waits_a_thousand_times(Path::new(next())),
        "blocks in threads" => crate::wait::blocks_in_threads(Path::new(next())),
        "waits" => crate::wait::waits(Path::new(next()), next()),
        "spends" => crate::grant::spends(Path::new(next())),
        "reads as nobody" => crate::mounts::reads_as_nobody(Path::new(next())),
        other => unreachable!("nobody plays {other}"),
    }
    std::process::exit(0);
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
