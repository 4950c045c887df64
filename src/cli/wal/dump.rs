//! `trilith wal dump`: every record that stands in a log's files, in the order in which it was written.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use super::reading::Reading;
use super::verify::{self, Shown};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::codec;
use crate::disk::Directory;
use crate::types::{Data, GroupId, Index, Membership, Payload, SegmentNumber};
use crate::wal::{FRAMES_START, Piece, RecordHead, RecordKind, contents};

const HEAD: &str = "segment:offset  group  index@term  kind  bytes  payload";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory of a node, or of a log by itself
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Show this group alone
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
    /// Show entries from this index on
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Show entries below this index
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX)]
    to: u64,
    /// Show this segment alone
    #[arg(long, value_name = "NUMBER")]
    segment: Option<u64>,
    /// Show payloads in hexadecimal digits
    #[arg(long)]
    hex: bool,
    /// Show payloads as text, with escapes for what is none; this is how it is done without --hex
    #[arg(long, conflicts_with = "hex")]
    text: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Prints what there is; as with verify it is a failure if something is torn, corrupt or unclear.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (reading, files) = Reading::take_with_files(&arguments.directory)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = write(&reading, &files, arguments, &mut out);
    if let Some(line) = printed.as_ref().ok().and_then(|&records| emptiness(arguments, records)) {
        output::complain(&line);
    }
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Other,
            format!("standard output: {error}"),
            "check where the output goes; nothing else was wrong",
        )),
        _ => verify::judge(&reading),
    }
}

/// What is said if nothing was printed of what was asked for.
pub fn emptiness(arguments: &Arguments, records: u64) -> Option<&'static str> {
    let Arguments { group, from, to, segment, .. } = arguments;
    let is_filtered = group.is_some() || segment.is_some() || (*from, *to) != (0, u64::MAX);
    (records == 0 && is_filtered).then_some("no record is what --group, --from, --to and --segment ask for")
}

/// Gives how many records were written, the damaged among them.
pub fn write(reading: &Reading, files: &Directory, arguments: &Arguments, out: &mut impl Write) -> io::Result<u64> {
    let mut printer = Printer { reading, arguments, out, printed: 0, records: 0 };
    printer.begin()?;
    let mut outcome = Ok(());
    let only = arguments.segment.map(SegmentNumber);
    let all = (&reading.analysis, reading.findings.as_slice());
    let _flow = contents(files, all, only, &mut |piece| {
        outcome = printer.piece(&piece);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome?;
    if let Some(more) = reading.more() {
        printer.put(&format!("-- {more}"), || json!({"what": more}))?;
    }
    printer.end()?;
    Ok(printer.records)
}

struct Printer<'a, W> {
    reading: &'a Reading,
    arguments: &'a Arguments,
    out: &'a mut W,
    /// Lines, or objects of the array.
    printed: u64,
    records: u64,
}

impl<W: Write> Printer<'_, W> {
    fn begin(&mut self) -> io::Result<()> {
        match self.arguments.output {
            Format::Table => writeln!(self.out, "{HEAD}"),
            Format::Json => write!(self.out, "["),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        if self.arguments.output == Format::Json {
            writeln!(self.out, "\n]")?;
        }
        self.out.flush()
    }

    fn piece(&mut self, piece: &Piece<'_>) -> io::Result<()> {
        match piece {
            Piece::Record { segment, offset, head, payload } => {
                if self.wants(head.group, head.id.index) {
                    self.records += 1;
                    self.record((*segment, *offset), head, payload)?;
                }
                Ok(())
            }
            Piece::Damaged { segment, offset, group, kind, id, fault } => {
                if !self.wants(*group, id.index) {
                    return Ok(());
                }
                self.records += 1;
                let kind = cut_name(*kind).unwrap_or("entry");
                let text = format!("{segment}:{offset}  {group}  {id}  {kind}  DAMAGED: {fault}");
                let (segment, group, index, term) = (segment.0, group.0, id.index.0, id.term.0);
                let fault = fault.to_string();
                self.put(&text, || {
                    json!({"segment": segment, "offset": offset, "group": group, "index": index, "term": term,
                           "kind": kind, "damaged": fault})
                })
            }
            Piece::Finding(finding) => self.put(&format!("-- {finding}"), || {
                serde_json::to_value(Shown::of(self.reading, finding)).expect("numbers and strings are JSON")
            }),
            Piece::Unjoined { segment } => {
                self.remark(*segment, FRAMES_START, "not joined to the log: what can be read in this segment follows")
            }
            Piece::Unread { segment, bytes, problem } => {
                self.remark(*segment, bytes.start, &format!("no frame can be read up to {}: {problem}", bytes.end))
            }
            Piece::Undirected { segment, offset } => {
                let what =
                    "this frame's directory cannot be read: its records up to the first damaged one follow, if any";
                self.remark(*segment, *offset, what)
            }
            Piece::Changed { segment, offset } => {
                self.remark(*segment, *offset, "the segment was taken into other use while it was read")
            }
        }
    }

    fn remark(&mut self, segment: SegmentNumber, offset: u64, what: &str) -> io::Result<()> {
        let place = format!("-- {segment}:{offset}: {what}");
        self.put(&place, || json!({"segment": segment.0, "offset": offset, "what": what}))
    }

    fn wants(&self, group: GroupId, index: Index) -> bool {
        let Arguments { group: wanted, from, to, .. } = self.arguments;
        wanted.is_none_or(|wanted| wanted == group.0) && (*from..*to).contains(&index.0)
    }

    fn record(&mut self, (segment, offset): (SegmentNumber, u64), head: &RecordHead, payload: &[u8]) -> io::Result<()> {
        let (kind, shown) = describe(head, payload, self.arguments.hex);
        let RecordHead { group, id, .. } = head;
        let quote = if matches!(kind, "data" | "unknown") && !self.arguments.hex { "\"" } else { "" };
        let text = format!("{segment}:{offset}  {group}  {id}  {kind}  {}  {quote}{shown}{quote}", payload.len());
        self.put(text.trim_end(), || {
            json!({"segment": segment.0, "offset": offset, "group": group.0, "index": id.index.0, "term": id.term.0,
                   "kind": kind, "bytes": payload.len(), "payload": shown})
        })
    }

    fn put(&mut self, line: &str, document: impl FnOnce() -> Value) -> io::Result<()> {
        match self.arguments.output {
            Format::Table => writeln!(self.out, "{line}")?,
            Format::Json => {
                let separator = if self.printed == 0 { "" } else { "," };
                write!(self.out, "{separator}\n{}", document())?;
            }
        }
        self.printed += 1;
        Ok(())
    }
}

fn cut_name(kind: RecordKind) -> Option<&'static str> {
    match kind {
        RecordKind::Entry => None,
        RecordKind::Truncate => Some("truncate"),
        RecordKind::Purge => Some("purge"),
    }
}

