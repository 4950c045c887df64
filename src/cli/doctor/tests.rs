use std::path::Path;
use std::time::Duration;

use super::judge::judge;
use super::readings::Readings;
use super::report::{self, Finding, Verdict};
use crate::disk::{Backend, FlushTimes, Probed};

fn probed(backend: Backend) -> Probed {
    Probed { backend, reason: "because".to_string(), direct: true }
}

fn flush(microseconds: u64) -> FlushTimes {
    let time = Duration::from_micros(microseconds);
    FlushTimes { fdatasync: time, dsync: 2 * time, samples: 100 }
}

/// A machine without fault.
fn good() -> Readings {
    Readings {
        kernel_release: "6.12.3-amd64".to_string(),
        cores: Some(8),
        memory_bytes: Some(16 << 30),
        memory_limit_bytes: None,
        io_uring_disabled: Some(0),
        locked_memory_bytes: Some(8 << 20),
        open_files: Some(65_536),
        clock_source: Some("tsc".to_string()),
        file_system: 0xef53,
        free_bytes: 100 << 30,
        direct: Some(true),
        back_end: Ok(probed(Backend::Uring)),
        flush: Ok(flush(80)),
    }
}

/// The only finding that is not ok.
#[track_caller]
fn the_finding(readings: &Readings) -> Finding {
    let mut found: Vec<Finding> =
        judge(readings).into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let finding = found.remove(0);
    assert!(finding.next_step.is_some(), "{finding:?}");
    finding
}

#[test]
fn a_good_machine_is_ok() {
    let findings = judge(&good());
    assert_eq!(findings.len(), 12);
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok && finding.next_step.is_none()));
}

#[test]
fn each_fault_is_found_by_its_name() {
    use Verdict::{Bad, Warn};
    let cases: Vec<(Readings, &str, Verdict)> = vec![
        (Readings { kernel_release: "5.10.0".to_string(), ..good() }, "kernel", Warn),
        (Readings { kernel_release: "strange".to_string(), ..good() }, "kernel", Warn),
        (Readings { cores: Some(1), ..good() }, "cores", Warn),
        (Readings { cores: None, ..good() }, "cores", Warn),
        (Readings { memory_bytes: Some((1 << 30) - 1), ..good() }, "memory", Warn),
        (Readings { memory_limit_bytes: Some(512 << 20), ..good() }, "memory", Warn),
        (Readings { memory_bytes: None, ..good() }, "memory", Warn),
        (Readings { clock_source: Some("hpet".to_string()), ..good() }, "clock source", Warn),
        (Readings { io_uring_disabled: Some(1), ..good() }, "io_uring", Warn),
        (Readings { io_uring_disabled: Some(2), ..good() }, "io_uring", Warn),
        (Readings { locked_memory_bytes: Some(64 << 10), ..good() }, "locked memory", Warn),
        (Readings { open_files: Some(1024), ..good() }, "open files", Warn),
        (Readings { file_system: 0x9123_683e, ..good() }, "file system", Warn),
        (Readings { file_system: 0x0102_1994, ..good() }, "file system", Bad),
        (Readings { file_system: 0x6969, ..good() }, "file system", Bad),
        (Readings { file_system: 0x1234, ..good() }, "file system", Warn),
        (Readings { free_bytes: (256 << 20) - 1, ..good() }, "free space", Bad),
        (Readings { free_bytes: 256 << 20, ..good() }, "free space", Warn),
        (Readings { direct: Some(false), ..good() }, "O_DIRECT", Warn),
        (Readings { direct: None, ..good() }, "O_DIRECT", Warn),
        (Readings { back_end: Ok(probed(Backend::Blocking)), ..good() }, "back end", Warn),
        (Readings { back_end: Err("no".to_string()), ..good() }, "back end", Bad),
        (Readings { flush: Ok(flush(6000)), ..good() }, "flush time", Warn),
        (Readings { flush: Ok(flush(1)), ..good() }, "flush time", Warn),
        (Readings { flush: Err("no".to_string()), ..good() }, "flush time", Bad),
    ];
    for (readings, name, verdict) in cases {
        let finding = the_finding(&readings);
        assert_eq!((finding.name, finding.verdict), (name, verdict), "{finding:?}");
    }
}

#[test]
fn what_has_no_limit_is_ok() {
    let readings = Readings {
        locked_memory_bytes: None,
        open_files: None,
        io_uring_disabled: None,
        clock_source: None,
        kernel_release: "10.0".to_string(),
        ..good()
    };
    assert!(judge(&readings).iter().all(|finding| finding.verdict == Verdict::Ok));
}

#[test]
fn the_table_has_a_line_for_each_finding_and_each_step() {
    let findings = [Finding::ok("cores", "8"), Finding::bad("file system", "tmpfs", "move it")];
    let table = report::table(&findings);
    assert_eq!(table, "ok    cores        8\nbad   file system  tmpfs\n                   -> move it\n");
}

#[test]
fn json_holds_the_same() {
    let findings = [Finding::warn("cores", "1", "give two")];
    let read: serde_json::Value = serde_json::from_str(&report::json(&findings)).unwrap();
    let expected = serde_json::json!([{"name": "cores", "value": "1", "verdict": "warn", "next_step": "give two"}]);
    assert_eq!(read, expected);
}

#[test]
fn this_machine_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let readings = Readings::take(directory.path()).unwrap();
    assert!(readings.cores.is_some() && readings.memory_bytes.is_some(), "{readings:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
    let failure = Readings::take(Path::new("no/such/directory")).unwrap_err();
    assert!(failure.to_string().contains("no/such/directory"), "{failure}");
}
