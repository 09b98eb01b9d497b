//! Which routes are in force right now, as the managed file changes under a running proxy?
//!
//! The file is looked at whenever a request is judged, so an approval that has been applied is in force for the very
//! next one. A file that cannot be read leaves the last good routes in force, and at the start nothing at all.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bot_bottle_routes::{Auth, AuthKind, Detectors as Chosen, MAX_BYTES, Route, Routes, load, token, tokens};
use bot_bottle_scan::Detectors;
use bot_bottle_store::sha256_hex;

use crate::settings::strerror;

/// The state of a file by which a change shows.
type State = (i64, i64, i64, i64, u64, u64);

/// Routes with what is looked for on each.
pub struct InForce {
    pub routes: Routes,
    known: Vec<(String, Vec<u8>)>,
    /// By `token_patterns` and `known_secrets`.
    outbound: [OnceLock<Detectors>; 4],
    inbound: Vec<OnceLock<Detectors>>,
}

impl InForce {
    pub fn new(routes: Routes) -> Self {
        let mut known = Vec::new();
        for (name, value) in tokens(&routes, &environment) {
            known.push((name, value.into_bytes()));
        }
        let inbound = routes.routes().iter().map(|_| OnceLock::new()).collect();
        InForce { routes, known, outbound: Default::default(), inbound }
    }

    /// What is looked for in requests on this route.
    pub fn outbound(&self, route: &Route) -> &Detectors {
        self.chosen(route.dlp.outbound)
    }

    /// The same without published formats: what authenticates somebody has one.
    pub fn outbound_known(&self, route: &Route) -> &Detectors {
        self.chosen(Chosen { token_patterns: false, ..route.dlp.outbound })
    }

    /// Everything, for what is written down.
    pub fn all(&self) -> &Detectors {
        self.chosen(Chosen { token_patterns: true, known_secrets: true })
    }

    /// What is looked for in answers on this route: a server can return the token it was sent, no other.
    pub fn inbound(&self, at: usize) -> &Detectors {
        let route = &self.routes.routes()[at];
        self.inbound[at].get_or_init(|| {
            let mut own = Vec::new();
            if route.dlp.inbound.known_secrets
                && let Some(value) = token(route, &environment)
            {
                if let Some(Auth::Injected { kind: AuthKind::Basic(user), .. }) = &route.auth {
                    own.push(("injected token".to_owned(), format!("{user}:{value}").into_bytes()));
                }
                own.push(("injected token".to_owned(), value.into_bytes()));
            }
            Detectors::new(route.dlp.inbound.token_patterns, own)
        })
    }

    fn chosen(&self, chosen: Chosen) -> &Detectors {
        let at = usize::from(chosen.token_patterns) + 2 * usize::from(chosen.known_secrets);
        self.outbound[at].get_or_init(|| {
            let known = if chosen.known_secrets { self.known.clone() } else { Vec::new() };
            Detectors::new(chosen.token_patterns, known)
        })
    }
}

/// Where routes find the tokens they name.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Told of every change: what happened (`routes-loaded`, `routes-refused`) and a sentence.
type Report = Box<dyn Fn(&'static str, &str) + Send + Sync>;

/// Which file is in force, for whoever has to tell an agent that it is.
#[derive(Clone, Default)]
pub struct Standing {
    /// Of the file that is in force; none yet.
    pub sha256: Option<String>,
    /// Why the file that is there now is not.
    pub refused: Option<String>,
}

pub struct RoutesFile {
    path: PathBuf,
    report: Report,
    held: Mutex<Held>,
}

struct Held {
    in_force: Arc<InForce>,
    standing: Standing,
    /// Outer `None`: not looked at yet. Inner: the file is missing.
    seen: Option<Option<State>>,
    loaded: bool,
}

impl RoutesFile {
    pub fn new(path: PathBuf, report: Report) -> Self {
        let in_force = Arc::new(InForce::new(Routes::default()));
        let held = Held { in_force, standing: Standing::default(), seen: None, loaded: false };
        RoutesFile { path, report, held: Mutex::new(held) }
    }

    /// The routes in force; reads the file if it changed since the last call.
    pub fn current(&self) -> Arc<InForce> {
        self.looked_at().in_force.clone()
    }

    /// Which file that is.
    pub fn standing(&self) -> Standing {
        self.looked_at().standing.clone()
    }

    fn looked_at(&self) -> MutexGuard<'_, Held> {
        let state = self.state();
        let mut held = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if held.seen != Some(state) {
            held.seen = Some(state);
            let (action, sentence) = self.reload(&mut held);
            (self.report)(action, &sentence);
            // A file that is not there yet is no fault: everything is denied until the first approval.
            held.standing.refused = (action == "routes-refused" && state.is_some()).then_some(sentence);
        }
        held
    }

    fn state(&self) -> Option<State> {
        let found = std::fs::metadata(&self.path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec(), found.size(), found.ino()))
    }

    fn reload(&self, held: &mut Held) -> (&'static str, String) {
        let kept = |first: &str| match held.loaded {
            true => format!("{first}he last good routes stay in force."),
            false => format!("{}verything is denied until it is mended.", if first == "T" { "E" } else { "e" }),
        };
        let path = self.path.display();
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            return ("routes-refused", format!("{path} cannot be read ({}); {}", strerror(&error), kept("t")));
        }
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                return ("routes-refused", format!("{path} is not UTF-8 at byte {at}; {}", kept("t")));
            }
        };
        match load(text) {
            Err(error) => ("routes-refused", format!("{error} {}", kept("T"))),
            Ok(routes) => {
                let count = routes.routes().len();
                let tunnels: Vec<_> =
                    routes.routes().iter().filter(|route| route.tunnel).map(|route| route.host.as_str()).collect();
                let unopened = match tunnels.as_slice() {
                    [] => String::new(),
                    hosts => format!(" Unopened tunnels: {}.", hosts.join(", ")),
                };
                held.in_force = Arc::new(InForce::new(routes));
                held.loaded = true;
                held.standing.sha256 = Some(sha256_hex(text.as_bytes()));
                ("routes-loaded", format!("{count} routes in force.{unopened}"))
            }
        }
    }
}
