//! The content of one file as a deflate stream (RFC 1951), by the cheapest means that serve.
//!
//! What does not compress is passed through as stored blocks: the bytes with a header before every 64 KiB, which
//! readers of a stream can still follow. A file that fits into memory is compressed in one call by libdeflate, which
//! takes a fraction of zlib's time for the same size; longer ones go through a streaming encoder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use libdeflater::{CompressionLvl, Compressor, Crc};

/// Files of up to this length are read at once.
const WHOLE: usize = 2 << 20;

/// Effort for them: two per cent larger than what zip makes by default, at a fifth of the time. Level 1 takes a tenth of
/// the time and makes words and numbers ten per cent larger.
const WHOLE_LEVEL: i32 = 4;

/// Bytes of a longer file that are read at a time.
const PIECE: usize = 256 * 1024;

/// The most bytes in a stored block.
const BLOCK: usize = 65_535;

/// Bytes that are looked at to guess whether content compresses, and the number of places they come from.
const SAMPLE: usize = 8 * 1024;
const PLACES: usize = 4;

/// Above so many bits in a byte, nothing is to be gained; below, a tenth is gained without looking for repetitions.
const NOISE: f32 = 7.95;
const PLAIN: f32 = 7.2;

/// Effort of the streaming encoder: about as fast as a disk.
const STREAM_LEVEL: u32 = 3;

/// Checksum and length of what was written, uncompressed.
pub(super) struct Sum {
    pub(super) crc: u32,
    pub(super) length: u64,
}

/// Writes contents one after the other with the same buffers.
pub(super) struct Contents {
    compressor: Compressor,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Contents {
    pub(super) fn new() -> Self {
        Contents {
            compressor: Compressor::new(CompressionLvl::new(WHOLE_LEVEL).unwrap_or_default()),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Writes the first `size` bytes of the file. A file that has become shorter is an error.
    pub(super) fn write(&mut self, file: &File, size: u64, out: &mut impl Write) -> io::Result<Sum> {
        match usize::try_from(size) {
            Ok(length) if length <= WHOLE => self.whole(file, length, out),
            _ => self.stream(file, size, out),
        }
    }

    fn whole(&mut self, file: &File, length: usize, out: &mut impl Write) -> io::Result<Sum> {
        if self.input.len() < length {
            self.input.resize(length, 0);
        }
        let content = self.input.get_mut(..length).unwrap_or_default();
        file.read_exact_at(content, 0).map_err(shorter)?;
        let sum = Sum { crc: libdeflater::crc32(content), length: length as u64 };
        if !is_worth_it(&mut self.compressor, content) {
            stored(content, true, out)?;
            return Ok(sum);
        }
        let bound = self.compressor.deflate_compress_bound(length);
        if self.output.len() < bound {
            self.output.resize(bound, 0);
        }
        let compressed =
            self.compressor.deflate_compress(content, &mut self.output).map_err(io::Error::other)?;
        match self.output.get(..compressed) {
            Some(bytes) if compressed < length => out.write_all(bytes)?,
            _ => stored(content, true, out)?,
        }
        Ok(sum)
    }

    fn stream(&mut self, file: &File, size: u64, out: &mut impl Write) -> io::Result<Sum> {
        if self.input.len() < PIECE {
            self.input.resize(PIECE, 0);
        }
        let buffer = self.input.get_mut(..PIECE).unwrap_or_default();
        file.read_exact_at(buffer, 0).map_err(shorter)?;
        let worth_it = is_worth_it(&mut self.compressor, buffer);
        let mut content = Summed { file: file.take(size), crc: Crc::new(), length: 0 };
        if worth_it {
            let mut encoder = DeflateEncoder::new(out, Compression::new(STREAM_LEVEL));
            while let Some(piece) = content.next(buffer)? {
                encoder.write_all(piece)?;
            }
            encoder.finish()?;
        } else {
            while let Some(piece) = content.next(buffer)? {
                stored(piece, false, out)?;
            }
            stored(&[], true, out)?;
        }
        content.finish(size)
    }
}

/// A file that is read from its start while its sum is kept.
struct Summed<'a> {
    file: io::Take<&'a File>,
    crc: Crc,
    length: u64,
}

impl Summed<'_> {
    fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let count = self.file.read(buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        self.crc.update(piece);
        self.length += count as u64;
        Ok(if count == 0 { None } else { Some(piece) })
    }

    fn finish(self, size: u64) -> io::Result<Sum> {
        match self.length < size {
            true => Err(shorter(io::ErrorKind::UnexpectedEof.into())),
            false => Ok(Sum { crc: self.crc.sum(), length: self.length }),
        }
    }
}

fn shorter(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "a file became shorter while it was archived")
        }
        _ => error,
    }
}

