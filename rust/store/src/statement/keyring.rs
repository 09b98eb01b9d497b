//! Which public keys are trusted, for what and until when? A text file that sidecars get read-only.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Signature, Statement};
use crate::clock;
use crate::diff::sha256_hex;
use crate::error::{Error, Reason, Result};
use crate::rules::check_name;

/// The first line: the version of the file's format.
const HEADER: &str = "bot-bottle/keyring/1";

/// Thousands of keys; more is not a keyring.
const MAX_BYTES: u64 = 1 << 20;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// This host's: everything.
    Host,
    /// A person's: decisions and grants, in the key's name.
    Operator,
    /// Another host's: decisions and grants.
    Trusted,
}

impl Role {
    const ALL: [Role; 3] = [Role::Host, Role::Operator, Role::Trusted];

    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Operator => "operator",
            Role::Trusted => "trusted",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A public key, whose it is, and whether it still counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TrustedKey {
    pub id: String,
    pub role: Role,
    pub name: String,
    /// 32 bytes in base64 with padding.
    pub public_key: String,
    pub added_at: String,
    /// Signs nothing new since then; what it signed stands.
    pub rotated_at: Option<String>,
    /// What it says it made later than this is refused.
    pub revoked_at: Option<String>,
}

impl TrustedKey {
    pub(crate) fn new(role: Role, name: &str, public: [u8; 32]) -> Self {
        let (name, added_at) = (name.to_owned(), clock::now());
        let public_key = STANDARD.encode(public);
        TrustedKey { id: key_id(&public), role, name, public_key, added_at, rotated_at: None, revoked_at: None }
    }

    /// Whether it may sign anything new.
    pub fn is_current(&self) -> bool {
        self.rotated_at.is_none() && self.revoked_at.is_none()
    }

    /// A person's key speaks in that person's name alone.
    pub(crate) fn check_name<S: Statement>(&self, statement: &S, by: &str) -> Result<()> {
        if self.role != Role::Operator || self.name == by {
            return Ok(());
        }
        let reason = format!("key {} is {}'s, and it is in the name of {by:?}", self.id, self.name);
        Err(Error::Unverified { what: statement.subject(), reason })
    }

    fn line(&self) -> String {
        let at = |at: &Option<String>| at.clone().unwrap_or_else(|| "-".to_owned());
        let (rotated, revoked) = (at(&self.rotated_at), at(&self.revoked_at));
        let TrustedKey { id, role, name, public_key, added_at, .. } = self;
        format!("{id} {} {name} {public_key} {added_at} {rotated} {revoked}\n", role.name())
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, role, name, public_key, added_at, rotated_at, revoked_at] = fields.as_slice() else { return None };
        let time = |text: &str| clock::normalise(text).filter(|time| time == text);
        let maybe = |text: &str| if text == "-" { Some(None) } else { time(text).map(Some) };
        let public: [u8; 32] = STANDARD.decode(public_key).ok()?.try_into().ok()?;
        if *id != key_id(&public) || check_name("name", name).is_err() {
            return None;
        }
        Some(TrustedKey {
            id: (*id).to_owned(),
            role: Role::named(role)?,
            name: (*name).to_owned(),
            public_key: (*public_key).to_owned(),
            added_at: time(added_at)?,
            rotated_at: maybe(rotated_at)?,
            revoked_at: maybe(revoked_at)?,
        })
    }
}

/// The first 16 hex digits of the SHA-256 of the public key.
pub(crate) fn key_id(public: &[u8; 32]) -> String {
    let mut id = sha256_hex(public);
    id.truncate(16);
    id
}

/// The trusted keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    pub(crate) keys: Vec<TrustedKey>,
}

impl Keyring {
    /// Reads the file; `None` where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = read_small(path)? else { return Ok(None) };
        Keyring::parse(&text).map(Some).map_err(|reason| Error::key(path, reason))
    }

    /// The keys in a file that must be there.
    pub fn open(path: &Path) -> Result<Self> {
        Keyring::read(path)?.ok_or_else(|| Error::key(path, "it does not exist; a bottle's launch mounts it"))
    }

    /// The file's content as keys, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(format!("its first line is not {HEADER}; this release reads no other format"));
        }
        let keys = lines
            .enumerate()
            .map(|(number, line)| {
                TrustedKey::parse(line)
                    .ok_or_else(|| format!("its line {} is not a key; `bot-bottle keys show` writes them", number + 2))
            })
            .collect::<std::result::Result<_, _>>()?;
        Ok(Keyring { keys })
    }

    /// The file's content.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        self.keys.iter().for_each(|key| text.push_str(&key.line()));
        text
    }

    /// The keys, in the order in which they were added.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// The key that made the statement, if its signature fits and it may.
    pub(crate) fn verify<S: Statement>(&self, statement: &S, signature: &Signature) -> Result<&TrustedKey> {
        let refused = |reason: String| Error::Unverified { what: statement.subject(), reason };
        let id = &signature.key_id;
        if signature.signature.is_empty() {
            return Err(refused("it is not signed".to_owned()));
        }
        let Some(key) = self.keys.iter().find(|key| key.id == *id) else {
            let shown: String = id.chars().take(16).collect();
            return Err(refused(format!("key {shown:?} is not one of those trusted here")));
        };
        if statement.is_host_only() && key.role != Role::Host {
            return Err(refused(format!("key {id} is {}'s, and only this host's own may sign it", key.name)));
        }
        if let Some(revoked_at) = &key.revoked_at
            && statement.made_at() > revoked_at.as_str()
        {
            return Err(refused(format!("key {id} of {} was revoked at {revoked_at}, before it was made", key.name)));
        }
        let bytes = signature.bytes().unwrap_or_default();
        let public = STANDARD.decode(&key.public_key).unwrap_or_default();
        UnparsedPublicKey::new(&ED25519, &public)
            .verify(&statement.bytes(id), &bytes)
            .map_err(|_| refused(format!("what it says is not what key {id} of {} signed", key.name)))?;
        Ok(key)
    }
}

