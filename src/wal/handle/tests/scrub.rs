//! An open log is read again: at once, and slowly in the background.

use std::fs::OpenOptions;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use super::super::pace::Bucket;
use super::*;
use crate::wal::{Acknowledged, Severity};

const FAST: NonZeroU64 = NonZeroU64::new(1 << 30).unwrap();

/// Appends until so many segments are sealed.
fn fill(wal: &Wal, segments: u64) {
    while wal.counters().segments < segments {
        wal.append_records(GROUP, [vec![7; 60_000]]).unwrap().wait().unwrap();
    }
}

/// The file of a segment, counted from the oldest: their numbers may have gaps. Below the log's directory.
pub(super) fn name_of(home: &TempDir, at: usize) -> String {
    let name = segments(home)[at].file_name().unwrap().to_str().unwrap().to_owned();
    format!("log/{name}")
}

/// Through a descriptor that the log knows nothing of.
pub(super) fn flip(home: &TempDir, name: &str, offset: u64) {
    let path = home.path().join("wal").join(name);
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_log_is_verified_while_it_is_appended_to_and_purged() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let indexes = wal.append_records(GROUP, [vec![7; 50_000]]).unwrap().wait().unwrap();
                if indexes.start.0 % 20 == 0 && indexes.start.0 > 60 {
                    let last = LogId::new(Term(1), Index(indexes.start.0 - 60));
                    wal.purge_prefix(GROUP, last).unwrap().wait().unwrap();
                }
            }
        });
        let mut ends = Vec::new();
        for _ in 0..40 {
            let checked = wal.verify().unwrap();
            assert!(checked.findings.is_empty(), "{:?}", checked.findings);
            assert!(checked.frames > 0 && checked.end <= wal.durable_end());
            ends.push(checked.end);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(ends.is_sorted() && ends.first() < ends.last(), "appends went on");
    });
    wal.close().unwrap();
}

