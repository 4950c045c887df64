use bytes::Bytes;

use super::input::{Framing, Input};
use super::print::{Format, Lines};
use crate::cli::exit::{Exit, Failure};
use crate::limits::RECORD_BYTES_MAX;
use crate::net::Records;
use crate::types::Index;

fn read(bytes: &[u8], framing: Framing) -> (Vec<Bytes>, Result<(), Failure>) {
    let mut input = Input::of(Box::new(std::io::Cursor::new(bytes.to_vec())), "in", framing);
    let mut all = Vec::new();
    loop {
        let mut batch = Vec::new();
        let read = input.next_batch(&mut batch);
        let is_end = batch.is_empty() || read.is_err();
        all.append(&mut batch);
        if is_end {
            return (all, read);
        }
    }
}

fn framed(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u32).to_le_bytes(), record].concat()
}

#[test]
fn a_line_is_a_record_whatever_its_bytes() {
    let cases: [(&[u8], &[&[u8]]); 5] = [
        (b"", &[]),
        (b"one\ntwo\n", &[b"one", b"two"]),
        (b"one\ntwo", &[b"one", b"two"]),
        (b"\n\r\n\xff\n", &[b"", b"\r", b"\xff"]),
        (b"\n", &[b""]),
    ];
    for (input, expected) in cases {
        let (records, end) = read(input, Framing::Lines);
        assert_eq!(records, expected);
        end.unwrap();
    }
}

#[test]
fn a_line_over_the_limit_is_named_and_those_before_it_are_taken() {
    let longest = vec![b'x'; RECORD_BYTES_MAX];
    let (records, end) = read(&[b"one\n", &longest[..], b"\n", &longest[..]].concat(), Framing::Lines);
    assert_eq!((records.len(), records[2].len()), (3, RECORD_BYTES_MAX));
    end.unwrap();
    let (records, end) = read(&[b"one\n", &longest[..], b"x\ntwo\n"].concat(), Framing::Lines);
    assert_eq!(records, [&b"one"[..]]);
    let failure = end.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.starts_with("in:2: "), "{failure}");
}

#[test]
fn a_framed_record_stands_after_its_length() {
    let bytes = [framed(b"one\n"), framed(b""), framed(b"two")].concat();
    let (records, end) = read(&bytes, Framing::Lengths);
    assert_eq!(records, [&b"one\n"[..], b"", b"two"]);
    end.unwrap();
    for cut in [2, 6] {
        let (records, end) = read(&[framed(b"one"), framed(b"two")[..cut].to_vec()].concat(), Framing::Lengths);
        assert_eq!(records, [&b"one"[..]]);
        let failure = end.unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message.starts_with("in: record 2: "), "{failure}");
    }
    let (records, end) = read(&(RECORD_BYTES_MAX as u32 + 1).to_le_bytes(), Framing::Lengths);
    assert!(records.is_empty());
    assert_eq!(end.unwrap_err().exit, Exit::Usage);
}

#[test]
fn records_are_printed_as_they_are_or_as_json() {
    let records = vec![(Index(5), Bytes::from_static(b"a\"b")), (Index(9), Bytes::from_static(b"\xff\x00"))];
    let records = Records { records, ..Records::default() };
    let print = |format| {
        let mut out = Vec::new();
        let mut lines = Lines::to(&mut out);
        lines.records(&records, format).unwrap();
        drop(lines);
        out
    };
    assert_eq!(print(Format::Text), b"5\ta\"b\n9\t\xff\x00\n");
    let json = b"{\"index\":5,\"record\":\"a\\\"b\"}\n{\"index\":9,\"record_hex\":\"ff00\"}\n";
    assert_eq!(print(Format::Json), json);
}

#[test]
fn a_reader_that_went_away_ends_the_printing_without_an_error() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut lines = Lines::to(Closed);
    lines.indexes(&[Index(1)]).unwrap();
    assert!(lines.is_gone());
    lines.indexes(&[Index(2)]).unwrap();
}
