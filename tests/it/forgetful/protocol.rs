//! The bytes between the kernel and a file system in a process (linux/fuse.h, protocol 7), as far as a log needs them.

/// A file, directory, or whatever the kernel was told of, by its number.
pub type Number = u64;
pub const ROOT: Number = 1;

/// The newest minor version whose fields are known here.
const MINOR: u32 = 40;
/// The largest write that comes in one piece.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Before what a request is about.
const HEAD_BYTES: usize = 40;
/// What a request of the largest write takes, with room for heads.
pub const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX + PAGE_BYTES;

const FUSE_MAX_PAGES: u64 = 1 << 22;
const FUSE_INIT_EXT: u64 = 1 << 30;
const FUSE_DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
const FOPEN_DIRECT_IO: u32 = 1;
const O_DSYNC: u32 = 0o10_000;

const BLOCK_BYTES: u32 = 4096;
const DIRECTORY: u32 = 0o040_700;
const FILE: u32 = 0o100_600;

/// What the kernel asks for.
#[derive(Debug)]
pub enum Call<'a> {
    /// With what the kernel can do.
    Begin {
        flags: u64,
    },
    Lookup {
        name: &'a str,
    },
    Attributes,
    MakeDirectory {
        name: &'a str,
    },
    Remove {
        name: &'a str,
    },
    Rename {
        to_directory: Number,
        from: &'a str,
        to: &'a str,
    },
    Create {
        name: &'a str,
    },
    /// A file without a name (O_TMPFILE).
    CreateNameless,
    Open,
    Close,
    List {
        offset: u64,
        bytes: usize,
    },
    Read {
        offset: u64,
        bytes: usize,
    },
    Write {
        offset: u64,
        bytes: &'a [u8],
        /// O_DSYNC or O_SYNC: the answer says that it is flushed.
        is_durable: bool,
    },
    /// Room is set aside; what lies beyond the end reads as zero from now on.
    Allocate {
        end: u64,
    },
    Sync,
    SyncDirectory,
    Space,
    /// It expects no answer.
    Silent,
    Unknown,
}

/// A call, with where its answer goes.
#[derive(Debug)]
pub struct Request<'a> {
    pub unique: u64,
    pub on: Number,
    pub call: Call<'a>,
}

/// What the kernel wants to know of a file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub number: Number,
    pub is_directory: bool,
    pub length: u64,
}

impl<'a> Request<'a> {
    pub fn parse(bytes: &'a [u8]) -> Request<'a> {
        let (head, body) = bytes.split_at(HEAD_BYTES);
        Request { unique: u64_at(head, 8), on: u64_at(head, 16), call: call(u32_at(head, 4), body) }
    }
}

fn call(code: u32, body: &[u8]) -> Call<'_> {
    match code {
        1 => Call::Lookup { name: text(body) },
        2 | 36 | 42 => Call::Silent,
        3 => Call::Attributes,
        9 => Call::MakeDirectory { name: text(&body[8..]) },
        10 | 11 => Call::Remove { name: text(body) },
        12 | 45 => {
            let names = if code == 12 { &body[8..] } else { &body[16..] };
            let from = text(names);
            Call::Rename { to_directory: u64_at(body, 0), from, to: text(&names[from.len() + 1..]) }
        }
        14 | 27 => Call::Open,
        15 => Call::Read { offset: u64_at(body, 8), bytes: u32_at(body, 16) as usize },
        16 => {
            let bytes = &body[40..][..u32_at(body, 16) as usize];
            Call::Write { offset: u64_at(body, 8), bytes, is_durable: u32_at(body, 32) & O_DSYNC != 0 }
        }
        17 => Call::Space,
        18 | 29 => Call::Close,
        20 => Call::Sync,
        26 => Call::Begin { flags: u64::from(u32_at(body, 12)) | u64::from(u32_at(body, 16)) << 32 },
        28 => Call::List { offset: u64_at(body, 8), bytes: u32_at(body, 16) as usize },
        30 => Call::SyncDirectory,
        35 => Call::Create { name: text(&body[16..]) },
        43 if u32_at(body, 24) == 0 => Call::Allocate { end: u64_at(body, 8) + u64_at(body, 16) },
        51 => Call::CreateNameless,
        _ => Call::Unknown,
    }
}

