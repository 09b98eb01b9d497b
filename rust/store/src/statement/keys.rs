//! Where are a host's own keys, how do they come to be, and how do they change?
//!
//! ```text
//! <root>/keys/                0700, never mounted
//!   host.pem                  0600, this host's private key, made when something is first signed
//!   operators/NAME.pem        0600, private keys that `operator add` made
//!   generations/SLUG          the number of a bottle's newest registration
//!   public/keyring            all public keys; sidecars get this directory read-only
//! ```

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::keyring::{Keyring, Role, TrustedKey, key_id, parse_public, read_small};
use super::{Signature, Statement};
use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Reason, Result};
use crate::file::database::Database;
use crate::file::lock::Lock;
use crate::file::transaction::count_write;
use crate::patience;
use crate::rules::{check_name, check_text, check_time};
use crate::user::os_user;

/// PKCS#8 of Ed25519 up to the seed (RFC 8410, section 7).
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Before the PEM, where readers of PEM skip it: the machine that the key was made on.
const MACHINE: &str = "machine: ";

/// How long another process may take to change the keys; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names the file of a private key that signs decisions instead of the host's, on the host only.
pub(crate) const OPERATOR_KEY_VARIABLE: &str = "BOT_BOTTLE_OPERATOR_KEY";

/// A private key.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    pub(crate) public: [u8; 32],
    pub(crate) id: String,
    /// Of an operator's key.
    pub(crate) name: Option<String>,
}

impl Signer {
    /// In whose name it signs: its own, where it is an operator's key, or as given, or the operating system's user.
    pub(crate) fn author(&self, field: &'static str, given: Option<&str>) -> Result<String> {
        match (&self.name, given) {
            (Some(proven), _) => Ok(proven.clone()),
            (None, Some(name)) => check_text(field, name.as_bytes(), 256).map(str::to_owned),
            (None, None) => Ok(os_user()),
        }
    }

    fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        Some(Signer { pair, public, id: key_id(&public), name: None })
    }

    pub(crate) fn sign<S: Statement>(&self, statement: &S) -> Signature {
        Signature::new(&self.id, self.pair.sign(&statement.bytes(&self.id)).as_ref())
    }
}

/// A host's keys.
#[derive(Debug, Clone)]
pub struct Keys {
    dir: PathBuf,
}

/// Device, inode, size and time of change (of content, owner or mode) of a file whose content is kept in memory.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
}

/// What was read before, as long as its file has not changed.
type Remembered<T> = LazyLock<Mutex<HashMap<PathBuf, (Stamp, Arc<T>)>>>;

fn remember<T>(all: &Remembered<T>, path: &Path, read: impl FnOnce() -> Result<Option<T>>) -> Result<Option<Arc<T>>> {
    let Some(now) = stamp(path) else { return Ok(None) };
    if let Some((then, value)) = all.lock().get(path)
        && *then == now
    {
        return Ok(Some(value.clone()));
    }
    let value = read()?.map(Arc::new);
    // Changed while it was read: the next one reads it again.
    if let Some(value) = value.as_ref().filter(|_| stamp(path) == Some(now)) {
        all.lock().insert(path.to_owned(), (now, value.clone()));
    }
    Ok(value)
}

static SIGNERS: Remembered<Signer> = LazyLock::new(Mutex::default);
static KEYRINGS: Remembered<Keyring> = LazyLock::new(Mutex::default);

/// The trusted keys in a file; `None` where there is none.
pub(crate) fn keyring_at(path: &Path) -> Result<Option<Arc<Keyring>>> {
    remember(&KEYRINGS, path, || Keyring::read(path))
}

impl Keys {
    /// Those of this host, or of the database in a file.
    pub fn new(db_path: Option<&Path>) -> Result<Self> {
        Database::new(db_path).map(|db| Keys::of(&db))
    }