/// Writes stored blocks (RFC 1951 section 3.2.4), the last of them marked as the stream's last one if `end`.
fn stored(content: &[u8], end: bool, out: &mut impl Write) -> io::Result<()> {
    let mut rest = content;
    loop {
        let (block, more) = rest.split_at(rest.len().min(BLOCK));
        rest = more;
        let last = end && rest.is_empty();
        let length = block.len() as u16;
        let [low, high] = length.to_le_bytes();
        out.write_all(&[u8::from(last), low, high, !low, !high])?;
        out.write_all(block)?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Whether compressing is worth its time: about a tenth is saved in a sample.
fn is_worth_it(compressor: &mut Compressor, content: &[u8]) -> bool {
    let sample = sample(content);
    match bits_per_byte(&sample) {
        bits if bits < PLAIN => true,
        bits if bits > NOISE && sample.len() >= SAMPLE => false,
        _ => {
            let mut output = vec![0; compressor.deflate_compress_bound(sample.len())];
            let compressed = compressor.deflate_compress(&sample, &mut output);
            compressed.is_ok_and(|compressed| compressed < sample.len() - sample.len() / 10)
        }
    }
}

/// All of what is short, or pieces from beginning to end.
fn sample(content: &[u8]) -> Vec<u8> {
    let Some(last) = content.len().checked_sub(SAMPLE).filter(|last| *last > 0) else {
        return content.to_vec();
    };
    let piece = SAMPLE / PLACES;
    let mut sample = Vec::with_capacity(SAMPLE);
    for place in 0..PLACES {
        let at = last * place / (PLACES - 1) + place * piece;
        sample.extend_from_slice(content.get(at..at + piece).unwrap_or_default());
    }
    sample
}

/// How much a byte says when it is seen by itself (Shannon's entropy).
fn bits_per_byte(sample: &[u8]) -> f32 {
    let mut counts = [0_u32; 256];
    for byte in sample {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = sample.len() as f32;
    let bits = |count: &u32| {
        let share = *count as f32 / all;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without any order, the same at every run.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn text(length: usize) -> Vec<u8> {
        let lines =
            (0..).flat_map(|n: usize| format!("{} step={n} loss=0.{}\n", n % 7, n * n % 9973).into_bytes());
        lines.take(length).collect()
    }

    fn written(content: &[u8], size: u64) -> io::Result<(Vec<u8>, Sum)> {
        let mut file = tempfile::tempfile()?;
        file.write_all(content)?;
        io::Seek::rewind(&mut file)?;
        let mut out = Vec::new();
        let sum = Contents::new().write(&file, size, &mut out)?;
        Ok((out, sum))
    }

    fn inflated(stream: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut decoder = flate2::read::DeflateDecoder::new(stream);
        decoder.read_to_end(&mut all).unwrap();
        assert_eq!(decoder.total_in(), stream.len() as u64, "bytes behind the stream's end");
        all
    }

    #[test]
    fn any_content_is_inflated_to_what_it_was() {
        for length in [0, 1, 5000, BLOCK, BLOCK + 1, WHOLE, WHOLE + 1, 3 * WHOLE + 77] {
            for content in [noise(length), text(length), vec![0; length]] {
                let (stream, sum) = written(&content, length as u64).unwrap();
                assert!(inflated(&stream) == content, "{length} bytes");
                assert_eq!((sum.crc, sum.length), (rawzip::crc32(&content), length as u64));
            }
        }
    }

    #[test]
    fn noise_grows_by_next_to_nothing_and_text_shrinks() {
        for length in [100_000, 4 * WHOLE] {
            assert!(written(&noise(length), length as u64).unwrap().0.len() < length + length / 1000 + 100);
            assert!(written(&text(length), length as u64).unwrap().0.len() < length / 2);
        }
    }

    #[test]
    fn a_file_that_grew_is_cut_and_one_that_shrank_is_an_error() {
        for length in [50_000, 2 * WHOLE] {
            let content = text(length + 10);
            assert!(inflated(&written(&content, length as u64).unwrap().0) == content[..length]);
            let error = written(&content, length as u64 + 11).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn repetition_is_found_in_what_looks_like_noise() {
        let content = noise(2000).repeat(500);
        assert!(written(&content, content.len() as u64).unwrap().0.len() < content.len() / 2);
    }
}
