//! Running `xfs_quota(8)`, the only program that is ever run.
//!
//! It ends with status 0 after most of its errors, so a run counts as good only when it says nothing but the records
//! that were asked for (its errors come into the same pipe), and what was set is read back. It gets numbers alone, an
//! empty environment, no descriptors, a mounts file of one line, a bounded time and a bounded amount to say.

use std::io::{self, Error, PipeReader, Read, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::protocol::Refusal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::open_trusted;

const LONGEST_RUN: Duration = Duration::from_secs(30);
const LARGEST_OUTPUT: usize = 64 << 10;

/// What the kernel knows of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub used: u64,
    /// Files and directories.
    pub inodes: u64,
    /// The limit in bytes; 0 is none.
    pub limit: u64,
}

impl Usage {
    /// Itself, when nothing belongs to the project.
    pub fn unused(self) -> Result<Self, Refusal> {
        let Usage { used, inodes, .. } = self;
        if used == 0 && inodes == 0 {
            return Ok(self);
        }
        Err(refusal!(InUse: "{inodes} files with {used} bytes still belong to it; delete them first"))
    }
}

/// The program, on one file system.
pub struct Tool {
    /// Where it is.
    pub program: PathBuf,
    /// The file with the mount's line.
    pub mounts: PathBuf,
    /// The mount point.
    pub point: String,
}

impl Tool {
    /// Sets a limit in bytes, takes away all other limits, and reads back what is in force.
    pub fn limit(&self, id: u32, bytes: u64) -> Result<Usage, Refusal> {
        // The kernel counts in blocks of 512 bytes, and less than one would be no limit.
        let hard = bytes.div_ceil(512) * 512;
        let set = format!("limit -p bsoft=0 bhard={hard} isoft=0 ihard=0 rtbsoft=0 rtbhard=0 {id}");
        let usage = self.ask(&[&set, &quota(id)], |output| parse_quota(output, &self.point))?;
        // Rounded up to the file system's blocks, which have 64 KiB at most.
        let right = if bytes == 0 { 0..1 } else { bytes..bytes + (1 << 16) };
        if right.contains(&usage.limit) {
            return Ok(usage);
        }
        Err(refusal!(ToolFailed: "xfs_quota set a limit of {bytes}, and then {} was read", usage.limit))
    }

    /// Reads a project's state; one that the kernel has never heard of has none of anything.
    pub fn usage(&self, id: u32) -> Result<Usage, Refusal> {
        self.ask(&[&quota(id)], |output| parse_quota(output, &self.point))
    }

    /// Those of the ids that something belongs to.
    pub fn in_use(&self, first: u32, last: u32) -> Result<Vec<u32>, Refusal> {
        let records = self.ask(&[&format!("report -p -b -i -N -n -L {first} -U {last}")], parse_report)?;
        Ok(records.into_iter().filter(|(_, usage)| usage.unused().is_err()).map(|(id, _)| id).collect())
    }

    /// Runs the commands and understands what they say, all of it.
    fn ask<T>(&self, commands: &[&str], parse: impl Fn(&str) -> Option<T>) -> Result<T, Refusal> {
        let failed = |error| refusal!(ToolFailed: "xfs_quota failed: {error}");
        let (output, status) = self.run(commands).map_err(failed)?;
        let parsed = std::str::from_utf8(&output).ok().filter(|_| status.success()).and_then(parse);
        let said = output.get(..300).unwrap_or(&output).escape_ascii();
        parsed.ok_or_else(|| refusal!(ToolFailed: "xfs_quota failed: {status}, \"{said}\""))
    }

    fn run(&self, commands: &[&str]) -> io::Result<(Vec<u8>, ExitStatus)> {
        open_trusted(&self.program)?;
        let (reader, writer) = pipe()?;
        let mut command = Command::new(&self.program);
        command.args(["-x", "-D", "/dev/null", "-P", "/dev/null", "-t"]).arg(&self.mounts);
        command.args(commands.iter().flat_map(|text| ["-c", text])).arg(&self.point);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        // What may be executed was settled at the start, file by file.
        let cure = "restart quota-helper if xfsprogs or libc was upgraded or installed since it started";
        let mut child = command.spawn().map_err(|error| Error::other(format!("{error}; {cure}")))?;
        // It holds the pipe's other end, which has to close when the child ends.
        drop(command);
        let ended = watch(&mut child, reader, Instant::now() + LONGEST_RUN);
        if ended.is_err() {
            // It may have ended by itself meanwhile.
            let _ = i32::try_from(child.id()).map(|id| killpg(Pid::from_raw(id), Signal::SIGKILL));
            child.wait()?;
        }
        ended
    }
}

/// All that the child says until it has ended.
fn watch(child: &mut Child, mut reader: PipeReader, end: Instant) -> io::Result<(Vec<u8>, ExitStatus)> {
    let (mut output, mut piece) = (Vec::new(), [0; 4096]);
    while output.len() <= LARGEST_OUTPUT {
        let left = end.saturating_duration_since(Instant::now());
        let mut waiting = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if left.is_zero() || poll(&mut waiting, left.try_into().unwrap_or(PollTimeout::ZERO))? == 0 {
            return Err(Error::other(format!("it was ended after {} s", LONGEST_RUN.as_secs())));
        }
        let read = reader.read(&mut piece)?;
        output.extend(piece.iter().take(read));
        if read == 0 {
            if let Some(status) = child.try_wait()? {
                return Ok((output, status));
            }
            sleep(Duration::from_millis(1));
        }
    }
    Err(Error::other(format!("it said more than {LARGEST_OUTPUT} bytes")))
}

fn quota(id: u32) -> String {
    format!("quota -p -N -b -i -v -n {id}")
}

/// The one record that `quota` prints for a mount point; nothing at all is a project without a record.
pub fn parse_quota(output: &str, point: &str) -> Option<Usage> {
    if output.is_empty() {
        return Some(Usage::default());
    }
    columns(output).filter(|(_, last)| *last == Some(point)).map(|(usage, _)| usage)
}

/// A record a line, `#ID` in front.
pub fn parse_report(output: &str) -> Option<Vec<(u32, Usage)>> {
    let records = output.lines().filter(|line| !line.is_empty()).map(|line| {
        let id = line.strip_prefix('#')?.split(' ').next()?.parse().ok()?;
        columns(line).filter(|(_, last)| last.is_none()).map(|(usage, _)| (id, usage))
    });
    records.collect()
}

/// A name; blocks in KiB used, soft, hard, warnings, grace time in brackets; the same of inodes; what follows.
fn columns(text: &str) -> Option<(Usage, Option<&str>)> {
    let mut words = text.split_whitespace().skip(1);
    let mut number = || words.next()?.parse::<u64>().ok();
    let (used, _soft, limit) = (number()?.checked_mul(1024)?, number()?, number()?.checked_mul(1024)?);
    words.by_ref().find(|word| word.ends_with(']'))?;
    let inodes = words.next()?.parse().ok()?;
    words.by_ref().find(|word| word.ends_with(']'))?;
    let last = words.next();
    words.next().is_none().then_some((Usage { used, inodes, limit }, last))
}
