//! What the agent asks of the quota helper, what the helper answers, and how both travel over their Unix socket.
//!
//! A request names a volume, a scope or folder and a number of bytes; there is no way to spell a path, a project's
//! number or a flag. One frame is
//!
//! ```text
//! +----------------------+------------+------------------------------------------+
//! | length: u32, LE      | version: 1 | request or reply: bincode 2, fixed ints  |
//! +----------------------+------------+------------------------------------------+
//!   of what follows, 1 to 4096
//! ```
//!
//! and each request has one reply. The length is judged before anything is reserved for it, values are valid once they
//! are decoded, and leftover bytes are an error. A version that is not spoken is answered with [`RefusalKind::Version`]
//! in version 1, whose [`Refusal`] therefore never changes. All of bincode is here, so that replacing it is one file.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::uuid::{NotUuid, Uuid};

/// The version that this code speaks, the first byte of each payload.
pub const VERSION: u8 = 1;
/// The largest payload in bytes, its version byte included.
pub const LARGEST: usize = 4096;
/// The largest limit in bytes; 0 is none.
pub const LARGEST_LIMIT: u64 = i64::MAX as u64;
/// The most entries of one [`Reply::List`]: what bincode makes of a frame in memory counts against its limit too.
pub const PAGE: usize = 80;
/// The most volumes that a [`Reply::Status`] has room for.
pub const MOST_VOLUMES: usize = 16;

/// The limit in a [`Listed`] that another program made: this one has not been asked for a limit yet.
pub const UNRECORDED: u64 = u64::MAX;

const LONGEST_NAME: usize = 64;
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_PROBLEM: usize = 160;
const BINCODE: Configuration<LittleEndian, Fixint, Limit<LARGEST>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LARGEST>();

/// The name of a volume: 1 to 64 of `A-Z a-z 0-9 . _ -`, with neither `.` nor `-` in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode)]
pub struct VolumeName(String);

/// What a project is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Subject {
    /// A quota scope: the directory of 32 digits directly in the volume.
    Scope(Uuid),
    /// A folder outside of scopes, as managers up to 23.03.4 make them: the directory `2/2/28` digits.
    Folder(Uuid),
}

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// What the helper is, and whether each volume works.
    Status,
    /// A project for the subject with this limit, found or allocated. Asking again changes nothing but the limit.
    Create {
        /// Where.
        volume: VolumeName,
        /// For what.
        subject: Subject,
        /// In bytes; 0 is none.
        limit: u64,
    },
    /// Another limit for a subject that has a project.
    SetLimit {
        /// Where.
        volume: VolumeName,
        /// For what.
        subject: Subject,
        /// In bytes; 0 lifts it.
        limit: u64,
    },
    /// The project's limit and use.
    Describe {
        /// Where.
        volume: VolumeName,
        /// For what.
        subject: Subject,
    },
    /// An end to the project: limit cleared, lines removed, id free again. Refused while anything belongs to it.
    Remove {
        /// Where.
        volume: VolumeName,
        /// For what.
        subject: Subject,
    },
    /// Up to [`PAGE`] of the volume's projects, in the order of their subjects.
    List {
        /// Where.
        volume: VolumeName,
        /// The last one of the page before.
        after: Option<Subject>,
    },
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// To `Create`, `SetLimit` and `Describe`.
    Project(Project),
    /// To [`Request::Remove`].
    Removed,
    /// To [`Request::List`].
    List {
        /// Projects on record.
        entries: Vec<Listed>,
        /// Whether there are further ones.
        more: bool,
    },
    /// To any request that was not carried out.
    Refused(Refusal),
}

/// The helper and its volumes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// The helper's version, for people.
    pub version: String,
    /// All volumes of its configuration.
    pub volumes: Vec<VolumeStatus>,
}

/// Whether a volume works.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct VolumeStatus {
    /// Which.
    pub volume: VolumeName,
    /// What is wrong and what to do, in one line; see [`VolumeStatus::new`].
    pub problem: Option<String>,
}

/// A project as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Project {
    /// Its number, to tag directories with; never 0.
    pub id: u32,
    /// Its limit in bytes, rounded up to the file system's blocks; 0 is none.
    pub limit: u64,
    /// What it uses, in bytes.
    pub used: u64,
    /// Whether this request made it.
    pub created: bool,
}

