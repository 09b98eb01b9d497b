//! How fast is a scan? `cargo run --release -p bot-bottle-scan --example speed [FILE ...]`
//!
//! Prints MiB/s of one core for what agents send, fed in pieces of 64 KiB, and what small requests that expand cost at
//! most; with files, what each of them costs. The processor's time counts where the system tells it (Linux), so that
//! other work on the machine matters little, and the best of some rounds.

use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bot_bottle_scan::{Budget, Detectors, Scanner};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

const SIZE: usize = 32 << 20;
const PIECE: usize = 64 << 10;
const ROUNDS: usize = 5;

fn main() {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    if !files.is_empty() {
        println!("{:44} {:>9} {:>8} {:>7}", "file", "bytes", "ms", "MiB");
    }
    for file in &files {
        match std::fs::read(file) {
            Ok(data) => bomb(&file.to_string_lossy(), &data, &[]),
            Err(error) => println!("{}: {error}", file.to_string_lossy()),
        }
    }
    if !files.is_empty() {
        return;
    }
    let noise = noise(SIZE);
    let text = prose(SIZE);
    let code = code(SIZE);
    let json = code.iter().flat_map(|&byte| match byte {
        b'\n' => vec![b'\\', b'n'],
        b'"' | b'\\' => vec![b'\\', byte],
        _ => vec![byte],
    });
    let json: Vec<u8> = json.take(SIZE).collect();
    let base64 = STANDARD.encode(&noise[..SIZE * 3 / 4]).into_bytes();
    let hex: Vec<u8> = noise[..SIZE / 2].iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
    println!("{:28} {:>9}", "plain text", speed(&text, &[], text.len()));
    println!("{:28} {:>9}", "source code", speed(&code, &[], code.len()));
    println!("{:28} {:>9}", "source code in JSON", speed(&json, &[], json.len()));
    println!("{:28} {:>9}", "random bytes", speed(&noise, &[], noise.len()));
    println!("{:28} {:>9}", "zeros", speed(&vec![0; SIZE], &[], SIZE));
    println!("{:28} {:>9}", "base64 of random bytes", speed(&base64, &[], base64.len()));
    println!("{:28} {:>9}", "hex of random bytes", speed(&hex, &[], hex.len()));
    let packed = gzip(&text);
    println!("{:28} {:>9} of text", "text, Content-Encoding gzip", speed(&packed, &["gzip"], text.len()));
    println!("{:28} {:>9} of text", "text in a .gz file", speed(&packed, &[], text.len()));

    println!("\n{:44} {:>9} {:>8} {:>7}", "one request", "bytes", "ms", "MiB");
    let everything = b"%41\\x42&#67;ghp_ sk- AKIA eyJ0abcdefghijklmnopqrst 6162636465666768696a6b6c6d6e6f70 h\0e\0l\0l\0o\0w\0o\0r\0l\0d\0 ";
    let everything = everything.repeat(40_000);
    let packed = zlib(&everything[..4 << 20]);
    bomb(
        "base64 of zlib of 4 MiB of everything, n times",
        STANDARD.encode(packed.repeat(48_000 / packed.len())).as_bytes(),
        &[],
    );
    bomb(
        "base64 of zlib of 4 MiB of A, 16 times",
        STANDARD.encode(zlib(&vec![b'A'; 4 << 20]).repeat(16)).as_bytes(),
        &[],
    );
    let inner = STANDARD.encode(&noise[..3 << 10]).repeat(1024);
    bomb(
        "base64 of zlib of 4 MiB of base64, 4 times",
        STANDARD.encode(zlib(&inner.as_bytes()[..4 << 20]).repeat(4)).as_bytes(),
        &[],
    );
    bomb("gzip of 60 MiB of zeros, Content-Encoding", &gzip(&vec![0; 60 << 20]), &["gzip"]);
    bomb("gzip of 50 MiB of everything, Content-Encoding", &gzip(&everything.repeat(13)), &["gzip"]);
    bomb("gzip of 8 MiB of zeros, 8 times", &gzip(&vec![0; 8 << 20]).repeat(8), &[]);
    let thrice = STANDARD.encode(STANDARD.encode(STANDARD.encode(&noise[..400_000])));
    bomb("1 MiB of base64 thrice", thrice.as_bytes(), &[]);
    let mut mix = Vec::new();
    for part in noise.chunks(60).take(6000) {
        write!(mix, "%41\\x42&#67;eyJ0 {} ", STANDARD.encode(&part[..30])).expect("a vector grows");
        mix.extend(part[30..].iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        mix.extend(b" h\0e\0l\0l\0o\0w\0o\0r\0l\0d\0 x\x9c");
    }
    bomb("1 MiB of all kinds", &mix, &[]);
    bomb("1 MiB of beginnings", &b"eyJeyJghp_sk-AKIA".repeat(60_000), &[]);
}

/// Time that this thread spent on a processor, or that passed where the system does not tell.
struct Clock(Instant, Option<Duration>);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now(), Clock::on_processor())
    }

    fn elapsed(&self) -> Duration {
        match (self.1, Clock::on_processor()) {
            (Some(before), Some(now)) => now - before,
            _ => self.0.elapsed(),
        }
    }

    fn on_processor() -> Option<Duration> {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        told.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }
}

