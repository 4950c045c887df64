//! Records from a file or from standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use bytes::Bytes;

use crate::cli::exit::{Exit, Failure};
use crate::limits::RECORD_BYTES_MAX;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Records handed on together, and their bytes (one record may be more).
const BATCH_RECORDS_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 256 << 10;

/// How records are told from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    Lines,
    /// Each after its length, a u32, little-endian.
    Lengths,
}

/// Where records come from.
pub struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    /// As messages name it.
    name: String,
    framing: Framing,
    /// How many records were read.
    count: u64,
    /// The file's size, where it has one.
    pub bytes: Option<u64>,
}

impl Input {
    /// `-` is standard input.
    pub fn open(path: &Path, framing: Framing) -> Result<Input, Failure> {
        if path == Path::new("-") {
            return Ok(Input::of(Box::new(io::stdin()), "standard input", framing));
        }
        let unreadable = |error: io::Error| {
            let message = format!("{}: {error}", path.display());
            Failure::new(
                Exit::Usage,
                message,
                "name a file that exists and that this user may read, or - for standard input",
            )
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let input = Input::of(Box::new(file), &path.display().to_string(), framing);
        Ok(Input { bytes: metadata.is_file().then_some(metadata.len()), ..input })
    }

    pub fn of(reader: Box<dyn Read + Send>, name: &str, framing: Framing) -> Input {
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Input { reader, name: name.to_owned(), framing, count: 0, bytes: None }
    }

    /// The records that are there, at least one; none means the end. Waits for the first one only, so that what a person
    /// types leaves at once.
    pub fn next_batch(&mut self, into: &mut Vec<Bytes>) -> Result<(), Failure> {
        let mut bytes = 0;
        while into.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            if !into.is_empty() && !self.has_whole_record() {
                return Ok(());
            }
            let Some(record) = self.next()? else { return Ok(()) };
            bytes += record.len();
            into.push(record);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let record = match self.framing {
            Framing::Lines => self.next_line()?,
            Framing::Lengths => self.next_framed()?,
        };
        self.count += u64::from(record.is_some());
        Ok(record.map(Bytes::from))
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        // One more than a record and its newline shows that it is too long, and bounds what is read.
        let read = (&mut self.reader).take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        if read.map_err(|error| self.unreadable(&error))? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > RECORD_BYTES_MAX {
            return Err(self.too_large("more than"));
        }
        Ok(Some(line))
    }

    fn next_framed(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut head = [0; 4];
        let is_end = self.reader.fill_buf().map(<[u8]>::is_empty);
        if is_end.map_err(|error| self.unreadable(&error))? {
            return Ok(None);
        }
        self.reader.read_exact(&mut head).map_err(|error| self.unreadable(&error))?;
        let length = u32::from_le_bytes(head) as usize;
        if length > RECORD_BYTES_MAX {
            return Err(self.too_large(&format!("{length} bytes, over")));
        }
        let mut record = vec![0; length];
        self.reader.read_exact(&mut record).map_err(|error| self.unreadable(&error))?;
        Ok(Some(record))
    }

    fn has_whole_record(&self) -> bool {
        let buffer = self.reader.buffer();
        match self.framing {
            Framing::Lines => buffer.contains(&b'\n'),
            Framing::Lengths => buffer.first_chunk().is_some_and(|head| {
                let length = u32::from_le_bytes(*head) as usize;
                length > RECORD_BYTES_MAX || buffer.len() - head.len() >= length
            }),
        }
    }

    /// How messages name the record that comes next.
    fn place(&self) -> String {
        place(&self.name, self.framing, self.count + 1)
    }

    fn too_large(&self, found: &str) -> Failure {
        let message = format!("{}: {found} the limit of {RECORD_BYTES_MAX} bytes for a record", self.place());
        Failure::new(Exit::Usage, message, "split it; everything before it was taken")
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        let message = format!("{}: {error}", self.place());
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Failure::new(Exit::Usage, message, "the last record is cut short; everything before it was taken")
            }
            _ => Failure::new(Exit::Other, message, "see whether the input can be read to its end"),
        }
    }
}

/// Where a record stands in its input; counts from 1.
pub fn place(name: &str, framing: Framing, number: u64) -> String {
    match framing {
        Framing::Lines => format!("{name}:{number}"),
        Framing::Lengths => format!("{name}: record {number}"),
    }
}
