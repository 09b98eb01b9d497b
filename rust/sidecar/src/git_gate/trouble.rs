//! What is wrong with the upstream, told from what git says? Each kind apart, with nothing of the gate's own in it.

use std::env;

/// What git printed, in words for the one who pushes or fetches.
pub fn explain(said: &str, url: &str) -> String {
    let said = scrub(said, url);
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    let kind = if has(&["Could not resolve host", "Name or service not known", "Temporary failure in name resolution"])
    {
        "its host name is not known (DNS)"
    } else if has(&["Host key verification failed"]) {
        "it is not the host that was pinned"
    } else if has(&["SSL certificate problem", "server certificate verification failed", "SSL: no alternative"]) {
        "its TLS certificate is not trusted"
    } else if has(&["Authentication failed", "could not read Username", "could not read Password", "error: 401"])
        || has(&["Permission denied (", "Invalid username or", "Git credentials for"])
    {
        "it does not take the gate's credential (401); the operator has to renew it"
    } else if has(&["error: 403", "403 Forbidden", "Permission to "]) {
        "the gate's credential may not do that (403)"
    } else if has(&["Connection refused", "Failed to connect", "Couldn't connect to server"]) {
        "nothing answers there (connection refused)"
    } else if has(&["timed out", "Operation too slow", "No route to host", "Network is unreachable"]) {
        "it does not answer in time"
    } else if has(&["does not appear to be a git repository", "epository not found", "error: 404", "not found"]) {
        "there is no such repository"
    } else if has(&["cannot lock ref", ".lock': File exists", "Unable to create '"]) {
        "a ref is locked there; try again in a moment"
    } else if has(&["the remote end hung up", "early EOF", "unexpected disconnect", "Connection reset", "Broken pipe"])
    {
        "it ended the connection in the middle"
    } else if has(&["does not support push options"]) {
        "it does not take push options"
    } else if has(&["No space left on device"]) {
        "a disk is full"
    } else {
        ""
    };
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("hint:") && !line.starts_with("Please make sure"))
        .filter(|line| {
            !line.starts_with("and the repository exists") && !line.starts_with("error: failed to push some refs")
        })
        .filter(|line| !line.starts_with("fatal: Could not read from remote"))
        .map(|line| ["fatal: ", "error: "].iter().fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line)))
        .collect();
    let told = lines.join("; ");
    match (kind, told.is_empty()) {
        ("", true) => "git said nothing".to_owned(),
        ("", false) => told,
        (kind, true) => kind.to_owned(),
        (kind, false) => format!("{kind}: {told}"),
    }
}

/// Without what is the gate's own: paths of its machine, and credentials in whatever address.
pub fn scrub(said: &str, url: &str) -> String {
    let mut text = said.to_owned();
    let here = env::current_dir().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    // A path is of the gate's machine; any other address is the one that the pusher's own remote had.
    let path = url.strip_prefix("file://").unwrap_or(url);
    let path = if path.starts_with('/') { path.trim_end_matches('/') } else { "" };
    for (what, instead) in [(path, "the upstream"), (here.as_str(), "the gate")] {
        if what.len() > 1 {
            text = text.replace(what, instead);
        }
    }
    without_credentials(&text)
}

/// `scheme://user:password@host` loses what is before the host, and a query or a word that carries a token its value.
fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        shown += before;
        let end = address.find(|c: char| c.is_whitespace() || "'\"<>".contains(c)).unwrap_or(address.len());
        let host_end = address[..end].find(['/', '?', '#']).unwrap_or(end);
        let host = address[..host_end].rfind('@').map_or(0, |at| at + 1);
        // A password may have a slash in it.
        let host = host.max(address[..end].rfind('@').map_or(0, |at| at + 1));
        let address_end = address[host..end].find(['?', '#']).map_or(end, |at| host + at);
        shown += &address[host..address_end];
        rest = &address[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_trouble_are_told_apart() {
        for (said, told) in [
            ("fatal: unable to access 'https://h/x/': Could not resolve host: h", "(DNS)"),
            ("ssh: Could not resolve hostname h: Name or service not known", "(DNS)"),
            ("fatal: Authentication failed for 'https://h/x/'", "(401)"),
            ("git@h: Permission denied (publickey).", "(401)"),
            ("The requested URL returned error: 403", "(403)"),
            ("Failed to connect to h port 443 after 0 ms: Couldn't connect to server", "(connection refused)"),
            ("ssh: connect to host h port 22: Connection refused", "(connection refused)"),
            ("error: cannot lock ref 'refs/heads/main': Unable to create 'x.lock': File exists.", "is locked"),
            ("Host key verification failed.", "not the host that was pinned"),
            ("fatal: something else", "something else"),
        ] {
            assert!(explain(said, "https://u:p@h/x").contains(told), "{said}: {}", explain(said, "https://u:p@h/x"));
        }
    }

    #[test]
    fn no_credential_and_no_address_is_left() {
        let url = "https://me:hunter2@host/me/app.git";
        for said in [
            "fatal: unable to access 'https://me:hunter2@host/me/app.git/': x",
            "remote: https://hunter2@other/x and https://a:hunter2@b/c?token=hunter2#hunter2",
            "https://me:hun/hunter2@host/x",
            "https://host/?private_token=hunter2",
        ] {
            let shown = scrub(said, url);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
