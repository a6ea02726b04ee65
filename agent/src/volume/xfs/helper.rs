//! Asks the quota helper, the only process with a privilege, over its Unix socket.
//!
//! The helper serves one request at a time, so the agent asks one at a time, in order, and no thread waits for its
//! turn. Each request has a connection of its own: the helper may be restarted whenever it likes.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::protocol::{self, FrameError, Refusal, RefusalKind, Reply, Request};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

/// Longer than the helper lets `xfs_quota` run.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a request is repeated that came too fast, and after what pause.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// Why the helper did not do it.
#[derive(Debug, Error)]
pub(super) enum HelperError {
    /// There is no helper, or it ended in the middle.
    #[error("the quota helper cannot be reached at {path}: {source}; {cure}", path = .socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What connecting or talking said.
        source: io::Error,
        /// What to do about it.
        cure: &'static str,
    },
    /// It answers something that means nothing here.
    #[error("the quota helper at {path} does not speak this agent's language ({source}); install both packages in the same version", path = .socket.display())]
    Language {
        /// Its socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        source: FrameError,
    },
    /// It refused, and says why.
    #[error("the quota helper refused: {}", .0.message)]
    Refused(Refusal),
}

impl HelperError {
    /// The kind of the refusal, if it is one.
    pub(super) fn refusal(&self) -> Option<RefusalKind> {
        match self {
            HelperError::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }
}

/// The way to the helper.
#[derive(Debug)]
pub(super) struct Helper {
    socket: PathBuf,
    turn: Mutex<()>,
}

impl Helper {
    /// The helper that listens there. Nothing is opened yet.
    pub(super) fn new(socket: &Path) -> Self {
        Helper { socket: socket.to_owned(), turn: Mutex::new(()) }
    }

    /// Asks, and waits for the reply. A helper that is overrun is asked again, for some seconds.
    pub(super) async fn ask(&self, request: Request) -> Result<Reply, HelperError> {
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES {
            match self.exchange(request.clone()).await? {
                Reply::Refused(Refusal { kind: RefusalKind::TooFast, .. }) => tokio::time::sleep(PAUSE).await,
                Reply::Refused(refusal) => return Err(HelperError::Refused(refusal)),
                reply => return Ok(reply),
            }
        }
        Err(HelperError::Refused(Refusal {
            kind: RefusalKind::TooFast,
            message:
                "it has too much to do; try again later, or raise requests-per-second in quota-helper.conf"
                    .into(),
        }))
    }

    async fn exchange(&self, request: Request) -> Result<Reply, HelperError> {
        let socket = self.socket.clone();
        let lost = || self.unreachable(io::Error::other("the agent itself failed; see its log"));
        match spawn_blocking(move || exchange(&socket, &request)).await.map_err(|_| lost())? {
            Ok(reply) => Ok(reply),
            Err(FrameError::Io(source)) => Err(self.unreachable(source)),
            Err(FrameError::Closed) => Err(self.unreachable(io::ErrorKind::ConnectionReset.into())),
            Err(source) => Err(HelperError::Language { socket: self.socket.clone(), source }),
        }
    }

    fn unreachable(&self, source: io::Error) -> HelperError {
        let cure = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "install storage-agent-quota-helper and start quota-helper.socket"
            }
            io::ErrorKind::PermissionDenied => {
                "let the agent's user reach it: SocketGroup= of quota-helper.socket"
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                "it may serve another user: see `agent` in quota-helper.conf, and its log (journalctl -u quota-helper)"
            }
            _ => "see its log (journalctl -u quota-helper)",
        };
        HelperError::Unreachable { socket: self.socket.clone(), source, cure }
    }
}

fn exchange(socket: &Path, request: &Request) -> Result<Reply, FrameError> {
    let mut stream = UnixStream::connect(socket).map_err(FrameError::Io)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(FrameError::Io)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(FrameError::Io)?;
    protocol::call(&mut stream, request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A helper that answers each connection with the next of these replies.
    fn answering(replies: Vec<Vec<u8>>) -> (tempfile::TempDir, Helper) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let _request: Request = protocol::read_frame(&mut stream).unwrap();
                std::io::Write::write_all(&mut stream, &reply).unwrap();
            }
        });
        let helper = Helper::new(&socket);
        (dir, helper)
    }

    fn refused(kind: RefusalKind) -> Vec<u8> {
        protocol::encode(&Reply::Refused(Refusal { kind, message: "because".into() })).unwrap()
    }

    #[tokio::test]
    async fn a_helper_that_is_overrun_is_asked_again() {
        let removed = protocol::encode(&Reply::Removed).unwrap();
        let (_dir, helper) = answering(vec![refused(RefusalKind::TooFast), removed]);
        assert_eq!(helper.ask(Request::Status).await.unwrap(), Reply::Removed);
    }

    #[tokio::test]
    async fn each_failure_says_what_to_do() {
        let mut other_version = refused(RefusalKind::InUse);
        other_version[4] = 9;
        for (reply, part) in [
            (refused(RefusalKind::InUse), "refused: because"),
            (other_version, "the same version"),
            (vec![], "another user"),
            (vec![1, 0], "another user"),
        ] {
            let (_dir, helper) = answering(vec![reply]);
            let error = helper.ask(Request::Status).await.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let helper = Helper::new(Path::new("/nonexistent/socket"));
        let error = helper.ask(Request::Status).await.unwrap_err().to_string();
        assert!(error.contains("start quota-helper.socket"), "{error}");
    }
}