#[test]
fn verifying_an_open_log_names_what_is_damaged() {
    let home = home();
    // Reads come from the disk, where the damage is.
    let uncached = Options { tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(uncached).unwrap();
    fill(&wal, 2);
    let records = wal.counters().records;
    assert_eq!(wal.verify().unwrap().records, records);
    let name = name_of(&home, 0);
    flip(&home, &name, 30_000);
    let checked = wal.verify().unwrap();
    let [finding] = checked.findings.as_slice() else { panic!("{:?}", checked.findings) };
    assert_eq!(finding.file, name);
    assert!(finding.bytes.contains(&30_000));
    assert_eq!(finding.entries[0].to_string(), "group 0 entry 1@1");
    assert_eq!((finding.severity, finding.acknowledged), (Severity::Corrupt, Some(Acknowledged::Yes)));
    // Reading names it alike.
    let error = wal.read(GROUP, Index(1)..Index(2), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("entry 1@1"), "{error}");
    wal.close().unwrap();
    // By its seals the log opens, what is damaged is an error, and the same is found.
    let uncached = Options { tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(uncached).unwrap();
    let again = wal.read(GROUP, Index(1)..Index(2), 1 << 20).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!(wal.read(GROUP, Index(2)..Index(3), 1 << 20).unwrap().len(), 1);
    assert_eq!(wal.verify().unwrap().findings, checked.findings);
    wal.close().unwrap();
    let verified = Options { verify_at_start: true, ..options(&home, IoChoice::Blocking) };
    let refusal = Wal::open(verified).unwrap_err();
    let said = refusal.to_string();
    assert!(["entry 1@1", "acknowledged: yes"].iter().all(|part| said.contains(part)), "{said}");
    assert!(refusal.next_step().starts_with("delete nothing"), "{}", refusal.next_step());
}

#[test]
fn a_segment_whose_file_is_gone_is_a_finding_of_verify_and_scrub() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    fill(&wal, 3);
    let told = name_of(&home, 1);
    let name = home.path().join("wal").join(&told);
    let aside = home.path().join("aside");
    std::fs::rename(&name, &aside).unwrap();
    let (found, findings) = channel();
    let scrub = wal.scrub(FAST, move |finding| found.send(finding.clone()).unwrap()).unwrap();
    let finding = findings.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(finding.file, told);
    scrub.stop();
    assert!(wal.verify().unwrap().findings.iter().any(|finding| finding.severity == Severity::Corrupt));
    std::fs::rename(&aside, &name).unwrap();
    assert!(wal.verify().unwrap().findings.is_empty());
    wal.close().unwrap();
}

#[test]
fn the_scrubber_finds_damage_within_one_pass_and_tells_it_once() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    fill(&wal, 3);
    let (found, findings) = channel();
    let scrub = wal.scrub(FAST, move |finding| found.send(finding.clone()).unwrap()).unwrap();
    let begun = Instant::now();
    let wait_for = |passes: u64| {
        while scrub.counters().passes < passes {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", scrub.counters());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(1);
    assert!(scrub.findings().is_empty() && findings.try_recv().is_err());
    let name = name_of(&home, 1);
    flip(&home, &name, 200_000);
    let passes = scrub.counters().passes;
    // One may be past it already; the next one finds it.
    wait_for(passes + 2);
    let finding = findings.try_recv().expect("it was found");
    assert_eq!(finding.file, name);
    assert!(finding.bytes.contains(&200_000) && finding.acknowledged == Some(Acknowledged::Yes), "{finding}");
    assert_eq!(finding.entries.len(), 1, "{finding}");
    let ids = finding.entries[0];
    assert!(ids.term == Some(Term(1)) && ids.end == ids.first.next(), "{finding}");
    assert_eq!(scrub.findings(), [finding]);
    wait_for(passes + 4);
    assert!(findings.try_recv().is_err(), "it is told once");
    let counters = scrub.counters();
    assert_eq!((counters.findings, counters.last_pass_findings), (1, 1), "told once, and met in each pass");
    assert!(counters.last_pass.is_some() && counters.read_bytes > 0, "{counters:?}");
    wal.append_records(GROUP, ["appends go on"]).unwrap().wait().unwrap();
    wal.close().unwrap();
}

#[test]
fn the_scrubber_keeps_to_its_rate_and_stops_at_once() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    fill(&wal, 4);
    let rate = NonZeroU64::new(4 << 20).unwrap();
    let scrub = wal.scrub(rate, |_| {}).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let read = scrub.counters().read_bytes;
    // One window of 1 MiB ahead, and a machine that has other things to do.
    assert!((3 << 20..=10 << 20).contains(&read), "{read} bytes in 2 s");
    let slow = wal.scrub(NonZeroU64::new(1).unwrap(), |_| {}).unwrap();
    let begun = Instant::now();
    wal.close().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let after = scrub.counters();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((scrub.counters(), slow.counters().passes), (after, 0), "they have stopped");
    assert!(Wal::open(options(&home, IoChoice::Blocking)).is_ok(), "the directory is free");
}

#[test]
fn a_bucket_spreads_bytes_over_time() {
    let second = Duration::from_secs(1);
    let mut bucket = Bucket::new(1000, Duration::ZERO);
    assert_eq!(bucket.take(500, Duration::ZERO), Duration::ZERO);
    assert_eq!(bucket.take(500, Duration::ZERO), second / 2);
    assert_eq!(bucket.take(1000, second / 2), second / 2);
    // A pause is made up for by a tenth of a second, no more.
    assert_eq!(bucket.take(1000, 10 * second), Duration::ZERO);
    assert_eq!(bucket.take(1, 10 * second), second - second / 10);
}

/// Whether the first entry is read by map of its segment.
fn is_mapped(wal: &Wal) -> bool {
    wal.shared.log().plan_read(GROUP, Index(1), Index(2), 1).parts[0].part.may_be_mapped
}

/// Opens the log anew, by its seals, and lets the scrubber go through it once.
fn scrub_once(options: &Options) -> Wal {
    let (wal, _) = Wal::open(options.clone()).unwrap();
    assert!(!is_mapped(&wal), "no start has read it");
    scrub_pass(&wal);
    wal
}

/// Lets the scrubber go through the log once.
fn scrub_pass(wal: &Wal) {
    let scrub = wal.scrub(FAST, |_| {}).unwrap();
    let begun = Instant::now();
    while scrub.counters().passes < 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", scrub.counters());
        std::thread::sleep(Duration::from_millis(5));
    }
    scrub.stop();
}

/// They were written by this very process, and read by map until then: one has damage in it, of one the header is
/// damaged.
#[test]
fn what_the_scrubber_finds_damaged_is_not_read_by_map_any_more() {
    for offset in [200_000, 20] {
        let home = home();
        let options = Options { tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
        let (wal, _) = Wal::open(options).unwrap();
        fill(&wal, 4);
        assert!(is_mapped(&wal));
        flip(&home, &name_of(&home, 0), offset);
        scrub_pass(&wal);
        assert!(!is_mapped(&wal), "{offset}");
        wal.close().unwrap();
    }
}

#[test]
fn what_was_scrubbed_or_verified_and_found_clean_is_read_by_map() {
    let home = home();
    let options = Options { tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(options.clone()).unwrap();
    fill(&wal, 4);
    wal.close().unwrap();
    let wal = scrub_once(&options);
    assert!(is_mapped(&wal));
    assert_eq!(wal.read(GROUP, Index(1)..Index(2), 1).unwrap().len(), 1);
    wal.close().unwrap();
    let (wal, _) = Wal::open(options.clone()).unwrap();
    assert!(!is_mapped(&wal));
    assert!(wal.verify().unwrap().findings.is_empty());
    assert!(is_mapped(&wal));
    wal.close().unwrap();
    flip(&home, &name_of(&home, 0), 200_000);
    let wal = scrub_once(&options);
    assert!(!wal.verify().unwrap().findings.is_empty());
    assert!(!is_mapped(&wal), "something was found in it");
    wal.close().unwrap();
}