    /// Those of the host that a database belongs to.
    pub(crate) fn of(db: &Database) -> Self {
        Keys { dir: db.keys_dir().to_owned() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of this host's private key.
    pub fn host_file(&self) -> PathBuf {
        self.dir.join("host.pem")
    }

    /// The file that is mounted for sidecars, in a directory of its own.
    pub fn keyring_file(&self) -> PathBuf {
        self.dir.join("public").join("keyring")
    }

    /// The keys that this host trusts; none before anything was signed.
    pub fn keyring(&self) -> Result<Arc<Keyring>> {
        Ok(keyring_at(&self.keyring_file())?.unwrap_or_default())
    }

    /// What this host signs with, made now if it is missing.
    pub(crate) fn host(&self) -> Result<Arc<Signer>> {
        let path = self.host_file();
        // The keyring must have it, whatever process died in between; that is looked at when the key is first read.
        let known = remember(&SIGNERS, &path, || {
            let lock = self.lock()?;
            let signer = read_private(&path, true)?;
            if let Some(signer) = &signer {
                self.list_host(&lock, signer)?;
            }
            Ok(signer)
        })?;
        match known {
            Some(signer) => Ok(signer),
            None => {
                let lock = self.lock()?;
                let signer = match read_private(&path, true)? {
                    Some(signer) => signer,
                    None => make_private(&path, true, false)?,
                };
                self.list_host(&lock, &signer)?;
                Ok(Arc::new(signer))
            }
        }
    }

    /// What a decision is signed with: the operator's own key, where `BOT_BOTTLE_OPERATOR_KEY` names one, or the host's.
    pub(crate) fn decider(&self) -> Result<Arc<Signer>> {
        match std::env::var_os(OPERATOR_KEY_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => self.operator(Path::new(&path)).map(Arc::new),
            None => self.host(),
        }
    }

    fn operator(&self, path: &Path) -> Result<Signer> {
        let mut signer = read_private(path, false)?
            .ok_or_else(|| Error::key(path, format!("it does not exist, and {OPERATOR_KEY_VARIABLE} names it")))?;
        let keyring = self.keyring()?;
        let key = keyring.keys.iter().find(|key| key.id == signer.id && key.role == Role::Operator);
        match key {
            Some(key) if key.is_current() => {
                signer.name = Some(key.name.clone());
                Ok(signer)
            }
            Some(key) => {
                let at = key.revoked_at.as_deref().unwrap_or_default();
                Err(Error::key(path, format!("the key of {} was removed at {at}", key.name)))
            }
            None => {
                let reason =
                    format!("its key {} is no operator's here; `bot-bottle operator add` makes it one", signer.id);
                Err(Error::key(path, reason))
            }
        }
    }

    /// The number of the bottle's newest registration, as far as this host noted it; 0 before there was one.
    pub(crate) fn newest_generation(&self, slug: &str) -> Result<i64> {
        check_name("bottle_slug", slug)?;
        let path = self.dir.join("generations").join(slug);
        let text = read_small(&path)?.unwrap_or_default();
        match text.trim() {
            "" => Ok(0),
            number => number.parse().map_err(|_| Error::key(&path, "it does not hold a number; remove it")),
        }
    }

    /// Notes it, after the registration was committed: older ones count no more.
    pub(crate) fn note_generation(&self, slug: &str, generation: i64) -> Result<()> {
        check_name("bottle_slug", slug)?;
        let lock = self.lock()?;
        if generation <= self.newest_generation(slug)? {
            return Ok(());
        }
        let dir = self.dir.join("generations");
        make_dir(&dir)?;
        self.replace(&lock, &dir.join(slug), format!("{generation}\n").as_bytes())
    }

    /// A new private key for this host. The old one is deleted; what it signed stands.
    pub fn rotate(&self) -> Result<TrustedKey> {
        let lock = self.lock()?;
        let signer = make_private(&self.host_file(), true, true)?;
        self.list_host(&lock, &signer)
    }

    /// Trusts another host's public key, in the formats of `operator add --key`.
    pub fn trust(&self, name: &str, public: &Path) -> Result<TrustedKey> {
        self.add(Role::Trusted, name, public)
    }

    /// Trusts a person's public key.
    pub fn add_operator(&self, name: &str, public: &Path) -> Result<TrustedKey> {
        self.add(Role::Operator, name, public)
    }

    /// Makes a person's key pair and trusts it; with the file of the private key.
    pub fn make_operator(&self, name: &str) -> Result<(TrustedKey, PathBuf)> {
        check_name("name", name)?;
        let lock = self.lock()?;
        let dir = self.dir.join("operators");
        make_dir(&dir)?;
        let file = dir.join(format!("{name}.pem"));
        if file.symlink_metadata().is_ok() {
            return Err(Error::key(&file, "it is there already; remove it if nobody uses it any more"));
        }
        let mut keyring = self.keyring()?.as_ref().clone();
        refuse_twice(&keyring, name)?;
        let signer = make_private(&file, false, false)?;
        let key = TrustedKey::new(Role::Operator, name, signer.public);
        keyring.keys.push(key.clone());
        self.store(&lock, &keyring)?;
        Ok((key, file))
    }

    fn add(&self, role: Role, name: &str, public: &Path) -> Result<TrustedKey> {
        check_name("name", name)?;
        let text = read_small(public)?.ok_or_else(|| Error::key(public, "it does not exist"))?;
        let key = TrustedKey::new(role, name, parse_public(&text).map_err(|reason| Error::key(public, reason))?);
        // First, so that the host's own is at the top.
        self.host()?;
        let lock = self.lock()?;
        let mut keyring = self.keyring()?.as_ref().clone();
        refuse_twice(&keyring, name)?;
        if let Some(known) = keyring.keys.iter().find(|known| known.id == key.id) {
            let reason = format!("{} is {}'s already; a key has one name", key.id, known.name);
            return Err(Error::input("key", reason));
        }
        keyring.keys.push(key.clone());
        self.store(&lock, &keyring)?;
        Ok(key)
    }

    /// From `at` (now, if `None`) on nothing that the key signs counts. `which` is an id, or the beginning of one.
    pub fn revoke(&self, which: &str, at: Option<&str>) -> Result<TrustedKey> {
        let at = match at {
            Some(at) => check_time("at", at)?,
            None => clock::now(),
        };
        let lock = self.lock()?;
        let mut keyring = self.keyring()?.as_ref().clone();
        let found: Vec<usize> = (0..keyring.keys.len())
            .filter(|index| which.len() >= 4 && keyring.keys[*index].id.starts_with(which))
            .collect();
        let [index] = found.as_slice() else {
            return match found.is_empty() {
                true => Err(Error::not_found("key", which)),
                false => Err(Error::Ambiguous {
                    prefix: which.to_owned(),
                    matches: found.iter().map(|index| keyring.keys[*index].id.clone()).collect(),
                }),
            };
        };
        let key = &mut keyring.keys[*index];
        if key.role == Role::Host && key.is_current() {
            let reason =
                "is what this host signs with; `bot-bottle keys rotate` gives it another, then revoke this one";
            return Err(Error::input("key", reason));
        }
        // Once revoked, an earlier moment can be set, not a later one.
        if key.revoked_at.as_deref().is_none_or(|known| at.as_str() < known) {
            key.revoked_at = Some(at);
        }
        let key = key.clone();
        self.store(&lock, &keyring)?;
        Ok(key)
    }

    /// Revokes the key of the operator with this name.
    pub fn remove_operator(&self, name: &str) -> Result<TrustedKey> {
        let keyring = self.keyring()?;
        let key = keyring.keys.iter().find(|key| key.role == Role::Operator && key.name == name && key.is_current());
        let key = key.ok_or_else(|| Error::not_found("operator", name))?;
        self.revoke(&key.id, None)
    }

    /// The keyring has this host's key as its current one, and no other of its own.
    fn list_host(&self, lock: &Lock, signer: &Signer) -> Result<TrustedKey> {
        let mut keyring = self.keyring()?.as_ref().clone();
        let before = keyring.clone();
        for key in keyring.keys.iter_mut().filter(|key| key.role == Role::Host && key.id != signer.id) {
            key.rotated_at.get_or_insert_with(clock::now);
        }
        let key = match keyring.keys.iter_mut().find(|key| key.id == signer.id) {
            Some(key) if key.revoked_at.is_some() => {
                let reason = "it was revoked; `bot-bottle keys rotate` makes another";
                return Err(Error::key(&self.host_file(), reason));
            }
            Some(key) => {
                (key.role, key.rotated_at) = (Role::Host, None);
                key.clone()
            }
            None => {
                let key = TrustedKey::new(Role::Host, &host_name(), signer.public);
                keyring.keys.push(key.clone());
                key
            }
        };
        if keyring != before {
            self.store(lock, &keyring)?;
        }
        Ok(key)
    }

    fn store(&self, lock: &Lock, keyring: &Keyring) -> Result<()> {
        make_dir(&self.dir.join("public"))?;
        self.replace(lock, &self.keyring_file(), keyring.text().as_bytes())
    }

    /// Whoever reads the file finds all of the old content, or all of the new.
    fn replace(&self, _lock: &Lock, path: &Path, content: &[u8]) -> Result<()> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push("~"); // no name has one
        let dir = path.parent().unwrap_or(&self.dir);
        write_new(Path::new(&fresh), content)
            .and_then(|()| fs::rename(&fresh, path))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(|error| Error::key(path, error.words()))?;
        count_write();
        Ok(())
    }

    /// One process at a time makes or changes keys.
    fn lock(&self) -> Result<Lock> {
        make_dir(&self.dir)?;
        let failed = |error: std::io::Error| Error::key(&self.dir, error.words());
        let data = fs::metadata(&self.dir).map_err(failed)?;
        if data.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::key(&self.dir, format!("it belongs to user {}, not to you", data.uid())));
        }
        if data.mode() & 0o022 != 0 {
            let reason = format!("others may write to it (mode {:04o}); `chmod 700` it", data.mode() & 0o7777);
            return Err(Error::key(&self.dir, reason));
        }
        let _patience = patience::limit(PATIENCE);
        Lock::take(File::open(&self.dir).map_err(failed)?, &self.dir)
    }
}