/// A project on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Listed {
    /// For what.
    pub subject: Subject,
    /// Its number.
    pub id: u32,
    /// The limit that was asked for, in bytes; 0 is none, [`UNRECORDED`] not known.
    pub limit: u64,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people: cause and cure in one line of at most 1024 bytes.
    pub message: String,
}

/// The kinds of refusal. New ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RefusalKind {
    /// A version of the protocol that is not spoken.
    Version,
    /// No request of the protocol.
    Malformed,
    /// A volume that the helper's configuration does not have.
    UnknownVolume,
    /// A subject without a project.
    NotFound,
    /// A limit above [`LARGEST_LIMIT`].
    InvalidLimit,
    /// The volume's directory is not on a mounted XFS.
    NotMounted,
    /// The volume is mounted without enforced project quotas.
    NoQuota,
    /// Files still belong to the project.
    InUse,
    /// No free id in the configured range.
    Exhausted,
    /// `/etc/projects` or `/etc/projid` differs from what the helper has on record.
    FilesDamaged,
    /// `xfs_quota` failed, or did not do what it was told.
    ToolFailed,
    /// A file could not be written.
    StorageFailed,
    /// Too many requests or connections.
    TooFast,
}

/// Why a frame could not be exchanged.
#[derive(Debug)]
pub enum FrameError {
    /// The peer ended the connection where a frame could have begun.
    Closed,
    /// Reading or writing failed, or the connection ended within a frame.
    Io(io::Error),
    /// A length of 0 or above [`LARGEST`].
    Length(u32),
    /// Another version than [`VERSION`].
    Version(u8),
    /// Bytes that mean nothing, too few of them or too many.
    Malformed,
    /// The value has no room in a frame.
    TooLarge,
}

/// Sends a request and waits for its reply.
pub fn call(stream: &mut (impl Read + Write), request: &Request) -> Result<Reply, FrameError> {
    write_frame(stream, request)?;
    read_frame(stream)
}

/// Writes a value as one frame, in one call.
pub fn write_frame(stream: &mut impl Write, value: &impl Encode) -> Result<(), FrameError> {
    stream.write_all(&encode(value)?).map_err(FrameError::Io)
}

/// Reads one frame. Nothing is reserved for it before its length is known to be small.
pub fn read_frame<T: Decode<()>>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut frame = vec![0];
    stream.read_exact(&mut frame).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Closed,
        _ => FrameError::Io(error),
    })?;
    while let more @ 1.. = missing(&frame)? {
        let mut piece = vec![0; more];
        stream.read_exact(&mut piece).map_err(FrameError::Io)?;
        frame.append(&mut piece);
    }
    decode(frame.get(4..).unwrap_or_default())
}

/// How many bytes to read next when a frame has begun with these: what is left of its length, then of its payload, and
/// 0 when it is whole.
pub fn missing(frame: &[u8]) -> Result<usize, FrameError> {
    let Some(length) = frame.first_chunk().copied().map(u32::from_le_bytes) else {
        return Ok(4 - frame.len());
    };
    let size = usize::try_from(length).ok().filter(|size| (1..=LARGEST).contains(size));
    Ok((size.ok_or(FrameError::Length(length))? + 4).saturating_sub(frame.len()))
}

/// A value's whole frame.
pub fn encode(value: &impl Encode) -> Result<Vec<u8>, FrameError> {
    let body = bincode::encode_to_vec(value, BINCODE).map_err(|_| FrameError::TooLarge)?;
    if body.len() >= LARGEST {
        return Err(FrameError::TooLarge);
    }
    let length = u32::try_from(body.len() + 1).map_err(|_| FrameError::TooLarge)?;
    Ok([length.to_le_bytes().as_slice(), &[VERSION], &body].concat())
}

/// The value of a frame's payload, which begins with the version.
pub fn decode<T: Decode<()>>(payload: &[u8]) -> Result<T, FrameError> {
    let (version, body) = payload.split_first().ok_or(FrameError::Length(0))?;
    if *version != VERSION {
        return Err(FrameError::Version(*version));
    }
    match bincode::decode_from_slice(body, BINCODE) {
        Ok((value, read)) if read == body.len() => Ok(value),
        _ => Err(FrameError::Malformed),
    }
}

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = &'static str;

    /// The error says what a name is made of.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let right = (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(known);
        if right && !text.starts_with(['.', '-']) {
            return Ok(VolumeName(text.to_owned()));
        }
        Err(
            "a volume's name is 1 to 64 letters, digits, dots, underscores and hyphens, and begins with neither . nor -",
        )
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Decode<C> for VolumeName {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        String::decode(decoder)?.parse().map_err(DecodeError::Other)
    }
}

