//! Kernel TLS (Documentation/networking/tls.rst of Linux): rustls shakes hands, then the kernel gets the keys, and makes and
//! opens the records, so that files leave by `sendfile(2)` as on plain connections.
//!
//! The kernel is tried out once for each cipher suite, on connections of the process to itself. A connection whose suite
//! it does not take, or that it takes no more when its turn comes, stays with rustls: until its keys are given away,
//! nothing about it has changed.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::libc;
use rustls::crypto::ring::ALL_CIPHER_SUITES;
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, HandshakeType, ProtocolVersion,
    ServerConnection, SupportedCipherSuite,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::transport::Activity;
use crate::kernel::{receive_record, send_record, set_option, unacknowledged};

/// An alert's level (RFC 8446 section 6).
const WARNING: u8 = 1;
/// Bytes of ours in TCP up to which there is room for what TLS may still hold back: a record or two of 16 KiB, where TCP
/// takes five times as much at least.
const LITTLE: usize = 16 << 10;
/// How often [`Kernel::settle`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes that the records of a file have on average at least. Before Linux 6.5 a record ends with each 64 KiB of a file.
const RECORD: u64 = 12 << 10;

/// The suites that this kernel takes, or why there are none.
pub(super) fn taken() -> Result<&'static [CipherSuite], &'static str> {
    static TAKEN: OnceLock<Result<Vec<CipherSuite>, String>> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| {
        let taken: Result<Vec<_>, _> = ALL_CIPHER_SUITES.iter().map(|suite| try_out(*suite)).collect();
        let taken: Vec<_> = taken?.into_iter().flatten().collect();
        if taken.is_empty() {
            Err("the kernel takes none of the cipher suites".to_owned())
        } else {
            Ok(taken)
        }
    });
    taken.as_deref().map_err(String::as_str)
}

/// The suite, if the kernel takes it. The error is why it takes none.
fn try_out(suite: SupportedCipherSuite) -> Result<Option<CipherSuite>, String> {
    let pair = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = StdStream::connect(listener.local_addr()?)?;
        Ok((listener.accept()?.0, client))
    };
    let (server, _client) =
        pair().map_err(|error: io::Error| format!("it could not be tried out: {error}"))?;
    attach(&server).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => "the kernel has no module tls at hand; `modprobe tls` gets it".to_owned(),
        _ => format!("the kernel refuses it: {error}"),
    })?;
    let Some(cipher) = Cipher::of(suite.suite()) else { return Ok(None) };
    let zeros = [0; 32];
    let (key, iv) = (zeros.get(..cipher.key_length()).unwrap_or_default(), [0; 12]);
    let parameters = parameters(suite.version().version, cipher, key, iv, 0);
    let takes = |way| set_option(&server, libc::SOL_TLS, way, &parameters).is_ok();
    Ok((takes(libc::TLS_TX) && takes(libc::TLS_RX)).then_some(suite.suite()))
}

/// Prepares a connected socket for keys. Without them it goes on as before.
fn attach(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_TCP, libc::TCP_ULP, b"tls")
}

/// How records are encrypted, with the numbers of linux/tls.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm = 51,
    Aes256Gcm = 52,
    Chacha20Poly1305 = 54,
}

impl Cipher {
    fn of(suite: CipherSuite) -> Option<Self> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Self::Aes128Gcm),
            CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Self::Aes256Gcm),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }

    fn key_length(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }
}

/// `struct tls12_crypto_info_...` of linux/tls.h: version and cipher, then IV, key, salt and the next record's number. For
/// AES-GCM the first four bytes of what TLS calls the IV are the salt.
fn parameters(version: ProtocolVersion, cipher: Cipher, key: &[u8], iv: [u8; 12], next: u64) -> Vec<u8> {
    let (salt, iv) = iv.split_at(if cipher == Cipher::Chacha20Poly1305 { 0 } else { 4 });
    let (version, number) = (u16::from(version).to_ne_bytes(), (cipher as u16).to_ne_bytes());
    [&version, &number, iv, key, salt, &next.to_be_bytes()].concat()
}

/// The IV for sending. In TLS 1.2 with AES-GCM its last eight bytes are sent with each record, and the kernel counts up
/// from them, while rustls combined them with the number of each record that it sent: the first of the kernel would have
/// the nonce of a record that is out already. Half of all numbers away, the two never meet.
fn sending_iv(version: ProtocolVersion, cipher: Cipher, mut iv: [u8; 12]) -> [u8; 12] {
    if version == ProtocolVersion::TLSv1_2
        && cipher != Cipher::Chacha20Poly1305
        && let [_, _, _, _, first, ..] = &mut iv
    {
        *first ^= 0x80;
    }
    iv
}

