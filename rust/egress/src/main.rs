//! Where may a bottle's traffic go, and with which secrets? The egress proxy, one process for one bottle.
//!
//! | file | its question |
//! |---|---|
//! | `settings` | What does the launch say? |
//! | `connection` | What is spoken on a client's connection: a request to the proxy, TLS, or HTTP in a tunnel? |
//! | `unparsed` | What is a client told whose request is no HTTP? |
//! | `authority` | How does the proxy show itself to an agent as the server it asked for? |
//! | `head` | What does a request's head say, and what of it goes to the server? |
//! | `exchange` | What happens to one request, from its head to its answer's? |
//! | `scanning` | Is there a secret in these places, and how is it masked there? |
//! | `settle`, `leave` | What is done about a secret, and may it leave? |
//! | `outbound`, `inbound`, `websocket` | What passes: a request's body, an answer, messages? |
//! | `upstream`, `network` | How is a server reached, and where may a name lead? |
//! | `routes_file`, `record`, `answers` | Which routes are in force, what goes on record, what is an agent told? |

#![forbid(unsafe_code)]

mod answers;
mod authority;
mod body;
mod connection;
mod decode;
mod exchange;
mod head;
mod inbound;
mod leave;
mod network;
mod outbound;
mod record;
mod routes_file;
mod scanning;
mod settings;
mod settle;
mod tunnel;
mod unparsed;
mod upstream;
mod websocket;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bot_bottle_routes::Routes;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::authority::Authority;
use crate::connection::Proxy;
use crate::leave::{Leave, fingerprint_key};
use crate::record::{Record, log};
use crate::routes_file::{InForce, RoutesFile};
use crate::settings::{Problem, Settings, strerror};
use crate::upstream::Upstream;

/// Between looks at the routes' file while no request comes.
const ROUTES_LOOK: Duration = Duration::from_secs(1);
/// For answers to those that were held when a stop came.
const LAST_WORDS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // What a panic says may quote what an agent sent; where it happened is enough to mend it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}, line {}", place.file(), place.line()));
        log(&format!("internal error in {}", place.unwrap_or_default()));
    }));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log(&format!("no threads can be started: {}.", strerror(&error)));
            return ExitCode::from(2);
        }
    };
    let ended = Settings::read().and_then(|settings| runtime.block_on(serve(settings)));
    // What still blocks on the broker has been told to stop, and is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log(&problem.sentence);
            ExitCode::from(problem.code)
        }
    }
}

/// Runs until SIGTERM or SIGINT.
async fn serve(settings: Settings) -> Result<(), Problem> {
    let signals = |kind| signal(kind).map_err(|error| format!("signals cannot be received: {}.", strerror(&error)));
    let (mut terminated, mut interrupted) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let confdir = settings.confdir.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.confdir)
        .map_err(|error| format!("EGRESS_CONFDIR {confdir}: {}.", strerror(&error)))?;
    let stopped = Arc::new(AtomicBool::new(false));
    let stores = settings.stores(&stopped)?;
    let key = fingerprint_key(&settings.key_file)?;
    let authority = Authority::open(&settings.confdir, settings.ca_cert_file.as_deref())?;
    let upstream = Upstream::new(&settings.network, settings.upstream_ca_file.as_deref())?;
    let record = Arc::new(Record::new(&settings.slug, stores.audit));
    let (told, nothing) = (record.clone(), InForce::new(Routes::default()));
    let report = move |action, sentence: &str| told.write(action, &scanning::cleaned(sentence, nothing.all()));
    let leave = Leave::new(&settings.slug, stores.queue, stores.grants, key, settings.hold, stopped);
    let proxy = Arc::new(Proxy {
        routes: RoutesFile::new(settings.routes_file, Box::new(report)),
        leave: Arc::new(leave),
        record: record.clone(),
        upstream,
        authority,
        network: settings.network,
        ports: settings.ports,
        slug: settings.slug,
    });
    let place = (settings.host.trim_matches(['[', ']']), settings.port);
    let cannot =
        |error: std::io::Error| format!("cannot listen on {}:{}: {}.", settings.host, settings.port, strerror(&error));
    let listener = TcpListener::bind(place).await.map_err(cannot)?;
    let port = listener.local_addr().map_err(cannot)?.port();
    let routes = proxy.routes.current();
    log(&format!("listening on port {port}"));
    let accepting = tokio::spawn(connection::accept(proxy.clone(), listener));
    let looking = tokio::spawn(keep_looking(proxy.clone()));
    // The first request need not wait until what is looked for is compiled.
    tokio::task::spawn_blocking(move || routes.all().is_empty());
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    accepting.abort();
    looking.abort();
    proxy.leave.stop().await;
    tokio::time::sleep(LAST_WORDS).await;
    let _ = tokio::task::spawn_blocking(move || record.close()).await;
    Ok(())
}

async fn keep_looking(proxy: Arc<Proxy>) {
    loop {
        tokio::time::sleep(ROUTES_LOOK).await;
        proxy.routes.current();
    }
}