bincode::impl_borrow_decode!(VolumeName);

/// As 16 bytes, the first digits first.
impl Encode for Uuid {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.number().to_be_bytes().encode(encoder)
    }
}

impl<C> Decode<C> for Uuid {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        <[u8; 16]>::decode(decoder).map(|bytes| u128::from_be_bytes(bytes).into())
    }
}
bincode::impl_borrow_decode!(Uuid);

impl Subject {
    /// The directory's path below the volume's.
    pub fn path(self) -> String {
        match self {
            Subject::Scope(uuid) => uuid.hex(),
            Subject::Folder(uuid) => uuid.dir_names().join("/"),
        }
    }
}

/// The subject whose directory has this path below its volume's, spelled exactly so.
impl FromStr for Subject {
    type Err = NotUuid;

    fn from_str(path: &str) -> Result<Self, NotUuid> {
        let uuid = path.replace('/', "").parse()?;
        let kinds = [Subject::Scope(uuid), Subject::Folder(uuid)];
        kinds.into_iter().find(|subject| subject.path() == path).ok_or(NotUuid)
    }
}

/// `scope 0b6c…` or `folder 0b6c…`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Scope(uuid) => write!(f, "scope {}", uuid.hex()),
            Subject::Folder(uuid) => write!(f, "folder {}", uuid.hyphenated()),
        }
    }
}

impl Request {
    /// Whether its limit is one that can be set.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Request::Create { limit, .. } | Request::SetLimit { limit, .. } if *limit > LARGEST_LIMIT => {
                let cure = format!("use 0 for none, or at most {LARGEST_LIMIT}");
                let problem = format!("a limit of {limit} bytes is too large; {cure}");
                Err(Refusal::new(RefusalKind::InvalidLimit, problem))
            }
            _ => Ok(()),
        }
    }
}

impl VolumeStatus {
    /// A status whose problem is cut to 160 bytes, so that [`MOST_VOLUMES`] of them fit into a frame.
    pub fn new(volume: VolumeName, problem: Option<String>) -> Self {
        VolumeStatus { volume, problem: problem.map(|text| cut(text, LONGEST_PROBLEM)) }
    }
}

impl Refusal {
    /// A refusal whose message is cut to its largest size.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Refusal { kind, message: cut(message.into(), LONGEST_MESSAGE) }
    }
}

/// What a frame that is no request is answered with.
impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let version = matches!(error, FrameError::Version(_));
        Refusal::new(if version { RefusalKind::Version } else { RefusalKind::Malformed }, error.to_string())
    }
}

