//! A TLS handshake that reads its own records and not a byte more, so that all that follows is left in the socket for
//! whoever opens records from there on: the kernel (`ktls`), or rustls as ever.
//!
//! A client may send its first request in one packet with the end of its handshake. rustls alone would take both.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;

/// What stands before each record: type, version, length (RFC 8446 section 5.1).
const HEADER: usize = 5;

/// Shakes hands. Of what the client sent after its last record nothing has been read, and all of ours has been sent.
pub(super) async fn shake_hands(
    stream: &TcpStream,
    config: &Arc<ServerConfig>,
) -> io::Result<ServerConnection> {
    let mut session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut records = Records::default();
    loop {
        while session.wants_write() {
            stream.writable().await?;
            match session.write_tls(&mut Socket(stream)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        if !session.is_handshaking() {
            return Ok(session);
        }
        stream.readable().await?;
        match session.read_tls(&mut records.from(Socket(stream))) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            read => read?,
        };
        if let Err(error) = session.process_new_packets() {
            // An alert may be ready that tells the client why. What went wrong counts for more than whether it leaves.
            let _ = session.write_tls(&mut Socket(stream));
            // What nobody has read turns the end into a reset, by which the alert may be lost.
            let _ = stream.try_read(&mut [0; 4096]);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

/// A socket for rustls, which says when it would have to wait.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where in a stream of records the reader is.
#[derive(Debug, Default)]
struct Records {
    header: [u8; HEADER],
    /// Bytes of the header that have been read.
    begun: usize,
    /// Bytes of the record after its header that have not been read.
    rest: usize,
}

impl Records {
    /// Reads from there, in one call at most to the end of a header or of a record.
    fn from<R>(&mut self, source: R) -> From<'_, R> {
        From { records: self, source }
    }

    /// The most that may be read now.
    fn most(&self) -> usize {
        if self.rest > 0 { self.rest } else { HEADER - self.begun }
    }

    /// Takes note of bytes that were read, not more than [`Records::most`].
    fn advance(&mut self, bytes: &[u8]) {
        if self.rest > 0 {
            self.rest -= bytes.len();
            return;
        }
        for (place, byte) in self.header.iter_mut().skip(self.begun).zip(bytes) {
            *place = *byte;
        }
        self.begun += bytes.len();
        if self.begun == HEADER {
            let [_, _, _, high, low] = self.header;
            // rustls refuses a length that no record may have before it asks for more.
            (self.begun, self.rest) = (0, usize::from(u16::from_be_bytes([high, low])));
        }
    }
}

struct From<'a, R> {
    records: &'a mut Records,
    source: R,
}

impl<R: Read> Read for From<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.records.most().min(buf.len());
        let buf = buf.get_mut(..most).unwrap_or_default();
        let read = self.source.read(buf)?;
        self.records.advance(buf.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each read gave of records with contents of these lengths, from a source that gives at most `piece` bytes.
    fn reads(lengths: &[u16], piece: usize) -> Vec<usize> {
        struct Pieces<'a>(&'a [u8], usize);
        impl Read for Pieces<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let most = buf.len().min(self.1);
                self.0.read(&mut buf[..most])
            }
        }
        let stream: Vec<u8> = lengths
            .iter()
            .flat_map(|length| {
                let [high, low] = length.to_be_bytes();
                [vec![22, 3, 3, high, low], vec![0xff; usize::from(*length)]].concat()
            })
            .collect();
        let (mut source, mut records) = (Pieces(&stream, piece), Records::default());
        let mut buf = vec![0; 100_000];
        let all = std::iter::from_fn(|| match records.from(&mut source).read(&mut buf).unwrap() {
            0 => None,
            read => Some(read),
        });
        all.collect()
    }

    #[test]
    fn a_read_ends_with_a_header_or_a_record() {
        assert_eq!(reads(&[3, 0, 16_640, 1], usize::MAX), [5, 3, 5, 5, 16_640, 5, 1]);
    }

    #[test]
    fn what_comes_in_pieces_is_counted_all_the_same() {
        assert_eq!(reads(&[3, 0, 4], 2), [2, 2, 1, 2, 1, 2, 2, 1, 2, 2, 1, 2, 2]);
        assert_eq!(reads(&[300, 2], 1).len(), 312);
    }
}
