//! Frames in and out of QUIC's streams.

use std::io;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::io::AsyncReadExt;

use crate::codec;

use super::close::CloseReason;
use super::outbox::Outbox;
use super::wire::{Frame, FrameBuffer};

/// What a client's word for a frame's length is worth.
const CLIENT_TRUST_BYTES_MAX: usize = 256 << 10;

/// Why nothing more comes out of a stream, or goes into it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the stream has ended")]
    Ended,
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
    #[error("what arrived is no valid message: {0}")]
    Malformed(#[from] codec::Error),
    #[error("nothing came in time")]
    Slow,
    #[error("refused: {0}")]
    Refused(CloseReason),
}

/// Reads frames. Many are taken out of one read.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl FrameReader {
    /// For frames from a member, whose lengths are trusted up to the bound.
    pub(super) fn of_member(stream: RecvStream, frame_bytes_max: usize) -> FrameReader {
        FrameReader { stream, buffer: FrameBuffer::new(frame_bytes_max, frame_bytes_max) }
    }

    /// For frames from a client, for whom little is allocated ahead.
    pub(super) fn of_client(stream: RecvStream, frame_bytes_max: usize) -> FrameReader {
        FrameReader { stream, buffer: FrameBuffer::new(frame_bytes_max, CLIENT_TRUST_BYTES_MAX) }
    }

    /// Waits for more bytes and takes all that are there, up to the room of the buffer. Loses nothing if cancelled.
    pub(super) async fn fill(&mut self) -> Result<(), StreamError> {
        match self.stream.read_buf(self.buffer.room()).await? {
            0 if self.buffer.is_empty() => Err(StreamError::Ended),
            0 => Err(codec::Error::TooShort { what: "frame at the end of a stream", needed: 1, found: 0 }.into()),
            _ => Ok(()),
        }
    }

    /// A frame that has arrived whole.
    pub(super) fn take(&mut self) -> Result<Option<Frame>, StreamError> {
        Ok(self.buffer.take()?)
    }

    pub(super) async fn next(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// The first frame, which must not be long in coming.
    pub(super) async fn first(&mut self, limit: Duration) -> Result<Frame, StreamError> {
        within(limit, self.next()).await
    }

    pub(super) fn stop(&mut self, reason: CloseReason) {
        // An error here says that the stream has ended already, which is what was wanted.
        let _ = self.stream.stop(reason.code());
    }
}

impl StreamError {
    /// What the other side is told.
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            StreamError::Ended | StreamError::Broken(_) => CloseReason::Done,
            StreamError::Malformed(_) => CloseReason::Malformed,
            StreamError::Slow => CloseReason::TooSlow,
            StreamError::Refused(reason) => *reason,
        }
    }
}

impl From<quinn::ConnectionError> for StreamError {
    fn from(error: quinn::ConnectionError) -> StreamError {
        StreamError::Broken(error.into())
    }
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> StreamError {
        StreamError::Broken(error.into())
    }
}

/// Bounds a greeting as a whole: also one whose own frames are never read, or that is given no stream.
pub(super) async fn within<T>(
    limit: Duration,
    greeting: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    tokio::time::timeout(limit, greeting).await.map_err(|_| StreamError::Slow)?
}

/// Writes what is put into the outbox, all that has gathered at once, until it is closed or the stream breaks.
pub(super) async fn write_all(outbox: &Outbox, stream: &mut SendStream) -> Result<(), StreamError> {
    while let Some(taken) = outbox.take().await {
        stream.write_chunk(taken.bytes).await?;
    }
    Ok(())
}