fn cut(mut text: String, most: usize) -> String {
    while text.len() > most {
        text.pop();
    }
    text
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Closed => f.write_str("the connection was closed before a frame"),
            FrameError::Io(error) => write!(f, "the connection failed: {error}"),
            FrameError::Length(length) => write!(f, "a frame of {length} bytes; 1 to {LARGEST} are allowed"),
            FrameError::Version(theirs) => write!(
                f,
                "version {theirs} of the protocol, where {VERSION} is spoken; install agent and helper of one release"
            ),
            FrameError::Malformed => f.write_str("a frame whose content means nothing"),
            FrameError::TooLarge => write!(f, "a value larger than a frame of {LARGEST} bytes"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u128 = 0x0b6c1d7e_a6f2_4d57_a1b2_c3d4e5f60718;

    fn volume() -> VolumeName {
        "data".parse().unwrap()
    }

    fn requests() -> Vec<Request> {
        let (scope, folder) = (Subject::Scope(ID.into()), Subject::Folder(ID.into()));
        vec![
            Request::Status,
            Request::Create { volume: volume(), subject: scope, limit: 0 },
            Request::SetLimit { volume: volume(), subject: folder, limit: u64::MAX },
            Request::Describe { volume: volume(), subject: scope },
            Request::Remove { volume: volume(), subject: folder },
            Request::List { volume: volume(), after: None },
            Request::List { volume: volume(), after: Some(folder) },
        ]
    }

    #[test]
    fn every_request_survives_the_way() {
        let mut pipe = Vec::new();
        for request in requests() {
            write_frame(&mut pipe, &request).unwrap();
        }
        let mut pipe = pipe.as_slice();
        for request in requests() {
            assert_eq!(read_frame::<Request>(&mut pipe).unwrap(), request);
        }
        assert!(matches!(read_frame::<Request>(&mut pipe), Err(FrameError::Closed)));
    }

    #[test]
    fn the_bytes_of_a_request_are_settled() {
        let request = Request::Create { volume: volume(), subject: Subject::Scope(ID.into()), limit: 0x0102 };
        let want = [
            [45, 0, 0, 0].as_slice(),
            &[1],
            &[1, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            b"data",
            &[0, 0, 0, 0],
            &ID.to_be_bytes(),
            &[2, 1, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&request).unwrap(), want);
    }

    #[test]
    fn the_largest_replies_fit_into_a_frame() {
        let listed = Listed { subject: Subject::Folder(ID.into()), id: u32::MAX, limit: u64::MAX };
        let name: VolumeName = "v".repeat(LONGEST_NAME).parse().unwrap();
        let volume = VolumeStatus::new(name, Some("ü".repeat(500)));
        for reply in [
            Reply::List { entries: vec![listed; PAGE], more: true },
            Reply::Status(Status { version: "1".repeat(50), volumes: vec![volume; MOST_VOLUMES] }),
            Reply::Refused(Refusal::new(RefusalKind::TooFast, "ü".repeat(5000))),
        ] {
            let frame = encode(&reply).unwrap();
            assert_eq!(read_frame::<Reply>(&mut frame.as_slice()).unwrap(), reply);
        }
        let huge = Reply::List { entries: vec![listed; 4 * PAGE], more: false };
        assert!(matches!(encode(&huge), Err(FrameError::TooLarge)));
    }

    #[test]
    fn a_length_is_refused_before_anything_is_read_for_it() {
        for length in [0, LARGEST as u32 + 1, u32::MAX] {
            let error = read_frame::<Request>(&mut length.to_le_bytes().as_slice()).unwrap_err();
            assert!(matches!(error, FrameError::Length(l) if l == length), "{error}");
        }
    }

    #[test]
    fn cut_long_and_senseless_frames_are_refused() {
        for request in requests() {
            let frame = encode(&request).unwrap();
            for length in 1..frame.len() {
                assert!(read_frame::<Request>(&mut &frame[..length]).is_err(), "{request:?} cut to {length}");
            }
            let payload = &frame[4..];
            for length in 1..payload.len() {
                assert!(matches!(decode::<Request>(&payload[..length]), Err(FrameError::Malformed)));
            }
            let long = [payload, &[0]].concat();
            assert!(matches!(decode::<Request>(&long), Err(FrameError::Malformed)), "{request:?}");
        }
        assert!(matches!(decode::<Request>(&[1, 6, 0, 0, 0]), Err(FrameError::Malformed)));
        assert!(matches!(decode::<Request>(&[2, 0, 0, 0, 0]), Err(FrameError::Version(2))));
        let endless_name = [&[1, 3, 0, 0, 0], [0xff; 8].as_slice()].concat();
        assert!(matches!(decode::<Request>(&endless_name), Err(FrameError::Malformed)));
    }

    #[test]
    fn a_name_that_is_none_is_refused_on_the_wire_too() {
        for name in ["", ".", "..", "-x", "a/b", "a b", "a\n", "ü", &"v".repeat(65)] {
            assert!(name.parse::<VolumeName>().is_err(), "{name:?}");
            let request = Request::List { volume: VolumeName(name.to_owned()), after: None };
            let frame = encode(&request).unwrap();
            assert!(matches!(decode::<Request>(&frame[4..]), Err(FrameError::Malformed)), "{name:?}");
        }
        for name in ["a", "local:volume1".split_once(':').unwrap().1, "A.b_c-9", &"v".repeat(64)] {
            assert!(name.parse::<VolumeName>().is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_subject_names_its_directory_and_is_found_by_it() {
        for (subject, path) in [
            (Subject::Scope(ID.into()), "0b6c1d7ea6f24d57a1b2c3d4e5f60718"),
            (Subject::Folder(ID.into()), "0b/6c/1d7ea6f24d57a1b2c3d4e5f60718"),
        ] {
            assert_eq!((subject.path().as_str(), path.parse()), (path, Ok(subject)));
        }
        for path in [
            "",
            "0B6C1D7EA6F24D57A1B2C3D4E5F60718",
            "0b/6c1d7ea6f24d57a1b2c3d4e5f60718",
            "0b6c1d7e-a6f2-4d57-a1b2-c3d4e5f60718",
        ] {
            assert_eq!(path.parse::<Subject>(), Err(NotUuid), "{path}");
        }
    }
}