/// The kind of a record and its payload, for people. A client's bytes are shown as they are.
fn describe(head: &RecordHead, payload: &[u8], in_hex: bool) -> (&'static str, String) {
    if let Some(name) = cut_name(head.kind) {
        return (name, String::new());
    }
    let data = Data { bytes: Bytes::copy_from_slice(payload), checksum: head.payload_checksum };
    let (kind, meaning) = match codec::decode_payload(head.payload_kind, data) {
        Ok(Payload::Noop) => ("no-op", Some(String::new())),
        Ok(Payload::Membership(membership)) => ("membership", Some(members(&membership))),
        Ok(Payload::Trim { first }) => ("trim", Some(format!("below {first}"))),
        Ok(Payload::SnapshotPoint) => ("snapshot-point", Some(String::new())),
        Ok(Payload::Data(_)) => ("data", None),
        Err(_) => ("unknown", None),
    };
    match meaning {
        _ if in_hex => (kind, hex(payload)),
        Some(meaning) => (kind, meaning),
        None => (kind, payload.escape_ascii().to_string()),
    }
}

fn members(membership: &Membership) -> String {
    let list = |ids: Vec<String>| ids.join(" ");
    let is_voter = |id| membership.voters.contains(id) || membership.voters_outgoing.contains(id);
    let learners = membership.members.iter().filter(|member| !is_voter(&member.id));
    let mut text = format!("voters {}", list(membership.voters.iter().map(ToString::to_string).collect()));
    let outgoing = list(membership.voters_outgoing.iter().map(ToString::to_string).collect());
    let learners = list(learners.map(|member| member.id.to_string()).collect());
    let promoting = list(membership.promoting.iter().map(ToString::to_string).collect());
    for (what, ids) in [("outgoing", outgoing), ("learners", learners), ("to be promoted", promoting)] {
        if !ids.is_empty() {
            text += &format!(", {what} {ids}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes what it is given");
        out
    })
}
