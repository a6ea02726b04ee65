//! The socket: who may ask, how much, how fast and for how long.
//!
//! One thread waits for all connections and answers one request at a time. Who a peer is comes from the kernel twice:
//! the credentials of the process that connected decide whether anything is read at all (SO_PEERCRED), and those of
//! the process that wrote come with each piece (SO_PASSCRED), so that a connection which was passed on to another
//! user is of no use to it.

use std::error::Error;
use std::io::{IoSliceMut, stdin};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use common::protocol::*;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, ListenerNonblockingMode, ListenerOptions};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::{Listener, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, getsockopt, setsockopt, sockopt};

use crate::config::Config;
use crate::log;
use crate::service::Service;

const MOST_CONNECTIONS: usize = 8;
/// How long a whole request may take to arrive, and how long a connection may be idle.
const ARRIVAL: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);

struct Connection {
    stream: Stream,
    pid: i32,
    bytes: Vec<u8>,
    /// When it is closed, unless a request is whole by then.
    end: Instant,
}

/// The socket that was passed in as standard input, or else a new one where the configuration says.
pub fn listener(config: &Config) -> Result<Listener, Box<dyn Error>> {
    let passed_in = getsockopt(&stdin(), sockopt::AcceptConn) == Ok(true);
    let listener: Listener = match &config.socket {
        _ if passed_in => stdin().as_fd().try_clone_to_owned()?.into(),
        None => return Err("standard input is no listening socket; configure socket PATH".into()),
        Some(path) => {
            let options = ListenerOptions::new().name(path.as_path().to_fs_name::<GenericFilePath>()?);
            let listener = options.mode(0o660).try_overwrite(true).create_sync_as();
            listener.map_err(|error| format!("cannot listen at {}: {error}", path.display()))?
        }
    };
    listener.set_nonblocking(ListenerNonblockingMode::Accept)?;
    // Connections inherit it, so that there is no moment without it for those that are made from now on.
    setsockopt(&listener, sockopt::PassCred, &true)?;
    Ok(listener)
}

/// Answers until the process is ended.
pub fn serve(listener: &Listener, service: &mut Service) -> Result<(), Box<dyn Error>> {
    let (mut connections, mut due) = (Vec::<Connection>::new(), Instant::now());
    loop {
        // With all connections in use, further ones wait at the socket.
        let free = connections.len() < MOST_CONNECTIONS;
        let sources =
            free.then(|| listener.as_fd()).into_iter().chain(connections.iter().map(|c| c.stream.as_fd()));
        let mut waiting: Vec<_> = sources.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let end = connections.iter().map(|c| c.end + Duration::from_millis(1)).min();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        poll(&mut waiting, left.and_then(|left| left.try_into().ok()).unwrap_or(PollTimeout::NONE))?;
        // Neither reading nor accepting waits, so that all may try.
        connections.retain_mut(|c| c.advance(service, &mut due) && Instant::now() < c.end);
        connections.extend(if free { accept(listener, service.config.agent) } else { None });
    }
}

/// A connection of the agent's user; any other one is closed before a byte is read.
fn accept(listener: &Listener, agent: u32) -> Option<Connection> {
    let stream = listener.accept().ok()?;
    let creds = stream.peer_creds().ok()?;
    let (uid, pid) = (creds.euid(), creds.pid().unwrap_or_default());
    if uid != Some(agent) {
        log(&format!("pid={pid} uid={uid:?} refused: only uid {agent} is answered"));
        return None;
    }
    stream.set_send_timeout(Some(ARRIVAL)).ok()?;
    setsockopt(&stream, sockopt::PassCred, &true).ok()?;
    Some(Connection { stream, pid, bytes: Vec::new(), end: Instant::now() + IDLE })
}

impl Connection {
    /// Reads what has come, answers a whole request, and says whether to go on.
    fn advance(&mut self, service: &mut Service, due: &mut Instant) -> bool {
        let agent = service.config.agent;
        let request = match self.receive(agent) {
            Ok(None) => return true,
            Err(FrameError::Closed | FrameError::Io(_)) => return false,
            Err(error) => Err(Refusal::from(error)),
            Ok(Some(request)) => Ok(request),
        };
        self.bytes.clear();
        let (begin, understood) = (Instant::now(), request.is_ok());
        // Names are made of harmless characters by their types.
        let told = request.as_ref().map_or("?".to_owned(), |request| format!("{request:?}"));
        // The generic cell rate algorithm: each request takes its share off a second's credit.
        let next = begin.max(*due) + Duration::from_secs(1) / service.config.rate.map_or(20, NonZeroU32::get);
        let allowed = next <= begin + Duration::from_secs(1);
        *due = if allowed { next } else { *due };
        let too_fast = || refusal!(TooFast: "too many requests in a second; ask more slowly");
        let reply = request.and_then(|r| if allowed { service.answer(r) } else { Err(too_fast()) });
        let result = match &reply {
            Ok(Reply::Project(project)) => format!("project {}", project.id),
            Ok(_) => "done".to_owned(),
            Err(refusal) => format!("{:?}: {}", refusal.kind, refusal.message),
        };
        self.end = Instant::now() + IDLE;
        let (pid, taken) = (self.pid, begin.elapsed().as_millis());
        log(&format!("pid={pid} uid={agent} {told}: {result} ({taken} ms)"));
        write_frame(&mut &self.stream, &reply.unwrap_or_else(Reply::Refused)).is_ok() && understood
    }

    /// The request, when all of it is there. No byte of the next one is read.
    fn receive(&mut self, agent: u32) -> Result<Option<Request>, FrameError> {
        while let more @ 1.. = missing(&self.bytes)? {
            let mut piece = vec![0; more];
            match receive(&self.stream, &mut piece, agent) {
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(FrameError::Io(error.into())),
                Ok(0) => return Err(FrameError::Closed),
                Ok(read) => {
                    self.end = if self.bytes.is_empty() { Instant::now() + ARRIVAL } else { self.end };
                    self.bytes.extend(piece.iter().take(read));
                }
            }
        }
        decode(self.bytes.get(4..).unwrap_or_default()).map(Some)
    }
}

/// Bytes that a process of this user wrote. Descriptors that are sent along don't fit and are closed by the kernel.
fn receive(stream: &Stream, piece: &mut [u8], agent: u32) -> Result<usize, Errno> {
    let mut space = nix::cmsg_space!(socket::UnixCredentials);
    let (mut pieces, flags) = ([IoSliceMut::new(piece)], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC);
    let message = socket::recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let by_agent = |part| matches!(part, ControlMessageOwned::ScmCredentials(creds) if creds.uid() == agent);
    if message.bytes > 0 && !message.cmsgs()?.any(by_agent) {
        log(&format!("a connection of uid {agent} was written to by another user, and is closed"));
        return Err(Errno::EPERM);
    }
    Ok(message.bytes)
}