/// A small regular file's text; `None` where there is none. A FIFO or a device put there is not waited for.
pub(crate) fn read_small(path: &Path) -> Result<Option<String>> {
    let failed = |error: std::io::Error| Error::key(path, error.words());
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(|error| Error::key(path, error.to_string()))?;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::key(path, "it is not a regular file; remove it"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::key(path, format!("it has more than {MAX_BYTES} bytes; it is not a file of keys")));
    }
    Ok(Some(text))
}

/// A public key as PEM (`openssl pkey -pubout`) or as a line of OpenSSH (`id_ed25519.pub`).
pub(crate) fn parse_public(text: &str) -> std::result::Result<[u8; 32], &'static str> {
    /// SubjectPublicKeyInfo of Ed25519 up to the key (RFC 8410).
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    /// `string "ssh-ed25519"` and the length of the key (RFC 8709).
    const SSH: [u8; 19] = *b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
    const REFUSED: &str =
        "it is not an Ed25519 public key as PEM (`openssl pkey -pubout`) or as OpenSSH writes it (`ssh-ed25519 …`)";
    let line = text.trim();
    let (encoded, prefix): (String, &[u8]) = match line.strip_prefix("ssh-ed25519 ") {
        Some(rest) => (rest.split_whitespace().next().unwrap_or_default().to_owned(), &SSH),
        None => {
            let body = line.strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(REFUSED)?;
            let body = body.trim_end().strip_suffix("-----END PUBLIC KEY-----").ok_or(REFUSED)?;
            (body.split_whitespace().collect(), &SPKI)
        }
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| REFUSED)?;
    bytes.strip_prefix(prefix).and_then(|key| key.try_into().ok()).ok_or(REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::tests::grant;

    /// RFC 8032, section 7.1, TEST 1.
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];

    fn signed(at: &str) -> (Keyring, Signature) {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
        let key = TrustedKey::new(Role::Operator, "ann", pair.public_key().as_ref().try_into().unwrap());
        let signature = Signature::new(&key.id, pair.sign(&grant("uses", at).bytes(&key.id)).as_ref());
        (Keyring { keys: vec![key] }, signature)
    }

    fn why(result: Result<&TrustedKey>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_signature_fits_one_statement_alone() {
        let at = "2026-01-31T12:00:00.000000Z";
        let (ring, mut signature) = signed(at);
        assert_eq!(ring.keys[0].id, "21fe31dfa154a261"); // of the RFC's public key
        assert_eq!(ring.verify(&grant("uses", at), &signature).unwrap().name, "ann");
        assert!(why(ring.verify(&grant("bottle", at), &signature)).contains("is not what key"));
        assert!(why(Keyring::default().verify(&grant("uses", at), &signature)).contains("not one of those trusted"));
        signature.signature.replace_range(0..1, if signature.signature.starts_with('A') { "B" } else { "A" });
        assert!(why(ring.verify(&grant("uses", at), &signature)).contains("is not what key"));
        assert!(why(ring.verify(&grant("uses", at), &Signature::default())).contains("not signed"));
    }

    #[test]
    fn a_revoked_key_verifies_what_it_made_before() {
        let at = "2026-01-31T12:00:00.000000Z";
        let (mut ring, signature) = signed(at);
        ring.keys[0].rotated_at = Some("2026-01-01T00:00:00.000000Z".to_owned());
        assert!(ring.verify(&grant("uses", at), &signature).is_ok());
        ring.keys[0].revoked_at = Some(at.to_owned());
        assert!(ring.verify(&grant("uses", at), &signature).is_ok());
        ring.keys[0].revoked_at = Some("2026-01-31T11:59:59.999999Z".to_owned());
        assert!(why(ring.verify(&grant("uses", at), &signature)).contains("was revoked"));
    }

    #[test]
    fn the_file_is_read_as_it_is_written_or_refused() {
        let (mut ring, _) = signed("2026-01-31T12:00:00.000000Z");
        ring.keys[0].revoked_at = Some("2026-02-01T00:00:00.000000Z".to_owned());
        assert_eq!(Keyring::parse(&ring.text()).unwrap(), ring);
        let other = ring.text().replacen("21fe", "21ff", 1);
        for bad in [&ring.text()[1..], &ring.text().replace(" operator ", " admin "), &other, "", "\n\n"] {
            assert!(Keyring::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn public_keys_of_two_formats_are_read() {
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea ann@host\n";
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        assert_eq!(key_id(&parse_public(ssh).unwrap()), "21fe31dfa154a261");
        assert_eq!(parse_public(ssh), parse_public(pem));
        for bad in ["", "ssh-rsa AAAA", "ssh-ed25519", "-----BEGIN PRIVATE KEY-----", &pem.replace("MCow", "MCox")] {
            assert!(parse_public(bad).is_err(), "{bad}");
        }
    }
}
