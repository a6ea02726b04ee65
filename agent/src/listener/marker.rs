//! Markers: bytes that are never read, only recognised. A marker names a range of a file, and the transport sends
//! that range by `sendfile(2)` in its place.
//!
//! hyper passes body buffers on uncopied, so a buffer can be told by its address. The addresses come from a region
//! that is reserved once, readable as every slice must be, and never touched: its pages take no memory. Each slot of
//! the region belongs to one marker at a time, and a table says for which bytes of which file it stands.
//!
//! Should anything copy a marker's bytes instead of sending them, the copy would be zeros. So a marker that is dropped
//! before all of it was sent makes its connection fail: a reply is right or broken off.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::fd::AsFd;
use rustix::fs::sendfile;
use rustix::io::Errno;

use super::transport::Activity;

/// The most bytes that one marker stands for.
pub const LONGEST: usize = 4 << 20;

/// Markers that exist at a time. A connection has one or two, so this is room for half of the most connections that
/// are allowed by default; whoever finds none copies.
const SLOTS: usize = 8192;

/// `None` where the kernel does not give so much address space: everything is copied then.
static REGION: OnceLock<Option<Region>> = OnceLock::new();

/// The right to send files without copying on one connection. It is in the request's extensions.
#[derive(Debug, Clone)]
pub struct ZeroCopy(Arc<Activity>);

impl ZeroCopy {
    pub(super) fn of(connection: &Arc<Activity>) -> Self {
        ZeroCopy(Arc::clone(connection))
    }

    /// Bytes that stand for these of the file, at most [`LONGEST`]; `None` when there is no room for them. So many
    /// bytes of the reply come `after` them.
    ///
    /// They must be sent on this connection, in whole and in order, or it is broken off.
    pub fn marker(&self, file: &Arc<File>, range: Range<u64>, after: u64) -> Option<Bytes> {
        let region = REGION.get_or_init(Region::reserve_or_say).as_ref()?;
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok().filter(|l| *l <= LONGEST)?;
        let slot = region.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let (file, connection) = (Arc::clone(file), self.0.clone());
        let named = Named { file, start: range.start, length, after, sent: 0, connection };
        *region.slot(slot)? = Some(named);
        Some(Bytes::from_owner(Marker { region, slot, length }))
    }
}

/// What a slot stands for.
#[derive(Debug)]
struct Named {
    file: Arc<File>,
    start: u64,
    length: usize,
    after: u64,
    sent: usize,
    connection: Arc<Activity>,
}

struct Region {
    map: Mmap,
    slots: Box<[Mutex<Option<Named>>]>,
    free: Mutex<Vec<usize>>,
}

impl Region {
    fn reserve() -> io::Result<Self> {
        let map = MmapOptions::new().len(SLOTS * LONGEST).no_reserve_swap().map_anon()?.make_read_only()?;
        map.advise(Advice::DontDump)?;
        Ok(Region {
            map,
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            // The last slot given back is the next one taken: few entries are ever touched.
            free: Mutex::new((0..SLOTS).rev().collect()),
        })
    }

    fn reserve_or_say() -> Option<Self> {
        Region::reserve()
            .inspect_err(|error| {
                tracing::info!(%error, "no address space for zero-copy replies; files are sent through buffers");
            })
            .ok()
    }

    fn slot(&self, slot: usize) -> Option<MutexGuard<'_, Option<Named>>> {
        Some(self.slots.get(slot)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The slot that these bytes lie in, and how far from its start.
    fn place(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let offset = bytes.as_ptr().addr().checked_sub(self.map.as_ptr().addr())?;
        (offset < self.map.len()).then_some((offset / LONGEST, offset % LONGEST))
    }
}

/// Owns a slot.
struct Marker {
    region: &'static Region,
    slot: usize,
    length: usize,
}

impl AsRef<[u8]> for Marker {
    fn as_ref(&self) -> &[u8] {
        let start = self.slot * LONGEST;
        self.region.map.get(start..start + self.length).unwrap_or_default()
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        let named = self.region.slot(self.slot).and_then(|mut slot| slot.take());
        if let Some(named) = named
            && named.sent < named.length
        {
            named.connection.poison();
        }
        self.region.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
    }
}

/// A marker, or what is left of one, as it was found among the buffers of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    region: &'static Region,
    slot: usize,
    at: usize,
    length: usize,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("map", &self.map).finish_non_exhaustive()
    }
}

/// The first marker among these buffers, and the number of buffers before it.
pub(super) fn find(bufs: &[IoSlice<'_>]) -> Option<(usize, Found)> {
    // Nobody has asked for a marker as long as nothing is reserved.
    let region = REGION.get()?.as_ref()?;
    bufs.iter().enumerate().filter(|(_, buf)| !buf.is_empty()).find_map(|(before, buf)| {
        let (slot, at) = region.place(buf)?;
        Some((before, Found { region, slot, at, length: buf.len() }))
    })
}

impl Found {
    /// Bytes that this marker and those after it have still to send.
    pub(super) fn left(&self) -> u64 {
        let slot = self.region.slot(self.slot);
        let named = slot.as_ref().and_then(|slot| slot.as_ref());
        named.map_or(0, |named| (named.length - named.sent) as u64 + named.after)
    }

    /// Sends some of the file to the socket. Never 0 bytes: a file that has become shorter is an error.
    pub(super) fn send(self, socket: impl AsFd, connection: &Arc<Activity>) -> io::Result<usize> {
        let mut slot = self.region.slot(self.slot);
        let named = slot.as_mut().and_then(|slot| slot.as_mut()).ok_or_else(misplaced)?;
        // Only the next bytes of a reply of this connection are what the peer is waiting for.
        if named.sent != self.at || !Arc::ptr_eq(&named.connection, connection) {
            return Err(misplaced());
        }
        let mut offset = named.start + named.sent as u64;
        let length = self.length.min(named.length - named.sent);
        let sent = loop {
            match sendfile(&socket, &named.file, Some(&mut offset), length) {
                Err(Errno::INTR) => {}
                sent => break sent?,
            }
        };
        named.sent += sent;
        match sent {
            0 => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"))
            }
            _ => Ok(sent),
        }
    }
}

fn misplaced() -> io::Error {
    io::Error::other("a part of a file came out of place")
}
