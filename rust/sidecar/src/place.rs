//! How does this sidecar reach the host: by the mounted database, or over the broker? What the launch says, flags first.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bot_bottle_store::{AuditStore, Broker, Database, Error, GrantStore, Keyring, QueueStore, Result, TrustedKey};
use clap::Args;
use serde_json::json;

use crate::told::{as_json, print};

/// Set once a signal asked the program to end.
pub type Interrupted = Arc<AtomicBool>;

#[derive(Args)]
pub struct Place {
    /// The database, as this sidecar sees it [env: SUPERVISE_DB_PATH, unless SUPERVISE_URL is set].
    // Not clap's own `env`: an image sets the one variable for good, a launch that uses the broker the other.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["url", "token_file", "cert_file"])]
    db: Option<PathBuf>,
    /// The host's broker instead: http://host:port, https://host:port or http+unix:///path [env: SUPERVISE_URL].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Holds the bottle's token for the broker [env: SUPERVISE_TOKEN_FILE].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// For https: the broker's certificate, the only one that is trusted [env: SUPERVISE_TLS_CERT_FILE].
    #[arg(long, value_name = "FILE")]
    cert_file: Option<PathBuf>,
    /// The keys that answers and grants must be signed by [env: SUPERVISE_OPERATOR_KEY_FILE]; without it what the
    /// database or the broker says is taken.
    #[arg(long, value_name = "FILE")]
    operator_keys: Option<PathBuf>,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
}

enum Way {
    File(PathBuf),
    Broker(Broker),
}

/// A variable; an empty one counts as not set.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn missing(what: &'static str, reason: &str) -> Error {
    Error::InvalidInput { what, reason: reason.to_owned() }
}

impl Place {
    fn way(&self) -> Result<Way> {
        if let Some(path) = &self.db {
            return Ok(Way::File(path.clone()));
        }
        let url = self.url.clone().or_else(|| Some(variable("SUPERVISE_URL")?.to_string_lossy().into_owned()));
        let Some(url) = url else {
            let path = variable("SUPERVISE_DB_PATH").map(PathBuf::from);
            return path.map(Way::File).ok_or_else(|| missing("--db", "or --url is needed, or their variables"));
        };
        let named = |flag: &Option<PathBuf>, name| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let token_file = named(&self.token_file, "SUPERVISE_TOKEN_FILE")
            .ok_or_else(|| missing("--token-file", "or SUPERVISE_TOKEN_FILE is needed to speak to a broker"))?;
        let cert_file = named(&self.cert_file, "SUPERVISE_TLS_CERT_FILE");
        Broker::new(&url, &token_file, cert_file.as_deref()).map(Way::Broker)
    }

    fn keys(&self) -> Option<PathBuf> {
        self.operator_keys.clone().or_else(|| variable("SUPERVISE_OPERATOR_KEY_FILE").map(PathBuf::from))
    }

    pub fn queue(&self, bottle: &str) -> Result<QueueStore> {
        let store = match self.way()? {
            Way::File(path) => QueueStore::new(bottle, Some(&path)),
            Way::Broker(broker) => QueueStore::over(bottle, &broker),
        }?;
        Ok(store.trusting(self.keys().as_deref()))
    }

    pub fn grants(&self) -> Result<GrantStore> {
        let store = match self.way()? {
            Way::File(path) => GrantStore::new(Some(&path)),
            Way::Broker(broker) => Ok(GrantStore::over(&broker)),
        }?;
        Ok(store.trusting(self.keys().as_deref()))
    }

    pub fn audit(&self) -> Result<AuditStore> {
        match self.way()? {
            Way::File(path) => AuditStore::new(Some(&path)),
            Way::Broker(broker) => Ok(AuditStore::over(&broker)),
        }
    }

    /// Looks whether it works, and measures how fast.
    pub fn doctor(&self) -> Result<u8> {
        match self.way()? {
            Way::File(path) => self.examine_file(&Database::new(Some(&path))?),
            Way::Broker(broker) => self.examine_broker(&broker),
        }
    }