fn detectors() -> Detectors {
    Detectors::new(true, vec![("a token".to_string(), b"injected-SeCrEtVaLuE0123456789abcd".to_vec())])
}

fn speed(data: &[u8], codings: &[&str], counted: usize) -> String {
    let detectors = detectors();
    let best = (0..ROUNDS).map(|_| {
        let mut scanner = Scanner::new(&detectors, &Budget::for_request()).encoded(codings).expect("a known coding");
        let clock = Clock::start();
        for piece in data.chunks(PIECE) {
            if let Err(error) = scanner.feed(piece) {
                println!("{error}");
                break;
            }
        }
        clock.elapsed()
    });
    let best = best.min().unwrap_or(Duration::MAX);
    format!("{:.0} MiB/s", counted as f64 / (1 << 20) as f64 / best.as_secs_f64())
}

fn bomb(name: &str, data: &[u8], codings: &[&str]) {
    let budget = Budget::for_request();
    let mut scanner = Scanner::new(&detectors(), &budget).encoded(codings).expect("a known coding");
    let (clock, mut most) = (Clock::start(), 0);
    let mut outcome = "scanned".to_string();
    for piece in data.chunks(PIECE) {
        let fed = scanner.feed(piece);
        most = most.max(budget.memory());
        if let Err(error) = fed {
            outcome = error.to_string();
            break;
        }
    }
    let time = clock.elapsed().as_secs_f64() * 1000.0;
    println!(
        "{name:44} {:>9} {time:>8.1} {:>7.1}  {outcome:.40} ({} Msteps)",
        data.len(),
        most as f64 / (1 << 20) as f64,
        budget.steps() >> 20
    );
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(size / 8).flatten().collect()
}

fn words(size: usize, words: &[&str], every: usize, end: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 64);
    for (count, byte) in noise(size).into_iter().enumerate() {
        text.extend(words[usize::from(byte) % words.len()].as_bytes());
        text.extend(if count % every == every - 1 { end } else { " " }.as_bytes());
        if text.len() >= size {
            break;
        }
    }
    text
}

fn prose(size: usize) -> Vec<u8> {
    let list = "the a of and to in is it that for with as was on are this be at by from or an have not they which one you \
        were all their there been if more when will would who so no out up into about than them can only other time some \
        could these two may then do first any like over such new most also made after before between under information \
        request response because through different something important, development. understanding? however; another";
    words(size, &list.split_whitespace().collect::<Vec<_>>(), 12, ".\n")
}

fn code(size: usize) -> Vec<u8> {
    let list = "let mut self.window = fn process(&mut self, context: &Context<'_>) -> Result<(), ScanError> { if \
        self.seen == self.window.len() && !last { return Ok(()); } for (index, layer) in layers.iter_mut().enumerate() \
        match outcome { Some(value) => value, None => continue, } /* a comment about something */ \"text {}\" 0x1f, 42 \
        use crate::inflate::{Inflater, Progress}; const MAX_DEPTH: usize = 10; #[derive(Debug, Clone)] pub struct Layer";
    words(size, &list.split_whitespace().collect::<Vec<_>>(), 9, "\n        ")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("a vector grows")
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("a vector grows")
}
