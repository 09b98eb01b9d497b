//! What passes unopened: TLS towards the host of a route with `tunnel: true`, as long as that route stands?

use std::sync::Arc;
use std::time::Duration;

use bot_bottle_routes::{Refusal, names_same_host};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

use crate::connection::Proxy;

const PIECE: usize = 64 << 10;
/// Between looks at whether the route still stands.
const LOOK: Duration = Duration::from_secs(1);

/// Passes TLS between a client and the server it greets, whose name has to be the one that was judged.
pub async fn pass(
    proxy: Arc<Proxy>,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    (host, port): (String, u16),
    sni: Option<String>,
) {
    let same = match &sni {
        Some(name) => names_same_host(name, &host),
        // Clients name no IP address.
        None => host.parse::<std::net::IpAddr>().is_ok(),
    };
    if !same {
        return proxy.say_no("CONNECT", &host, &Refusal::new("host_mismatch", ""));
    }
    let mut server = match proxy.network.connect(&host, port).await {
        Ok(server) => server,
        Err(_) => return proxy.say_no("CONNECT", &host, &Refusal::new("upstream_failed", "")),
    };
    proxy.record.say(&format!("an unopened tunnel to {host}"));
    tokio::select! {
        _ = copy_bidirectional_with_sizes(&mut client, &mut server, PIECE, PIECE) => {}
        () = taken_away(&proxy, &host) => {}
    }
}

async fn taken_away(proxy: &Proxy, host: &str) {
    while proxy.routes.current().routes.find(host).is_some_and(|route| route.tunnel) {
        tokio::time::sleep(LOOK).await;
    }
}