fn refuse_twice(keyring: &Keyring, name: &str) -> Result<()> {
    match keyring.keys.iter().find(|key| key.name == name && key.is_current()) {
        Some(key) => Err(Error::input("name", format!("{name} is that of key {} already", key.id))),
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::key(dir, error.words()))
}

/// Writes a file (0600) that must not be there yet, down to the disk; what an earlier attempt left is replaced.
fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Under the lock. Whoever reads the file finds all of a key, or none.
fn make_private(path: &Path, of_host: bool, replace: bool) -> Result<Signer> {
    let failed = |error: std::io::Error| Error::key(path, error.words());
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::key(path, format!("the system has no random numbers: {error}")))?;
    let signer = Signer::from_seed(&seed).ok_or_else(|| Error::key(path, "no key can be made of its seed"))?;
    let mut text = format!("bot-bottle private key {}\n", signer.id);
    if of_host && let Some(machine) = machine() {
        text.push_str(&format!("{MACHINE}{machine}\n"));
    }
    text.push_str(&format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode([&PKCS8[..], &seed].concat())));
    let fresh = path.with_extension("new");
    write_new(&fresh, text.as_bytes()).map_err(failed)?;
    if replace {
        fs::rename(&fresh, path).map_err(failed)?;
    } else {
        fs::hard_link(&fresh, path).map_err(failed)?; // unlike a rename, over nothing
        fs::remove_file(&fresh).map_err(failed)?;
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(signer)
}

