//! How do a request and its answer cross to the broker, without anybody blocking on the socket?
//!
//! The socket never blocks; whoever drives a connection sleeps on as many as it has, for as long as it likes, and looks
//! at signals and deadlines meanwhile. That is what rules out the usual HTTP clients, whose calls end when they end.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustls::ClientConnection;
use socket2::{Domain, SockAddr, Socket, Type};

use super::endpoint::Endpoint;
use super::reply::{Answer, Reply};

/// For connecting to one address: its host is down or drops what it is sent.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    socket: Socket,
    /// Where to try next if this address does not answer.
    others: VecDeque<SockAddr>,
    connected: bool,
    tls: Option<Box<ClientConnection>>,
    request: Vec<u8>,
    sent: usize,
    reply: Reply,
    /// When a byte moved last.
    moved: Instant,
    /// It has carried an answer before: that it breaks without one now may be due to the time between the two.
    used: bool,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn dial(endpoint: &Endpoint) -> io::Result<Self> {
        let mut others = VecDeque::from(endpoint.addresses()?);
        let dialled = next(&mut others).inspect_err(|_| endpoint.forget_addresses());
        let (socket, connected) = dialled?;
        Ok(Connection {
            socket,
            others,
            connected,
            tls: endpoint.secure()?.map(Box::new),
            request: Vec::new(),
            sent: 0,
            reply: Reply::default(),
            moved: Instant::now(),
            used: false,
        })
    }

    /// Takes a request, which [`Connection::progress`] sends.
    pub(super) fn send(&mut self, request: Vec<u8>) -> io::Result<()> {
        self.moved = Instant::now();
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(&request),
            None => {
                (self.request, self.sent) = (request, 0);
                Ok(())
            }
        }
    }

    /// Sends and receives what can be without blocking; the answer, once it is whole.
    pub(super) fn progress(&mut self) -> io::Result<Option<Answer>> {
        if !self.connected && !self.finish_connecting()? {
            return Ok(None);
        }
        let sent = self.flush();
        // Even so: a broker that refuses a request says why before it has read all of it.
        let closed = self.fill()?;
        if let Some(answer) = self.reply.take(closed)? {
            self.used = true;
            return Ok(Some(answer));
        }
        if closed {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended before the answer"));
        }
        sent?;
        self.flush()?; // TLS answers by itself
        Ok(None)
    }

    /// Whether the broker has begun to answer.
    pub(super) fn is_answering(&self) -> bool {
        self.reply.has_begun()
    }

    /// Whether it was kept from an earlier request and has ended since, as far as one can tell: not a byte came.
    pub(super) fn was_stale(&self) -> bool {
        self.used && self.reply.is_blank()
    }

    /// Whether it can carry another request.
    pub(super) fn can_go_on(&self, last: &Answer) -> bool {
        last.keep_alive && self.reply.is_blank() && !self.wants_to_write()
    }

    /// Whether nothing has happened to it while it lay idle; a broker that closed it, or speaks unasked, is no good.
    pub(super) fn is_quiet(&mut self) -> bool {
        matches!(self.socket.peek(&mut [std::mem::MaybeUninit::uninit()]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    pub(super) fn idle_for(&self) -> Duration {
        self.moved.elapsed()
    }

    /// When to give up, with a broker that may be silent for so long.
    pub(super) fn patience_ends(&self, silence: Duration) -> Instant {
        self.moved + if self.connected { silence } else { CONNECT }
    }

    /// What to sleep on.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let flags = if self.wants_to_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.socket.as_fd(), flags)
    }

    fn wants_to_write(&self) -> bool {
        !self.connected || self.sent < self.request.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    fn finish_connecting(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            if self.others.is_empty() {
                return Err(error);
            }
            (self.socket, self.connected) = next(&mut self.others)?;
            self.moved = Instant::now();
        } else {
            match self.socket.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.connected)
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            let written = match &mut self.tls {
                Some(tls) if tls.wants_write() => tls.write_tls(&mut self.socket),
                None if self.sent < self.request.len() => self.socket.write(&self.request[self.sent..]),
                _ => return Ok(()),
            };
            match written {
                Ok(count) => {
                    self.sent += count;
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there; whether that was the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut space = [0; 16 << 10];
        loop {
            match read(&mut self.socket, self.tls.as_deref_mut(), &mut space) {
                Ok(0) => return Ok(true),
                Ok(count) => {
                    self.reply.push(&space[..count]);
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn read(socket: &mut Socket, tls: Option<&mut ClientConnection>, space: &mut [u8]) -> io::Result<usize> {
    let Some(tls) = tls else { return socket.read(space) };
    loop {
        match tls.reader().read(space) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tls.read_tls(socket)?;
                if let Err(error) = tls.process_new_packets() {
                    let _ = tls.write_tls(socket); // the broker is told why, if it can be
                    return Err(io::Error::other(error));
                }
            }
            // An end without TLS's own goodbye; whether something is missing, the answer's length says.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            read => return read,
        }
    }
}

/// Begins to connect to the first address that does not refuse at once; whether that is done already.
fn next(addresses: &mut VecDeque<SockAddr>) -> io::Result<(Socket, bool)> {
    let mut refused = io::Error::new(ErrorKind::NotFound, "its name has no address");
    while let Some(address) = addresses.pop_front() {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if address.domain() != Domain::UNIX {
            socket.set_tcp_nodelay(true)?; // a request is one write, and its end must not wait for an acknowledgement
        }
        match socket.connect(&address) {
            Ok(()) => return Ok((socket, true)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Ok((socket, false));
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}