fn give(socket: &TcpStream, way: i32, parameters: &mut [u8]) -> io::Result<()> {
    let given = set_option(socket, libc::SOL_TLS, way, parameters);
    // The kernel has its own copy; ours is not left lying about.
    parameters.fill(0);
    std::hint::black_box(parameters);
    given
}

/// Whether the kernel can have this connection, whose handshake is over. Nothing is lost if not.
pub(super) fn can_have(stream: &TcpStream, session: &mut ServerConnection) -> bool {
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let takes = suite.is_some_and(|suite| taken().is_ok_and(|taken| taken.contains(&suite)));
    // What rustls has opened already, the kernel can't give out. There is nothing, as `records` stops in time.
    let nothing_read = session
        .process_new_packets()
        .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed());
    takes && nothing_read && attach(stream).is_ok()
}

/// A connection whose records the kernel makes and opens.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) stream: TcpStream,
    /// The peer has said that it sends no more.
    received_end: bool,
    sent_end: bool,
    /// The most records that were made so far.
    records: u64,
    /// The most records that may be made with one key.
    allowed: u64,
}

impl Kernel {
    /// Gives the keys to the kernel. For connections that it [can have](can_have).
    pub(super) fn new(stream: TcpStream, session: ServerConnection) -> io::Result<Self> {
        let suite = session.negotiated_cipher_suite().ok_or(io::ErrorKind::InvalidData)?;
        let version = suite.version().version;
        let secrets = session.dangerous_extract_secrets().map_err(io::Error::other)?;
        for (way, (next, secrets)) in [(libc::TLS_TX, secrets.tx), (libc::TLS_RX, secrets.rx)] {
            let (cipher, key, iv) = match &secrets {
                ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
                ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
                ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::Chacha20Poly1305, key, iv),
                _ => return Err(io::ErrorKind::Unsupported.into()),
            };
            let iv = <[u8; 12]>::try_from(iv.as_ref()).map_err(io::Error::other)?;
            let iv = if way == libc::TLS_TX { sending_iv(version, cipher, iv) } else { iv };
            give(&stream, way, &mut parameters(version, cipher, key.as_ref(), iv, next))?;
        }
        let allowed = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        Ok(Kernel { stream, received_end: false, sent_end: false, records: 0, allowed })
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.received_end {
            ready!(self.stream.poll_read_ready(cx))?;
            // Not `poll_read`, which takes it for the end of what has arrived when less comes than there is room for. Here
            // it may be that a record of another type is next.
            match self.stream.try_read_buf(buf) {
                Ok(0) if buf.remaining() > 0 => {
                    let reason = "the peer ended the connection without a close_notify";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // So the kernel says that the next record is not one of data.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => self.receive_other()?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives a record that is not of data.
    fn receive_other(&mut self) -> io::Result<()> {
        let mut content = [0; 16];
        let (record, length) = receive_record(&self.stream, &mut content)?;
        let record = record.ok_or(io::ErrorKind::UnexpectedEof)?;
        let reason = match (ContentType::from(record), content.get(..length).unwrap_or_default()) {
            (ContentType::Alert, [_, alert]) => match AlertDescription::from(*alert) {
                AlertDescription::CloseNotify => {
                    self.received_end = true;
                    return Ok(());
                }
                // Java says this before each close_notify.
                AlertDescription::UserCanceled => return Ok(()),
                alert => format!("the peer sent the TLS alert {alert:?}"),
            },
            // Kernels before 6.14 cannot change keys, and rustls cannot take the connection back.
            (ContentType::Handshake, [first, ..]) => match HandshakeType::from(*first) {
                HandshakeType::KeyUpdate => {
                    "the peer changed its TLS keys, which kernel TLS does not allow".into()
                }
                other => format!("the peer began a TLS handshake anew: {other:?}"),
            },
            (other, _) => format!("the peer sent a TLS record out of place: {other:?}"),
        };
        // hyper keeps to itself what goes wrong between requests.
        tracing::debug!(peer = ?self.stream.peer_addr().ok(), "a TLS connection ends: {reason}");
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    /// Takes note of bytes that one call has sent. A key may protect only so many records (RFC 8446 section 5.5): 2^24 by
    /// AES-GCM, any number by ChaCha20-Poly1305. The kernel can't change keys, so the connection takes no more requests
    /// after half of them, and sends nothing after all of them: a reply that is not over by then is broken off.
    pub(super) fn note_sent(&mut self, count: usize, connection: &Activity) {
        self.records = self.records.saturating_add(count as u64 / RECORD + 1);
        if self.records >= self.allowed / 2 {
            connection.wear();
        }
        if self.records >= self.allowed {
            tracing::debug!("a TLS connection ends: its key has protected all that it may");
            connection.poison();
        }
    }

    /// Waits until closing can lose nothing: TLS may have accepted bytes that TCP had no room for, and drops them when the
    /// socket is closed. Gives up on a peer that takes nothing for so long, or is gone.
    pub(super) async fn settle(&self, patience: Duration) -> io::Result<()> {
        let (mut least, mut since) = (usize::MAX, Instant::now());
        loop {
            let left = unacknowledged(&self.stream)?;
            if left <= LITTLE {
                return Ok(());
            }
            if left < least {
                (least, since) = (left, Instant::now());
            }
            // A connection that was reset has no peer, though its last bytes stay unacknowledged.
            self.stream.peer_addr()?;
            if since.elapsed() > patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says that nothing more is sent. The sending side of TCP is not shut down: that would overtake records which are still
    /// being encrypted, while a close waits for them.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sent_end {
            ready!(self.stream.poll_write_ready(cx))?;
            let alert = [WARNING, AlertDescription::CloseNotify.into()];
            let send = || send_record(&self.stream, ContentType::Alert.into(), &alert);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => self.sent_end = sent.map(|_| true)?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_laid_out_as_the_kernel_has_them() {
        let key: Vec<u8> = (100..132).collect();
        let iv = std::array::from_fn(|at| at as u8);
        let gcm = parameters(ProtocolVersion::TLSv1_3, Cipher::Aes128Gcm, &key[..16], iv, 0x0102);
        let (version, number) = (0x0304_u16.to_ne_bytes(), 51_u16.to_ne_bytes());
        let next = [0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(gcm, [&version[..], &number, &iv[4..], &key[..16], &iv[..4], &next].concat());
        assert_eq!(gcm.len(), size_of::<libc::tls12_crypto_info_aes_gcm_128>());
        let gcm = parameters(ProtocolVersion::TLSv1_2, Cipher::Aes256Gcm, &key, iv, 1);
        assert_eq!(gcm.len(), size_of::<libc::tls12_crypto_info_aes_gcm_256>());
        let chacha = parameters(ProtocolVersion::TLSv1_2, Cipher::Chacha20Poly1305, &key, iv, 1);
        assert_eq!(chacha[4..16], iv);
        assert_eq!(chacha.len(), size_of::<libc::tls12_crypto_info_chacha20_poly1305>());
    }

    #[test]
    fn the_kernel_counts_up_from_where_rustls_has_not_been() {
        let iv = [0xff; 12];
        let explicit = |iv: [u8; 12]| u64::from_be_bytes(iv[4..].try_into().unwrap());
        let start = sending_iv(ProtocolVersion::TLSv1_2, Cipher::Aes256Gcm, iv);
        assert_eq!(start[..4], iv[..4]);
        assert_eq!(explicit(start).abs_diff(explicit(iv)), 1 << 63);
        assert_eq!(sending_iv(ProtocolVersion::TLSv1_3, Cipher::Aes256Gcm, iv), iv);
        assert_eq!(sending_iv(ProtocolVersion::TLSv1_2, Cipher::Chacha20Poly1305, iv), iv);
    }

    #[test]
    fn every_suite_has_a_cipher() {
        assert!(ALL_CIPHER_SUITES.iter().all(|suite| Cipher::of(suite.suite()).is_some()));
    }

    #[tokio::test]
    async fn a_key_wears_out_by_records_whether_full_or_not() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (limit, activity) = (1 << 24, Activity::default());
        let mut kernel = Kernel { stream, received_end: false, sent_end: false, records: 0, allowed: limit };
        let mut sent_until = |count: usize, over: fn(&Activity) -> bool| {
            while !over(&activity) {
                kernel.note_sent(count, &activity);
            }
            kernel.records
        };
        assert_eq!(sent_until(1, Activity::is_worn), limit / 2);
        let records = sent_until(2 << 20, Activity::is_poisoned);
        assert!((limit..limit + 200).contains(&records), "{records}");
        let unlimited = Activity::default();
        kernel.allowed = u64::MAX;
        kernel.note_sent(1, &unlimited);
        assert!(!unlimited.is_worn());
    }
}
