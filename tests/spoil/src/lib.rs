//! Fuzzing on the stable compiler: examples are spoilt by chance, millions of them, and given to a parser.
//!
//! A target is a test called `fuzzed` beside the parser, with a corpus of files in `fuzz/NAME` of its crate. It runs for
//! `FUZZ_SECONDS`, a fraction of a second unless set; with `FUZZ_CHANGED`, a list of files, only if one of them concerns it.
//! Suite `fuzz` of `tests/run` sets both. What fails prints its seed, and `FUZZ_SEED` repeats it. An input that found
//! something goes into the corpus, as a file.

#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::env;
use std::fs;
use std::panic::Location;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a target runs where nobody says how long.
const BRIEF: f64 = 0.3;
/// Attempts between two looks at the clock.
const BATCH: u64 = 32;

/// A source of chance that can be repeated (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Chance(seed | 1)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// An example with some things done to it, of which each could be done by a clumsy hand, a torn write or an enemy.
    /// `words` mean something to the parser.
    pub fn spoil(&mut self, examples: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.pick(examples).clone();
        for _ in 0..self.below(6) {
            let (at, size) = (self.below(bytes.len() + 1), self.below(20));
            let end = (at + size).min(bytes.len());
            match self.below(9) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.number() as u8,
                2 => bytes.insert(at, self.number() as u8),
                3 => drop(bytes.drain(at..end)),
                4 => bytes.truncate(at),
                5 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                6 => {
                    let other = self.pick(examples);
                    let from = self.below(other.len() + 1);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ if words.is_empty() => {}
                7 => drop(bytes.splice(at..at, self.pick(words).to_vec())),
                _ => drop(bytes.splice(at..end, self.pick(words).to_vec())),
            }
        }
        bytes
    }
}

/// Calls `attempt` with ever new seeds for as long as asked, and says how often that was.
///
/// # Panics
/// When an attempt does; its seed is printed.
#[track_caller]
pub fn fuzz(name: &str, mut attempt: impl FnMut(&mut Chance)) {
    if let Some(seed) = variable("FUZZ_SEED") {
        return attempt(&mut Chance::new(seed as u64));
    }
    let seconds = seconds(name, Location::caller().file());
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (begin, mut runs) = (Instant::now(), 0u64);
    while runs == 0 || begin.elapsed() < Duration::from_secs_f64(seconds) {
        for _ in 0..BATCH {
            // Below 2^53, so that it is read back as it was printed.
            let seed = (start.wrapping_add(runs).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12) | 1;
            let told = Told(name, seed);
            attempt(&mut Chance::new(seed));
            std::mem::forget(told);
            runs += 1;
        }
    }
    println!("fuzzed {name}: {runs} inputs in {seconds} s, 0 findings");
}

/// Gives `parse` all files of the corpus as they are, then spoilt.
///
/// # Panics
/// When `parse` does, or there is no corpus.
#[track_caller]
pub fn target(crate_dir: &str, name: &str, words: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    let examples = corpus(crate_dir, name);
    examples.iter().for_each(|example| parse(example));
    fuzz(name, |chance| parse(&chance.spoil(&examples, words)));
}

/// The files of a corpus: `fuzz/NAME` in the crate's directory (`env!("CARGO_MANIFEST_DIR")`).
///
/// # Panics
/// When there are none.
pub fn corpus(crate_dir: &str, name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(crate_dir).join("fuzz").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn seconds(name: &str, file: &str) -> f64 {
    let Some(asked) = variable("FUZZ_SECONDS") else { return BRIEF };
    match env::var("FUZZ_CHANGED") {
        Ok(changed) if !changed.lines().any(|path| concerns(path, name, file)) => BRIEF,
        _ => asked,
    }
}

/// Whether a change of `path` concerns the target `name` in `file`: code in the same directory, or in the same crate for a
/// target in its tests; the corpus; or what all targets are made of.
fn concerns(path: &str, name: &str, file: &str) -> bool {
    let directory =
        |path: &str| path.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned());
    let whole_crate = file.split_once("/tests/").is_some_and(|(of, _)| path.starts_with(&format!("{of}/")));
    whole_crate
        || directory(path) == directory(file)
        || path.contains(&format!("/fuzz/{name}/"))
        || path.starts_with("tests/spoil/")
        || path == "Cargo.lock"
}

fn variable(name: &str) -> Option<f64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Says which seed an attempt had when it panics.
struct Told<'a>(&'a str, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{}: repeat it with FUZZ_SEED={}", self.0, self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_another_seed_something_else() {
        let spoilt = |seed| Chance::new(seed).spoil(&[b"an example of some length".to_vec()], &[b"word"]);
        assert_eq!(spoilt(7), spoilt(7));
        let different: std::collections::BTreeSet<_> = (0..50).map(|seed| spoilt(seed * 2)).collect();
        assert!(different.len() > 30, "{}", different.len());
    }

    #[test]
    fn a_target_is_concerned_by_its_code_and_its_corpus() {
        let concerned = |path| concerns(path, "range", "agent/src/api/client/range.rs");
        assert!(concerned("agent/src/api/client/range.rs") && concerned("agent/src/api/client/query.rs"));
        assert!(concerned("agent/fuzz/range/new") && concerned("Cargo.lock"));
        assert!(!concerned("agent/src/api/params.rs") && !concerned("agent/fuzz/paths/new"));
        assert!(concerns("quota-helper/src/book.rs", "records", "quota-helper/tests/fuzz.rs"));
    }

    #[test]
    fn what_spoils_nothing_and_what_is_empty_are_examples_too() {
        let mut chance = Chance::new(3);
        for _ in 0..1000 {
            chance.spoil(&[Vec::new()], &[]);
        }
    }
}