/// A private key that nobody else can have read; `None` where there is none.
fn read_private(path: &Path, of_host: bool) -> Result<Option<Signer>> {
    let Ok(data) = fs::symlink_metadata(path) else { return Ok(None) };
    let renew = if of_host { "`bot-bottle keys rotate` makes another" } else { "have another one made" };
    if data.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::key(path, format!("it belongs to user {}, not to you; {renew}", data.uid())));
    }
    if data.is_file() && data.mode() & 0o077 != 0 {
        let mode = data.mode() & 0o7777;
        let reason =
            format!("its mode {mode:04o} lets others read it, so others may have it; {renew}, and revoke this one");
        return Err(Error::key(path, reason));
    }
    let Some(text) = read_small(path)? else { return Ok(None) };
    let unreadable = || Error::key(path, format!("it is not an Ed25519 private key as PEM (PKCS#8); {renew}"));
    let (head, rest) = text.split_once(BEGIN).ok_or_else(unreadable)?;
    if of_host
        && let Some(made_on) = head.lines().find_map(|line| line.strip_prefix(MACHINE))
        && machine().is_some_and(|here| here != made_on)
    {
        let reason = "it was made on another machine, and two hosts must not sign as one; \
                      `bot-bottle keys rotate` gives this one its own, and what the other one signed stands";
        return Err(Error::key(path, reason));
    }
    let body: String = rest.split(END).next().unwrap_or_default().split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| unreadable())?;
    // Other writers put the public key after the seed (RFC 5958).
    let pair = match der.strip_prefix(&PKCS8[..]) {
        Some(seed) => Signer::from_seed(seed),
        None => Ed25519KeyPair::from_pkcs8(&der).ok().and_then(|pair| {
            let public: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
            Some(Signer { pair, public, id: key_id(&public), name: None })
        }),
    };
    pair.map(Some).ok_or_else(unreadable)
}

/// Stands for this machine without telling its id (machine-id(5) asks for that); `None` where it has none.
fn machine() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?;
    let mut hash = sha256_hex(format!("bot-bottle/machine/1 {}", id.trim()));
    hash.truncate(16);
    (!id.trim().is_empty()).then_some(hash)
}

