//! Who uses this process?

use nix::unistd::{User, getuid};

/// The name of the user this process runs as, from wherever the system has its users: `/etc/passwd`, LDAP, systemd-homed,
/// macOS Directory Services. `uid:N` where nobody there has a name for it.
pub(crate) fn os_user() -> String {
    let uid = getuid();
    let found = User::from_uid(uid).ok().flatten().map(|user| user.name).filter(|name| !name.is_empty());
    found.unwrap_or_else(|| format!("uid:{uid}"))
}
