//! Frames: how messages are told apart in a stream of bytes.
//!
//! A frame is its length (`u32`, of what follows), its kind (`u8`) and its body. The length is checked against the
//! limit as soon as its four bytes are there, before anything is allocated for it; and for those who are not members,
//! memory grows with what has arrived, not with what was announced.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::{Error, Reader};
use crate::limits::WIRE_FRAME_BYTES_MAX;

/// Bytes of a frame before its body: length and kind.
pub const FRAME_HEAD_BYTES: usize = 5;
/// Bytes of a frame's length, which does not count itself.
const LENGTH_BYTES: usize = 4;
/// What a receive buffer has room for at least when a read begins, so that one read takes many packets.
const READ_BYTES: usize = 64 << 10;
/// The longest text in a message.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A body of which the receive buffer is so many times the size is copied out of it.
const PINNED_MAX: usize = 4;

/// One frame. Its body shares the memory of the receive buffer, if it is a good part of it: what is kept of a frame, in
/// the log's cache or while it waits, holds in memory at most four times what it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub body: Bytes,
}

/// What has arrived of a stream and is not yet a whole frame.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    /// The size of the buffer that `bytes` is a part of; the frames before it share it.
    backing_bytes: usize,
    /// The longest frame, kind included, that this stream may carry.
    frame_bytes_max: usize,
    /// How much of a frame's announced length is allocated before it has arrived, so that it is not moved while it
    /// grows: little for a client, all of it for a member.
    trust_bytes_max: usize,
}

impl FrameBuffer {
    pub fn new(frame_bytes_max: usize, trust_bytes_max: usize) -> FrameBuffer {
        assert!(frame_bytes_max <= WIRE_FRAME_BYTES_MAX, "a stream's bound lies within that of all streams");
        FrameBuffer { bytes: BytesMut::new(), backing_bytes: 0, frame_bytes_max, trust_bytes_max }
    }

    /// Where the next bytes go. Beyond what is trusted, room doubles while a long frame arrives, so that what is
    /// allocated is at most twice what was received.
    pub fn room(&mut self) -> &mut BytesMut {
        let length = self.announced().map_or(0, |length| length.min(self.frame_bytes_max).min(self.trust_bytes_max));
        let missing = (LENGTH_BYTES + length).saturating_sub(self.bytes.len());
        if self.bytes.capacity() - self.bytes.len() < missing.max(READ_BYTES / 4) {
            let trusted = if missing > 0 { missing } else { self.bytes.len() };
            self.bytes.reserve(READ_BYTES.max(trusted));
            self.backing_bytes = self.bytes.capacity();
        }
        &mut self.bytes
    }

    /// The next frame, if it has arrived whole.
    pub fn take(&mut self) -> Result<Option<Frame>, Error> {
        let Some(length) = self.announced() else { return Ok(None) };
        if length == 0 {
            return Err(Error::Invalid { what: "frame length", found: 0 });
        }
        if length > self.frame_bytes_max {
            return Err(Error::OverLimit {
                what: "frame length",
                max: self.frame_bytes_max as u64,
                found: length as u64,
            });
        }
        if self.bytes.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let mut body = self.bytes.split_to(LENGTH_BYTES + length).freeze();
        body.advance(LENGTH_BYTES);
        let kind = body.get_u8();
        if self.backing_bytes > PINNED_MAX * body.len() {
            body = Bytes::copy_from_slice(&body);
        }
        Ok(Some(Frame { kind, body }))
    }

    /// Whether nothing of a further frame has arrived: where a stream may end.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The length of the frame that is arriving, as its sender claims.
    fn announced(&self) -> Option<usize> {
        self.bytes.first_chunk::<LENGTH_BYTES>().map(|head| u32::from_le_bytes(*head) as usize)
    }

    /// What is allocated, for the tests of the promise above.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Appends a frame whose body `put` writes. Panics if the body is over the limit: whoever makes a message keeps to
/// the bounds of limits.rs.
pub fn put_frame(out: &mut BytesMut, kind: u8, put: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    put(out);
    let length = out.len() - start - LENGTH_BYTES;
    assert!(length <= WIRE_FRAME_BYTES_MAX, "a frame of {length} bytes is over the limit");
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
}

/// Appends a length of 32 bits.
pub(super) fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32_le(u32::try_from(length).expect("frames are bounded by limits.rs"));
}

/// Appends a text, cut at a character's edge if it is over the limit: texts are for people.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    put_length(out, text.len());
    out.put_slice(text.as_bytes());
}

pub(super) fn text(reader: &mut Reader<'_>, what: &'static str) -> Result<String, Error> {
    let length = reader.length(TEXT_BYTES_MAX, what)?;
    let bytes = reader.take(length, what)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::Invalid { what: "UTF-8 text", found: u64::from(bytes[error.valid_up_to()]) })?;
    Ok(text.to_owned())
}

/// Takes `length` bytes off the front; they share the memory.
pub(super) fn take_bytes(bytes: &mut Bytes, length: usize, what: &'static str) -> Result<Bytes, Error> {
    if length > bytes.len() {
        return Err(Error::TooShort { what, needed: length, found: bytes.len() });
    }
    Ok(bytes.split_to(length))
}

/// Reads fixed fields off the front of `bytes` and moves it behind them.
pub(super) fn take_fields<T>(
    bytes: &mut Bytes,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    let taken = bytes.len() - reader.remaining();
    bytes.advance(taken);
    Ok(value)
}

/// How many items to make room for when `count` is announced and each takes at least `item_bytes`: no more than the
/// bytes that are there can hold.
pub(super) fn plausible(count: usize, item_bytes: usize, remaining: usize) -> usize {
    count.min(remaining / item_bytes)
}

pub(super) fn refuse_rest(bytes: &Bytes, what: &'static str) -> Result<(), Error> {
    match bytes.len() {
        0 => Ok(()),
        found => Err(Error::TooLong { what, found }),
    }
}

/// A flag that is 0 or 1 and nothing else.
pub(super) fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, Error> {
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::Invalid { what, found: u64::from(found) }),
    }
}