/// What the key is called; a name for people.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if check_name("name", &name).is_ok() { name } else { "host".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::tests::grant;
    use std::os::unix::fs::PermissionsExt;

    const AT: &str = "2026-01-31T12:00:00.000000Z";

    fn keys() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys { dir: dir.path().join("keys") };
        (dir, keys)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn refusal<T>(result: Result<T>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_host_key_is_made_once_and_only_its_user_can_read_it() {
        let (_dir, keys) = keys();
        assert!(keys.keyring().unwrap().keys.is_empty());
        let ids: Vec<String> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| keys.host().unwrap().id.clone())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(keys.keyring().unwrap().keys.len(), 1);
        assert_eq!((mode(&keys.dir), mode(&keys.dir.join("public"))), (0o700, 0o700));
        assert_eq!((mode(&keys.host_file()), mode(&keys.keyring_file())), (0o600, 0o600));
    }

    #[test]
    fn after_a_rotation_old_statements_verify_and_new_ones_are_the_new_key_s() {
        let (_dir, keys) = keys();
        let old = keys.host().unwrap().sign(&grant("uses", AT));
        let fresh = keys.rotate().unwrap();
        let new = keys.host().unwrap().sign(&grant("uses", AT));
        assert_ne!(old.key_id, new.key_id);
        assert_eq!(new.key_id, fresh.id);
        let keyring = keys.keyring().unwrap();
        assert!(keyring.verify(&grant("uses", AT), &old).is_ok());
        assert!(keyring.verify(&grant("uses", AT), &new).is_ok());
        assert_eq!(keyring.keys.iter().filter(|key| key.is_current()).count(), 1);
        assert!(refusal(keys.revoke(&new.key_id, None)).contains("keys rotate"));
        keys.revoke(&old.key_id[..8], Some("2026-01-01T00:00:00Z")).unwrap();
        assert!(refusal(keys.keyring().unwrap().verify(&grant("uses", AT), &old)).contains("revoked"));
    }

    #[test]
    fn a_key_that_others_could_read_is_refused() {
        let (_dir, keys) = keys();
        keys.host().unwrap();
        fs::set_permissions(keys.host_file(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refusal(keys.host()).contains("mode 0640"));
        fs::set_permissions(keys.host_file(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&keys.dir, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(refusal(keys.host()).contains("others may write"));
    }

    #[test]
    fn a_key_of_another_machine_is_refused_until_it_is_rotated() {
        let (_dir, keys) = keys();
        keys.host().unwrap();
        let Some(here) = machine() else { return }; // a system without /etc/machine-id cannot tell
        let text = fs::read_to_string(keys.host_file()).unwrap().replace(&here, "0123456789abcdef");
        write_new(&keys.host_file(), text.as_bytes()).unwrap();
        assert!(refusal(keys.host()).contains("another machine"));
        let fresh = keys.rotate().unwrap();
        assert_eq!(keys.host().unwrap().id, fresh.id);
    }

    #[test]
    fn a_crash_between_key_and_keyring_is_made_good() {
        let (_dir, keys) = keys();
        let first = keys.host().unwrap();
        make_private(&keys.host_file(), true, true).unwrap(); // a rotation that died before it wrote the keyring
        let second = keys.host().unwrap();
        let keyring = keys.keyring().unwrap();
        let state: Vec<_> = keyring.keys.iter().map(|key| (key.id.as_str(), key.is_current())).collect();
        assert_eq!(state, [(first.id.as_str(), false), (second.id.as_str(), true)]);
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_waiting() {
        let (dir, keys) = keys();
        keys.host().unwrap();
        fs::remove_file(keys.host_file()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, keys.host_file(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refusal(keys.host()).contains("not a regular file"));
        fs::remove_file(keys.host_file()).unwrap();
        write_new(&keys.host_file(), b"nonsense").unwrap();
        assert!(refusal(keys.host()).contains("not an Ed25519 private key"));
        let link = dir.path().join("keyring");
        std::os::unix::fs::symlink(keys.keyring_file(), &link).unwrap();
        assert!(keyring_at(&link).is_err());
    }

    #[test]
    fn an_operator_signs_in_the_key_s_name_until_removed() {
        let (dir, keys) = keys();
        keys.host().unwrap();
        let (key, file) = keys.make_operator("ann").unwrap();
        assert_eq!(mode(&file), 0o600);
        let signer = keys.operator(&file).unwrap();
        assert_eq!((signer.name.as_deref(), &signer.id), (Some("ann"), &key.id));
        assert!(refusal(keys.make_operator("ann")).contains("already"));
        keys.remove_operator("ann").unwrap();
        assert!(refusal(keys.operator(&file)).contains("removed"));
        let other = dir.path().join("stranger.pem");
        make_private(&other, false, false).unwrap();
        assert!(refusal(keys.operator(&other)).contains("no operator's here"));
    }
}