/// An answer: an error number of the kernel's, or what was asked for.
pub fn answer(unique: u64, said: Result<Vec<u8>, i32>) -> Vec<u8> {
    let (error, body) = match said {
        Ok(body) => (0, body),
        Err(number) => (-number, Vec::new()),
    };
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend(((16 + body.len()) as u32).to_le_bytes());
    bytes.extend(error.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Nothing is kept by the kernel, so that each write and each read comes here.
pub fn begun(offered: u64) -> Vec<u8> {
    let wanted = offered & (FUSE_MAX_PAGES | FUSE_INIT_EXT | FUSE_DIRECT_IO_ALLOW_MMAP);
    let (background, congestion, granularity_ns, alignment): (u16, u16, u32, u16) = (16, 12, 1, 0);
    let mut bytes = numbers(&[7, MINOR, 0, wanted as u32]);
    bytes.extend([background, congestion].map(u16::to_le_bytes).concat());
    bytes.extend(numbers(&[WRITE_BYTES_MAX as u32, granularity_ns]));
    bytes.extend([(WRITE_BYTES_MAX / PAGE_BYTES) as u16, alignment].map(u16::to_le_bytes).concat());
    bytes.extend(numbers(&[(wanted >> 32) as u32]));
    bytes.resize(64, 0);
    bytes
}

/// An entry of a directory, valid for this moment alone.
pub fn entry(found: Attributes) -> Vec<u8> {
    let mut bytes = found.number.to_le_bytes().to_vec();
    bytes.resize(40, 0);
    bytes.extend(attributes(found));
    bytes
}

pub fn attributes_now(found: Attributes) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend(attributes(found));
    bytes
}

/// Past the page cache, whatever the process has asked for.
pub fn opened() -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend(numbers(&[FOPEN_DIRECT_IO, 0]));
    bytes
}

pub fn written(bytes: usize) -> Vec<u8> {
    numbers(&[bytes as u32, 0])
}

pub fn space(free_bytes: u64, total_bytes: u64) -> Vec<u8> {
    let blocks = |bytes: u64| (bytes / u64::from(BLOCK_BYTES)).to_le_bytes();
    let free = blocks(free_bytes);
    let mut bytes = [blocks(total_bytes), free, free, [0; 8], [0; 8]].concat();
    bytes.extend(numbers(&[BLOCK_BYTES, 255, BLOCK_BYTES, 0]));
    bytes.resize(80, 0);
    bytes
}

/// As many names as fit, from the one at `offset` on.
pub fn list(names: &[String], offset: u64, bytes_max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, name) in names.iter().enumerate().skip(offset as usize) {
        let length = 24 + name.len().next_multiple_of(8);
        if bytes.len() + length > bytes_max {
            break;
        }
        let end = bytes.len() + length;
        // A number that is none of ours: the kernel asks for each by its name.
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend((at as u64 + 1).to_le_bytes());
        bytes.extend(numbers(&[name.len() as u32, 0]));
        bytes.extend(name.as_bytes());
        bytes.resize(end, 0);
    }
    bytes
}

fn attributes(found: Attributes) -> Vec<u8> {
    let blocks = found.length.div_ceil(512);
    let mut bytes = [found.number, found.length, blocks].map(u64::to_le_bytes).concat();
    bytes.resize(60, 0);
    let mode = if found.is_directory { DIRECTORY } else { FILE };
    bytes.extend(numbers(&[mode, 1, 0, 0, 0, BLOCK_BYTES, 0]));
    bytes
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|byte| *byte == 0).expect("the kernel ends a name with a zero");
    std::str::from_utf8(&bytes[..end]).expect("what is tested gives its files plain names")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