    fn examine_file(&self, db: &Database) -> Result<u8> {
        let status = db.status()?;
        // Opening it is the test: it says why not, with the exit code of what is wrong.
        let opened = if status.exists { db.check_access() } else { Ok(()) };
        let heard = if status.exists && opened.is_ok() { db.ring_test(Duration::from_secs(2)).ok() } else { None };
        let mut report = as_json(&status);
        report["transport"] = json!("mount");
        report["wake_up_ms"] = json!(heard.map(|heard| heard.as_secs_f64() * 1e3));
        let trusts = self.trusts();
        let opened = opened.and_then(|()| trusts.as_ref().map(drop).map_err(Clone::clone));
        report["problem"] = json!(opened.as_ref().err().map(ToString::to_string));
        report["trusts"] = json!(trusts.as_ref().ok());
        print(self.json, &report, || {
            let mut lines = vec![
                "transport   the database as a mounted file".to_owned(),
                format!("database    {} ({})", status.real_path, if status.exists { "there" } else { "not there yet" }),
                format!(
                    "filesystem  {}, {}",
                    status.filesystem,
                    if status.mount_safe { "safe to share" } else { "NOT safe to share" }
                ),
            ];
            for (module, versions) in &status.modules {
                let known = versions
                    .supported
                    .map_or_else(|| "another program's".to_owned(), |n| format!("this release knows {n}"));
                lines.push(format!("schema      {module} {} ({known})", versions.found));
            }
            lines.push(match heard {
                Some(heard) => format!("wake-up     heard after {:.3} ms", heard.as_secs_f64() * 1e3),
                None if status.exists && opened.is_ok() => "wake-up     not heard; waits look once a second".to_owned(),
                None => "wake-up     not tried".to_owned(),
            });
            lines.extend(trusts.as_ref().ok().map(|keys| said(keys.as_deref(), "the file")));
            lines.join("\n")
        });
        opened.map(|()| 0)
    }

    fn examine_broker(&self, broker: &Broker) -> Result<u8> {
        let trusts = self.trusts();
        let probed = broker.probe().and_then(|found| trusts.as_ref().map(|_| found).map_err(Clone::clone));
        let mut report = probed.as_ref().map_or_else(|_| json!({"url": broker.url()}), as_json);
        report["transport"] = json!("broker");
        report["trusts"] = json!(trusts.as_ref().ok());
        report["problem"] = json!(probed.as_ref().err().map(ToString::to_string));
        print(self.json, &report, || {
            let mut lines = vec![format!("transport   the host's broker at {}", broker.url())];
            if let Ok(found) = &probed {
                lines.push(format!("bottle      {}, as its token says", found.bottle));
                lines.push(format!("release     {} there, {} here", found.version, env!("CARGO_PKG_VERSION")));
                lines.push(format!("round trip  {:.3} ms", found.round_trip_ms));
                let (by, how) = (found.clock_ahead_seconds.abs(), found.clock_ahead_seconds > 0.0);
                let how = if how { "ahead of" } else { "behind" };
                lines.push(format!("clock       {by:.3} s {how} the host's, which judges expiries"));
            }
            lines.extend(trusts.as_ref().ok().map(|keys| said(keys.as_deref(), "the broker")));
            lines.join("\n")
        });
        probed.map(|_| 0)
    }

    /// The keys that an answer must be signed by, if it must be.
    fn trusts(&self) -> Result<Option<Vec<TrustedKey>>> {
        let Some(file) = self.keys() else { return Ok(None) };
        Keyring::open(&file).map(|keyring| Some(keyring.keys().to_vec()))
    }
}

fn said(keys: Option<&[TrustedKey]>, otherwise: &str) -> String {
    let Some(keys) = keys else { return format!("answers     taken as {otherwise} says: no keys were given") };
    let each = |key: &TrustedKey| {
        let until = if key.is_current() { "" } else { ", not for new ones" };
        format!("{} of {} ({}{until})", key.id, key.name, key.role.name())
    };
    format!("answers     only signed by {}", keys.iter().map(each).collect::<Vec<_>>().join(", "))
}
