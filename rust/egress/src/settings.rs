//! What does the launch say? `docs/egress.md` has each variable.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bot_bottle_routes::quoted;
use bot_bottle_store::{AuditStore, Broker, DB_PATH_IN_CONTAINER, Error, GrantStore, QueueStore, ask_while_waiting};

use crate::network::Network;

/// Why it cannot run: a sentence, and the exit code.
#[derive(Debug)]
pub struct Problem {
    pub sentence: String,
    pub code: u8,
}

impl From<String> for Problem {
    fn from(sentence: String) -> Self {
        Problem { sentence, code: 2 }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem { code: error.exit_code(), sentence: error.to_string() }
    }
}

pub struct Settings {
    pub slug: String,
    pub routes_file: PathBuf,
    pub host: String,
    pub port: u16,
    pub confdir: PathBuf,
    pub key_file: PathBuf,
    pub ca_cert_file: Option<PathBuf>,
    pub upstream_ca_file: Option<PathBuf>,
    pub ports: Vec<u16>,
    pub hold: Duration,
    pub network: Network,
}

/// The stores this sidecar uses, in the mounted file or over the broker.
pub struct Stores {
    pub queue: QueueStore,
    pub grants: GrantStore,
    pub audit: AuditStore,
}

/// A variable; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

/// What the system says of an error, without its number.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Settings {
    pub fn read() -> Result<Self, Problem> {
        let slug = variable("SUPERVISE_BOTTLE_SLUG")
            .ok_or_else(|| "SUPERVISE_BOTTLE_SLUG is not set: it names the bottle whose egress this is.".to_owned())?;
        let confdir = PathBuf::from(variable("EGRESS_CONFDIR").unwrap_or_else(|| "/var/lib/egress".to_owned()));
        let port = variable("EGRESS_PORT").unwrap_or_else(|| "8080".to_owned());
        let ports = variable("EGRESS_PORTS").unwrap_or_else(|| "80,443".to_owned());
        let hold = variable("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS").unwrap_or_else(|| "300".to_owned());
        Ok(Settings {
            slug,
            routes_file: variable("EGRESS_ROUTES_FILE").unwrap_or_else(|| "/run/bottle/routes.yaml".to_owned()).into(),
            // The agent's container is another host.
            host: variable("EGRESS_HOST").unwrap_or_else(|| "0.0.0.0".to_owned()),
            port: port_number("EGRESS_PORT", &port, 0)?,
            key_file: variable("EGRESS_FINGERPRINT_KEY_FILE")
                .map_or_else(|| confdir.join("fingerprint.key"), PathBuf::from),
            confdir,
            ca_cert_file: variable("EGRESS_CA_CERT_FILE").map(PathBuf::from),
            upstream_ca_file: variable("EGRESS_UPSTREAM_CA_FILE").map(PathBuf::from),
            ports: ports.split(',').map(|each| port_number("EGRESS_PORTS", each, 1)).collect::<Result<_, _>>()?,
            hold: seconds("EGRESS_TOKEN_ALLOW_TIMEOUT_SECONDS", &hold)?,
            network: Network::parse(
                &variable("EGRESS_PRIVATE_NETWORKS").unwrap_or_default(),
                &variable("EGRESS_CONNECT_TO").unwrap_or_default(),
            )?,
        })
    }

    /// Opens nothing yet; refuses a slug or a URL that is none.
    pub fn stores(&self, stopping: &Arc<AtomicBool>) -> Result<Stores, Problem> {
        let keys = variable("SUPERVISE_OPERATOR_KEY_FILE").map(PathBuf::from);
        let keys = keys.as_deref();
        let Some(url) = variable("SUPERVISE_URL") else {
            let path = PathBuf::from(variable("SUPERVISE_DB_PATH").unwrap_or_else(|| DB_PATH_IN_CONTAINER.to_owned()));
            let path = Some(path.as_path());
            return Ok(Stores {
                queue: QueueStore::new(&self.slug, path)?.trusting(keys),
                grants: GrantStore::new(path)?.trusting(keys),
                audit: AuditStore::new(path)?,
            });
        };
        let token_file = variable("SUPERVISE_TOKEN_FILE").ok_or_else(|| {
            "SUPERVISE_URL names a broker, and SUPERVISE_TOKEN_FILE is not set; it holds the token.".to_owned()
        })?;
        let cert_file = variable("SUPERVISE_TLS_CERT_FILE").map(PathBuf::from);
        let stopping = stopping.clone();
        ask_while_waiting(move || stopping.load(Ordering::Relaxed));
        let broker = Broker::new(&url, Path::new(&token_file), cert_file.as_deref())?;
        Ok(Stores {
            queue: QueueStore::over(&self.slug, &broker)?.trusting(keys),
            grants: GrantStore::over(&broker).trusting(keys),
            audit: AuditStore::over(&broker),
        })
    }
}

fn port_number(name: &str, text: &str, smallest: u16) -> Result<u16, Problem> {
    let found = text.trim().parse().ok().filter(|port| *port >= smallest);
    found.ok_or_else(|| format!("{name} is {}: it is a number from {smallest} to 65535.", quoted(text)).into())
}

fn seconds(name: &str, text: &str) -> Result<Duration, Problem> {
    let found = text.trim().parse::<f64>().ok().filter(|seconds| (1.0..=86400.0).contains(seconds));
    match found.map(Duration::from_secs_f64) {
        Some(found) => Ok(found),
        None => Err(format!("{name} is {}: it is a number from 1 to 86400.", quoted(text)).into()),
    }
}
